"""Checks of the functions that define an operator: their arguments and the result of a loss."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp


def check_function(name: str, argument: str, function: Any) -> None:
    """Raise unless a function is hashable and takes parameters and a batch."""
    if not callable(function):
        raise TypeError(f"{argument} of {name} must be a function of parameters and a batch; received {function!r}.")
    try:
        hash(function)
    except TypeError as error:
        raise TypeError(
            f"{argument} of {name} must be hashable, so that it compiles once. Wrap it in a function."
        ) from error
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"{argument} of {name} must take two arguments, {argument}(params, batch), where batch is None without "
            f"data; received the signature {signature}. Close over other arguments, such as batch statistics or a "
            f"dropout key: lambda params, batch: {argument}(params, batch, model_state)."
        ) from error


def check_scalar(name: str, argument: str, result: Any) -> None:
    """Check that the abstract result of a loss is one real number."""
    leaves = jax.tree.leaves(result)
    if len(leaves) != 1 or jax.tree.structure(result) != jax.tree.structure(0):
        raise TypeError(
            f"{argument} of {name} must return a scalar; received {jax.tree.structure(result)}. Return the loss "
            "alone, or pass has_aux=True to hessian."
        )
    if leaves[0].shape != ():
        raise TypeError(
            f"{argument} of {name} must return a scalar, the mean over the examples; received an array of shape "
            f"{leaves[0].shape}. Take its mean."
        )
    if not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(f"{argument} of {name} must return a real floating number; received {leaves[0].dtype}.")
