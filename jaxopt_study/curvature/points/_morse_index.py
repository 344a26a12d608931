"""Morse index: a proved lower bound and an estimate, with the number of flat directions."""

import math
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study._checks import check_integer, check_real, check_static_real
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import check_noise_floor
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.points import _cards
from jaxopt_study.curvature.points._tolerances import Residual
from jaxopt_study.curvature.spectrum._eigenvalue_counts import (
    Compression,
    dense_compression,
    krylov_compression,
    proved_counts,
)
from jaxopt_study.curvature.spectrum._estimate import band_of_shares
from jaxopt_study.linalg.checks import key_or_fixed
from jaxopt_study.linalg.gauss_quadrature import Quadrature, lanczos_quadrature
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key

_TAU = 2  # in errors of an eigenvalue; a zero eigenvalue with one such error is then still flat


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


@nan_is_an_answer
def morse_index(
    op: Operator,
    tau: Any = None,
    *,
    key: Key | None = None,
    num_basis: int = 64,
    block_size: int = 4,
    num_probes: int = 10,
    num_steps: int = 50,
    confidence: float = 0.95,
    noise_floor: float | None = None,
    max_dense: int = 500,
) -> MorseIndex:
    """Count the eigenvalues below −τ: a proved lower bound, an estimate with an interval, and the flat directions.

    **Proof.** For every orthonormal Q the eigenvalues of QᵀHQ interlace those of H, so H has at least as many below −τ
    as QᵀHQ has below −τ − δ. δ bounds the error of the computed matrix: m products with the error of the noise floor,
    plus the measured asymmetry and loss of orthogonality. Without δ, zero eigenvalues that rounding has made negative
    would count.

    **Estimate.** For n ≤ `max_dense`, Q is the identity, and all eigenvalues are counted. Else Q spans a block Krylov
    space. If it becomes invariant (operators of low rank), and no eigenvalue outside of ±τ fills a block with its
    copies, all such eigenvalues were found, with probability 1, and the others are flat. Otherwise stochastic Lanczos
    quadrature estimates the shares of eigenvalues below −τ and within ±τ. The error of m steps for one probe is the
    smaller of two bounds: that of Chebyshev, Markov and Stieltjes, and, with nodes θ, weights w and residuals r,

        |√(share below a) − √(Σ_{θ ≤ a} w)| ≤ Σ √w min(1, r/|θ − a|),

    which is the tighter one for converged nodes. The sampling error, of known variance, is added.

    "Flat" means an eigenvalue within ±τ. The Hessian cannot show whether a direction is flat to all orders.

    For many operators beyond `max_dense` use `lax.map` over all but one axis: with JAX 0.10.2 on two CPU threads a
    `vmap` of 4 over a `vmap` of 40 may deadlock.

    Args:
        op: H, symmetric.
        tau: τ in units of an eigenvalue. None takes 2δ: every eigenvalue not proved to differ from 0 is flat. Where a
            gradient is left, as in `find_critical_point`, take the τ of `classify_point`, in its `index`.
        key: Key of random directions, not used for n ≤ `max_dense`; None for a fixed one.
        num_basis: Number of columns of Q, an upper limit of `lower_bound`. Memory: this number of vectors.
        block_size: Number of starting directions of the Krylov space.
        num_probes: Random vectors of the quadrature, ≥ 2.
        num_steps: Products for each of them.
        confidence: Confidence of an estimated interval, in (0, 1).
        noise_floor: Relative error of a product, `audit(op).noise_floor`; default `noise_floor(op)`, 16 ε.
        max_dense: Largest n for which the matrix is computed.

    Returns:
        The counts. Cost: n products if n ≤ `max_dense`; else num_basis + num_probes · num_steps, without the quadrature
        if the Krylov space was exhausted (except inside a trace). If a product is not finite, the bounds are 0, the
        intervals [0, n] and the estimates NaN.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `tau` is below the noise floor, or an argument is out of range. Inside a trace τ is increased to
            the noise floor instead; the result contains the τ used.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.concatenate([-jnp.linspace(1.0, 2.0, 10), jnp.zeros(890), jnp.linspace(1.0, 3.0, 100)])
        >>> op = from_matvec(lambda v: spectrum * v, spectrum)
        >>> result = morse_index(op, key=jax.random.key(0))
        >>> print(result.lower_bound, bool(result.interval[0] <= 10 <= result.interval[1]))
        10 True
        >>> print(bool(result.flat_interval[0] <= 890 <= result.flat_interval[1]))
        True

    References:
        Parlett (1998), The Symmetric Eigenvalue Problem, sections 10.1 and 10.3: interlacing, Weyl's bound. Golub and
        Meurant (2010), Matrices, Moments and Quadrature, chapters 6 and 7. Chen, Trogdon and Ubaru (2021), Analysis of
        stochastic Lanczos quadrature, ICML.
    """
    name = "morse_index"
    check_operator(name, op)
    key = key_or_fixed(key, name)
    num_basis = check_integer(name, "num_basis", num_basis, 1)
    block_size = check_integer(name, "block_size", block_size, 1)
    num_probes = check_integer(name, "num_probes", num_probes, 2)
    num_steps = check_integer(name, "num_steps", num_steps, 1)
    max_dense = check_integer(name, "max_dense", max_dense, 0)
    confidence = check_static_real(name, "confidence", confidence, 0.0, 1.0, closed="()")
    floor = check_static_real(name, "noise_floor", check_noise_floor(name, op, noise_floor))
    tau = tau if tau is None or isinstance(tau, Residual) else check_real(name, "tau", tau, 0.0)
    if op.size <= max_dense:
        return index_of(dense_compression(op), tau, noise_floor=floor)
    key_space, key_probes = jax.random.split(key)
    compression = krylov_compression(
        op, num_basis=min(num_basis, op.size), block_size=min(block_size, op.size), noise_floor=floor, key=key_space
    )
    limit = check_tau(tau, compression, floor)
    counts = _from_space(compression, limit, op.size, min(block_size, op.size), floor)
    if not isinstance(counts.resolution, Tracer) and int(counts.resolution) == Resolution.EXHAUSTED:
        return counts
    keys = jax.random.split(key_probes, num_probes)
    quadrature = lanczos_quadrature(op, keys, num_steps=num_steps)
    return _from_probes(counts, quadrature, op.size, confidence)


@nan_is_an_answer
def index_of(compression: Compression, tau: Any, *, noise_floor: float) -> MorseIndex:
    """Return the index from the compression to the whole space, with the checks of `morse_index`."""
    return _complete(compression, check_tau(tau, compression, noise_floor), noise_floor)


def check_tau(tau: Any, compression: Compression, noise_floor: float) -> Float[Array, ""]:
    """Return τ as an array, at or above the noise floor; the default for None.

    Args:
        tau: A finite number; or None, or the gradient that is left at a critical point.
        compression: Compression of H, for the scale.
        noise_floor: Relative error of a product.

    Returns:
        τ.

    Raises:
        ValueError: If τ is not traced and below the noise floor.
    """
    least = noise_floor * compression.scale
    if tau is None or isinstance(tau, Residual):
        default = _TAU * compression.error(noise_floor)
        return default if tau is None else jnp.maximum(default, tau.least_tau(compression.scale))
    if isinstance(tau, Tracer) or isinstance(least, Tracer):
        return jnp.maximum(jnp.asarray(tau, least.dtype), least)
    if math.isfinite(float(least)) and float(tau) < float(least):
        raise ValueError(
            f"tau must be a number at or above the noise floor of an eigenvalue, {float(least):.2e} here "
            f"({noise_floor:.1e} of the largest eigenvalue); received {tau}. Omit tau to use the smallest resolved "
            "value, or build the operator in double precision."
        )
    return jnp.asarray(tau, least.dtype)


@partial(jax.jit, static_argnums=2)
def _complete(compression: Compression, tau: Float[Array, ""], noise_floor: float) -> MorseIndex:
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
def _from_space(compression: Compression, tau: Float[Array, ""], n: int, b: int, noise_floor: float) -> MorseIndex:
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
def _from_probes(proved: MorseIndex, quadrature: Quadrature, n: int, confidence: float) -> MorseIndex:
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
