"""The numbers of negative and flat eigenvalues, from a compression of the operator or from random probes."""

import math
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study._display import displayed
from jaxopt_study.curvature.points import _cards
from jaxopt_study.curvature.spectrum._eigenvalue_counts import Compression, proved_counts
from jaxopt_study.curvature.spectrum._estimate import band_of_shares
from jaxopt_study.linalg.gauss_quadrature import Quadrature


class Resolution(IntEnum):
    """Source of an index: estimate or proof."""

    ESTIMATED = 0  # from random probes, or some eigenvalues are within their error of ±τ
    EXHAUSTED = 1  # the Krylov space became invariant, and no eigenvalue filled a block with its copies
    COMPLETE = 2  # all n eigenvalues were computed


class MorseIndex(NamedTuple):
    """The numbers of eigenvalues below −τ, and within ±τ.

    Attributes:
        lower_bound: Proved lower bound on the number of eigenvalues below −τ, up to the noise floor.
        estimate: Number of eigenvalues below −τ; an integer where it is exact.
        interval: Lower and upper end: a confidence interval if estimated, otherwise the range left open by rounding.
        flat: Number of eigenvalues within ±τ, like `estimate`.
        flat_interval: Its lower and upper end, like `interval`.
        positive_lower_bound: Proved lower bound on the number of eigenvalues above τ.
        tau: τ, in units of an eigenvalue.
        error: δ, the error of an eigenvalue. The bounds do not count eigenvalues within δ of ±τ.
        scale: Largest |eigenvalue| or ‖H q‖, the unit of the noise floor.
        resolution: A `Resolution`, as an integer.
        num_matvecs: Number of products.
    """

    lower_bound: Int[Array, ""]
    estimate: Float[Array, ""]
    interval: Float[Array, "2"]
    flat: Float[Array, ""]
    flat_interval: Float[Array, "2"]
    positive_lower_bound: Int[Array, ""]
    tau: Float[Array, ""]
    error: Float[Array, ""]
    scale: Float[Array, ""]
    resolution: Int[Array, ""]
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.morse_index)

    @property
    def exact(self) -> Bool[Array, "..."]:
        """Whether index and number of flat directions are exact, as `resolution` states."""
        return self.resolution > 0


@partial(jax.jit, static_argnums=2)
def index_of_all_eigenvalues(compression: Compression, tau: Float[Array, ""], noise_floor: float) -> MorseIndex:
    """Return the exact numbers from all eigenvalues, up to those within their error of ±τ."""
    values = compression.eigenvalues()
    below, above, near_minus, near_plus = proved_counts(compression, tau, noise_floor)
    n = compression.count.astype(below.dtype)
    finite = jnp.all(jnp.isfinite(values))
    nan = jnp.where(finite, 0.0, jnp.nan).astype(values.dtype)
    most = jnp.where(finite, below + near_minus, n)
    flat_most = jnp.where(finite, n - below - above, n)
    error = compression.error(noise_floor)
    flat_least = jnp.sum(jnp.abs(values) <= tau - error)
    exact = finite & (near_minus + near_plus == 0)
    return MorseIndex(
        lower_bound=below,
        estimate=jnp.sum(values < -tau).astype(nan.dtype) + nan,
        interval=jnp.stack([below, most]).astype(values.dtype),
        flat=jnp.sum(jnp.abs(values) <= tau).astype(nan.dtype) + nan,
        flat_interval=jnp.stack([flat_least, flat_most]).astype(values.dtype),
        positive_lower_bound=above,
        tau=tau,
        error=error,
        scale=compression.scale,
        resolution=jnp.where(exact, Resolution.COMPLETE, Resolution.ESTIMATED).astype(jnp.int32),
        num_matvecs=compression.num_matvecs,
    )


@partial(jax.jit, static_argnums=(2, 3, 4))
def index_of_krylov_space(
    compression: Compression, tau: Float[Array, ""], n: int, b: int, noise_floor: float
) -> MorseIndex:
    """Return the proved bounds and, for an exhausted space, the exact numbers."""
    below, above, _, _ = proved_counts(compression, tau, noise_floor)
    error = compression.error(noise_floor)
    values = compression.eigenvalues(compression.exhausted)
    # The coupling of an exhausted space to the rest is below the noise floor and was set to zero.
    wide = error + 2 * math.sqrt(b) * noise_floor * compression.scale
    undecided = jnp.any(jnp.abs(jnp.abs(values) - tau) < wide)
    crowded = (values[b - 1 :] - values[: values.shape[0] - b + 1] <= 2 * wide) & (
        jnp.abs(values[: values.shape[0] - b + 1]) > tau
    )
    exact = (compression.exhausted > 0) & ~undecided & ~jnp.any(crowded)
    negative, positive = jnp.sum(values < -tau), jnp.sum(values > tau)
    number = jnp.where(exact, negative.astype(error.dtype), jnp.nan)
    flat = jnp.where(exact, (n - negative - positive).astype(error.dtype), jnp.nan)
    return MorseIndex(
        lower_bound=below,
        estimate=number,
        interval=jnp.stack([number, number]),
        flat=flat,
        flat_interval=jnp.stack([flat, flat]),
        positive_lower_bound=above,
        tau=tau,
        error=error,
        scale=compression.scale,
        resolution=jnp.where(exact, Resolution.EXHAUSTED, Resolution.ESTIMATED).astype(jnp.int32),
        num_matvecs=compression.num_matvecs,
    )


@partial(jax.jit, static_argnums=(2, 3))
def index_of_probes(proved: MorseIndex, quadrature: Quadrature, n: int, confidence: float) -> MorseIndex:
    """Return the estimated numbers, or the exact ones where they are known."""
    p, dtype = quadrature.nodes.shape[0], quadrature.nodes.dtype
    nodes = quadrature.nodes, quadrature.weights, quadrature.residuals
    minus = jax.vmap(partial(_share, -proved.tau, "left"))(*nodes)
    plus = jax.vmap(partial(_share, proved.tau, "right"))(*nodes)
    below, above = proved.lower_bound.astype(dtype), proved.positive_lower_bound.astype(dtype)

    def interval(
        lower: Float[Array, " p"], upper: Float[Array, " p"], least: Float[Array, ""], most: Float[Array, ""]
    ) -> Float[Array, "2"]:
        first, _ = band_of_shares(jnp.mean(lower), p, n, confidence)
        _, last = band_of_shares(jnp.mean(upper), p, n, confidence)
        ends = jnp.stack([first, last])
        ends = jnp.where(finite, ends, jnp.arange(2, dtype=ends.dtype)).astype(dtype)
        return jnp.clip(n * ends, least, most)

    exact, finite = proved.resolution > 0, jnp.all(jnp.isfinite(quadrature.nodes))
    nan = jnp.where(finite, 0, jnp.nan).astype(dtype)
    flat_lower, flat_upper = jnp.maximum(plus[1] - minus[2], 0), plus[2] - minus[1]
    zero = jnp.zeros((), dtype)
    return proved._replace(
        estimate=jnp.where(exact, proved.estimate, jnp.clip(n * jnp.mean(minus[0]) + nan, below, n - above)),
        interval=jnp.where(exact, proved.interval, interval(minus[1], minus[2], below, n - above)),
        flat=jnp.where(exact, proved.flat, jnp.clip(n * jnp.mean(plus[0] - minus[0]) + nan, 0, n - below - above)),
        flat_interval=jnp.where(exact, proved.flat_interval, interval(flat_lower, flat_upper, zero, n - below - above)),
        num_matvecs=proved.num_matvecs + quadrature.num_matvecs,
    )


def _share(
    at: Float[Array, ""],
    side: str,
    nodes: Float[Array, " m"],
    weights: Float[Array, " m"],
    residuals: Float[Array, " m"],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Return the weight of the nodes below a, and bounds on the true weight of one probe below a."""
    m = nodes.shape[0]
    below = jnp.searchsorted(nodes, at, side=side)
    sums = jnp.concatenate([jnp.zeros(1, weights.dtype), jnp.cumsum(weights)])
    share = sums[below]
    apart = jnp.abs(nodes - at)
    leaks = jnp.where(residuals >= apart, 1, residuals / jnp.where(apart > 0, apart, 1))
    leak = jnp.sum(jnp.sqrt(weights) * leaks)
    lower = jnp.maximum(sums[jnp.maximum(below - 1, 0)], jnp.maximum(jnp.sqrt(share) - leak, 0) ** 2)
    upper = jnp.minimum(sums[jnp.minimum(below + 1, m)], (jnp.sqrt(share) + leak) ** 2)
    return share, lower, jnp.minimum(upper, 1)
