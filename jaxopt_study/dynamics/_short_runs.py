"""Short training runs with several learning rates, in one vectorised program."""

from functools import partial
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._programs import strongly_typed
from jaxopt_study.curvature import batch_mean
from jaxopt_study.dynamics._updates import as_transformation, call_update, differentiated, keep_dtypes
from jaxopt_study.transforms import gradient_point
from jaxopt_study.types import Batch, Params


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def short_runs(
    make_optimizer: Any,
    loss: Any,
    batch_size: int | None,
    num_steps: int,
    rates: Float[Array, " runs"],
    params: Params,
    opt_state: Any,
    data: Batch,
) -> tuple[Float[Array, ""], Float[Array, " runs"]]:
    """Train for a few steps with each of several learning rates, all from the same parameters and state.

    Args:
        make_optimizer: η ↦ optimizer.
        loss: loss(params, data) → scalar.
        batch_size: Examples per batch, or None.
        num_steps: Steps of each run.
        rates: The learning rates.
        params: θ at the start.
        opt_state: The state at the start; None for that of `init`.
        data: Data of the loss.

    Returns:
        The loss at the start, and at the end of each run.
    """

    def over_batches(function: Any) -> Any:
        return batch_mean(function, data, batch_size)

    def value_at(params: Any) -> Float[Array, ""]:
        return over_batches(lambda batch: loss(differentiated(params), batch))

    def run(rate: Float[Array, ""]) -> Float[Array, ""]:
        optimizer = as_transformation(make_optimizer(rate))
        start = strongly_typed(optimizer.init(params) if opt_state is None else opt_state)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            point = gradient_point(differentiated(params), state)
            value, grads = over_batches(lambda batch: jax.value_and_grad(loss)(point, batch))
            updates, new = call_update(
                optimizer, grads, state, params, value, lambda p: over_batches(lambda batch: loss(p, batch))
            )
            moved = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
            return (moved, keep_dtypes(new, state)), None

        (last, _), _ = lax.scan(step, (params, start), None, length=num_steps)
        return value_at(last)

    return value_at(params), jax.vmap(run)(rates)
