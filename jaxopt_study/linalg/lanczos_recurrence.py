"""Lanczos recurrence with full reorthogonalisation, without restarts, from one random unit vector."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study.linalg import gram_schmidt, vectors
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.types import Vector

_CHUNKS = 4  # a pass of Gram–Schmidt then reads on average 5/8 of the basis instead of all of it
_SHORT = 16  # a basis of fewer rows is not worth another chunk, which takes time to compile
_ROUNDING = 10  # relative error of a product, in units of ε ‖H‖


class _State(NamedTuple):
    step: Int[Array, ""]  # j
    basis: tuple[Vector, ...]  # q₀ … qⱼ₋₁, in chunks of equal length
    q: Vector  # qⱼ
    previous: Vector  # qⱼ₋₁
    diagonal: Float[Array, " m"]  # α
    offdiagonal: Float[Array, " m"]  # β; βⱼ couples qⱼ and qⱼ₊₁
    scale: Float[Array, ""]  # largest ‖H q‖
    orthogonality: Float[Array, ""]
    alive: Bool[Array, ""]  # whether qⱼ is a new direction
    done: Bool[Array, ""]


class TridiagonalMatrix(NamedTuple):
    """Tridiagonal matrix T = QᵀHQ of one probe."""

    diagonal: Float[Array, "*probes m"]  # α
    offdiagonal: Float[Array, "*probes m"]  # β
    taken: Int[Array, "*probes"]  # number of steps taken
    orthogonality: Float[Array, "*probes"]


@dataclass(frozen=True)
class LanczosRecurrence:
    """Lanczos without restarts from one random unit vector, as a `solver_loop.Solver`."""

    layout: Layout
    num_steps: int
    reorthogonalize: bool
    axis: str | None  # axis of vectorised solves, which share their branches
    block_size: int = 1
    scaled: bool = True

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from the seed's random unit vector."""
        return _begin(self, random_unit_vector(self.layout, seed))

    def next_block(self, state: _State) -> Vector:
        """Return qⱼ."""
        return jax.tree.map(lambda leaf: leaf[None], state.q)

    def update(self, limits: None, seed: UInt32[Array, "2"], state: _State, products: Vector) -> _State:
        """Return the state after step j; in an exhausted space only the step counter changes."""
        return _updated(self, state, vectors.row(products, 0))

    def result(self, limits: None, state: _State, unit: Float[Array, ""]) -> TridiagonalMatrix:
        """Return the tridiagonal matrix."""
        taken = state.step - jnp.sum(jnp.isposinf(state.diagonal), dtype=jnp.int32)
        return TridiagonalMatrix(state.diagonal * unit, state.offdiagonal * unit, taken, state.orthogonality)


def random_unit_vector(layout: Layout, seed: UInt32[Array, "2"]) -> Vector:
    """Return a random unit vector in a layout, uniform on the sphere."""
    return vectors.normalize(vectors.row(layout.random(seed, 0, 1), 0))[0]


def _begin(solver: LanczosRecurrence, start: Vector) -> _State:
    layout, num_steps, reorthogonalize = solver.layout, solver.num_steps, solver.reorthogonalize
    dtype = layout.scalar
    rows = -(-num_steps // max(1, min(_CHUNKS, num_steps // _SHORT)))
    chunks = -(-num_steps // rows) if reorthogonalize else 0
    zeros, zero = jnp.zeros(num_steps, dtype), jnp.zeros((), dtype)
    basis = tuple(vectors.zeros_basis(layout.structure, rows) for _ in range(chunks))
    lost = zero if reorthogonalize else jnp.full((), jnp.nan, dtype)
    return _State(
        jnp.int32(0), basis, start, vectors.zeros_like(layout.structure), zeros, zeros, zero, lost, jnp.bool_(True),
        jnp.bool_(num_steps == 0),
    )  # fmt: skip


def _updated(solver: LanczosRecurrence, state: _State, image: Vector) -> _State:
    j, q = state.step, state.q
    scale = jnp.maximum(state.scale, vectors.plain_norm(image))
    beta = jnp.where(j > 0, state.offdiagonal[jnp.maximum(j - 1, 0)], 0)
    u = vectors.axpy(-beta, state.previous, image)
    alpha = vectors.inner(u, q)
    u = vectors.axpy(-alpha, q, u)
    length = vectors.plain_norm(u)
    basis, lost = state.basis, state.orthogonality
    if solver.reorthogonalize:
        basis = _store(basis, j, q)
        u, removed, remaining = _orthogonalize(basis, j, u, length, solver.axis)
        new = remaining > noise_level(scale)  # else the space is exhausted, and the remainder is rounding
        lost, length = jnp.where(new, jnp.maximum(lost, removed / length), lost), remaining
    going = ~(length <= noise_level(scale))  # NaN continues, and shows in the result
    beta = jnp.where(going, length, 0)
    after = _State(
        j + 1, basis, vectors.scale(jnp.where(going, 1 / jnp.where(going, length, 1), 0), u), q,
        state.diagonal.at[j].set(alpha), state.offdiagonal.at[j].set(beta), scale, lost,
        going & jnp.isfinite(length), state.done,
    )  # fmt: skip
    kept = ("diagonal", "offdiagonal", "scale", "orthogonality", "alive")
    held = {name: jnp.where(state.alive, getattr(after, name), getattr(state, name)) for name in kept}
    # ∞ marks the entries beyond the last step, so that the matrix holds the number of steps.
    held["diagonal"] = jnp.where(state.alive, held["diagonal"], state.diagonal.at[j].set(jnp.inf))
    done = (j + 1 >= solver.num_steps) | ~_any(held["alive"], solver.axis)
    return after._replace(**held, done=done)


def _orthogonalize(
    basis: tuple[Vector, ...], j: Int[Array, ""], u: Vector, length: Float[Array, ""], axis: str | None
) -> tuple[Vector, Float[Array, ""], Float[Array, ""]]:
    """Return u orthogonalised against the basis, the largest coefficient removed, and the norm of the remainder."""

    def again(carry: tuple[Array, Vector, Array, Array, Array]) -> Array:
        count, _, _, before, after = carry
        return (count == 0) | ((count == 1) & _any(after < gram_schmidt.ENOUGH * before, axis))  # twice is enough

    def one_pass(
        carry: tuple[Array, Vector, Array, Array, Array],
    ) -> tuple[Array, Vector, Array, Array, Array]:
        count, u, removed, _, before = carry
        u, largest = _one_pass(basis, j, u)
        return count + 1, u, jnp.maximum(removed, largest), before, vectors.plain_norm(u)

    _, u, removed, _, remaining = lax.while_loop(again, one_pass, (jnp.int32(0), u, 0 * length, length, length))
    return u, removed, remaining


def _one_pass(basis: tuple[Vector, ...], j: Int[Array, ""], u: Vector) -> tuple[Vector, Float[Array, ""]]:
    """Return u after one pass of Gram–Schmidt against the basis, and the largest coefficient removed."""

    def over(count: int, basis: tuple[Vector, ...], u: Vector) -> tuple[Vector, Float[Array, ""]]:
        largest = []
        for chunk in basis[:count]:  # one after another, so that the second read of a chunk is from the cache
            u, c = gram_schmidt.remove(chunk, u)
            largest.append(jnp.max(jnp.abs(c)))
        return u, jnp.max(jnp.stack(largest))

    branches = [partial(over, count + 1) for count in range(len(basis))]
    return lax.switch(j // _rows(basis), branches, basis, u)


def _store(basis: tuple[Vector, ...], j: Int[Array, ""], q: Vector) -> tuple[Vector, ...]:
    rows = _rows(basis)

    def put(index: int, chunk: Vector) -> Vector:
        place = jnp.clip(j - index * rows, 0, rows - 1)
        held = vectors.row(chunk, place)
        return vectors.with_row(chunk, place, jax.tree.map(lambda a, b: jnp.where(j // rows == index, a, b), q, held))

    return tuple(put(index, chunk) for index, chunk in enumerate(basis))


def _rows(basis: tuple[Vector, ...]) -> int:
    return jax.tree.leaves(basis)[0].shape[0]


def noise_level(scale: Float[Array, ""]) -> Float[Array, ""]:
    """Return the rounding error of a product with an operator of norm `scale`."""
    return _ROUNDING * jnp.finfo(scale.dtype).eps * scale


def _any(flag: Bool[Array, ""], axis: str | None) -> Bool[Array, ""]:
    return flag if axis is None else lax.pmax(flag.astype(jnp.int32), axis) > 0
