"""Shapes as static arguments of compiled functions."""

from typing import Any

import jax
import jax.numpy as jnp


def shapes_of(tree: Any) -> Any:
    """Return the shapes and dtypes of a pytree of arrays, as `Shapes` takes them."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


class Shapes:
    """A pytree of shapes, dtypes and shardings as a static argument."""

    def __init__(self, tree: Any):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self._key = (tuple((leaf.shape, jnp.dtype(leaf.dtype), leaf.sharding) for leaf in leaves), structure)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shapes) and self._key == other._key
