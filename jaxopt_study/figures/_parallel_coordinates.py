"""Every trial as a line across one vertical axis per hyperparameter."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxopt_study.figures._checks import check_style
from jaxopt_study.figures._hyperparameters import CHOSEN, DOTS, EDGE, MAYBE, SIDES, WORSE, checked_trials, draw_legend
from jaxopt_study.figures._scales import scale_of
from jaxopt_study.figures._style import SETTINGS, new_figure

LONGEST = 14  # characters of a line of a label


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
    trials = checked_trials(who, values, scores, maybe_best, chosen, log, ranges, edges, choices)
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
        axes.set_xticks(range(len(names)), [_broken(flagged.get(name, name)) for name in names])
        for name in flagged:
            axes.get_xticklabels()[names.index(name)].set(color=EDGE, fontweight="bold")
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="x", length=0, pad=3)
        axes.set_xlim(-0.45, len(scales) - 0.8)
        axes.set_ylim(-0.04, 1.04)
        axes.set_title(title, loc="left", pad=12)
        draw_legend(figure, trials, chosen, bool(edges), points=False)
    return figure


def _broken(name: str) -> str:
    """Return a name in lines that fit between its neighbours, broken after a dot or an underscore."""
    lines = [""]
    for part in re.findall(r"[^._ \n]*[._ ]?|\n", name):
        if lines[-1] and (part == "\n" or len(lines[-1]) + len(part) > LONGEST):
            lines.append("")
        lines[-1] += part.strip("\n")
    return "\n".join(line for line in lines if line)
