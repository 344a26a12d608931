"""The training step on one coordinate of curvature λ, as a small matrix derived from the optimizer itself."""

from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxopt_study._programs import strongly_typed
from jaxopt_study.dynamics._coordinatewise import check_coordinatewise
from jaxopt_study.dynamics._neutral_step import Response, neutral_step
from jaxopt_study.dynamics._state_roles import Role, leaf_paths, leaf_roles
from jaxopt_study.dynamics._states import named_leaves, seated
from jaxopt_study.dynamics._step_period import period
from jaxopt_study.dynamics._updates import (
    as_transformation,
    call_update,
    check_runs,
    check_shapes,
    differentiated,
    holds_lookahead,
    keep_dtypes,
)
from jaxopt_study.transforms import refuse_holder

_LONG = 1000  # steps after which a product of momenta has reached its limit
_SEVERAL = (3, 2)  # what stands for leaves of which nothing is known
_LATE = 2**30  # a step so late that every bias correction is 1


class Recursion(NamedTuple):
    """One coordinate's linearised steps of a period: (θ, memories) ↦ (M₀ + λ M₁)(θ, memories), in double precision."""

    constants: np.ndarray  # M₀ of each step, (p, d, d)
    slopes: np.ndarray  # M₁ of each step, (p, d, d)
    preconditioner: float  # ∂θ′/∂g of the first step
    moves: bool  # whether any gradient and memories move the coordinate in the first step


def recursions(name: str, optimizer: Any, opt_state: Any, params: Any, steps: int | None = None) -> list[Recursion]:
    """Return the recursion of one coordinate of every parameter, with every statistic at 1.

    The optimizer is run on parameters of the same structure, each with a single coordinate, in double precision. The
    clocks of its state are those of `opt_state`, or of a run long past its start. Statistics are 1 before and after the
    step: that fixes the unit in which λ is measured. One that is odd in the gradient (a mean that only serves a
    variance) is 0.

    That this says anything of a run is checked: on whole leaves every coordinate must answer as the single one does.

    Args:
        name: The function that was called, for the messages.
        optimizer: Any Optax transformation.
        opt_state: A state of it, for the clocks; None for the limit of many steps.
        params: The parameters; only their structure and shapes are used. None for one scalar.
        steps: Steps in a period, as `num_steps` of `stability_threshold`.

    Returns:
        For every leaf of the parameters, in order, the recursion of one of its coordinates.

    Raises:
        TypeError: If the optimizer is none, or `steps` no integer.
        ValueError: If the update mixes parameters even at zero gradient or is not finite there, if on a leaf it is not
            that of a single number in every coordinate, or `opt_state` is of another optimizer.
    """
    optimizer = as_transformation(optimizer, name)
    refuse_holder(name, opt_state)
    if params is not None:
        check_shapes(name, params)
    if params is not None and opt_state is not None:
        opt_state = seated(name, opt_state, check_runs(name, optimizer, params))
    with jax.enable_x64(True):
        one = one_coordinate(name, optimizer, params)
        steps = period(name, optimizer, one, opt_state, steps)
        roles = _roles(optimizer, one, params, steps)
        linearised = jax.jit(lambda state: neutral_step(optimizer, one, state, roles).response())

        def period_from(state: Any) -> tuple[list[Any], list[Response]]:
            states, found = [], []
            for _ in range(steps):
                states.append(state)
                response, state = linearised(state)
                found.append(jax.tree.map(np.asarray, response))
            return states, found

        if opt_state is None:
            late, other = _late_states(optimizer, one, roles, steps)
            states, found = period_from(late)
            _check_settled(name, found, period_from(other)[1])
        else:
            states, found = period_from(_with_clocks(name, optimizer, one, roles, opt_state))
        if not all(np.isfinite(matrix).all() for response in found for matrix in response):
            raise ValueError(
                f"{name}: the update is not finite where gradient and parameters are 0, as where it divides by their "
                "size, so no single curvature decides its stability. Use `stability`, which linearises at the "
                "parameters themselves."
            )
        check_coordinatewise(name, optimizer, one, params, states, roles, found)
        return _split(name, len(jax.tree.leaves(differentiated(one))), found)


def one_coordinate(name: str, optimizer: Any, params: Any) -> Any:
    """Return parameters of the same structure in double precision, each with a single coordinate.

    Args:
        name: The function that was called, for the messages.
        optimizer: An Optax transformation.
        params: The parameters; None for one scalar, or for the pair of them that `optax.lookahead` takes.

    Returns:
        Zeros.

    Raises:
        ValueError: If a scalar will not do for the optimizer.
    """
    one = jax.tree.map(lambda leaf: jnp.zeros((1,) * jnp.ndim(leaf), jnp.float64), 0.0 if params is None else params)
    if params is not None:
        check_runs(name, optimizer, one, remedy="Use `stability`, which takes the parameters as they are.")
        return one
    pair = optax.LookaheadParams(one, one)
    with suppress(Exception):  # whatever a transformation raises that was not made for pairs
        if holds_lookahead(jax.eval_shape(optimizer.init, pair)):
            return pair
    check_runs(
        name,
        optimizer,
        one,
        remedy="Pass params=…, the parameters of the run: a single number stands for them otherwise.",
    )
    return one


def _roles(optimizer: Any, one: Any, params: Any, steps: int) -> tuple[Role, ...]:
    """Return the roles of the leaves of a state, from leaves of several coordinates where that is possible.

    On a single coordinate a norm is a magnitude and a projection is a sign, which no gradient changes.
    """
    several = jax.tree.map(
        lambda x: jnp.zeros(_SEVERAL if params is None else [min(n, 3) for n in jnp.shape(x)], jnp.float64),
        one if params is None else params,
    )
    with suppress(Exception):  # whatever a transformation raises that cannot take these shapes
        if jax.tree.structure(jax.eval_shape(optimizer.init, several)) == jax.tree.structure(
            jax.eval_shape(optimizer.init, one)
        ):
            return leaf_roles(optimizer, several, steps)
    return leaf_roles(optimizer, one, steps)


def _late_states(optimizer: Any, params: Any, roles: tuple[Role, ...], steps: int) -> tuple[Any, Any]:
    """Return two states in which step counters stand at different late steps, after different runs."""

    def step(alternate: Any, state: Any, t: Any) -> tuple[Any, None]:
        sign = jnp.where(alternate & (t % 2 == 1), -1.0, 1.0)
        grads = jax.tree.map(lambda p: sign * jnp.ones_like(p), differentiated(params))
        # Always better, so that nothing gives up waiting for it.
        value = jnp.where(alternate, -jnp.float64(t), 1 / (1 + jnp.float64(t)))
        # Along one gradient all the time the parameters move away, and an estimated learning rate grows.
        moved = jax.tree.map(lambda p: p - jnp.where(alternate, 0.0, 1e-3 * jnp.float64(t)), params)
        _, new = call_update(optimizer, grads, state, moved, value, lambda p: value)
        return keep_dtypes(new, state), None

    @jax.jit
    def run(alternate: Any) -> Any:
        start = strongly_typed(optimizer.init(params))
        # Of whole periods, so that what starts anew stands at its start, and what does not shows how far it got.
        return lax.scan(partial(step, alternate), start, jnp.arange(_LONG * steps))[0]

    def later(leaf: Any, role: Role, late: int) -> Any:
        counts = role == "clock" and jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.ndim == 0
        # Inside an accumulation a counter counts one of several steps.
        if counts and int(leaf) >= _LONG and _LONG * steps % int(leaf) == 0:
            return jnp.asarray(min(late, jnp.iinfo(leaf.dtype).max - 1), leaf.dtype)
        return leaf

    def late(alternate: bool, at: int) -> Any:
        with jax.disable_jit(False):  # thousands of steps on a single number
            leaves, structure = jax.tree.flatten(run(alternate))
        return structure.unflatten([later(leaf, role, at) for leaf, role in zip(leaves, roles, strict=True)])

    return late(True, _LATE), late(False, _LATE // 4)


def _check_settled(name: str, late: list[Response], others: list[Response]) -> None:
    """Raise ValueError if the step still changes when it is late, or depends on the run before it."""
    for one, other in zip(late, others, strict=True):
        for a, b in zip(one, other, strict=True):
            if not np.allclose(a, b, rtol=1e-6, atol=0, equal_nan=True):
                raise ValueError(
                    f"{name}: there is no limit of many steps, because however late it is the step depends on its "
                    "counter, as with a schedule that never ends, or on the gradients and losses of the run, as an "
                    "estimated learning rate does. Pass the optimizer's state."
                )


def _with_clocks(name: str, optimizer: Any, params: Any, roles: tuple[Role, ...], opt_state: Any) -> Any:
    """Return a state for one coordinate with the clocks of another state of the same optimizer."""
    state = strongly_typed(optimizer.init(params))
    leaves, structure = jax.tree.flatten(state)
    given = named_leaves(opt_state)
    for i, (path, names, role) in enumerate(zip(leaf_paths(state), named_leaves(state), roles, strict=True)):
        if role != "clock" or leaves[i].ndim != 0:
            continue
        if names not in given or jnp.shape(given[names]) != ():
            raise ValueError(
                f"{name}: the state has no {path or 'value'}, which this optimizer keeps. Pass the state that was "
                "initialised with it, and the parameters if the state depends on their structure."
            )
        value = given[names]
        leaves[i] = value if _is_key(leaves[i]) else jnp.asarray(np.asarray(value), leaves[i].dtype)
    return structure.unflatten(leaves)


def _split(name: str, num_params: int, found: list[Response]) -> list[Recursion]:
    """Return one block of the response of all coordinates for every parameter."""
    constants = np.stack([response.constant for response in found])
    slopes = np.stack([response.to_gradient @ response.to_point for response in found])
    gains, moves = found[0].to_gradient, found[0].moves
    size = constants.shape[-1]
    linked = ((constants != 0) | (slopes != 0)).any(axis=0) | np.eye(size, dtype=bool)
    linked = linked | linked.T
    blocks = []
    for i in range(num_params):
        members = np.zeros(size, dtype=bool)
        members[i] = True
        while True:
            grown = linked[members].any(axis=0)
            if (grown == members).all():
                break
            members = grown
        if members[:num_params].sum() > 1:
            raise ValueError(
                f"{name}: the update mixes parameters even at zero gradient, so no single curvature decides its "
                "stability. Use `stability`, which needs no threshold."
            )
        chosen = np.flatnonzero(members)
        rows, columns = chosen[:, None], chosen
        blocks.append(
            Recursion(constants[:, rows, columns], slopes[:, rows, columns], float(gains[i, i]), bool(moves[i]))
        )
    return blocks


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
