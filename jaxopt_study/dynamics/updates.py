"""One update of any optimizer, with what some of them want beside the gradient."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def as_transformation(optimizer: Any) -> Any:
    """Return an optimizer as an Optax transformation, `optax.MultiSteps` too.

    Args:
        optimizer: Any Optax transformation.

    Returns:
        The transformation.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(optimizer, optax.MultiSteps):
        return optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must be an Optax transformation; received {optimizer!r}.")
    return optimizer


def differentiated(params: Any) -> Any:
    """Return the part of the parameters that the loss is a function of: the fast ones of `optax.lookahead`.

    Args:
        params: The parameters, `optax.LookaheadParams` included.

    Returns:
        What a gradient is like.
    """
    return params.fast if isinstance(params, optax.LookaheadParams) else params


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


def keep_dtypes(new: Any, old: Any) -> Any:
    """Return a state after an update in the dtypes it had before, so that a loop can carry it.

    Args:
        new: The state after the update.
        old: The state before.

    Returns:
        The new state. To be called in a trace, where random keys can be converted, too.
    """
    return jax.tree.map(lambda x, y: jnp.asarray(x).astype(jnp.result_type(y)), new, old)


def check_optimizer(optimizer: Any, opt_state: Any, params: Any) -> Any:
    """Return an optimizer as an Optax transformation, if the state is one of its own.

    Args:
        optimizer: Any Optax transformation.
        opt_state: Its state.
        params: The parameters.

    Returns:
        The transformation.

    Raises:
        TypeError: If the optimizer is none.
        ValueError: If the state does not belong to the optimizer and the parameters.
    """
    optimizer = as_transformation(optimizer)
    if not isinstance(params, optax.LookaheadParams) and holds_lookahead(opt_state):
        raise ValueError(
            "optax.lookahead steps on a pair of fast and slow parameters: params must be optax.LookaheadParams, as "
            f"optax.LookaheadParams.init_synced makes them; received {jax.tree.structure(params)}."
        )
    expected, given = jax.eval_shape(optimizer.init, params), jax.eval_shape(lambda state: state, opt_state)
    if _forms(expected) != _forms(given):
        raise ValueError(
            "The optimizer's state does not belong to these parameters and this optimizer: its init gives "
            f"{jax.tree.structure(expected)} with shapes {_forms(expected)[1]}, received {jax.tree.structure(given)} "
            f"with shapes {_forms(given)[1]}."
        )
    return optimizer


def holds_lookahead(state: Any) -> bool:
    """Return whether a state holds one of `optax.lookahead`, whose parameters are pairs."""

    def is_lookahead(part: Any) -> bool:
        return isinstance(part, optax.LookaheadState)

    return any(map(is_lookahead, jax.tree.leaves(state, is_leaf=is_lookahead)))


def _forms(state: Any) -> tuple[Any, list[Any]]:
    return jax.tree.structure(state), [leaf.shape for leaf in jax.tree.leaves(state)]
