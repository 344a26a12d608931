"""Step and error of Hessian-vector products by central differences of the gradient."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxopt_study.curvature.operators._batches import batches_of
from jaxopt_study.curvature.operators._empirical_risk import EmpiricalRiskOperator
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Params, Vector

_FACTOR = 4.0  # between tried steps: truncation then changes by 16, rounding by 4


def with_measured_step(op: EmpiricalRiskOperator) -> EmpiricalRiskOperator:
    """Return an operator by finite differences with its step chosen on the first batch, and with its error.

    Of steps h that differ by factors of 4, one is best whose product with a vector of large curvature differs least
    from that with h/4: larger steps suffer from truncation, smaller ones from rounding. The next smaller one is taken,
    where rounding, which is alike for all vectors, exceeds truncation. Four times the largest such difference there,
    for this vector, a random one and one of few coordinates, relative to the largest product, is the error. Traced
    parameters take the usual step and its usual error.

    Args:
        op: The operator, with a batch operator of fields `step` and `error`.

    Returns:
        The operator. Cost: about 50 gradients of a batch.
    """
    eps = vectors.epsilon(op.like)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((op.params, op.data))):
        jax.eval_shape(op.matvec, vectors.zeros_like(op.like))  # raises without a gradient
        return _with(op, None, 32 * eps ** (2 / 3))
    first = op
    if op.batch_size is not None and op.is_batched:
        first = replace(op, data=batches_of(op.data, op.batch_size)[0][1], batch_size=None)
    count = int(np.ceil(0.9 * np.log(1 / eps) / np.log(_FACTOR)))
    largest = _power_of_two(float(vectors.norm(op.params)) or 1.0)
    steps = jnp.asarray([largest * _FACTOR**-k for k in range(count)])
    directions = _directions(first)
    changes, lengths = map(np.asarray, _changes(first, directions[0], steps))
    with np.errstate(all="ignore"):
        relative = np.where(np.isfinite(changes) & (lengths > 0), changes / lengths, np.inf)
    best = int(np.argmin(relative))
    if not np.isfinite(relative[best]):  # the gradient is constant, or not finite: the products show it
        return _with(op, None, eps)
    taken = min(best + 1, count - 2)
    found = np.asarray([_changes(first, direction, steps[taken : taken + 2]) for direction in directions])
    return _with(op, float(steps[taken]), 4 * max(float(found[:, 0].max() / found[:, 1].max()), eps))


def _with(op: EmpiricalRiskOperator, step: float | None, error: float) -> EmpiricalRiskOperator:
    return replace(op, batch_operator=replace(op.batch_operator, step=step, error=_power_of_two(error)))


@jax.jit
def _directions(op: EmpiricalRiskOperator) -> list[Vector]:
    """Return unit vectors: one of large curvature, a random one, and one with the largest coordinates of the first."""
    random = vectors.random_like(op.like, key=jax.random.key(0), distribution="sphere")
    large = random
    for _ in range(2):
        image, length = vectors.normalize(_difference(op, large, usual_step(op.params)))
        large = jax.tree.map(lambda a, b, length=length: jnp.where(length > 0, a, b), image, large)
    return [large, random, vectors.normalize(jax.tree.map(lambda x: x**3, large))[0]]


@jax.jit
def _changes(
    op: EmpiricalRiskOperator, unit: Vector, steps: Float[Array, " steps"]
) -> tuple[Float[Array, " changes"], Float[Array, " changes"]]:
    """Return ‖D(h) − D(h/4)‖ and ‖D(h)‖ along a unit vector, for each step but the last."""

    def one(before: Vector, step: Float[Array, ""]) -> tuple[Vector, tuple[Float[Array, ""], Float[Array, ""]]]:
        now = _difference(op, unit, step)
        return now, (vectors.norm(vectors.subtract(before, now)), vectors.norm(before))

    return lax.scan(one, _difference(op, unit, steps[0]), steps[1:])[1]


def _difference(op: EmpiricalRiskOperator, unit: Vector, step: Float[Array, ""]) -> Vector:
    with jax.default_matmul_precision(op.matmul):
        return op.batch_operator.difference(op._combined, op.params, op.data, unit, step)


def usual_step(params: Params) -> Float[Array, ""]:
    """Return ε^⅓ ‖θ‖, or ε^⅓ at the origin."""
    size = vectors.norm(params)
    return jnp.where(size > 0, size, 1.0) * vectors.epsilon(params) ** (1 / 3)


def _power_of_two(value: float) -> float:
    return float(2.0 ** np.ceil(np.log2(value)))
