"""Classical Gram–Schmidt against an orthonormal basis, and an orthonormal basis of the span of a few vectors.

One pass leaves what remains of a vector orthogonal to rounding of its length before the pass. So where the pass has
taken most of the vector another one follows: a pass that keeps `ENOUGH` of the length is the last (Daniel, Gragg,
Kaufman and Stewart, 1976, Math. Comp. 30). How often a pass may be repeated, and against which part of a basis it runs,
is up to the loops that use it: each needs the coefficients in another form.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxopt_study.linalg import vectors
from jaxopt_study.types import Vector

ENOUGH = 0.7  # a pass that keeps this share of a vector's length leaves it orthogonal to rounding
_DROPPED = 100  # directions whose share of the span is below √(ε times this) of the largest do not count


def remove(basis: Vector, v: Vector, rows: Bool[Array, " m"] | None = None) -> tuple[Vector, Float[Array, " m"]]:
    """Return v − Q Qᵀv, one pass of classical Gram–Schmidt, and the coefficients Qᵀv.

    Args:
        basis: Q, m orthonormal vectors.
        v: A vector.
        rows: Which vectors of the basis there are; None for all.

    Returns:
        What is left of v, and the coefficients (m,), 0 for rows that are not there. Cost: two reads of the basis.
    """
    coefficients = vectors.project(basis, v)
    if rows is not None:
        coefficients = jnp.where(rows, coefficients, 0)
    return vectors.subtract(v, vectors.combine(basis, coefficients)), coefficients


def remove_from_block(basis: Vector, block: Vector, rows: Bool[Array, " m"]) -> tuple[Vector, Float[Array, "m b"]]:
    """Return a block of b vectors without what lies in the rows of a basis, all in one contraction.

    Args:
        basis: Q, m orthonormal vectors.
        block: b vectors.
        rows: Which vectors of the basis there are.

    Returns:
        What is left of the block, and the coefficients (m, b). Cost: two reads of the basis.
    """
    coefficients = jnp.where(rows[:, None], vectors.gram(basis, block), 0)
    return vectors.subtract(block, _combined(basis, coefficients)), coefficients


def _combined(basis: Vector, coefficients: Float[Array, "m b"]) -> Vector:
    """Return `vectors.combine`; a single combination as a sum, as fast and compiled in a fifth of the time."""
    if coefficients.shape[1] > 1:
        return vectors.combine(basis, coefficients)
    weights = coefficients[:, 0]
    return jax.tree.map(lambda q: jnp.sum(q * weights.reshape(-1, *(1,) * (q.ndim - 1)), axis=0)[None], basis)


def orthonormal_basis(rows: Vector) -> Vector:
    """Return an orthonormal basis of the span of a few vectors of any lengths.

    It comes from the eigenvectors of their Gram matrix (SVQB; Stathopoulos and Wu, 2002, SIAM J. Sci. Comput. 23): one
    contraction for all vectors, where Gram–Schmidt takes one for each.

    Args:
        rows: r vectors.

    Returns:
        r vectors, of which those are 0 that stand for directions that hardly count. Cost: four reads of the vectors.
    """
    dtypes = jax.tree.map(lambda row: row.dtype, rows)
    rows, _ = vectors.unscaled(rows)  # whose squares stay in range
    for _ in range(2):  # the second time, the rows are close to orthonormal and rounding is small
        gram = vectors.gram(rows, rows)
        finite = jnp.all(jnp.isfinite(gram))
        values, rotation = jnp.linalg.eigh(jnp.where(finite, gram, 0))
        kept = values > _DROPPED * jnp.finfo(values.dtype).eps * jnp.max(values)
        factors = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        rows = vectors.combine(rows, jnp.where(finite, rotation * factors[None, :], jnp.nan))
    return jax.tree.map(lambda row, dtype: row.astype(dtype), rows, dtypes)
