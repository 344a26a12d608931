"""Newton-type directions towards a critical point from a Krylov space of the gradient."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.krylov_space import krylov_space
from jaxopt_study.linalg.layout import layout_of
from jaxopt_study.types import Vector

CUTOFF = 10  # in noise floors: relative singular values below it count as zero
_BISECTIONS = 30


class Proposal(NamedTuple):
    """A direction p.

    Attributes:
        direction: p.
        slope: ⟨p, Hg⟩/‖g‖², the slope of ½‖g‖² along p relative to ‖g‖²; for saddle-free Newton ⟨p, g⟩, of the loss.
        stretch: ‖Hg‖/‖g‖.
        scale: A lower bound on ‖H‖.
        num_matvecs: Number of products.
    """

    direction: Vector
    slope: Float[Array, ""]
    stretch: Float[Array, ""]
    scale: Float[Array, ""]
    num_matvecs: Int[Array, ""]


def propose(
    method: str,
    op: Operator,
    g: Vector,
    radius: Float[Array, ""],
    seed: UInt32[Array, "2"],
    *,
    num_basis: int,
    cutoff: float,
) -> Proposal:
    """Return the direction of a method of `find_critical_point`; for use inside a trace.

    With a power of two s next to ‖H‖, the direction is computed as a multiple z of ‖g‖/s from H/s and g/‖g‖, numbers of
    order one. If p would be longer than the radius, it solves a damped problem with ‖p‖ = radius. Scaling down an
    undamped p instead would lose its small components.

    Args:
        method: Name of the method.
        op: H.
        g: The gradient.
        radius: Largest length of p; not used by "gradient-norm".
        seed: Seed of directions that continue an invariant space.
        num_basis: Largest dimension of the Krylov space.
        cutoff: Relative size that counts as zero.

    Returns:
        The direction.
    """
    if method == "gradient-norm":
        return _gradient_norm(op, g)
    direction, length = vectors.normalize(g)
    layout = layout_of(op.like)
    space, unit = krylov_space(layout, op.linearize(), direction, seed, num_basis, cutoff)
    m = num_basis
    step = length / unit
    reach = radius / jnp.where(step > 0, step, 1)
    known = jnp.arange(m + 1, dtype=jnp.int32) < space.count
    square = jnp.where(known[:m, None] & known[None, :m], space.projected[:m, :m], 0)
    present = jnp.arange(m + 1, dtype=jnp.int32) <= space.count
    tall = jnp.where(present[:, None] & known[None, :m], space.projected[:, :m], 0)
    stretch = jnp.linalg.norm(tall[:, 0])
    if method == "newton-mr":
        left, singular, right = jnp.linalg.svd(tall, full_matrices=False)
        scale = singular[0]
        usable = singular > cutoff * scale
        amounts = jnp.where(usable, left[0], 0)
        z = -right.T @ _within(reach, lambda mu: amounts * singular / (singular**2 + mu), amounts, scale)
        slope = jnp.sum(z * tall[:m, 0])
    else:
        values, rotations = jnp.linalg.eigh((square + square.T) / 2)
        curvature = jnp.abs(values)
        scale = jnp.max(curvature)
        curvature = jnp.maximum(curvature, cutoff * scale)
        amounts = rotations[0]
        z = -rotations @ _within(reach, lambda mu: amounts / (curvature + mu), amounts, jnp.ones_like(scale))
        slope = step * z[0] * length
    basis = jax.tree.map(lambda leaf: leaf[:m], space.basis)
    direction = layout.unpack(vectors.combine(basis, (step * z).astype(layout.scalar)))
    return Proposal(direction, slope, unit * stretch, unit * scale, space.count)


def _within(
    radius: Float[Array, ""],
    solution: Callable[[Array], Array],
    amounts: Float[Array, " m"],
    largest: Float[Array, ""],
) -> Float[Array, " m"]:
    """Return the solution y(μ) for the smallest μ ≥ 0 with ‖y(μ)‖ ≤ radius, by bisection of log μ.

    ‖y‖ decreases with μ, and ‖y(largest/radius)‖ ≤ radius. Components with amount 0 are 0.
    """

    def at(mu: Float[Array, ""]) -> Float[Array, " m"]:
        y = jnp.where(amounts == 0, 0, solution(mu))
        return jnp.where(jnp.isnan(y), 0, y)  # 0/0, of a zero operator

    high = jnp.log(jnp.where(largest > 0, largest / radius, 1))
    low = high + 3 * math.log(float(jnp.finfo(high.dtype).eps))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        short = vectors.norm(at(jnp.exp(middle))) <= radius
        return jnp.where(short, low, middle), jnp.where(short, middle, high)

    _, mu = lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    free = at(jnp.zeros_like(mu))
    return jnp.where(vectors.norm(free) <= radius, free, at(jnp.exp(mu)))


def _gradient_norm(op: Operator, g: Vector) -> Proposal:
    product = op.linearize()
    along, length = vectors.normalize(g)
    towards, stretch = vectors.normalize(product(along))
    bend = vectors.norm(product(towards))
    inverse = jnp.where(bend > 0, bend, 1)
    share = jnp.where(bend > 0, stretch / inverse, 0)  # ‖Hg‖²/‖HHg‖², relative to ‖Hg‖/‖g‖
    direction = vectors.scale(-share * (length / inverse), towards)
    return Proposal(direction, -(share**2), stretch, jnp.maximum(bend, stretch), jnp.int32(2))
