"""Arnoldi recurrence for a linear map that is not symmetric."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer

from jaxopt_study.linalg import gram_schmidt, solver_loop, vectors
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.linalg.operator import LinearMap
from jaxopt_study.types import Matvec, Vector


class _Orthogonalised(NamedTuple):
    """A vector between two passes of Gram–Schmidt."""

    w: Vector
    coefficients: Float[Array, " rows"]
    length: Float[Array, ""]  # norm of A v after the first two passes
    passes: Int[Array, ""]


class _Space(NamedTuple):
    basis: Vector  # V; rows beyond j are unused
    columns: Float[Array, "rows m"]  # m + 1 rows; column i is Vᵀ A vᵢ for i < j
    j: Int[Array, ""]
    done: Bool[Array, ""]


@dataclass(frozen=True)
class ArnoldiRecurrence:
    """The recurrence as a `solver_loop.Solver`; `start` is (basis, columns, j) and `limits` is a seed."""

    layout: Layout
    block_size: int = 1
    scaled: bool = False  # a training step is near the identity

    def initial(self, seed: None, start: tuple[Vector, Float[Array, "rows m"], Int[Array, ""]]) -> _Space:
        """Return the state before the product A vⱼ."""
        basis, columns, j = start
        return _Space(basis, columns, j, j >= columns.shape[1])

    def next_block(self, state: _Space) -> Vector:
        """Return vⱼ."""
        return jax.tree.map(lambda leaf: leaf[None], vectors.row(state.basis, state.j))

    def update(self, limits: Integer[Array, ""], seed: None, state: _Space, products: Vector) -> _Space:
        """Return the state with column j and vⱼ₊₁."""
        basis, columns = _append(state.basis, state.columns, vectors.row(products, 0), state.j, limits)
        j = state.j + 1
        return _Space(basis, columns, j, j >= columns.shape[1])

    def result(
        self, limits: Integer[Array, ""], state: _Space, unit: Float[Array, ""]
    ) -> tuple[Vector, Float[Array, "rows m"]]:
        """Return the basis and the columns of its matrix."""
        return state.basis, state.columns


def arnoldi_factorization(
    op: LinearMap,
    basis: Vector,
    columns: Float[Array, "rows m"],
    first: Int[Array, ""],
    seed: Integer[Array, ""],
    product: Matvec | None = None,
) -> tuple[Vector, Float[Array, "rows m"]]:
    """Return V and VᵀAV with all columns from `first` on computed by Arnoldi's recurrence."""
    # Leaf by leaf: the vectors are pairs of parameters and momentum buffers, each in its own units.
    layout = replace(layout_of(op.like), flat=False)
    return solver_loop.run(ArnoldiRecurrence(layout), op, seed, None, (basis, columns, first), product=product)


def _append(
    basis: Vector, columns: Float[Array, "rows m"], w: Vector, j: Int[Array, ""], seed: Integer[Array, ""]
) -> tuple[Vector, Float[Array, "rows m"]]:
    """Return the basis with A vⱼ orthogonalised twice, or with a random vector if the remainder is rounding."""
    dtype = columns.dtype
    least = 10 * vectors.epsilon(w) * vectors.norm(w)
    # Rows beyond j hold vectors of the previous round.
    filled = jnp.arange(columns.shape[0], dtype=j.dtype) <= j

    def orthogonalised(state: _Orthogonalised) -> _Orthogonalised:
        w, removed = gram_schmidt.remove(basis, state.w, filled)
        coefficients = state.coefficients + jnp.where(state.passes < 2, removed.astype(dtype), 0)
        length = jnp.where(state.passes < 2, vectors.norm(w), state.length).astype(dtype)
        exhausted = (state.passes == 1) & (length <= least)
        w = lax.cond(exhausted, lambda: draw_like(w, seed + j.astype(seed.dtype)), lambda: w)
        return _Orthogonalised(w, coefficients, length, state.passes + 1)

    def unfinished(state: _Orthogonalised) -> Bool[Array, ""]:
        return (state.passes < 2) | ((state.passes < 4) & (state.length <= least))

    start = _Orthogonalised(w, jnp.zeros(columns.shape[0], dtype), jnp.zeros((), dtype), jnp.int32(0))
    last = lax.while_loop(unfinished, orthogonalised, start)
    length = jnp.where(last.length <= least, 0, last.length)
    coefficients = jnp.where(jnp.arange(columns.shape[0], dtype=j.dtype) == j + 1, length, last.coefficients)
    new = vectors.normalize(last.w)[0]
    return vectors.with_row(basis, j + 1, new), columns.at[:, j].set(coefficients)


@jax.jit
def residual_norm(
    images: Vector, x: Vector, real: Float[Array, ""] | float, imag: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Return ‖A x − μ x‖/‖x‖ for the complex vector x = x₀ + i x₁, given as a basis of two."""
    scaled = vectors.combine(x, jnp.array([[real, imag], [-imag, real]]))  # real and imaginary part of μ x
    rest = vectors.subtract(images, scaled)
    return vectors.norm(rest) / vectors.norm(x)
