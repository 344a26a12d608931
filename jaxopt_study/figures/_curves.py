"""Learning curves: medians over seeds with bands."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxopt_study.figures._checks import check_arrays, check_axis, check_ends, check_style
from jaxopt_study.figures._style import SETTINGS, appearances, new_figure

SMALL = 5  # up to this many seeds, a band is their range: quartiles of three numbers are not informative


def learning_curves(
    steps: Any,
    curves: Mapping[str, Any],
    *,
    ylabel: str,
    title: str = "",
    log: bool = False,
    larger_is_better: bool = False,
    smallest: float | int | None = None,
    largest: float | int | None = None,
) -> Figure:
    """Draw one curve per optimizer: the median over seeds, with a band.

    The band is the range of up to five seeds, or the quartiles of more, as the axis label says. Once a seed of an
    optimizer has diverged, the curve ends with a cross, since a median of the surviving seeds would be too optimistic.

    Args:
        steps: Number of steps before each value, shape (K,).
        curves: By name, shape (seeds, K), in the units of `ylabel`; NaN after a divergence.
        ylabel: The measured quantity, with its unit.
        title: Title of the figure.
        log: Whether the axis is logarithmic; values must be positive.
        larger_is_better: Whether the legend lists the largest final value first.
        smallest: Lower end of the axis; None fits it to the curves.
        largest: Upper end of the axis; None fits it to the curves, up to three times the highest initial value.

    Returns:
        A figure with one axes and a legend, best first.

    Raises:
        ValueError: If there are no curves, or one does not have shape (seeds, K).

    Example:
        >>> figure = learning_curves([0, 10], {"sgd": [[2.0, 1.0], [3.0, 1.5]]}, ylabel="loss")
        >>> figure.axes[0].get_xlabel()
        'step   (line: median, band: range of 2 seeds)'
    """
    check_style("learning_curves", ylabel=ylabel, title=title, log=log, larger_is_better=larger_is_better)
    smallest, largest = check_ends("learning_curves", smallest, largest, log=log)
    steps = check_axis("learning_curves", "steps", steps)
    arrays = check_arrays("learning_curves", "curves", curves)
    if not arrays:
        raise ValueError("learning_curves needs at least one curve; received none.")
    for name, values in arrays.items():
        if values.ndim != 2 or values.shape[1] != len(steps) or not len(values):
            raise ValueError(
                f"The curve {name!r} needs the shape (seeds, {len(steps)}), with a value per step; received "
                f"{values.shape}."
            )
    looks = appearances(arrays)
    num_seeds = max(len(values) for values in arrays.values())
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(8.0, 4.2)
        axes = figure.add_subplot()
        ends = {}
        for number, (name, values) in enumerate(arrays.items()):
            alive = np.isfinite(values).all(axis=0).cumprod().astype(bool)
            lost = int((~np.isfinite(values)).any(axis=1).sum())
            x, seen = steps[alive], values[:, alive]
            line = looks[name].line(markevery=(0.02 * (number % 5), 0.12))
            label = name if not lost else f"{name}  ({lost} of {len(values)} diverged)"
            if not len(x):
                axes.plot([], [], label=label, **line)
                ends[label] = -np.inf if larger_is_better else np.inf
                continue
            middle = np.median(seen, axis=0)
            low, high = np.quantile(seen, (0, 1) if num_seeds <= SMALL else (0.25, 0.75), axis=0)
            axes.fill_between(x, low, high, color=looks[name].color, alpha=0.15, linewidth=0)
            axes.plot(x, middle, label=label, **line)
            ends[label] = middle[-1]
            if lost:
                axes.plot(x[-1], middle[-1], "x", color=looks[name].color, markersize=9, markeredgewidth=2.5)
                ends[label] = -np.inf if larger_is_better else np.inf
        if log:
            axes.set_yscale("log")
        if largest is None:
            finite = [values[np.isfinite(values)] for values in arrays.values()]
            starts = [v for values in arrays.values() for v in values[:, 0] if np.isfinite(v)]
            top = max((float(values.max()) for values in finite if values.size), default=1.0)
            largest = min(top, 3 * max(starts, default=top)) if not larger_is_better and starts else None
            largest = None if largest is None or largest <= 0 else largest * (1.25 if log else 1.05)
        axes.set_ylim(bottom=smallest, top=largest)
        if len(steps) > 1:
            axes.set_xlim(steps[0], steps[-1])
        band = "range" if num_seeds <= SMALL else "quartiles"
        axes.set_xlabel("step" if num_seeds == 1 else f"step   (line: median, band: {band} of {num_seeds} seeds)")
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left")
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        best_first = sorted(ends, key=lambda label: ends[label], reverse=larger_is_better)
        figure.legend(
            [handles[label] for label in best_first], best_first, loc="outside right center",
            title="best at the end first", alignment="left", handlelength=3.4,
        )  # fmt: skip
    return figure
