"""Estimates from random probes, with standard errors and confidence intervals."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import scipy
from jax.tree_util import GetAttrKey
from jaxtyping import Array, Float, Int

from jaxopt_study._display import displayed
from jaxopt_study.curvature._noise_floor import GROWTH
from jaxopt_study.curvature.spectrum import _cards

TWO_PROBES = "An error estimate takes two probes."


class Estimate(NamedTuple):
    """An estimate from random probes.

    Attributes:
        value: The estimate, a scalar, or a pytree like the parameters.
        standard_error: Standard deviation over the choice of probes, estimated from their spread, in the same form; at
            least the rounding error, which is all of it where the value is exact. It excludes errors of mini-batches.
        num_matvecs: Number of products.
    """

    value: Any
    standard_error: Any
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.estimate)


class MethodEstimate(Estimate):
    """An estimate that knows its method.

    Attributes:
        value: As in `Estimate`.
        standard_error: As in `Estimate`.
        num_matvecs: As in `Estimate`.
        method: Name of the method.
    """

    method: str = ""


def by_method(method: str, estimate: Estimate) -> MethodEstimate:
    """Return an estimate with the name of its method."""
    named = MethodEstimate(*estimate)
    named.method = method
    return named


jax.tree_util.register_pytree_with_keys(
    MethodEstimate,
    lambda found: (tuple(zip(map(GetAttrKey, found._fields), found, strict=True)), found.method),
    lambda method, parts: by_method(method, Estimate(*parts)),
)


def mean_and_error(samples: Float[Array, " p *shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return the mean over the leading axis and its standard error s/√p, s² with p − 1 in the denominator."""
    return jnp.mean(samples, axis=0), standard_error(samples)


def standard_error(samples: Float[Array, " p *shape"]) -> Float[Array, "*shape"]:
    """Return √(Σ (x − mean)² / (p (p − 1))) over the leading axis; the squares stay in range for any size of x."""
    p = samples.shape[0]
    deviation = jnp.abs(samples - jnp.mean(samples, axis=0, keepdims=True))
    largest = jnp.max(deviation, axis=0)
    scale = jnp.where(largest > 0, largest, 1)
    return largest * jnp.sqrt(jnp.sum((deviation / scale[None]) ** 2, axis=0) / (p * (p - 1)))


def ratio_and_error(
    numerators: Float[Array, " p"], denominators: Float[Array, " p"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return a ratio of two means over the same probes, and its standard error.

    With means a and b of pairs (aᵢ, bᵢ), and r = a/b, to first order in the deviations from the means (delta method):

        error² = Σ (aᵢ − r bᵢ)² / (p (p − 1) b²)

    Args:
        numerators: a of p probes.
        denominators: b of the same probes; their mean must not be 0 within its error.

    Returns:
        The ratio and its standard error; NaN for 0/0.
    """
    largest = jnp.maximum(jnp.max(jnp.abs(numerators)), jnp.max(jnp.abs(denominators)))
    scale = jnp.where(largest > 0, largest, 1)
    a, b = numerators / scale, denominators / scale  # of order one, so that the differences do not underflow
    ratio = jnp.mean(a) / jnp.mean(b)
    return ratio, standard_error(a - ratio * b) / jnp.abs(jnp.mean(b))


def rounding_of_sum(size: int, floor: float, largest: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the rounding error of a sum of n computed eigenvalues, or of the positive or negative ones of them.

    Each has an error of about the noise floor times ‖H‖. Errors of products are independent; those of Lanczos nodes, an
    eighth of the floor, are not, since one node stands for many eigenvalues.

    Args:
        size: n.
        floor: Relative error of a product.
        largest: ‖H‖, the largest |λ|.

    Returns:
        max(√n, n/8) · floor · ‖H‖.
    """
    return max(math.sqrt(size), size / 8) * floor * largest


def mean_of_function(
    weights: Float[Array, "p m"], values: Float[Array, "p m"], size: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the mean of a function of the n eigenvalues, and its standard error, from quadratures of random vectors.

    For v uniform on the unit sphere, vᵀ f(H) v has the variance V/N, where V is the variance of f over the eigenvalues
    and N = n/2 + 1. An estimate of V from all nodes is more accurate than the spread of p numbers, which may be skewed:

        mean = μ = (1/p) Σ wᵢ fᵢ,  error² = (1/p) Σ wᵢ (fᵢ − μ)² / (pN − 1)

    The error is at least 16 ε times the root mean square of f, for rounding.

    Args:
        weights: w of p probes (p, m); each row has the sum 1.
        values: f at the nodes (p, m).
        size: n.

    Returns:
        The mean and its standard error.
    """
    p = weights.shape[0]
    mean = jnp.sum(weights * values) / p
    deviation = jnp.where(weights == 0, 0, jnp.abs(values - mean))
    largest = jnp.max(deviation)
    scale = jnp.where(largest > 0, largest, 1)
    spread = jnp.sum(weights * (deviation / scale) ** 2) / p
    rounding = GROWTH * jnp.finfo(mean.dtype).eps * root_mean_square(weights, values)
    return mean, jnp.maximum(largest * jnp.sqrt(spread / (p * (size / 2 + 1) - 1)), rounding)


def root_mean_square(weights: Float[Array, "p m"], values: Float[Array, "p m"]) -> Float[Array, ""]:
    """Return √((1/p) Σ wᵢ fᵢ²); the squares stay in range."""
    sizes = jnp.where(weights == 0, 0, jnp.abs(values))
    largest = jnp.max(sizes)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum(weights * (sizes / scale) ** 2) / weights.shape[0])


def band_of_shares(
    mean: Float[Array, "*grid"], num_probes: int, size: int, confidence: float
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Return the ends of a confidence interval for a share k/n of the eigenvalues, from its mean over p probes.

    For v uniform on the unit sphere, the sum of squares of v's components along k of n eigenvectors has the
    distribution Beta(k/2, (n − k)/2), with mean F = k/n and variance F (1 − F)/N, N = n/2 + 1. With few eigenvalues it
    is skewed, and the spread of few probes is a poor estimate. Since the variance is known for every F, the interval
    contains those F from which the mean deviates by at most z of their own standard deviations: Wilson's interval with
    pN trials.

    Args:
        mean: Means of the shares over the probes.
        num_probes: p.
        size: n.
        confidence: In (0, 1).

    Returns:
        The lower and the upper ends, in [0, 1].
    """
    trials = num_probes * (size / 2 + 1)
    z = float(scipy.special.ndtri(0.5 + confidence / 2))
    middle = (mean + z**2 / (2 * trials)) / (1 + z**2 / trials)
    inside = jnp.maximum(mean * (1 - mean), 0) / trials + (z / (2 * trials)) ** 2
    half = z * jnp.sqrt(inside) / (1 + z**2 / trials)
    return jnp.clip(middle - half, 0, mean), jnp.clip(middle + half, mean, 1)
