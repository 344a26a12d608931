"""Lanczos recurrences of all diagonal blocks of an operator at once, in the memory of one."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.chunks import Chunks
from jaxopt_study.linalg.lanczos_recurrence import noise_level
from jaxopt_study.types import Vector


class _State(NamedTuple):
    step: Int[Array, ""]  # j
    basis: Float[Array, "m chunks c"]  # q₀ … qⱼ, rows beyond are 0
    q: Float[Array, "chunks c"]  # qⱼ: in every block a unit vector, or 0 in a block that has no further direction
    diagonal: Float[Array, "blocks m"]  # α
    offdiagonal: Float[Array, "blocks m"]  # β
    unit: Float[Array, " blocks"]  # power of two next to the first products; 0 before
    scale: Float[Array, " blocks"]  # largest ‖H q‖, in units
    serial: Int[Array, ""]  # number of random vectors drawn
    done: Bool[Array, ""]


class BlockMatrices(NamedTuple):
    """Tridiagonal matrices QᵀHQ of the blocks."""

    diagonal: Float[Array, "*probes blocks m"]
    offdiagonal: Float[Array, "*probes blocks m"]


@dataclass(frozen=True)
class LanczosOfBlocks:
    """Lanczos with full reorthogonalisation for a block diagonal operator, as a `solver_loop.Solver`.

    A vector holds the current Lanczos vector of every block, each with norm 1. Inner products, norms and
    orthogonalisation are those of the blocks, so the recurrences are independent, although all of them take one product
    with the block diagonal operator per step. Each is divided by its own unit, because the blocks of a network differ
    by many orders of magnitude. When the Krylov space of a block is exhausted, the recurrence continues from a random
    direction orthogonal to it, with β = 0. After as many steps as a block has coordinates, its matrix therefore has all
    eigenvalues, each as often as it occurs.

    Attributes:
        layout: The layout of vectors.
        sizes: The number of coordinates of each block.
        num_steps: m.
    """

    layout: Chunks
    sizes: tuple[int, ...]
    num_steps: int
    block_size: int = 1
    scaled: bool = False

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from a random direction in every block."""
        dtype, blocks = self.layout.scalar, len(self.sizes)
        zeros, zero = jnp.zeros((blocks, self.num_steps), dtype), jnp.zeros(blocks, dtype)
        q = self._normalized(self.layout.random(seed, 0))
        basis = vectors.with_row(vectors.zeros_basis(self.layout.structure, self.num_steps), 0, q)
        return _State(jnp.int32(0), basis, q, zeros, zeros, zero, zero, jnp.int32(1), jnp.bool_(False))

    def next_block(self, state: _State) -> Vector:
        """Return the Lanczos vectors of all blocks."""
        return state.q[None]

    def update(self, limits: None, seed: UInt32[Array, "2"], state: _State, products: Vector) -> _State:
        """Return the state after step j."""
        j, image = state.step, vectors.row(products, 0)
        most = self.layout.largest(image)
        unit = jnp.where(state.unit > 0, state.unit, jnp.where(most > 0, jax.vmap(vectors.power_of_two)(most), 0))
        image = lax.optimization_barrier(self.layout.times(1 / jnp.where(unit > 0, unit, 1), image))
        scale = jnp.maximum(state.scale, self.layout.norms(image))
        u, first = self._remove(state.basis, image)
        u, second = self._remove(state.basis, u)
        alpha, beta = (first + second)[:, j], self.layout.norms(u)
        left = jnp.asarray(self.sizes) > j + 1  # a further direction exists
        exhausted = left & (beta <= jax.vmap(noise_level)(scale))
        q = self.layout.times(jnp.where(left & ~exhausted, 1 / jnp.where(beta > 0, beta, 1), 0), u)

        def continued() -> Float[Array, "chunks c"]:
            r = self.layout.random(seed, state.serial)
            for _ in range(2):
                r = self._normalized(self._remove(state.basis, r)[0])
            return q + self.layout.times(exhausted.astype(beta.dtype), r)

        q = lax.cond(jnp.any(exhausted), continued, lambda: q)
        row = jnp.minimum(j + 1, self.num_steps - 1)
        basis = lax.cond(j + 1 < self.num_steps, lambda: vectors.with_row(state.basis, row, q), lambda: state.basis)
        return _State(
            j + 1,
            basis,
            q,
            state.diagonal.at[:, j].set(alpha),
            state.offdiagonal.at[:, j].set(jnp.where(left & ~exhausted, beta, 0)),
            unit,
            scale,
            state.serial + 1,
            j + 1 >= self.num_steps,
        )

    def result(self, limits: None, state: _State, unit: Float[Array, ""]) -> BlockMatrices:
        """Return the tridiagonal matrices."""
        units = jnp.where(state.unit > 0, state.unit, 1)[:, None]
        return BlockMatrices(state.diagonal * units, state.offdiagonal * units)

    def _normalized(self, x: Float[Array, "chunks c"]) -> Float[Array, "chunks c"]:
        norms = self.layout.norms(x)
        return self.layout.times(jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0), x)

    def _remove(
        self, basis: Float[Array, "m chunks c"], x: Float[Array, "chunks c"]
    ) -> tuple[Float[Array, "chunks c"], Float[Array, "blocks m"]]:
        """Return x − Q Qᵀx and Qᵀx, in every block; unused rows of Q are 0."""
        coefficients = self.layout.project(basis, x)
        return x - self.layout.combine(basis, coefficients), coefficients
