"""The diagonal of an operator without error, from products with all n coordinate vectors."""

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxopt_study._programs import jit_solver
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.operator import LinearOperator
from jaxopt_study.types import Vector


def coordinate(like: Any, index: Any) -> Vector:
    """Return the unit vector of one coordinate; leaves in their order, each row by row, and the index may be traced."""
    leaves, structure = jax.tree.flatten(like)

    def of_leaf(leaf: Any, start: int) -> Array:
        here = jnp.arange(start, start + math.prod(leaf.shape)) == index
        return vectors.placed(here.astype(leaf.dtype).reshape(leaf.shape), leaf)

    return structure.unflatten(list(map(of_leaf, leaves, _starts(leaves))))


def diagonal_entries(op: LinearOperator, together: int) -> Float[Array, " n"]:
    """Return the numbers eᵢᵀ H eᵢ in the order of the coordinates.

    Args:
        op: H.
        together: How many products are taken side by side where the operator's loop is compiled.

    Returns:
        The entries (n,), to the rounding of the products; NaN where a product was not finite. Cost: n products.
    """
    if op.loop == "host":
        product = op.product()
        units = (_host_coordinate(op, i) for i in range(op.size))
        return jnp.stack([_host_inner(unit, product(unit)) for unit in units])
    return _compiled(op, together)


def as_vector(like: Any, entries: Float[Array, " n"]) -> Vector:
    """Return n numbers as a vector of the given structure, shapes, dtypes and shardings."""
    leaves, structure = jax.tree.flatten(like)

    def of_leaf(leaf: Any, start: int) -> Array:
        piece = lax.slice_in_dim(entries, start, start + math.prod(leaf.shape))
        return vectors.placed(piece.astype(leaf.dtype).reshape(leaf.shape), leaf)

    return structure.unflatten(list(map(of_leaf, leaves, _starts(leaves))))


@partial(jit_solver, static_argnums=1)
def _compiled(op: LinearOperator, together: int) -> Float[Array, " n"]:
    product = op.linearize()

    def entry(index: Int[Array, ""]) -> Float[Array, ""]:
        unit = coordinate(op.like, index)
        return vectors.inner(unit, product(unit))  # 0 · NaN is NaN, so that one anywhere in the product shows

    return lax.map(entry, jnp.arange(op.size), batch_size=together if together > 1 else None)


def _starts(leaves: list[Any]) -> list[int]:
    return list(itertools.accumulate((math.prod(leaf.shape) for leaf in leaves), initial=0))[:-1]


_host_coordinate = jax.jit(lambda op, index: coordinate(op.like, index))
_host_inner = jax.jit(vectors.inner)
