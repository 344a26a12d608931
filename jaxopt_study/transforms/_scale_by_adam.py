"""Scaling rules of Adam and its variants, each composed from statistics of the gradient."""

from typing import Any, Literal

import jax.numpy as jnp

from jaxopt_study._checks import check_bool, check_choice
from jaxopt_study.transforms._adaptive import nadam_average, rectify
from jaxopt_study.transforms._bias_correction import bias_correction
from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._constructors import composite
from jaxopt_study.transforms._elementwise import elementwise
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._functions import divide_by, divide_by_root, interpolate, magnitude, root
from jaxopt_study.transforms._scalars import ScalarLike, check_decay
from jaxopt_study.transforms._statistics import Statistic, ema, running_max


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
        corrected_ema(b2, jnp.square),
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
    return merge(divide_by(), corrected_ema(b1), running_max(b2, of=magnitude(eps=eps)))


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
    return merge(divide_by_root(eps=eps, eps_root=eps_root), first, corrected_ema(b2, jnp.square))


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


def _first_moment(b1: ScalarLike, nesterov: bool = False, dtype: Any = None) -> Transform:
    """Return the bias-corrected mean of the gradient, one momentum step ahead if requested."""
    if nesterov:
        return merge(interpolate(b1), chain(ema(b1, dtype=dtype), bias_correction(b1, ahead=1)), bias_correction(b1))
    return chain(ema(b1, dtype=dtype), bias_correction(b1))


def corrected_ema(decay: ScalarLike, of: Statistic | None = None) -> Transform:
    """Return the bias-corrected moving average of a statistic of the gradient."""
    return chain(ema(decay, of=of), bias_correction(decay))
