"""Planar problems: losses of two parameters for contour plots of trajectories.

Each constructor returns a `Problem` with parameters of shape (2,), no data, the critical points inside its domain, and
a fixed start. `loss` broadcasts: for a contour plot, call it once with parameters of shape (2, rows, columns).
"""

from collections.abc import Callable

from jaxopt_study.problems._problem import Problem
from jaxopt_study.problems._registry import catalogue
from jaxopt_study.problems.planar._pathologies import bowl, cliff, monkey_saddle, mountain, plateau, saddle
from jaxopt_study.problems.planar._test_functions import (
    ackley,
    beale,
    himmelblau,
    rastrigin,
    rosenbrock,
    styblinski_tang,
)

__all__ = [
    "ackley",
    "all_problems",
    "beale",
    "bowl",
    "cliff",
    "himmelblau",
    "monkey_saddle",
    "mountain",
    "plateau",
    "rastrigin",
    "rosenbrock",
    "saddle",
    "styblinski_tang",
]


def all_problems() -> dict[str, Callable[..., Problem]]:
    """Return every planar problem by name.

    This is the planar part of `problems.catalogue()`; no problem is built.

    Returns:
        A dictionary from names to constructors, each with an optional `start`.

    Example:
        >>> all(make().domain is not None for make in all_problems().values())
        True
    """
    return {name: make for name, make in catalogue().items() if make.__module__.startswith(f"{__name__}.")}
