"""Partition the leaves of a pytree in those of a selection and the others, and combine them again."""

from collections.abc import Callable
from typing import Any

import jax

from jaxopt_study.types import Vector

Selection = Callable[[str], bool] | Any  # a function of the path of a leaf, or a pytree (prefix) of bools


def select(like: Any, selection: Selection) -> tuple[bool, ...]:
    """Return for every leaf whether it is chosen.

    Args:
        like: A pytree.
        selection: A function of the path of a leaf, its keys joined by "/", or a pytree of bools that is a prefix of
            `like`.

    Returns:
        One bool per leaf, in the order of the leaves.

    Raises:
        ValueError: If no leaf is chosen, or the pytree of bools does not fit.
        TypeError: If the selection gives something else than bools.
    """
    paths = leaf_paths(like)
    if callable(selection):
        chosen = tuple(selection(path) for path in paths)
    else:
        try:
            spread = jax.tree.map(lambda flag, part: [flag] * len(jax.tree.leaves(part)), selection, like)
        except ValueError as error:
            raise ValueError(
                "The selection must be a prefix of the pytree of parameters with a bool for each branch; received "
                f"{jax.tree.structure(selection)} for leaves {', '.join(paths)}."
            ) from error
        chosen = tuple(jax.tree.leaves(spread))
    if not all(isinstance(flag, bool) for flag in chosen):
        raise TypeError(
            "The selection must be a function path -> bool or a pytree of bools; received values of type "
            f"{', '.join(sorted({type(flag).__name__ for flag in chosen}))}."
        )
    if not any(chosen):
        raise ValueError(f"The selection chooses no leaf. The paths are: {', '.join(paths)}.")
    return tuple(bool(flag) for flag in chosen)


def leaf_paths(tree: Any) -> list[str]:
    """Return the path of every leaf, its keys joined by "/"."""
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def partition(tree: Vector, chosen: tuple[bool, ...]) -> tuple[Vector, Vector]:
    """Return the chosen leaves and the others, each with `None` in the place of the leaves it lacks."""
    leaves, structure = jax.tree.flatten(tree)
    return (
        structure.unflatten([leaf if flag else None for leaf, flag in zip(leaves, chosen, strict=True)]),
        structure.unflatten([None if flag else leaf for leaf, flag in zip(leaves, chosen, strict=True)]),
    )


def combine(structure: Any, chosen: tuple[bool, ...], selected: Vector, rest: Vector) -> Vector:
    """Undo `partition`.

    Args:
        structure: The `PyTreeDef` of the whole tree, or a tree with it.
        chosen: Which leaves were chosen.
        selected: The chosen leaves.
        rest: The others.

    Returns:
        The tree with all leaves.
    """
    if not isinstance(structure, jax.tree_util.PyTreeDef):
        structure = jax.tree.structure(structure)
    a, b = iter(jax.tree.leaves(selected)), iter(jax.tree.leaves(rest))
    return structure.unflatten([next(a) if flag else next(b) for flag in chosen])
