"""Directions in which to look at a loss: random ones with the filters' norms, and principal axes of a trajectory."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._checks import check_choice, check_integer, check_key, check_params
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature.points import _cards
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_vector, describe
from jaxopt_study.types import Key, Params, Vector

Normalize = Literal["none", "unit", "filter"]


class PrincipalAxes(NamedTuple):
    """Orthogonal directions in which the parameters of a trajectory vary most.

    Attributes:
        origin: The last parameters.
        axes: k unit vectors, each like the parameters.
        coordinates: Position of every snapshot relative to the origin along each axis.
        explained: Share of the squared distances from the origin along each axis, in descending order.
    """

    origin: Params
    axes: tuple[Vector, ...]
    coordinates: Float[Array, "snapshots k"]
    explained: Float[Array, " k"]

    __repr__, _repr_html_ = displayed(_cards.principal_axes)
    plot = plotted


def random_direction(params: Params, *, key: Key) -> Vector:
    """Draw a random direction in which every filter has the norm of the filter of the parameters.

    With independent standard normals d, for each filter f, the weights into one output,

        d_f ← d_f ‖θ_f‖ / ‖d_f‖

    A step along it changes every filter by the same fraction, so landscapes of networks whose layers can be rescaled
    are comparable. The filters of a leaf are its slices along the last axis, as in Flax, where this is the output.
    Biases and scales, leaves with one axis or none, do not move; unless no leaf has two axes, then each is a filter.

    Args:
        params: θ.
        key: Key of the draw.

    Returns:
        The direction, like the parameters.

    Raises:
        TypeError: If the parameters are not real floating-point arrays, or the key is none.
        ValueError: If there are no parameters, or they are not finite.

    Example:
        >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 1.0]]), "bias": jnp.ones(2)}
        >>> d = random_direction(params, key=jax.random.key(0))
        >>> print(jnp.linalg.norm(d["kernel"], axis=0).round(5), d["bias"])  # the norms of the two columns
        [5. 1.] [0. 0.]

    References:
        Li, Xu, Taylor, Studer and Goldstein (2018), Visualizing the Loss Landscape of Neural Nets, section 4.
    """
    name = "random_direction"
    params = check_params(name, params)
    return _filtered(vectors.random_like(params, key=check_key(name, key)), params)


@nan_is_an_answer
def principal_axes(snapshots: Params, *, k: int = 2) -> PrincipalAxes:
    """Compute the directions in which the parameters of a trajectory vary most around the last ones.

    With snapshots θ₁ … θ_T and D the matrix of rows θₜ − θ_T, the axes are the leading right singular vectors of D, and
    the coordinates D times the axes.

    Args:
        snapshots: Parameters with a leading axis T on every leaf, such as `Trajectory.snapshots`.
        k: Number of axes, at most T − 1.

    Returns:
        Axes, coordinates and explained shares; an axis beyond the rank of D is 0. Cost: four reads of the snapshots.

    Raises:
        TypeError: If the snapshots are not real floating-point arrays.
        ValueError: If they have no common leading axis of length > k, or are not finite.

    Example:
        >>> snapshots = jnp.outer(jnp.array([2.0, 1.0, 0.0]), jnp.array([3.0, 4.0]))  # on a line
        >>> found = principal_axes(snapshots, k=1)
        >>> print(bool(jnp.allclose(jnp.abs(found.axes[0]), jnp.array([0.6, 0.8]))), found.explained.round(4))
        True [1.]

    References:
        Li, Xu, Taylor, Studer and Goldstein (2018), Visualizing the Loss Landscape of Neural Nets, section 7.2.
    """
    name = "principal_axes"
    snapshots = check_params(name, snapshots, name="snapshots")
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(snapshots)}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            f"{name} needs snapshots with one leading axis of length ≥ 2 on every leaf; received leading lengths "
            f"{sorted(lengths)}. Record them with train(…, record_params_every=…)."
        )
    k = check_integer(name, "k", k, 1, min(lengths) - 1, remedy="There are no more differences of snapshots.")
    origin, axes, coordinates, explained = _principal(snapshots, k)
    return PrincipalAxes(origin, tuple(vectors.row(axes, i) for i in range(k)), coordinates, explained)


def check_direction(who: str, params: Params, direction: Any, normalize: Any, *, name: str = "direction") -> Vector:
    """Return a direction as arrays, normalised as asked; raise unless it fits the parameters and is finite."""
    check_choice(who, "normalize", normalize, ("none", "unit", "filter"))
    check_params(who, direction, name=name)
    direction = check_vector(describe(params), direction, what=name)
    if normalize == "none":
        return direction
    return _unit(direction) if normalize == "unit" else _filtered(direction, params)


@jax.jit
def _unit(direction: Vector) -> Vector:
    return vectors.normalize(direction)[0]


@jax.jit
def _filtered(direction: Vector, params: Params) -> Vector:
    flat = all(leaf.ndim < 2 for leaf in jax.tree.leaves(params) if leaf.size)

    def of_leaf(d: Float[Array, "..."], p: Float[Array, "..."]) -> Float[Array, "..."]:
        if p.ndim < 2:
            return _matched(d, p) if flat else jnp.zeros_like(d)
        return jax.vmap(_matched, in_axes=-1, out_axes=-1)(d, p)

    return jax.tree.map(of_leaf, direction, params)


def _matched(d: Float[Array, "*shape"], p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return d with the norm of p."""
    return vectors.scale(vectors.norm(p), vectors.normalize(d)[0])


@partial(jax.jit, static_argnums=1)
def _principal(snapshots: Params, k: int) -> tuple[Params, Vector, Float[Array, "snapshots k"], Float[Array, " k"]]:
    origin = jax.tree.map(lambda x: x[-1], snapshots)
    differences, unit = vectors.unscaled(jax.tree.map(lambda x: x - x[-1:], snapshots))
    values, rotation = jnp.linalg.eigh(vectors.gram(differences, differences))
    values, rotation = jnp.maximum(values[::-1][:k], 0), rotation[:, ::-1][:, :k]
    total = jnp.sum(jax.vmap(lambda d: vectors.inner(d, d))(differences))
    real = values > 100 * jnp.finfo(values.dtype).eps * total
    axes = vectors.combine(differences, rotation)
    axes = jax.vmap(lambda axis, keep: vectors.scale(keep, vectors.normalize(axis)[0]))(axes, real.astype(values.dtype))
    coordinates = unit * vectors.gram(differences, axes)
    axes = jax.tree.map(lambda axis, like: axis.astype(like.dtype), axes, snapshots)
    return origin, axes, coordinates, jnp.where(total > 0, values / jnp.where(total > 0, total, 1), 0)
