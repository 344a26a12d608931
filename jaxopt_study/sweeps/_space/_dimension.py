"""One hyperparameter and the values it may take: a map from the unit interval to values, and back.

A sampler fills the unit cube and knows nothing of learning rates; a dimension turns one coordinate into a value by its
inverse distribution function. Integers and options each own a cell of the interval, so every u in [0, 1] has a value.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np

from jaxopt_study._checks import check_real
from jaxopt_study.sweeps._statistics._scores import numbers

Edge = Literal["low", "high"]


class Dimension(ABC):
    """The values one hyperparameter may take, and how probable they are.

    Attributes:
        static: Whether a value shapes the program, so that each distinct one needs a program of its own. Other values
            travel through one program as traced numbers.
    """

    static: bool = False

    @abstractmethod
    def at(self, u: float | int | np.ndarray) -> Any:
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
        """Return what defines the dimension, in values that JSON knows."""

    def edge(self, value: Any, margin: float = 0.05) -> Edge | None:
        """Tell whether a value lies so near an end of the range that the best may lie beyond it.

        Args:
            value: One of this dimension's values.
            margin: How near, in the unit coordinate, in [0, .5). The first and last integer are always at an end.

        Returns:
            "low", "high", or None; always None for choices, which have no order.
        """
        check_real("edge", "margin", margin, 0.0, 0.5, closed="[)")
        u = self.unit(value)
        return "low" if u <= margin else "high" if u >= 1 - margin else None


def coordinates(u: float | int | np.ndarray) -> np.ndarray:
    """Return unit coordinates as an array of float64, checked to be in [0, 1]."""
    u = numbers("at", "u", u)
    inside = (u >= 0) & (u <= 1)
    if not inside.all():
        raise ValueError(f"Expected unit coordinates in [0, 1], received {u[~inside].ravel()[0]}.")
    return u
