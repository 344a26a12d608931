"""Newton directions from Hessian-vector products: truncated Newton and saddle-free Newton."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxopt_study._checks import check_bool, check_integer, describe_argument
from jaxopt_study._programs import wider
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.conjugate_gradients import conjugate_gradients
from jaxopt_study.linalg.hvp import linearized_gradient
from jaxopt_study.linalg.krylov_space import krylov_space
from jaxopt_study.linalg.layout import layout_of
from jaxopt_study.linalg.sharding import sharding_of
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._scalars import ScalarLike, cast, check_interval, check_non_negative
from jaxopt_study.types import Matvec, Vector

_SEED = (0x9E3779B9, 0x85EBCA6B)  # of the direction after an invariant space, which no result depends on


class NewtonState(NamedTuple):
    """How the last direction was found, and what all of them have cost."""

    num_matvecs: Int[Array, "*batch"]  # Hessian-vector products of all steps
    residual: Float[Array, "*batch"]  # of the last direction, relative to the gradient's norm
    negative_curvature: Bool[Array, "*batch"]  # whether the last direction met negative curvature


@atom(state=NewtonState, params=True)
def scale_by_newton(
    damping: ScalarLike = 0.0,
    tolerance: ScalarLike = 0.5,
    *,
    max_matvecs: int = 50,
    stop_at_negative_curvature: bool = True,
) -> Transform:
    """Replace the gradient by a truncated Newton direction, from Hessian-vector products.

    Conjugate gradients solve, with the Hessian H of the loss at the parameters,

        (H + λI) u = g  until  ‖g − (H + λI) u‖ ≤ min(η, √‖g‖) ‖g‖

    so that far from a minimum a step is cheap, and near one convergence is superlinear. A direction p of the solve with
    ⟨p, (H + λI) p⟩ ≤ 0 ends it: u is what was reached before, a direction of descent, or g if p is the first. Without
    this rule u approximates the Newton direction of an indefinite H, which leads to saddle points. There is no line
    search, and λ is constant.

    H is that of `value_fn(params)`, an argument of `update` as for `optax.scale_by_zoom_linesearch`, which
    `training.train` gives: in training, the Hessian of the loss of the batch.

    Args:
        damping: λ ≥ 0 of Levenberg: larger values shorten the direction and turn it to the gradient's.
        tolerance: η in [0, 1), the largest relative residual. The default is the reference's.
        max_matvecs: Largest number of products of a step, at least 1; n, if H has n distinct eigenvalues.
        stop_at_negative_curvature: If False, only ⟨p, (H + λI) p⟩ = 0 ends a solve early.

    Returns:
        A transformation whose state has the number of products of all steps, and of the last direction its relative
        residual and whether it met negative curvature. Cost of a step: up to `max_matvecs` products, each about as much
        as two gradients, and one gradient; memory of five vectors, and of the linearised gradient.

    Raises:
        TypeError: If an argument, or `value_fn` of an update, is of the wrong kind.
        ValueError: If an argument is out of range, or an update gets no `value_fn`.

    Example:
        >>> loss = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 100.0]) * x**2)
        >>> x, tx = jnp.array([3.0, -2.0]), scale_by_newton(tolerance=1e-6)
        >>> u, state = tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)
        >>> print(jnp.abs(x - u).max() < 1e-5, state.num_matvecs <= 3)  # two eigenvalues: two products, and rounding
        True True

    References:
        Dembo and Steihaug (1983), Truncated-Newton algorithms for large-scale unconstrained optimization; Nocedal and
        Wright (2006), Numerical Optimization, algorithm 7.1. Martens (2010), Deep learning via Hessian-free
        optimization, for the damping.
    """
    who = "scale_by_newton"
    check_non_negative(who, "damping", damping)
    check_interval(who, "tolerance", tolerance, 0.0, 1.0, remedy="It is relative to the norm of the gradient.")
    max_matvecs = check_integer(who, "max_matvecs", max_matvecs, 1)
    check_bool(who, "stop_at_negative_curvature", stop_at_negative_curvature)

    def direction(product: Matvec, g: Vector) -> tuple[Vector, NewtonState]:
        size = jax.lax.stop_gradient(vectors.norm(g))
        solution, report = conjugate_gradients(
            lambda v: jax.tree.map(lambda hv, x: hv + cast(damping, x.dtype) * x, product(v), v),
            g,
            tolerance=jnp.minimum(cast(tolerance, size.dtype), jnp.sqrt(size)),
            max_matvecs=max_matvecs,
            stop_at_negative_curvature=stop_at_negative_curvature,
        )
        return solution, NewtonState(report.num_matvecs, report.residual, report.negative_curvature)

    return _newton(who, direction)


@atom(state=NewtonState, params=True)
def scale_by_saddle_free_newton(damping: ScalarLike = 0.0, *, max_matvecs: int = 20) -> Transform:
    """Replace the gradient by the saddle-free Newton direction in a Krylov space, from Hessian-vector products.

    With an orthonormal basis V of the Krylov space of H and g, of m dimensions, and VᵀHV = S diag(θ) Sᵀ:

        u = V S diag(1/(|θ| + λ)) SᵀVᵀ g

    A Newton step goes up where the curvature is negative, to a saddle point; this one goes down, just as far. If the
    Krylov space is invariant, at the latest for m = n, u is (|H| + λI)⁻¹g. The Hessian H is that of
    `value_fn(params)`, as for `scale_by_newton`. There is no line search, and λ is constant, where the reference
    chooses it anew at every step. Derivatives of u hold V and θ fixed.

    Args:
        damping: λ ≥ 0. Without it, |θ| below the rounding error ε √m max|θ| count as that.
        max_matvecs: m, the number of products of a step, fewer if the space becomes invariant; at least 1.

    Returns:
        A transformation whose state has the number of products of all steps, and of the last direction ‖Hu − VVᵀHu‖/‖g‖
        (0 if the space is invariant) and whether a θ is negative. Cost of a step: m products, each about as much as two
        gradients, and one gradient; memory of m + 1 vectors, O(n m²) operations.

    Raises:
        TypeError: If an argument, or `value_fn` of an update, is of the wrong kind.
        ValueError: If an argument is out of range, or an update gets no `value_fn`.

    Example:
        >>> loss = lambda x: x[0] ** 2 - x[1] ** 2
        >>> x, tx = jnp.array([3.0, 1.0]), scale_by_saddle_free_newton()
        >>> u, state = tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)
        >>> print(jnp.abs(x - u).round(5), state.negative_curvature)  # Newton would go to (0, 0)
        [0. 2.] True

    References:
        Dauphin et al. (2014), Identifying and attacking the saddle point problem in high-dimensional non-convex
        optimization, algorithm 1.
    """
    who = "scale_by_saddle_free_newton"
    check_non_negative(who, "damping", damping)
    max_matvecs = check_integer(who, "max_matvecs", max_matvecs, 1)

    highest = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def direction(product: Matvec, g: Vector) -> tuple[Vector, NewtonState]:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x)), g)
        layout = layout_of(shapes)
        m = min(max_matvecs, layout.size)
        start, length = jax.lax.stop_gradient(vectors.normalize(g))
        rounding = m**0.5 * vectors.epsilon(g)
        seed = jnp.asarray(_SEED, jnp.uint32)
        space, unit = jax.lax.stop_gradient(krylov_space(layout, product, start, seed, m, rounding))
        known = jnp.arange(m, dtype=jnp.int32) < space.count
        square = jnp.where(known[:, None] & known[None, :], space.projected[:m, :m], 0)
        values, rotation = jnp.linalg.eigh((square + square.T) / 2)
        scale = jnp.max(jnp.abs(values))
        divisor = unit * jnp.maximum(jnp.abs(values), rounding * scale) + cast(damping, unit.dtype)
        basis = jax.tree.map(lambda leaf: leaf[:m], space.basis)
        inverse = 1 / jnp.where(length > 0, length, 1)
        amounts = jnp.where(known, vectors.project(basis, layout.pack(vectors.scale(inverse, g))), 0)
        amounts = highest(rotation, highest(amounts, rotation) / jnp.where(divisor > 0, divisor, 1))
        outside = jax.lax.dynamic_index_in_dim(space.projected, space.count, keepdims=False)[:m]
        residual = unit * jnp.abs(jnp.sum(jnp.where(known, outside * amounts, 0)))
        negative = jnp.any(values < -rounding * scale)
        solution = vectors.scale(length, layout.unpack(vectors.combine(basis, amounts)))
        return solution, NewtonState(space.count, residual, negative)

    return _newton(who, direction)


def _newton(who: str, direction: Callable[[Matvec, Vector], tuple[Vector, NewtonState]]) -> Transform:
    """Return the transformation to a direction that is a function of Hessian-vector product and gradient."""

    def init(params: PyTree) -> NewtonState:
        dtypes = [vectors.accumulator(leaf.dtype) for leaf in jax.tree.leaves(params)]
        zero = jnp.zeros((), wider(*dtypes) if dtypes else jnp.float32)
        return NewtonState(jnp.zeros((), jnp.int32), zero, jnp.zeros((), bool))

    def update(
        updates: PyTree, state: NewtonState, params: PyTree = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, NewtonState]:
        del extra
        if not sum(leaf.size for leaf in jax.tree.leaves(params)):
            return updates, state
        if value_fn is None:
            raise ValueError(
                f"{who} needs the loss, for products with its Hessian: call update(updates, state, params, "
                "value_fn=loss), received value_fn=None. training.train passes it."
            )
        if not callable(value_fn):
            raise TypeError(
                f"{who} needs value_fn to be the loss as a function of the parameters; received "
                f"{describe_argument(value_fn)}."
            )
        _, product = linearized_gradient(partial(_scalar, who, value_fn), params)
        g = jax.tree.map(lambda u, p: u.astype(p.dtype), updates, params)
        found, last = direction(product, g)
        new = jax.tree.map(lambda d, u: d.astype(u.dtype), found, updates)
        return new, last._replace(num_matvecs=state.num_matvecs + last.num_matvecs)

    return Transform(init, update)


def _scalar(who: str, value_fn: Callable[[PyTree], Any], params: PyTree) -> Float[Array, ""]:
    """Return the loss; raise TypeError unless it is a real scalar."""
    value = value_fn(params)
    kind = getattr(value, "dtype", None)
    if isinstance(value, float) or (kind is not None and jnp.shape(value) == () and jnp.issubdtype(kind, jnp.floating)):
        return jnp.asarray(value)
    raise TypeError(
        f"{who} needs value_fn to return the loss, a real scalar; received {describe_argument(value)}. Take its mean, "
        "or the first part of a pair."
    )
