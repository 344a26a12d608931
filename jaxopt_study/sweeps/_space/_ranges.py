"""Ranges of numbers: uniform, log-uniform and integers."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import check_bool, check_integer, check_static_real
from jaxopt_study.sweeps._space._dimension import Dimension, Edge, coordinates
from jaxopt_study.sweeps._statistics._scores import numbers

_OUTSIDE = 1e-6  # tolerance for coordinates outside the unit interval after rounding an end to float32
_INTEGERS = (-(2**31), 2**31 - 1)  # JAX's default integers have 32 bits


@dataclass(frozen=True)
class Uniform(Dimension):
    """Uniformly distributed real numbers; made by `uniform`."""

    low: float | int
    high: float | int
    static: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        _check_range(self, "uniform")

    def at(self, u: float | int | Float[np.ndarray, "*shape"]) -> Any:
        """Return low + u·(high − low)."""
        u = coordinates(u)
        return _given((1 - u) * self.low + u * self.high, self.low, self.high)

    def unit(self, value: Any) -> Any:
        """Return (value − low)/(high − low)."""
        scale = max(abs(self.low), abs(self.high))  # differences of huge numbers must not overflow
        low, high = self.low / scale, self.high / scale
        return _inside(self, value, (numbers("unit", "value", value) / scale - low) / (high - low))

    def describe(self) -> dict[str, Any]:
        """Return the kind, both ends, and `static` if it is True."""
        return {"kind": "uniform", "low": self.low, "high": self.high} | _static(self)


@dataclass(frozen=True)
class LogUniform(Dimension):
    """Log-uniformly distributed positive numbers; made by `log_uniform`."""

    low: float | int
    high: float | int
    static: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        _check_range(self, "log_uniform")
        if not self.low > 0:
            raise ValueError(f"log_uniform: expected low > 0, received {self.low!r}; for ranges with 0 use `uniform`.")

    def at(self, u: float | int | Float[np.ndarray, "*shape"]) -> Any:
        """Return low·(high/low)ᵘ."""
        u = coordinates(u)
        values = np.exp((1 - u) * math.log(self.low) + u * math.log(self.high))
        return _given(np.where(u == 0, self.low, np.where(u == 1, self.high, values)), self.low, self.high)

    def unit(self, value: Any) -> Any:
        """Return log(value/low)/log(high/low)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # non-positive values are outside; the check is below
            logarithm = np.log(numbers("unit", "value", value))
        return _inside(self, value, (logarithm - math.log(self.low)) / (math.log(self.high) - math.log(self.low)))

    def describe(self) -> dict[str, Any]:
        """Return the kind, both ends, and `static` if it is True."""
        return {"kind": "log_uniform", "low": self.low, "high": self.high} | _static(self)


@dataclass(frozen=True)
class Integers(Dimension):
    """Integers from low to high, both included; made by `integers`."""

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
                f"integers: expected 32-bit integers, received {self.low!r} and {self.high!r}; for larger ranges "
                "search the exponent."
            )
        if self.low > self.high:
            raise ValueError(f"integers: expected low ≤ high, received {self.low} and {self.high}.")
        if self.log and self.low < 1:
            raise ValueError(f"integers: with log=True expected low ≥ 1, received {self.low}; start at 1 or drop log.")

    def at(self, u: float | int | Float[np.ndarray, "*shape"]) -> Any:
        """Return the integer whose cell contains u."""
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
        """Return the end that an integer equals or is within a margin of."""
        near = super().edge(value, margin)
        if near or self.low == self.high:
            return near
        return "low" if value == self.low else "high" if value == self.high else None

    def describe(self) -> dict[str, Any]:
        """Return the kind, both ends, the scale and whether a value is static."""
        return {"kind": "integers", "low": self.low, "high": self.high, "log": self.log, "static": self.static}

    def _ends(self) -> tuple[float, float]:
        return self.low - 0.5, self.high + 0.5


def uniform(low: Any, high: Any, *, static: bool = False) -> Uniform:
    """Search real numbers uniformly between two ends.

    Use it for additive quantities, such as a dropout rate. For quantities that matter by their order of magnitude, such
    as a learning rate, use `log_uniform`.

    Args:
        low: The smallest value, finite.
        high: The largest value, finite, above `low`.
        static: Whether each value has its own program; needed by functions that branch on the value in Python, as some
            of Optax's schedules do.

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
    """Search positive numbers log-uniformly between two ends, with equal probability for each decade.

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
        >>> print(f"{log_uniform(1e-4, 1.0).at(0.5):.3f}")  # the median is the geometric mean of the ends
        0.010
    """
    return LogUniform(low, high, static=static)


def integers(low: int, high: int, *, log: bool = False, static: bool = True) -> Integers:
    """Search integers between two ends, both included.

    Args:
        low: The smallest value, a 32-bit integer.
        high: The largest value, a 32-bit integer.
        log: Draw k with probability proportional to log((k + ½)/(k − ½)) instead of uniformly; needs `low` ≥ 1.
        static: Whether each value has its own program, as a layer width needs. With False, values are traced integers.

    Returns:
        The dimension.

    Raises:
        TypeError: If an end is not an integer, or `log` or `static` is not a bool.
        ValueError: If the range is empty, exceeds 32 bits, or reaches 0 on a logarithmic scale.

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
    """Raise unless the ends form a range; store them as Python floats."""
    for end in ("low", "high"):
        object.__setattr__(dimension, end, check_static_real(name, end, getattr(dimension, end)))
    object.__setattr__(dimension, "static", check_bool(name, "static", dimension.static))
    low, high = dimension.low, dimension.high
    if not low < high:
        raise ValueError(
            f"{name}: expected finite low < high, received {low!r} and {high!r}. Set a constant value where the "
            "optimizer is made, not in the space."
        )


def _static(dimension: Dimension) -> dict[str, Any]:
    return {"static": True} if dimension.static else {}
