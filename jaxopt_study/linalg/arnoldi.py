"""Eigenvalues of a linear map that is not symmetric, in bounded memory, with true residuals."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study._programs import wider
from jaxopt_study.linalg import gram_schmidt, solver_loop, vectors
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.linalg.operator import LinearMap
from jaxopt_study.types import Key, Matvec

Ranking = Callable[[np.ndarray], np.ndarray]

_CLUSTER = 1e-4  # eigenvalues nearer than this, relative, may be one that is there several times


class Ritz(NamedTuple):
    """Eigenvalues of a map, with what is known of their errors."""

    values: np.ndarray  # (k,) complex, the largest modulus first
    residuals: np.ndarray  # (k,) ‖A x − μ x‖ for the unit vector x, recomputed
    errors: np.ndarray  # (k,) what residual and rounding, magnified by the eigenvalue's condition, leave open
    leading: Any  # the vector of the first, its real part
    num_matvecs: int
    converged: bool


class _Orthogonalised(NamedTuple):
    """A vector on its way into the basis."""

    w: Any
    coefficients: Float[Array, " rows"]
    length: Float[Array, ""]  # what the first two passes have left of A v
    passes: Int[Array, ""]


def arnoldi(
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

    Builds an orthonormal V and a small matrix S with A V = V S + v bᵀ, and when V is full, keeps the part of its
    invariant space that belongs to the wanted eigenvalues, by an ordered real Schur decomposition of S, and goes on.
    Orthogonality is restored twice in every step. When the Krylov space is exhausted (what remains of A v is rounding)
    it continues from a random direction orthogonal to V, and the matrix has a zero there.

    It stops when the residual estimates of all wanted pairs are small; then the residuals are computed anew from the
    vectors. A residual bounds the distance to an eigenvalue, times the condition; that no eigenvalue farther out was
    missed is not proved, only probable for a random start. An eigenvalue's multiplicity is not seen.

    Args:
        op: A map with `like`, `loop`, `linearize` and `product`, itself a JAX pytree.
        k: How many eigenvalues, for each ranking k divided by the number of rankings; a conjugate pair is not split.
        key: A key for the start.
        tol: Residual that is small enough, relative to max(|μ|, 1).
        rounding: What rounding may hide in a residual, relative to the largest |μ|.
        basis_size: m, the number of vectors held.
        max_matvecs: When to give up.
        rankings: Functions of eigenvalues, by each of which the largest are wanted.

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
        basis, columns = extend(op, basis, columns, jnp.int32(first), round_seed, product)
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
    matrix: np.ndarray, last: np.ndarray, k: int, rankings: tuple[Ranking, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which eigenvalues of the small matrix are wanted, the residual estimates of all, and all."""
    if not np.isfinite(matrix).all():
        nothing = np.full(len(matrix), np.nan)
        return np.arange(min(k, len(matrix))), nothing, nothing.astype(complex)
    values, right = np.linalg.eig(matrix)
    estimates = np.abs(last @ right)
    wanted: set[int] = set()
    for ranking in rankings:
        order = np.argsort(-ranking(values), kind="stable")
        for index in order[: max(1, k // len(rankings))]:
            pair = np.argmin(np.abs(values - values[index].conj()))
            wanted |= {int(index), int(pair)}
    chosen = np.array(sorted(wanted, key=lambda i: (-abs(values[i]), -values[i].imag)))
    return chosen, estimates, values


def _restart(
    basis: Any,
    matrix: np.ndarray,
    values: np.ndarray,
    wanted: np.ndarray,
    estimates: np.ndarray,
    rankings: tuple[Ranking, ...],
) -> tuple[Any, np.ndarray, int]:
    """Return the basis of the wanted eigenvalues' invariant space, its matrix and size, with some more vectors."""
    m = matrix.shape[1]
    # Half of the basis, the wanted ones first: restarting with the wanted alone forgets what was being learnt. What is
    # known exactly and not wanted (a map with frozen parts has zeros by the dozen) would only take the room.
    known = estimates <= 1e-12 * np.abs(values).max()
    in_turn = np.stack([np.argsort(-ranking(values), kind="stable") for ranking in rankings], axis=1).ravel()
    others = [i for i in dict.fromkeys(in_turn.tolist()) if i not in wanted and not known[i]]
    kept = {*wanted.tolist(), *others[: max(0, (m - len(wanted)) // 2 - 1)]}
    kept |= {int(np.argmin(np.abs(values - values[i].conj()))) for i in kept}

    # SciPy counts the arguments of what it is given to call, so no decorator (a type checker's) may stand around it.
    is_kept = lambda real, imag: int(np.argmin(np.abs(values - complex(real, imag)))) in kept
    triangle, rotation, dim = scipy.linalg.schur(matrix[:m], output="real", sort=is_kept)  # pyright: ignore[reportAssignmentType]
    dim = min(max(dim, 1), m - 1)
    if dim < m - 1 and triangle[dim, dim - 1] != 0:
        dim += 1  # not between the two rows of a conjugate pair
    new = np.zeros_like(matrix)
    new[:dim, :dim] = triangle[:dim, :dim]
    new[dim, :dim] = matrix[m] @ rotation[:, :dim]
    return _compress(basis, rotation, dim), new, dim


def _finish(
    op: Any,
    product: Any,
    basis: Any,
    matrix: np.ndarray,
    wanted: np.ndarray,
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
            residuals.append(residuals[-1])  # of a conjugate pair one says it all
            continue
        x = _ritz_vector(basis, right[:, i])
        residuals.append(float(_residual(op, product, x, complex(value))))
        used += 1 if value.imag == 0 else 2
        leading = _first(x) if leading is None else leading
    found = np.asarray(residuals)
    small = found <= tol * np.maximum(np.abs(values), 1.0)
    off = found + rounding * np.abs(values).max()
    errors = np.array(
        [
            min(size * max(condition, 1.0), _cluster_error(matrix, last, complex(value), float(size)))
            for value, size, condition in zip(values, off, conditions, strict=True)
        ]
    )
    return Ritz(values, found, errors, leading, used, bool(small.all()))


def _cluster_error(matrix: np.ndarray, last: np.ndarray, value: complex, residual: float) -> float:
    """Return the error of an eigenvalue as one of those that lie around it, ∞ if it lies alone.

    An eigenvalue that is there many times over has no condition of its own: which vectors of its space are its own is
    rounding. The space has one, the norm s of its projector. With residual r, c eigenvalues and the strictly triangular
    part N of the Schur form on the space, Henrici's theorem gives max(c r s, (c r s ‖N‖^(c−1))^(1/c)).
    """
    radius = _CLUSTER * max(abs(value), 1.0)
    # SciPy counts the arguments of what it is given to call, so no decorator (a type checker's) may stand around it.
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


def _ritz_vector(basis: Any, coefficients: Any) -> Any:
    """Return the real and the imaginary part of V y, a basis of two."""
    padded = np.zeros((len(coefficients) + 1, 2))
    padded[:-1] = np.stack([coefficients.real, coefficients.imag], axis=1)
    return _combine(basis, jnp.asarray(padded, jnp.result_type(float)))


@partial(jax.jit, static_argnums=2)
def _start(op: Any, seed: Array, num_vectors: int) -> Any:
    return vectors.with_row(
        vectors.zeros_basis(op.like, num_vectors), 0, vectors.normalize(draw_like(op.like, seed))[0]
    )


class _Space(NamedTuple):
    basis: Any  # V, rows behind j are free
    columns: Float[Array, "rows m"]  # (m + 1, m): column i is Vᵀ A vᵢ for i < j
    j: Int[Array, ""]
    done: Bool[Array, ""]


@dataclass(frozen=True)
class ArnoldiRecurrence:
    """Arnoldi's recurrence as a `solver_loop.Solver`: it starts from basis, columns and j, its limit is a seed."""

    layout: Layout
    block_size: int = 1
    scaled: bool = False  # a training step is near the identity

    def initial(self, seed: None, start: tuple[Any, Array, Array]) -> _Space:
        """Return the state before A vⱼ is known."""
        basis, columns, j = start
        return _Space(basis, columns, j, j >= columns.shape[1])

    def next_block(self, state: _Space) -> Any:
        """Return vⱼ."""
        return jax.tree.map(lambda leaf: leaf[None], vectors.row(state.basis, state.j))

    def update(self, limits: Array, seed: None, state: _Space, products: Any) -> _Space:
        """Return the state with column j and vⱼ₊₁."""
        basis, columns = _append(state.basis, state.columns, vectors.row(products, 0), state.j, limits)
        j = state.j + 1
        return _Space(basis, columns, j, j >= columns.shape[1])

    def result(self, limits: Array, state: _Space, unit: Array) -> tuple[Any, Array]:
        """Return the basis and the columns of its matrix."""
        return state.basis, state.columns


def extend(
    op: LinearMap, basis: Any, columns: Array, first: Array, seed: Array, product: Matvec | None = None
) -> tuple[Any, Array]:
    """Return the basis and the columns of its matrix from `first` on, filled in."""
    # Leaf by leaf: the vectors are pairs of parameters and memories, in units of their own.
    layout = replace(layout_of(op.like), flat=False)
    return solver_loop.run(ArnoldiRecurrence(layout), op, seed, None, (basis, columns, first), product=product)


def _append(basis: Any, columns: Array, w: Any, j: Array, seed: Array) -> tuple[Any, Array]:
    """Return the basis with A vⱼ, orthogonalised twice, or with a random vector if nothing is left of it."""
    dtype = columns.dtype
    least = 10 * vectors.epsilon(w) * vectors.norm(w)
    # Rows behind j are what an earlier round has left.
    filled = jnp.arange(columns.shape[0], dtype=j.dtype) <= j

    def orthogonalised(state: _Orthogonalised) -> _Orthogonalised:
        w, found = gram_schmidt.remove(basis, state.w, filled)
        found = found.astype(dtype)
        coefficients = state.coefficients + jnp.where(state.passes < 2, found, 0)
        length = jnp.where(state.passes < 2, vectors.norm(w), state.length).astype(dtype)
        exhausted = (state.passes == 1) & (length <= least)
        w = lax.cond(exhausted, lambda: draw_like(w, seed + j.astype(seed.dtype)), lambda: w)
        return _Orthogonalised(w, coefficients, length, state.passes + 1)

    def unfinished(state: _Orthogonalised) -> Array:
        return (state.passes < 2) | ((state.passes < 4) & (state.length <= least))

    start = _Orthogonalised(w, jnp.zeros(columns.shape[0], dtype), jnp.zeros((), dtype), jnp.int32(0))
    found = lax.while_loop(unfinished, orthogonalised, start)
    length = jnp.where(found.length <= least, 0, found.length)
    coefficients = jnp.where(jnp.arange(columns.shape[0], dtype=j.dtype) == j + 1, length, found.coefficients)
    new = vectors.normalize(found.w)[0]
    return vectors.with_row(basis, j + 1, new), columns.at[:, j].set(coefficients)


def _compress(basis: Any, rotation: np.ndarray, dim: int) -> Any:
    """Return `dim` rotated vectors of the basis and its last one behind them, the rest cleared."""
    whole = np.zeros((len(rotation) + 1, len(rotation) + 1))
    whole[:-1, :dim] = rotation[:, :dim]
    whole[-1, dim] = 1.0
    return _combine(basis, jnp.asarray(whole, jnp.result_type(float)))


_combine = jax.jit(vectors.combine)


_first = jax.jit(lambda basis: vectors.row(basis, 0))


def _residual(op: Any, product: Any, x: Any, value: complex) -> Array:
    if product is None:
        return _residual_compiled(op, x, value.real, value.imag)
    images = [product(vectors.row(x, 0)), product(vectors.row(x, 1)) if value.imag else vectors.zeros_like(op.like)]
    return residual_norm(vectors.stack(images), x, value.real, value.imag)


@jax.jit
def _residual_compiled(op: Any, x: Any, real: Array | float, imag: Array | float) -> Array:
    return residual_norm(lax.map(op.linearize(), x), x, real, imag)


@jax.jit
def residual_norm(images: Any, x: Any, real: Array | float, imag: Array | float) -> Array:
    """Return ‖A x − μ x‖/‖x‖ for x = x₀ + i x₁."""
    turned = vectors.combine(x, jnp.array([[real, imag], [-imag, real]]))  # real and imaginary part of μ x
    rest = vectors.subtract(images, turned)
    return vectors.norm(rest) / vectors.norm(x)
