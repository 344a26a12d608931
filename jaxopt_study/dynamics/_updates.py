"""Update of any optimizer, with the extra arguments that some of them take."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ScalarLike

from jaxopt_study._checks import check_params, describe_argument
from jaxopt_study.dynamics._states import restore_structure
from jaxopt_study.transforms import refuse_holder, with_any_extra


def as_transformation(optimizer: Any, name: str = "") -> Any:
    """Return an optimizer, or an `optax.MultiSteps`, as an Optax transformation.

    Args:
        optimizer: Any Optax transformation.
        name: The function that was called, for the message.

    Returns:
        The transformation.

    Raises:
        TypeError: If the argument is not an optimizer.
    """
    if isinstance(optimizer, optax.MultiSteps):
        return optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        remedy = "Give an Optax transformation such as optax.adam(1e-3), or a chain of this package."
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
    """Return the parameters of the loss: the fast ones of `optax.lookahead`, otherwise all.

    Args:
        params: The parameters, `optax.LookaheadParams` included.

    Returns:
        A pytree with the structure of the gradient.
    """
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def call_update(
    optimizer: Any, grads: Any, state: Any, params: Any, value: ScalarLike, value_fn: Callable[[Any], ScalarLike]
) -> tuple[Any, Any]:
    """Return update and new state as in a training step, with all extra arguments that the optimizer accepts.

    Args:
        optimizer: Any Optax transformation.
        grads: The gradient.
        state: The optimizer's state.
        params: The parameters.
        value: The loss.
        value_fn: The loss as a function of the parameters, for line searches.

    Returns:
        Update and new state.
    """
    return with_any_extra(optimizer).update(grads, state, params, value=value, grad=grads, value_fn=value_fn)


def keep_dtypes(new: Any, old: Any) -> Any:
    """Return an updated state in the dtypes of the old one, as a loop carry.

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
    """Return the optimizer as an Optax transformation, its state and the parameters; raise unless they fit together.

    Args:
        name: The function that was called, for the messages.
        optimizer: Any Optax transformation.
        opt_state: Its state, in the form of any library.
        params: The parameters.

    Returns:
        The transformation, the state in the structure that `init` gives, and the parameters.

    Raises:
        TypeError: If the optimizer has the wrong type, its updates are complex, or the parameters are not real
            floating-point arrays.
        ValueError: If the state does not belong to the optimizer and the parameters, the parameters are not finite, or
            the optimizer cannot take a step on them.
    """
    optimizer = as_transformation(optimizer, name)
    refuse_holder(name, opt_state)
    if not isinstance(params, optax.LookaheadParams) and holds_lookahead(opt_state):
        raise ValueError(
            f"{name}: params must be optax.LookaheadParams for optax.lookahead, with fast and slow parameters; "
            f"received {jax.tree.structure(params)}. Make them with optax.LookaheadParams.init_synced."
        )
    params = check_params(name, params)
    if not sum(leaf.size for leaf in jax.tree.leaves(params)):
        raise ValueError(f"{name} needs params with at least one number; received arrays of size 0.")
    opt_state = restore_structure(name, opt_state, check_runs(name, optimizer, params))
    return optimizer, opt_state, params


def check_runs(name: str, optimizer: Any, params: Any, *, remedy: str = "") -> Any:
    """Return the shapes of an optimizer's state; raise unless `init` and `update` accept the parameters.

    Args:
        name: The function that was called, for the messages.
        optimizer: An Optax transformation.
        params: The parameters, or their shapes.
        remedy: A sentence to append to the message.

    Returns:
        The result of `init` as `jax.ShapeDtypeStruct`s. Cost: one trace.

    Raises:
        ValueError: If `init` or `update` raises, or the update has another structure or shape.
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
    except Exception as error:  # any error of a user's transformation
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
            f"{name}: the optimizer must return updates like the parameters, {listed}; received "
            f"{', '.join(f'{x.dtype}{list(x.shape)}' for x in jax.tree.leaves(updates)) or 'no arrays'}.{remedy}"
        )
    if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in jax.tree.leaves(updates)):
        raise TypeError(
            f"{name}: the optimizer must return real updates for real parameters; received complex ones, as from a "
            "complex learning rate. Use real hyperparameters."
        )
    return state


def check_shapes(name: str, params: Any) -> Any:
    """Return parameters as arrays or shapes; raise unless they are floating-point.

    Args:
        name: The function that was called, for the message.
        params: The parameters.

    Returns:
        The parameters.

    Raises:
        TypeError: If a leaf is not a real floating-point array.
        ValueError: If there are no leaves.
    """
    if not all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
        check_params(name, params, finite=False)
    elif not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(params)):
        raise TypeError(f"{name} needs params to be floating-point; received {params}.")
    if not jax.tree.leaves(params):
        raise ValueError(f"{name} needs params with at least one array; received a pytree without leaves.")
    return params


def holds_lookahead(state: Any) -> bool:
    """Return whether a state contains an `optax.LookaheadState`, whose parameters are pairs."""

    def is_lookahead(part: Any) -> bool:
        return isinstance(part, optax.LookaheadState)

    return any(map(is_lookahead, jax.tree.leaves(state, is_leaf=is_lookahead)))
