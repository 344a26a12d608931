"""Estimates and intervals as dots and bars, including unbounded intervals."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes

from jaxopt_study._checks import check_numbers

Triple = tuple[Any, Any, Any]  # estimate, lower, upper


def triples(intervals: Iterable[Any], who: str) -> Float[np.ndarray, "intervals 3"]:
    """Return intervals as an array of estimates, lower and upper ends.

    Args:
        intervals: Triples (estimate, lower, upper).
        who: The name of the figure function, for messages.

    Returns:
        Shape (n, 3). NaN is kept and not drawn.

    Raises:
        ValueError: If there are no intervals, or one does not contain its estimate.
    """
    rows = check_numbers(who, "intervals", intervals, finite=False)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise ValueError(f"{who} needs at least one (estimate, lower, upper); received shape {rows.shape}.")
    estimate, lower, upper = rows.T
    if np.any((lower > estimate) | (estimate > upper)):
        row = int(np.argmax((lower > estimate) | (estimate > upper)))
        raise ValueError(f"{who} needs lower ≤ estimate ≤ upper; received {rows[row].tolist()} at index {row}.")
    return rows


def reach(rows: Real[np.ndarray, "..."], *more: Any, log: bool = False, share: float = 0.06) -> tuple[float, float]:
    """Return the limits of an axis that shows all finite numbers, with a margin.

    Args:
        rows: Numbers to show, any shape.
        *more: Further numbers.
        log: Whether the axis is logarithmic; then only positive numbers are shown.
        share: Fraction of the axis that each margin takes.

    Returns:
        Lower and upper end.
    """
    numbers = np.concatenate([np.ravel(np.asarray(x, dtype=float)) for x in (rows, *more)])
    numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.1, 1.0)
    if log:
        margin = (high / low) ** share if high > low else 2.0
        return low / margin, high * margin
    margin = share * (high - low) if high > low else 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def draw_interval(axes: Axes, place: float | int, row: Any, limits: tuple[float, float], **look: Any) -> None:
    """Draw an estimate and its interval as a dot on a horizontal bar, with an arrow at the frame for an infinite end.

    Args:
        axes: The axes to draw in.
        place: Height of the bar.
        row: Estimate, lower and upper end.
        limits: Limits of the horizontal axis.
        **look: Arguments of `Axes.plot` for the dot; `color` also applies to the bar.
    """
    estimate, lower, upper = (float(x) for x in row)
    if np.isnan(estimate):
        return
    ends = np.clip((lower, upper), *limits)
    color = look["color"]
    axes.plot(ends, (place, place), color=color, linewidth=2.2, solid_capstyle="butt", zorder=3)
    for end, bound in ((ends[0], lower), (ends[1], upper)):
        marker = "|" if np.isfinite(bound) else ">" if bound > 0 else "<"
        axes.plot(end, place, marker, color=color, markersize=7, markeredgewidth=1.8, zorder=3, clip_on=False)
    if np.isfinite(estimate):
        axes.plot(estimate, place, **{"marker": "o", "markersize": 8, "zorder": 4, "linestyle": "none", **look})
