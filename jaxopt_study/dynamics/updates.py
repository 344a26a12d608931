"""One update of any optimizer, with what some of them want beside the gradient."""

import inspect
from collections.abc import Callable
from typing import Any

import optax


def call_update(
    optimizer: Any, grads: Any, state: Any, params: Any, value: Any, value_fn: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """Return update and new state as a training step gets them.

    Args:
        optimizer: Any Optax transformation.
        grads: The gradient.
        state: The optimizer's state.
        params: The parameters.
        value: The loss, for transformations that take it.
        value_fn: The loss as a function of the parameters, for those that search along a line.

    Returns:
        Update and new state. Extra arguments are passed to those that accept them.
    """
    update = optax.with_extra_args_support(optimizer).update
    extra = {"value": value, "grad": grads, "value_fn": value_fn}
    parameters = inspect.signature(update).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        extra = {name: argument for name, argument in extra.items() if name in parameters}
    return update(grads, state, params, **extra)
