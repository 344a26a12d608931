"""Cheap checks at every step, of moving parameters and of finite numbers."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, Integer, PyTree, Shaped

from jaxopt_study._programs import wider
from jaxopt_study.dynamics import differentiated
from jaxopt_study.training._run_spec import Motion
from jaxopt_study.types import Params

_COORDINATES = 64  # per leaf; comparing all coordinates would take a pass over memory, a third of a small step


def at_rest(params: Params, sharded: bool) -> Motion:
    """Return the `Motion` at the start of a run."""
    return Motion(
        glimpse=_glimpse(differentiated(params), sharded),
        pushed=jnp.bool_(False),
        last_moved=jnp.int32(0),
        longest_rest=jnp.int32(0),
    )


def moved(
    motion: Motion,
    params: Params,
    grads: Params,
    num_steps: Integer[Array, ""],
    applied: Bool[Array, ""],
    sharded: bool,
) -> Motion:
    """Return the `Motion` after a step.

    Args:
        motion: The motion before the step.
        params: The parameters after the step.
        grads: The gradient of the step.
        num_steps: Number of steps applied, including this one.
        applied: Whether the step was applied.
        sharded: Whether the parameters are spread over devices.

    Returns:
        The motion. A run is at rest as long as the compared coordinates keep their values bit by bit.
    """
    glimpse = _glimpse(differentiated(params), sharded)
    moves = _any(jax.tree.map(lambda x, y: (x != y).any(), glimpse, motion.glimpse))
    pushed = _any(jax.tree.map(lambda x: (x != 0).any(), _glimpse(grads, sharded)))
    rest = num_steps - 1 - motion.last_moved
    return Motion(
        glimpse=glimpse,
        pushed=jnp.where(applied, pushed, motion.pushed),
        last_moved=jnp.where(moves, num_steps, motion.last_moved).astype(jnp.int32),
        longest_rest=jnp.where(moves, jnp.maximum(motion.longest_rest, rest), motion.longest_rest).astype(jnp.int32),
    )


def stalled(motion: Motion, num_steps: Integer[Array, ""]) -> Bool[Array, ""]:
    """Return whether the run has stopped moving although its gradient is not 0.

    This is the case if the parameters have not changed for at least a tenth of the steps, and for longer than the
    longest rest between two changes, which allows for an optimizer that updates every k steps.
    """
    rest = num_steps - motion.last_moved
    return motion.pushed & (10 * rest >= num_steps) & (rest > motion.longest_rest) & (rest > 0)


def still_finite(tree: PyTree, sharded: bool) -> Bool[Array, ""]:
    """Return whether all numbers are finite, from the sum of their squares if it does not overflow."""

    def squares(leaf: Inexact[Array, "..."]) -> Inexact[Array, ""]:
        wide = leaf.astype(wider(leaf.dtype, jnp.float32))
        return jnp.sum(jnp.square(wide)) if sharded else jnp.vdot(wide, wide)

    leaves = [jax.lax.stop_gradient(leaf) for leaf in jax.tree.leaves(tree) if leaf.size]
    if not leaves:
        return jnp.bool_(True)
    return _or_looked_at(jnp.stack([jnp.isfinite(squares(leaf)) for leaf in leaves]).all(), leaves)


@jax.custom_batching.custom_vmap
def _or_looked_at(finite: Bool[Array, ""], leaves: list[Inexact[Array, "..."]]) -> Bool[Array, ""]:
    """Return whether all numbers are finite, looking at them only if this is not known yet."""
    return jax.lax.cond(finite, lambda leaves: jnp.bool_(True), _looked_at, leaves)


@_or_looked_at.def_vmap
def _some_looked_at(
    size: int, batched: Any, finite: Bool[Array, "..."], leaves: Any
) -> tuple[Bool[Array, " runs"], bool]:
    # Under vmap a branch for each run would become a select, for which every run looks: one branch for all of them.
    looked_at = jax.vmap(_looked_at, in_axes=([0 if each else None for each in batched[1]],), axis_size=size)
    known = lambda leaves: jnp.ones(size, bool)
    return jax.lax.cond(jnp.all(finite), known, looked_at, leaves), True


def _looked_at(leaves: list[Inexact[Array, "..."]]) -> Bool[Array, ""]:
    return ~_any([(~jnp.isfinite(leaf)).any() for leaf in leaves])


def _glimpse(tree: PyTree, sharded: bool) -> list[Shaped[Array, " few"]]:
    return [_few(leaf, sharded) for leaf in jax.tree.leaves(tree) if leaf.size]


def _few(leaf: Shaped[Array, "..."], sharded: bool) -> Shaped[Array, " few"]:
    if sharded:  # a slice would move data between devices
        return jnp.stack([jnp.sum(leaf), jnp.max(leaf), jnp.min(leaf)])
    flat = jnp.reshape(leaf, -1)
    stride = -(-flat.size // _COORDINATES)
    return flat[::stride]


def _any(flags: PyTree) -> Bool[Array, ""]:
    return jax.tree.reduce(jnp.logical_or, flags, jnp.bool_(False))
