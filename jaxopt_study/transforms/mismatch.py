"""What a user hears whose state, gradient and parameters do not belong together."""

from typing import Any

import jax
import numpy as np


class MismatchError(ValueError):
    """State, gradient and parameters that do not belong together; the message names the atom and the remedy."""


def check_state(name: str, expected: type, received: Any) -> None:
    """Raise MismatchError if a state is not of an atom's own class."""
    if not isinstance(received, expected):
        raise MismatchError(
            f"{name}: the state belongs to another transformation: expected {expected.__name__}, received "
            f"{type(received).__name__}. Use the state that init of this chain returned; a state saved from one chain "
            "cannot continue another."
        )


def check_params(name: str, updates: Any, params: Any) -> None:
    """Raise MismatchError unless an atom that needs the parameters gets those of its gradient."""
    if params is None:
        raise MismatchError(
            f"{name} needs the current parameters: call update(updates, state, params), received params=None."
        )
    if _kind(updates) != _kind(params):
        raise MismatchError(
            f"{name}: the gradient does not belong to these parameters: expected {_show(_kind(params))}, received "
            f"{_show(_kind(updates))}. Pass the parameters at which the gradient was taken."
        )


def explain(name: str, built: Any, updates: Any, state: Any, error: Exception) -> None:
    """Raise MismatchError if an atom failed because its state was made for other parameters."""
    try:
        expected = jax.eval_shape(built.init, updates)
    except (ValueError, TypeError, AttributeError):
        return
    if _kind(expected) != _kind(state):
        raise MismatchError(
            f"{name}: the state was made for other parameters: expected {_show(_kind(expected))}, received "
            f"{_show(_kind(state))}. Call init with the parameters that are trained."
        ) from error


def check_shapes(name: str, updates: Any, new: Any, state: Any, new_state: Any) -> None:
    """Raise MismatchError if an update changed a shape: broadcasting hides arguments that do not belong together."""
    for what, before, after in (("gradient", updates, new), ("state", state, new_state)):
        for b, a in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=False):
            if np.shape(b) != np.shape(a):
                raise MismatchError(
                    f"{name}: gradient, state and parameters differ in shape: the {what} went in with {np.shape(b)} "
                    f"and would come out with {np.shape(a)}. Call init with the parameters that are trained, and "
                    "update with their gradient."
                )


def _kind(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _show(kind: tuple[Any, list[tuple[int, ...]]]) -> str:
    structure, shapes = kind
    return str(jax.tree.unflatten(structure, shapes))
