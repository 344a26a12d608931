"""`Dimension`: the values of one hyperparameter, as a map from the unit interval and back.

A sampler fills the unit cube, independent of the hyperparameters; a dimension maps one coordinate to a value by the
inverse distribution function. Each integer or option has a cell of the interval, so every u in [0, 1] has a value.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import check_real
from jaxopt_study.sweeps._statistics._scores import numbers

Edge = Literal["low", "high"]


class Dimension(ABC):
    """The distribution of the values of one hyperparameter.

    Attributes:
        static: Whether the value is static, so that each distinct one needs its own program. Other values are traced
            numbers in a single program.
    """

    static: bool = False

    @abstractmethod
    def at(self, u: float | int | Float[np.ndarray, "*shape"]) -> Any:
        """Return the value at a unit coordinate: the inverse distribution function.

        Args:
            u: In [0, 1], a number or an array; computed in float64.

        Returns:
            A Python value, or an array of u's shape: float64, int64, or objects for choices.

        Raises:
            ValueError: If a coordinate is outside [0, 1] or NaN.
        """

    @abstractmethod
    def unit(self, value: Any) -> Any:
        """Return the unit coordinate of a value: the inverse of `at`.

        Args:
            value: One of this dimension's values, or an array of them.

        Returns:
            u in [0, 1]; for integers and options the middle of their cell, so that `at(unit(value)) == value`.

        Raises:
            ValueError: If the dimension has no such value.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the definition of the dimension as JSON values."""

    def edge(self, value: Any, margin: float = 0.05) -> Edge | None:
        """Return the end of the range that a value is so near that the best value may lie beyond it.

        Args:
            value: One of this dimension's values.
            margin: Distance from the end, in the unit coordinate, in [0, .5). The first and last integer are always at
                an end.

        Returns:
            "low", "high", or None; always None for choices, which have no order.
        """
        check_real("edge", "margin", margin, 0.0, 0.5, closed="[)")
        u = self.unit(value)
        return "low" if u <= margin else "high" if u >= 1 - margin else None


def coordinates(u: float | int | Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return unit coordinates as a float64 array; raise ValueError unless they are in [0, 1]."""
    u = numbers("at", "u", u)
    inside = (u >= 0) & (u <= 1)
    if not inside.all():
        raise ValueError(f"Expected unit coordinates in [0, 1]; received {u[~inside].ravel()[0]}.")
    return u
