"""Jensen–Shannon distances between spectral densities."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_GRID = 256
_ROUNDING = 4  # of a squared distance, in ε


def distances(
    nodes: Float[Array, "blocks p m"],
    weights: Float[Array, "blocks p m"],
    scales: Float[Array, " blocks"],
    width: float,
) -> tuple[Float[Array, "blocks blocks"], Float[Array, "blocks blocks"]]:
    """Return the distances between all pairs of spectra, and their jackknife errors over the probes.

    With probabilities P and Q on a grid, both smoothed by the same normal kernel, M = (P + Q)/2, and logarithms of
    base 2, so that it lies in [0, 1]:

        distance² = ½ Σ P log(P/M) + ½ Σ Q log(Q/M)

    Args:
        nodes: Quadrature nodes of p probes of every block.
        weights: Their weights.
        scales: Number by which the nodes of a block are divided; afterwards they lie in [−1, 1].
        width: Standard deviation of the kernel.

    Returns:
        Distances and standard errors, symmetric, with 0 on the diagonal.
    """
    p = nodes.shape[1]
    reach = 1 + 4 * width
    grid = jnp.linspace(-reach, reach, _GRID, dtype=nodes.dtype)
    scaled = nodes / jnp.where(scales > 0, scales, 1)[:, None, None]

    def of_block(at: tuple[Float[Array, "p m"], Float[Array, "p m"]]) -> Float[Array, "p g"]:
        theta, w = at
        kernel = jnp.exp(-0.5 * ((grid[None, None, :] - theta[:, :, None]) / width) ** 2)
        density = jnp.einsum("pm,pmg->pg", w, kernel, precision=lax.Precision.HIGHEST)
        return density / jnp.sum(density, axis=1, keepdims=True)

    shares = lax.map(of_block, (scaled, weights))
    whole = _all_pairs(jnp.mean(shares, axis=1))

    def without(i: Array) -> Float[Array, "blocks blocks"]:
        return _all_pairs((jnp.sum(shares, axis=1) - shares[:, i]) / (p - 1))

    left = lax.map(without, jnp.arange(p))
    spread = jnp.sum((left - jnp.mean(left, axis=0, keepdims=True)) ** 2, axis=0)
    # The square is a sum of terms of order one that cancel for equal spectra.
    square = _ROUNDING * jnp.finfo(whole.dtype).eps * (1 - jnp.eye(len(whole), dtype=whole.dtype))
    rounding = square / (whole + jnp.sqrt(whole**2 + square) + jnp.finfo(whole.dtype).tiny)
    return whole, jnp.maximum(jnp.sqrt((p - 1) / p * spread), rounding)


def _all_pairs(shares: Float[Array, "blocks g"]) -> Float[Array, "blocks blocks"]:
    return lax.map(lambda one: jax.vmap(lambda other: _distance(one, other))(shares), shares)


def _distance(p: Float[Array, " g"], q: Float[Array, " g"]) -> Float[Array, ""]:
    middle = (p + q) / 2

    def divergence(x: Float[Array, " g"]) -> Float[Array, ""]:
        terms = x * jnp.log2(jnp.where(x > 0, x, 1) / jnp.where(middle > 0, middle, 1))
        return jnp.sum(jnp.where(x == 0, 0, terms))  # NaN stays NaN

    return jnp.sqrt(jnp.clip((divergence(p) + divergence(q)) / 2, 0, 1))
