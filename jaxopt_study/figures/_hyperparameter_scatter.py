"""Every trial's score over each hyperparameter, with the region that may contain the best value."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxopt_study._checks import check_numbers
from jaxopt_study.figures._bars import reach
from jaxopt_study.figures._checks import check_style
from jaxopt_study.figures._hyperparameters import (
    CHOSEN,
    EDGE,
    MAYBE,
    SIDES,
    WORSE,
    Trials,
    checked_trials,
    draw_legend,
    meaning_of,
)
from jaxopt_study.figures._scales import Scale, scale_of
from jaxopt_study.figures._style import SETTINGS, new_figure
from jaxopt_study.figures._ticks import log_ticks


def hyperparameter_scatter(
    values: Mapping[str, Sequence[Any]],
    scores: Any,
    *,
    ylabel: str,
    chosen: int | None = None,
    maybe_best: Any = None,
    intervals: tuple[Any, Any] | None = None,
    level: float = 0.95,
    log: Collection[str] = (),
    ranges: Mapping[str, tuple[float | int, float | int]] | None = None,
    edges: Mapping[str, str] | None = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    log_score: bool = False,
    title: str = "",
    columns: int = 3,
) -> Figure:
    """Draw every trial's score over each hyperparameter, with the region that may contain the best value.

    The shaded region extends from the smallest to the largest value among the trials that may be the best. A
    hyperparameter whose selected value is at an end of its range is flagged, since better values may lie beyond. Trials
    that diverged are crosses at the frame.

    Args:
        values: By hyperparameter, one value per trial: numbers, or options of any kind; None if it is inactive.
        scores: Shape (trials,); not finite if the trial diverged.
        ylabel: The score, with its unit.
        chosen: Index of the selected trial.
        maybe_best: Shape (trials,): whether a trial is indistinguishable from the best, as in
            `sweeps.indistinguishable`.
        intervals: Lower and upper ends of the scores' intervals, each of shape (trials,).
        level: Confidence level of the intervals.
        log: Hyperparameters with a logarithmic axis.
        ranges: By hyperparameter, the ends of its range; the axes of the others fit the values.
        edges: "low" or "high" for each hyperparameter whose selected value is at that end of its range.
        choices: All options in order, for each hyperparameter whose values are options, even if they are numbers.
        log_score: Whether the score's axis is logarithmic.
        title: Title of the figure.
        columns: Number of axes in a row.

    Returns:
        A figure with one axes per hyperparameter and one legend.

    Raises:
        ValueError: If there are no hyperparameters, or one does not have a value per trial.

    Example:
        >>> figure = hyperparameter_scatter({"rate": [0.1, 1.0]}, [2.0, 1.0], ylabel="loss", chosen=1, log=["rate"],
        ...                                 ranges={"rate": (0.01, 1.0)}, edges={"rate": "high"})
        >>> figure.axes[0].get_title(loc="left")
        'rate: at the upper end of its range'
    """
    who = "hyperparameter_scatter"
    check_style(
        who, ylabel=ylabel, level=level, ranges=ranges, edges=edges, choices=choices, log_score=log_score, title=title,
        columns=columns,
    )  # fmt: skip
    trials = checked_trials(who, values, scores, maybe_best, chosen, log, ranges, edges, choices)
    if intervals is not None:
        ends = check_numbers(who, "intervals", intervals, finite=False)
        if ends.shape != (2, len(trials.scores)) or (ends[0] > ends[1]).any():
            raise ValueError(
                f"{who}: intervals must be (lower, upper), each with {len(trials.scores)} entries, one per trial, "
                f"and lower ≤ upper; received {ends.tolist() if ends.size < 9 else f'shape {ends.shape}'}."
            )
    edges = edges or {}
    columns = min(columns, len(values))
    with matplotlib.rc_context(dict(SETTINGS)):
        rows = -(-len(values) // columns)
        width = max(5.0, 3.2 * columns)
        figure = new_figure(width, 0.9 + 2.7 * rows + 0.17 * len(meaning_of(trials, width)) + 0.02 * width)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, (name, entries) in zip(grid, values.items(), strict=False):
            scale = scale_of(entries, name in log, (ranges or {}).get(name), (choices or {}).get(name))
            _draw_points(axes, scale, trials, chosen, intervals)
            axes.set_xlim(scale.ends)
            if scale.options:
                axes.set_xticks(range(len(scale.options)), scale.options)
            else:
                _set_scale(axes, "x", name in log, scale.ends)
                if scale.whole:
                    axes.set_xticks(scale.numbers(), [f"{x:g}" for x in scale.numbers()])
                    axes.set_xticks([], minor=True)
            axes.set_xlabel(name)
            if name in edges:
                end = (ranges or {}).get(name, scale.ends)[int(edges[name] == "high")]
                axes.axvline(end, color=EDGE, linewidth=4, zorder=1, clip_on=False)
                warning = f"{name}: at the {SIDES[edges[name]]} end of its range"
                axes.set_title(warning, loc="left", color=EDGE, fontweight="bold")
        for axes in grid[len(values) :]:
            axes.remove()
        first = grid[0]
        ends = [np.asarray(end, dtype=float)[trials.alive & trials.maybe] for end in intervals or ()]
        limits = reach(trials.scores, *ends, log=log_score)  # intervals of very bad trials may leave the frame
        first.set_ylim(limits)
        _set_scale(first, "y", log_score, limits)
        for axes in grid[: len(values) : columns]:
            axes.set_ylabel(ylabel)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        shaded = any(axes.patches for axes in figure.axes)
        draw_legend(
            figure, trials, chosen, bool(edges), points=True, shaded=shaded, level=None if intervals is None else level
        )
    return figure


def _set_scale(axes: Axes, axis: str, log: bool, ends: tuple[float, float]) -> None:
    if log:
        (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
        log_ticks(axes.xaxis if axis == "x" else axes.yaxis, *ends)


def _draw_points(
    axes: Axes, scale: Scale, trials: Trials, chosen: int | None, intervals: tuple[Any, Any] | None
) -> None:
    places = scale.shaken
    inside = places[trials.maybe & np.isfinite(places)]
    if inside.size and not scale.options:  # options have no order, so no region lies between them
        axes.axvspan(inside.min(), inside.max(), color=MAYBE, alpha=0.1, linewidth=0, zorder=0)
    for among, color, size, order in ((~trials.maybe, WORSE, 14, 2), (trials.maybe, MAYBE, 30, 3)):
        among = among & trials.alive & np.isfinite(places)
        if intervals is not None:
            low, high = (np.asarray(end, dtype=float)[among] for end in intervals)
            axes.vlines(places[among], low, high, color=color, linewidth=0.9, alpha=0.45, zorder=order)
        axes.scatter(places[among], trials.scores[among], s=size, color=color, linewidths=0, alpha=0.85, zorder=order)
    lost = places[~trials.alive]
    axes.plot(
        lost, np.full(len(lost), 0.975), "x", color="black", markersize=5, alpha=0.6,
        transform=axes.get_xaxis_transform(), zorder=4,
    )  # fmt: skip
    if chosen is not None and trials.alive[chosen]:
        look = {"color": CHOSEN, "markersize": 15, "markeredgecolor": "black", "zorder": 6}
        axes.plot(places[chosen], trials.scores[chosen], "*", clip_on=False, **look)
