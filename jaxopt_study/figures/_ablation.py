"""Figure of an ablation: the contribution of each part of an optimizer."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxopt_study.figures._bars import Triple, draw_interval, reach, triples
from jaxopt_study.figures._checks import check_names, check_style
from jaxopt_study.figures._style import COLOURS, SETTINGS, new_figure

_FAR = 20.0  # in median half widths: an effect beyond makes the axis linear only near 0


def ablation(
    names: Sequence[str],
    contributions: Sequence[Triple],
    *,
    xlabel: str,
    level: float = 0.95,
    better: tuple[str, str] | None = None,
    linear_within: float | int | None = None,
    title: str = "",
) -> Figure:
    """Draw the effect of removing, swapping or disabling each part as a dot with its interval, against a line at 0.

    A dot is filled if its interval excludes 0. If a change is unbounded, as when runs diverge without the part, the bar
    ends in an arrow at the frame; an infinite estimate is written there.

    Args:
        names: The changes, one per row; long names are wrapped.
        contributions: The change and its interval: (estimate, lower, upper), as in `sweeps.paired_difference`.
        xlabel: The quantity that changes, with its unit.
        level: Confidence level of the intervals.
        better: Labels of the sides left and right of 0, such as ("the change helps", "the change hurts").
        linear_within: Distance from 0 beyond which the axis is logarithmic, so that large changes do not hide small
            ones; None makes the whole axis linear.
        title: Title of the figure.

    Returns:
        A figure with one axes, with the first name at the top.

    Raises:
        ValueError: If there are no names, or not one contribution per name.

    Example:
        >>> figure = ablation(["bias correction"], [(0.2, 0.1, 0.3)], xlabel="change of the loss")
        >>> figure.axes[0].get_xlabel()
        'change of the loss   (95% intervals)'
    """
    check_style("ablation", xlabel=xlabel, level=level, linear_within=linear_within, title=title)
    names = check_names("ablation", "names", names)
    sides = () if better is None else check_names("ablation", "better", better, count=2)
    rows = triples(contributions, "ablation")
    if len(rows) != len(names):
        raise ValueError(f"ablation needs a contribution for each of {len(names)} names; received {len(rows)}.")
    low, high = reach(rows, 0.0)
    labels = [textwrap.fill(name, 42) for name in names]
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(8.0, 1.3 + sum(0.24 + 0.18 * len(label.splitlines()) for label in labels))
        axes = figure.add_subplot()
        axes.axvline(0.0, color="black", linewidth=1.2, zorder=1)
        if linear_within is not None:
            axes.set_xscale("symlog", linthresh=float(linear_within), linscale=0.8)
            seen = rows[np.isfinite(rows)]
            low, high = (1.5 * end(seen, initial=side * linear_within) for end, side in ((np.min, -1), (np.max, 1)))
        axes.set_xlim(low, high)
        for place, row in enumerate(rows):
            distinct = row[1] > 0 or row[2] < 0
            color = (COLOURS[1] if row[0] > 0 else COLOURS[0]) if distinct else COLOURS[7]
            draw_interval(
                axes, place, row, (low, high), color=color, markerfacecolor=color if distinct else "white",
                markeredgewidth=1.8,
            )  # fmt: skip
            if np.isinf(row[0]):
                at = {"x": low if row[0] < 0 else high, "y": place - 0.12, "ha": "left" if row[0] < 0 else "right"}
                axes.text(s="−∞" if row[0] < 0 else "∞", va="bottom", color=color, fontsize=12, **at)
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, pad=8)  # clear of arrows
        axes.grid(axis="y", visible=False)
        scale = "" if linear_within is None else f"; axis linear within ±{linear_within:.2g}, then logarithmic"
        apart = "\n" if scale else "   "  # the long form does not fit into one line
        axes.set_xlabel(f"{xlabel}{apart}({level:.0%} intervals{scale})")
        for text, side, color in zip(sides, ("left", "right"), (COLOURS[0], COLOURS[1]), strict=False):
            arrow = f"← {text}" if side == "left" else f"{text} →"
            x = 0.0 if side == "left" else 1.0
            axes.text(x, 1.02, arrow, transform=axes.transAxes, ha=side, va="bottom", fontsize=9, color=color)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def linear_within(contributions: Sequence[Triple]) -> float | None:
    """Return the half width of the linear part of the axis, if some effect is far larger than most intervals.

    Args:
        contributions: (estimate, lower, upper) of each change.

    Returns:
        The median half width of the intervals; None if no effect is far larger.
    """
    _, low, high = np.array(contributions, dtype=float).T
    widths = ((high - low) / 2)[np.isfinite(high - low) & (high > low)]
    ends = np.abs(np.concatenate([low, high]))
    ends = ends[np.isfinite(ends)]
    usual = float(np.median(widths)) if widths.size else 0.0
    return usual if usual > 0 and ends.max(initial=0.0) > _FAR * usual else None
