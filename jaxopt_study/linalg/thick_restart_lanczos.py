"""Thick-restart block Lanczos: eigenpairs at the ends of a spectrum, in bounded memory."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study.linalg import block_lanczos as lanczos
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.block_lanczos import Space
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.linalg.sharding import constant
from jaxopt_study.types import Vector

Which = Literal["LA", "SA", "BE", "LM"]
_MAX_FAILED_CHECKS = 3  # after these, the difference of estimated and true residuals is noise of the operator


@dataclass(frozen=True)
class ThickRestartLanczos:
    """The method of Wu and Simon as a `solver_loop.Solver`, without `initial` and `result`.

    The fields are fixed at compile time.
    """

    layout: Layout
    k: int
    which: Which
    num_basis: int
    block_size: int
    every: int  # products between two solutions of the projected problem
    scaled: bool = True

    @property
    def capacity(self) -> int:
        """Rows of the basis: `num_basis` and the pending block."""
        return self.num_basis + self.block_size

    @property
    def num_kept(self) -> int:
        """Number of Ritz vectors that a restart keeps."""
        return max(self.k, min(self.k + (self.num_basis - self.k) // 2, self.num_basis - self.block_size))

    @property
    def check_cost(self) -> int:
        """Products for the check of k residuals."""
        return -(-self.k // self.block_size) * self.block_size

    def started(self, block: Vector, seed: UInt32[Array, "2"]) -> "State":
        """Return the state before the first product, from a block of starting vectors."""
        return _started(self, block, seed)

    def next_block(self, state: "State") -> Vector:
        """Return the block of vectors to multiply next."""
        return state.block

    def update(self, limits: "Limits", seed: UInt32[Array, "2"], state: "State", products: Vector) -> "State":
        """Extend the space by the products of `next_block`, or check residuals with them.

        Args:
            limits: Tolerances and budget.
            seed: Seed of random directions.
            state: State before the products.
            products: H/s times the block.

        Returns:
            The state with the next block to multiply, or `done`.
        """
        return _updated(self, limits, seed, state, products)


class Limits(NamedTuple):
    """Numbers that may change without compiling again."""

    tol: Float[Array, ""]
    breakdown: Float[Array, ""]
    max_matvecs: Int[Array, ""]


class State(NamedTuple):
    """State of a solve, which extends the space or multiplies its first Ritz vectors to check their residuals."""

    space: Space
    block: Vector  # next block to multiply; reading it later from the basis would make XLA copy the basis
    checking: Bool[Array, ""]
    checked: Int[Array, ""]  # number of Ritz vectors checked
    values: Float[Array, " k"]  # Ritz values under check, and the result
    residuals: Float[Array, " check_cost"]  # true residuals
    spectral_scale: Float[Array, ""]  # largest |θ|, the unit of all tolerances
    safety_factor: Float[Array, ""]  # ≤ 1, of the tolerance of estimated residuals; smaller after a failed check
    failed_checks: Int[Array, ""]
    num_matvecs: Int[Array, ""]
    since_rayleigh_ritz: Int[Array, ""]  # products since the projected problem was solved
    since_restart: Int[Array, ""]  # products since a random direction was inserted
    longest_stretch: Int[Array, ""]  # the most such products before an invariant space; 0 before the first one
    values_at_restart: Float[Array, " k"]  # wanted values when the last random direction was inserted
    previous_values: Float[Array, " k"]  # wanted values when the projected problem was last solved
    done: Bool[Array, ""]


def _started(solver: ThickRestartLanczos, block: Vector, seed: UInt32[Array, "2"]) -> State:
    dtype = solver.layout.scalar
    zero, none = jnp.zeros((), dtype), jnp.int32(0)
    space = lanczos.begin(solver.layout, block, solver.capacity, seed)
    return State(
        space=space,
        block=lanczos.pending(space, solver.block_size),
        checking=jnp.bool(False),
        checked=none,
        values=jnp.full(solver.k, jnp.nan, dtype),
        residuals=constant(solver.layout.structure, jnp.nan, (solver.check_cost,), dtype),
        spectral_scale=zero,
        safety_factor=jnp.ones((), dtype),
        failed_checks=none,
        num_matvecs=none,
        since_rayleigh_ritz=none,
        since_restart=none,
        longest_stretch=none,
        values_at_restart=jnp.full(solver.k, jnp.nan, dtype),
        previous_values=jnp.full(solver.k, jnp.nan, dtype),
        done=jnp.bool(False),
    )


def _updated(
    solver: ThickRestartLanczos, limits: Limits, seed: UInt32[Array, "2"], state: State, products: Vector
) -> State:
    b = solver.block_size
    residuals = _true_residuals(solver, state, products)
    space, replaced = lanczos.extend(solver.layout, state.space, products, seed, limits.breakdown, ~state.checking)
    state = state._replace(
        space=space,
        residuals=jnp.where(state.checking, residuals, state.residuals),
        checked=state.checked + jnp.where(state.checking, b, 0),
        num_matvecs=state.num_matvecs + b,
        since_rayleigh_ritz=state.since_rayleigh_ritz + b,
        since_restart=state.since_restart + b,
    )
    state = _after_check(solver, limits, state)
    state = state._replace(done=state.done | ~jnp.isfinite(space.scale))
    full = space.count + b > solver.num_basis
    last = (space.count >= solver.layout.size) | _spent(solver, limits, state)
    due = ~state.checking & ~state.done & (replaced | full | last | (state.since_rayleigh_ritz >= solver.every))

    def solved() -> Any:
        return _rayleigh_ritz(solver, limits, state, replaced, full, last)

    def not_solved() -> Any:
        return (
            state._replace(space=None, block=None),
            jnp.zeros_like(space.projected[0]),
            jnp.zeros_like(space.projected),
            jnp.bool(False),
        )

    rest, values, coefficients, rotate = lax.cond(due, solved, not_solved)
    # A loop of at most one iteration: unlike a branch, it updates the basis in place.
    _, space = lax.while_loop(
        lambda carry: carry[0],
        lambda carry: (
            jnp.bool(False),
            lanczos.compress(
                carry[1], values, coefficients, jnp.minimum(solver.num_kept, carry[1].count), solver.num_kept, b
            ),
        ),
        (rotate, space),
    )
    start = jnp.where(rest.checking, rest.checked, space.count)
    return rest._replace(space=space, block=lanczos.rows(space.basis, start, b))


def _true_residuals(solver: ThickRestartLanczos, state: State, products: Vector) -> Float[Array, " check_cost"]:
    b = solver.block_size
    padded = jnp.concatenate([state.values, jnp.zeros(solver.check_cost - solver.k, state.values.dtype)])
    values = lax.dynamic_slice_in_dim(padded, state.checked, b)
    images = jax.vmap(vectors.axpy)(-values, state.block, products)
    return lax.dynamic_update_slice_in_dim(state.residuals, jax.vmap(vectors.plain_norm)(images), state.checked, 0)


def _spent(solver: ThickRestartLanczos, limits: Limits, state: State) -> Bool[Array, ""]:
    return state.num_matvecs + solver.block_size + solver.check_cost > limits.max_matvecs


def _after_check(solver: ThickRestartLanczos, limits: Limits, state: State) -> State:
    ended = state.checking & (state.checked >= solver.k)
    good = jnp.all(state.residuals[: solver.k] <= limits.tol * state.spectral_scale)
    failed = state.failed_checks + (ended & ~good).astype(state.failed_checks.dtype)
    exhausted = state.space.count >= solver.layout.size
    give_up = _spent(solver, limits, state) | exhausted | (failed >= _MAX_FAILED_CHECKS)
    return state._replace(
        done=ended & (good | give_up),
        failed_checks=failed,
        safety_factor=jnp.where(ended & ~good, 0.3 * state.safety_factor, state.safety_factor),
        checking=state.checking & ~ended,
        since_rayleigh_ritz=jnp.where(ended, 0, state.since_rayleigh_ritz),
    )


def _rayleigh_ritz(
    solver: ThickRestartLanczos,
    limits: Limits,
    state: State,
    replaced: Bool[Array, ""],
    full: Bool[Array, ""],
    last: Bool[Array, ""],
) -> Any:
    # Solves the projected problem and decides whether to check, to restart or to continue.
    k = solver.k
    values, coefficients, residuals = lanczos.ritz(state.space, solver.block_size)
    order = _order(solver.which, values, state.space.count)
    values, coefficients, residuals = values[order], coefficients[:, order], residuals[order]
    known = jnp.arange(values.shape[0], dtype=jnp.int32) < state.space.count
    scale = jnp.max(jnp.where(known, jnp.abs(values), 0))
    wanted = jnp.where(known[:k], values[:k], jnp.nan)
    small = jnp.all(residuals[:k] <= state.safety_factor * limits.tol * scale)
    # In an invariant space every residual is 0, although eigenvectors orthogonal to the start and further copies of
    # multiple eigenvalues are missing. The space is therefore extended from random directions until one of them,
    # followed to the next invariant space, has not changed the wanted values.
    same, steady = (
        jnp.all(jnp.abs(wanted - old) <= limits.tol * scale) for old in (state.values_at_restart, state.previous_values)
    )
    explored = jnp.where(replaced, same, (state.longest_stretch == 0) | (state.since_restart > state.longest_stretch))
    # A small space may have only small residuals while values of the other end are among the wanted ones; a solution
    # that still changes the wanted values is therefore not the last.
    check = last | (small & steady & explored)
    state = state._replace(
        space=None,
        block=None,
        values=jnp.where(check, wanted, state.values),
        spectral_scale=scale,
        checking=check,
        checked=jnp.int32(0),
        since_rayleigh_ritz=jnp.int32(0),
        longest_stretch=jnp.where(
            replaced, jnp.maximum(state.longest_stretch, state.since_restart), state.longest_stretch
        ),
        since_restart=jnp.where(replaced, 0, state.since_restart),
        values_at_restart=jnp.where(replaced, wanted, state.values_at_restart),
        previous_values=wanted,
    )
    return state, values, coefficients, check | full


def _order(which: Which, values: Float[Array, " m"], count: Int[Array, ""]) -> Int[Array, " m"]:
    """Return the order of the ascending Ritz values from the most wanted to the least wanted."""
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
