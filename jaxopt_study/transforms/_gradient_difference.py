"""The change of the gradient from one step to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import Leaf


class DifferenceState(NamedTuple):
    """The gradient of the previous step."""

    previous: optax.Updates  # gₜ₋₁, structure and dtypes of the parameters
    started: Bool[Array, "*batch"]  # whether there was a previous step


@atom(state=DifferenceState, linear=True)
def gradient_difference() -> Transform:
    """Replace the gradient by its change since the previous step.

    With gradient gₜ, elementwise:

        dₜ = gₜ − gₜ₋₁,  d₁ = 0

    The difference is not smoothed, and the noise of two mini-batches adds up. Adan averages it with `ema`.

    Returns:
        A transformation whose output has the parameters' structure. Cost: one read and one write of the gradient.

    Example:
        >>> tx = gradient_difference()
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in [3.0, 5.0]:
        ...     change, state = tx.update(jnp.array([g]), state)
        >>> print(change)
        [2.]

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Adan, Algorithm 1.
    """

    def init(params: PyTree) -> DifferenceState:
        return DifferenceState(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), dtype=bool))

    def update(
        updates: PyTree, state: DifferenceState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, DifferenceState]:
        change = jax.tree.map(lambda g, p: jnp.where(state.started, _change(g, p), 0), updates, state.previous)
        previous = jax.tree.map(lambda g, p: g.astype(p.dtype), updates, state.previous)
        return change, DifferenceState(previous, jnp.ones((), dtype=bool))

    return Transform(init, update)


def _change(g: Leaf, before: Leaf) -> Leaf:
    """Return g − before, limited to the largest finite number where both are finite, so that no mean of it is ∞ − ∞."""
    change = g - before.astype(g.dtype)
    if jnp.iscomplexobj(change):
        return change
    largest = jnp.finfo(change.dtype).max
    return jnp.where(jnp.isfinite(g) & jnp.isfinite(before), jnp.clip(change, -largest, largest), change)
