"""`top_curves`: learning curves of the best trials of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxopt_study.figures._checks import check_arrays, check_axis, check_ends, check_names, check_style
from jaxopt_study.figures._curves import SMALL
from jaxopt_study.figures._style import COLOURS, SETTINGS, new_figure

NAMED = 5  # best trials that the legend names, beside the last one


def top_curves(
    steps: Any,
    train: Any,
    validation: Any,
    *,
    titles: Sequence[str],
    ylabel: str,
    title: str = "",
    log: bool = False,
    smallest: float | int | None = None,
    largest: float | int | None = None,
) -> Figure:
    """Draw the validation curves of the best trials, coloured by rank, and the training curve of the best one.

    Lines are medians over seeds; the band of the best trial is the range of up to five seeds, or the quartiles of more.
    If a seed diverges, the curve ends with a cross. The legend names the first trials and the last.

    Args:
        steps: Number of steps before each value, shape (K,).
        train: Shape (trials, seeds, K), best trial first; None draws only the validation curves.
        validation: Shape (trials, seeds, K).
        titles: One label per trial, such as "1: rate 0.02, decay 1e-6".
        ylabel: The measured quantity, with its unit.
        title: Title of the figure.
        log: Whether the axis is logarithmic.
        smallest: Lower end of the axis; None fits it.
        largest: Upper end of the axis; None fits it to the values after the first evaluation.

    Returns:
        A figure with one axes and a legend.

    Raises:
        ValueError: If there is no trial, or shapes and titles do not match.

    Example:
        >>> curves = np.ones((2, 1, 3))
        >>> figure = top_curves([0, 5, 10], curves, 2 * curves, titles=["1", "2"], ylabel="loss")
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['1', '2', 'training, 1']
    """
    check_style("top_curves", ylabel=ylabel, title=title, log=log)
    smallest, largest = check_ends("top_curves", smallest, largest, log=log)
    titles = check_names("top_curves", "titles", titles)
    steps = check_axis("top_curves", "steps", steps)
    lanes = {"validation": validation} if train is None else {"training": train, "validation": validation}
    arrays = check_arrays("top_curves", "curves", lanes)
    shape = arrays["validation"].shape
    if (
        any(values.shape != shape for values in arrays.values())
        or len(shape) != 3
        or not shape[1]
        or shape[2] != len(steps)
    ):
        shapes = [values.shape for values in arrays.values()]
        raise ValueError(f"top_curves needs curves of shape (trials, seeds, {len(steps)}); received {shapes}.")
    if not shape[0] or len(titles) != shape[0]:
        raise ValueError(f"top_curves needs at least one trial and a title per trial; received {len(titles)} titles.")
    count, seeds = shape[:2]
    share = (0, 0.5, 1) if seeds <= SMALL else (0.25, 0.5, 0.75)
    whole = {name: np.where(np.isfinite(x).all(axis=1, keepdims=True), x, np.nan) for name, x in arrays.items()}
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, count)) if count > 1 else [COLOURS[0]]
    named = [*range(min(NAMED, count)), *range(max(NAMED, count - 1), count)]
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(8.0, 4.2)
        axes = figure.add_subplot()
        for i in reversed(range(count)):  # the best on top
            low, middle, high = np.quantile(whole["validation"][i], share, axis=0)
            look: dict[str, Any] = {"color": shades[i], "zorder": 3 + (i == 0), "linewidth": 2.4 if i == 0 else 1.1}
            axes.plot(steps, middle, **look, label=titles[i] if i in named else None)
            if i == 0:
                axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
            _mark_end(axes, steps, middle, look)
        if train is not None:
            look = {"color": COLOURS[1], "linestyle": (0, (4, 1.5)), "zorder": 4}
            middle = np.median(whole["training"][0], axis=0)
            axes.plot(steps, middle, **look, label=f"training, {titles[0]}")
            _mark_end(axes, steps, middle, look)
        axes.set_yscale("log" if log else "linear")
        if len(steps) > 1:
            axes.set_xlim(steps[0], steps[-1])
        later = np.concatenate([values[:, :, min(1, len(steps) - 1) :].ravel() for values in arrays.values()])
        later = later[np.isfinite(later) & ((later > 0) | (not log))]
        if largest is None and later.size and later.max() > 0:
            largest = 1.05 * float(later.max())
        axes.set_ylim(smallest, largest)
        band = "range" if seeds <= SMALL else "quartiles"
        axes.set_xlabel("step" if seeds == 1 else f"step   (lines: medians, band: {band} of {seeds} seeds of the best)")
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left")
        found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        labels = [titles[i] for i in named] + [label for label in found if label.startswith("training, ")]
        left = count - len(named)
        heading = f"validation; {left} more between the last two" if left else "validation"
        figure.legend(
            [found[label] for label in labels], labels, loc="outside right upper", title=heading, alignment="left",
            fontsize=8.5, title_fontsize=8.5, handlelength=2.6,
        )  # fmt: skip
    return figure


def _mark_end(axes: Axes, steps: Any, middle: Any, look: Mapping[str, Any]) -> None:
    """Mark where a curve ends before the last step."""
    seen = np.flatnonzero(np.isfinite(middle))
    if seen.size and seen[-1] < len(steps) - 1:
        axes.plot(
            steps[seen[-1]], middle[seen[-1]], "x", color=look["color"], markersize=8, markeredgewidth=2, zorder=5
        )
