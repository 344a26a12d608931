"""Momentum: steps that remember steps, and where their gradient is taken."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxopt_study.transforms.averaging import AverageIteratesState, averaged
from jaxopt_study.transforms.constructors import atom
from jaxopt_study.transforms.containers import refuse_holder, unwrapped
from jaxopt_study.transforms.scalars import (
    ScalarLike,
    ScalarOrSchedule,
    align,
    at_step,
    cast,
    check_decay,
    check_dtype,
    check_non_negative,
    increment,
)
from jaxopt_study.transforms.spec import Transform


class HeavyBallState(NamedTuple):
    """Decaying sum of past gradients."""

    trace: optax.Updates  # aₜ, structure and dtypes of the parameters
    count: Int[Array, "*batch"]  # steps taken


class NesterovState(NamedTuple):
    """Decaying sum of past gradients, and the decay of the step to come."""

    trace: optax.Updates  # aₜ, structure and dtypes of the parameters
    count: Int[Array, "*batch"]  # steps taken
    next_decay: Float[Array, "*batch"]  # γₜ₊₁


class NesterovLookaheadState(NamedTuple):
    """Velocity, and the decay of the step to come: what places the next gradient."""

    velocity: optax.Updates  # vₜ, structure and dtypes of the parameters
    count: Int[Array, "*batch"]  # steps taken
    next_decay: Float[Array, "*batch"]  # γₜ₊₁


@atom(state=HeavyBallState, linear=True)
def heavy_ball(decay: ScalarOrSchedule, *, dtype: Any = None) -> Transform:
    """Replace the gradient by the decaying sum of past gradients.

    With decay γ and a₀ = 0:

        aₜ = γₜ aₜ₋₁ + gₜ

    Its place decides the convention. `chain(scale_by_learning_rate(η), heavy_ball(γ))` is v ← γv + η∇J, θ ← θ − v of
    the textbooks: a step keeps the learning rate it was made with. `chain(heavy_ball(γ), scale_by_learning_rate(η))`
    is PyTorch's and Optax's: the present learning rate scales the whole memory. They agree while η is constant. It is
    not an average: a constant gradient is multiplied by 1/(1 − γ); `ema` does not do that.

    Args:
        decay: γ in [0, 1), or a schedule of it.
        dtype: dtype of the memory; None keeps the parameters'. The output has the wider of it and the gradient's dtype.
            Optax's name, `accumulator_dtype`, is understood, too.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of a.

    Raises:
        ValueError: If `decay` is outside [0, 1).
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> tx = heavy_ball(0.5)
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(20):
        ...     updates, state = tx.update(jnp.array([1.0]), state)
        >>> print(updates.round(3))  # the limit 1/(1 − γ)
        [2.]

    References:
        Polyak (1964), Some methods of speeding up the convergence of iteration methods. Optax's `trace`, without a
        schedule for γ.
    """
    check_decay("heavy_ball", decay, schedule=True)
    check_dtype("heavy_ball", dtype)

    def init(params: Any) -> HeavyBallState:
        return HeavyBallState(_zeros(params, dtype), jnp.zeros((), dtype=jnp.int32))

    def update(updates: Any, state: HeavyBallState, params: Any = None, **extra: Any) -> tuple[Any, HeavyBallState]:
        gamma = at_step(decay, state.count, "heavy_ball", "decay")
        new = jax.tree.map(functools.partial(_remember, gamma), updates, state.trace)
        return new, HeavyBallState(_like(new, state.trace), increment(state.count))

    return Transform(init, update)


@atom(state=NesterovState, linear=True)
def nesterov(decay: ScalarOrSchedule, *, dtype: Any = None) -> Transform:
    """Replace the gradient by its Nesterov sum, so that the parameters themselves are the look-ahead points.

    With decay γ and a₀ = 0:

        aₜ = γₜ aₜ₋₁ + gₜ,  uₜ = gₜ + γₜ₊₁ aₜ

    The reformulation of Nesterov's method in the variable φ = θ − γv: the gradient is taken where the parameters are,
    as any training loop does, and the parameters held are the look-ahead points, not the iterates θ: `readout` gives
    those. Behind `scale_by_learning_rate` it is exactly `nesterov_lookahead` in other coordinates, under any schedules;
    before it, while η is constant.

    Args:
        decay: γ in [0, 1), or a schedule of it.
        dtype: dtype of the memory; None keeps the parameters'. The output has the wider of it and the gradient's dtype.
            Optax's name, `accumulator_dtype`, is understood, too.

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
        (7). Optax's `trace(nesterov=True)`, without schedules and readout.
    """
    check_decay("nesterov", decay, schedule=True)
    check_dtype("nesterov", dtype)

    def init(params: Any) -> NesterovState:
        count = jnp.zeros((), dtype=jnp.int32)
        return NesterovState(_zeros(params, dtype), count, _decay_array("nesterov", decay, count))

    def update(updates: Any, state: NesterovState, params: Any = None, **extra: Any) -> tuple[Any, NesterovState]:
        count = increment(state.count)
        gamma, coming = (at_step(decay, step, "nesterov", "decay") for step in (state.count, count))
        sums = jax.tree.map(functools.partial(_remember, gamma), updates, state.trace)
        new = jax.tree.map(functools.partial(_remember, coming), updates, sums)
        return new, NesterovState(_like(sums, state.trace), count, _decay_array("nesterov", decay, count))

    return Transform(init, update)


@atom(state=NesterovLookaheadState, linear=True)
def nesterov_lookahead(learning_rate: ScalarOrSchedule, decay: ScalarOrSchedule) -> Transform:
    """Step by Nesterov's velocity, from a gradient taken at the look-ahead point.

    With learning rate η, decay γ, v₀ = 0, and the gradient taken at `gradient_point(params, state)` = θ − γv:

        vₜ = γₜ vₜ₋₁ + ηₜ ∇J(θₜ₋₁ − γₜ vₜ₋₁),  θₜ = θₜ₋₁ − vₜ

    It is a whole step: nothing may rescale its output, or the look-ahead point is not where the step goes. On curvature
    λ it is stable for ηλ < (2 + 2γ)/(1 + 2γ), 1.357 at γ = .9. A loop that takes the gradient at the parameters instead
    runs the heavy ball: stable up to 2 + 2γ, and without Nesterov's damping of steep directions. The common slip of
    using v after it was updated, θ ← θ + γ²vₜ − (1 + γ)ηg, is a third method, stable only up to .860. `train` asks for
    the point itself.

    Args:
        learning_rate: η ≥ 0, or a schedule of it.
        decay: γ in [0, 1), or a schedule of it. Under `optax.inject_hyperparams` a changed γ takes effect one step
            later, since the point of the coming gradient was already fixed by the old one.

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

    def init(params: Any) -> NesterovLookaheadState:
        count = jnp.zeros((), dtype=jnp.int32)
        velocity = jax.tree.map(jnp.zeros_like, params)
        return NesterovLookaheadState(velocity, count, _decay_array("nesterov_lookahead", decay, count))

    def update(
        updates: Any, state: NesterovLookaheadState, params: Any = None, **extra: Any
    ) -> tuple[Any, NesterovLookaheadState]:
        rate = at_step(learning_rate, state.count, "nesterov_lookahead", "learning_rate")
        gamma = state.next_decay
        velocity = jax.tree.map(
            lambda g, v: gamma.astype(v.dtype) * v + cast(rate, v.dtype) * g.astype(v.dtype), updates, state.velocity
        )
        count = increment(state.count)
        new_state = NesterovLookaheadState(velocity, count, _decay_array("nesterov_lookahead", decay, count))
        return jax.tree.map(jnp.negative, velocity), new_state

    return Transform(init, update)


def gradient_point(params: Any, state: Any) -> Any:
    """Return the point where the next gradient must be taken.

    With the velocity v and coming decay γ of every `nesterov_lookahead` found in the state:

        θ − γ v

    and θ itself for a chain without one. The look-ahead is found wherever its state is: inside `optax.chain`,
    `optax.masked`, `optax.partition`, `optax.inject_hyperparams`, and with batched states under or outside `vmap`.

    Args:
        params: θ, any pytree.
        state: The state of the whole optimizer, as it returned it or as `nnx.Optimizer.opt_state` holds it.

    Returns:
        Parameters of the same structure. Cost: one pass over the parameters, none without a look-ahead.

    Raises:
        ValueError: If a look-ahead's velocity does not have the structure and shapes of the parameters.

    Example:
        >>> tx = nesterov_lookahead(0.1, 0.9)
        >>> _, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
        >>> print(gradient_point(jnp.array([2.0]), state))  # 2 − .9 · .1
        [1.91]

    References:
        Sutskever, Martens, Dahl and Hinton (2013), equation (4).
    """
    point = unwrapped(params)
    lookaheads = _states("gradient_point", state, NesterovLookaheadState)
    for found in lookaheads:
        point = _shift(point, found.velocity, -found.next_decay, "gradient_point")
    return _in_form_of(params, point) if lookaheads else params


def readout(params: Any, state: Any, *, learning_rate: ScalarLike | None = None) -> Any:
    """Return the parameters to evaluate where others are trained: Nesterov's iterates, or the average.

    With look-ahead point φ, trace a and coming decay γ of the `nesterov` in the state:

        θ = φ − γ a   behind scale_by_learning_rate,   θ = φ + γ η a   before it

    With an `average_iterates` in the state, its average, or the parameters themselves before the first step.

    Args:
        params: φ, the parameters as trained.
        state: The state of the whole optimizer, as it returned it or as `nnx.Optimizer.opt_state` holds it.
        learning_rate: η if `nesterov` stands before `scale_by_learning_rate` in its chain, as in PyTorch and Optax;
            None if behind it, where the trace already contains −η.

    Returns:
        θ or the average, of the same structure; `params` itself for a chain with neither.

    Raises:
        ValueError: If a trace does not have the structure and shapes of the parameters, or `learning_rate` is negative.
        TypeError: If `learning_rate` is not one real number.

    Example:
        >>> tx = chain(scale_by_learning_rate(0.1), nesterov(0.9))
        >>> updates, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
        >>> print(readout(updates, state))  # started at 0: the first iterate is −η g
        [-0.1]

    References:
        Bengio, Boulanger-Lewandowski and Pascanu (2013), Advances in optimizing recurrent networks, section 3.5.
    """
    if learning_rate is not None:
        check_non_negative("readout", "learning_rate", learning_rate)
    sign = -1.0 if learning_rate is None else learning_rate
    point = unwrapped(params)
    traces, averages = (_states("readout", state, kind) for kind in (NesterovState, AverageIteratesState))
    for found in traces:
        point = _shift(point, found.trace, sign * found.next_decay, "readout")
    for found in averages:
        point = averaged(found, point)
    return _in_form_of(params, point) if traces or averages else params


def _decay_array(atom: str, decay: Any, count: Any) -> Array:
    return jnp.asarray(at_step(decay, count, atom, "decay"), dtype=jnp.result_type(float))


def _zeros(params: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params)


def _remember(gamma: Any, g: Array, a: Array) -> Array:
    """Return γ a + g in the wider of their dtypes."""
    g, a = align(g, a)
    return cast(gamma, a.dtype) * a + g


def _like(new: Any, old: Any) -> Any:
    """Return a state in the dtypes it had."""
    return jax.tree.map(lambda n, o: n.astype(o.dtype), new, old)


def _states(caller: str, state: Any, kind: type) -> list[Any]:
    refuse_holder(caller, state)
    if isinstance(state, Mapping) and "opt_state" in state:
        raise TypeError(f"{caller} needs the optimizer's state as the optimizer returned it; received what holds one.")
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind))
    return [unwrapped(leaf) for leaf in leaves if isinstance(leaf, kind)]


def _in_form_of(params: Any, point: Any) -> Any:
    """Return parameters in the containers of others, those of Flax perhaps."""
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(point))


def _shift(params: Any, direction: Any, amount: Array, caller: str) -> Any:
    def move(d: Any, p: Any) -> Any:
        if isinstance(d, optax.MaskedNode):  # stands for a part of the tree that this transformation does not see
            return p
        if np.shape(p) != np.shape(d):
            raise ValueError(f"{np.shape(d)} in the state, {np.shape(p)} in the parameters.")
        # A batched state outside vmap has one decay per lane and lanes first in every leaf.
        scale = amount.reshape(amount.shape + (1,) * (d.ndim - amount.ndim)).astype(d.dtype)
        return p + (scale * d).astype(jnp.result_type(p))

    try:
        return jax.tree.map(move, direction, params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    except ValueError as error:
        raise ValueError(
            f"{caller}: the optimizer state does not belong to these parameters: {error} Pass the state that was "
            "initialised with them."
        ) from error
