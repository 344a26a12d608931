"""Dimensions of alternatives: options without order, and what exists only beside one of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study.sweeps._space._dimension import Dimension, Edge, coordinates


@dataclass(frozen=True)
class Choices(Dimension):
    """Equally probable options without order; `choices` makes it."""

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
                raise ValueError(f"choices: every option may occur once; {option!r} occurs again.")
        if not self.static and not _traceable(self.options):
            raise ValueError(
                f"choices: with static=False expected floats, or integers of 32 bits, which can be traced; received "
                f"{self.options!r}. Drop static=False."
            )

    def at(self, u: float | int | np.ndarray) -> Any:
        """Return the option whose cell u is in."""
        u = coordinates(u)
        options = np.empty(len(self.options), object)
        for position, option in enumerate(self.options):
            options[position] = option  # one by one: NumPy would unpack tuples
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
        """Return the kind, the options and whether they shape the program."""
        options = [list(option) if isinstance(option, tuple) else option for option in self.options]
        return {"kind": "choices", "options": options, "static": self.static}


@dataclass(frozen=True)
class Conditional(Dimension):
    """A dimension that exists only where another has a given value; `conditional` makes it."""

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
                f"conditional: a dimension has one condition; received a second one, on {self.on!r}. Make "
                f"{self.dimension.on!r} itself conditional on {self.on!r}."
            )
        object.__setattr__(self, "equals", _python(self.equals))
        _check_option("conditional", self.equals)
        object.__setattr__(self, "static", self.dimension.static)

    def at(self, u: float | int | np.ndarray) -> Any:
        """Return the value at a unit coordinate, where the condition holds."""
        return self.dimension.at(u)

    def unit(self, value: Any) -> Any:
        """Return the unit coordinate of a value, where the condition holds."""
        return self.dimension.unit(value)

    def edge(self, value: Any, margin: float = 0.05) -> Edge | None:
        """Return the end of the range that a value is near."""
        return self.dimension.edge(value, margin)

    def describe(self) -> dict[str, Any]:
        """Return the dimension and its condition."""
        equals = list(self.equals) if isinstance(self.equals, tuple) else self.equals
        return {"kind": "conditional", "on": self.on, "equals": equals, "dimension": self.dimension.describe()}


def choices(*options: Any, static: bool | None = None) -> Choices:
    """Search among options, all equally probable.

    Options are plain values, so that a search can be written down and resumed. A function or an optimizer is searched
    by its name, and looked up where the optimizer is made.

    Args:
        *options: None, booleans, numbers, strings, and tuples of them, each once.
        static: Whether an option shapes the program; None says yes unless all options are floats. False needs
            floats or integers, not both.

    Returns:
        The dimension.

    Raises:
        TypeError: If `static` is no flag.
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
            "choices takes its options one by one, choices(16, 64); received "
            f"{type(options[0]).__name__} {options[0]!r} as the only one. Write choices(*{options[0]!r}) to search "
            "among its items; what does not vary belongs where the optimizer or the problem is made."
        )
    plain = tuple(_python(option) for option in options)
    traced = all(isinstance(option, float) for option in plain)
    return Choices(plain, static=not traced if static is None else check_bool("choices", "static", static))


def conditional(dimension: Dimension, *, on: str, equals: Any) -> Conditional:
    """Search a dimension only where another has a given value.

    Elsewhere the configuration does not have its name at all, so its default applies.

    Args:
        dimension: What is searched there.
        on: The name of the other dimension, in the same space; one of choices or integers.
        equals: The value that it must have.

    Returns:
        The dimension; `Space` checks that the other one exists and can have the value.

    Raises:
        TypeError: If it is no dimension, or `on` no name.
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
                f"{who}: expected None, booleans, numbers, strings or tuples of them, received {option!r}. Search "
                f"functions and objects by a name, and look it up where the optimizer is made."
            )


def _python(value: Any) -> Any:
    """Return NumPy's scalars as Python's, which JSON knows, and lists as tuples."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_python(item) for item in value) if isinstance(value, list | tuple) else value
