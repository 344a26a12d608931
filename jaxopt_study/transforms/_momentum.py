"""Momentum: the heavy ball. The atoms of Nesterov's method are in `_nesterov`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import (
    ScalarOrSchedule,
    align,
    at_step,
    cast,
    check_decay,
    check_dtype,
    increment,
)


class HeavyBallState(NamedTuple):
    """Decaying sum of past gradients."""

    trace: optax.Updates  # aₜ, structure and dtypes of the parameters
    count: Int[Array, "*batch"]  # steps taken


@atom(state=HeavyBallState, linear=True)
def heavy_ball(decay: ScalarOrSchedule, *, dtype: Any = None) -> Transform:
    """Replace the gradient by the decaying sum of past gradients.

    With decay γ and a₀ = 0:

        aₜ = γₜ aₜ₋₁ + gₜ

    Its position in the chain decides the convention. `chain(scale_by_learning_rate(η), heavy_ball(γ))` is the
    textbooks' v ← γv + η∇J, θ ← θ − v: each gradient keeps the learning rate of its own step. `chain(heavy_ball(γ),
    scale_by_learning_rate(η))` is PyTorch's and Optax's form: the current learning rate scales the whole buffer. The
    two agree while η is constant. The sum is not an average: a constant gradient is multiplied by 1/(1 − γ), which
    `ema` avoids.

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

    def init(params: PyTree) -> HeavyBallState:
        return HeavyBallState(zero_trace(params, dtype), jnp.zeros((), dtype=jnp.int32))

    def update(
        updates: PyTree, state: HeavyBallState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, HeavyBallState]:
        gamma = at_step(decay, state.count, "heavy_ball", "decay")
        new = jax.tree.map(functools.partial(decaying_sum, gamma), updates, state.trace)
        return new, HeavyBallState(cast_like(new, state.trace), increment(state.count))

    return Transform(init, update)


def zero_trace(params: Any, dtype: Any) -> Any:
    """Return a₀ = 0 with the parameters' structure, in their dtypes or in the given one."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params)


def decaying_sum(gamma: Any, g: Leaf, a: Leaf) -> Leaf:
    """Return γ a + g in the wider of the two dtypes."""
    g, a = align(g, a)
    return cast(gamma, a.dtype) * a + g


def cast_like(new: Any, old: Any) -> Any:
    """Return a new state cast to the dtypes of the old one."""
    return jax.tree.map(lambda n, o: n.astype(o.dtype), new, old)
