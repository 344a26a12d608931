"""Next update of any optimizer, as a training step computes it."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study.curvature import Hessian, operator_of_data, value_and_gradient
from jaxopt_study.dynamics._updates import call_update, check_optimizer, differentiated
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.transforms import gradient_point
from jaxopt_study.types import LossFn, Params, Vector


class NextUpdate(NamedTuple):
    """The next step of an optimizer from θ, along which the loss is examined."""

    curvature: Any  # Hessian of the loss at θ, with θ and the data
    updates: Vector  # u, the change of θ, without the rounding of θ + u


def next_update(
    name: str, optimizer: Any, opt_state: Any, loss: LossFn, params: Params, data: Any, batch_size: int | None
) -> NextUpdate:
    """Check the arguments and return the next update, from the gradient over all data.

    Args:
        name: The function that was called, for the messages.
        optimizer: Any Optax transformation.
        opt_state: Its state.
        loss: loss(params, data) → scalar.
        params: θ, or the `optax.LookaheadParams`, whose fast parameters are those of the loss.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        batch_size: Examples per batch, or None.

    Returns:
        Hessian at θ and update. Cost: one gradient and one update.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the arguments do not fit together, or the update is not finite.
    """
    check_concrete(name, opt_state, params, data)
    optimizer, opt_state, params = check_optimizer(name, optimizer, opt_state, params)
    op: Any = operator_of_data(
        _checked(name)(loss), differentiated(params), data, batch_size=batch_size, remat=None, precision="highest"
    )
    value, grads = value_and_gradient(op, _point(params, opt_state))
    updates = _update(optimizer, op, opt_state, params, value, grads)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates)):
        raise ValueError(
            f"{name}: the next update must be finite; received NaN or infinity, as for a gradient that is not finite "
            "or a second-moment buffer of 0 with ε = 0. Use a positive ε, or parameters from before the run diverged."
        )
    return NextUpdate(op, updates)


@cache
def _checked(name: str) -> type[Hessian]:
    """Return the checks of a Hessian's loss, under the name of the function that was called."""
    return type("_Loss", (Hessian,), {"name": name})


@jax.jit
def _point(params: Any, state: Any) -> Params:
    return gradient_point(differentiated(params), state)


@partial(jax.jit, static_argnums=0)
def _update(optimizer: Any, op: Any, state: Any, params: Any, value: Float[Array, ""], grads: Vector) -> Vector:
    with jax.default_matmul_precision("highest"):
        updates, _ = call_update(optimizer, grads, state, params, value, lambda p: op.mean(partial(op.loss, p)))
    return jax.tree.map(lambda u, p: jnp.asarray(u, p.dtype), differentiated(updates), differentiated(params))
