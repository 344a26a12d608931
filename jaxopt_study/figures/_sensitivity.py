"""`response`: figure of the sensitivity of a result to one number, such as the learning rate."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxopt_study._checks import check_numbers, check_real
from jaxopt_study.figures._checks import check_arrays, check_axis, check_ends, check_style
from jaxopt_study.figures._curves import SMALL
from jaxopt_study.figures._style import SETTINGS, appearances, new_figure


def response(
    x: Any,
    curves: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    marks: Mapping[str, tuple[float | int, float | int]] | None = None,
    mark_label: str = "",
    level: float | int | None = None,
    level_label: str = "",
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    smallest: float | int | None = None,
    largest: float | int | None = None,
) -> Figure:
    """Draw one curve per optimizer over a common axis, with an optional marked point on each.

    With several seeds, the curve is the median, with a band: the range of up to five seeds, or the quartiles of more,
    as the axis label says.

    Args:
        x: The varied number, increasing, shape (K,).
        curves: By name, shape (K,) or (seeds, K); if a seed is not finite, the curve is interrupted.
        xlabel: The varied quantity, with its unit.
        ylabel: The result, with its unit.
        marks: By name, a point (x, y) to mark, such as a recommended setting.
        mark_label: Label of the marked points.
        level: Value at which to draw a horizontal line, such as a limit.
        level_label: Label of that line in the legend; an empty one is omitted.
        title: Title of the figure.
        log_x: Whether the horizontal axis is logarithmic; its values must be positive.
        log_y: Whether the vertical axis is logarithmic.
        smallest: Lower end of the vertical axis; None fits it.
        largest: Upper end of the vertical axis; None fits it.

    Returns:
        A figure with one axes and a legend.

    Raises:
        ValueError: If there are no curves, or one does not have shape (K,) or (seeds, K).

    Example:
        >>> figure = response([1, 2], {"a": [3.0, 4.0]}, xlabel="learning rate", ylabel="loss", marks={"a": (1, 3.0)})
        >>> [len(line.get_xdata()) for line in figure.axes[0].lines]  # the curve and its mark
        [2, 1]
    """
    check_style(
        "response", xlabel=xlabel, ylabel=ylabel, marks=marks, mark_label=mark_label, level_label=level_label,
        title=title, log_x=log_x, log_y=log_y,
    )  # fmt: skip
    if level is not None:
        check_real("response", "level", level)
    smallest, largest = check_ends("response", smallest, largest, log=log_y)
    x = check_axis("response", "x", x)
    arrays = check_arrays("response", "curves", curves)
    if not arrays:
        raise ValueError("response needs at least one curve; received none.")
    for name, values in arrays.items():
        if values.shape[-1:] != x.shape or values.ndim > 2 or not values.size:
            raise ValueError(f"The curve {name!r} needs one value per x, shape {x.shape}; received {values.shape}.")
    for name, at in (marks or {}).items():
        if name not in arrays or check_numbers("response", f"marks[{name!r}]", at).shape != (2,):
            raise ValueError(
                f"response needs marks to be a point (x, y) by the name of a curve, one of {list(arrays)}; received "
                f"{at!r} for {name!r}."
            )
    lanes = {name: np.atleast_2d(values) for name, values in arrays.items()}
    seeds = max(map(len, lanes.values()))
    share, band = ((0, 0.5, 1), "range") if seeds <= SMALL else ((0.25, 0.5, 0.75), "quartiles")
    looks = appearances(arrays)
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(8.0, 4.2)
        axes = figure.add_subplot()
        for name, values in lanes.items():
            low, middle, high = np.quantile(np.where(np.isfinite(values).all(axis=0), values, np.nan), share, axis=0)
            if len(values) > 1:
                axes.fill_between(x, low, high, color=looks[name].color, alpha=0.15, linewidth=0)
            axes.plot(x, middle, label=name, **looks[name].line(marker=""))
        for name, at in (marks or {}).items():
            look = looks[name]
            axes.plot(*at, look.marker, color=look.color, markersize=9, markeredgecolor="black", zorder=5)
        if marks and mark_label:
            axes.plot([], [], "o", color="white", markeredgecolor="black", markersize=9, label=mark_label)
        if level is not None:
            axes.axhline(level, color="black", linewidth=1.0, zorder=1, label=level_label or None)
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        if len(x) > 1:
            axes.set_xlim(x[0], x[-1])
        axes.set_ylim(smallest, largest)
        spread = f"   (line: median, band: {band} of {seeds} seeds)" if seeds > 1 else ""
        axes.set(xlabel=f"{xlabel}{spread}", ylabel=ylabel)
        axes.set_title(title, loc="left")
        figure.legend(loc="outside right center", alignment="left", handlelength=3.4)
    return figure
