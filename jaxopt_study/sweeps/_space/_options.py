"""Unordered choices and conditional dimensions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study.sweeps._space._dimension import Dimension, Edge, coordinates


@dataclass(frozen=True)
class Choices(Dimension):
    """Equally probable, unordered options; made by `choices`."""

    options: tuple[Any, ...]
    static: bool = field(kw_only=True)

    def __post_init__(self):
        if not isinstance(self.options, tuple):
            raise TypeError(f"choices: expected a tuple of options, received {describe_argument(self.options)}.")
        check_bool("choices", "static", self.static)
        if not self.options:
            raise ValueError("choices: expected at least one option, received none.")
        for position, option in enumerate(self.options):
            _check_option("choices", option)
            if option in self.options[:position]:
                raise ValueError(f"choices: expected distinct options, received {option!r} twice.")
        if not self.static and not _traceable(self.options):
            raise ValueError(
                "choices: with static=False expected floats or 32-bit integers, which can be traced; received "
                f"{self.options!r}. Leave out static=False."
            )

    def at(self, u: float | int | Float[np.ndarray, "*shape"]) -> Any:
        """Return the option whose cell contains u."""
        u = coordinates(u)
        options = np.empty(len(self.options), object)
        for position, option in enumerate(self.options):
            options[position] = option  # one by one, because NumPy would unpack tuples
        return options[np.minimum((u * len(options)).astype(np.int64), len(options) - 1)]

    def unit(self, value: Any) -> Any:
        """Return the middle of the option's cell."""
        if isinstance(value, np.ndarray) and value.ndim:
            return np.array([self.unit(item) for item in value], np.float64)
        value = _python(value)
        if value not in self.options:
            raise ValueError(f"Expected one of the options {self.options!r}, received {value!r}.")
        return (self.options.index(value) + 0.5) / len(self.options)

    def edge(self, value: Any, margin: float = 0.05) -> None:
        """Return None: options have no order, so none of them is at an end."""

    def describe(self) -> dict[str, Any]:
        """Return the kind, the options and whether they are static."""
        options = [list(option) if isinstance(option, tuple) else option for option in self.options]
        return {"kind": "choices", "options": options, "static": self.static}


@dataclass(frozen=True)
class Conditional(Dimension):
    """A dimension that exists only if another one has a given value; made by `conditional`."""

    dimension: Dimension
    on: str
    equals: Any
    static: bool = field(init=False)

    def __post_init__(self):
        if not isinstance(self.dimension, Dimension):
            raise TypeError(
                "conditional needs a dimension such as log_uniform(1e-4, 1.0); received "
                f"{describe_argument(self.dimension)}."
            )
        if not isinstance(self.on, str):
            raise TypeError(
                f"conditional needs on to be the name of another dimension; received {describe_argument(self.on)}."
            )
        if isinstance(self.dimension, Conditional):
            raise ValueError(
                f"conditional: the dimension is already conditional, on {self.dimension.on!r}; received a second "
                f"condition, on {self.on!r}. To nest them, make {self.dimension.on!r} conditional on {self.on!r}."
            )
        object.__setattr__(self, "equals", _python(self.equals))
        _check_option("conditional", self.equals)
        object.__setattr__(self, "static", self.dimension.static)

    def at(self, u: float | int | Float[np.ndarray, "*shape"]) -> Any:
        """Return the value at a unit coordinate, assuming that the condition holds."""
        return self.dimension.at(u)

    def unit(self, value: Any) -> Any:
        """Return the unit coordinate of a value, assuming that the condition holds."""
        return self.dimension.unit(value)

    def edge(self, value: Any, margin: float = 0.05) -> Edge | None:
        """Return the end of the range that a value is near."""
        return self.dimension.edge(value, margin)

    def describe(self) -> dict[str, Any]:
        """Return the dimension and its condition."""
        equals = list(self.equals) if isinstance(self.equals, tuple) else self.equals
        return {"kind": "conditional", "on": self.on, "equals": equals, "dimension": self.dimension.describe()}


def choices(*options: Any, static: bool | None = None) -> Choices:
    """Search over equally probable options.

    Options are plain values, so that a search can be recorded and resumed. To search over functions or optimizers, use
    their names as options and look them up where the optimizer is made.

    Args:
        *options: None, booleans, numbers, strings, and tuples of them, without repetition.
        static: Whether an option is static in the program; None means True unless all options are floats. False needs
            all floats or all integers.

    Returns:
        The dimension.

    Raises:
        TypeError: If `static` is not a bool.
        ValueError: If there are no options, or one occurs twice, is not a plain value, or cannot be traced though
            `static` is False; or if all options are given as one list.

    Example:
        >>> choices("relu", "tanh").at(0.7)
        'tanh'
        >>> choices("relu", "tanh").static, choices(0.9, 0.99).static
        (True, False)
    """
    if len(options) == 1 and not isinstance(options[0], str) and isinstance(options[0], Iterable):
        raise ValueError(
            "choices needs its options as separate arguments, as in choices(16, 64); received the single "
            f"{type(options[0]).__name__} {options[0]!r}. Write choices(*{options[0]!r}) to search its items; set a "
            "constant value where the optimizer or the problem is made."
        )
    plain = tuple(_python(option) for option in options)
    traced = all(isinstance(option, float) for option in plain)
    return Choices(plain, static=not traced if static is None else check_bool("choices", "static", static))


def conditional(dimension: Dimension, *, on: str, equals: Any) -> Conditional:
    """Search a dimension only if another one has a given value.

    Otherwise the configuration lacks the name, so its default applies.

    Args:
        dimension: The dimension to search if the condition holds.
        on: The name of the other dimension, in the same space; one of choices or integers.
        equals: The value that the other dimension must have.

    Returns:
        The dimension; `Space` checks that the other dimension exists and can have the value.

    Raises:
        TypeError: If `dimension` is not a dimension, or `on` is not a string.
        ValueError: If the dimension is already conditional.

    Example:
        >>> from jaxopt_study.sweeps import uniform
        >>> conditional(uniform(0.0, 1.0), on="optimizer", equals="momentum").at(0.5)
        0.5
    """
    return Conditional(dimension, on, equals)


def _traceable(options: tuple[Any, ...]) -> bool:
    return all(type(option) is float for option in options) or all(
        type(option) is int and -(2**31) <= option < 2**31 for option in options
    )


def _check_option(who: str, option: Any) -> None:
    parts: Iterable[Any] = option if isinstance(option, tuple) else (option,)
    for part in parts:
        if not (part is None or type(part) in (bool, int, float, str)) or part != part:
            raise ValueError(
                f"{who}: expected None, booleans, numbers, strings or tuples of them, received {option!r}. Use names "
                "for functions and objects, and look them up where the optimizer is made."
            )


def _python(value: Any) -> Any:
    """Return NumPy scalars as Python scalars, which JSON supports, and lists as tuples."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_python(item) for item in value) if isinstance(value, list | tuple) else value
