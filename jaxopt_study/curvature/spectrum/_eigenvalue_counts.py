"""Eigenvalue counts proved by the compression of an operator to a subspace."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg import block_lanczos as lanczos
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.block_lanczos import Space
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.types import Key, Vector


class Compression(NamedTuple):
    """The matrix QᵀHQ of an operator on the span of orthonormal columns Q.

    Attributes:
        matrix: QᵀHQ as computed, not symmetrised; rows and columns from `count` on are unused.
        count: Number of columns of Q.
        deviation: ‖QᵀQ − I‖, Frobenius, measured.
        scale: Largest ‖H q‖ or |eigenvalue of the matrix|, the unit of the noise floor.
        exhausted: Number of columns after which the space was invariant and continued at random; 0 if it never was.
        num_matvecs: Number of products.
    """

    matrix: Float[Array, "rows m"]
    count: Int[Array, ""]
    deviation: Float[Array, ""]
    scale: Float[Array, ""]
    exhausted: Int[Array, ""]
    num_matvecs: Int[Array, ""]

    def error(self, noise_floor: float) -> Float[Array, ""]:
        """Return a bound δ on the error of every eigenvalue of the symmetrised matrix (Weyl).

        Each product may have an error of `noise_floor` · scale, in the worst case all in the same direction; asymmetry
        and loss of orthogonality are measured.
        """
        square = self._square()
        asymmetry = vectors.norm(square - square.T) / 2
        products = jnp.sqrt(self.count.astype(square.dtype)) * noise_floor * self.scale
        return products + asymmetry + self.deviation * self.scale

    def eigenvalues(self, first: Int[Array, ""] | None = None) -> Float[Array, " m"]:
        """Return the eigenvalues on all columns, or on the first ones, ascending and padded with NaN."""
        count = self.count if first is None else first
        square, unit = vectors.unscaled(self._square(count))
        known = jnp.arange(square.shape[0], dtype=jnp.int32) < count
        beyond = 1 + 2 * jnp.max(jnp.sum(jnp.abs(square), axis=0))
        values = jnp.linalg.eigvalsh((square + square.T) / 2 + jnp.diag(jnp.where(known, 0, beyond)))
        return jnp.where(known, unit * values, jnp.nan)

    def _square(self, count: Int[Array, ""] | None = None) -> Float[Array, "m m"]:
        m = self.matrix.shape[1]
        known = jnp.arange(m, dtype=jnp.int32) < (self.count if count is None else count)
        return jnp.where(known[:, None] & known[None, :], self.matrix[:m], 0)


class _State(NamedTuple):
    space: Space
    done: Bool[Array, ""]


@dataclass(frozen=True)
class KrylovCompression:
    """`krylov_compression` as a `solver_loop.Solver`; the fields are fixed at compile time."""

    layout: Layout
    num_basis: int
    block_size: int
    scaled: bool = True

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from random directions."""
        b = self.block_size
        space = lanczos.begin(self.layout, self.layout.random(seed, 0, b), self.num_basis + b, seed)
        return _State(space, jnp.bool(False))

    def next_block(self, state: _State) -> Vector:
        """Return the pending vectors of the Krylov space."""
        return lanczos.pending(state.space, self.block_size)

    def update(
        self, noise_floor: Float[Array, ""], seed: UInt32[Array, "2"], state: _State, products: Vector
    ) -> _State:
        """Return the state with an extended Krylov space."""
        space, _ = lanczos.extend(self.layout, state.space, products, seed, noise_floor, jnp.bool(True))
        return _State(space, (space.count >= self.num_basis) | (space.count >= self.layout.size) | ~_finite(space))

    def result(self, noise_floor: Float[Array, ""], state: _State, unit: Float[Array, ""]) -> Compression:
        """Return the compression."""
        return _result(self, noise_floor, state, unit)


def dense_compression(op: Operator) -> Compression:
    """Return the compression to the whole space, where Q is the identity.

    Args:
        op: H, of few coordinates.

    Returns:
        The n × n matrix. Cost: n products.
    """
    matrix = op.to_dense(max_size=op.size)
    matrix = matrix.astype(vectors.accumulator(matrix.dtype))
    return Compression(
        matrix=matrix,
        count=jnp.int32(op.size),
        deviation=jnp.zeros((), matrix.dtype),
        scale=spectral_scale(matrix),
        exhausted=jnp.int32(0),
        num_matvecs=jnp.int32(op.size),
    )


def krylov_compression(op: Operator, *, num_basis: int, block_size: int, noise_floor: float, key: Key) -> Compression:
    """Compress an operator to a block Krylov space from random directions, continued at random where it is invariant.

    Args:
        op: H.
        num_basis: Columns of Q, at most n; rounded up to a multiple of the block size.
        block_size: Number of starting directions, and of copies of a multiple eigenvalue that can be found.
        noise_floor: Relative error of a product.
        key: Key of the directions.

    Returns:
        The compression. Cost: num_basis products; memory num_basis + block_size vectors.
    """
    layout = layout_of(op.like)
    steps = -(-num_basis // block_size)
    solver = KrylovCompression(layout, steps * block_size, block_size)
    return solver_loop.run(solver, op, jnp.asarray(noise_floor, layout.scalar), key)


@jax.jit
def spectral_scale(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """Return the largest |eigenvalue| of the symmetric part of a matrix."""
    matrix, unit = vectors.unscaled(matrix)
    return unit * jnp.max(jnp.abs(jnp.linalg.eigvalsh((matrix + matrix.T) / 2)))


def _finite(space: Space) -> Bool[Array, ""]:
    return jnp.isfinite(space.scale)


def _result(
    solver: KrylovCompression, noise_floor: Float[Array, ""], state: _State, unit: Float[Array, ""]
) -> Compression:
    space, m, b = state.space, solver.num_basis, solver.block_size
    known = jnp.arange(m + b, dtype=jnp.int32) < space.count
    products = vectors.gram(space.basis, space.basis)
    both = known[:, None] & known[None, :]
    deviation = jnp.linalg.norm(jnp.where(both, products - jnp.eye(m + b, dtype=products.dtype), 0))
    nan = jnp.where(_finite(space), 0.0, jnp.nan).astype(space.scale.dtype)
    # The coupling of the first c columns to the next b is rounding if all b directions are random.
    ends = np.arange(b, m + 1, b, dtype=np.int32)
    couplings = jnp.stack([jnp.linalg.norm(space.projected[c : c + b, c - b : c]) for c in ends])
    loose = (couplings <= 2 * math.sqrt(b) * noise_floor * space.scale) & (ends <= space.count)
    exhausted = jnp.where(jnp.any(loose), jnp.asarray(ends)[jnp.argmax(loose)], 0)
    return Compression(
        matrix=unit * space.projected[:m, :m] + nan,
        count=jnp.minimum(space.count, m).astype(jnp.int32),
        deviation=deviation + nan,
        scale=unit * space.scale + nan,
        exhausted=exhausted.astype(jnp.int32),
        num_matvecs=space.count.astype(jnp.int32),
    )


@partial(jax.jit, static_argnums=(2,))
def proved_counts(
    compression: Compression, tau: Float[Array, ""], noise_floor: float
) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
    """Return the numbers of eigenvalues of H proved to be below −τ and above τ, and of undecided ones.

    By the Courant–Fischer theorem H has at least as many eigenvalues below −τ as its compression has below −τ − δ, if δ
    bounds the error of the compression; likewise above τ.

    Args:
        compression: Compression of H.
        tau: τ ≥ 0.
        noise_floor: Relative error of a product.

    Returns:
        The numbers of eigenvalues of the compression below −τ − δ, above τ + δ, within δ of −τ and within δ of τ.
    """
    values, error = compression.eigenvalues(), compression.error(noise_floor)
    return (
        jnp.sum(values < -tau - error),
        jnp.sum(values > tau + error),
        jnp.sum((values >= -tau - error) & (values < -tau + error)),
        jnp.sum((values <= tau + error) & (values > tau - error)),
    )
