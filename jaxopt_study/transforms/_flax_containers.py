"""Pytrees in the containers of Flax, brought into those of JAX."""

import sys
from typing import Any

import jax


def is_nnx(value: Any, kind: str) -> bool:
    """Return whether a value is an instance of a class of `flax.nnx`, without importing it.

    Args:
        value: Anything.
        kind: The name of the class.
    """
    nnx = sys.modules.get("flax.nnx")  # where it was never imported there are none
    return nnx is not None and isinstance(value, getattr(nnx, kind))


def unwrapped(tree: Any) -> Any:
    """Return a pytree with dictionaries for the `State`s of Flax, and without the `Variable`s around its arrays."""
    nnx = sys.modules.get("flax.nnx")  # where it was never imported there are none
    if nnx is None:
        return tree

    def plain(part: Any) -> Any:
        if isinstance(part, nnx.State):
            return nnx.to_pure_dict(part)
        return part.get_value() if isinstance(part, nnx.Variable) else part

    return jax.tree.map(plain, tree, is_leaf=lambda part: isinstance(part, nnx.State | nnx.Variable))


def refuse_holder(name: str, opt_state: Any) -> None:
    """Raise TypeError for the object that holds a state, an `nnx.Optimizer` or a `TrainState`."""
    if not isinstance(opt_state, tuple | dict) and hasattr(opt_state, "opt_state") and hasattr(opt_state, "tx"):
        raise TypeError(
            f"{name} needs the optimizer's state; received a {type(opt_state).__name__}, which holds one. Pass its "
            "opt_state."
        )
