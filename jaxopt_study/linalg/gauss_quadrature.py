"""Stochastic Lanczos quadrature: vᵀ f(H) v as a weighted sum of f over a few nodes, for random v."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study._checks import check_integer
from jaxopt_study.linalg import gram_schmidt, solver_loop, vectors
from jaxopt_study.linalg.layout import Layout, layout_of, seed_words
from jaxopt_study.linalg.operator import LinearOperator
from jaxopt_study.types import Key, Vector

_CHUNKS = 4  # so that a pass of Gram–Schmidt reads on average 5/8 of the basis instead of all of it
_SHORT = 16  # a basis of fewer rows is not worth another chunk, which takes time to compile
_BASIS_BYTES = 2**32  # on accelerators as many probes at once as fit in this
_ROUNDING = 10  # ε times this, relative to ‖H‖, is what a product is taken to be wrong by


class Quadrature(NamedTuple):
    """Gauss quadrature of the spectral measure of each of p random unit vectors, from m steps of Lanczos.

    Attributes:
        nodes: Ritz values θ (p, m), ascending; NaN where the operator gave NaN or infinity. Where a Krylov space was
            exhausted early, the nodes that it does not have repeat the largest one with weight 0.
        weights: (p, m), non-negative; every row has the sum 1. vᵀ f(H) v = Σᵢ wᵢ f(θᵢ), exactly for polynomials f of
            degree ≤ 2m − 1.
        residuals: ‖H y − θ y‖ (p, m) of the Ritz vectors y; H has an eigenvalue within this distance of θ.
        num_nodes: Steps (p,) that were taken before the Krylov space was exhausted; m if it was not.
        orthogonality: The largest inner product (p,) of two of the normalised Krylov vectors that a pass of
            Gram–Schmidt found and removed. The nodes are those of an exact recurrence, to rounding, as long as it is
            below √ε or so; NaN without reorthogonalisation.
        diagonal: α of the tridiagonal matrices (p, m).
        offdiagonal: β of the tridiagonal matrices (p, m); the last is the norm of what did not become a vector.
        num_matvecs: Products in all.
    """

    nodes: Float[Array, "p m"]
    weights: Float[Array, "p m"]
    residuals: Float[Array, "p m"]
    num_nodes: Int[Array, " p"]
    orthogonality: Float[Array, " p"]
    diagonal: Float[Array, "p m"]
    offdiagonal: Float[Array, "p m"]
    num_matvecs: Int[Array, ""]

    def leading(self, num_steps: int) -> "Quadrature":
        """Return the quadrature after the first so many of the steps; `orthogonality` stays that of all."""
        taken = jnp.minimum(self.num_nodes, jnp.int32(num_steps))
        return _from_matrices(self.diagonal[:, :num_steps], self.offdiagonal[:, :num_steps], taken, self.orthogonality)


class _State(NamedTuple):
    step: Int[Array, ""]  # j
    basis: tuple[Vector, ...]  # q₀ … qⱼ₋₁ in chunks of equal length
    q: Vector  # qⱼ
    previous: Vector  # qⱼ₋₁
    diagonal: Float[Array, " m"]  # α (m,)
    offdiagonal: Float[Array, " m"]  # β (m,): βⱼ couples qⱼ and qⱼ₊₁
    scale: Float[Array, ""]  # the largest ‖H q‖
    orthogonality: Float[Array, ""]
    alive: Bool[Array, ""]  # whether qⱼ is a new direction
    done: Bool[Array, ""]


class _Matrix(NamedTuple):
    """The tridiagonal matrix of one probe."""

    diagonal: Float[Array, "*probes m"]  # α (m,)
    offdiagonal: Float[Array, "*probes m"]  # β (m,)
    taken: Int[Array, "*probes"]  # how many of its rows exist
    orthogonality: Float[Array, "*probes"]


@dataclass(frozen=True)
class LanczosRecurrence:
    """Lanczos without restarts from one random unit vector, as a `solver_loop.Solver`."""

    layout: Layout
    num_steps: int
    reorthogonalize: bool
    axis: str | None  # over which solves are vectorised: they share their branches
    block_size: int = 1
    scaled: bool = True

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from the probe of a seed."""
        return _begin(self, random_unit_vector(self.layout, seed))

    def next_block(self, state: _State) -> Vector:
        """Return qⱼ."""
        return jax.tree.map(lambda leaf: leaf[None], state.q)

    def update(self, limits: None, seed: UInt32[Array, "2"], state: _State, products: Vector) -> _State:
        """Return the state after the step that H qⱼ allows; where the space is exhausted already, only count."""
        return _updated(self, state, vectors.row(products, 0))

    def result(self, limits: None, state: _State, unit: Float[Array, ""]) -> _Matrix:
        """Return the tridiagonal matrix."""
        taken = state.step - jnp.sum(jnp.isposinf(state.diagonal), dtype=jnp.int32)
        return _Matrix(state.diagonal * unit, state.offdiagonal * unit, taken, state.orthogonality)


def probe_vectors(op: LinearOperator, key: Key) -> Vector:
    """Return the random unit vector that a probe with this key starts from, uniform on the sphere."""
    layout = layout_of(op.like)
    return layout.unpack(random_unit_vector(layout, seed_words(key)))


def random_unit_vector(layout: Layout, seed: UInt32[Array, "2"]) -> Vector:
    """Return a random unit vector in a layout, uniform on the sphere."""
    return vectors.normalize(vectors.row(layout.random(seed, 0, 1), 0))[0]


def check_divisor(who: str, probes_at_once: Any, num_probes: int) -> int | None:
    """Return how many probes are to run side by side, if their number can be divided by it; None for the default."""
    if probes_at_once is None:
        return None
    number = check_integer(who, "probes_at_once", probes_at_once, 1)
    if num_probes % number:
        raise ValueError(f"{who} needs probes_at_once, a divisor of num_probes = {num_probes}; received {number}.")
    return number


def lanczos_quadrature(
    op: LinearOperator,
    keys: Key,
    *,
    num_steps: int,
    reorthogonalize: bool = True,
    probes_at_once: int | None = None,
) -> Quadrature:
    """Compute the Gauss quadrature of the spectral measure of H for several random unit vectors.

    With q₀ = v, and qⱼ orthonormal,

        βⱼ qⱼ₊₁ = H qⱼ − αⱼ qⱼ − βⱼ₋₁ qⱼ₋₁,

    the tridiagonal T of α and β has the eigenvalues θ, the nodes; the squares of the first entries of its eigenvectors
    are the weights. In floating point the vectors lose their orthogonality in the directions of those Ritz vectors that
    have converged, and T then has copies of their values, the ghosts. Before each qⱼ₊₁ is used, one pass of classical
    Gram–Schmidt takes out what has come back, which is about √ε at most; a second pass follows only where the first has
    shortened the vector. A recurrence that ends (βⱼ ≤ 10 ε max‖H q‖) leaves an exact quadrature of fewer nodes.

    Args:
        op: H, symmetric.
        keys: p keys, one for each vector.
        num_steps: m ≥ 1, products for each vector; no more than n are taken.
        reorthogonalize: False saves the basis and makes ghosts.
        probes_at_once: How many recurrences run side by side, a divisor of p. None takes one on a CPU, and on
            accelerators as many as fit into 4 GiB.

    Returns:
        Nodes, weights and residuals. Cost: p·m products after one linearisation; memory m + 4 vectors for each of the
        probes that run at once.
    """
    num_steps = min(num_steps, op.size)
    at_once = probes_at_once or _probes_at_once(op, keys.shape[0], num_steps if reorthogonalize else 0)
    axis = solver_loop.LANES if at_once > 1 and op.loop == "compiled" else None
    solver = LanczosRecurrence(layout_of(op.like), num_steps, reorthogonalize, axis)
    return _from_matrices(*solver_loop.run_each(solver, op, None, keys, at_once))


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
        u, found, remaining = _orthogonalize(basis, j, u, length, solver.axis)
        new = remaining > _floor(scale)  # of an exhausted space only rounding is left, orthogonal to nothing
        lost, length = jnp.where(new, jnp.maximum(lost, found / length), lost), remaining
    going = ~(length <= _floor(scale))  # NaN goes on, and is seen in the end
    beta = jnp.where(going, length, 0)
    after = _State(
        j + 1, basis, vectors.scale(jnp.where(going, 1 / jnp.where(going, length, 1), 0), u), q,
        state.diagonal.at[j].set(alpha), state.offdiagonal.at[j].set(beta), scale, lost,
        going & jnp.isfinite(length), state.done,
    )  # fmt: skip
    kept = ("diagonal", "offdiagonal", "scale", "orthogonality", "alive")
    held = {name: jnp.where(state.alive, getattr(after, name), getattr(state, name)) for name in kept}
    # A marker beyond the last step, so that the number of steps can be read from the matrix.
    held["diagonal"] = jnp.where(state.alive, held["diagonal"], state.diagonal.at[j].set(jnp.inf))
    done = (j + 1 >= solver.num_steps) | ~_any(held["alive"], solver.axis)
    return after._replace(**held, done=done)


def _orthogonalize(
    basis: tuple[Vector, ...], j: Int[Array, ""], u: Vector, length: Float[Array, ""], axis: str | None
) -> tuple[Vector, Float[Array, ""], Float[Array, ""]]:
    """Return u orthogonal to the vectors so far, the largest coefficient that was taken out, and its new norm."""

    def again(carry: tuple[Array, Vector, Array, Array, Array]) -> Array:
        count, _, _, before, after = carry
        return (count == 0) | ((count == 1) & _any(after < gram_schmidt.ENOUGH * before, axis))  # twice is enough

    def one_pass(
        carry: tuple[Array, Vector, Array, Array, Array],
    ) -> tuple[Array, Vector, Array, Array, Array]:
        count, u, found, _, before = carry
        u, largest = _one_pass(basis, j, u)
        return count + 1, u, jnp.maximum(found, largest), before, vectors.plain_norm(u)

    _, u, found, _, remaining = lax.while_loop(again, one_pass, (jnp.int32(0), u, 0 * length, length, length))
    return u, found, remaining


def _one_pass(basis: tuple[Vector, ...], j: Int[Array, ""], u: Vector) -> tuple[Vector, Float[Array, ""]]:
    """Return u without what lies in the vectors so far, and the largest coefficient."""

    def over(count: int, basis: tuple[Vector, ...], u: Vector) -> tuple[Vector, Float[Array, ""]]:
        found = []
        for chunk in basis[:count]:  # one after the other, so that the second read of a chunk is from the cache
            u, c = gram_schmidt.remove(chunk, u)
            found.append(jnp.max(jnp.abs(c)))
        return u, jnp.max(jnp.stack(found))

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


@jax.jit
def _from_matrices(
    diagonal: Float[Array, "p m"],
    offdiagonal: Float[Array, "p m"],
    taken: Int[Array, " p"],
    orthogonality: Float[Array, " p"],
) -> Quadrature:
    nodes, weights, residuals = jax.vmap(_nodes)(diagonal, offdiagonal, taken)
    return Quadrature(
        nodes, weights, residuals, taken, orthogonality, diagonal, offdiagonal, jnp.sum(taken, dtype=jnp.int32)
    )


def _nodes(
    diagonal: Float[Array, " m"], offdiagonal: Float[Array, " m"], taken: Int[Array, ""]
) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, " m"]]:
    """Return nodes, weights and residuals from a tridiagonal matrix of which only `taken` rows exist."""
    index = jnp.arange(diagonal.shape[0], dtype=jnp.int32)
    exists = index < taken
    finite = jnp.all(jnp.isfinite(jnp.where(exists, diagonal, 0)) & jnp.isfinite(offdiagonal))
    alpha = jnp.where(exists & finite, diagonal, 0)
    beta = jnp.where(exists & finite, offdiagonal, 0)
    (alpha, beta), unit = vectors.unscaled((alpha, beta))
    coupling = jnp.where(index < taken - 1, beta, 0)[:-1]
    bound = jnp.max(jnp.abs(alpha)) + 2 * jnp.max(jnp.abs(beta))
    alpha = jnp.where(exists, alpha, 2 * bound + 1)  # rows that do not exist come last in ascending order
    values, rotations = jnp.linalg.eigh(jnp.diag(alpha) + jnp.diag(coupling, 1) + jnp.diag(coupling, -1))
    last = values[taken - 1]
    values = jnp.where(exists, values, last)
    weights = jnp.where(exists, rotations[0] ** 2, 0)
    residuals = jnp.where(exists, jnp.abs(rotations[taken - 1] * beta[taken - 1]), 0)
    rounding = _floor(jnp.max(jnp.abs(values)))
    nothing = jnp.where(finite, 0.0, jnp.nan).astype(values.dtype)
    return unit * values + nothing, weights / jnp.sum(weights) + nothing, unit * (residuals + rounding) + nothing


def _floor(scale: Float[Array, ""]) -> Float[Array, ""]:
    return _ROUNDING * jnp.finfo(scale.dtype).eps * scale


def _any(flag: Bool[Array, ""], axis: str | None) -> Bool[Array, ""]:
    return flag if axis is None else lax.pmax(flag.astype(jnp.int32), axis) > 0


def _probes_at_once(op: LinearOperator, num_probes: int, num_rows: int) -> int:
    if jax.default_backend() == "cpu":
        return 1
    vector_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(op.like))
    limit = max(1, _BASIS_BYTES // max(1, vector_bytes * (num_rows + 4)))
    return max(d for d in range(1, num_probes + 1) if num_probes % d == 0 and d <= limit)
