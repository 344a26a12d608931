"""Block Lanczos: an orthonormal basis of a Krylov space and the compression of the operator to it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt32

from jaxopt_study.linalg import gram_schmidt, vectors
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.linalg.sharding import constant
from jaxopt_study.types import Vector

_MAX_PASSES = 6


class Space(NamedTuple):
    """Orthonormal basis Q of a Krylov space: rows with known products, then b pending rows.

    With m = count and B the b pending rows, H Q₁..ₘ = [Q₁..ₘ, B] T₁..ₘ up to rounding, for every operator, start and
    history of restarts: T is the compression of H, and its rows below m are the residual.
    """

    basis: Vector  # Q; rows beyond count + b are unused
    projected: Float[Array, "m m"]  # T: column j is Qᵀ H qⱼ for j < count
    count: Int[Array, ""]  # number of rows with known products
    scale: Float[Array, ""]  # largest ‖H q‖ so far
    serial: Int[Array, ""]  # number of random directions drawn


def begin(layout: Layout, block: Vector, capacity: int, seed: UInt32[Array, "2"]) -> Space:
    """Return the space whose pending rows are an orthonormal basis of a block's span.

    In a block of several vectors, random directions replace linearly dependent ones; a single vector must not be 0.
    """
    b = jax.tree.leaves(block)[0].shape[0]
    dtype = layout.scalar
    zero = jnp.zeros((), dtype)
    space = Space(
        vectors.zeros_basis(layout.structure, capacity),
        constant(layout.structure, 0, (capacity, capacity), dtype),
        jnp.int32(-b),
        zero,
        jnp.int32(1),
    )
    block, _ = jax.vmap(vectors.normalize)(block)
    if b == 1:
        return space._replace(basis=_put_rows(space.basis, 0, block), count=jnp.int32(0))
    threshold = jnp.asarray(100 * jnp.finfo(dtype).eps, dtype)
    block, _, _, _, serial = _orthonormalize(layout, space, block, seed, threshold, jnp.bool(True))
    basis = _put_rows(space.basis, 0, block)
    return space._replace(basis=basis, count=jnp.int32(0), serial=serial)


def pending(space: Space, b: int) -> Vector:
    """Return the b rows to multiply next."""
    return rows(space.basis, space.count, b)


def rows(basis: Vector, start: Int[ArrayLike, ""], b: int) -> Vector:
    """Return b consecutive rows of a basis; `start` may be traced."""
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, b), basis)


def extend(
    layout: Layout,
    space: Space,
    products: Vector,
    seed: UInt32[Array, "2"],
    breakdown: Float[Array, ""],
    active: Bool[Array, ""],
) -> tuple[Space, Bool[Array, ""]]:
    """Extend the Krylov space by the products of the pending rows.

    The products are orthogonalised against the whole basis in one contraction, repeatedly until a pass no longer
    shortens them (usually two passes), and normalised. A remainder of length ≤ breakdown · max ‖Hq‖ is rounding: the
    space is invariant, the coupling is set to 0, and a random direction orthogonal to the basis replaces the remainder.
    A basis with all n directions is extended by zero rows.

    Args:
        layout: Layout of the vectors.
        space: The space, with b or more unused rows.
        products: H times `pending(space, b)`, for H of order one: lengths are squared without scaling.
        seed: Seed of random directions.
        breakdown: Relative length that counts as rounding.
        active: Whether to extend; if False only the scale and the unused rows of the space change.

    Returns:
        The space with b more known products, and whether a random direction was inserted. Cost: two reads of the basis
        for each pass, O(n m b) operations.
    """
    b = jax.tree.leaves(products)[0].shape[0]
    scale = jnp.maximum(space.scale, jnp.max(jax.vmap(vectors.plain_norm)(products)))
    block, above, within, replaced, serial = _orthonormalize(layout, space, products, seed, breakdown * scale, active)
    columns = lax.dynamic_update_slice_in_dim(above, within, space.count + b, 0)
    projected = lax.dynamic_update_slice_in_dim(space.projected, columns, space.count, 1)
    count = jnp.minimum(space.count + b, layout.size)
    extended = Space(
        _put_rows(space.basis, space.count + b, block),
        jnp.where(active, projected, space.projected),
        jnp.where(active, count, space.count),
        scale,
        serial,
    )
    return extended, jnp.any(replaced)


def ritz(space: Space, b: int) -> tuple[Float[Array, " m"], Float[Array, "m m"], Float[Array, " m"]]:
    """Return the Ritz values, the coefficients of the Ritz vectors and their residual norms.

    Returns:
        θ ascending, valid up to `count`; coefficients s as columns; and ‖H Q s − θ Q s‖, infinite beyond `count`. Cost:
        an eigenvalue problem of size m.
    """
    index = jnp.arange(space.projected.shape[0], dtype=jnp.int32)
    known = index < space.count
    square = jnp.where(known[:, None] & known[None, :], space.projected, 0)
    # Unused rows get an eigenvalue above all others, so that they come last in the order.
    beyond = 4 * jnp.max(jnp.sum(jnp.abs(square), axis=0))
    beyond = jnp.where(beyond > 0, beyond, 1)
    whole = jnp.where((index[:, None] == index[None, :]) & ~known[None, :], beyond, square)
    coefficients, values = lax.linalg.eigh(whole, symmetrize_input=False)  # reads only the lower triangle
    below = lax.dynamic_slice_in_dim(space.projected, space.count, b) * known[None, :].astype(square.dtype)
    coupling = jnp.matmul(below, coefficients, precision=lax.Precision.HIGHEST)
    residuals = jnp.where(known, jnp.sqrt(jnp.sum(coupling**2, axis=0)), jnp.inf)
    return values, coefficients, residuals


def compress(
    space: Space,
    values: Float[Array, " m"],
    coefficients: Float[Array, "m m"],
    num_kept: Int[Array, ""],
    most: int,
    b: int,
) -> Space:
    """Replace the basis by Ritz vectors, keeping the pending rows: a thick restart.

    Args:
        space: The space.
        values: The Ritz values, those to keep first.
        coefficients: Their coefficients as columns, in the same order.
        num_kept: Number of Ritz vectors to keep.
        most: An upper bound on `num_kept`, static.
        b: Number of pending rows.

    Returns:
        A space of `num_kept` rows with known products. Cost: one product of a (most + b) × m matrix with the basis.
    """
    m = space.projected.shape[0]
    index = jnp.arange(m, dtype=jnp.int32)
    kept = jnp.arange(most + b, dtype=jnp.int32) < num_kept
    rotation = jnp.where(kept[None, :], coefficients[:, : most + b], 0)
    is_pending = (index[:, None] - space.count == jnp.arange(most + b, dtype=jnp.int32)[None, :] - num_kept) & (
        (index[:, None] >= space.count) & (index[:, None] < space.count + b)
    )
    rotation += is_pending.astype(rotation.dtype)
    basis = _put_rows(space.basis, 0, vectors.combine(space.basis, rotation))
    below = lax.dynamic_slice_in_dim(space.projected, space.count, b)
    known = (index < space.count)[None, :].astype(below.dtype)
    coupling = jnp.matmul(below * known, coefficients, precision=lax.Precision.HIGHEST)
    projected = jnp.diag(jnp.where(index < num_kept, values, 0))
    projected = lax.dynamic_update_slice_in_dim(
        projected, jnp.where((index < num_kept)[None, :], coupling, 0), num_kept, 0
    )
    return space._replace(basis=basis, projected=projected, count=num_kept.astype(jnp.int32))


class _Pass(NamedTuple):
    """State between two passes of orthogonalisation: products = Q·above + block·within."""

    block: Vector
    above: Float[Array, "m b"]
    within: Float[Array, "b b"]
    replaced: Bool[Array, " b"]  # mask of the columns that are random directions
    kept: Float[Array, ""]  # smallest share of a column's length that the last pass has kept
    number: Int[Array, ""]
    serial: Int[Array, ""]


def _orthonormalize(
    layout: Layout,
    space: Space,
    block: Vector,
    seed: UInt32[Array, "2"],
    threshold: Float[Array, ""],
    active: Bool[Array, ""],
) -> tuple[Vector, Float[Array, "m b"], Float[Array, "b b"], Bool[Array, " b"], Int[Array, ""]]:
    b = jax.tree.leaves(block)[0].shape[0]
    m, dtype = space.projected.shape[0], space.projected.dtype
    filled = space.count + b
    present = jnp.arange(m, dtype=jnp.int32) < filled

    def once(state: _Pass) -> _Pass:
        lengths = jax.vmap(vectors.plain_norm)(state.block)
        block, coefficients = gram_schmidt.remove_from_block(space.basis, state.block, present)

        def column(i: Int[ArrayLike, ""], at: Any) -> Any:
            block, factor, replaced, kept, serial = at
            y = vectors.row(block, i)
            along = jnp.zeros(b, dtype)
            if b > 1:
                y, along = gram_schmidt.remove(block, y, jnp.arange(b) < i)
            length = vectors.plain_norm(y)
            none_left = filled + i >= layout.size
            random = (length * state.within[i, i] <= threshold) & ~replaced[i] & ~none_left
            inverse = jnp.where(none_left, 0, 1 / jnp.where(length > 0, length, 1))
            y = lax.cond(
                random,
                lambda: vectors.scale(layout.size**-0.5, vectors.row(layout.random(seed, serial, 1), 0)),
                lambda: vectors.scale(inverse, y),
            )
            diagonal = jnp.where(random | none_left, 0, length).astype(dtype)
            share = length / jnp.where(lengths[i] > 0, lengths[i], 1)
            share = jnp.where(random, 0, jnp.where(none_left, 1, share)).astype(dtype)
            return (
                vectors.with_row(block, i, y),
                factor.at[:, i].set(along.at[i].set(diagonal)),
                replaced.at[i].set(replaced[i] | random),
                jnp.minimum(kept, share),
                serial + random.astype(serial.dtype),
            )

        at = (block, jnp.zeros((b, b), dtype), state.replaced, jnp.ones((), dtype), state.serial)
        block, factor, replaced, kept, serial = lax.fori_loop(0, b, column, at) if b > 1 else column(0, at)
        above = state.above + jnp.matmul(coefficients, state.within, precision=lax.Precision.HIGHEST)
        within = jnp.matmul(factor, state.within, precision=lax.Precision.HIGHEST)
        return _Pass(block, above, within, replaced, kept, state.number + 1, serial)

    start = _Pass(
        block,
        jnp.zeros((m, b), dtype),
        jnp.eye(b, dtype=dtype),
        jnp.zeros(b, bool),
        jnp.zeros((), dtype),
        jnp.int32(0),
        space.serial,
    )
    last = lax.while_loop(lambda s: active & (s.kept < gram_schmidt.ENOUGH) & (s.number < _MAX_PASSES), once, start)
    return last.block, last.above, last.within, last.replaced, last.serial


def _put_rows(basis: Vector, start: Int[ArrayLike, ""], block: Vector) -> Vector:
    return jax.tree.map(lambda q, x: lax.dynamic_update_slice_in_dim(q, x.astype(q.dtype), start, 0), basis, block)
