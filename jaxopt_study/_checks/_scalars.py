"""Checks of counts and of single real numbers."""

import math
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_study._checks._arrays import in_double
from jaxopt_study._checks._describe import appended, describe_argument

MAX_COUNT = 2**31 - 1  # JAX counts and indexes in 32 bits
_INFINITY = math.inf


def check_integer(
    who: str, name: str, value: Any, low: int | None = None, high: int | None = MAX_COUNT, *, remedy: str = ""
) -> int:
    """Return a static count as an `int`.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        value: An integer of Python or NumPy, or a concrete integer array of shape ().
        low: The least value allowed; None for no bound.
        high: The largest value allowed; None for no bound, for an integer used only in Python, such as a NumPy seed.
        remedy: A sentence to append to the message.

    Returns:
        The number as an `int`.

    Raises:
        TypeError: If the value is not a concrete integer; bools and floats raise, too.
        ValueError: If it is out of range.
    """
    expected = f"an integer{_integer_range(low, None if high == MAX_COUNT else high)}"
    if isinstance(value, Tracer):
        raise TypeError(f"{who} needs {name} to be {expected}, known before compiling; received a traced value.")
    if isinstance(value, jax.Array | np.ndarray) and value.shape == () and jnp.issubdtype(value.dtype, jnp.integer):
        value = int(value)
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_):
        whole = isinstance(value, float | np.floating) and math.isfinite(value) and float(value).is_integer()
        hint = f" Give {int(value)}." if whole else appended(remedy)
        raise TypeError(f"{who} needs {name} to be {expected}; received {describe_argument(value)}.{hint}")
    number = int(value)
    if high is not None and number > high:
        expected = f"an integer{_integer_range(low, high)}"
    elif low is None or number >= low:
        return number
    raise ValueError(f"{who} needs {name} to be {expected}; received {describe_argument(number)}.{appended(remedy)}")


def check_real(
    who: str,
    name: str,
    value: Any,
    low: float | int = -_INFINITY,
    high: float | int = _INFINITY,
    *,
    closed: str | None = None,
    remedy: str = "",
) -> Any:
    """Return one real number; raise ValueError unless it lies in an interval.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        value: A real number of Python, NumPy or JAX, or an array of shape (); the range of a traced one is not checked.
        low: Lower end of the interval.
        high: Upper end of the interval.
        closed: The included ends, "[]", "[)", "(]" or "()". The default includes finite ends and excludes infinite
            ones.
        remedy: A sentence to append to the message.

    Returns:
        The number as given, except that an integer beyond JAX's 32 bits becomes a `float`, and extended precision is
        converted as in `in_double`.

    Raises:
        TypeError: If the value is not one real number; bools raise, too.
        ValueError: If the value is out of range or NaN.
    """
    closed = closed or f"{'[' if math.isfinite(low) else '('}{']' if math.isfinite(high) else ')'}"
    expected = _interval(low, high, closed)
    if not is_real_scalar(value):
        raise TypeError(f"{who} needs {name} to be {expected}; received {describe_argument(value)}.{appended(remedy)}")
    if not isinstance(value, Tracer):
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(
                f"{who} needs {name} to be {expected}; received an integer beyond 1e308.{appended(remedy)}"
            ) from None
        above = number >= low if closed[0] == "[" else number > low
        below = number <= high if closed[1] == "]" else number < high
        if not (above and below):
            raise ValueError(f"{who} needs {name} to be {expected}; received {value}.{appended(remedy)}")
        whole = isinstance(value, Integral) or (isinstance(value, np.ndarray) and value.dtype.kind in "iu")
        if whole and abs(number) > MAX_COUNT:
            return number
    return in_double(value)


def check_static_real(
    who: str,
    name: str,
    value: Any,
    low: float | int = -_INFINITY,
    high: float | int = _INFINITY,
    *,
    closed: str | None = None,
    remedy: str = "",
) -> float:
    """Return one real number, which must be known before compiling, as a `float`; otherwise as `check_real`."""
    if isinstance(value, Tracer):
        raise TypeError(f"{who} needs {name} to be a number known before compiling; received a traced value.")
    return float(check_real(who, name, value, low, high, closed=closed, remedy=remedy))


def is_real_scalar(value: Any) -> bool:
    """Return whether a value is one real number of Python, NumPy or JAX, traced or not; a bool is not."""
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, Real):
        return True
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "shape", None) != ():
        return False
    return bool(jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def _integer_range(low: int | None, high: int | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is high is None else f" ≥ {low}" if low is not None else f" ≤ {high}"


def _interval(low: float | int, high: float | int, closed: str) -> str:
    if low == -_INFINITY and high == _INFINITY:
        return "a real number" if closed == "[]" else "a finite real number"
    if high == _INFINITY:
        sign = "≥" if closed[0] == "[" else ">"
        return f"a real number {sign} {low:g}" if closed[1] == "]" else f"a finite real number {sign} {low:g}"
    return f"a real number in {closed[0]}{low:g}, {high:g}{closed[1]}"
