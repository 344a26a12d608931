"""Lion's scaling: the sign of an interpolation between the gradient and its mean."""

from typing import Any

import jax.numpy as jnp

from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._constructors import composite
from jaxopt_study.transforms._elementwise import elementwise, identity
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._functions import interpolate
from jaxopt_study.transforms._scalars import ScalarLike
from jaxopt_study.transforms._statistics import ema


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
