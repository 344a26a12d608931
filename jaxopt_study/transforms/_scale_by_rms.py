"""Scaling by the root of past squared gradients: AdaGrad, RMSprop and AdaDelta."""

import jax.numpy as jnp

from jaxopt_study._checks import check_bool
from jaxopt_study.transforms._adaptive import scale_by_update_rms
from jaxopt_study.transforms._bias_correction import bias_correction
from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._constructors import composite
from jaxopt_study.transforms._elementwise import identity
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._functions import divide_by_deviation, divide_by_root
from jaxopt_study.transforms._scalars import ScalarLike, check_non_negative
from jaxopt_study.transforms._statistics import ema, total


@composite()
def scale_by_adagrad(*, eps: ScalarLike = 1e-8, eps_root: ScalarLike = 0.0, initial: ScalarLike = 0.0) -> Transform:
    """Divide each coordinate by the Euclidean norm of its gradient history.

    gₜ / (√(Sₜ + ε_root) + ε),  Sₜ = Sₜ₋₁ + gₜ²,  S₀ = initial

    The effective learning rate falls as 1/√t and never rises again.

    Args:
        eps: ε ≥ 0 outside the root.
        eps_root: ε ≥ 0 inside the root.
        initial: S₀ ≥ 0.

    Returns:
        A chain of `total` and `identity` under `divide_by_root`.

    Example:
        >>> tx = scale_by_adagrad(eps=0.0)
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(4):
        ...     updates, state = tx.update(jnp.array([7.0]), state)
        >>> print(updates)  # 1/√t
        [0.5]

    References:
        Duchi, Hazan and Singer (2011), Adaptive subgradient methods, figure 1. Optax's `scale_by_rss` fixes the place
        of ε.
    """
    return merge(divide_by_root(eps=eps, eps_root=eps_root), identity(), total(of=jnp.square, initial=initial))


@composite()
def scale_by_rms(
    decay: ScalarLike = 0.9,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    initial: ScalarLike = 0.0,
    centered: bool = False,
    corrected: bool = False,
) -> Transform:
    """Divide each coordinate by the root mean square of its recent gradients.

    gₜ / (√(vₜ + ε_root) + ε),  vₜ = ρ vₜ₋₁ + (1 − ρ) gₜ²,  v₀ = initial

    Without bias correction of v, the first steps from v₀ = 0 are up to 1/√(1 − ρ) times too large.

    Args:
        decay: ρ in [0, 1).
        eps: ε ≥ 0 outside the root.
        eps_root: ε ≥ 0 inside the root.
        initial: v₀ ≥ 0.
        centered: Subtract the square of the mean, so that the divisor is a standard deviation.
        corrected: Divide the averages by 1 − ρᵗ, as `bias_correction` does; valid only with v₀ = 0.

    Returns:
        A chain of `ema` and `identity` under `divide_by_root`, or `divide_by_deviation`.

    Example:
        >>> updates, _ = scale_by_rms(0.75).update(jnp.array([7.0]), scale_by_rms(0.75).init(jnp.zeros(1)))
        >>> print(updates.round(6))  # 1/√(1 − ρ)
        [2.]

    References:
        Tieleman and Hinton (2012), Lecture 6.5, slide 29 (ρ = .9); Graves (2013) (centred). Optax fixes the place of ε.
    """
    check_bool("scale_by_rms", "centered", centered)
    check_bool("scale_by_rms", "corrected", corrected)
    check_non_negative("scale_by_rms", "initial", initial)
    first, second = ema(decay), ema(decay, of=jnp.square, initial=initial)
    if corrected:
        first, second = (chain(average, bias_correction(decay)) for average in (first, second))
    if centered:
        return merge(divide_by_deviation(eps=eps, eps_root=eps_root), identity(), second, first)
    return merge(divide_by_root(eps=eps, eps_root=eps_root), identity(), second)


@composite()
def scale_by_adadelta(decay: ScalarLike = 0.95, *, eps: ScalarLike = 1e-6) -> Transform:
    """Give each coordinate a step in its own units, from two accumulators and no learning rate.

    Δₜ = RMS[Δ]ₜ₋₁ / RMS[g]ₜ · gₜ,  RMS[x]ₜ = √(E[x²]ₜ + ε),  E[x²]ₜ = ρ E[x²]ₜ₋₁ + (1 − ρ) xₜ²

    Args:
        decay: ρ in [0, 1), of both accumulators.
        eps: ε > 0, inside both roots. It sets the size of the first steps.

    Returns:
        A chain of `scale_by_rms` and `scale_by_update_rms`.

    Example:
        >>> tx = scale_by_adadelta(0.0, eps=1e-6)
        >>> updates, _ = tx.update(jnp.array([1e3]), tx.init(jnp.zeros(1)))
        >>> print(updates)  # √ε at first, whatever the gradient
        [0.001]

    References:
        Zeiler (2012), ADADELTA, Algorithm 1; ρ and ε from section 4.1.
    """
    return chain(scale_by_rms(decay, eps=0.0, eps_root=eps), scale_by_update_rms(decay, eps=eps))
