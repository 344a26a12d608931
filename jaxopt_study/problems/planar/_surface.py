"""Construction of planar problems: two parameters, a start, a domain and known critical points."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxopt_study._checks import check_callable, check_numbers, check_text
from jaxopt_study.problems._problem import CriticalPoint, Kind, Problem
from jaxopt_study.types import Batch, Key

Corner = tuple[float, float]
Coordinate = Float[Array | np.ndarray, "*points"] | np.floating
Pair = Sequence[float | int] | np.ndarray | jax.Array  # x and y

KINDS: tuple[Kind, Kind, Kind] = ("minimum", "saddle", "maximum")


def point(x: float, y: float, *, value: float, index: int, label: str = "") -> CriticalPoint:
    """Make a nondegenerate critical point of a planar loss.

    The index, the number of negative eigenvalues of the Hessian, decides the kind: 0 minimum, 1 saddle, 2 maximum.

    Args:
        x: First coordinate.
        y: Second coordinate.
        value: The loss at the point.
        index: 0, 1 or 2.
        label: A label for figures.

    Returns:
        The point, with parameters of shape (2,) in double precision.

    Example:
        >>> point(0.0, 1.0, value=14.2, index=1).kind
        'saddle'
    """
    return CriticalPoint(np.array([x, y]), value, KINDS[index], index, label)


def separable_points(axis: Iterable[tuple[float, float, bool]]) -> tuple[CriticalPoint, ...]:
    """Combine the critical points of φ into those of φ(x) + φ(y).

    The Hessian is diagonal, so the index of (x, y) counts which of x and y are maxima of φ.

    Args:
        axis: For every critical point of φ: its position, the value of φ, and whether it is a maximum.

    Returns:
        All pairs, the lowest value first.

    Example:
        >>> [p.index for p in separable_points([(0.0, -1.0, False), (1.0, 2.0, True)])]
        [0, 1, 1, 2]
    """
    points = [
        point(x, y, value=value_x + value_y, index=top_x + top_y)
        for (x, value_x, top_x), (y, value_y, top_y) in itertools.product(list(axis), repeat=2)
    ]
    return tuple(sorted(points, key=lambda critical: critical.value))


def surface(
    name: str,
    formula: Callable[[Coordinate, Coordinate], Coordinate],
    *,
    start: Pair,
    domain: tuple[Corner, Corner],
    points: tuple[CriticalPoint, ...],
    spectrum: Float[np.ndarray, "2"] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Problem:
    """Make a problem from a function of x and y.

    Args:
        name: The problem's name.
        formula: f(x, y), elementwise in JAX.
        start: Initial point; `init` ignores its key.
        domain: Lower and upper corner of the region to plot.
        points: The critical points inside the domain.
        spectrum: The Hessian's eigenvalues, ascending, if it is constant.
        metadata: Information for records.

    Returns:
        The problem. `loss` accepts parameters of shape (2, …) and returns an array of the remaining shape.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the start is not two finite numbers.

    Example:
        >>> disc = surface("disc", lambda x, y: x**2 + y**2, start=[3, 4], domain=((0.0, 0.0), (5.0, 5.0)), points=())
        >>> print(disc.loss(disc.init(jax.random.key(0))))
        25.0
    """
    check_text("surface", "name", name)
    check_callable("surface", "formula", formula, expected="a function of x and y")
    coordinates = tuple(check_numbers(name, "start", start, finite=False).ravel().tolist())
    if np.shape(start) != (2,) or not all(map(math.isfinite, coordinates)):
        raise ValueError(f"The start of {name!r} must be two finite numbers (x, y); received {start!r}.")

    def init(key: Key) -> Float[Array, "2"]:
        del key  # figures need a fixed start
        return jnp.array(coordinates, dtype=float)

    def loss(params: Float[Array | np.ndarray, "2 *points"], batch: Batch | None = None) -> Coordinate:
        del batch
        x, y = params
        return formula(x, y)

    return Problem(
        name,
        init,
        loss,
        critical_points=points,
        domain=domain,
        spectrum=spectrum,
        metadata={"start": coordinates, **(metadata or {})},
    )
