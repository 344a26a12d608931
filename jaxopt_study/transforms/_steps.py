"""Final atoms of a chain: learning rate, sign and weight decay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from jaxopt_study._checks import check_bool
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import ScalarOrSchedule, at_step, cast, check_non_negative, increment
from jaxopt_study.transforms._state_checks import MismatchError


class LearningRateState(NamedTuple):
    """Number of steps taken, which a schedule needs."""

    count: Int[Array, "*batch"]


@atom(state=LearningRateState, linear=True)
def scale_by_learning_rate(learning_rate: ScalarOrSchedule, *, flip_sign: bool = True) -> Transform:
    """Turn a direction of ascent into a step of descent.

    With learning rate η:

        uₜ = −ηₜ gₜ

    Args:
        learning_rate: η ≥ 0, or a schedule of it: a function of the number of steps taken, 0 at the first.
        flip_sign: False keeps the direction, for maximisation.

    Returns:
        A transformation with the structure and dtypes of the gradient. Cost: fused with its neighbours, none.

    Raises:
        ValueError: If `learning_rate` is negative.
        TypeError: If an argument is of the wrong kind, or a schedule does not return one real number.

    Example:
        >>> tx = scale_by_learning_rate(from_optax(optax.linear_schedule)(1.0, 0.0, 2))
        >>> state = tx.init(jnp.zeros(1))
        >>> _, state = tx.update(jnp.ones(1), state)
        >>> print(tx.update(jnp.ones(1), state)[0])  # the second step has half the rate
        [-0.5]

    References:
        Optax's `scale_by_learning_rate`, which promotes half-precision gradients if the rate is an array, and whose
        state with a schedule differs from that without.
    """
    remedy = "The step is −learning_rate × gradient; use flip_sign=False to ascend."
    check_non_negative("scale_by_learning_rate", "learning_rate", learning_rate, remedy, schedule=True)
    check_bool("scale_by_learning_rate", "flip_sign", flip_sign)
    sign = -1.0 if flip_sign else 1.0

    def init(params: PyTree) -> LearningRateState:
        del params
        return LearningRateState(jnp.zeros((), dtype=jnp.int32))

    def update(updates: PyTree, state: LearningRateState, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        rate = sign * at_step(learning_rate, state.count, "scale_by_learning_rate", "learning_rate")
        new = jax.tree.map(lambda g: cast(rate, g.dtype) * g, updates)
        return new, LearningRateState(increment(state.count))

    return Transform(init, update)


@atom(linear=True)
def negate() -> Transform:
    """Change the sign of the gradient: uₜ = −gₜ.

    Returns:
        A stateless transformation. Cost: fused with its neighbours, none.

    Example:
        >>> print(negate().update(jnp.array([2.0]), optax.EmptyState())[0])
        [-2.]
    """

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.negative, updates), state

    return Transform(optax.init_empty_state, update)


class DecayedWeightsState(NamedTuple):
    """Number of steps taken, which a schedule needs."""

    count: Int[Array, "*batch"]


@atom(state=DecayedWeightsState, params=True, linear=True, neutral={"weight_decay": 0.0})
def add_decayed_weights(weight_decay: ScalarOrSchedule, *, mask: Any = None, flip_sign: bool = False) -> Transform:
    """Add a multiple of the parameters to the gradient.

    With decay λ:

        uₜ = gₜ + λ θₜ₋₁,  or gₜ − λ θₜ₋₁ with `flip_sign`

    Before the statistics of an adaptive method it is L2 regularisation; after them, decoupled weight decay.

    Args:
        weight_decay: λ ≥ 0, or a schedule of it.
        mask: Which parameters decay: a pytree of booleans with the structure of the parameters or a prefix of it, or a
            function from the parameters to one. None decays all.
        flip_sign: True after `scale_by_learning_rate`, where the input is already a descent step.

    Returns:
        A transformation whose state is a counter. Cost: one read of the parameters.

    Raises:
        ValueError: If `weight_decay` is negative, the mask does not fit the parameters, or the update is called without
            parameters or with those of another shape.
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> tx = add_decayed_weights(0.5)
        >>> params = jnp.array([2.0])
        >>> print(tx.update(jnp.zeros(1), tx.init(params), params)[0])
        [1.]

    References:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, Algorithm 1 (L2) and 2 (decoupled).
    """
    check_non_negative("add_decayed_weights", "weight_decay", weight_decay, schedule=True)
    check_bool("add_decayed_weights", "flip_sign", flip_sign)
    if not callable(mask):
        _check_mask("add_decayed_weights", mask)
    sign = -1.0 if flip_sign else 1.0

    def init(params: PyTree) -> DecayedWeightsState:
        del params
        return DecayedWeightsState(jnp.zeros((), dtype=jnp.int32))

    def update(updates: PyTree, state: DecayedWeightsState, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        strength = sign * at_step(weight_decay, state.count, "add_decayed_weights", "weight_decay")
        spread = _spread("add_decayed_weights", mask, params)
        decayed = jax.tree.map(
            lambda m, g, p: g + cast(strength, g.dtype) * p.astype(g.dtype) if m else g, spread, updates, params
        )
        return decayed, DecayedWeightsState(increment(state.count))

    return Transform(init, update)


def _check_mask(atom: str, mask: Any) -> None:
    for path, chosen in jax.tree_util.tree_leaves_with_path(mask):
        check_bool(atom, f"mask{jax.tree_util.keystr(path)}", chosen)


def _spread(atom: str, mask: Any, params: Any) -> Any:
    """Return the mask with one boolean per parameter."""
    chosen = True if mask is None else mask(params) if callable(mask) else mask
    _check_mask(atom, chosen)
    try:
        return jax.tree.map(lambda m, p: jax.tree.map(lambda _: m, p), chosen, params)
    except ValueError as error:
        raise MismatchError(
            f"{atom}: mask must have the structure of the parameters, or a prefix of it, with True or False "
            f"at its leaves; the parameters are {jax.tree.structure(params)}, the mask is "
            f"{jax.tree.structure(chosen)}."
        ) from error


class ProximalDecayState(NamedTuple):
    """Number of steps taken, which a schedule needs."""

    count: Int[Array, "*batch"]


@atom(state=ProximalDecayState, params=True, linear=True, neutral={"weight_decay": 0.0})
def decay_proximally(weight_decay: ScalarOrSchedule, learning_rate: ScalarOrSchedule, *, mask: Any = None) -> Transform:
    """Shrink the updated parameters towards zero: proximal weight decay.

    With the updated parameters θ + u, decay λ and learning rate η:

        uₜ′ = (θ + uₜ) / (1 + ληₜ) − θ

    The result is the exact minimiser of the linearised loss plus ½λ‖θ‖² plus the step's own metric, whereas
    `add_decayed_weights` takes a gradient step on ½λ‖θ‖². Put it last.

    Args:
        weight_decay: λ ≥ 0, or a schedule of it.
        learning_rate: η ≥ 0, or a schedule of it: the one that scaled the step.
        mask: Which parameters decay, as in `add_decayed_weights`.

    Returns:
        A transformation whose state is a counter. Cost: one read of the parameters.

    Raises:
        ValueError: If an argument is negative, or the update is called without parameters or with those of another
            shape.
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> tx = decay_proximally(1.0, 1.0)
        >>> params = jnp.array([2.0])
        >>> print(tx.update(jnp.zeros(1), tx.init(params), params)[0])
        [-1.]

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Adan, Algorithm 1, line 7; Zhuang, Liu, Cutkosky and Orabona (2022),
        Understanding AdamW through proximal methods and scale-freeness.
    """
    check_non_negative("decay_proximally", "weight_decay", weight_decay, schedule=True)
    check_non_negative("decay_proximally", "learning_rate", learning_rate, schedule=True)
    if not callable(mask):
        _check_mask("decay_proximally", mask)

    def init(params: PyTree) -> ProximalDecayState:
        del params
        return ProximalDecayState(jnp.zeros((), dtype=jnp.int32))

    def update(updates: PyTree, state: ProximalDecayState, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        decay = at_step(weight_decay, state.count, "decay_proximally", "weight_decay")
        rate = at_step(learning_rate, state.count, "decay_proximally", "learning_rate")
        real = jnp.result_type(float)
        strength = cast(decay, real) * cast(rate, real)

        def shrink(chosen: Any, u: Leaf, p: Leaf) -> Leaf:
            amount = cast(strength, u.dtype)
            return (u - amount * p.astype(u.dtype)) / (1 + amount) if chosen else u

        spread = _spread("decay_proximally", mask, params)
        return jax.tree.map(shrink, spread, updates, params), ProximalDecayState(increment(state.count))

    return Transform(init, update)
