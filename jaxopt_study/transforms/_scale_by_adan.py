"""Adan's scaling, composed from statistics of the gradient and of its change."""

import jax.numpy as jnp

from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._constructors import composite
from jaxopt_study.transforms._elementwise import identity
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._functions import divide_by_root, weighted_sum
from jaxopt_study.transforms._gradient_difference import gradient_difference
from jaxopt_study.transforms._scalars import ScalarLike
from jaxopt_study.transforms._scale_by_adam import corrected_ema


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
        merge(weighted_sum(weight), corrected_ema(b1), chain(gradient_difference(), corrected_ema(b2))),
        chain(merge(weighted_sum(weight), identity(), gradient_difference()), corrected_ema(b3, jnp.square)),
    )
