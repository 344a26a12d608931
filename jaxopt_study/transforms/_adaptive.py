"""Atoms specific to one method: AdaDelta's update scaling, NAdam's average, RAdam's rectification."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxopt_study._checks import check_bool
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import RealLeaf
from jaxopt_study.transforms._scalars import (
    ScalarLike,
    cast,
    check_decay,
    check_interval,
    check_non_negative,
    complement,
    increment,
    one_minus_power,
)


class UpdateRmsState(NamedTuple):
    """Moving average of the squared updates."""

    average: optax.Updates  # E[Δ²]ₜ, structure of the parameters


@atom(state=UpdateRmsState)
def scale_by_update_rms(decay: ScalarLike = 0.95, *, eps: ScalarLike = 1e-6) -> Transform:
    """Multiply by the root mean square of the updates this transformation itself has returned.

    With input xₜ, decay ρ and E₀ = 0, elementwise:

        Δₜ = √(Eₜ₋₁ + ε) xₜ,  Eₜ = ρ Eₜ₋₁ + (1 − ρ) Δₜ²

    This is AdaDelta's numerator: it gives the step the units of the parameters, and ε sets the size of the first step.
    The input must be normalised: applied to a plain gradient, the recursion diverges.

    Args:
        decay: ρ in [0, 1).
        eps: ε > 0. At 0 no step is ever taken.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of E.

    Raises:
        ValueError: If `decay` is outside [0, 1), or `eps` is not positive.

    Example:
        >>> tx = scale_by_update_rms(eps=0.01)
        >>> print(tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))[0].round(6))  # √ε
        [0.1]

    References:
        Zeiler (2012), ADADELTA, Algorithm 1, steps 5 and 6; ρ and ε from section 4.1.
    """
    check_decay("scale_by_update_rms", decay)
    check_interval("scale_by_update_rms", "eps", eps, 0.0, float("inf"), closed="()")
    rate = complement(decay)

    def init(params: PyTree) -> UpdateRmsState:
        return UpdateRmsState(jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: PyTree, state: UpdateRmsState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, UpdateRmsState]:
        new = jax.tree.map(lambda x, e: jnp.sqrt(e + cast(eps, e.dtype)) * x.astype(e.dtype), updates, state.average)

        def move(d: RealLeaf, e: RealLeaf) -> RealLeaf:
            moved = cast(decay, e.dtype) * e + cast(rate, e.dtype) * (d * d)
            return jnp.minimum(moved, jnp.finfo(e.dtype).max)  # with infinity, the next zero would give 0 · ∞

        return new, UpdateRmsState(jax.tree.map(move, new, state.average))

    return Transform(init, update)


class NadamAverageState(NamedTuple):
    """Average of the gradient, and the product of the momenta that formed it."""

    average: optax.Updates  # mₜ, structure and dtypes of the parameters
    product: Float[Array, "*batch"]  # μ₁ ⋯ μₜ
    count: Int[Array, "*batch"]  # steps taken


@atom(state=NadamAverageState, linear=True, neutral={"momentum_decay": 0.0})
def nadam_average(
    decay: ScalarLike = 0.9, *, momentum_decay: ScalarLike = 0.004, average_with_schedule: bool = True
) -> Transform:
    """Replace the gradient by its bias-corrected average, one momentum step ahead.

    With the momentum schedule μₜ = β(1 − ½·.96^(ψt)) and m₀ = 0:

        mₜ = μₜ mₜ₋₁ + (1 − μₜ) gₜ
        uₜ = μₜ₊₁ mₜ / (1 − μ₁⋯μₜ₊₁) + (1 − μₜ) gₜ / (1 − μ₁⋯μₜ)

    Args:
        decay: β in [0, 1), the limit of the momentum.
        momentum_decay: ψ ≥ 0, how fast the momentum grows to its limit.
        average_with_schedule: True averages with μₜ, as in the paper; False with the constant β, as in PyTorch.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of m.

    Raises:
        ValueError: If `decay` is outside [0, 1) or `momentum_decay` is negative.

    Example:
        >>> tx = nadam_average()
        >>> updates, _ = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
        >>> print(updates > 1.0)  # the update already includes the next momentum step
        [ True]

    References:
        Dozat (2016), Incorporating Nesterov momentum into Adam, Algorithm 2 and the schedule of section 3 (ψ = 1/250).
    """
    check_decay("nadam_average", decay)
    check_non_negative("nadam_average", "momentum_decay", momentum_decay)
    check_bool("nadam_average", "average_with_schedule", average_with_schedule)

    def init(params: PyTree) -> NadamAverageState:
        real = jnp.result_type(float)
        return NadamAverageState(
            jax.tree.map(jnp.zeros_like, params), jnp.ones((), dtype=real), jnp.zeros((), dtype=jnp.int32)
        )

    def momentum(step: Int[Array, ""]) -> Float[Array, ""]:
        real = jnp.result_type(float)
        growth = jnp.asarray(momentum_decay, dtype=real) * step.astype(real)
        return jnp.asarray(decay, dtype=real) * (1 - 0.5 * jnp.asarray(0.96, dtype=real) ** growth)

    def update(
        updates: PyTree, state: NadamAverageState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, NadamAverageState]:
        count = increment(state.count)
        now, coming = momentum(count), momentum(count + 1)
        product = state.product * now
        kept = now if average_with_schedule else decay
        fresh = 1 - now if average_with_schedule else complement(decay)
        updates = jax.tree.map(lambda g, m: g.astype(m.dtype), updates, state.average)
        average = jax.tree.map(lambda g, m: cast(kept, m.dtype) * m + cast(fresh, m.dtype) * g, updates, state.average)
        ahead, direct = coming / (1 - product * coming), (1 - now) / (1 - product)
        new = jax.tree.map(lambda g, m: cast(ahead, m.dtype) * m + cast(direct, m.dtype) * g, updates, average)
        return new, NadamAverageState(average, product.astype(state.product.dtype), count)

    return Transform(init, update)


class RectifyState(NamedTuple):
    """Number of steps taken, for the rectification."""

    count: Int[Array, "*batch"]


@atom(state=RectifyState)
def rectify(decay: ScalarLike = 0.999, *, threshold: ScalarLike = 4.0, inclusive: bool = False) -> Transform:
    """Divide a denominator by RAdam's rectification term, or replace it by 1 while its variance is intractable.

    With ρ∞ = 2/(1 − β) − 1 and ρₜ = ρ∞ − 2tβᵗ/(1 − βᵗ), the length of the average's memory:

        uₜ = xₜ / rₜ,  rₜ = √((ρₜ − 4)(ρₜ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρₜ))   if ρₜ > threshold;  uₜ = 1 otherwise

    Apply it to the root of the second moment, and divide the first moment by the result with `merge(divide_by(), …)`.

    Args:
        decay: β in [0, 1), the decay of the second moment.
        threshold: The memory length ρₜ above which the denominator is used, at least 4.
        inclusive: Whether the denominator is also used at ρₜ = threshold.

    Returns:
        A transformation with the structure of the gradient and a counter as state. Cost: fused with its neighbours,
        none.

    Raises:
        ValueError: If `decay` is outside [0, 1) or `threshold` is below 4.

    Example:
        >>> tx = rectify(0.999)
        >>> print(tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)))[0])  # the first step is not normalised
        [1.]

    References:
        Liu, Jiang, He, Chen, Liu, Gao and Han (2020), On the variance of the adaptive learning rate and beyond,
        Algorithm 2 (threshold 4). PyTorch uses > 5, Optax and the authors' code ≥ 5.
    """
    check_decay("rectify", decay)
    check_interval("rectify", "threshold", threshold, 4.0, float("inf"), remedy="Below 4 the variance is infinite.")
    check_bool("rectify", "inclusive", inclusive)

    def init(params: PyTree) -> RectifyState:
        del params
        return RectifyState(jnp.zeros((), dtype=jnp.int32))

    def update(
        updates: PyTree, state: RectifyState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RectifyState]:
        real = jnp.result_type(float)
        count = increment(state.count)
        time = count.astype(real)
        gathered = one_minus_power(decay, count)
        longest = 2.0 / cast(complement(decay), real) - 1.0
        least = cast(threshold, real)
        memory = longest - 2.0 * time * (1.0 - gathered) / gathered
        known = memory >= least if inclusive else memory > least
        safe = jnp.where(known, memory, 5.0)
        square = (safe - 4.0) * (safe - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * safe)
        factor = 1.0 / jnp.sqrt(jnp.where(known, square, 1.0))
        new = jax.tree.map(lambda x: jnp.where(known, x * factor.astype(x.dtype), 1), updates)
        return new, RectifyState(count)

    return Transform(init, update)
