"""Krylov space of one vector, of an operator of any scale."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from jaxopt_study.linalg import block_lanczos as lanczos
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.block_lanczos import Space
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.types import Matvec, Vector


def krylov_space(
    layout: Layout, product: Matvec, start: Vector, seed: UInt32[Array, "2"], m: int, breakdown: float
) -> tuple[Space, Float[Array, ""]]:
    """Return the Krylov space of a vector for H/s, of m dimensions or fewer if it becomes invariant, and s.

    s is a power of two next to ‖H‖, so that the projected matrix holds numbers of order one. If the vector is nearly in
    the null space, the first product is tiny; s is then increased with later products.

    Args:
        layout: Layout of the vectors.
        product: v ↦ H v, in the user's structure.
        start: A unit vector, in the user's structure.
        seed: Seed of the direction that ends an invariant space.
        m: Largest dimension.
        breakdown: Relative length of a remainder that counts as zero.

    Returns:
        The space, whose basis has m + 1 rows, and s. Cost: a product for each dimension, and memory for m + 1 vectors.
    """
    first = jax.tree.map(lambda leaf: leaf[None], layout.pack(start))
    limit = jnp.asarray(breakdown, layout.scalar)

    def unfinished(carry: tuple[Space, Bool[Array, ""], Float[Array, ""]]) -> Bool[Array, ""]:
        space, invariant, _ = carry
        return (space.count < m) & ~invariant & (jnp.isfinite(space.scale))

    def grow(carry: tuple[Space, Array, Array]) -> tuple[Space, Array, Array]:
        space, _, unit = carry
        image: Any = layout.pack(product(layout.unpack(vectors.row(lanczos.pending(space, 1), 0))))
        raised = jnp.maximum(unit, vectors.settled_unit(jnp.zeros_like(unit), image))
        ratio = unit / jnp.where(raised > 0, raised, 1)
        space = space._replace(projected=ratio * space.projected, scale=ratio * space.scale)
        images = jax.tree.map(lambda leaf: leaf[None], vectors.in_units(raised, image))
        return *lanczos.extend(layout, space, images, seed, limit, jnp.bool(True)), raised

    begin = lanczos.begin(layout, first, m + 1, seed), jnp.bool(False), jnp.zeros((), layout.scalar)
    space, _, unit = lax.while_loop(unfinished, grow, begin)
    return space, jnp.where(unit > 0, unit, 1)
