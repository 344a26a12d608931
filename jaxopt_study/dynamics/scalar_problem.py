"""The training step on one coordinate of curvature λ, as a small matrix derived from the optimizer itself."""

from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxopt_study.dynamics.freezing import holding
from jaxopt_study.dynamics.periods import period
from jaxopt_study.dynamics.roles import Role, leaf_paths, leaf_roles
from jaxopt_study.dynamics.updates import (
    as_transformation,
    call_update,
    differentiated,
    holds_lookahead,
    keep_dtypes,
)
from jaxopt_study.programs import strongly_typed
from jaxopt_study.transforms import gradient_point

_LONG = 1000  # steps after which a product of momenta has reached its limit
_LATE = 2**30  # a step so late that every bias correction is 1


class Recursion(NamedTuple):
    """One coordinate's linearised steps of a period: (θ, memories) ↦ (M₀ + λ M₁)(θ, memories), in double precision."""

    constants: np.ndarray  # M₀ of each step, (p, d, d)
    slopes: np.ndarray  # M₁ of each step, (p, d, d)
    gain: float  # ∂θ′/∂g of the first step


def recursions(optimizer: Any, opt_state: Any, params: Any, steps: int | None = None) -> list[Recursion]:
    """Return the recursion of one coordinate of every parameter, with every statistic at 1.

    The optimizer is run on parameters of the same structure, each with a single coordinate, in double precision. The
    clocks of its state are those of `opt_state`, or of a run long past its start. Statistics are 1 before and after the
    step: that fixes the unit in which λ is measured. One that is odd in the gradient (a mean that only serves a
    variance) is 0.

    Args:
        optimizer: Any Optax transformation.
        opt_state: A state of it, for the clocks; None for the limit of many steps.
        params: The parameters; only structure and ranks are used. None for one scalar.
        steps: Steps in a period, as `num_steps` of `stability_threshold`.

    Returns:
        For every leaf of the parameters, in order, the recursion of one of its coordinates.

    Raises:
        TypeError: If the optimizer is none, or `steps` no integer.
        ValueError: If the update mixes parameters even at zero gradient or is not finite there, or `opt_state` is of
            another optimizer.
    """
    optimizer = as_transformation(optimizer)
    with jax.enable_x64(True):
        one = one_coordinate(optimizer, params)
        steps = period("stability_threshold", optimizer, one, opt_state, steps)
        roles = leaf_roles(optimizer, one, steps)
        state = (
            _late_state(optimizer, one, roles, steps)
            if opt_state is None
            else _with_clocks(optimizer, one, roles, opt_state)
        )
        linearised = jax.jit(lambda state: _matrices(optimizer, one, state, roles))
        found = []
        for _ in range(steps):
            matrices, state = linearised(state)
            found.append(matrices)
        constants, slopes, gains = (np.stack(matrices) for matrices in zip(*found, strict=True))
        if not all(np.isfinite(matrices).all() for matrices in (constants, slopes, gains)):
            raise ValueError(
                "stability_threshold: the update is not finite where gradient and parameters are 0, as where it "
                "divides by their size, so no single curvature decides its stability. Use `stability`, which "
                "linearises at the parameters themselves."
            )
        return _split(len(jax.tree.leaves(differentiated(one))), constants, slopes, gains[0])


def one_coordinate(optimizer: Any, params: Any) -> Any:
    """Return parameters of the same structure in double precision, each with a single coordinate.

    Args:
        optimizer: An Optax transformation.
        params: The parameters; None for one scalar, or for the pair of them that `optax.lookahead` takes.

    Returns:
        Zeros.

    Raises:
        ValueError: If a scalar will not do for the optimizer.
    """
    one = jax.tree.map(lambda leaf: jnp.zeros((1,) * jnp.ndim(leaf), jnp.float64), 0.0 if params is None else params)
    if params is not None:
        return one
    pair = optax.LookaheadParams(one, one)
    with suppress(Exception):  # whatever a transformation raises that was not made for pairs
        if holds_lookahead(jax.eval_shape(optimizer.init, pair)):
            return pair
    try:
        jax.eval_shape(optimizer.init, one)
    except Exception as error:
        raise ValueError(
            "The optimizer cannot be initialised for a single number, as where masks or groups name parameters. Pass "
            "params=…, the parameters that the state was made with."
        ) from error
    return one


def _late_state(optimizer: Any, params: Any, roles: tuple[Role, ...], steps: int) -> Any:
    """Return a state in which every step counter stands at a late step."""

    def step(state: Any, t: Any) -> tuple[Any, None]:
        grads = jax.tree.map(
            lambda p: jnp.where(t % 2 == 0, jnp.ones_like(p), -jnp.ones_like(p)), differentiated(params)
        )
        _, new = call_update(optimizer, grads, state, params, jnp.float64(1.0), lambda p: jnp.float64(1.0))
        return keep_dtypes(new, state), None

    def run() -> Any:
        start = strongly_typed(optimizer.init(params))
        # Of whole periods, so that what starts anew stands at its start, and what does not shows how far it got.
        return lax.scan(step, start, jnp.arange(_LONG * steps))[0]

    leaves, structure = jax.tree.flatten(jax.jit(run)())

    def later(leaf: Any, role: Role) -> Any:
        counts = role == "clock" and jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.ndim == 0
        # Inside an accumulation a counter counts one of several steps.
        if counts and int(leaf) >= _LONG and _LONG * steps % int(leaf) == 0:
            return jnp.asarray(min(_LATE, jnp.iinfo(leaf.dtype).max - 1), leaf.dtype)
        return leaf

    return structure.unflatten([later(leaf, role) for leaf, role in zip(leaves, roles, strict=True)])


def _with_clocks(optimizer: Any, params: Any, roles: tuple[Role, ...], opt_state: Any) -> Any:
    """Return a state for one coordinate with the clocks of another state of the same optimizer."""
    leaves, structure = jax.tree.flatten(strongly_typed(optimizer.init(params)))
    given = dict(zip(leaf_paths(opt_state), jax.tree.leaves(opt_state), strict=True))
    paths = leaf_paths(jax.tree.unflatten(structure, leaves))
    for i, (path, role) in enumerate(zip(paths, roles, strict=True)):
        if role != "clock" or leaves[i].ndim != 0:
            continue
        if path not in given or jnp.shape(given[path]) != ():
            raise ValueError(
                f"stability_threshold: the state has no {path or 'value'}, which this optimizer keeps. Pass the state "
                "that was initialised with it, and the parameters if the state depends on their structure."
            )
        leaves[i] = given[path] if _is_key(leaves[i]) else jnp.asarray(np.asarray(given[path]), leaves[i].dtype)
    return structure.unflatten(leaves)


def _matrices(optimizer: Any, params: Any, state: Any, roles: tuple[Role, ...]) -> tuple[tuple[Any, Any, Any], Any]:
    """Return the Jacobian of all coordinates at λ = 0, its derivative in λ, and the gains; and the next state."""
    leaves, structure = jax.tree.flatten(state)
    memory = [jnp.zeros_like(leaf) for leaf, role in zip(leaves, roles, strict=True) if role == "memory"]

    def neutral(leaf: Any, role: Role) -> Any:
        return jnp.zeros_like(leaf) if role == "centre" else jnp.ones_like(leaf)

    frozen = [role in {"statistic", "centre"} for role in roles]
    fixed = [
        neutral(leaf, role) if is_frozen else leaf for leaf, role, is_frozen in zip(leaves, roles, frozen, strict=True)
    ]
    holds = [None] * len(jax.tree.leaves(params)) + [
        partial(neutral, role=role) if is_frozen else None for role, is_frozen in zip(roles, frozen, strict=True)
    ]

    def state_with(memory: list[Any]) -> Any:
        given = iter(memory)
        return structure.unflatten(
            [next(given) if role == "memory" else leaf for leaf, role in zip(fixed, roles, strict=True)]
        )

    def update(grads: Any, params: Any, memory: list[Any]) -> tuple[Any, Any]:
        updates, new = call_update(
            optimizer, grads, state_with(memory), params, jnp.float64(0.0), lambda p: jnp.float64(0.0)
        )
        return optax.apply_updates(params, updates), new

    def step(grads: Any, params: Any, memory: list[Any]) -> tuple[Any, list[Any]]:
        params, new = holding(update, holds)(grads, params, memory)
        return params, [leaf for leaf, role in zip(jax.tree.leaves(new), roles, strict=True) if role == "memory"]

    start, restore = ravel_pytree((params, memory))

    def along(curvature: float) -> Any:
        def moved(z: Any) -> Any:
            theta, m = restore(z)
            point = gradient_point(differentiated(theta), state_with(m))
            return ravel_pytree(step(jax.tree.map(lambda p: curvature * p, point), theta, m))[0]

        return jax.jacfwd(moved)(start)

    zero, one = along(0.0), along(1.0)
    flat_grads, restore_grads = ravel_pytree(differentiated(params))

    def moved_by(g: Any) -> Any:
        return ravel_pytree(differentiated(step(restore_grads(g), params, memory)[0]))[0]

    gains = jax.jacfwd(moved_by)(flat_grads)
    _, later = update(jax.tree.map(jnp.zeros_like, differentiated(params)), params, memory)
    return (zero, one - zero, gains), keep_dtypes(later, state)


def _split(num_params: int, constants: np.ndarray, slopes: np.ndarray, gains: np.ndarray) -> list[Recursion]:
    """Return one block of the Jacobian of all coordinates for every parameter."""
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
                "stability_threshold: the update mixes parameters even at zero gradient, so no single curvature "
                "decides its stability. Use `stability`, which needs no threshold."
            )
        chosen = np.flatnonzero(members)
        rows, columns = chosen[:, None], chosen
        blocks.append(Recursion(constants[:, rows, columns], slopes[:, rows, columns], float(gains[i, i])))
    return blocks


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
