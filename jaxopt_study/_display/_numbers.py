"""Numbers as text, with their errors and units."""

import math
from typing import Any

import numpy as np

from jaxopt_study._display._significant_digits import digits_apart


def number(value: float | int | complex, digits: int = 4) -> str:
    """Return a number as text.

    Example:
        >>> number(0.00123456), number(1234567), number(float("inf")), number(-0.5 + 2j)
        ('0.001235', '1.235e+06', '∞', '-0.5+2i')
    """
    if isinstance(value, complex):
        sign = "-" if value.imag < 0 else "+"
        return f"{number(value.real, digits)}{sign}{number(abs(value.imag), digits)}i"
    if isinstance(value, int) and abs(value) < 10**digits:
        return str(int(value))
    return f"{value:.{digits}g}".replace("inf", "∞")


def count(value: float | int) -> str:
    """Return a whole number with separated thousands.

    Example:
        >>> count(12345)
        '12,345'
    """
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def with_error(value: float | int, error: float | int, unit: str = "") -> str:
    """Return a number ± its error, to the digits that the error allows.

    Example:
        >>> with_error(14.3217, 0.05), with_error(2.0, 0.0), with_error(1e-30, 2e-32), with_error(98.7, 0.5, "%")
        ('14.322 ± 0.050', '2', '1.000e-30 ± 2.0e-32', '98.70 ± 0.50%')
    """
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        same = number(value, 5)
        return f"{same} ± ∞{unit}" if math.isinf(error) and math.isfinite(value) else f"{same}{unit}"
    last = math.floor(math.log10(error))
    size = math.floor(math.log10(max(abs(value), error)))
    if value == 0:
        return f"0 ± {error:.1e}{unit}"
    if -3 <= size < 6 and last < 6:
        digits = max(0, 1 - last)
        return f"{value:.{digits}f} ± {error:.{digits}f}{unit}" if digits <= 6 else f"{value:.6g} ± {error:.1e}{unit}"
    return f"{value:.{min(max(1, size - last + 1), 8)}e} ± {error:.1e}{unit}"


def bounds(low: float | int, high: float | int, digits: int = 4) -> str:
    """Return two bounds, with enough digits to tell them apart.

    Example:
        >>> bounds(14.321, 14.325), bounds(2.0, 2.0), bounds(0.1, float("inf"))
        ('14.321 to 14.325', '2', '0.1 to ∞')
    """
    if low == high:
        return number(low, digits)
    shown = digits_apart(low, high, digits)
    return f"{number(low, shown)} to {number(high, shown)}"


def percent(share: float, error: float | None = None) -> str:
    """Return a share as a percentage.

    Example:
        >>> percent(0.1234), percent(0.5, 0.02)
        ('12.3%', '50.0 ± 2.0%')
    """
    return f"{number(100 * share, 3)}%" if error is None else with_error(100 * share, 100 * error, "%")


def several(number_of: int, thing: str) -> str:
    """Return a number of things.

    Example:
        >>> several(1, "trial"), several(2000, "trial")
        ('1 trial', '2,000 trials')
    """
    return f"{count(number_of)} {thing}{'s' * (number_of != 1)}"


def memory(size: float | int) -> str:
    """Return a number of bytes with its unit.

    Example:
        >>> memory(12), memory(4096), memory(3.2e9)
        ('12 B', '4.1 kB', '3.2 GB')
    """
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.1f} {unit}" if size < 100 * one else f"{size / one:,.0f} {unit}"
    return f"{size:.0f} B"


def seconds(duration: float | int) -> str:
    """Return a duration with its unit.

    Example:
        >>> seconds(2.5e-5), seconds(0.012), seconds(0.21), seconds(3.21), seconds(250)
        ('25 µs', '12 ms', '210 ms', '3.2 s', '4.2 min')
    """
    if not math.isfinite(duration):
        return "unknown"
    if duration >= 100:
        return f"{duration / 60:.1f} min" if duration < 6000 else f"{duration / 3600:.1f} h"
    unit, one = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if duration >= s), ("µs", 1e-6))
    return f"{float(f'{duration / one:.2g}'):g} {unit}"


def around(value: Any, error: Any) -> tuple[float, float, float]:
    """Return a value with the two ends of value ± error, for `intervals`."""
    return float(value), float(value) - float(error), float(value) + float(error)


def extent(values: Any) -> str:
    """Return the smallest and the largest finite number of an array.

    Example:
        >>> extent(np.array([3.0, np.nan, 1.0]))
        '1 to 3'
    """
    seen = values[np.isfinite(values)] + 0.0  # no −0
    return f"{number(seen.min().item())} to {number(seen.max().item())}" if seen.size else "not finite"
