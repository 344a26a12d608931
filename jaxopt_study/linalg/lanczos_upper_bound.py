"""Probabilistic upper bound on the largest eigenvalue from a Lanczos run with a random start."""

import math

import jax.numpy as jnp
import scipy
from jaxtyping import Array, Float

from jaxopt_study.linalg.block_lanczos import Space

_GRID = 64


def overshoot(
    space: Space, values: Float[Array, " m"], residuals: Float[Array, " m"], size: int, confidence: float
) -> Float[Array, ""]:
    """Return an upper bound, tight to 1 %, on the t ≥ 0 with Σ φᵢ(θ + t)² = 1/δ² for the largest Ritz value θ.

    With β₁ … βₘ the subdiagonal and rᵢ the residual norms of the Ritz values θᵢ,

        φₘ(x) = Πᵢ (x − θᵢ)/βᵢ  and  Σᵢ φᵢ(x)² = φₘ(x)² (1 + Σᵢ rᵢ²/(x − θᵢ)²),

    The sum is evaluated in logarithms on a grid that is refined once. Every β counts as at least ε · max ‖Hq‖.
    """
    known = jnp.arange(values.shape[0], dtype=jnp.int32) < space.count
    count = space.count.astype(values.dtype)
    gaps = jnp.where(known, values[space.count - 1] - values, 0)
    betas, eps = jnp.diagonal(space.projected, -1), float(jnp.finfo(values.dtype).eps)
    betas = jnp.maximum(betas, jnp.maximum(eps * space.scale, jnp.finfo(values.dtype).tiny))
    betas = jnp.sum(jnp.where(known[:-1], jnp.log(betas), 0))
    target = -math.log(least_overlap(size, confidence))  # log 1/δ²

    def excess(log_t: Float[Array, " t"]) -> Float[Array, " t"]:
        apart = jnp.exp(log_t)[:, None] + gaps[None, :]
        logs = jnp.sum(jnp.where(known[None, :], jnp.log(apart), 0), axis=1)
        spread = jnp.sum(jnp.where(known[None, :], (residuals[None, :] / apart) ** 2, 0), axis=1)
        return 2 * (logs - betas) + jnp.log1p(spread) - target

    # x − θᵢ ≥ t for every i, so the root lies below this t; the search starts at ε times it.
    high = (0.5 * target + betas) / count
    low = high + math.log(eps)
    for _ in range(2):
        grid = low + (high - low) * jnp.linspace(0, 1, _GRID, dtype=values.dtype)
        first = jnp.argmax(excess(grid.at[-1].set(high)) >= 0)
        first = jnp.where(first == 0, jnp.where(excess(grid[:1])[0] >= 0, 0, _GRID - 1), first)
        low, high = grid[jnp.maximum(first - 1, 0)], grid[first]
    return jnp.exp(high)


def least_overlap(n: int, confidence: float) -> float:
    """Return δ² with P(⟨u, q⟩² < δ²) = (1 − confidence)/2 for q uniform on the unit sphere in n dimensions.

    The bound is sharp for a simple, isolated λmax; the factor ½ allows for rounding and for pseudo-random numbers.
    """
    return 1.0 if n == 1 else float(scipy.special.betaincinv(0.5, 0.5 * (n - 1), 0.5 * (1 - confidence)))
