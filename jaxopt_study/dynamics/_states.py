"""Optimizer states of other libraries in the structure of `optimizer.init`.

`flax.nnx.Optimizer` wraps every array of its state in a `Variable`; a checkpoint or `to_state_dict` returns nested
dictionaries and lists. The names along the paths are the same, so leaves are matched by their paths.
"""

from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from jaxopt_study.transforms import refuse_holder, unwrapped

Names = tuple[str, ...]


def named_leaves(state: Any) -> dict[Names, Any]:
    """Return the leaves of a state by the names along their paths, for any containers.

    Args:
        state: An optimizer's state, or a dictionary of only `opt_state` and a step counter.

    Returns:
        Leaves by path: an index of a tuple, a key of a dictionary and a field of a named tuple as text.
    """
    leaves = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(unwrapped(state))}
    inside = {path[1:]: leaf for path, leaf in leaves.items() if path[:1] == ("opt_state",)}
    others = {path for path in leaves if path[:1] != ("opt_state",)}
    return inside if inside and others <= {("step",)} else leaves


def restore_structure(name: str, opt_state: Any, expected: Any) -> Any:
    """Return an optimizer's state in the structure of its `init`.

    Args:
        name: The function that was called, for the message.
        opt_state: The state, in the form of Optax or of another library.
        expected: The result of `init` for the parameters, arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        The same numbers in the expected structure.

    Raises:
        ValueError: If names or shapes of the leaves differ.
        TypeError: If the argument is the object that holds the state.
    """
    refuse_holder(name, opt_state)
    given = unwrapped(opt_state)
    if jax.tree.structure(given) == jax.tree.structure(expected):
        leaves = jax.tree.leaves(given)
    else:
        named, needed = named_leaves(given), list(named_leaves(expected))
        if set(named) != set(needed):
            raise ValueError(
                f"{name}: opt_state was not produced by this optimizer for these parameters: expected the structure "
                f"{jax.tree.structure(expected)}; received {jax.tree.structure(opt_state)}"
                f"{_listed('; missing ', needed, named)}{_listed('; unexpected ', named, needed)}. Pass the state that "
                "this optimizer's init or update returned."
            )
        leaves = [named[path] for path in needed]
    shapes, needed = ([_shape(leaf) for leaf in tree] for tree in (leaves, jax.tree.leaves(expected)))
    if shapes != needed:
        raise ValueError(
            f"{name}: opt_state was not produced by this optimizer for these parameters: expected the structure "
            f"{jax.tree.structure(expected)} and shapes {needed}; received {jax.tree.structure(opt_state)} with "
            f"shapes {shapes}. Pass the state that this optimizer's init or update returned."
        )
    return jax.tree.unflatten(jax.tree.structure(expected), leaves)


def _names(path: tuple[Any, ...]) -> Names:
    return tuple(text for key in path if (text := _name(key)) is not None)


def _name(key: Any) -> str | None:
    match key:
        case SequenceKey(idx=index):
            return str(index)
        case DictKey(key=name):
            return str(name)
        case GetAttrKey(name=name):
            return str(name)
        case FlattenedIndexKey(key=index):
            return str(index)
    return str(key)


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(jnp.shape(leaf))


def _listed(before: str, paths: Iterable[Names], others: Collection[Names]) -> str:
    names = [".".join(path) or "a value" for path in paths if path not in others]
    return before + ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else ""
