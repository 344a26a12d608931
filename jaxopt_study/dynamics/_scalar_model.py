"""Companion matrices of a training step: its linearisation on one coordinate of curvature λ."""

from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float64, Int, Shaped

from jaxopt_study._programs import jit_for_few_calls, strongly_typed
from jaxopt_study.dynamics._coordinatewise import check_coordinatewise
from jaxopt_study.dynamics._neutral_step import StepSensitivity, neutral_step
from jaxopt_study.dynamics._state_roles import Role, leaf_paths, leaf_roles
from jaxopt_study.dynamics._states import named_leaves, restore_structure
from jaxopt_study.dynamics._static_shapes import Shapes, shapes_of
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

_LONG = 1000  # steps after which products of momenta have converged
_SEVERAL = (3, 2)  # shape of a leaf for parameters that are not given
_LATE = 2**30  # a step at which every bias correction is 1


class CompanionMatrices(NamedTuple):
    """Linearised steps of a period for one coordinate, (θ, m) ↦ (M₀ + λ M₁)(θ, m) with momentum buffers m."""

    constants: Float64[np.ndarray, "p d d"]  # M₀ of each step
    slopes: Float64[np.ndarray, "p d d"]  # M₁ of each step
    sensitivity: float  # ∂θ′/∂g of the first step
    moves: bool  # whether gradient and momentum buffers move the coordinate in the first step


def companion_matrices(
    name: str, optimizer: Any, opt_state: Any, params: Any, steps: int | None = None
) -> list[CompanionMatrices]:
    """Return the companion matrices of one coordinate of every parameter, with every second-moment buffer at 1.

    The optimizer is run on parameters of the same structure, each with a single coordinate, in double precision. The
    step counters are those of `opt_state`, or of a late step. Second-moment buffers are 1 before and after the step,
    which defines the unit of λ; mean buffers are 0.

    The update on whole leaves is checked to act on every coordinate like that on a single one.

    Args:
        name: The function that was called, for the messages.
        optimizer: Any Optax transformation.
        opt_state: A state, for its step counters; None for the limit of many steps.
        params: The parameters; only structure and shapes are used. None for one scalar.
        steps: Steps of a period, as `num_steps` of `stability_threshold`.

    Returns:
        The matrices of one coordinate, for every leaf of the parameters in order.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the update mixes parameters at zero gradient or is not finite there, if it is not elementwise on
            whole leaves, or `opt_state` belongs to another optimizer.
    """
    optimizer = as_transformation(optimizer, name)
    refuse_holder(name, opt_state)
    if params is not None:
        check_shapes(name, params)
    if params is not None and opt_state is not None:
        opt_state = restore_structure(name, opt_state, check_runs(name, optimizer, params))
    with jax.enable_x64(True):
        one = one_coordinate(name, optimizer, params)
        steps = period(name, optimizer, one, opt_state, steps)
        roles = _roles(optimizer, one, params, steps)
        linearised = partial(_sensitivity, optimizer, Shapes(shapes_of(one)), roles)

        def period_from(state: Any) -> tuple[list[Any], list[StepSensitivity]]:
            states, steps_of_period = [], []
            for _ in range(steps):
                states.append(state)
                one_step, state = linearised(state)
                steps_of_period.append(jax.tree.map(np.asarray, one_step))
            return states, steps_of_period

        if opt_state is None:
            late, other = _late_states(optimizer, one, roles, steps)
            states, sensitivities = period_from(late)
            _check_settled(name, sensitivities, period_from(other)[1])
        else:
            states, sensitivities = period_from(_with_counters(name, optimizer, one, roles, opt_state))
        if not all(np.isfinite(matrix).all() for step in sensitivities for matrix in step):
            raise ValueError(
                f"{name}: the update is not finite at zero gradient and parameters, as where it divides by their norm, "
                "so there is no threshold curvature. Use `stability`, which linearises at the actual parameters."
            )
        check_coordinatewise(name, optimizer, one, params, states, roles, sensitivities)
        return _split(name, len(jax.tree.leaves(differentiated(one))), sensitivities)


@partial(jit_for_few_calls, static_argnums=(0, 1, 2))
def _sensitivity(optimizer: Any, one: Shapes, roles: tuple[Role, ...], state: Any) -> tuple[StepSensitivity, Any]:
    return neutral_step(optimizer, one.tree, state, roles).sensitivity()


def one_coordinate(name: str, optimizer: Any, params: Any) -> Any:
    """Return parameters of the same structure in double precision, each with a single coordinate.

    Args:
        name: The function that was called, for the messages.
        optimizer: An Optax transformation.
        params: The parameters; None for one scalar, or a pair of scalars for `optax.lookahead`.

    Returns:
        Zeros.

    Raises:
        ValueError: If the optimizer cannot take a step on them.
    """
    one = jax.tree.map(lambda leaf: jnp.zeros((1,) * jnp.ndim(leaf), jnp.float64), 0.0 if params is None else params)
    if params is not None:
        check_runs(name, optimizer, one, remedy="Use `stability`, which linearises at the actual parameters.")
        return one
    pair = optax.LookaheadParams(one, one)
    with suppress(Exception):  # any error of a transformation for other parameters
        if holds_lookahead(jax.eval_shape(optimizer.init, pair)):
            return pair
    check_runs(
        name,
        optimizer,
        one,
        remedy="Pass params=…, the parameters of the run; the default is a single number.",
    )
    return one


def _roles(optimizer: Any, one: Any, params: Any, steps: int) -> tuple[Role, ...]:
    """Return the roles of the leaves of a state, from parameters with several coordinates where possible.

    On a single coordinate a norm would be a magnitude, and a projection a constant sign.
    """
    several = jax.tree.map(
        lambda x: jnp.zeros(_SEVERAL if params is None else [min(n, 3) for n in jnp.shape(x)], jnp.float64),
        one if params is None else params,
    )
    with suppress(Exception):  # any error of a transformation for other shapes
        if jax.tree.structure(jax.eval_shape(optimizer.init, several)) == jax.tree.structure(
            jax.eval_shape(optimizer.init, one)
        ):
            return leaf_roles(optimizer, several, steps)
    return leaf_roles(optimizer, one, steps)


def _late_states(optimizer: Any, params: Any, roles: tuple[Role, ...], steps: int) -> tuple[Any, Any]:
    """Return two states with step counters at different late steps, after different runs."""

    def step(alternate: Bool[Array, ""], state: Any, t: Int[Array, ""]) -> tuple[Any, None]:
        sign = jnp.where(alternate & (t % 2 == 1), -1.0, 1.0)
        grads = jax.tree.map(lambda p: sign * jnp.ones_like(p), differentiated(params))
        # Always decreasing, so that no rule waits for an improvement.
        value = jnp.where(alternate, -jnp.float64(t), 1 / (1 + jnp.float64(t)))
        # With a constant gradient the parameters move away, and an estimated learning rate increases.
        moved = jax.tree.map(lambda p: p - jnp.where(alternate, 0.0, 1e-3 * jnp.float64(t)), params)
        _, new = call_update(optimizer, grads, state, moved, value, lambda p: value)
        return keep_dtypes(new, state), None

    @jax.jit
    def run(alternate: Bool[Array, ""]) -> Any:
        start = strongly_typed(optimizer.init(params))
        # Whole periods: periodic counters are at their start, and the others at the number of steps.
        return lax.scan(partial(step, alternate), start, jnp.arange(_LONG * steps))[0]

    def later(leaf: Shaped[Array, "*shape"], role: Role, late: int) -> Shaped[Array, "*shape"]:
        counts = role == "clock" and jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.ndim == 0
        # Inside an accumulation a counter increases once in several steps.
        if counts and int(leaf) >= _LONG and _LONG * steps % int(leaf) == 0:
            return jnp.asarray(min(late, jnp.iinfo(leaf.dtype).max - 1), leaf.dtype)
        return leaf

    def late(alternate: bool, at: int) -> Any:
        with jax.disable_jit(False):  # thousands of steps on a single number
            leaves, structure = jax.tree.flatten(run(jnp.bool_(alternate)))
        return structure.unflatten([later(leaf, role, at) for leaf, role in zip(leaves, roles, strict=True)])

    return late(True, _LATE), late(False, _LATE // 4)


def _check_settled(name: str, late: list[StepSensitivity], others: list[StepSensitivity]) -> None:
    """Raise ValueError unless late steps agree and are independent of the run before them."""
    for one, other in zip(late, others, strict=True):
        for a, b in zip(one, other, strict=True):
            if not np.allclose(a, b, rtol=1e-6, atol=0, equal_nan=True):
                raise ValueError(
                    f"{name}: without opt_state, the update must approach a limit after many steps; this optimizer's "
                    "update keeps changing with its step counter, as with a schedule without end, or with the "
                    "gradients seen, as with an estimated learning rate. Pass opt_state."
                )


def _with_counters(name: str, optimizer: Any, params: Any, roles: tuple[Role, ...], opt_state: Any) -> Any:
    """Return a state for one coordinate with the step counters of another state of the same optimizer."""
    state = strongly_typed(optimizer.init(params))
    leaves, structure = jax.tree.flatten(state)
    given = named_leaves(opt_state)
    for i, (path, names, role) in enumerate(zip(leaf_paths(state), named_leaves(state), roles, strict=True)):
        if role != "clock" or leaves[i].ndim != 0:
            continue
        if names not in given or jnp.shape(given[names]) != ():
            raise ValueError(
                f"{name}: opt_state does not match this optimizer: expected a scalar at {path or 'its root'}; received "
                f"{f'shape {jnp.shape(given[names])}' if names in given else 'nothing there'}. Pass the state that "
                "this optimizer's init or update returned, and params if the state depends on their structure."
            )
        value = given[names]
        leaves[i] = value if _is_key(leaves[i]) else jnp.asarray(np.asarray(value), leaves[i].dtype)
    return structure.unflatten(leaves)


def _split(name: str, num_params: int, steps: list[StepSensitivity]) -> list[CompanionMatrices]:
    """Return the block of every parameter in the Jacobians of all coordinates."""
    constants = np.stack([step.constant for step in steps])
    slopes = np.stack([step.to_gradient @ step.to_point for step in steps])
    sensitivity, moves = steps[0].to_gradient, steps[0].moves
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
                f"{name}: the update mixes parameters even at zero gradient, so there is no threshold curvature. Use "
                "`stability`."
            )
        columns = np.flatnonzero(members)
        rows = columns[:, None]
        blocks.append(
            CompanionMatrices(
                constants[:, rows, columns], slopes[:, rows, columns], float(sensitivity[i, i]), bool(moves[i])
            )
        )
    return blocks


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
