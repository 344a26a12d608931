"""Stochastic Lanczos quadrature: vᵀ f(H) v as a weighted sum of f over a few nodes, for random v."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxopt_study._checks import check_integer
from jaxopt_study._programs import jit_solver, wider
from jaxopt_study.linalg import vectors
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

    nodes: Array
    weights: Array
    residuals: Array
    num_nodes: Array
    orthogonality: Array
    diagonal: Array
    offdiagonal: Array
    num_matvecs: Array

    def leading(self, num_steps: int) -> "Quadrature":
        """Return the quadrature after the first so many of the steps; `orthogonality` stays that of all."""
        taken = jnp.minimum(self.num_nodes, jnp.int32(num_steps))
        return _from_matrices(self.diagonal[:, :num_steps], self.offdiagonal[:, :num_steps], taken, self.orthogonality)


class _State(NamedTuple):
    step: Array  # j
    basis: tuple[Vector, ...]  # q₀ … qⱼ₋₁ in chunks of equal length
    q: Vector  # qⱼ
    previous: Vector  # qⱼ₋₁
    diagonal: Array  # α (m,)
    offdiagonal: Array  # β (m,): βⱼ couples qⱼ and qⱼ₊₁
    unit: Array  # a power of two of which the products are counted, so that no square leaves its range; 0 before them
    scale: Array  # the largest ‖H q‖, in this unit as α and β are
    orthogonality: Array
    alive: Array  # whether qⱼ is a new direction


def probe_vectors(op: LinearOperator, key: Key) -> Vector:
    """Return the random unit vector that a probe with this key starts from, uniform on the sphere."""
    layout = layout_of(op.like)
    direction = jax.tree.map(lambda leaf: leaf[0], layout.random(seed_words(key), 0, 1))
    return layout.unpack(vectors.normalize(direction)[0])


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
    if op.loop == "host":
        return _on_host(op, keys, num_steps, reorthogonalize)
    return _compiled(op, keys, num_steps, reorthogonalize, probes_at_once)


@partial(jit_solver, static_argnums=(2, 3, 4))
def _compiled(op: LinearOperator, keys: Key, num_steps: int, reorthogonalize: bool, at_once: int | None) -> Quadrature:
    layout, product = layout_of(op.like), op.linearize()
    together = at_once or _probes_at_once(op, keys.shape[0], num_steps if reorthogonalize else 0)

    def run(key: Key) -> _State:
        def step(state: _State) -> _State:
            image = layout.pack(product(layout.unpack(state.q)))
            return _advance(state, image, layout, reorthogonalize, "probes" if together > 1 else None)

        def unfinished(state: _State) -> Array:
            return (state.step < num_steps) & _any(state.alive, "probes" if together > 1 else None)

        start = layout.pack(probe_vectors(op, key))
        state = lax.while_loop(unfinished, step, _begin(layout, start, num_steps, reorthogonalize))
        return state._replace(basis=(), q=(), previous=())

    if together > 1:  # the steps of a block share their branches, which an axis with a name lets them agree on
        blocks = keys.reshape(-1, together, *keys.shape[1:])
        state = lax.map(jax.vmap(run, axis_name="probes"), blocks)
        state = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state)
    else:
        state = lax.map(run, keys)
    return _quadrature(state)


def _on_host(op: LinearOperator, keys: Key, num_steps: int, reorthogonalize: bool) -> Quadrature:
    product, layout, states = op.product(), layout_of(op.like), []
    for key in keys:
        state, q = _host_begin(op, key, layout, num_steps, reorthogonalize)
        for _ in range(num_steps):
            state, q = _host_step(state, product(q), layout, reorthogonalize)
            if not bool(state.alive):
                break
        states.append(state._replace(basis=(), q=(), previous=()))
    return _host_end(states)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _host_begin(
    op: LinearOperator, key: Key, layout: Layout, num_steps: int, reorthogonalize: bool
) -> tuple[_State, Vector]:
    start = probe_vectors(op, key)
    return _begin(layout, layout.pack(start), num_steps, reorthogonalize), start


@partial(jax.jit, static_argnums=(2, 3), donate_argnums=0)
def _host_step(state: _State, image: Vector, layout: Layout, reorthogonalize: bool) -> tuple[_State, Vector]:
    state = _advance(state, layout.pack(image), layout, reorthogonalize, None)
    return state, layout.unpack(state.q)


@jax.jit
def _host_end(states: list[_State]) -> Quadrature:
    return _quadrature(jax.tree.map(lambda *xs: jnp.stack(xs), *states))


def _begin(layout: Layout, start: Vector, num_steps: int, reorthogonalize: bool) -> _State:
    dtype = vectors.accumulator(wider(*(leaf.dtype for leaf in jax.tree.leaves(start))))
    rows = -(-num_steps // max(1, min(_CHUNKS, num_steps // _SHORT)))
    chunks = -(-num_steps // rows) if reorthogonalize else 0
    zeros, zero = jnp.zeros(num_steps, dtype), jnp.zeros((), dtype)
    basis = tuple(vectors.zeros_basis(layout.like, rows) for _ in range(chunks))
    lost = zero if reorthogonalize else jnp.full((), jnp.nan, dtype)
    return _State(
        jnp.int32(0), basis, start, vectors.zeros_like(layout.like), zeros, zeros, zero, zero, lost, jnp.bool_(True)
    )


def _advance(state: _State, image: Vector, layout: Layout, reorthogonalize: bool, axis: str | None) -> _State:
    """Return the state after the step that H qⱼ allows; where the space is exhausted already, only count."""
    j, q = state.step, state.q
    unit = vectors.settled_unit(state.unit, image)
    image = vectors.in_units(unit, image)
    scale = jnp.maximum(state.scale, vectors.plain_norm(image))
    beta = jnp.where(j > 0, state.offdiagonal[jnp.maximum(j - 1, 0)], 0)
    u = vectors.axpy(-beta, state.previous, image)
    alpha = vectors.inner(u, q)
    u = vectors.axpy(-alpha, q, u)
    length = vectors.plain_norm(u)
    basis, lost = state.basis, state.orthogonality
    if reorthogonalize:
        basis = _store(basis, j, q)
        u, found, remaining = _orthogonalize(basis, j, u, length, axis)
        new = remaining > _floor(scale)  # of an exhausted space only rounding is left, orthogonal to nothing
        lost, length = jnp.where(new, jnp.maximum(lost, found / length), lost), remaining
    going = ~(length <= _floor(scale))  # NaN goes on, and is seen in the end
    beta = jnp.where(going, length, 0)
    after = _State(
        j + 1, basis, vectors.scale(jnp.where(going, 1 / jnp.where(going, length, 1), 0), u), q,
        state.diagonal.at[j].set(alpha), state.offdiagonal.at[j].set(beta), unit, scale, lost,
        going & jnp.isfinite(length),
    )  # fmt: skip
    kept = ("diagonal", "offdiagonal", "unit", "scale", "orthogonality", "alive")
    held = {name: jnp.where(state.alive, getattr(after, name), getattr(state, name)) for name in kept}
    # A marker beyond the last step, so that the number of steps can be read from the matrix.
    held["diagonal"] = jnp.where(state.alive, held["diagonal"], state.diagonal.at[j].set(jnp.inf))
    return after._replace(**held)


def _orthogonalize(
    basis: tuple[Vector, ...], j: Array, u: Vector, length: Array, axis: str | None
) -> tuple[Vector, Array, Array]:
    """Return u orthogonal to the vectors so far, the largest coefficient that was taken out, and its new norm."""

    def again(carry: tuple[Array, Vector, Array, Array, Array]) -> Array:
        count, _, _, before, after = carry
        return (count == 0) | ((count == 1) & _any(after < 0.7 * before, axis))  # twice is enough

    def one_pass(
        carry: tuple[Array, Vector, Array, Array, Array],
    ) -> tuple[Array, Vector, Array, Array, Array]:
        count, u, found, _, before = carry
        u, largest = _one_pass(basis, j, u)
        return count + 1, u, jnp.maximum(found, largest), before, vectors.plain_norm(u)

    _, u, found, _, remaining = lax.while_loop(again, one_pass, (jnp.int32(0), u, 0 * length, length, length))
    return u, found, remaining


def _one_pass(basis: tuple[Vector, ...], j: Array, u: Vector) -> tuple[Vector, Array]:
    """Return u without what lies in the vectors so far, and the largest coefficient."""

    def over(count: int, basis: tuple[Vector, ...], u: Vector) -> tuple[Vector, Array]:
        found = []
        for chunk in basis[:count]:  # one after the other, so that the second read of a chunk is from the cache
            c = vectors.project(chunk, u)
            u = vectors.subtract(u, vectors.combine(chunk, c))
            found.append(jnp.max(jnp.abs(c)))
        return u, jnp.max(jnp.stack(found))

    branches = [partial(over, count + 1) for count in range(len(basis))]
    return lax.switch(j // _rows(basis), branches, basis, u)


def _store(basis: tuple[Vector, ...], j: Array, q: Vector) -> tuple[Vector, ...]:
    rows = _rows(basis)

    def put(index: int, chunk: Vector) -> Vector:
        place = jnp.clip(j - index * rows, 0, rows - 1)
        held = vectors.row(chunk, place)
        return vectors.with_row(chunk, place, jax.tree.map(lambda a, b: jnp.where(j // rows == index, a, b), q, held))

    return tuple(put(index, chunk) for index, chunk in enumerate(basis))


def _rows(basis: tuple[Vector, ...]) -> int:
    return jax.tree.leaves(basis)[0].shape[0]


def _quadrature(state: _State) -> Quadrature:
    taken = state.step - jnp.sum(jnp.isposinf(state.diagonal), axis=1, dtype=jnp.int32)  # (p,)
    unit = jnp.where(state.unit == 0, 1, state.unit)[:, None]
    return _from_matrices(state.diagonal * unit, state.offdiagonal * unit, taken, state.orthogonality)


@jax.jit
def _from_matrices(diagonal: Array, offdiagonal: Array, taken: Array, orthogonality: Array) -> Quadrature:
    nodes, weights, residuals = jax.vmap(_nodes)(diagonal, offdiagonal, taken)
    return Quadrature(
        nodes, weights, residuals, taken, orthogonality, diagonal, offdiagonal, jnp.sum(taken, dtype=jnp.int32)
    )


def _nodes(diagonal: Array, offdiagonal: Array, taken: Array) -> tuple[Array, Array, Array]:
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


def _floor(scale: Array) -> Array:
    return _ROUNDING * jnp.finfo(scale.dtype).eps * scale


def _any(flag: Array, axis: str | None) -> Array:
    return flag if axis is None else lax.pmax(flag.astype(jnp.int32), axis) > 0


def _probes_at_once(op: LinearOperator, num_probes: int, num_rows: int) -> int:
    if jax.default_backend() == "cpu":
        return 1
    vector_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(op.like))
    limit = max(1, _BASIS_BYTES // max(1, vector_bytes * (num_rows + 4)))
    return max(d for d in range(1, num_probes + 1) if num_probes % d == 0 and d <= limit)
