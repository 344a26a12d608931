"""Figure of the curvature at a point: spectral density, extreme eigenvalues, and the step along the gradient."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter

from jaxopt_study._checks import check_mapping, check_real
from jaxopt_study._display import digits_apart
from jaxopt_study.curvature import SpectralDensity
from jaxopt_study.figures._checks import check_style
from jaxopt_study.figures._quadratic_model import draw_parabola
from jaxopt_study.figures._spectrum_results import checked_results, count_range, resolved
from jaxopt_study.figures._style import COLOURS, SETTINGS, new_figure

BULK, APART, PAIRS, BRACKET, EDGE = COLOURS[0], COLOURS[1], COLOURS[6], COLOURS[2], COLOURS[3]
SHARE = 3  # the axis of densities begins at this fraction (1/SHARE) of the height of a single eigenvalue
WIDE = 8  # a spectrum this many times as wide as its bulk has a logarithmic axis
# Fill colour and legend label of eigenpairs, by how well they are known.
MARKS = {
    "resolved": (PAIRS, "eigenpairs ± residual"),
    "unresolved": ("#BFBFBF", "eigenpairs ± residual, not resolved"),
    "unconverged": ("white", "eigenpairs that did not converge"),
}


def spectrum(
    results: Mapping[str, Any],
    *,
    title: str = "",
    edge: float | int | None = None,
    edge_label: str = "edge of stability",
    rate: float | int | None = None,
) -> Figure:
    """Draw a spectral density with outliers, the extreme eigenvalues with error bars, and the step along the gradient.

    The upper axes show the spectral density of the bulk, with a band of two standard errors over the probes, and
    outliers at the height of a single eigenvalue under the same kernel. The lower axes, with the same horizontal axis,
    show eigenpairs with their residuals as bars, grey if these reach 0 or each other (`resolved`), and the bracket of
    the largest eigenvalue. The axes at the side show the quadratic model along the gradient. The title gives the number
    of negative eigenvalues, as a range if only its bounds are known. If the spectrum is much wider than its bulk, the
    axis of the eigenvalues is linear near zero and logarithmic beyond.

    Args:
        results: Measurements as in the record of `jaxopt-study curvature`: "eigenpairs", "sharpness",
            "spectral_density", "gradient" and "classification", each the result of that function of `curvature`
            ("gradient" that of `ill_conditioning`) or a mapping with its fields; of the last only "index" is drawn.
            Missing results are omitted.
        title: Title of the figure.
        edge: The eigenvalue above which an optimizer's step is unstable; not drawn if None or infinite.
        edge_label: Label of the edge in the legend.
        rate: The optimizer's step ε along the gradient; not drawn if None.

    Returns:
        A figure with up to three axes and a legend.

    Raises:
        TypeError: If a field of a result is of another kind.
        ValueError: If there is neither a density nor eigenpairs, or a result lacks a field or has a wrong shape.

    Example:
        >>> pairs = {"values": [-1.0, 4.0], "residuals": [0.1, 0.2], "converged": [True, True]}
        >>> figure = spectrum({"eigenpairs": pairs}, edge=2.0)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['edge of stability', 'eigenpairs ± residual']
    """
    check_style("spectrum", title=title, edge_label=edge_label)
    if rate is not None:
        check_real("spectrum", "rate", rate, 0.0)
    if edge is not None:
        edge = float(check_real("spectrum", "edge", edge, closed="[]"))
    results = checked_results(check_mapping("spectrum", "results", results))
    if "eigenpairs" not in results and "spectral_density" not in results:
        raise ValueError("spectrum needs eigenpairs or a spectral density to draw; received neither.")
    edge = edge if edge is not None and np.isfinite(edge) else None
    with_gradient = "gradient" in results
    with matplotlib.rc_context(SETTINGS):
        layout = ConstrainedLayoutEngine(h_pad=0.02, hspace=0.0)
        figure = new_figure(9.0 if with_gradient else 6.4, 4.4, layout=layout)
        widths = (2.2, 1) if with_gradient else (1,)
        grid = figure.add_gridspec(2, len(widths), height_ratios=(3, 1), width_ratios=widths)
        ends = figure.add_subplot(grid[1, 0])
        density = figure.add_subplot(grid[0, 0], sharex=ends)
        curve = _arrays(results.get("spectral_density"))
        _draw_ends(ends, results, edge, edge_label)
        _draw_density(density, curve, edge)
        _scale(ends, results, curve, edge)
        density.tick_params(labelbottom=False)
        density.set_title("\n".join(line for line in (title, _negative(results)) if line), loc="left")
        handles, labels = density.get_legend_handles_labels()
        more_handles, more_labels = ends.get_legend_handles_labels()
        handles, labels = [*handles, *more_handles], [*labels, *more_labels]
        if with_gradient:
            draw_parabola(figure.add_subplot(grid[0, 1]), results["gradient"], rate=rate)
            corner = figure.add_subplot(grid[1, 1])
            corner.set_axis_off()
            apart = 0.5 if len(labels) < 8 else 0.2  # so that all labels fit
            corner.legend(
                handles, labels, loc="upper left", bbox_to_anchor=(-0.28, 1.1), fontsize=9, labelspacing=apart
            )
        else:
            figure.legend(handles, labels, loc="outside lower left", ncols=2, fontsize=9)
    return figure


def plot_density(density: Any, ax: Axes | None = None, *, edge: float | int | None = None) -> Axes:
    """Draw a spectral density in one axes, as `plot` does.

    Args:
        density: The density, or a mapping with its fields.
        ax: Axes to draw in; None makes a figure with one.
        edge: An eigenvalue to mark.

    Returns:
        The axes.
    """
    with matplotlib.rc_context(SETTINGS):
        ax = new_figure(6.4, 3.8).add_subplot() if ax is None else ax
        draw_spectral_density(ax, density, edge=edge)
        ax.set_title("spectral density", loc="left")
    return ax


def draw_spectral_density(
    axes: Axes,
    density: SpectralDensity | Mapping[str, Any],
    *,
    edge: float | int | None = None,
    edge_label: str = "edge of stability",
) -> None:
    """Draw a spectral density with its band and its outliers, as `spectrum` does in its upper axes.

    Args:
        axes: The axes to draw in.
        density: The density.
        edge: An eigenvalue to mark; not drawn if None or infinite.
        edge_label: Its name.
    """
    results = checked_results({"spectral_density": density})
    curve = _arrays(results["spectral_density"])
    if edge is not None:
        edge = float(check_real("plot", "edge", edge, closed="[]"))
    edge = edge if edge is not None and np.isfinite(edge) else None
    _draw_density(axes, curve, edge, edge_label)
    _scale(axes, results, curve, edge)
    axes.legend(fontsize=9)


def _negative(results: Mapping[str, Any]) -> str:
    """Return a line with the number of negative eigenvalues; empty if they were not counted."""
    index = results.get("index")
    if index is None:
        return ""
    sure = f" ({100 * index['confidence']:.3g}%)" if index["confidence"] else ""
    return f"eigenvalues below −{index['tau']:.1e}: {count_range(*index['interval'])}{sure}"


def _draw_density(axes: Axes, curve: dict[str, Any], edge: float | int | None, edge_label: str | None = None) -> None:
    axes.set_ylabel("share of eigenvalues per unit of λ")
    axes.set_yscale("log")
    if not curve:
        axes.text(0.5, 0.5, "no spectral density", transform=axes.transAxes, ha="center", color="#7F7F7F")
        return
    grid, middle, error, width = (curve[name] for name in ("grid", "density", "density_error", "kernel_width"))
    axes.set_ylabel(f"share of eigenvalues per unit of λ\n(Gaussian kernel, σ = {width:.2g})")
    floor, single = curve["floor"], SHARE * curve["floor"]
    axes.plot(grid, np.where(middle > floor, middle, np.nan), color=BULK, label="density of the bulk")
    axes.fill_between(
        grid, np.maximum(middle - 2 * error, floor), np.maximum(middle + 2 * error, floor),
        color=BULK, alpha=0.3, linewidth=0, label="± 2 standard errors",
    )  # fmt: skip
    values = curve["outliers"]
    if len(values):
        axes.vlines(values, floor, single, color=APART, linewidth=1.2)
        axes.plot(
            values, np.full(len(values), single), "o", color=APART, markersize=5, label="outliers, one eigenvalue each"
        )
    axes.set_ylim(floor, 2 * max(np.nanmax(middle + 2 * error), single))
    if edge is not None:
        axes.axvline(edge, color=EDGE, linestyle=(0, (4, 2)), linewidth=1.4, label=edge_label)


def _draw_ends(axes: Axes, results: Mapping[str, Any], edge: float | int | None, edge_label: str) -> None:
    rows: list[str] = []
    if "eigenpairs" in results:
        pairs = results["eigenpairs"]
        apart = np.where(resolved(pairs["values"], pairs["residuals"]), "resolved", "unresolved")
        kinds = np.where(pairs["converged"], apart, "unconverged")
        for kind, (face, label) in MARKS.items():
            of = kinds == kind
            if of.any():
                axes.errorbar(
                    pairs["values"][of], np.full(of.sum(), len(rows)), xerr=pairs["residuals"][of], fmt="d",
                    color=PAIRS, markerfacecolor=face, markersize=5, elinewidth=1.4, capsize=4, label=label,
                )  # fmt: skip
        rows.append("eigenpairs")
    if "sharpness" in results:
        bracket = results["sharpness"]
        low, high, sure = (bracket[name] for name in ("lower", "upper", "confidence"))
        axes.errorbar(
            [(low + high) / 2], [len(rows)], xerr=[(high - low) / 2], fmt="none",
            ecolor=BRACKET, elinewidth=4, capsize=7, capthick=2, label=f"bracket of λmax ({100 * sure:.3g}%)",
        )  # fmt: skip
        digits = digits_apart(low, high, 4)
        axes.annotate(
            f"{low:.{digits}g} to {high:.{digits}g}", (low, len(rows)), (-9, 0), textcoords="offset points",
            ha="right", va="center", color=BRACKET, fontsize=9,
        )  # fmt: skip
        rows.append("sharpness")
    if edge is not None:
        axes.axvline(edge, color=EDGE, linestyle=(0, (4, 2)), linewidth=1.4, label=edge_label)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axes.grid(axis="y", visible=False)


def _scale(axes: Axes, results: Mapping[str, Any], curve: dict[str, Any], edge: float | int | None) -> None:
    """Set the scale and the label of the axis of eigenvalues."""
    seen = [results["eigenpairs"]["values"]] if "eigenpairs" in results else []
    seen += [curve["grid"], curve["outliers"]] if curve else []
    seen += [np.array([edge])] if edge is not None else []
    values = np.concatenate([x[np.isfinite(x)] for x in seen])
    low, high = (values.min(), values.max()) if len(values) else (-1.0, 1.0)
    if curve and high - low > WIDE * np.ptp(curve["grid"]):
        decade = round(np.log10(5 * curve["kernel_width"]))  # the axis is linear within ±10^decade
        axes.set_xscale("symlog", linthresh=10.0**decade)
        axes.set_xlim(1.6 * low if low < 0 else -0.5 * 10.0**decade, 1.8 * high if high > 0 else 0.5 * 10.0**decade)
        powers = 10.0 ** np.arange(decade, np.log10(np.abs(axes.get_xlim()).max()), step=1)
        ticks = np.concatenate([-powers[::-1], [0.0], powers])
        minor = np.concatenate([sign * count * powers for sign in (-1, 1) for count in range(2, 10)])
        axes.set_xticks(ticks[(ticks > axes.get_xlim()[0]) & (ticks < axes.get_xlim()[1])])
        axes.set_xticks(minor[(minor > axes.get_xlim()[0]) & (minor < axes.get_xlim()[1])], minor=True)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"eigenvalue λ of the Hessian   (axis linear within ±{10.0**decade:g})")
    else:
        margin = 0.04 * (high - low) or 1.0
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.set_xlabel("eigenvalue λ of the Hessian")


def _arrays(density: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the density as arrays where it is above the floor; empty if there is none."""
    if density is None:
        return {}
    names = ("grid", "density", "density_error")
    arrays = {name: density[name] for name in names}
    (seen,) = np.nonzero(arrays["density"] + 2 * arrays["density_error"] > _floor(density))
    if not len(seen):  # NaN everywhere
        return {}
    arrays = {name: values[seen[0] : seen[-1] + 1] for name, values in arrays.items()}
    return arrays | {
        "outliers": density["outliers"], "kernel_width": density["kernel_width"], "floor": _floor(density),
    }  # fmt: skip


def _floor(density: Mapping[str, Any]) -> float:
    """Return the lower end of the density axis: a third of the height of a single eigenvalue under the kernel."""
    return 1 / (SHARE * density["size"] * density["kernel_width"] * np.sqrt(2 * np.pi))
