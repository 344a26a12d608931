"""Exact diagonal of an operator from products with all n coordinate vectors."""

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jaxopt_study._programs import jit_solver
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.operator import LinearOperator
from jaxopt_study.linalg.sharding import shard_like
from jaxopt_study.types import Vector


def coordinate(structure: Any, index: Int[ArrayLike, ""]) -> Vector:
    """Return the unit vector of a coordinate, counted through the leaves in row-major order; `index` may be traced."""
    leaves, treedef = jax.tree.flatten(structure)

    def of_leaf(leaf: Any, start: int) -> Array:
        here = jnp.arange(start, start + math.prod(leaf.shape)) == index
        return shard_like(here.astype(leaf.dtype).reshape(leaf.shape), leaf)

    return treedef.unflatten(list(map(of_leaf, leaves, _starts(leaves))))


def diagonal_entries(op: LinearOperator, together: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return the diagonal entries eᵢᵀ H eᵢ in the order of the coordinates, and the lengths ‖H eᵢ‖.

    Args:
        op: H.
        together: Number of products in one batch where the loop is compiled.

    Returns:
        Entries and lengths (n,), to the rounding of the products, whose errors are relative to the lengths; NaN where a
        product was not finite. Cost: n products.
    """
    if op.loop == "host":
        product = op.product()
        units = (_host_coordinate(op, i) for i in range(op.size))
        entries, lengths = zip(*(_host_entry(unit, product(unit)) for unit in units), strict=True)
        return jnp.stack(entries), jnp.stack(lengths)
    return _compiled(op, together)


def as_vector(structure: Any, entries: Float[Array, " n"]) -> Vector:
    """Return n numbers as a vector of the given structure, shapes, dtypes and shardings."""
    leaves, treedef = jax.tree.flatten(structure)

    def of_leaf(leaf: Any, start: int) -> Array:
        piece = lax.slice_in_dim(entries, start, start + math.prod(leaf.shape))
        return shard_like(piece.astype(leaf.dtype).reshape(leaf.shape), leaf)

    return treedef.unflatten(list(map(of_leaf, leaves, _starts(leaves))))


@partial(jit_solver, static_argnums=1)
def _compiled(op: LinearOperator, together: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    product = op.linearize()

    def at(index: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        unit = coordinate(op.like, index)
        return _entry(unit, product(unit))

    return lax.map(at, jnp.arange(op.size), batch_size=together if together > 1 else None)


def _entry(unit: Vector, image: Vector) -> tuple[Float[Array, ""], Float[Array, ""]]:
    return vectors.inner(unit, image), vectors.norm(image)  # 0 · NaN is NaN, so a NaN anywhere in the product shows


def _starts(leaves: list[Any]) -> list[int]:
    return list(itertools.accumulate((math.prod(leaf.shape) for leaf in leaves), initial=0))[:-1]


_host_coordinate = jax.jit(lambda op, index: coordinate(op.like, index))
_host_entry = jax.jit(_entry)
