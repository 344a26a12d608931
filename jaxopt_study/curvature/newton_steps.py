"""Directions towards a critical point, from a Krylov space of the gradient."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxopt_study.curvature import lanczos, vectors
from jaxopt_study.curvature.lanczos import Space
from jaxopt_study.curvature.layout import layout_of
from jaxopt_study.curvature.operator import Operator
from jaxopt_study.types import Vector

CUTOFF = 10  # noise floors; a smaller singular value, relative to the largest, is not told from zero
_BISECTIONS = 30


class Proposal(NamedTuple):
    """A direction p.

    Attributes:
        direction: p.
        slope: ⟨p, Hg⟩, the slope of ½‖g‖² along p; of the loss, ⟨p, g⟩, for saddle-free Newton.
        change: ‖Hg‖.
        scale: ‖H‖ from below.
        num_matvecs: Products that it took.
    """

    direction: Vector
    slope: Array
    change: Array
    scale: Array
    num_matvecs: Array


def propose(
    method: str, op: Operator, g: Vector, radius: Array, seed: Array, *, num_basis: int, cutoff: float
) -> Proposal:
    """Return the direction of a method, as `find_critical_point` defines them; for use inside a trace.

    Where p would be longer than the radius it is the solution of a damped problem that is just as long: the shortest
    for its residual, and not a piece of a much longer one, in which all that is small would be lost.

    Args:
        method: Its name.
        op: H.
        g: The gradient.
        radius: How long p may be; not for the gradient norm's.
        seed: For continuing an invariant space.
        num_basis: Largest dimension of the Krylov space.
        cutoff: Relative size of what counts as zero.

    Returns:
        The direction.
    """
    if method == "gradient-norm":
        return _gradient_norm(op, g)
    space = _krylov_space(op, g, seed, num_basis, cutoff)
    m = num_basis
    length = vectors.norm(g)
    known = jnp.arange(m + 1) < space.count
    square = jnp.where(known[:m, None] & known[None, :m], space.projected[:m, :m], 0)
    present = jnp.arange(m + 1) <= space.count
    tall = jnp.where(present[:, None] & known[None, :m], space.projected[:, :m], 0)
    change = length * jnp.linalg.norm(tall[:, 0])
    if method == "newton-mr":
        left, singular, right = jnp.linalg.svd(tall, full_matrices=False)
        scale = singular[0]
        usable = singular > cutoff * scale
        amounts = jnp.where(usable, length * left[0], 0)
        y = -right.T @ _within(radius, lambda mu: amounts * singular / (singular**2 + mu), amounts, length * scale)
        slope = length * jnp.sum(y * tall[:m, 0])
    else:
        values, rotations = jnp.linalg.eigh((square + square.T) / 2)
        curvature = jnp.abs(values)
        scale = jnp.max(curvature)
        curvature = jnp.maximum(curvature, cutoff * scale)
        amounts = length * rotations[0]
        y = -rotations @ _within(radius, lambda mu: amounts / (curvature + mu), amounts, length)
        slope = length * y[0]
    layout = layout_of(op.like)
    basis = jax.tree.map(lambda leaf: leaf[:m], space.basis)
    direction = layout.unpack(vectors.combine(basis, y.astype(layout.scalar)))
    return Proposal(direction, slope, change, scale, space.count)


def _within(radius: Array, solution: Callable[[Array], Array], amounts: Array, largest: Array) -> Array:
    """Return the solution y(μ) for the smallest μ ≥ 0 with ‖y(μ)‖ ≤ radius, by bisection of log μ.

    ‖y‖ decreases with μ, and ‖y(largest/radius)‖ ≤ radius. Components without an amount are 0.
    """

    def at(mu: Array) -> Array:
        y = jnp.where(amounts == 0, 0, solution(mu))
        return jnp.where(jnp.isnan(y), 0, y)  # 0/0, of a zero operator

    high = jnp.log(jnp.where(largest > 0, largest / radius, 1))
    low = high + 3 * math.log(float(jnp.finfo(high.dtype).eps))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        short = jnp.linalg.norm(at(jnp.exp(middle))) <= radius
        return jnp.where(short, low, middle), jnp.where(short, middle, high)

    _, mu = lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    free = at(jnp.zeros_like(mu))
    return jnp.where(jnp.linalg.norm(free) <= radius, free, at(jnp.exp(mu)))


def _gradient_norm(op: Operator, g: Vector) -> Proposal:
    product = op.linearize()
    hg = product(g)
    change = vectors.norm(hg)
    # A unit vector is multiplied, so that a small gradient does not underflow when it is squared.
    unit, _ = vectors.normalize(hg)
    bend = vectors.norm(product(unit))
    step = jnp.where(bend > 0, 1 / jnp.where(bend > 0, bend, 1) ** 2, 0)
    scale = jnp.maximum(bend, change / jnp.where(vectors.norm(g) > 0, vectors.norm(g), 1))
    return Proposal(vectors.scale(-step, hg), -step * change**2, change, scale, jnp.int32(2))


def _krylov_space(op: Operator, g: Vector, seed: Array, m: int, breakdown: float) -> Space:
    """Return the Krylov space of g, of m dimensions or as many as there are before it is invariant."""
    layout, product = layout_of(op.like), op.linearize()
    start = jax.tree.map(lambda leaf: leaf[None], layout.pack(g))
    limit = jnp.asarray(breakdown, layout.scalar)

    def unfinished(carry: tuple[Space, Array]) -> Array:
        space, invariant = carry
        return (space.count < m) & ~invariant & (jnp.isfinite(space.scale))

    def grow(carry: tuple[Space, Array]) -> tuple[Space, Array]:
        space, _ = carry
        image: Any = layout.pack(product(layout.unpack(vectors.row(lanczos.pending(space, 1), 0))))
        return lanczos.extend(layout, space, jax.tree.map(lambda leaf: leaf[None], image), seed, limit, jnp.bool(True))

    space, _ = lax.while_loop(unfinished, grow, (lanczos.begin(layout, start, m + 1, seed), jnp.bool(False)))
    return space
