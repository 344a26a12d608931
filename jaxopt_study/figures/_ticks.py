"""Readable tick labels on logarithmic axes."""

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

FEW_DECADES = 1.7


def log_subdivisions(low: float, high: float) -> tuple[float, ...]:
    """Return the multiples of powers of ten at which an axis from `low` to `high` has numbers.

    Args:
        low: Lower end of the axis, positive.
        high: Upper end of the axis.

    Returns:
        1, 2 and 5 for less than two decades, where powers of ten alone are too few; otherwise 1.

    Example:
        >>> log_subdivisions(16.0, 256.0), log_subdivisions(1e-6, 1e-2)
        ((1.0, 2.0, 5.0), (1.0,))
    """
    return (1.0, 2.0, 5.0) if np.log10(high / low) < FEW_DECADES else (1.0,)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, or with powers of ten if there are many.

    Args:
        axis: The axis.
        low: Lower end of the axis, positive.
        high: Upper end of the axis.
    """
    few = len(log_subdivisions(low, high)) > 1
    axis.set_major_locator(LogLocator(subs=log_subdivisions(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}") if few else LogFormatterSciNotation())
    axis.set_minor_formatter(NullFormatter())
