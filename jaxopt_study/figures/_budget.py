"""Figure of the expected score against the tuning budget."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jaxopt_study.figures._bars import Triple, reach, triples
from jaxopt_study.figures._checks import check_arrays, check_axis, check_style
from jaxopt_study.figures._style import COLOURS, SETTINGS, appearances, new_figure
from jaxopt_study.figures._ticks import log_ticks

GREY = COLOURS[7]
BAR: dict[str, Any] = {"linewidth": 1.6, "alpha": 0.6}
SHIFT = 0.012  # of a bar beside that of the next name, as a share of the axis


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

    Intervals are bars at k = 1, 2, 4, … and at the last one, beside each other. Where only one end is bounded, the bar
    leads from the estimate to that end: with k near the number of trials run, the data do not bound how much better k
    trials might have been.

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
    wide = bool(k[-1] >= 20 * k[0])
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(8.0, 4.2)
        axes = figure.add_subplot()
        for number, (name, (estimate, lower, upper)) in enumerate((n, r.T) for n, r in rows.items()):
            look = looks[name]
            places = [i for i in range(len(k)) if i == len(k) - 1 or math.log2(k[i]).is_integer()]
            shift = (number - (len(rows) - 1) / 2) * SHIFT
            for i in (i for i in places if np.isfinite(estimate[i])):
                ends = [end for end in (lower[i], upper[i]) if np.isfinite(end)]
                if not ends:
                    continue
                known = len(ends) == 2
                banded, open_ended = banded or known, open_ended or not known
                x = k[i] * (1 + shift) if wide else k[i] + shift * np.ptp(k)
                axes.plot([x, x], ends if known else [estimate[i], ends[0]], color=look.color, **BAR)
                axes.plot([x] * len(ends), ends, "_", color=look.color, markersize=6, alpha=BAR["alpha"], clip_on=False)
            line = look.line(markevery=(0.02 * (number % 5), 0.12))
            axes.plot(k, np.where(np.isfinite(estimate), estimate, np.nan), label=name, **line)
        limits = reach(np.concatenate(list(rows.values())), log=log)
        axes.set_ylim(limits)
        if log:
            axes.set_yscale("log")
            log_ticks(axes.yaxis, *limits)
        if wide:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        room = 0.5 * SHIFT * len(rows)  # for the first and the last bars
        if wide:
            axes.set_xlim(k[0] * (1 - room), k[-1] * (1 + room))
        else:
            axes.set_xlim(k[0] - room * np.ptp(k), k[-1] + room * np.ptp(k) if len(k) > 1 else k[0] + 1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left")
        handles, _ = axes.get_legend_handles_labels()
        if banded:
            handles.append(Line2D([], [], color=GREY, marker="|", label=f"{level:.0%} interval", **BAR))
        if open_ended:
            known = "its only known end" if banded else f"only known end of\nthe {level:.0%} interval"
            handles.append(Line2D([], [], color=GREY, marker=9, label=known, **BAR))
        figure.legend(handles=handles, loc="outside right center", alignment="left", handlelength=3.4)
    return figure
