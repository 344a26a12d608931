"""Figure of the expected score against the tuning budget."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jaxopt_study.figures._bars import Triple, reach, triples
from jaxopt_study.figures._checks import check_arrays, check_axis, check_style
from jaxopt_study.figures._style import COLOURS, SETTINGS, appearances, new_figure
from jaxopt_study.figures._ticks import log_ticks

GREY = COLOURS[7]
THIN: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (1, 1.5))}


def budget_curves(
    k: Any,
    curves: Mapping[str, Triple],
    *,
    ylabel: str,
    level: float = 0.95,
    title: str = "",
    log: bool = False,
    xlabel: str = "random trials k",
) -> Figure:
    """Draw the score of the best, or the selected, of k trials against k, as one curve with its interval per name.

    If only one end of an interval is bounded, a thin dotted line shows that end: with k near the number of trials run,
    the data do not bound how much better k trials might have been.

    Args:
        k: Numbers of trials, increasing, shape (K,).
        curves: By name, the estimate and the lower and upper ends of its interval, each of shape (K,), as returned by
            `sweeps.best_of_k` and `sweeps.chosen_of_k`; infinite where unbounded.
        ylabel: The score, with its unit.
        level: Confidence level of the intervals.
        title: Title of the figure.
        log: Whether the score's axis is logarithmic.
        xlabel: Unit of the budget.

    Returns:
        A figure with one axes and a legend; the budget's axis is logarithmic if it spans a factor of 20.

    Raises:
        ValueError: If there are no curves, or one does not have a value per k.

    Example:
        >>> curve = [3.0, 2.0, 1.0], [2.0, 1.0, -np.inf], [4.0, 3.0, 2.0]
        >>> figure = budget_curves([1, 2, 3], {"adam": curve}, ylabel="loss")
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['adam', '95% interval', 'its only known end']
    """
    check_style("budget_curves", ylabel=ylabel, level=level, title=title, log=log, xlabel=xlabel)
    k = check_axis("budget_curves", "k", k)
    arrays = check_arrays("budget_curves", "curves", curves)
    if not arrays:
        raise ValueError("budget_curves needs at least one curve; received none.")
    for name, curve in arrays.items():
        if curve.shape != (3, len(k)):
            raise ValueError(f"The curve {name!r} needs three arrays of shape {k.shape}; received shape {curve.shape}.")
    rows = {name: triples(curve.T, "budget_curves") for name, curve in arrays.items()}
    looks = appearances(rows)
    banded = open_ended = False
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(8.0, 4.2)
        axes = figure.add_subplot()
        for number, (name, (estimate, lower, upper)) in enumerate((n, r.T) for n, r in rows.items()):
            look = looks[name]
            bounded = np.isfinite(lower) & np.isfinite(upper)
            if (bounded[:-1] & bounded[1:]).any():
                axes.fill_between(k, lower, upper, where=bounded, color=look.color, alpha=0.15, linewidth=0)
                banded = True
            for end in (lower, upper):
                alone = np.isfinite(end) & ~bounded
                alone[:-1] |= alone[1:]  # starting at the last point of the band
                alone &= np.isfinite(end)
                if (alone[:-1] & alone[1:]).any():
                    axes.plot(k, np.where(alone, end, np.nan), color=look.color, **THIN)
                    open_ended = True
            line = look.line(markevery=(0.02 * (number % 5), 0.12))
            axes.plot(k, np.where(np.isfinite(estimate), estimate, np.nan), label=name, **line)
        limits = reach(np.concatenate(list(rows.values())), log=log)
        axes.set_ylim(limits)
        if log:
            axes.set_yscale("log")
            log_ticks(axes.yaxis, *limits)
        if k[-1] >= 20 * k[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlim(k[0], k[-1] if len(k) > 1 else k[0] + 1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left")
        handles, _ = axes.get_legend_handles_labels()
        if banded:
            handles.append(Patch(color=GREY, alpha=0.3, linewidth=0, label=f"{level:.0%} interval"))
        if open_ended:
            known = "its only known end" if banded else f"only known end of\nthe {level:.0%} interval"
            handles.append(Line2D([], [], color=GREY, label=known, **THIN))
        figure.legend(handles=handles, loc="outside right center", alignment="left", handlelength=3.4)
    return figure
