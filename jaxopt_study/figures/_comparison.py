"""Figures of a comparison: rankings with default and tuned settings, and the matrix of pairwise differences."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Patch, Rectangle

from jaxopt_study._checks import check_numbers, describe_argument
from jaxopt_study._display import digits_apart
from jaxopt_study.figures._bars import Triple, draw_interval, reach, triples
from jaxopt_study.figures._checks import check_arrays, check_names, check_style
from jaxopt_study.figures._style import SETTINGS, Appearance, appearances, new_figure
from jaxopt_study.figures._ticks import log_ticks
from jaxopt_study.sweeps import Comparison, Differences, paired_differences

Side = tuple[Mapping[str, Any], Mapping[str, Triple]]  # scores by name, intervals by name
TINTS = {1: "#BBD9EC", 0: "#EFEFEF", -1: "#F6C9A8"}  # tints of the palette's blue and vermilion, for black text

ASIDE: dict[str, Any] = {"fontsize": 8, "color": "#555555"}


def comparison(
    default: Side | Comparison,
    tuned: Side | None = None,
    *,
    xlabel: str,
    larger_is_better: bool = False,
    level: float = 0.95,
    log: bool = False,
    headings: Sequence[str] = ("as recommended", "tuned"),
    title: str = "",
) -> Figure:
    """Draw two rankings of the same optimizers side by side, best at the top.

    A rank is 1 + the number of optimizers that are shown to be better, by the paired differences of the seeds: those
    that cannot be told apart from the best share rank 1. Lines connect the ranks of those whose order is reversed, that
    is, where each of two is shown to be better on one side; no other line is drawn. Every seed is a small dot, every
    estimate a large one in its interval. An unbounded interval ends in an arrow at the frame; the number of diverged
    seeds is written in the row. An optimizer that was not run, because it has no such settings, has a row below the
    others and no rank.

    Args:
        default: A `sweeps.Comparison`, of one problem; or the scores by name, one per seed (not finite if the seed
            diverged), and their intervals by the same names: (estimate, lower, upper), as returned by
            `sweeps.median_interval`; NaN if the optimizer was not run.
        tuned: The same after tuning, with the same names; None for a comparison, which holds both.
        xlabel: The score, with its unit.
        larger_is_better: Whether the largest estimate is at the top.
        level: Confidence level of the intervals.
        log: Whether the score's axis is logarithmic.
        headings: Headings of the two rankings.
        title: Title of the figure.

    Returns:
        A figure with two axes and a shared scale.

    Raises:
        ValueError: If there are no names, or the four mappings have different names.

    Example:
        >>> side = ({"sgd": [2.0, 2.2], "adam": [1.0, 1.1]}, {"sgd": (2.1, 1.5, 2.5), "adam": (1.05, 0.9, 1.2)})
        >>> figure = comparison(side, side, xlabel="loss")
        >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        ['1  adam', '2  sgd']
    """
    check_style("comparison", xlabel=xlabel, larger_is_better=larger_is_better, level=level, log=log, title=title)
    headings = check_names("comparison", "headings", headings, count=2)
    if isinstance(default, Comparison):
        default, tuned = _side_of(default, "default"), _side_of(default, "tuned")
    default, tuned = _side("default", default), _side("tuned", tuned)
    names = list(default[0])
    if not names or any(set(part) != set(names) for part in (default[1], *tuned)):
        raise ValueError(
            "comparison needs scores and intervals with the same names on both sides, at least one; received "
            f"{[sorted(part) for part in (*default, *tuned)]}."
        )
    looks = appearances(names)
    sides = []
    for scores, intervals in (default, tuned):
        rows = dict(zip(names, triples([intervals[name] for name in names], "comparison"), strict=True))
        worth = {name: rows[name][0] * (-1 if larger_is_better else 1) for name in names}
        run = [name for name in names if not np.isnan(worth[name])]
        better = _better({name: scores[name] for name in run}, larger_is_better, level)
        ranks = {name: 1 + sum(name == worse for _, worse in better) for name in run}
        sides.append(_Ranking(sorted(run, key=lambda name: (ranks[name], worth[name])), ranks, better, scores, rows))
    limits = reach(
        np.concatenate([row for side in sides for row in side.rows.values()]),
        *(side.scores[name] for side in sides for name in names), log=log,
    )  # fmt: skip
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(9.5, 1.5 + 0.42 * len(names))
        grid = figure.subplots(1, 2, sharex=True)
        for axes, (ranking, ranks, _, scores, rows), heading in zip(grid, sides, headings, strict=True):
            axes.set_xlim(limits)
            if log:
                axes.set_xscale("log")
                log_ticks(axes.xaxis, *limits)
            for place, name in enumerate(ranking):
                _draw_row(axes, place, np.asarray(scores[name], dtype=float), rows[name], limits, looks[name])
            missing = [name for name in names if name not in ranking]
            for place in range(len(ranking), len(names)):
                axes.text(
                    0.5, place, "not run", transform=axes.get_yaxis_transform(), **ASIDE, ha="center", va="center"
                )
            labels = [f"{ranks[name]}  {name}" for name in ranking] + [f"–  {name}" for name in missing]
            axes.set_yticks(range(len(names)), labels)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.set_title(heading, loc="left")
            axes.set_xlabel(f"{xlabel}   ({level:.0%} intervals)\nrank: 1 + the number shown to be better")
        left, right = grid
        right.yaxis.tick_right()
        right.tick_params(axis="y", pad=10)  # clear of arrows
        right.spines["left"].set_visible(False)
        for name in sorted({name for pair in _reversed(*sides) for name in pair}, key=names.index):
            start, end = (1.0, sides[0].place(name)), (0.0, sides[1].place(name))
            line = ConnectionPatch(
                start, end, left.get_yaxis_transform(), right.get_yaxis_transform(), color=looks[name].color,
                alpha=0.6, linewidth=1.5,
            )  # fmt: skip
            figure.add_artist(line)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.get_layout_engine().set(wspace=0.12)  # type: ignore[union-attr]
    return figure


def difference_matrix(
    names: Sequence[str] | Differences,
    estimate: Any = None,
    lower: Any = None,
    upper: Any = None,
    better: Any = None,
    *,
    unit: str,
    level: float = 0.95,
    title: str = "",
) -> Figure:
    """Draw all differences, row − column, with their intervals, coloured if one of the two is better.

    With `sweeps.Differences` these are the intervals that exclude 0, as the axis label says.

    Args:
        names: The differences, from `Comparison.differences`; or the names of the m results, with the arrays below.
        estimate: Shape (m, m), as in `sweeps.Differences`.
        lower: Shape (m, m).
        upper: Shape (m, m).
        better: Shape (m, m): 1 if the row is better, −1 if the column is better, 0 if undecided.
        unit: The quantity whose differences are shown.
        level: Simultaneous confidence level of all intervals.
        title: Title of the figure.

    Returns:
        A figure with one axes and a legend.

    Raises:
        ValueError: If there are fewer than two names, or shapes differ.

    Example:
        >>> one = np.array([[0.0, 1.0], [-1.0, 0.0]])
        >>> figure = difference_matrix(["a", "b"], one, one - 0.5, one + 0.5, -np.sign(one), unit="loss")
        >>> figure.axes[0].texts[0].get_text()
        '+1'
    """
    if isinstance(names, Differences):
        estimate, lower, upper, better, level = names.estimate, names.lower, names.upper, names.better, names.level
        names = names.names
    check_style("difference_matrix", unit=unit, level=level, title=title)
    names = check_names("difference_matrix", "names", names)
    m = len(names)
    arrays = [
        check_numbers("difference_matrix", name, x, finite=False)
        for name, x in (("estimate", estimate), ("lower", lower), ("upper", upper), ("better", better))
    ]
    if m < 2 or any(array.shape != (m, m) for array in arrays):
        shapes = [array.shape for array in arrays]
        raise ValueError(f"difference_matrix needs at least two names and four {m} × {m} matrices; received {shapes}.")
    with matplotlib.rc_context({**SETTINGS, "axes.grid": False}):
        figure = new_figure(max(5.8, 2.0 + 1.05 * m), 1.3 + 0.55 * m)
        axes = figure.add_subplot()
        draw_matrix(axes, names, *arrays)
        colours = f"coloured where the interval leaves out 0 ({level:.0%} for all together)"
        axes.set_xlabel(f"row − column: {unit}\n{colours}")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        meanings = {1: "row is better", -1: "column is better", 0: "no detectable difference"}
        handles = [Patch(color=TINTS[key], label=meaning) for key, meaning in meanings.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.2)
    return figure


def draw_matrix(axes: Axes, names: Sequence[str], estimate: Any, lower: Any, upper: Any, better: Any) -> None:
    """Draw the matrix of differences, row − column, with their intervals; the arguments are those of the figure."""
    sign, m = np.asarray(better), len(names)
    arrays = [np.asarray(x, float) for x in (estimate, lower, upper)]
    seen = np.abs(arrays)
    smallest = 1e-6 * np.max(seen, initial=0.0, where=np.isfinite(seen))  # less is rounding in single precision
    middle, low, high = (np.where(np.abs(array) <= smallest, 0.0, array) for array in arrays)
    for i in range(m):
        for j in range(m):
            if i == j:
                continue
            axes.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, facecolor=TINTS[int(sign[i, j])]))
            digits = digits_apart(low[i, j], high[i, j], 2)
            shown = _number(middle[i, j], max(3, digits))
            axes.text(j, i - 0.14, shown, ha="center", va="center", fontweight="bold", fontsize=9)
            ends = f"{_number(low[i, j], digits)} … {_number(high[i, j], digits)}"
            axes.text(j, i + 0.2, ends, ha="center", va="center", fontsize=7.5)
    axes.grid(visible=False)
    axes.set_xlim(-0.5, m - 0.5)
    axes.set_ylim(m - 0.5, -0.5)
    axes.set_xticks(range(m), names)
    axes.set_yticks(range(m), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


class _Ranking(NamedTuple):
    """One side of a comparison, best first, with the pairs (better, worse) that are told apart."""

    order: list[str]
    ranks: dict[str, int]
    better: set[tuple[str, str]]
    scores: Mapping[str, Any]
    rows: dict[str, Any]

    def place(self, name: str) -> float:
        """Return the middle of the rows that share the rank of a name."""
        return float(np.mean([i for i, other in enumerate(self.order) if self.ranks[other] == self.ranks[name]]))


def _better(scores: Mapping[str, Any], larger_is_better: bool, level: float) -> set[tuple[str, str]]:
    """Return the pairs (better, worse) that paired differences tell apart."""
    lengths = {len(values) for values in scores.values()}
    if len(scores) < 2 or len(lengths) > 1 or lengths == {0}:
        return set()
    found = paired_differences(scores, mode="max" if larger_is_better else "min", level=level)
    return {(found.names[i], found.names[j]) for i, j in np.argwhere(found.better > 0)}


def _reversed(left: _Ranking, right: _Ranking) -> set[tuple[str, str]]:
    return {pair for pair in left.better if pair[::-1] in right.better}


def _side_of(found: Comparison, settings: Any) -> Side:
    """Return scores and intervals of every candidate; empty and NaN for one without these settings."""
    reports, medians = found.of(None, settings), found.median(None, settings)
    scores = {name: reports[name].scores if name in reports else np.array([]) for name in found.candidates}
    nothing = (np.nan, np.nan, np.nan)
    intervals = {
        name: (medians[name].estimate, medians[name].lower, medians[name].upper) if name in medians else nothing
        for name in found.candidates
    }
    return scores, intervals


def _side(name: str, side: Any) -> tuple[dict[str, Float[np.ndarray, " _"]], dict[str, Any]]:
    if not isinstance(side, tuple | list) or len(side) != 2:
        raise TypeError(f"comparison needs {name} to be (scores, intervals); received {describe_argument(side)}.")
    scores, intervals = (check_arrays("comparison", name, part) for part in side)
    for key, values in scores.items():
        if values.ndim != 1:
            raise ValueError(
                f"comparison needs one score per seed of {key!r} in {name}; received shape {values.shape}."
            )
    return scores, intervals


def _draw_row(
    axes: Axes,
    place: int,
    scores: Float[np.ndarray, " seeds"],
    row: Float[np.ndarray, "3"],
    limits: tuple[float, float],
    look: Appearance,
) -> None:
    alive = np.isfinite(scores)
    spread = 0.22 * (np.arange(len(scores)) * 0.6180339887 % 1.0 - 0.5)  # so that equal scores do not hide each other
    axes.plot(scores[alive], place + spread[alive], ".", color=look.color, markersize=5, alpha=0.45, zorder=2)
    draw_interval(axes, place, row, limits, color=look.color, marker=look.marker, markersize=5.5)
    if not alive.all():
        text = f"{np.sum(~alive)} of {len(scores)} diverged"
        axes.annotate(
            text, (0.99, place), xycoords=axes.get_yaxis_transform(), xytext=(0, 4), textcoords="offset points",
            ha="right", va="bottom", **ASIDE,
        )  # fmt: skip


def _number(x: float, digits: int) -> str:
    if np.isnan(x) or x == 0:
        return "?" if np.isnan(x) else "0"
    return f"{x:+.{digits}g}".replace("-", "−").replace("inf", "∞")
