"""Figures of a search: scores over each hyperparameter, and parallel coordinates."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxopt_study._checks import check_choice, check_integer, check_mapping, check_numbers, describe_argument
from jaxopt_study.figures._bars import reach
from jaxopt_study.figures._checks import check_flags, check_names, check_row, check_style
from jaxopt_study.figures._scales import Scale, scale_of
from jaxopt_study.figures._style import COLOURS, SETTINGS, new_figure
from jaxopt_study.figures._ticks import log_ticks

WORSE, MAYBE, CHOSEN, EDGE = "#9A9A9A", COLOURS[0], COLOURS[4], COLOURS[1]
DOTS: Any = (0, (1.5, 1.5))
MEANING = (
    "May be the best: no other trial is clearly better (95% for all together). One with larger errors may be, while "
    "others with better scores are not."
)
SIDES = {"low": "lower", "high": "upper"}


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
    trials = _checked(who, values, scores, maybe_best, chosen, log, ranges, edges, choices)
    if intervals is not None:
        ends = check_numbers(who, "intervals", intervals, finite=False)
        if ends.shape != (2, len(trials.scores)) or (ends[0] > ends[1]).any():
            raise ValueError(
                f"{who} needs intervals to be two ends for each of {len(trials.scores)} trials, the lower first; "
                f"received {ends.tolist() if ends.size < 9 else f'shape {ends.shape}'}."
            )
    edges = edges or {}
    columns = min(columns, len(values))
    with matplotlib.rc_context(dict(SETTINGS)):
        rows = -(-len(values) // columns)
        width = max(5.0, 3.2 * columns)
        figure = new_figure(width, 0.9 + 2.7 * rows + 0.17 * len(_meaning(trials, width)) + 0.02 * width)
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
                told = f"{name}: at the {SIDES[edges[name]]} end of its range"
                axes.set_title(told, loc="left", color=EDGE, fontweight="bold")
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
        _legend(
            figure, trials, chosen, bool(edges), points=True, shaded=shaded, level=None if intervals is None else level
        )
    return figure


def parallel_coordinates(
    values: Mapping[str, Sequence[Any]],
    scores: Any,
    *,
    score_label: str,
    chosen: int | None = None,
    maybe_best: Any = None,
    log: Collection[str] = (),
    ranges: Mapping[str, tuple[float | int, float | int]] | None = None,
    edges: Mapping[str, str] | None = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    log_score: bool = False,
    title: str = "",
) -> Figure:
    """Draw every trial as a line across one vertical axis per hyperparameter, ending at its score.

    It shows which *combinations* may be the best, which single axes cannot show. A line is interrupted at inactive
    hyperparameters, and ends before the score if the trial diverged.

    Args:
        values: As in `hyperparameter_scatter`.
        scores: As in `hyperparameter_scatter`.
        score_label: The score, with its unit.
        chosen: As in `hyperparameter_scatter`.
        maybe_best: As in `hyperparameter_scatter`.
        log: As in `hyperparameter_scatter`.
        ranges: As in `hyperparameter_scatter`.
        edges: As in `hyperparameter_scatter`.
        choices: As in `hyperparameter_scatter`.
        log_score: Whether the score's axis is logarithmic.
        title: Title of the figure.

    Returns:
        A figure with one axes, a line per trial and a legend.

    Raises:
        ValueError: As in `hyperparameter_scatter`.

    Example:
        >>> figure = parallel_coordinates({"a": [1, 2, 3], "b": ["x", "y", None]}, [0.3, 0.1, 0.2], score_label="loss")
        >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
        ['a', 'b', 'loss']
    """
    who = "parallel_coordinates"
    check_style(
        who, score_label=score_label, ranges=ranges, edges=edges, choices=choices, log_score=log_score, title=title
    )
    trials = _checked(who, values, scores, maybe_best, chosen, log, ranges, edges, choices)
    scales = [
        scale_of(entries, name in log, (ranges or {}).get(name), (choices or {}).get(name))
        for name, entries in values.items()
    ]
    scales.append(scale_of(trials.scores.tolist(), log_score, None))
    heights = np.array([scale.height(scale.shaken) for scale in scales])
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(max(6.0, 1.7 * len(scales) + 1.0), 4.4)
        axes = figure.add_subplot()
        for i in sorted(range(len(trials.scores)), key=lambda i: (i == chosen, trials.maybe[i])):
            color, width, alpha = (WORSE, 0.8, 0.5) if not trials.maybe[i] else (MAYBE, 1.4, 0.8)
            color, width, alpha = (CHOSEN, 3.2, 1.0) if i == chosen else (color, width, alpha)
            dashes = "-" if trials.alive[i] else DOTS
            axes.plot(
                heights[:, i], color=color, linewidth=width, alpha=alpha, linestyle=dashes, zorder=3 + (i == chosen)
            )
        for place, scale in enumerate(scales):
            axes.plot((place, place), (0, 1), color="black", linewidth=1.0, zorder=5)
            for at, text in scale.ticks():
                axes.plot(place, at, "_", color="black", markersize=7, zorder=5)
                box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.8}
                axes.annotate(
                    text, (place, at), (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=8.5,
                    bbox=box, zorder=8,
                )  # fmt: skip
        names = [*values, score_label]
        for name, side in (edges or {}).items():
            at = (names.index(name), float(side == "high"))
            axes.plot(*at, "^" if side == "high" else "v", color=EDGE, markersize=13, zorder=7, clip_on=False)
        flagged = {name: f"{name}:\n{SIDES[side]} end" for name, side in (edges or {}).items()}
        axes.set_xticks(range(len(names)), [flagged.get(name, name) for name in names])
        for name in flagged:
            axes.get_xticklabels()[names.index(name)].set(color=EDGE, fontweight="bold")
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="x", length=0, pad=3)
        axes.set_xlim(-0.45, len(scales) - 0.8)
        axes.set_ylim(-0.04, 1.04)
        axes.set_title(title, loc="left", pad=12)
        _legend(figure, trials, chosen, bool(edges), points=False)
    return figure


@dataclass(frozen=True)
class _Trials:
    scores: Float[np.ndarray, " trials"]
    alive: Bool[np.ndarray, " trials"]
    maybe: Bool[np.ndarray, " trials"]


def _checked(
    who: str, values: Any, scores: Any, maybe_best: Any, chosen: Any, log: Any, ranges: Any, edges: Any, choices: Any
) -> _Trials:
    if not check_mapping(who, "values", values):
        raise ValueError(f"{who} needs at least one hyperparameter; received none.")
    numbers = check_row(who, "scores", scores)
    if chosen is not None:
        check_integer(who, "chosen", chosen, 0, len(numbers) - 1)
    if isinstance(log, str) or not isinstance(log, Collection):
        raise TypeError(f"{who} needs log to be a list of hyperparameters; received {describe_argument(log)}.")
    for what, names in (
        ("values", values), ("log", log), ("ranges", ranges or ()), ("edges", edges or ()), ("choices", choices or ()),
    ):  # fmt: skip
        for name in check_names(who, f"the names of {what}" if isinstance(names, Mapping) else what, names):
            if what in {"log", "edges"}:  # ranges and choices may cover a whole space
                check_choice(who, f"the names of {what}", name, list(values))
    for name, ends in (ranges or {}).items():
        low_high = check_numbers(who, f"ranges[{name!r}]", ends)
        if low_high.shape != (2,) or low_high[0] > low_high[1]:
            raise ValueError(f"{who} needs ranges[{name!r}] to be two ends, the lower first; received {ends!r}.")
    for name, side in (edges or {}).items():
        check_choice(who, f"edges[{name!r}]", side, list(SIDES))
    for name, entries in values.items():
        options = (choices or {}).get(name)
        sequences = {f"values[{name!r}]": entries} | ({} if options is None else {f"choices[{name!r}]": options})
        for what, given in sequences.items():
            if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray):
                raise TypeError(f"{who} needs {what} to be a sequence; received {describe_argument(given)}.")
        if options is not None and not {str(x) for x in entries if x is not None} <= set(map(str, options)):
            raise ValueError(
                f"{who} needs choices[{name!r}] to include all values of the trials; received {list(options)}."
            )
        if len(entries) != len(numbers):
            raise ValueError(f"{who} needs {len(numbers)} values of {name!r}, one per trial; received {len(entries)}.")
    maybe = check_flags(
        who, "maybe_best", np.zeros(len(numbers), bool) if maybe_best is None else maybe_best, numbers.shape
    )
    alive = np.asarray(np.isfinite(numbers))
    return _Trials(np.where(alive, numbers, np.nan), alive, maybe)


def _set_scale(axes: Axes, which: str, log: bool, ends: tuple[float, float]) -> None:
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        log_ticks(axes.xaxis if which == "x" else axes.yaxis, *ends)


def _draw_points(
    axes: Axes, scale: Scale, trials: _Trials, chosen: int | None, intervals: tuple[Any, Any] | None
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


def _meaning(trials: _Trials, width: float) -> list[str]:
    return textwrap.wrap(MEANING, int(13 * width)) if trials.maybe.any() else []


def _legend(
    figure: Figure,
    trials: _Trials,
    chosen: int | None,
    edge: bool,
    *,
    points: bool,
    shaded: bool = False,
    level: float | None = None,
) -> None:
    def handle(color: str, label: str, point: dict[str, Any], line: dict[str, Any]) -> Line2D:
        return Line2D([], [], color=color, label=label, **({"linestyle": "none", **point} if points else line))

    handles = []
    if chosen is not None:
        star = {"marker": "*", "markersize": 13, "markeredgecolor": "black"}
        handles.append(handle(CHOSEN, "chosen", star, {"linewidth": 3.2}))
    if trials.maybe.any():
        handles.append(handle(MAYBE, "may be the best", {"marker": "o"}, {"linewidth": 2.0}))
    if (~trials.maybe & trials.alive).any():
        label = "worse" if trials.maybe.any() else "trial"
        handles.append(handle(WORSE, label, {"marker": "o"}, {"linewidth": 2.0}))
    if level:
        handles.append(Line2D([], [], color=WORSE, linewidth=0.9, label=f"{level:.0%} interval"))
    if shaded:
        handles.append(Patch(color=MAYBE, alpha=0.15, linewidth=0, label="where the best may lie"))
    if not trials.alive.all():
        handles.append(handle("black" if points else WORSE, "diverged", {"marker": "x"}, {"linestyle": DOTS}))
    if edge:
        bar, triangle = {"linestyle": "-", "linewidth": 4}, {"marker": "^", "linestyle": "none", "markersize": 10}
        handles.append(handle(EDGE, "end of the range: widen it", bar, triangle))
    widest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = int(figure.get_figwidth() / (0.55 + 0.085 * widest))
    meaning = "\n".join(_meaning(trials, figure.get_figwidth())) if points else None
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(1, min(len(handles), columns)), handlelength=1.8,
        title=meaning, title_fontsize=8.5,
    )  # fmt: skip
