"""Outermost eigenvalues of a training step from a fixed number of products, for use inside a trace."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, Int, Integer

from jaxopt_study._programs import wider
from jaxopt_study.dynamics._linearised_step import LinearStep
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.arnoldi import arnoldi_factorization, residual_norm
from jaxopt_study.linalg.block_lanczos import rows


class Outermost(NamedTuple):
    """Two eigenvalues of a step with error bounds."""

    values: Complex[Array, "2"]  # the largest in modulus, and the farthest from 1
    errors: Float[Array, "2"]  # (residual + rounding) times the condition number of the eigenvalue
    start: Any  # start for the next call: a pair of parameters and momentum buffers
    num_matvecs: Int[Array, ""]


def outermost(step: LinearStep, start: Any, num_steps: int, *, seed: Integer[Array, ""]) -> Outermost:
    """Compute the eigenvalues that `stability` reports by one round of Arnoldi's method.

    Args:
        step: The training step, in balanced units.
        start: Start vector, a pair; the Krylov space of an invariant subspace does not leave it.
        num_steps: Number of products for the Krylov space, at most its dimension.
        seed: Seed of random directions for an exhausted space.

    Returns:
        The eigenvalues. Cost: `num_steps` products, and four to recompute the residuals. Memory: `num_steps` + 1
        vectors.
    """
    m = min(num_steps, sum(leaf.size for leaf in jax.tree.leaves(step.like)))
    basis = vectors.with_row(vectors.zeros_basis(step.like, m + 1), 0, vectors.normalize(start)[0])
    dtype = vectors.accumulator(wider(*(leaf.dtype for leaf in jax.tree.leaves(step.like))))
    basis, columns = arnoldi_factorization(step, basis, jnp.zeros((m + 1, m), dtype), jnp.int32(0), seed)
    is_finite = jnp.isfinite(columns).all()
    values, left, right = lax.linalg.eig(jnp.where(is_finite, columns[:m], jnp.eye(m, dtype=dtype)))
    conditions = jnp.maximum(1 / jnp.abs(jnp.sum(left.conj() * right, axis=0)), 1)
    outermost = jnp.stack([jnp.argmax(jnp.abs(values)), jnp.argmax(jnp.abs(values - 1))])
    parts = jnp.stack([right.T[outermost].real, right.T[outermost].imag], axis=1)  # (2, 2, m)
    pairs = vectors.combine(basis, jnp.pad(parts.reshape(4, m), ((0, 0), (0, 1))).T)
    images = lax.map(step.linearize(), pairs)
    rounding = 2 * vectors.epsilon(step.like) * jnp.max(jnp.abs(values))
    errors, start = [], vectors.zeros_like(step.like)
    for i, index in enumerate(outermost):
        value, pair = values[index], rows(pairs, 2 * i, 2)
        residual = residual_norm(rows(images, 2 * i, 2), pair, value.real, value.imag)
        errors.append((residual + rounding) * conditions[index])
        start = vectors.add(start, vectors.normalize(vectors.row(pair, 0))[0])
    nan = jnp.where(is_finite, 0, jnp.nan)
    return Outermost(values[outermost] + nan, jnp.stack(errors) + nan, start, jnp.int32(m + 4))
