"""Blocks of parameters, and the block diagonal of an operator."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Shaped

from jaxopt_study._checks import describe_argument
from jaxopt_study.curvature.operators._operator import Wrapped
from jaxopt_study.linalg.blockwise_product import blockwise_product
from jaxopt_study.linalg.partition import leaf_paths, parts
from jaxopt_study.types import Matvec, Vector

By = Literal["layer", "leaf"] | Callable[[str], str]


def group_leaves(who: str, like: Any, by: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of the blocks of parameters, and the block of every leaf.

    Args:
        who: The function that was called, for the message.
        like: The parameters, or their shapes.
        by: "layer" for one block for all leaves whose paths differ in the last key only, such as the kernel and the
            bias of a layer; "leaf" for one for each leaf; or a function from the path of a leaf, its keys joined by
            "/", to the name of its block.

    Returns:
        The names in the order of the first leaf of each block, and for each leaf the index of its block.

    Raises:
        TypeError: If `by` is none of these, or the function gives a name that is not text.
    """
    paths = leaf_paths(like)
    named: list[Any]
    if isinstance(by, str) and by == "leaf":
        named = [path or "parameters" for path in paths]
    elif isinstance(by, str) and by == "layer":
        named = [path.rpartition("/")[0] or path or "parameters" for path in paths]
    elif callable(by):
        named = [by(path) for path in paths]
        wrong = [name for name in named if not isinstance(name, str)]
        if wrong:
            raise TypeError(
                f"{who} needs by to return the name of a block, a text, for every path; received "
                f"{describe_argument(wrong[0])}. The paths are: {', '.join(paths)}."
            )
    else:
        raise TypeError(
            f"{who} needs by to be 'layer', 'leaf' or a function from the path of a leaf to the name of its block; "
            f"received {describe_argument(by)}."
        )
    names = tuple(dict.fromkeys(named))
    return names, tuple(names.index(name) for name in named)


def only(owners: tuple[int, ...], block: Int[Array, ""] | int, v: Vector) -> Vector:
    """Return a vector with zeros outside of one block; the index of the block may be traced."""
    leaves, structure = jax.tree.flatten(v)
    return structure.unflatten(
        [jnp.where(block == owner, leaf, jnp.zeros_like(leaf)) for owner, leaf in zip(owners, leaves, strict=True)]
    )


@partial(jax.tree_util.register_dataclass, data_fields=("inner",), meta_fields=("owners", "num_blocks"))
@dataclass(frozen=True, eq=False, repr=False)
class BlockDiagonal(Wrapped):
    """Σ_b P_b H P_b with the projections P_b on the blocks: H without what couples different blocks.

    The products with the blocks are computed together by `blockwise_product`. Where that is not possible, a product
    takes one product with H for each block, in a loop. Either way the time to compile hardly depends on their number.
    """

    owners: tuple[int, ...]
    num_blocks: int

    def linearize(self) -> Matvec:
        """Return v ↦ Σ_b P_b H P_b v for the same trace, all blocks at once where the program of H allows it."""
        product = self.inner.linearize()
        return self.together(product) or partial(self.one_by_one, product)

    def together(self, product: Matvec) -> Matvec | None:
        """Return the product of all blocks at once, from the linearised H; None where its program does not allow it."""
        return blockwise_product(product, self.like, self.owners) if self.inner.is_linearized else None

    def one_by_one(self, product: Matvec, v: Vector) -> Vector:
        """Return the product from those of the blocks, one after another, with the linearised H."""

        def add(block: Int[Array, ""], total: Vector) -> Vector:
            image = product(only(self.owners, block, v))
            return jax.tree.map(jnp.add, total, only(self.owners, block, image))

        return lax.fori_loop(0, self.num_blocks, add, jax.tree.map(jnp.zeros_like, v))

    def _around(self, product: Matvec, v: Vector) -> Vector:
        return self.one_by_one(product, v)

    def product(self) -> Matvec:
        """Return a compiled v ↦ Σ_b P_b H P_b v for use from Python, with a Python loop over the blocks."""
        inner = self.inner.product()

        def product(v: Vector) -> Vector:
            total = jax.tree.map(jnp.zeros_like, v)
            for block in range(self.num_blocks):
                total = _added(self.owners, block, total, inner(_only(self.owners, block, v)))
            return total

        return product


_only = jax.jit(only, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _added(owners: tuple[int, ...], block: Shaped[Array, ""], total: Vector, image: Vector) -> Vector:
    return jax.tree.map(jnp.add, total, only(owners, block, image))


def block_sizes(like: Any, owners: tuple[int, ...], num_blocks: int) -> tuple[int, ...]:
    """Return the number of coordinates of every block."""
    return tuple(sum(int(leaf.size) for leaf in part) for part in parts(owners, num_blocks, like))


def blocks_of(who: str, like: Any, by: Any) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    """Return names and owners as `group_leaves`, and sizes, without blocks of empty leaves, which have no spectrum."""
    names, owners = group_leaves(who, like, by)
    sizes = block_sizes(like, owners, len(names))
    kept = [block for block, size in enumerate(sizes) if size]
    places = {block: place for place, block in enumerate(kept)}
    owners = tuple(places.get(block, 0) for block in owners)
    return tuple(names[block] for block in kept), owners, tuple(sizes[block] for block in kept)
