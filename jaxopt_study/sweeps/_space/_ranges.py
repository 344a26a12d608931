"""Dimensions that are ranges of numbers: real, on a linear or a logarithmic scale, and whole."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxopt_study._checks import check_bool, check_integer, check_real
from jaxopt_study.sweeps._space._dimension import Dimension, Edge, coordinates
from jaxopt_study.sweeps._statistics._scores import numbers

_OUTSIDE = 1e-6  # how far outside the unit interval rounding to float32 may put the coordinate of an end
_INTEGERS = (-(2**31), 2**31 - 1)  # JAX's default integers have 32 bits


@dataclass(frozen=True)
class Uniform(Dimension):
    """Real numbers, every interval as probable as it is long; `uniform` makes it."""

    low: float | int
    high: float | int
    static: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        _check_range(self, "uniform")

    def at(self, u: float | int | np.ndarray) -> Any:
        """Return low + u·(high − low)."""
        u = coordinates(u)
        return _given((1 - u) * self.low + u * self.high, self.low, self.high)

    def unit(self, value: Any) -> Any:
        """Return (value − low)/(high − low)."""
        scale = max(abs(self.low), abs(self.high))  # differences of huge numbers must not overflow
        low, high = self.low / scale, self.high / scale
        return _inside(self, value, (numbers("unit", "value", value) / scale - low) / (high - low))

    def describe(self) -> dict[str, Any]:
        """Return the kind, both ends, and whether a value shapes the program, if it does."""
        return {"kind": "uniform", "low": self.low, "high": self.high} | _static(self)


@dataclass(frozen=True)
class LogUniform(Dimension):
    """Positive numbers, every ratio as probable as its logarithm; `log_uniform` makes it."""

    low: float | int
    high: float | int
    static: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        _check_range(self, "log_uniform")
        if not self.low > 0:
            raise ValueError(f"log_uniform: expected low > 0, received {self.low!r}; for ranges with 0 use `uniform`.")

    def at(self, u: float | int | np.ndarray) -> Any:
        """Return low·(high/low)ᵘ."""
        u = coordinates(u)
        values = np.exp((1 - u) * math.log(self.low) + u * math.log(self.high))
        return _given(np.where(u == 0, self.low, np.where(u == 1, self.high, values)), self.low, self.high)

    def unit(self, value: Any) -> Any:
        """Return log(value/low)/log(high/low)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # not positive: outside, and said so below
            logarithm = np.log(numbers("unit", "value", value))
        return _inside(self, value, (logarithm - math.log(self.low)) / (math.log(self.high) - math.log(self.low)))

    def describe(self) -> dict[str, Any]:
        """Return the kind, both ends, and whether a value shapes the program, if it does."""
        return {"kind": "log_uniform", "low": self.low, "high": self.high} | _static(self)


@dataclass(frozen=True)
class Integers(Dimension):
    """Whole numbers from low to high, both included; `integers` makes it."""

    low: int
    high: int
    log: bool = False
    static: bool = True

    def __post_init__(self):
        first, last = _INTEGERS
        for name, end in (("low", self.low), ("high", self.high)):
            object.__setattr__(self, name, check_integer("integers", name, end, high=None))
        for name in ("log", "static"):
            object.__setattr__(self, name, check_bool("integers", name, getattr(self, name)))
        if not all(type(end) is int and first <= end <= last for end in (self.low, self.high)):
            raise ValueError(
                f"integers: expected whole numbers of 32 bits, received {self.low!r} and {self.high!r}; for larger "
                f"ranges search the exponent."
            )
        if self.low > self.high:
            raise ValueError(f"integers: expected low ≤ high, received {self.low} and {self.high}: no number between.")
        if self.log and self.low < 1:
            raise ValueError(f"integers: with log=True expected low ≥ 1, received {self.low}; start at 1 or drop log.")

    def at(self, u: float | int | np.ndarray) -> Any:
        """Return the integer whose cell u is in."""
        low, high = self._ends()
        u = coordinates(u)
        if self.log:
            values = np.rint(np.exp((1 - u) * math.log(low) + u * math.log(high)))
        else:
            values = np.floor(low + u * (high - low) + 0.5)
        return _given(values.astype(np.int64), self.low, self.high)

    def unit(self, value: Any) -> Any:
        """Return the middle of the integer's cell."""
        values = numbers("unit", "value", value)
        _check_known(self, value, (values == np.floor(values)) & (values >= self.low) & (values <= self.high))
        low, high = self._ends()
        if self.log:
            u = (np.log(values - 0.5) + np.log(values + 0.5) - 2 * math.log(low)) / (2 * math.log(high / low))
        else:
            u = (values - low) / (high - low)
        return u.item() if u.ndim == 0 else u

    def edge(self, value: Any, margin: float = 0.05) -> Edge | None:
        """Return the end that an integer is, or is within a margin of."""
        near = super().edge(value, margin)
        if near or self.low == self.high:
            return near
        return "low" if value == self.low else "high" if value == self.high else None

    def describe(self) -> dict[str, Any]:
        """Return the kind, both ends, the scale and whether a value shapes the program."""
        return {"kind": "integers", "low": self.low, "high": self.high, "log": self.log, "static": self.static}

    def _ends(self) -> tuple[float, float]:
        return self.low - 0.5, self.high + 0.5


def uniform(low: Any, high: Any, *, static: bool = False) -> Uniform:
    """Search real numbers between two ends, each interval as probable as it is long.

    It is for quantities that add up, such as a dropout rate. What acts by its order of magnitude, such as a learning
    rate, wants `log_uniform`.

    Args:
        low: The smallest value, finite.
        high: The largest value, finite, above `low`.
        static: Whether a value shapes the program, so that each needs one of its own: for a function that decides by
            the value while it is built, as some of Optax's schedules do.

    Returns:
        The dimension. Its values are traced, unless `static`: one program runs them all.

    Raises:
        TypeError: If an end is not a number, or `static` no flag.
        ValueError: If the range is empty or not finite.

    Example:
        >>> uniform(-1.0, 3.0).at(np.array([0.0, 0.25, 1.0]))
        array([-1.,  0.,  3.])
    """
    return Uniform(low, high, static=static)


def log_uniform(low: Any, high: Any, *, static: bool = False) -> LogUniform:
    """Search positive numbers between two ends, each decade as probable as the next.

    Args:
        low: The smallest value, above 0.
        high: The largest value, finite, above `low`.
        static: As in `uniform`.

    Returns:
        The dimension, with values low·(high/low)ᵘ. They are traced, unless `static`: one program runs them all.

    Raises:
        TypeError: If an end is not a number, or `static` no flag.
        ValueError: If the range is empty, not finite or reaches 0.

    Example:
        >>> print(f"{log_uniform(1e-4, 1.0).at(0.5):.3f}")  # half of the values are below the geometric mean
        0.010
    """
    return LogUniform(low, high, static=static)


def integers(low: int, high: int, *, log: bool = False, static: bool = True) -> Integers:
    """Search whole numbers between two ends, both included.

    Args:
        low: The smallest, of 32 bits.
        high: The largest, of 32 bits.
        log: Draw k with probability log((k + ½)/(k − ½)) up to a constant, instead of equal ones; needs `low` ≥ 1.
        static: Whether a value shapes the program, as a width does; then each value needs a program of its own. With
            False, values travel as traced integers.

    Returns:
        The dimension.

    Raises:
        TypeError: If an end is not an integer, or `log` or `static` no flag.
        ValueError: If the range is empty, not of 32 bits, or reaches 0 on a logarithmic scale.

    Example:
        >>> integers(1, 4).at(np.linspace(0.0, 1.0, 9)).tolist()
        [1, 1, 2, 2, 3, 3, 4, 4, 4]
    """
    return Integers(low, high, log, static)


def _given(values: np.ndarray | np.generic, low: float | int, high: float | int) -> Any:
    values = np.clip(values, low, high)
    return values.item() if values.ndim == 0 else values


def _inside(dimension: Dimension, value: Any, u: Any) -> Any:
    _check_known(dimension, value, (u >= -_OUTSIDE) & (u <= 1 + _OUTSIDE))
    return _given(u, 0.0, 1.0)


def _check_known(dimension: Dimension, value: Any, known: Any) -> None:
    if not np.all(known):
        wrong = np.asarray(value)[~known].ravel()[0] if np.ndim(value) else value
        raise ValueError(f"Expected a value of {dimension}, received {wrong!r}.")


def _check_range(dimension: Uniform | LogUniform, name: str) -> None:
    """Complain about ends that are no range; keep them as Python's floats."""
    for end in ("low", "high"):
        object.__setattr__(dimension, end, float(check_real(name, end, getattr(dimension, end))))
    object.__setattr__(dimension, "static", check_bool(name, "static", dimension.static))
    low, high = dimension.low, dimension.high
    if not low < high:
        raise ValueError(
            f"{name}: expected finite low < high, received {low!r} and {high!r}. A value that does not vary belongs "
            f"where the optimizer is made, not in the space."
        )


def _static(dimension: Dimension) -> dict[str, Any]:
    return {"static": True} if dimension.static else {}
