"""Bias correction of a moving average that starts at zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxopt_study._checks import check_integer
from jaxopt_study._programs import wider
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import ScalarLike, check_decay, check_interval, increment, one_minus_power


class BiasCorrectionState(NamedTuple):
    """Number of steps taken."""

    count: Int[Array, "*batch"]  # t


@atom(state=BiasCorrectionState, linear=True)
def bias_correction(decay: ScalarLike, *, power: float = 1.0, ahead: int = 0) -> Transform:
    """Divide by the total weight of a moving average that started at zero.

    With decay β and step t = 1, 2, …:

        uₜ = gₜ / (1 − βᵗ⁺ᵃ)^power

    After `ema(β)` the result is a weighted mean of the past gradients: it is unbiased if the gradient's expectation is
    constant. Without it, Adam's step under a constant gradient is (1 − β₁ᵗ)/√(1 − β₂ᵗ) times too large: 3.2 at the
    first step and 6.6 at the twelfth for β₂ = .999. The factor is −expm1(t·log1p(−(1−β))); computed as 1 − β**t in
    single precision it is off by 1.4e-3 at β = .99999, t = 1.

    Args:
        decay: β in [0, 1), the same as the average's.
        power: From −10 to 10. 1 corrects an average; −½ multiplies by √(1 − β₂ᵗ), the form in which Adam's step is
            often coded.
        ahead: a ≥ 0, the number of steps by which the correction runs ahead: 1 for the look-ahead average of NAdam.

    Returns:
        A transformation whose output has the parameters' structure and whose state is a counter. Cost: fused with its
        neighbours, none.

    Raises:
        ValueError: If `decay` is outside [0, 1), `power` outside [−10, 10], or `ahead` negative.
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> tx = chain(ema(0.999), bias_correction(0.999))
        >>> updates, _ = tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))
        >>> print(updates.round(5))  # the mean of one gradient is that gradient
        [5.]

    References:
        Kingma and Ba (2015), section 3 and Algorithm 1. Optax computes 1 − β**t directly.
    """
    check_decay("bias_correction", decay)
    check_interval("bias_correction", "power", power, -10.0, 10.0, closed="[]")
    check_integer("bias_correction", "ahead", ahead, 0)

    def init(params: PyTree) -> BiasCorrectionState:
        del params
        return BiasCorrectionState(jnp.zeros((), dtype=jnp.int32))

    def update(
        updates: PyTree, state: BiasCorrectionState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, BiasCorrectionState]:
        count = increment(state.count)
        weight = one_minus_power(decay, count + ahead)
        factor = 1 / weight if power == 1.0 else weight**-power

        def correct(g: Leaf) -> Leaf:
            precise = wider(g.dtype, jnp.dtype(jnp.float32))
            return (g.astype(precise) * factor.astype(precise)).astype(g.dtype)

        return jax.tree.map(correct, updates), BiasCorrectionState(count)

    return Transform(init, update)
