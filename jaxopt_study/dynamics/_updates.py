"""One update of any optimizer, with what some of them want beside the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_study._checks import check_params, describe_argument
from jaxopt_study.dynamics._states import seated
from jaxopt_study.transforms import refuse_holder, with_any_extra


def as_transformation(optimizer: Any, name: str = "") -> Any:
    """Return an optimizer as an Optax transformation, `optax.MultiSteps` too.

    Args:
        optimizer: Any Optax transformation.
        name: The function that was called, for the message.

    Returns:
        The transformation.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(optimizer, optax.MultiSteps):
        return optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        remedy = "Give optax.adam(1e-3), say, or a chain of this package."
        if isinstance(getattr(optimizer, "tx", None), optax.GradientTransformation):
            remedy = "Give its tx, and its opt_state as the state."
        elif callable(optimizer):
            remedy = f"Call it, as in {getattr(optimizer, '__name__', 'optimizer')}(1e-3)."
        raise TypeError(
            f"{name + ': ' if name else ''}optimizer must be an Optax transformation; received "
            f"{describe_argument(optimizer)}. {remedy}"
        )
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
    return with_any_extra(optimizer).update(grads, state, params, value=value, grad=grads, value_fn=value_fn)


def keep_dtypes(new: Any, old: Any) -> Any:
    """Return a state after an update in the dtypes it had before, so that a loop can carry it.

    Args:
        new: The state after the update.
        old: The state before.

    Returns:
        The new state.
    """

    def kept(x: Any, y: Any) -> jax.Array:
        x, dtype = jnp.asarray(x), jnp.result_type(y)
        is_key = x.dtype == dtype and jax.dtypes.issubdtype(dtype, jax.dtypes.extended)
        return x if is_key else x.astype(dtype)  # outside a trace a random key has no `astype`

    return jax.tree.map(kept, new, old)


def check_optimizer(name: str, optimizer: Any, opt_state: Any, params: Any) -> tuple[Any, Any, Any]:
    """Return an optimizer as an Optax transformation, its state and the parameters as arrays, if they fit together.

    Args:
        name: The function that was called, for the messages.
        optimizer: Any Optax transformation.
        opt_state: Its state, in any of the forms in which libraries keep it.
        params: The parameters.

    Returns:
        The transformation, the state in the structure that `init` gives, and the parameters.

    Raises:
        TypeError: If the optimizer is none, its updates are complex, or the parameters are not real floating-point
            arrays.
        ValueError: If the state does not belong to the optimizer and the parameters, the parameters are not finite, or
            the optimizer cannot take a step on them.
    """
    optimizer = as_transformation(optimizer, name)
    refuse_holder(name, opt_state)
    if not isinstance(params, optax.LookaheadParams) and holds_lookahead(opt_state):
        raise ValueError(
            f"{name}: optax.lookahead steps on a pair of fast and slow parameters: params must be "
            "optax.LookaheadParams, as optax.LookaheadParams.init_synced makes them; received "
            f"{jax.tree.structure(params)}."
        )
    params = check_params(name, params)
    if not sum(leaf.size for leaf in jax.tree.leaves(params)):
        raise ValueError(f"{name} needs params with at least one number; received arrays of size 0.")
    opt_state = seated(name, opt_state, check_runs(name, optimizer, params))
    return optimizer, opt_state, params


def check_runs(name: str, optimizer: Any, params: Any, *, remedy: str = "") -> Any:
    """Return the shapes of an optimizer's state, if it can be initialised and take a step on given parameters.

    Args:
        name: The function that was called, for the messages.
        optimizer: An Optax transformation.
        params: The parameters, or their shapes.
        remedy: A sentence for the end of the message.

    Returns:
        What `init` gives, as `jax.ShapeDtypeStruct`s. Cost: one trace.

    Raises:
        ValueError: If `init` or `update` raises, or gives an update of another structure or shape.
        TypeError: If the update is complex.
    """
    shapes = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(params)]
    listed = ", ".join(shapes[:4]) + (", …" if len(shapes) > 4 else "")
    remedy = f" {remedy}" if remedy else ""

    def failed(what: str, error: Exception) -> ValueError:
        return ValueError(
            f"{name}: the optimizer cannot {what} parameters {listed}; it raises {type(error).__name__}: "
            f"{error}.{remedy}"
        )

    try:
        state = jax.eval_shape(optimizer.init, params)
    except Exception as error:  # whatever somebody else's transformation raises
        raise failed("be initialised for", error) from error

    def step(params: Any, state: Any) -> Any:
        value = jnp.sum(jnp.zeros_like(jax.tree.leaves(params)[0]))
        return call_update(optimizer, differentiated(params), state, params, value, lambda p: value)[0]

    try:
        updates = jax.eval_shape(step, params, state)
    except Exception as error:
        raise failed("take a step on", error) from error
    like = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    if jax.tree.structure(updates) != jax.tree.structure(params) or [x.shape for x in jax.tree.leaves(updates)] != like:
        raise ValueError(
            f"{name}: the optimizer must return updates like the parameters, {listed}; it returns "
            f"{', '.join(f'{x.dtype}{list(x.shape)}' for x in jax.tree.leaves(updates)) or 'nothing'} for gradients of "
            f"that form.{remedy}"
        )
    if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in jax.tree.leaves(updates)):
        raise TypeError(
            f"{name}: the optimizer must return real updates for real parameters; it returns complex ones, as with a "
            "complex learning rate, whose imaginary part the parameters would lose."
        )
    return state


def check_shapes(name: str, params: Any) -> Any:
    """Return parameters of which only structure, shapes and dtypes matter, arrays or `jax.ShapeDtypeStruct`s.

    Args:
        name: The function that was called, for the message.
        params: The parameters.

    Returns:
        The parameters.

    Raises:
        TypeError: If they are not real floating-point arrays.
        ValueError: If there are none.
    """
    if not all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
        check_params(name, params, finite=False)
    elif not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(params)):
        raise TypeError(f"{name} needs params to be floating-point; received {params}.")
    if not jax.tree.leaves(params):
        raise ValueError(f"{name} needs params with at least one array; received a pytree without leaves.")
    return params


def holds_lookahead(state: Any) -> bool:
    """Return whether a state holds one of `optax.lookahead`, whose parameters are pairs."""

    def is_lookahead(part: Any) -> bool:
        return isinstance(part, optax.LookaheadState)

    return any(map(is_lookahead, jax.tree.leaves(state, is_leaf=is_lookahead)))
