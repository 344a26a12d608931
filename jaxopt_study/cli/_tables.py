"""Formatting of numbers and intervals, and CSV tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxopt_study import records
from jaxopt_study.figures import decimals_apart, digits_apart


def number(value: float | int) -> str:
    """Return a number in two digits, as briefly as possible.

    Args:
        value: The number.

    Example:
        >>> number(0.0012345), number(10.0), number(1.24e-5), number(0.5), number(1000.0), number(0.0)
        ('.0012', '10', '1.2e-5', '.5', '1000', '0')
    """
    if value and not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    text = f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def interval(estimate: float | int, lower: float | int, upper: float | int, *, share: bool = False) -> str:
    """Return an estimate with its interval.

    Args:
        estimate: The estimate.
        lower: Lower end; not finite if it is not bounded.
        upper: Upper end.
        share: Whether they are proportions, which get three decimals.

    Returns:
        The three numbers, with enough digits to tell the two ends apart.

    Example:
        >>> interval(0.95, 0.94, 0.97, share=True), interval(0.1234, 0.1, np.inf), interval(0.3022, 0.30213, 0.30224)
        ('.950 (.940–.970)', '0.123 (0.1–∞)', '0.3022 (0.3021–0.3022)')
    """
    digits = decimals_apart(lower, upper, 3) if share else digits_apart(lower, upper, 3)
    one, low, high = (_one(value, share, digits) for value in (estimate, lower, upper))
    return f"{one} ({low}–{high})"


def difference(estimate: float | int, lower: float | int, upper: float | int, *, share: bool = False) -> str:
    """Return a difference with its interval, signs included.

    Args:
        estimate: The estimate.
        lower: Lower end; not finite if it is not bounded.
        upper: Upper end.
        share: Whether it is a difference of proportions, which get three decimals.

    Returns:
        The three numbers, with enough digits to tell the two ends apart.

    Example:
        >>> difference(0.123, -0.1, np.inf), difference(-0.02, -0.03, -0.01, share=True)
        ('+0.12 (−0.1 … ∞)', '−.020 (−.030 … −.010)')
    """
    digits = decimals_apart(lower, upper, 3) if share else digits_apart(lower, upper, 2)
    one, low, high = (_signed(value, share, digits) for value in (estimate, lower, upper))
    return f"{one} ({low} … {high})"


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, in one atomic step; missing values stay empty."""
    records.write_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def _signed(value: Any, share: bool, digits: int) -> str:
    if not np.isfinite(value):
        return _one(value, share, digits)
    text = f"{value:+.{digits}f}".replace("0.", ".", 1) if share else f"{value:+.{digits}g}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def _one(value: Any, share: bool, digits: int) -> str:
    if not np.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "?"
    return f"{value:.{digits}f}".removeprefix("0") if share else f"{value:.{digits}g}"
