"""Short training runs with several learning rates, in one vectorised program."""

from functools import partial
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._programs import strongly_typed
from jaxopt_study.curvature import value_and_gradient
from jaxopt_study.dynamics._updates import as_transformation, call_update, differentiated, keep_dtypes
from jaxopt_study.transforms import gradient_point
from jaxopt_study.types import Params, Vector


def short_runs(
    make_optimizer: Any, curvature: Any, num_steps: int, rates: Float[Array, " runs"], params: Params, opt_state: Any
) -> tuple[Float[Array, ""], Float[Array, " runs"]]:
    """Train for a few steps with each of several learning rates, all from the same parameters and state.

    Args:
        make_optimizer: η ↦ optimizer.
        curvature: The Hessian of the loss over the data.
        num_steps: Steps of each run.
        rates: The learning rates.
        params: θ at the start.
        opt_state: The state at the start; None for that of `init`.

    Returns:
        The loss at the start, and at the end of each run. Data from a loader are read once for each step of all runs.
    """
    if not curvature.is_streamed:
        return _compiled(make_optimizer, curvature, num_steps, rates, params, opt_state)
    carries = _begun(make_optimizer, rates, params, opt_state)
    for _ in range(num_steps):
        points = _points(carries)
        found = curvature.mean_over_data(partial(_derivatives, points))
        carries = _moved(make_optimizer, curvature, rates, carries, *found)
    initial, losses = curvature.mean_over_data(lambda part: (_loss(part, params), _losses(part, carries[0])))
    return initial, losses


@partial(jax.jit, static_argnums=(0, 2))
def _compiled(
    make_optimizer: Any, curvature: Any, num_steps: int, rates: Float[Array, " runs"], params: Params, opt_state: Any
) -> tuple[Float[Array, ""], Float[Array, " runs"]]:
    def run(rate: Float[Array, ""]) -> Float[Array, ""]:
        def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
            found = value_and_gradient(curvature, gradient_point(differentiated(carry[0]), carry[1]))
            return _step(make_optimizer, curvature, rate, carry, *found), None

        last, _ = lax.scan(step, _start(make_optimizer, rate, params, opt_state), None, length=num_steps)
        return _loss(curvature, last[0])

    return _loss(curvature, params), jax.vmap(run)(rates)


_Carry = tuple[Any, Any]  # parameters and state


def _start(make_optimizer: Any, rate: Float[Array, ""], params: Params, opt_state: Any) -> _Carry:
    state = as_transformation(make_optimizer(rate)).init(params) if opt_state is None else opt_state
    return params, strongly_typed(state)


def _step(
    make_optimizer: Any, curvature: Any, rate: Float[Array, ""], carry: _Carry, value: Float[Array, ""], grads: Vector
) -> _Carry:
    (params, state), loss = carry, curvature.loss
    updates, new = call_update(
        as_transformation(make_optimizer(rate)), grads, state, params, value,
        lambda p: curvature.mean(lambda batch: loss(p, batch)),
    )  # fmt: skip
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates), keep_dtypes(new, state)


@partial(jax.jit, static_argnums=0)
def _begun(make_optimizer: Any, rates: Float[Array, " runs"], params: Params, opt_state: Any) -> _Carry:
    return jax.vmap(lambda rate: _start(make_optimizer, rate, params, opt_state))(rates)


@jax.jit
def _points(carries: _Carry) -> Params:
    return jax.vmap(lambda carry: gradient_point(differentiated(carry[0]), carry[1]))(carries)


@jax.jit
def _derivatives(points: Params, part: Any) -> tuple[Float[Array, " runs"], Vector]:
    return jax.vmap(partial(value_and_gradient, part))(points)


@partial(jax.jit, static_argnums=0)
def _moved(
    make_optimizer: Any, curvature: Any, rates: Float[Array, " runs"], carries: _Carry, values: Any, grads: Vector
) -> _Carry:
    return jax.vmap(partial(_step, make_optimizer, curvature))(rates, carries, values, grads)


@jax.jit
def _loss(curvature: Any, params: Params) -> Float[Array, ""]:
    return curvature.mean(lambda batch: curvature.loss(differentiated(params), batch))


@jax.jit
def _losses(curvature: Any, params: Params) -> Float[Array, " runs"]:
    return jax.vmap(partial(_loss, curvature))(params)
