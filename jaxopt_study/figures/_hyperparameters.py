"""Trials of a search as its figures draw them: checks, colours and legend."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxopt_study._checks import check_choice, check_integer, check_mapping, check_numbers, describe_argument
from jaxopt_study.figures._checks import check_flags, check_names, check_row
from jaxopt_study.figures._style import COLOURS

WORSE, MAYBE, CHOSEN, EDGE = "#9A9A9A", COLOURS[0], COLOURS[4], COLOURS[1]
DOTS: Any = (0, (1.5, 1.5))
MEANING = "May be the best: no other trial is shown to be better (95% for all together)."
SIDES = {"low": "lower", "high": "upper"}


@dataclass(frozen=True)
class Trials:
    """Scores of the trials, which of them did not diverge, and which may be the best."""

    scores: Float[np.ndarray, " trials"]
    alive: Bool[np.ndarray, " trials"]
    maybe: Bool[np.ndarray, " trials"]


def checked_trials(
    who: str, values: Any, scores: Any, maybe_best: Any, chosen: Any, log: Any, ranges: Any, edges: Any, choices: Any
) -> Trials:
    """Return the trials, with all arguments checked that the figures of a search share."""
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
            raise ValueError(f"{who}: ranges[{name!r}] must be (lower, upper), lower ≤ upper; received {ends!r}.")
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
    return Trials(np.where(alive, numbers, np.nan), alive, maybe)


def meaning_of(trials: Trials, width: float) -> list[str]:
    """Return the lines below the legend that state which trials may be the best."""
    return textwrap.wrap(MEANING, int(13 * width)) if trials.maybe.any() else []


def draw_legend(
    figure: Figure,
    trials: Trials,
    chosen: int | None,
    edge: bool,
    *,
    points: bool,
    shaded: bool = False,
    level: float | None = None,
) -> None:
    """Draw the legend below the axes, with an entry for each kind of trial that occurs."""

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
    meaning = "\n".join(meaning_of(trials, figure.get_figwidth())) if points else None
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(1, min(len(handles), columns)), handlelength=1.8,
        title=meaning, title_fontsize=8.5,
    )  # fmt: skip
