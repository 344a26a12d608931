"""Gradient and evaluation points that differ from the trained parameters, such as those of the atoms in `_nesterov`.

If a transformation needs the gradient at another point, its state has a method `gradient_point`; if the parameters to
use differ from those it trains, its state has a method `evaluation_params`. Both are found at any depth of an optimizer
state.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Inexact, PyTree, Shaped

from jaxopt_study.transforms._flax_containers import refuse_holder, unwrapped
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import ScalarLike, check_non_negative


@runtime_checkable
class LooksAhead(Protocol):
    """State of a transformation that needs the gradient at a point other than the parameters."""

    def gradient_point(self, params: PyTree) -> PyTree:
        """Return the point of the next gradient, with the structure and dtypes of the parameters."""
        ...


@runtime_checkable
class TrainsOtherParams(Protocol):
    """State of a transformation whose trained parameters are not the ones to evaluate and use."""

    def evaluation_params(self, params: PyTree, learning_rate: ScalarLike | None = None) -> PyTree:
        """Return the parameters to evaluate, with the structure and dtypes of the trained ones."""
        ...


def gradient_point(params: Any, state: Any) -> Any:
    """Return the point at which the next gradient must be taken.

    With the velocity v and the next step's decay γ of the `nesterov_lookahead` in the state, it is

        θ − γ v

    and θ itself for a chain without a look-ahead. The state is found inside `optax.chain`, `optax.masked`,
    `optax.partition` and `optax.inject_hyperparams`, and may be batched, inside `vmap` or outside. A transformation of
    your own is included if its state has a method `gradient_point(params)`.

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
    return _moved("gradient_point", params, state, LooksAhead, lambda part, point: part.gradient_point(point))


def evaluation_params(params: Any, state: Any, *, learning_rate: ScalarLike | None = None) -> Any:
    """Return the parameters to evaluate when they are not the trained ones: Nesterov's iterates, or an average.

    With the look-ahead point φ, and the trace a and the next step's decay γ of the `nesterov` in the state:

        θ = φ − γ a   after scale_by_learning_rate,   θ = φ + γ η a   before it


    For `average_iterates` it is the average, or the parameters themselves before the first step; for
    `optax.contrib.schedule_free`, the average x = (y − (1−β₁) z)/β₁; for `optax.lookahead`, the slow parameters of the
    pair. A transformation of your own is included if its state has a method `evaluation_params(params, learning_rate)`.

    Args:
        params: φ, the parameters as trained.
        state: The state of the whole optimizer, as it returned it or as `nnx.Optimizer.opt_state` holds it.
        learning_rate: η if `nesterov` comes before `scale_by_learning_rate` in its chain, as in PyTorch and Optax; None
            if it comes after, where the trace already contains −η.

    Returns:
        The parameters to evaluate, of the same structure; `params` itself if they are those trained. Cost: one pass
        over the parameters.

    Raises:
        ValueError: If a state does not have the structure and shapes of the parameters, or `learning_rate` is negative.
        TypeError: If `learning_rate` is not one real number.

    Example:
        >>> tx = chain(scale_by_learning_rate(0.1), nesterov(0.9))
        >>> updates, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
        >>> print(evaluation_params(updates, state))  # started at 0: the first iterate is −η g
        [-0.1]

    References:
        Bengio, Boulanger-Lewandowski and Pascanu (2013), Advances in optimizing recurrent networks, section 3.5.
        Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky (2024), The Road Less Scheduled.
    """
    if learning_rate is not None:
        check_non_negative("evaluation_params", "learning_rate", learning_rate)
    slow = params.slow if isinstance(params, optax.LookaheadParams) else params

    def evaluated(part: Any, point: Any) -> Any:
        if isinstance(part, optax.contrib.ScheduleFreeState):
            return _average_of_schedule_free(part, point)
        return part.evaluation_params(point, learning_rate)

    kinds = (TrainsOtherParams, optax.contrib.ScheduleFreeState)
    return _moved("evaluation_params", slow, state, kinds, evaluated)


def shifted(params: Any, direction: Any, amount: Any) -> Any:
    """Return θ + amount · direction.

    Args:
        params: θ.
        direction: A tree of the same structure; `optax.MaskedNode` marks parameters that do not move.
        amount: One number, or one per element of a state batched outside `vmap`, along the leading axis of its leaves.

    Returns:
        Parameters of the same structure and dtypes.

    Raises:
        ValueError: If structure or shapes differ.
    """

    def move(d: Any, p: Any) -> Any:
        return p + (over_lanes(amount, d).astype(d.dtype) * d).astype(jnp.result_type(p))

    return over_seen(move, direction, params)


def over_seen(fn: Any, tree: Any, params: Any) -> Any:
    """Map fn(state leaf, parameter) over a tree, keeping parameters that the transformation does not see.

    Args:
        fn: A function of two arrays of equal shape.
        tree: A part of the state with the parameters' structure, or with `optax.MaskedNode` in their place.
        params: The parameters.

    Returns:
        A tree like the parameters.

    Raises:
        ValueError: If structure or shapes differ.
    """

    def one(leaf: Any, p: Any) -> Any:
        if isinstance(leaf, optax.MaskedNode):
            return p
        if np.shape(leaf) != np.shape(p):
            raise ValueError(f"the state has shape {np.shape(leaf)}, the parameters have shape {np.shape(p)}.")
        return fn(leaf, p)

    return jax.tree.map(one, tree, params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))


def over_lanes(values: Shaped[Array, "*lanes"], like: Inexact[Array, "..."]) -> Shaped[Array, "..."]:
    """Return a number, or a batch of numbers, shaped to multiply a leaf along its leading batch axes."""
    return jnp.reshape(values, jnp.shape(values) + (1,) * (like.ndim - jnp.ndim(values)))


def _moved(caller: str, params: Any, state: Any, kind: Any, move: Any) -> Any:
    """Return the parameters after every state of the given kind inside `state` has moved them."""
    refuse_holder(caller, state)
    if isinstance(state, Mapping) and "opt_state" in state:
        raise TypeError(
            f"{caller}: pass the optimizer's state itself, the entry 'opt_state'; received the mapping that holds it."
        )
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind))
    parts = [unwrapped(leaf) for leaf in leaves if isinstance(leaf, kind)]
    if not parts:
        return params
    point = unwrapped(params)
    try:
        for part in parts:
            point = move(part, point)
    except ValueError as error:
        raise ValueError(
            f"{caller}: the optimizer state does not belong to these parameters: {error} Pass the state that was "
            "initialised with them."
        ) from error
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(point))


def _average_of_schedule_free(state: Any, params: Any) -> Any:
    def average(z: Leaf, y: Leaf) -> Leaf:
        b1 = over_lanes(jnp.asarray(state.b1, y.dtype), y)
        return (y - (1 - b1) * z.astype(y.dtype)) / b1

    return over_seen(average, state.z, params)
