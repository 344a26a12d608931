"""Nesterov's method: reformulated (`nesterov`) and in its original form (`nesterov_lookahead`)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._gradient_point import shifted
from jaxopt_study.transforms._momentum import cast_like, decaying_sum, zero_trace
from jaxopt_study.transforms._scalars import (
    ScalarLike,
    ScalarOrSchedule,
    at_step,
    cast,
    check_decay,
    check_dtype,
    check_non_negative,
    increment,
)


class NesterovState(NamedTuple):
    """Decaying sum of past gradients, and the decay of the next step."""

    trace: optax.Updates  # aₜ, structure and dtypes of the parameters
    count: Int[Array, "*batch"]  # steps taken
    next_decay: Float[Array, "*batch"]  # γₜ₊₁

    def evaluation_params(self, params: PyTree, learning_rate: ScalarLike | None = None) -> PyTree:
        """Return the iterates whose look-ahead points are the parameters.

        Args:
            params: φ, the parameters as trained.
            learning_rate: η if the trace does not contain −η already.

        Returns:
            φ − γ a, or φ + γ η a.
        """
        sign: Any = -1.0 if learning_rate is None else learning_rate
        return shifted(params, self.trace, sign * self.next_decay)


class NesterovLookaheadState(NamedTuple):
    """Velocity, and the decay of the next step: they determine the point of the next gradient."""

    velocity: optax.Updates  # vₜ, structure and dtypes of the parameters
    count: Int[Array, "*batch"]  # steps taken
    next_decay: Float[Array, "*batch"]  # γₜ₊₁

    def gradient_point(self, params: PyTree) -> PyTree:
        """Return the point of the next gradient.

        Args:
            params: θ.

        Returns:
            θ − γ v.
        """
        return shifted(params, self.velocity, -self.next_decay)


@atom(state=NesterovState, linear=True)
def nesterov(decay: ScalarOrSchedule, *, dtype: Any = None) -> Transform:
    """Replace the gradient by Nesterov's sum, so that the parameters themselves are the look-ahead points.

    With decay γ and a₀ = 0:

        aₜ = γₜ aₜ₋₁ + gₜ,  uₜ = gₜ + γₜ₊₁ aₜ

    This reformulates Nesterov's method in the variable φ = θ − γv: the gradient is taken at the parameters, as in any
    training loop, and the parameters are the look-ahead points, not the iterates θ, which `evaluation_params` returns.
    After `scale_by_learning_rate` it is exactly `nesterov_lookahead` in other coordinates, under any schedules; before
    it, only while η is constant.

    Args:
        decay: γ in [0, 1), or a schedule of it.
        dtype: dtype of the buffer; None keeps the parameters'. The output has the wider of it and the gradient's.
            Optax's name, `accumulator_dtype`, is accepted, too.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of a.

    Raises:
        ValueError: If `decay` is outside [0, 1).
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> tx = nesterov(0.9)
        >>> updates, _ = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
        >>> print(updates)  # 1 + γ
        [1.9]

    References:
        Sutskever, Martens, Dahl and Hinton (2013), On the importance of initialization and momentum, appendix A.1;
        Bengio, Boulanger-Lewandowski and Pascanu (2013), Advances in optimizing recurrent networks, equations (6) and
        (7). Optax's `trace(nesterov=True)`, without schedules and evaluation_params.
    """
    check_decay("nesterov", decay, schedule=True)
    check_dtype("nesterov", dtype)

    def init(params: PyTree) -> NesterovState:
        count = jnp.zeros((), dtype=jnp.int32)
        return NesterovState(zero_trace(params, dtype), count, _decay_array("nesterov", decay, count))

    def update(
        updates: PyTree, state: NesterovState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, NesterovState]:
        count = increment(state.count)
        gamma, coming = (at_step(decay, step, "nesterov", "decay") for step in (state.count, count))
        sums = jax.tree.map(functools.partial(decaying_sum, gamma), updates, state.trace)
        new = jax.tree.map(functools.partial(decaying_sum, coming), updates, sums)
        return new, NesterovState(cast_like(sums, state.trace), count, _decay_array("nesterov", decay, count))

    return Transform(init, update)


@atom(state=NesterovLookaheadState, linear=True)
def nesterov_lookahead(learning_rate: ScalarOrSchedule, decay: ScalarOrSchedule) -> Transform:
    """Step by Nesterov's velocity, from a gradient taken at the look-ahead point.

    With learning rate η, decay γ, v₀ = 0, and the gradient taken at `gradient_point(params, state)` = θ − γv:

        vₜ = γₜ vₜ₋₁ + ηₜ ∇J(θₜ₋₁ − γₜ vₜ₋₁),  θₜ = θₜ₋₁ − vₜ

    It is a complete step: if a later transformation rescales its output, the look-ahead point no longer matches the
    step. On curvature λ it is stable for ηλ < (2 + 2γ)/(1 + 2γ), 1.357 at γ = .9. A loop that takes the gradient at the
    parameters instead runs the heavy ball, which is stable up to 2 + 2γ and lacks Nesterov's damping of steep
    directions. The common mistake of using v after its update, θ ← θ + γ²vₜ − (1 + γ)ηg, is a third method, stable only
    up to .860. `train` takes the gradient at the right point.

    Args:
        learning_rate: η ≥ 0, or a schedule of it.
        decay: γ in [0, 1), or a schedule of it. Under `optax.inject_hyperparams` a changed γ takes effect one step
            later, because the old γ has already fixed the point of the next gradient.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of v, and
        one pass over the parameters to form the look-ahead point.

    Raises:
        ValueError: If `learning_rate` is negative, or `decay` outside [0, 1).

    Example:
        >>> tx = nesterov_lookahead(0.1, 0.9)
        >>> params = jnp.array([1.0])
        >>> state = tx.init(params)
        >>> for _ in range(200):
        ...     grads = 8.0 * gradient_point(params, state)  # of 4 θ²
        ...     updates, state = tx.update(grads, state)
        ...     params = params + updates
        >>> print(abs(params) < 1e-6)
        [ True]

    References:
        Nesterov (1983), A method of solving a convex programming problem with convergence rate O(1/k²); Sutskever,
        Martens, Dahl and Hinton (2013), equations (3) and (4). Optax has no transformation that looks ahead.
    """
    check_non_negative("nesterov_lookahead", "learning_rate", learning_rate, schedule=True)
    check_decay("nesterov_lookahead", decay, schedule=True)

    def init(params: PyTree) -> NesterovLookaheadState:
        count = jnp.zeros((), dtype=jnp.int32)
        velocity = jax.tree.map(jnp.zeros_like, params)
        return NesterovLookaheadState(velocity, count, _decay_array("nesterov_lookahead", decay, count))

    def update(
        updates: PyTree, state: NesterovLookaheadState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, NesterovLookaheadState]:
        rate = at_step(learning_rate, state.count, "nesterov_lookahead", "learning_rate")
        gamma = state.next_decay
        velocity = jax.tree.map(
            lambda g, v: gamma.astype(v.dtype) * v + cast(rate, v.dtype) * g.astype(v.dtype), updates, state.velocity
        )
        count = increment(state.count)
        new_state = NesterovLookaheadState(velocity, count, _decay_array("nesterov_lookahead", decay, count))
        return jax.tree.map(jnp.negative, velocity), new_state

    return Transform(init, update)


def _decay_array(atom: str, decay: Any, count: Any) -> Float[Array, ""]:
    return jnp.asarray(at_step(decay, count, atom, "decay"), dtype=jnp.result_type(float))
