"""Adaptive scaling rules (AdaGrad, RMSprop, Adam, …), each composed from statistics of the gradient."""

from typing import Any, Literal

import jax.numpy as jnp

from jaxopt_study._checks import check_bool, check_choice
from jaxopt_study.transforms._adaptive import nadam_average, rectify, scale_by_update_rms
from jaxopt_study.transforms._bias_correction import bias_correction
from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._constructors import composite
from jaxopt_study.transforms._functions import (
    divide_by,
    divide_by_deviation,
    divide_by_root,
    elementwise,
    identity,
    interpolate,
    magnitude,
    root,
    weighted_sum,
)
from jaxopt_study.transforms._scalars import ScalarLike, check_decay, check_non_negative
from jaxopt_study.transforms._spec import Transform
from jaxopt_study.transforms._statistics import ema, gradient_difference, running_max, total


@composite()
def scale_by_lion(b1: ScalarLike = 0.9, b2: ScalarLike = 0.99, *, mu_dtype: Any = None) -> Transform:
    """Keep only the sign of an interpolation between the gradient and its mean.

    sign(β₁ mₜ₋₁ + (1 − β₁) gₜ),  mₜ = β₂ mₜ₋₁ + (1 − β₂) gₜ

    Args:
        b1: β₁ in [0, 1], the weight of the mean in the step.
        b2: β₂ in [0, 1), the decay of the mean.
        mu_dtype: dtype of the mean; None keeps the parameters'.

    Returns:
        A lagged average and the gradient under `interpolate`, then the sign.

    Example:
        >>> print(scale_by_lion().update(jnp.array([5.0, -1e-3]), scale_by_lion().init(jnp.zeros(2)))[0])
        [ 1. -1.]

    References:
        Chen et al. (2023), Symbolic discovery of optimization algorithms, Algorithm 2; `optax.scale_by_lion`.
    """
    return chain(merge(interpolate(b1), ema(b2, dtype=mu_dtype, lagged=True), identity()), elementwise(jnp.sign))


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


def _corrected_ema(decay, of=None) -> Transform:
    return chain(ema(decay, of=of), bias_correction(decay))


def _first_moment(b1, nesterov: bool = False, dtype: Any = None) -> Transform:
    """Return the bias-corrected mean of the gradient, one momentum step ahead if requested."""
    if nesterov:
        return merge(interpolate(b1), chain(ema(b1, dtype=dtype), bias_correction(b1, ahead=1)), bias_correction(b1))
    return chain(ema(b1, dtype=dtype), bias_correction(b1))


@composite()
def scale_by_adam(
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    mu_dtype: Any = None,
) -> Transform:
    """Divide the mean of the gradient by the root of the mean of its square.

    m̂ₜ / (√(v̂ₜ + ε_root) + ε),  m̂ₜ = mₜ/(1 − β₁ᵗ),  v̂ₜ = vₜ/(1 − β₂ᵗ)

    with the moving averages m of g and v of g².

    Args:
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0 outside the root.
        eps_root: ε ≥ 0 inside the root; must be positive to differentiate the update where gradients vanish.
        mu_dtype: dtype of m; None keeps the parameters'.

    Returns:
        Two bias-corrected averages under `divide_by_root`.

    Example:
        >>> updates, _ = scale_by_adam().update(jnp.array([1e-3]), scale_by_adam().init(jnp.zeros(1)))
        >>> print(updates.round(3))  # the first step is the sign of the gradient
        [1.]

    References:
        Kingma and Ba (2015), Adam, Algorithm 1. Optax's atom hides the averages, their correction and ε.
    """
    return merge(
        divide_by_root(eps=eps, eps_root=eps_root),
        _first_moment(b1, dtype=mu_dtype),
        _corrected_ema(b2, jnp.square),
    )


@composite()
def scale_by_amsgrad(
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    correction: Literal["none", "before", "after"] = "none",
    mu_dtype: Any = None,
) -> Transform:
    """Divide the mean of the gradient by the root of the largest mean of its square so far.

    none: mₜ / (√(v̄ₜ + ε_root) + ε),  v̄ₜ = max(v̄ₜ₋₁, vₜ)
    before: m̂ₜ / (√(v̄ₜ + ε_root) + ε),  v̄ₜ = max(v̄ₜ₋₁, v̂ₜ)
    after: m̂ₜ / (√(v̄ₜ/(1 − β₂ᵗ) + ε_root) + ε),  v̄ₜ = max(v̄ₜ₋₁, vₜ)

    with m̂ₜ = mₜ/(1 − β₁ᵗ) and v̂ₜ = vₜ/(1 − β₂ᵗ). The divisor never falls, except with "after".

    Args:
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0 outside the root.
        eps_root: ε ≥ 0 inside the root.
        correction: Where the bias of v is corrected: nowhere, before the maximum or after it. m is corrected if v is.
        mu_dtype: dtype of m; None keeps the parameters'.

    Returns:
        `scale_by_adam` with a `running_max` in its second branch.

    Raises:
        ValueError: If `correction` is not one of the three.

    Example:
        >>> tx = scale_by_amsgrad(0.0, 0.0, eps=0.0)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in [10.0, 1.0]:
        ...     updates, state = tx.update(jnp.array([g]), state)
        >>> print(updates)  # the large gradient is not forgotten
        [0.1]

    References:
        Reddi, Kale and Kumar (2018), On the convergence of Adam and beyond, Algorithm 2: "none". Optax:
        "before". PyTorch: "after".
    """
    square = ema(b2, of=jnp.square)
    seconds = {
        "none": chain(square, running_max()),
        "before": chain(square, bias_correction(b2), running_max()),
        "after": chain(square, running_max(), bias_correction(b2)),
    }
    check_choice("scale_by_amsgrad", "correction", correction, seconds.keys())
    first = ema(b1, dtype=mu_dtype) if correction == "none" else _first_moment(b1, dtype=mu_dtype)
    return merge(divide_by_root(eps=eps, eps_root=eps_root), first, seconds[correction])


@composite()
def scale_by_adamax(b1: ScalarLike = 0.9, b2: ScalarLike = 0.999, *, eps: ScalarLike = 0.0) -> Transform:
    """Divide the mean of the gradient by its decaying largest magnitude.

    m̂ₜ / uₜ,  uₜ = max(β₂ uₜ₋₁, |gₜ| + ε)

    Args:
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0, added to the gradient's magnitude; 0 in the paper, where a coordinate whose gradients are 0 does not
            move.

    Returns:
        A corrected average and a `running_max` under `divide_by`.

    Raises:
        ValueError: If a decay is outside [0, 1).

    Example:
        >>> updates, _ = scale_by_adamax().update(jnp.array([-7.0, 0.0]), scale_by_adamax().init(jnp.zeros(2)))
        >>> print(updates.round(3))
        [-1.  0.]

    References:
        Kingma and Ba (2015), Adam, Algorithm 2.
    """
    check_decay("scale_by_adamax", b2, "b2")
    return merge(divide_by(), _corrected_ema(b1), running_max(b2, of=magnitude(eps=eps)))


@composite()
def scale_by_nadam(
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    momentum_decay: ScalarLike | None = 0.004,
    average_with_schedule: bool = True,
    mu_dtype: Any = None,
) -> Transform:
    """Divide the mean of the gradient, one momentum step ahead, by the root of the mean of its square.

    m̄ₜ / (√(v̂ₜ + ε_root) + ε), with m̄ from `nadam_average`; at constant momentum m̄ₜ = β₁mₜ/(1 − β₁ᵗ⁺¹) + (1 −
    β₁)gₜ/(1 − β₁ᵗ)

    Args:
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0 outside the root.
        eps_root: ε ≥ 0 inside the root.
        momentum_decay: ψ of the momentum schedule; None keeps the momentum constant.
        average_with_schedule: Whether the average uses the schedule too; see `nadam_average`.
        mu_dtype: dtype of the mean under constant momentum; None keeps the parameters'.

    Returns:
        A look-ahead average and a corrected average under `divide_by_root`.

    Raises:
        ValueError: If `mu_dtype` is given with a momentum schedule.

    Example:
        >>> updates, _ = scale_by_nadam().update(jnp.array([1.0]), scale_by_nadam().init(jnp.zeros(1)))
        >>> print(updates > 1.0)
        [ True]

    References:
        Dozat (2016), Incorporating Nesterov momentum into Adam, Algorithm 2. Optax keeps the momentum constant; PyTorch
        averages with the constant and looks ahead with the schedule.
    """
    if momentum_decay is not None and mu_dtype is not None:
        raise ValueError("scale_by_nadam: mu_dtype needs constant momentum; leave it out, or give momentum_decay=None.")
    if momentum_decay is None:
        first = _first_moment(b1, nesterov=True, dtype=mu_dtype)
    else:
        first = nadam_average(b1, momentum_decay=momentum_decay, average_with_schedule=average_with_schedule)
    return merge(divide_by_root(eps=eps, eps_root=eps_root), first, _corrected_ema(b2, jnp.square))


@composite()
def scale_by_radam(
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 0.0,
    eps_root: ScalarLike = 0.0,
    threshold: ScalarLike = 4.0,
    inclusive: bool = False,
    eps_corrected: bool = True,
    nesterov: bool = False,
) -> Transform:
    """Scale as Adam does, once the variance of the second moment is tractable.

    rₜ m̂ₜ / (√v̂ₜ + ε) while ρₜ > threshold, m̂ₜ before; ρ and r as in `rectify`

    Args:
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0; 0 in the paper.
        eps_root: ε ≥ 0 inside the root.
        threshold: The memory length ρ above which v is used.
        inclusive: Whether v is also used at ρ = threshold.
        eps_corrected: Whether ε is added to √v̂ (True) or to √v, and corrected with it (False).
        nesterov: Whether the average is taken one momentum step ahead, as in `scale_by_nadam` at constant momentum.

    Returns:
        A corrected average divided by a rectified root.

    Example:
        >>> updates, _ = scale_by_radam().update(jnp.array([7.0]), scale_by_radam().init(jnp.zeros(1)))
        >>> print(updates.round(5))  # the first step is not normalised
        [7.]

    References:
        Liu et al. (2020), On the variance of the adaptive learning rate and beyond, Algorithm 2. PyTorch: > 5 and ε
        beside √v; Optax: ≥ 5 and ε beside √v̂.
    """
    check_bool("scale_by_radam", "eps_corrected", eps_corrected)
    check_bool("scale_by_radam", "nesterov", nesterov)
    square = ema(b2, of=jnp.square)
    if eps_corrected:
        denominator = chain(square, bias_correction(b2), elementwise(root(eps=eps, eps_root=eps_root)))
    else:
        denominator = chain(square, elementwise(root(eps=eps, eps_root=eps_root)), bias_correction(b2, power=0.5))
    rectified = chain(denominator, rectify(b2, threshold=threshold, inclusive=inclusive))
    return merge(divide_by(), _first_moment(b1, nesterov), rectified)


@composite()
def scale_by_adan(
    b1: ScalarLike = 0.98,
    b2: ScalarLike = 0.92,
    b3: ScalarLike = 0.99,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    difference_weight: ScalarLike | None = None,
) -> Transform:
    """Divide the mean gradient plus its mean change by the root of the mean of their square.

    (m̂ₜ + w d̂ₜ) / (√(n̂ₜ + ε_root) + ε), with averages m of g, d of gₜ − gₜ₋₁ and n of (gₜ + w(gₜ − gₜ₋₁))²,
    bias-corrected

    Args:
        b1: Decay of m; the paper's 1 − β₁.
        b2: Decay of d; the paper's 1 − β₂.
        b3: Decay of n; the paper's 1 − β₃.
        eps: ε ≥ 0 outside the root.
        eps_root: ε ≥ 0 inside the root.
        difference_weight: w; None means b2, the paper's 1 − β₂.

    Returns:
        Three corrected averages under `divide_by_root`. The state holds the last gradient twice, once for each
        difference.

    Example:
        >>> updates, _ = scale_by_adan().update(jnp.array([-7.0]), scale_by_adan().init(jnp.zeros(1)))
        >>> print(updates.round(3))
        [-1.]

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Adan, Algorithm 1, with the zero start and bias correction of the authors'
        code. Optax's `scale_by_adan` weighs the change with 1 − b2 = .08 where the paper has .92.
    """
    weight = b2 if difference_weight is None else difference_weight
    return merge(
        divide_by_root(eps=eps, eps_root=eps_root),
        merge(weighted_sum(weight), _corrected_ema(b1), chain(gradient_difference(), _corrected_ema(b2))),
        chain(merge(weighted_sum(weight), identity(), gradient_difference()), _corrected_ema(b3, jnp.square)),
    )
