"""Error messages for mismatched state, gradient and parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study._checks import describe_argument


class MismatchError(ValueError):
    """State, gradient and parameters do not match; the message names the atom and the remedy."""


def check_state(name: str, expected: type, received: Any) -> None:
    """Raise MismatchError if a state is not of an atom's own class."""
    if not isinstance(received, expected):
        raise MismatchError(
            f"{name}: the state belongs to another transformation: expected {expected.__name__}, received "
            f"{type(received).__name__}. Use the state that init of this chain returned; a state saved from one chain "
            "cannot continue another."
        )


def check_params(name: str, updates: Any, params: Any) -> None:
    """Raise MismatchError if the parameters that an atom needs are missing or do not match the gradient."""
    if params is None:
        raise MismatchError(
            f"{name} needs the current parameters: call update(updates, state, params), received params=None."
        )
    if _kind(updates) != _kind(params):
        raise MismatchError(
            f"{name}: gradient and parameters do not match: expected {_show(_kind(params))}, received "
            f"{_show(_kind(updates))}. Pass the parameters at which the gradient was taken."
        )


def explain(name: str, built: Any, updates: Any, state: Any, error: Exception) -> None:
    """Raise MismatchError if an atom failed because its state was initialised with other parameters."""
    try:
        expected = jax.eval_shape(built.init, updates)
    except (ValueError, TypeError, AttributeError):
        return
    if _kind(expected) != _kind(state):
        raise MismatchError(
            f"{name}: the state was initialised with other parameters: expected {_show(_kind(expected))}, received "
            f"{_show(_kind(state))}. Call init with the parameters to be trained."
        ) from error


def check_shapes(name: str, updates: Any, new: Any, state: Any, new_state: Any, *, reshapes: bool = False) -> None:
    """Raise MismatchError if an update changed a shape, which means that mismatched arguments were broadcast.

    Args:
        name: The atom.
        updates: The gradient passed in.
        new: The update returned.
        state: The state before.
        new_state: The state after.
        reshapes: Whether the atom may reduce or reshape the gradient, for example by summing over examples; then only
            growth raises, since broadcasting grows shapes.

    Raises:
        MismatchError: If a shape changed.
    """
    for what, before, after in (("gradient", updates, new), ("state", state, new_state)):
        for b, a in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=False):
            allowed = reshapes and what == "gradient" and np.size(a) <= np.size(b)
            if np.shape(b) != np.shape(a) and not allowed:
                raise MismatchError(
                    f"{name}: gradient, state and parameters differ in shape: the {what} had shape {np.shape(b)} and "
                    f"would become {np.shape(a)}. Call init with the parameters to be trained, and update with their "
                    "gradient."
                )


def as_arrays(name: str, what: str, tree: Any, *, is_linear: bool = False) -> Any:
    """Convert the leaves of a tree to JAX arrays of real numbers.

    Args:
        name: The atom.
        what: Name of the tree in the message.
        tree: Parameters or a gradient; `jax.ShapeDtypeStruct` leaves are kept.
        is_linear: Whether complex leaves are allowed.

    Returns:
        The tree of arrays, or the same tree if no leaf needed conversion.

    Raises:
        TypeError: If a leaf is not an array, or is complex although the atom is not linear.
    """
    leaves = jax.tree.leaves(tree)
    if all(isinstance(leaf, jax.Array) for leaf in leaves):
        if not is_linear:
            refuse_complex(name, what, tree)
        return without_integers(tree)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        known = isinstance(leaf, bool | int | float | complex) or (hasattr(leaf, "dtype") and hasattr(leaf, "shape"))
        if not known or getattr(getattr(leaf, "dtype", None), "kind", "f") in "OSU":
            raise TypeError(
                f"{name} needs {what} to be arrays; {what}{jax.tree_util.keystr(path)} is {describe_argument(leaf)}. "
                "Leave out of the parameters what is not trained, or put optax.masked around the transformation."
            )
    if not is_linear:
        refuse_complex(name, what, tree)
    return without_integers(jax.tree.map(_as_array, tree))


def without_integers(tree: Any) -> Any:
    """Return a tree whose integers are floating-point numbers: a memory in integers would drop what lies between them.

    Args:
        tree: Parameters or a gradient; shapes (`jax.ShapeDtypeStruct`) stay shapes.

    Returns:
        The same tree if there was nothing to convert.
    """
    return jax.tree.map(_as_real, tree) if any(_is_integer(leaf) for leaf in jax.tree.leaves(tree)) else tree


def _is_integer(leaf: Any) -> bool:
    return getattr(getattr(leaf, "dtype", None), "kind", "f") in "bui" or isinstance(leaf, int)


def _as_real(leaf: Any) -> Any:
    if not _is_integer(leaf):
        return leaf
    dtype = jnp.result_type(float)
    return leaf.update(dtype=dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf, dtype)


def refuse_complex(name: str, what: str, tree: Any) -> None:
    """Raise TypeError if a leaf is complex: its square, norm or sign differs from those of its two real parts."""
    if not any(_is_complex(leaf) for leaf in jax.tree.leaves(tree)):
        return
    path = next(path for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _is_complex(leaf))
    raise TypeError(
        f"{name} needs {what} to be real, since it is not linear in the gradient; {what}{jax.tree_util.keystr(path)} "
        "is complex. Give the real and the imaginary part as two leaves, as "
        "optax.contrib.split_real_and_imaginary(…) around the whole chain does."
    )


def _is_complex(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return isinstance(leaf, complex) if dtype is None else jax.dtypes.issubdtype(dtype, jnp.complexfloating)


def _as_array(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf
    # A Python number would become a weakly typed array, and the state would change its type after a step.
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf if hasattr(leaf, "dtype") else type(leaf)))


def _kind(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _show(kind: tuple[Any, list[tuple[int, ...]]]) -> str:
    structure, shapes = kind
    return str(jax.tree.unflatten(structure, shapes))
