"""Lanczos recurrences of all diagonal blocks of an operator at once, in the memory of one."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.lanczos_recurrence import noise_level
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.linalg.partition import parts
from jaxopt_study.types import Vector


class _State(NamedTuple):
    step: Int[Array, ""]  # j
    basis: Vector  # q₀ … qⱼ, rows beyond are 0
    q: Vector  # qⱼ: in every block a unit vector, or 0 in a block that has no further direction
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
        layout: The layout of vectors, with separate leaves.
        owners: For each leaf, the index of its block.
        sizes: The number of coordinates of each block.
        num_steps: m.
    """

    layout: Layout
    owners: tuple[int, ...]
    sizes: tuple[int, ...]
    num_steps: int
    block_size: int = 1
    scaled: bool = False

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from a random direction in every block."""
        dtype, blocks = self.layout.scalar, len(self.sizes)
        zeros, zero = jnp.zeros((blocks, self.num_steps), dtype), jnp.zeros(blocks, dtype)
        q, _ = self._normalized(vectors.row(self.layout.random(seed, 0, 1), 0))
        basis = vectors.with_row(vectors.zeros_basis(self.layout.structure, self.num_steps), 0, q)
        return _State(jnp.int32(0), basis, q, zeros, zeros, zero, zero, jnp.int32(1), jnp.bool_(False))

    def next_block(self, state: _State) -> Vector:
        """Return the Lanczos vectors of all blocks."""
        return jax.tree.map(lambda leaf: leaf[None], state.q)

    def update(self, limits: None, seed: UInt32[Array, "2"], state: _State, products: Vector) -> _State:
        """Return the state after step j."""
        j, image = state.step, vectors.row(products, 0)
        most = jnp.stack([vectors.max_abs(part) for part in self._parts(image)]).astype(state.unit.dtype)
        unit = jnp.where(state.unit > 0, state.unit, jnp.where(most > 0, jax.vmap(vectors.power_of_two)(most), 0))
        image = lax.optimization_barrier(self._times(1 / jnp.where(unit > 0, unit, 1), image))
        scale = jnp.maximum(state.scale, self._norms(image))
        u, first = self._remove(state.basis, image)
        u, second = self._remove(state.basis, u)
        alpha, beta = (first + second)[:, j], self._norms(u)
        left = jnp.asarray(self.sizes) > j + 1  # a further direction exists
        exhausted = left & (beta <= jax.vmap(noise_level)(scale))
        q = self._times(jnp.where(left & ~exhausted, 1 / jnp.where(beta > 0, beta, 1), 0), u)

        def continued() -> Vector:
            r = vectors.row(self.layout.random(seed, state.serial, 1), 0)
            for _ in range(2):
                r, _ = self._normalized(self._remove(state.basis, r)[0])
            return jax.tree.map(jnp.add, q, self._times(exhausted.astype(beta.dtype), r))

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

    def _parts(self, v: Vector) -> list[list[Array]]:
        return parts(self.owners, len(self.sizes), v)

    def _norms(self, v: Vector) -> Float[Array, " blocks"]:
        return jnp.stack([vectors.plain_norm(part) for part in self._parts(v)]).astype(self.layout.scalar)

    def _times(self, factors: Float[Array, " blocks"], v: Vector) -> Vector:
        leaves, structure = jax.tree.flatten(v)
        return structure.unflatten(
            [vectors.scale(factors[owner], leaf) for owner, leaf in zip(self.owners, leaves, strict=True)]
        )

    def _normalized(self, v: Vector) -> tuple[Vector, Float[Array, " blocks"]]:
        norms = self._norms(v)
        return self._times(jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0), v), norms

    def _remove(self, basis: Vector, v: Vector) -> tuple[Vector, Float[Array, "blocks m"]]:
        """Return v − Q Qᵀv and Qᵀv, in every block; unused rows of Q are 0."""
        pairs = list(zip(self._parts(basis), self._parts(v), strict=True))
        coefficients = [vectors.project(q, x) for q, x in pairs]
        rests = [vectors.subtract(x, vectors.combine(q, c)) for (q, x), c in zip(pairs, coefficients, strict=True)]
        given = [iter(rest) for rest in rests]
        remainder = jax.tree.structure(v).unflatten([next(given[owner]) for owner in self.owners])
        return remainder, jnp.stack(coefficients).astype(self.layout.scalar)
