"""Partition of the leaves of a pytree by a mask, and the inverse."""

from collections.abc import Callable
from typing import Any

import jax

from jaxopt_study.types import Vector

Selection = Callable[[str], bool] | Any  # a function of the path of a leaf, or a pytree (prefix) of bools


def select(like: Any, selection: Selection) -> tuple[bool, ...]:
    """Return the mask of the leaves that a selection chooses.

    Args:
        like: A pytree.
        selection: A function of the path of a leaf, its keys joined by "/", or a pytree of bools that is a prefix of
            `like`.

    Returns:
        One bool per leaf, in the order of the leaves.

    Raises:
        ValueError: If no leaf is selected, or the pytree of bools does not fit.
        TypeError: If the selection gives values that are not bools.
    """
    paths = leaf_paths(like)
    if callable(selection):
        mask = tuple(selection(path) for path in paths)
    else:
        try:
            spread = jax.tree.map(lambda flag, part: [flag] * len(jax.tree.leaves(part)), selection, like)
        except ValueError as error:
            raise ValueError(
                "The selection must be a prefix of the pytree of parameters with a bool for each branch; received "
                f"{jax.tree.structure(selection)} for leaves {', '.join(paths)}."
            ) from error
        mask = tuple(jax.tree.leaves(spread))
    if not all(isinstance(flag, bool) for flag in mask):
        raise TypeError(
            "The selection must be a function path -> bool or a pytree of bools; received values of type "
            f"{', '.join(sorted({type(flag).__name__ for flag in mask}))}."
        )
    if not any(mask):
        raise ValueError(
            f"The selection must contain a leaf; received one without any. The paths are: {', '.join(paths)}."
        )
    return tuple(bool(flag) for flag in mask)


def leaf_paths(tree: Any) -> list[str]:
    """Return the path of every leaf, its keys joined by "/"."""
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def partition(tree: Vector, mask: tuple[bool, ...]) -> tuple[Vector, Vector]:
    """Return the leaves inside and outside a mask, each as a tree with `None` for the others."""
    leaves, structure = jax.tree.flatten(tree)
    return (
        structure.unflatten([leaf if flag else None for leaf, flag in zip(leaves, mask, strict=True)]),
        structure.unflatten([None if flag else leaf for leaf, flag in zip(leaves, mask, strict=True)]),
    )


def combine(structure: Any, mask: tuple[bool, ...], selected: Vector, rest: Vector) -> Vector:
    """Undo `partition`.

    Args:
        structure: The `PyTreeDef` of the whole tree, or a tree with it.
        mask: Mask of the leaves in `selected`.
        selected: The leaves inside the mask.
        rest: The leaves outside.

    Returns:
        The tree with all leaves.
    """
    if not isinstance(structure, jax.tree_util.PyTreeDef):
        structure = jax.tree.structure(structure)
    a, b = iter(jax.tree.leaves(selected)), iter(jax.tree.leaves(rest))
    return structure.unflatten([next(a) if flag else next(b) for flag in mask])


def parts(owners: tuple[int, ...], count: int, tree: Vector) -> list[list[Any]]:
    """Return the leaves of each of several blocks; `owners` has the index of the block of every leaf."""
    leaves = jax.tree.leaves(tree)
    return [[leaf for owner, leaf in zip(owners, leaves, strict=True) if owner == block] for block in range(count)]
