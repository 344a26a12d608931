"""Spectral density of the Hessian in the optimizer's metric, and the share of it beyond the stability threshold."""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import SpectralDensity, noise_floor, spectral_density
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._preconditioning import preconditioned_step
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, Key, LossFn, Params


class PreconditionedDensity(NamedTuple):
    """Distribution of the eigenvalues of P^-½ H P^-½, and the stability threshold in this metric.

    Attributes:
        density: Density, shares and outliers, as from `curvature.spectral_density`.
        threshold: Eigenvalue beyond which the step is unstable.
        unstable_share: Share of the eigenvalues beyond the threshold.
        unstable_share_error: Its standard error over the probes; at least the share of the nodes within the noise
            floor of the threshold.
    """

    density: SpectralDensity
    threshold: float
    unstable_share: Float[Array, ""]
    unstable_share_error: Float[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.preconditioned_density)
    plot = plotted


@nan_is_an_answer
def preconditioned_density(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    key: Key,
    batch_size: int | None = None,
    num_probes: int = 10,
    num_steps: int = 100,
    **options: Any,
) -> PreconditionedDensity:
    """Estimate the spectral density of the Hessian in the optimizer's metric, and the share that is unstable.

    With the diagonal P of `preconditioner`, at the point where the optimizer takes its gradient, the eigenvalues are
    those of P^-½ H P^-½. An eigenvalue above the threshold is a direction in which the step overshoots and grows. For
    gradient descent and momentum P = 1.

    Args:
        optimizer: Any Optax transformation, or chain of this package, whose update is elementwise.
        opt_state: Its state after the last step.
        loss: loss(params, data) → scalar, without randomness.
        params: θ.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        key: Key of the random vectors.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        num_probes: As in `spectral_density`.
        num_steps: As in `spectral_density`.
        options: Other arguments of `spectral_density`.

    Returns:
        Density, threshold and share. Cost: that of `spectral_density`, a gradient, and about a second for the
        threshold.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: As `preconditioner` and `spectral_density`.

    Example:
        >>> curvatures = jnp.linspace(0.0, 100.0, 500)
        >>> loss = lambda p, _: 0.5 * jnp.sum(curvatures * p**2)
        >>> tx, params = optax.sgd(0.025), jnp.ones(500)  # unstable above 2/.025 = 80
        >>> found = preconditioned_density(tx, tx.init(params), loss, params, key=jax.random.key(0), num_steps=40)
        >>> print(bool(abs(found.unstable_share - 0.2) < 4 * found.unstable_share_error))
        True

    References:
        Cohen et al. (2022), Adaptive gradient methods at the edge of stability, section 3: the preconditioned Hessian.
        Ghorbani, Krishnan and Xiao (2019), An Investigation into Neural Net Optimization via Hessian Eigenvalue
        Density, ICML.
    """
    with mesh_context(params):
        step, diagonal, threshold = preconditioned_step(
            "preconditioned_density", optimizer, opt_state, loss, params, data, batch_size
        )
        op = step.curvature.precondition(diagonal)
        density = spectral_density(op, key=key, num_probes=num_probes, num_steps=num_steps, **options)
        noise = options.get("noise_floor")
        share = _beyond(density, threshold, noise_floor(op) if noise is None else noise)
    return PreconditionedDensity(density, threshold, *share)


def _beyond(density: SpectralDensity, threshold: float, floor: float) -> tuple[Float[Array, ""], Float[Array, ""]]:
    limit = jnp.asarray(min(threshold, float(jnp.finfo(density.grid.dtype).max)), density.grid.dtype)
    noise = floor * jnp.max(jnp.abs(density.quadrature.nodes))
    least, share, most = (density.expectation(partial(_indicator, limit + shift)) for shift in (noise, 0, -noise))
    doubt = jnp.maximum(share.value - least.value, most.value - share.value)
    return share.value, jnp.maximum(share.standard_error, doubt)


def _indicator(limit: Float[Array, ""], eigenvalues: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    beyond = jnp.where(jnp.isnan(eigenvalues), eigenvalues, (eigenvalues > limit).astype(eigenvalues.dtype))
    return beyond
