"""Thick-restart Lanczos as a machine that asks for one product after the other."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxopt_study.linalg import block_lanczos as lanczos
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.block_lanczos import Space
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.types import Vector

Which = Literal["LA", "SA", "BE", "LM"]
_MAX_FAILED_CHECKS = 3  # a residual that the projected problem does not explain is the operator's own noise


@dataclass(frozen=True)
class Plan:
    """What is fixed before a solve is compiled."""

    layout: Layout
    k: int
    which: Which
    num_basis: int
    block_size: int
    every: int  # products between two looks at the projected problem

    @property
    def room(self) -> int:
        """Rows of the basis: those to be multiplied and the pending block."""
        return self.num_basis + self.block_size

    @property
    def keep(self) -> int:
        """Ritz vectors that survive a restart."""
        return max(self.k, min(self.k + (self.num_basis - self.k) // 2, self.num_basis - self.block_size))

    @property
    def check_cost(self) -> int:
        """Products that the check of k residuals takes."""
        return -(-self.k // self.block_size) * self.block_size


class Limits(NamedTuple):
    """What may change without compiling again."""

    tol: Array
    breakdown: Array
    max_matvecs: Array


class State(NamedTuple):
    """Where a solve is: it grows the space, or multiplies the Ritz vectors in its first rows to check them."""

    space: Space
    asked: Vector  # the block to be multiplied next; a late read of the basis would make the compiler copy all of it
    checking: Array
    checked: Array  # how many Ritz vectors are checked
    values: Array  # (k,) those under check, and the answer
    residuals: Array  # (check_cost,) true ones
    extent: Array  # largest |θ| found: the scale of all tolerances
    strictness: Array  # by how much the estimate has to be better than asked for, after checks that failed
    failed_checks: Array
    num_matvecs: Array
    since_look: Array
    since_restart: Array  # products since a random direction was put in
    longest: Array  # the longest such stretch that ended in an invariant space; 0 before the first
    found: Array  # (k,) wanted values when the last random direction was put in
    before: Array  # (k,) wanted values at the last look
    done: Array


def initial(plan: Plan, block: Vector, seed: Array) -> State:
    """Return the state before the first product, from a block of starting vectors."""
    dtype = plan.layout.scalar
    zero, none = jnp.zeros((), dtype), jnp.int32(0)
    space = lanczos.begin(plan.layout, block, plan.room, seed)
    return State(
        space=space,
        asked=lanczos.pending(space, plan.block_size),
        checking=jnp.bool(False),
        checked=none,
        values=jnp.full(plan.k, jnp.nan, dtype),
        residuals=vectors.filled(jnp.nan, (plan.check_cost,), dtype, plan.layout.like),
        extent=zero,
        strictness=jnp.ones((), dtype),
        failed_checks=none,
        num_matvecs=none,
        since_look=none,
        since_restart=none,
        longest=none,
        found=jnp.full(plan.k, jnp.nan, dtype),
        before=jnp.full(plan.k, jnp.nan, dtype),
        done=jnp.bool(False),
    )


def wanted_rows(_: Plan, state: State) -> Vector:
    """Return the block whose product the machine asks for."""
    return state.asked


def advance(plan: Plan, limits: Limits, seed: Array, state: State, products: Vector) -> State:
    """Take the products of `wanted_rows` and decide what comes next.

    Returns:
        The state that asks for the next product, or is done.
    """
    b = plan.block_size
    residuals = _true_residuals(plan, state, products)
    space, replaced = lanczos.extend(plan.layout, state.space, products, seed, limits.breakdown, ~state.checking)
    state = state._replace(
        space=space,
        residuals=jnp.where(state.checking, residuals, state.residuals),
        checked=state.checked + jnp.where(state.checking, b, 0),
        num_matvecs=state.num_matvecs + b,
        since_look=state.since_look + b,
        since_restart=state.since_restart + b,
    )
    state = _after_check(plan, limits, state)
    state = state._replace(done=state.done | ~jnp.isfinite(space.scale))
    full = space.count + b > plan.num_basis
    last = (space.count >= plan.layout.size) | _spent(plan, limits, state)
    look = ~state.checking & ~state.done & (replaced | full | last | (state.since_look >= plan.every))

    def looked() -> Any:
        return _look(plan, limits, state, replaced, full, last)

    def not_looked() -> Any:
        return (
            state._replace(space=None, asked=None),
            jnp.zeros_like(space.projected[0]),
            jnp.zeros_like(space.projected),
            jnp.bool(False),
        )

    rest, values, coefficients, rotate = lax.cond(look, looked, not_looked)
    # A loop of one round or none: unlike a branch, it leaves the basis in place.
    _, space = lax.while_loop(
        lambda carry: carry[0],
        lambda carry: (
            jnp.bool(False),
            lanczos.compress(carry[1], values, coefficients, jnp.minimum(plan.keep, carry[1].count), plan.keep, b),
        ),
        (rotate, space),
    )
    start = jnp.where(rest.checking, rest.checked, space.count)
    return rest._replace(space=space, asked=lanczos.rows(space.basis, start, b))


def _true_residuals(plan: Plan, state: State, products: Vector) -> Array:
    b = plan.block_size
    padded = jnp.concatenate([state.values, jnp.zeros(plan.check_cost - plan.k, state.values.dtype)])
    values = lax.dynamic_slice_in_dim(padded, state.checked, b)
    images = jax.vmap(vectors.axpy)(-values, state.asked, products)
    return lax.dynamic_update_slice_in_dim(state.residuals, jax.vmap(vectors.plain_norm)(images), state.checked, 0)


def _spent(plan: Plan, limits: Limits, state: State) -> Array:
    return state.num_matvecs + plan.block_size + plan.check_cost > limits.max_matvecs


def _after_check(plan: Plan, limits: Limits, state: State) -> State:
    ended = state.checking & (state.checked >= plan.k)
    good = jnp.all(state.residuals[: plan.k] <= limits.tol * state.extent)
    failed = state.failed_checks + (ended & ~good).astype(state.failed_checks.dtype)
    exhausted = state.space.count >= plan.layout.size
    give_up = _spent(plan, limits, state) | exhausted | (failed >= _MAX_FAILED_CHECKS)
    return state._replace(
        done=ended & (good | give_up),
        failed_checks=failed,
        strictness=jnp.where(ended & ~good, 0.3 * state.strictness, state.strictness),
        checking=state.checking & ~ended,
        since_look=jnp.where(ended, 0, state.since_look),
    )


def _look(plan: Plan, limits: Limits, state: State, replaced: Array, full: Array, last: Array) -> Any:
    # Solves the projected problem, and decides whether to check, to restart, or to go on.
    k = plan.k
    values, coefficients, residuals = lanczos.ritz(state.space, plan.block_size)
    order = _order(plan.which, values, state.space.count)
    values, coefficients, residuals = values[order], coefficients[:, order], residuals[order]
    known = jnp.arange(values.shape[0], dtype=jnp.int32) < state.space.count
    extent = jnp.max(jnp.where(known, jnp.abs(values), 0))
    wanted = jnp.where(known[:k], values[:k], jnp.nan)
    small = jnp.all(residuals[:k] <= state.strictness * limits.tol * extent)
    # In an invariant space every residual is 0, whatever was missed: eigenvalues that the start does not see, and all
    # but one copy of a multiple one. Then the space is grown from random directions until one of them, followed to its
    # own end, has not changed the answer.
    same, steady = (jnp.all(jnp.abs(wanted - old) <= limits.tol * extent) for old in (state.found, state.before))
    explored = jnp.where(replaced, same, (state.longest == 0) | (state.since_restart > state.longest))
    # And where all that the space has not seen is short of the tolerance, every residual is small, with values of the
    # other end among the wanted ones until the space has grown: so a look that changes the answer is not the last.
    check = last | (small & steady & explored)
    state = state._replace(
        space=None,
        asked=None,
        values=jnp.where(check, wanted, state.values),
        extent=extent,
        checking=check,
        checked=jnp.int32(0),
        since_look=jnp.int32(0),
        longest=jnp.where(replaced, jnp.maximum(state.longest, state.since_restart), state.longest),
        since_restart=jnp.where(replaced, 0, state.since_restart),
        found=jnp.where(replaced, wanted, state.found),
        before=wanted,
    )
    return state, values, coefficients, check | full


def _order(which: Which, values: Array, count: Array) -> Array:
    """Return the indices of the Ritz values, given in ascending order, from the most wanted to the least."""
    rank = jnp.arange(values.shape[0], dtype=jnp.int32)
    if which == "LM":
        return jnp.argsort(jnp.where(rank < count, -jnp.abs(values), jnp.inf))
    if which == "LA":
        index = count - 1 - rank
    elif which == "SA":
        index = rank
    else:
        index = jnp.where(rank % 2 == 0, count - 1 - rank // 2, rank // 2)
    return jnp.where(rank < count, index, rank)
