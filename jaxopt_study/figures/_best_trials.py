"""`top_curves`: learning curves of the best trials of a search, as small multiples."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxopt_study.figures._checks import check_arrays, check_axis, check_ends, check_names, check_style
from jaxopt_study.figures._curves import SMALL
from jaxopt_study.figures._style import COLOURS, SETTINGS, new_figure


def top_curves(
    steps: Any,
    train: Any,
    validation: Any,
    *,
    titles: Sequence[str],
    ylabel: str,
    title: str = "",
    columns: int = 5,
    log: bool = False,
    smallest: float | int | None = None,
    largest: float | int | None = None,
) -> Figure:
    """Draw training and validation curves of the best trials in one axes each, best first, with shared scales.

    Lines are medians over seeds; bands are the range of up to five seeds, or the quartiles of more. If a seed diverges,
    the curve ends with a cross.

    Args:
        steps: Number of steps before each value, shape (K,).
        train: Shape (trials, seeds, K), best trial first; None draws only the validation curves.
        validation: Shape (trials, seeds, K).
        titles: One title per trial, such as "1: rate 0.02, decay 1e-6".
        ylabel: The measured quantity, with its unit.
        title: Title of the figure.
        columns: Number of axes in a row; 20 trials fill four rows of five.
        log: Whether the axis is logarithmic.
        smallest: Lower end of the axis; None fits it.
        largest: Upper end of the axis; None fits it to the values after the first evaluation.

    Returns:
        A figure with one axes per trial and one legend.

    Raises:
        ValueError: If there is no trial, or shapes and titles do not match.

    Example:
        >>> curves = np.ones((2, 1, 3))
        >>> figure = top_curves([0, 5, 10], curves, 2 * curves, titles=["1", "2"], ylabel="loss")
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['1', '2']
    """
    check_style("top_curves", ylabel=ylabel, title=title, columns=columns, log=log)
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
    columns = min(columns, shape[0])
    count, seeds = shape[:2]
    looks = {"training": (COLOURS[1], (0, (4, 1.5))), "validation": (COLOURS[0], "-")}
    with matplotlib.rc_context({**SETTINGS, "font.size": 9, "axes.titlesize": 8.5, "lines.linewidth": 1.5}):
        rows = -(-count // columns)
        figure = new_figure(2.1 * columns + 0.4, 1.65 * rows + 0.8)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for i, axes in enumerate(grid[:count]):
            for name, values in arrays.items():
                color, dashes = looks[name]
                one = np.where(np.isfinite(values[i]).all(axis=0), values[i], np.nan)
                low, middle, high = np.quantile(one, (0, 0.5, 1) if seeds <= SMALL else (0.25, 0.5, 0.75), axis=0)
                axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
                axes.plot(steps, middle, color=color, linestyle=dashes, label=name)
                seen = np.flatnonzero(np.isfinite(middle))
                if seen.size and seen[-1] < len(steps) - 1:
                    axes.plot(steps[seen[-1]], middle[seen[-1]], "x", color=color, markersize=8, markeredgewidth=2)
            axes.set_title(titles[i], loc="left")
        for axes in grid[count:]:
            axes.remove()
        first = grid[0]
        first.set_yscale("log" if log else "linear")
        if len(steps) > 1:
            first.set_xlim(steps[0], steps[-1])
        later = np.concatenate([values[:, :, min(1, len(steps) - 1) :].ravel() for values in arrays.values()])
        later = later[np.isfinite(later) & ((later > 0) | (not log))]
        if largest is None and later.size and later.max() > 0:
            largest = 1.05 * float(later.max())
        first.set_ylim(smallest, largest)
        for axes in grid[max(0, count - columns) : count]:
            axes.tick_params(labelbottom=True)
        figure.supylabel(ylabel, fontsize=10)
        band = "range" if seeds <= SMALL else "quartiles"
        figure.supxlabel("step" if seeds == 1 else f"step   (line: median, band: {band} of {seeds} seeds)", fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        handles, names = first.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=2, handlelength=3.0)
    return figure
