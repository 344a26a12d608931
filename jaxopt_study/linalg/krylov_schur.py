"""Krylov–Schur method: outermost eigenvalues of a map that is not symmetric, in bounded memory, with residuals."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax
from jaxtyping import Array, Float, Float64, Inexact, Int64, Integer

from jaxopt_study._programs import wider
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.arnoldi import arnoldi_factorization, residual_norm
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.linalg.operator import LinearMap
from jaxopt_study.types import Key, Matvec, Vector

Ranking = Callable[[np.ndarray], np.ndarray]

_CLUSTER = 1e-4  # relative distance below which eigenvalues may be copies of a multiple one


class Ritz(NamedTuple):
    """Eigenvalues of a map with error bounds."""

    values: Inexact[np.ndarray, " k"]  # the largest modulus first
    residuals: Float64[np.ndarray, " k"]  # ‖A x − μ x‖ for the unit vector x, recomputed
    errors: Float64[np.ndarray, " k"]  # bounds: residual plus rounding, times the condition number of the eigenvalue
    leading: Vector  # real part of the first eigenvector
    num_matvecs: int
    converged: bool


def krylov_schur(
    op: LinearMap,
    k: int,
    *,
    key: Key,
    tol: float,
    rounding: float,
    basis_size: int,
    max_matvecs: int,
    rankings: tuple[Ranking, ...],
) -> Ritz:
    """Find the outermost eigenvalues of a real linear map by the Krylov–Schur method.

    Builds an orthonormal V and a small matrix S with A V = V S + v bᵀ. When V is full, an ordered real Schur
    decomposition of S compresses V to the invariant space of the wanted eigenvalues, and the recurrence continues.
    Every step orthogonalises twice. When the Krylov space is exhausted (the remainder of A v is rounding), the
    recurrence continues from a random direction orthogonal to V, with a zero in the matrix.

    The method stops when the residual estimates of all wanted pairs are small; the residuals are then recomputed from
    the vectors. A residual times the condition number bounds the distance to an eigenvalue. No bound excludes that an
    eigenvalue farther out was missed; for a random start that is only improbable. Multiplicities are not detected.

    Args:
        op: A map with `like`, `loop`, `linearize` and `product`, itself a JAX pytree.
        k: Number of eigenvalues, divided evenly among the rankings; a conjugate pair is not split.
        key: A key for the start.
        tol: Tolerance of a residual, relative to max(|μ|, 1).
        rounding: Rounding error of a residual, relative to the largest |μ|.
        basis_size: m, the number of vectors held.
        max_matvecs: Largest number of products.
        rankings: Functions of eigenvalues; the eigenvalues with the largest values of each are computed.

    Returns:
        The wanted values. Cost: at most `max_matvecs` + m + 2k products. Memory: m + 3 vectors, and m + 1 more while a
        basis is rotated.

    References:
        Stewart (2002), A Krylov–Schur algorithm for large eigenproblems, SIAM J. Matrix Anal. Appl. 23(3). Henrici
        (1962), Bounds for iterates, inverses, spectral variation and fields of values of non-normal matrices, Numer.
        Math. 4 (errors of multiple eigenvalues).
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(op.like))
    m = min(basis_size, size)
    seed = jax.random.bits(key)
    basis = _start(op, seed, m + 1)
    matrix, first, used = np.zeros((m + 1, m)), 0, 0
    product = op.product() if op.loop == "host" else None
    dtype = vectors.accumulator(wider(*(leaf.dtype for leaf in jax.tree.leaves(op.like))))
    while True:
        columns = jnp.zeros((m + 1, m), dtype)
        round_seed = seed + jnp.asarray(used + 1, seed.dtype)
        basis, columns = arnoldi_factorization(op, basis, columns, jnp.int32(first), round_seed, product)
        matrix[:, first:] = np.asarray(columns, dtype=np.float64)[:, first:]
        used += m - first
        wanted, estimates, values = _wanted(matrix[:m], matrix[m], k, rankings)
        small = estimates[wanted] <= 0.5 * tol * np.maximum(np.abs(values[wanted]), 1.0)
        finite = np.isfinite(matrix).all()
        if small.all() or m == size or used >= max_matvecs or not finite:
            break
        basis, matrix, first = _restart(basis, matrix, values, wanted, estimates, rankings)
    return _finish(op, product, basis, matrix, wanted, used, tol, rounding)


def _wanted(
    matrix: Float64[np.ndarray, "m m"], last: Float64[np.ndarray, " m"], k: int, rankings: tuple[Ranking, ...]
) -> tuple[Int64[np.ndarray, " wanted"], Float64[np.ndarray, " m"], Inexact[np.ndarray, " m"]]:
    """Return the indices of the wanted eigenvalues of the small matrix, all residual estimates and all eigenvalues."""
    if not np.isfinite(matrix).all():
        nan = np.full(len(matrix), np.nan)
        return np.arange(min(k, len(matrix))), nan, nan.astype(complex)
    values, right = np.linalg.eig(matrix)
    estimates = np.abs(last @ right)
    wanted: set[int] = set()
    for ranking in rankings:
        order = np.argsort(-ranking(values), kind="stable")
        for index in order[: max(1, k // len(rankings))]:
            pair = np.argmin(np.abs(values - values[index].conj()))
            wanted |= {int(index), int(pair)}
    ordered = np.array(sorted(wanted, key=lambda i: (-abs(values[i]), -values[i].imag)))
    return ordered, estimates, values


def _restart(
    basis: Vector,
    matrix: Float64[np.ndarray, "rows m"],
    values: Inexact[np.ndarray, " m"],
    wanted: Int64[np.ndarray, " wanted"],
    estimates: Float64[np.ndarray, " m"],
    rankings: tuple[Ranking, ...],
) -> tuple[Vector, Float64[np.ndarray, "rows m"], int]:
    """Return a basis that contains the invariant space of the wanted eigenvalues, its matrix and its size."""
    m = matrix.shape[1]
    # Half of the basis is kept, the wanted eigenvalues first: a restart with these alone converges more slowly.
    # Converged eigenvalues that are not wanted (a map with frozen parts has many zeros) are dropped.
    known = estimates <= 1e-12 * np.abs(values).max()
    alternating = np.stack([np.argsort(-ranking(values), kind="stable") for ranking in rankings], axis=1).ravel()
    others = [i for i in dict.fromkeys(alternating.tolist()) if i not in wanted and not known[i]]
    kept = {*wanted.tolist(), *others[: max(0, (m - len(wanted)) // 2 - 1)]}
    kept |= {int(np.argmin(np.abs(values - values[i].conj()))) for i in kept}

    # SciPy inspects the number of arguments of a callback, so a type checker must not decorate it: a lambda.
    is_kept = lambda real, imag: int(np.argmin(np.abs(values - complex(real, imag)))) in kept
    triangle, rotation, dim = scipy.linalg.schur(matrix[:m], output="real", sort=is_kept)  # pyright: ignore[reportAssignmentType]
    dim = min(max(dim, 1), m - 1)
    if dim < m - 1 and triangle[dim, dim - 1] != 0:
        dim += 1  # do not split a conjugate pair
    new = np.zeros_like(matrix)
    new[:dim, :dim] = triangle[:dim, :dim]
    new[dim, :dim] = matrix[m] @ rotation[:, :dim]
    return _compress(basis, rotation, dim), new, dim


def _finish(
    op: LinearMap,
    product: Matvec | None,
    basis: Vector,
    matrix: Float64[np.ndarray, "rows m"],
    wanted: Int64[np.ndarray, " wanted"],
    used: int,
    tol: float,
    rounding: float,
) -> Ritz:
    if not np.isfinite(matrix).all():
        unknown = np.full(len(wanted), np.nan)
        return Ritz(unknown.astype(complex), unknown, unknown, vectors.zeros_like(op.like), used, False)
    matrix, last = matrix[:-1], matrix[-1]
    values, right = np.linalg.eig(matrix)
    # Rows of the inverse are the left eigenvectors with yᴴx = 1; its norm is then the condition of the eigenvalue.
    conditions = np.linalg.norm(np.linalg.pinv(right), axis=1)[wanted]
    values, right = values[wanted], right[:, wanted]
    leading, residuals = None, []
    for i, value in enumerate(values):
        if value.imag < 0 and i and np.isclose(values[i - 1], value.conj()):
            residuals.append(residuals[-1])  # the two of a conjugate pair are equal
            continue
        x = _ritz_vector(basis, right[:, i])
        residuals.append(float(_residual(op, product, x, complex(value))))
        used += 1 if value.imag == 0 else 2
        leading = _first(x) if leading is None else leading
    true_residuals = np.asarray(residuals)
    small = true_residuals <= tol * np.maximum(np.abs(values), 1.0)
    backward_errors = true_residuals + rounding * np.abs(values).max()
    errors = np.array(
        [
            min(size * max(condition, 1.0), _cluster_error(matrix, last, complex(value), float(size)))
            for value, size, condition in zip(values, backward_errors, conditions, strict=True)
        ]
    )
    return Ritz(values, true_residuals, errors, leading, used, bool(small.all()))


def _cluster_error(
    matrix: Float64[np.ndarray, "m m"], last: Float64[np.ndarray, " m"], value: complex, residual: float
) -> float:
    """Return an error bound for an eigenvalue as a member of a cluster; ∞ for an isolated eigenvalue.

    A copy of a multiple eigenvalue has no condition number of its own, because rounding decides its eigenvector. The
    invariant space of the cluster has one, the norm s of its projector. With residual r, c eigenvalues and the strictly
    triangular part N of the Schur form on the space, Henrici's theorem gives max(c r s, (c r s ‖N‖^(c−1))^(1/c)).
    """
    radius = _CLUSTER * max(abs(value), 1.0)
    # SciPy inspects the number of arguments of a callback, so a type checker must not decorate it: a lambda.
    is_near = lambda x: abs(x - value) <= radius
    triangle, basis, count = scipy.linalg.schur(matrix, output="complex", sort=is_near)  # pyright: ignore
    if count < 2:
        return np.inf
    own, rest = triangle[:count, :count], triangle[count:, count:]
    size = residual + float(np.linalg.norm(last @ basis[:, :count]))
    if len(rest):
        coupling = scipy.linalg.solve_sylvester(own, -rest, triangle[:count, count:])
        size *= float(np.hypot(1.0, np.linalg.norm(coupling, 2)))
    departure = float(np.linalg.norm(np.triu(own, 1)))
    return max(count * size, (count * size * departure ** (count - 1)) ** (1 / count))


def _ritz_vector(basis: Vector, coefficients: Inexact[np.ndarray, " m"]) -> Vector:
    """Return real and imaginary part of V y as a basis of two vectors."""
    padded = np.zeros((len(coefficients) + 1, 2))
    padded[:-1] = np.stack([np.real(coefficients), np.imag(coefficients)], axis=1)
    return _combine(basis, jnp.asarray(padded, jnp.result_type(float)))


@partial(jax.jit, static_argnums=2)
def _start(op: LinearMap, seed: Integer[Array, ""], num_vectors: int) -> Vector:
    return vectors.with_row(
        vectors.zeros_basis(op.like, num_vectors), 0, vectors.normalize(draw_like(op.like, seed))[0]
    )


def _compress(basis: Vector, rotation: Float64[np.ndarray, "m m"], dim: int) -> Vector:
    """Return `dim` rotated vectors of the basis, followed by its last vector and zeros."""
    whole = np.zeros((len(rotation) + 1, len(rotation) + 1))
    whole[:-1, :dim] = rotation[:, :dim]
    whole[-1, dim] = 1.0
    return _combine(basis, jnp.asarray(whole, jnp.result_type(float)))


_combine = jax.jit(vectors.combine)


_first = jax.jit(lambda basis: vectors.row(basis, 0))


def _residual(op: LinearMap, product: Matvec | None, x: Vector, value: complex) -> Float[Array, ""]:
    if product is None:
        return _residual_compiled(op, x, value.real, value.imag)
    images = [product(vectors.row(x, 0)), product(vectors.row(x, 1)) if value.imag else vectors.zeros_like(op.like)]
    return residual_norm(vectors.stack(images), x, value.real, value.imag)


@jax.jit
def _residual_compiled(
    op: LinearMap, x: Vector, real: Float[Array, ""] | float, imag: Float[Array, ""] | float
) -> Float[Array, ""]:
    return residual_norm(lax.map(op.linearize(), x), x, real, imag)
