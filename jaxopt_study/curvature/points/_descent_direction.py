"""Verified descent from a point: evaluate the loss along straight walks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxopt_study._display import displayed
from jaxopt_study.curvature.operators._streamed_operator import LossOperator
from jaxopt_study.curvature.points import _cards
from jaxopt_study.curvature.points._loss_and_gradient import losses
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Key, Params, Vector

_STEPS = 12
_RATIO = 4.0  # of successive step lengths, from 2e-7 (1 + ‖θ‖) to 1 + ‖θ‖
_DRAWS = 4  # samples of the rounding error
_CLEAR = 4  # smallest verified decrease, in rounding errors


class Escape(NamedTuple):
    """A straight walk θ + step · direction along which the loss falls.

    Attributes:
        direction: A unit vector like the parameters.
        step: Length of the walk.
        fall: L(θ) − L(θ + step · direction), from two evaluations of the loss.
        rounding: Measured rounding error of the loss, the larger of those at θ and at the end of the walk.
        seen: Whether the fall exceeds four rounding errors plus the part that the gradient at θ explains.
    """

    direction: Vector
    step: Float[Array, ""]
    fall: Float[Array, ""]
    rounding: Float[Array, ""]
    seen: Bool[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.escape)


def escape_along(
    op: LossOperator, value: Float[Array, ""], g: Vector, directions: Vector, rest: Float[Array, ""], *, key: Key
) -> Escape:
    """Return the walk along directions or their opposites on which the loss decreases most.

    A walk continues with steps of four-fold length, from 2e-7 (1 + ‖θ‖) to 1 + ‖θ‖, as long as the loss does not
    increase, so it does not cross a barrier between the steps it tries. The decrease that the slope ⟨g, d⟩ explains,
    and a curvature that is due to g, do not count, because they only show that θ is not exactly critical. The rounding
    error of the loss is measured by changes of the last digit of the parameters, at θ and at the end of the best walk;
    at θ = 0 it is 0.

    Args:
        op: The Hessian, with the loss and θ.
        value: L(θ).
        g: The gradient.
        directions: A block of d vectors, of any lengths; zero ones are skipped.
        rest: Largest curvature that the rest of the gradient explains, ≥ 0.
        key: Key of the perturbations that measure rounding errors.

    Returns:
        The walk. Cost: 24 d + 8 losses.
    """
    points = _points(op.params, directions, key)
    walk, end = _best(op.params, losses(op, points), value, g, directions, rest)
    around = losses(op, _around(op.params, walk, jax.random.fold_in(key, 1)))
    return _confirmed(walk, end, around, g, rest)


def _steps(params: Params, dtype: Any) -> Float[Array, " steps"]:
    return (1 + vectors.norm(params)).astype(dtype) * _RATIO ** jnp.arange(1 - _STEPS, 1, dtype=dtype)


@jax.jit
def _points(params: Params, directions: Vector, key: Key) -> Params:
    unit, _ = jax.vmap(vectors.normalize)(directions)
    steps = _steps(params, vectors.norm(params).dtype)
    lengths = jnp.concatenate([-steps[::-1], steps])

    def along(leaf: Array, start: Array) -> Array:
        shares = lengths.reshape(1, -1, *(1,) * start.ndim)
        origin, shares, leaf = vectors.promoted(start[None, None], shares, leaf[:, None])
        return (origin + shares * leaf).reshape(leaf.shape[0] * lengths.size, *start.shape).astype(start.dtype)

    walked = jax.tree.map(along, unit, params)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), walked, _shaken(params, params, key))


@jax.jit
def _around(params: Params, walk: Escape, key: Key) -> Params:
    """Return points around the end of a walk."""
    return _shaken(vectors.axpy(walk.step, walk.direction, params), params, key)


def _shaken(end: Params, start: Params, key: Key) -> Params:
    """Return points that differ from the end of a walk by rounding errors of its computation."""

    def shaken(end: Float[Array, "..."], start: Float[Array, "..."], noise: Float[Array, "draws ..."]) -> Array:
        size = jnp.max(jnp.maximum(jnp.abs(start), jnp.abs(end)), initial=0)
        return (end[None] + jnp.finfo(end.dtype).eps * size * noise).astype(end.dtype)

    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((_DRAWS, *leaf.shape), leaf.dtype), end)
    return jax.tree.map(shaken, end, start, vectors.random_like(like, key=key, distribution="rademacher"))


@jax.jit
def _best(
    params: Params,
    losses_there: Float[Array, " points"],
    value: Float[Array, ""],
    g: Vector,
    directions: Vector,
    rest: Float[Array, ""],
) -> tuple[Escape, Float[Array, ""]]:
    unit, lengths = jax.vmap(vectors.normalize)(directions)
    steps = _steps(params, vectors.norm(params).dtype)
    eps = jnp.finfo(value.dtype).eps
    rounding = 2 * eps * jnp.abs(value) + jnp.max(jnp.abs(losses_there[-_DRAWS:] - value))
    walks = losses_there[:-_DRAWS].reshape(-1, 2, _STEPS)
    walks = jnp.concatenate([walks[:, :1, ::-1], walks[:, 1:]], axis=1)  # backwards and forwards, each outwards
    before = jnp.concatenate([jnp.broadcast_to(value, (*walks.shape[:2], 1)), walks[..., :-1]], axis=2)
    going = jnp.cumprod(walks <= before + rounding, axis=2) > 0  # not at NaN
    slopes = vectors.project(unit, g)
    explained = (jnp.abs(slopes)[:, None] * steps[None] + _curved(rest, steps)[None])[:, None]  # on either side
    fall = jnp.where(going & (lengths > 0)[:, None, None], value - walks, 0)
    surplus = jnp.where(jnp.isfinite(fall), fall - explained - _CLEAR * rounding, -jnp.inf)
    best = jnp.argmax(surplus)
    line, sign, far = jnp.unravel_index(best, surplus.shape)
    seen = surplus.reshape(-1)[best] > 0
    direction = vectors.scale(jnp.where(sign == 0, -1.0, 1.0), vectors.row(unit, line))
    step, fall = jnp.where(seen, steps[far], 0), jnp.where(seen, fall.reshape(-1)[best], 0)
    return Escape(direction, step, fall, rounding, seen), jnp.where(seen, walks.reshape(-1)[best], value)


@jax.jit
def _confirmed(
    walk: Escape, end: Float[Array, ""], around: Float[Array, " draws"], g: Vector, rest: Float[Array, ""]
) -> Escape:
    """Return the walk, with `seen` False unless its fall also exceeds the rounding error at its end."""
    rounding = 2 * jnp.finfo(end.dtype).eps * jnp.abs(end) + jnp.max(jnp.abs(around - end))
    rounding = jnp.maximum(walk.rounding, rounding)
    explained = jnp.abs(vectors.inner(walk.direction, g)) * walk.step + _curved(rest, walk.step)
    seen = walk.seen & (walk.fall - explained - _CLEAR * rounding > 0)
    return walk._replace(
        step=jnp.where(seen, walk.step, 0), fall=jnp.where(seen, walk.fall, 0), rounding=rounding, seen=seen
    )


def _curved(curvature: Float[Array, ""], steps: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return 0.5 * curvature.astype(steps.dtype) * steps**2
