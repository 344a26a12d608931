"""Number of digits needed to print the two ends of an interval differently."""

import math

MOST = 9  # significant digits, enough to distinguish any two single-precision numbers


def digits_apart(low: float | int, high: float | int, least: int) -> int:
    """Return the number of significant digits that distinguishes two numbers.

    Args:
        low: One end of an interval.
        high: The other end.
        least: The smallest number of digits.

    Returns:
        The fewest digits, from `least` to nine, with which the two are printed differently; `least` if they are equal,
        not finite, or agree in nine digits.

    Example:
        >>> digits_apart(0.003021, 0.003024, 3), digits_apart(1.0, 2.0, 3), digits_apart(2.0, 2.0, 3)
        (4, 3, 3)
    """
    return _fewest(low, high, least, "g")


def decimals_apart(low: float | int, high: float | int, least: int) -> int:
    """Return the number of decimals that distinguishes two numbers, as `digits_apart` does with digits.

    Args:
        low: One end of an interval.
        high: The other end.
        least: The smallest number of decimals.

    Returns:
        The fewest decimals, from `least` to nine.

    Example:
        >>> decimals_apart(0.98121, 0.98126, 3), decimals_apart(0.9, 0.95, 3)
        (4, 3)
    """
    return _fewest(low, high, least, "f")


def _fewest(low: float | int, high: float | int, least: int, style: str) -> int:
    if low == high or not (math.isfinite(low) and math.isfinite(high)):
        return least
    enough = (digits for digits in range(least, MOST + 1) if f"{low:.{digits}{style}}" != f"{high:.{digits}{style}}")
    return next(enough, least)
