"""Projections: updates after which the parameters lie in a given set."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import check_integer
from jaxopt_study.transforms._clipping import norm, shorten, unit_norm
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import RealLeaf
from jaxopt_study.transforms._scalars import ScalarLike, cast, check_interval, check_limit
from jaxopt_study.transforms._state_checks import MismatchError


@atom(params=True)
def project_to_max_norm(max_norm: ScalarLike, *, axis: int | tuple[int, ...] | None = None) -> Transform:
    """Change the update so that the norm of each unit's weights stays within a limit.

    With the updated weights w = θ + u, for every unit i:

        uᵢ′ = wᵢ min(1, c / ‖wᵢ‖) − θᵢ

    Put it last: a later transformation could move the weights outside again. Leaves of at most one dimension (biases)
    are unchanged.

    Args:
        max_norm: c > 0.
        axis: The axes over which a unit's norm is taken. None takes all but the last; in Flax's kernels, dense (in,
            out) and convolutional (…, in, out), these hold a unit's incoming weights.

    Returns:
        A stateless transformation. Cost: one read of the parameters and one more of the update.

    Raises:
        ValueError: If `max_norm` is not positive, a matrix lacks one of the axes, or the update is called without
            parameters or with parameters of another shape.
        TypeError: If an argument is of the wrong kind, or the gradient is complex.

    Example:
        >>> params, updates = jnp.ones((4, 1)), jnp.full((4, 1), 9.0)
        >>> new, _ = project_to_max_norm(3.0).update(updates, optax.EmptyState(), params)
        >>> print(jnp.linalg.norm(params + new))
        3.0

    References:
        Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), Dropout, JMLR 15, section 5.1 (c from 3 to
        4).
    """
    check_interval("project_to_max_norm", "max_norm", max_norm, 0.0, float("inf"), closed="(]")
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(check_integer("project_to_max_norm", "axis", i) for i in axes)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        def project(u: RealLeaf, p: RealLeaf) -> RealLeaf:
            if p.ndim < 2:
                return u
            if any(not -p.ndim <= i < p.ndim for i in axes):
                raise MismatchError(
                    f"project_to_max_norm: axis {axis} does not exist in a parameter of shape {p.shape}. Choose axes "
                    "that all matrices have, or put optax.masked around the transformation."
                )
            end = p.astype(u.dtype) + u
            length = unit_norm(end) if axis is None else norm([end], axis=axes)
            # Inside the set the update passes unchanged, without the rounding error of adding and subtracting θ.
            inside = length.value <= cast(max_norm, length.value.dtype)
            return jnp.where(inside, u, shorten(end, length, max_norm) - p.astype(u.dtype))

        return jax.tree.map(project, updates, params), state

    return Transform(optax.init_empty_state, update)


@atom(params=True)
def clip_weights(max_value: ScalarLike) -> Transform:
    """Change the update so that every weight stays in [−c, c].

    uᵢ′ = min(max(θᵢ + uᵢ, −c), c) − θᵢ

    Put it last. It limits the weights; to limit the gradient use `clip_by_value`.

    Args:
        max_value: c ≥ 0; infinity clips nothing.

    Returns:
        A stateless transformation. Cost: one read of the parameters.

    Raises:
        ValueError: If `max_value` is negative, or the update is called without parameters or with those of another
            shape.
        TypeError: If `max_value` is not one real number, or the gradient complex.

    Example:
        >>> params = jnp.array([0.5, -0.5])
        >>> updates, _ = clip_weights(1.0).update(jnp.array([9.0, 0.1]), optax.EmptyState(), params)
        >>> print(params + updates)
        [ 1.  -0.4]

    References:
        Arjovsky, Chintala and Bottou (2017), Wasserstein GAN, Algorithm 1 (c = .01).
    """
    check_limit("clip_weights", "max_value", max_value)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        def clip(u: RealLeaf, p: RealLeaf) -> RealLeaf:
            start, limit = p.astype(u.dtype), cast(max_value, u.dtype)
            return jnp.where(jnp.abs(start + u) > limit, jnp.clip(start + u, -limit, limit) - start, u)

        return jax.tree.map(clip, updates, params), state

    return Transform(optax.init_empty_state, update)
