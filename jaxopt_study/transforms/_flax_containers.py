"""Conversion of Flax's containers (`nnx.State`, `Variable`) to plain pytrees."""

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
    """Return a pytree with dictionaries in place of Flax's `State`s and arrays in place of its `Variable`s."""
    nnx = sys.modules.get("flax.nnx")  # if it was never imported, the tree holds none of its containers
    if nnx is None:
        return tree

    def plain(part: Any) -> Any:
        if isinstance(part, nnx.State):
            return nnx.to_pure_dict(part)
        return part.get_value() if isinstance(part, nnx.Variable) else part

    return jax.tree.map(plain, tree, is_leaf=lambda part: isinstance(part, nnx.State | nnx.Variable))


def refuse_holder(name: str, opt_state: Any) -> None:
    """Raise TypeError if the argument is an `nnx.Optimizer` or a `TrainState` instead of the state inside it."""
    if not isinstance(opt_state, tuple | dict) and hasattr(opt_state, "opt_state") and hasattr(opt_state, "tx"):
        raise TypeError(
            f"{name}: pass the optimizer's state itself, for example nnx_optimizer.opt_state; received its "
            f"container, of type {type(opt_state).__name__}."
        )
