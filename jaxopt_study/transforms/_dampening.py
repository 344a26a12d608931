"""Dampening: a weight on the new gradients of a momentum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._scalars import ScalarLike, cast, check_interval, complement, increment


class DampenState(NamedTuple):
    """Number of steps taken."""

    count: Int[Array, "*batch"]


@atom(state=DampenState, linear=True)
def dampen(dampening: ScalarLike) -> Transform:
    """Multiply every gradient except the first by 1 − τ.

    With dampening τ:

        u₁ = g₁,  uₜ = (1 − τ) gₜ for t > 1

    Before `heavy_ball(γ)` it gives PyTorch's dampened momentum, aₜ = γ aₜ₋₁ + (1 − τ) gₜ with a₁ = g₁. With τ = γ that
    is a moving average started at the first gradient, whose weight is then γᵗ⁻¹ instead of (1 − γ) γᵗ⁻¹: `ema` with
    `bias_correction` is the average without that excess.

    Args:
        dampening: τ in [0, 1]; 0 changes nothing.

    Returns:
        A transformation whose state is a counter. Cost: fused with its neighbours, none.

    Raises:
        ValueError: If `dampening` is outside [0, 1].

    Example:
        >>> tx = chain(dampen(0.5), heavy_ball(0.5))
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(5):
        ...     updates, state = tx.update(jnp.array([3.0]), state)
        >>> print(updates)  # τ = γ: the average of a constant is that constant
        [3.]

    References:
        The argument `dampening` of `torch.optim.SGD`, which does not dampen the first gradient either.
    """
    check_interval("dampen", "dampening", dampening, 0.0, 1.0, closed="[]")
    kept = complement(dampening)

    def init(params: PyTree) -> DampenState:
        del params
        return DampenState(jnp.zeros((), dtype=jnp.int32))

    def update(updates: PyTree, state: DampenState, params: PyTree = None, **extra: Any) -> tuple[PyTree, DampenState]:
        first = state.count == 0
        new = jax.tree.map(lambda g: jnp.where(first, g, cast(kept, g.dtype) * g), updates)
        return new, DampenState(increment(state.count))

    return Transform(init, update)
