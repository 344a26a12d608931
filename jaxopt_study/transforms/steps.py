"""The last part of a chain: what turns a direction into a step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxopt_study.transforms.constructors import atom
from jaxopt_study.transforms.scalars import ScalarLike, ScalarOrSchedule, at_step, cast, check_non_negative, increment
from jaxopt_study.transforms.spec import Transform


class LearningRateState(NamedTuple):
    """Number of steps taken, which a schedule needs."""

    count: Int[Array, "*batch"]


@atom(state=LearningRateState)
def scale_by_learning_rate(learning_rate: ScalarOrSchedule, *, flip_sign: bool = True) -> Transform:
    """Turn a direction of ascent into a step of descent.

    With learning rate η:

        uₜ = −ηₜ gₜ

    Args:
        learning_rate: η ≥ 0, or a schedule of it: a function of the number of steps taken, 0 at the first.
        flip_sign: False keeps the direction, as for maximisation.

    Returns:
        A transformation with the structure and dtypes of the gradient. Cost: fused with its neighbours, none.

    Raises:
        ValueError: If `learning_rate` is negative.

    Example:
        >>> tx = scale_by_learning_rate(lift(optax.linear_schedule)(1.0, 0.0, 2))
        >>> state = tx.init(jnp.zeros(1))
        >>> _, state = tx.update(jnp.ones(1), state)
        >>> print(tx.update(jnp.ones(1), state)[0])  # the second step has half the rate
        [-0.5]

    References:
        Optax's `scale_by_learning_rate`, which promotes half-precision gradients where the rate is an array, and has
        another state with a schedule than without.
    """
    remedy = "The step is −learning_rate × gradient; to ascend use flip_sign=False."
    check_non_negative("scale_by_learning_rate", "learning_rate", learning_rate, remedy)
    sign = -1.0 if flip_sign else 1.0

    def init(params: Any) -> LearningRateState:
        del params
        return LearningRateState(jnp.zeros((), dtype=jnp.int32))

    def update(updates: Any, state: LearningRateState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        rate = sign * at_step(learning_rate, state.count)
        new = jax.tree.map(lambda g: cast(rate, g.dtype) * g, updates)
        return new, LearningRateState(increment(state.count))

    return Transform(init, update)


@atom()
def negate() -> Transform:
    """Turn a direction of ascent into one of descent, at its own length.

    Returns:
        A stateless transformation. Cost: fused with its neighbours, none.

    Example:
        >>> print(negate().update(jnp.array([2.0]), optax.EmptyState())[0])
        [-2.]
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.negative, updates), state

    return Transform(optax.init_empty_state, update)


@atom(params=True)
def add_decayed_weights(weight_decay: ScalarLike, *, mask: Any = None, flip_sign: bool = False) -> Transform:
    """Add a multiple of the parameters to the gradient.

    With decay λ:

        uₜ = gₜ + λ θₜ₋₁,  or gₜ − λ θₜ₋₁ with `flip_sign`

    Before the statistics of an adaptive method it is L2 regularisation; behind them, decoupled weight decay.

    Args:
        weight_decay: λ ≥ 0.
        mask: Which parameters decay: a pytree of booleans with the structure of the parameters or a prefix of it, or a
            function from the parameters to one. None decays all.
        flip_sign: True behind `scale_by_learning_rate`, where the input is already a step of descent.

    Returns:
        A stateless transformation. Cost: one read of the parameters.

    Raises:
        ValueError: If `weight_decay` is negative, or the update is called without parameters.

    Example:
        >>> tx = add_decayed_weights(0.5)
        >>> params = jnp.array([2.0])
        >>> print(tx.update(jnp.zeros(1), tx.init(params), params)[0])
        [1.]

    References:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, Algorithm 1 (L2) and 2 (decoupled).
    """
    check_non_negative("add_decayed_weights", "weight_decay", weight_decay)
    strength = (-1.0 if flip_sign else 1.0) * weight_decay  # pyright: ignore[reportOperatorIssue]

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        chosen = True if mask is None else mask(params) if callable(mask) else mask
        spread = jax.tree.map(lambda m, p: jax.tree.map(lambda _: m, p), chosen, params)
        decayed = jax.tree.map(
            lambda m, g, p: g + cast(strength, g.dtype) * p.astype(g.dtype) if m else g, spread, updates, params
        )
        return decayed, state

    return Transform(optax.init_empty_state, update)


class ProximalDecayState(NamedTuple):
    """Number of steps taken, which a schedule needs."""

    count: Int[Array, "*batch"]


@atom(state=ProximalDecayState, params=True)
def decay_proximally(weight_decay: ScalarLike, learning_rate: ScalarOrSchedule) -> Transform:
    """Shrink the end of the step towards zero.

    With the step's end θ + u, decay λ and learning rate η:

        uₜ′ = (θ + uₜ) / (1 + ληₜ) − θ

    The exact minimiser of the linearised loss plus ½λ‖θ‖² plus the step's own metric, where `add_decayed_weights` takes
    a gradient step on ½λ‖θ‖². Put it last.

    Args:
        weight_decay: λ ≥ 0.
        learning_rate: η ≥ 0, or a schedule of it: the one that scaled the step.

    Returns:
        A transformation whose state is a counter. Cost: one read of the parameters.

    Raises:
        ValueError: If an argument is negative, or the update is called without parameters.

    Example:
        >>> tx = decay_proximally(1.0, 1.0)
        >>> params = jnp.array([2.0])
        >>> print(tx.update(jnp.zeros(1), tx.init(params), params)[0])
        [-1.]

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Adan, Algorithm 1, line 7; Zhuang, Liu, Cutkosky and Orabona (2022),
        Understanding AdamW through proximal methods and scale-freeness.
    """
    check_non_negative("decay_proximally", "weight_decay", weight_decay)
    check_non_negative("decay_proximally", "learning_rate", learning_rate)

    def init(params: Any) -> ProximalDecayState:
        del params
        return ProximalDecayState(jnp.zeros((), dtype=jnp.int32))

    def update(updates: Any, state: ProximalDecayState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        strength = weight_decay * at_step(learning_rate, state.count)

        def shrink(u: Array, p: Array) -> Array:
            amount = cast(strength, u.dtype)
            return (u - amount * p.astype(u.dtype)) / (1 + amount)

        return jax.tree.map(shrink, updates, params), ProximalDecayState(increment(state.count))

    return Transform(init, update)
