"""Classical Gram–Schmidt against an orthonormal basis, and orthonormalisation of a few vectors.

After one pass the remainder is orthogonal up to rounding relative to the vector's length before the pass. A pass that
removes most of the vector is therefore repeated; a pass that keeps `ENOUGH` of the length is the last (Daniel, Gragg,
Kaufman and Stewart, 1976, Math. Comp. 30). The calling loop decides how often to repeat and against which rows, because
each needs the coefficients in another form.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxopt_study.linalg import vectors
from jaxopt_study.types import Vector

ENOUGH = 0.7  # share of a vector's length after which one pass is orthogonal to rounding
_DROPPED = 100  # directions below √(this · ε) relative to the largest are dropped


def remove(basis: Vector, v: Vector, rows: Bool[Array, " m"] | None = None) -> tuple[Vector, Float[Array, " m"]]:
    """Return v − Q Qᵀv, one pass of classical Gram–Schmidt, and the coefficients Qᵀv.

    Args:
        basis: Q, m orthonormal vectors.
        v: A vector.
        rows: Mask of the rows of the basis that are filled; None for all.

    Returns:
        The remainder of v, and the coefficients, 0 for rows that are not filled. Cost: two reads of the basis.
    """
    coefficients = vectors.project(basis, v)
    if rows is not None:
        coefficients = jnp.where(rows, coefficients, 0)
    return vectors.subtract(v, vectors.combine(basis, coefficients)), coefficients


def remove_from_block(basis: Vector, block: Vector, rows: Bool[Array, " m"]) -> tuple[Vector, Float[Array, "m b"]]:
    """Return B − Q QᵀB for a block B of b vectors in one contraction, and the coefficients QᵀB.

    Args:
        basis: Q, m orthonormal vectors.
        block: b vectors.
        rows: Mask of the rows of the basis that are filled.

    Returns:
        The remainder of the block, and the coefficients. Cost: two reads of the basis.
    """
    coefficients = jnp.where(rows[:, None], vectors.gram(basis, block), 0)
    return vectors.subtract(block, _combined(basis, coefficients)), coefficients


def _combined(basis: Vector, coefficients: Float[Array, "m b"]) -> Vector:
    """Return `vectors.combine`; one combination is a sum, which is as fast and compiles in a fifth of the time."""
    if coefficients.shape[1] > 1:
        return vectors.combine(basis, coefficients)
    weights = coefficients[:, 0]

    def of_leaf(q: Array) -> Array:
        return jnp.sum(jnp.multiply(*vectors.promoted(q, weights.reshape(-1, *(1,) * (q.ndim - 1)))), axis=0)[None]

    return jax.tree.map(of_leaf, basis)


def orthonormal_basis(rows: Vector) -> Vector:
    """Return an orthonormal basis of the span of a few vectors of any lengths.

    The basis comes from the eigenvectors of the Gram matrix (SVQB; Stathopoulos and Wu, 2002, SIAM J. Sci. Comput. 23):
    one contraction for all vectors, where Gram–Schmidt takes one for each.

    Args:
        rows: r vectors.

    Returns:
        r vectors; negligible directions are 0. Cost: four reads of the vectors.
    """
    dtypes = jax.tree.map(lambda row: row.dtype, rows)
    rows, _ = vectors.unscaled(rows)  # squares stay in range
    for _ in range(2):  # the second time the rows are nearly orthonormal and rounding is small
        gram = vectors.gram(rows, rows)
        finite = jnp.all(jnp.isfinite(gram))
        values, rotation = jnp.linalg.eigh(jnp.where(finite, gram, 0))
        kept = values > _DROPPED * jnp.finfo(values.dtype).eps * jnp.max(values)
        factors = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        rows = vectors.combine(rows, jnp.where(finite, rotation * factors[None, :], jnp.nan))
    return jax.tree.map(lambda row, dtype: row.astype(dtype), rows, dtypes)


def triangular_factors(rows: Vector) -> tuple[Vector, Float[Array, "k k"]]:
    """Return the factors of Y = QR for k vectors, the columns of Y, with orthonormal Q and upper triangular R.

    Three rounds of Cholesky factors of the Gram matrix, with a shift of the size of rounding (shifted CholeskyQR3;
    Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, 2020, SIAM J. Sci. Comput. 42): one contraction for all
    vectors, and, other than `orthonormal_basis`, no direction above rounding is dropped.

    Args:
        rows: k vectors in at least single precision, with a largest entry of order one, or all 0.

    Returns:
        Q, k vectors, and R with a positive diagonal. Q has the directions of rounding, or smaller vectors, where the
        columns are dependent. Cost: six reads of the vectors.
    """
    factor = None
    k = jax.tree.leaves(rows)[0].shape[0]
    for growth in (4 * k, 2 * k, 4):  # of the shift: a multiple of the rounding of the Gram matrix
        gram = vectors.gram(rows, rows)
        info = jnp.finfo(gram.dtype)
        shift = jnp.maximum(growth * info.eps * jnp.max(jnp.diag(gram)), info.tiny)
        lower = jnp.linalg.cholesky(gram + shift * jnp.eye(len(gram), dtype=gram.dtype))
        inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(gram), dtype=gram.dtype), lower=True)
        rows = vectors.combine(rows, inverse.T)
        factor = lower.T if factor is None else jnp.matmul(lower.T, factor, precision="highest")
    return rows, factor
