"""`Space`: the named dimensions of a search and their conditions."""

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import describe_argument
from jaxopt_study.sweeps._space._dimension import Dimension
from jaxopt_study.sweeps._space._options import Choices, Conditional
from jaxopt_study.sweeps._space._ranges import Integers
from jaxopt_study.sweeps._statistics._scores import numbers

_STEP = r"(?:[^\W\d]|\*)[\w*]*(\[\d+\])?"  # an identifier or pattern, with the index of a repeated part
_NAME = re.compile(rf"{_STEP}(\.{_STEP})*")


class Space(Mapping[str, Dimension]):
    """The search space: dimensions by name.

    The names keep the given order, except that a conditional dimension comes after the one that it depends on. Column j
    of a matrix of points belongs to the j-th name.

    Args:
        dimensions: Dimensions by name. A name is an argument, or the path of one in an expression: "learning_rate",
            "heavy_ball.decay".

    Raises:
        ValueError: If the space is empty, a name is invalid, or a condition is on an unknown or continuous dimension,
            on itself, cyclic, or on a value that never occurs.
        TypeError: If `dimensions` is not a mapping, or a value is not a dimension.

    Example:
        >>> from jaxopt_study.sweeps import choices, conditional, log_uniform, uniform
        >>> space = Space({
        ...     "decay": conditional(uniform(0.8, 1.0), on="method", equals="momentum"),
        ...     "method": choices("sgd", "momentum"),
        ... })
        >>> list(space)
        ['method', 'decay']
        >>> space.at(np.array([[0.2, 0.5], [0.7, 0.5]]))
        [{'method': 'sgd'}, {'method': 'momentum', 'decay': 0.9}]
    """

    def __init__(self, dimensions: Mapping[str, Any]):
        if not isinstance(dimensions, Mapping):
            raise TypeError(
                'A space needs dimensions by name, {"learning_rate": log_uniform(1e-4, 1.0)}; received '
                f"{describe_argument(dimensions)}."
            )
        if not dimensions:
            raise ValueError("A space needs at least one dimension; received none.")
        for name, dimension in dimensions.items():
            _check_name(name)
            if not isinstance(dimension, Dimension):
                raise TypeError(
                    f"{name}: expected a dimension such as `log_uniform(1e-4, 1.0)`, received {dimension!r}. Set a "
                    "constant value where the optimizer is made."
                )
        for name, dimension in dimensions.items():
            if isinstance(dimension, Conditional):
                _check_condition(name, dimension, dimensions)
        self._dimensions = {name: dimensions[name] for name in _parents_first(dimensions)}

    def __getitem__(self, name: str) -> Dimension:
        return self._dimensions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dimensions)

    def __len__(self) -> int:
        return len(self._dimensions)

    def __repr__(self) -> str:
        return f"Space({self._dimensions!r})"

    def at(self, points: np.ndarray) -> list[dict[str, Any]]:
        """Return the configurations at points of the unit cube.

        Args:
            points: Coordinates in [0, 1], shape (n, d), with d the number of names. Those of names that do not exist at
                a point are ignored and may be NaN.

        Returns:
            n dictionaries, values by name, without the names whose condition does not hold.

        Raises:
            ValueError: If the shape is wrong or a coordinate is outside [0, 1].
        """
        points = numbers("Space.at", "points", points)
        if points.ndim != 2 or points.shape[1] != len(self):
            raise ValueError(f"Expected points of shape (n, {len(self)}); received {points.shape}.")
        configs: list[dict[str, Any]] = [{} for _ in points]
        for (name, dimension), column in zip(self.items(), points.T, strict=True):
            rows = [row for row, config in enumerate(configs) if self.active(name, config)]
            try:
                values = dimension.at(column[rows])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            for row, value in zip(rows, values.tolist(), strict=True):
                configs[row][name] = value
        return configs

    def unit(self, configs: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "trials dimensions"]:
        """Return the points of configurations in the unit cube: the inverse of `at`.

        Args:
            configs: n dictionaries, values by name.

        Returns:
            Points of shape (n, d), NaN for names that do not exist.

        Raises:
            TypeError: If `configs` is not a sequence of mappings.
            ValueError: If a configuration lacks a name, has an unknown name or a value outside its range.
        """
        if not isinstance(configs, Sequence) or not all(isinstance(config, Mapping) for config in configs):
            raise TypeError(
                f"Expected configurations, a list of values by name; received {describe_argument(configs)}."
            )
        points = np.full((len(configs), len(self)), np.nan)
        for row, config in enumerate(configs):
            expected = {name for name in self if self.active(name, config)}
            if set(config) != expected:
                raise ValueError(
                    f"Configuration {row}: expected the names {sorted(expected)}, received {sorted(config)}."
                )
            for column, name in enumerate(self):
                if name in config:
                    try:
                        points[row, column] = self[name].unit(config[name])
                    except ValueError as error:
                        raise ValueError(f"Configuration {row}, {name}: {error}") from None
        return points

    def active(self, name: str, config: Mapping[str, Any]) -> bool:
        """Return whether a name exists in a configuration.

        Args:
            name: A name of the space.
            config: Values by name, at least those of the names before this one.

        Returns:
            Whether the name is unconditional or its condition holds.

        Raises:
            TypeError: If `config` is not a mapping.
            ValueError: If the space has no such name.
        """
        if not isinstance(name, str) or name not in self:
            raise ValueError(f"The space has the names {list(self)}; received {describe_argument(name)}.")
        if not isinstance(config, Mapping):
            raise TypeError(
                f"Expected a configuration as a mapping of names to values; received {describe_argument(config)}."
            )
        dimension = self[name]
        return not isinstance(dimension, Conditional) or (
            dimension.on in config and config[dimension.on] == dimension.equals
        )

    def describe(self) -> dict[str, Any]:
        """Return the definition of the space as JSON values, including the order of the names."""
        return {name: {"column": column} | self[name].describe() for column, name in enumerate(self)}


def as_space(given: Any) -> Space:
    """Return a `Space` from a space or a mapping of dimensions."""
    return given if isinstance(given, Space) else Space(given)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ValueError(
            f"Expected the name of an argument, or its path in an expression, such as 'learning_rate' or "
            f"'heavy_ball.decay'; received {name!r}."
        )


def _check_condition(name: str, dimension: Conditional, dimensions: Mapping[str, Any]) -> None:
    if dimension.on == name:
        raise ValueError(f"{name}: a dimension cannot be conditional on itself.")
    if dimension.on not in dimensions:
        raise ValueError(f"{name}: a condition must be on one of {list(dimensions)}; received {dimension.on!r}.")
    parent = dimensions[dimension.on]
    parent = parent.dimension if isinstance(parent, Conditional) else parent
    if not isinstance(parent, Choices | Integers):
        raise ValueError(
            f"{name}: a condition must be on choices or integers; {dimension.on!r} is continuous, so it equals "
            f"{dimension.equals!r} with probability 0."
        )
    try:
        parent.unit(dimension.equals)
    except (ValueError, TypeError):
        raise ValueError(
            f"{name}: its condition never holds, because {dimension.on!r} is never {dimension.equals!r}: {parent}."
        ) from None


def _parents_first(dimensions: Mapping[str, Any]) -> list[str]:
    order: list[str] = []

    def place(name: str, below: tuple[str, ...]) -> None:
        if name in below:
            circle = " → ".join((*below[below.index(name) :], name))
            raise ValueError(f"Conditions must not be cyclic; received {circle}.")
        if name not in order:
            if isinstance(dimensions[name], Conditional):
                place(dimensions[name].on, (*below, name))
            order.append(name)

    for name in dimensions:
        place(name, ())
    return order
