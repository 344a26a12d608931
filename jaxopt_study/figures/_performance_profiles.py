"""Figure of performance profiles over many problems."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from jaxopt_study.figures._checks import check_arrays, check_axis, check_style
from jaxopt_study.figures._style import SETTINGS, appearances, new_figure

WIDE = 6.0  # factor from which powers of two are enough ticks


def performance_profiles(
    tau: Any,
    shares: Mapping[str, Any],
    *,
    xlabel: str = "cost / cost of the best",
    num_problems: int | None = None,
    title: str = "",
) -> Figure:
    """Draw, for each solver, the share of problems on which it is within a factor τ of the best.

    A solver that is high on the left is often the best; one that is high on the right solves most problems. Lines end
    where the last share changes.

    Args:
        tau: Factors, increasing, at least 1, shape (T,).
        shares: By solver, shape (T,), as returned by `sweeps.performance_profile`.
        xlabel: The quantity that the factor compares.
        num_problems: Number of problems, shown at the axis.
        title: Title of the figure.

    Returns:
        A figure with one axes, logarithmic in τ, and a legend sorted by how often a solver is the best.

    Raises:
        ValueError: If there are no solvers, or one does not have a share per factor.

    Example:
        >>> figure = performance_profiles([1.0, 2.0], {"a": [0.3, 1.0], "b": [0.7, 0.7]}, num_problems=10)
        >>> figure.axes[0].get_ylabel()
        'share of 10 problems'
    """
    check_style("performance_profiles", xlabel=xlabel, num_problems=num_problems, title=title)
    factors = check_axis("performance_profiles", "tau", tau)
    if factors[0] < 1:
        raise ValueError(
            f"performance_profiles: tau must be ≥ 1 (the best solver has the factor 1); received {factors[0]:g}."
        )
    rows = check_arrays("performance_profiles", "shares", shares)
    if not rows or any(row.shape != factors.shape for row in rows.values()):
        shapes = {name: row.shape for name, row in rows.items()}
        raise ValueError(f"performance_profiles needs a share per factor, shape {factors.shape}; received {shapes}.")
    looks = appearances(rows)
    end = max(float(factors[-1]) ** 1.05, 1.1)
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(8.0, 4.2)
        axes = figure.add_subplot()
        for name in sorted(rows, key=lambda name: -rows[name][0]):
            line = looks[name].line(marker=None)
            axes.step(np.append(factors, end), np.append(rows[name], rows[name][-1]), where="post", label=name, **line)
        axes.set_xscale("log", base=2)
        if end < WIDE:
            axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(1.0, end)
        axes.set_ylim(0.0, 1.02)
        axes.set_xlabel(f"τ: {xlabel}, at most")
        axes.set_ylabel("share of problems" if num_problems is None else f"share of {num_problems} problems")
        axes.set_title(title, loc="left")
        figure.legend(loc="outside right center", alignment="left", handlelength=3.4, title="most often the best first")
    return figure
