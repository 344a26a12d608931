"""Morse index: a proved lower bound and an estimate, with the number of flat directions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, check_real, check_static_real
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import check_noise_floor
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.points._index_counts import (
    MorseIndex,
    Resolution,
    index_of_all_eigenvalues,
    index_of_krylov_space,
    index_of_probes,
)
from jaxopt_study.curvature.points._tolerances import Residual
from jaxopt_study.curvature.spectrum._eigenvalue_counts import Compression, dense_compression, krylov_compression
from jaxopt_study.linalg.checks import key_or_fixed
from jaxopt_study.linalg.gauss_quadrature import lanczos_quadrature
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key

_TAU = 2  # in errors of an eigenvalue; a zero eigenvalue with one such error is then still flat


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
    counts = index_of_krylov_space(compression, limit, op.size, min(block_size, op.size), floor)
    if not isinstance(counts.resolution, Tracer) and int(counts.resolution) == Resolution.EXHAUSTED:
        return counts
    keys = jax.random.split(key_probes, num_probes)
    quadrature = lanczos_quadrature(op, keys, num_steps=num_steps)
    return index_of_probes(counts, quadrature, op.size, confidence)


@nan_is_an_answer
def index_of(compression: Compression, tau: Any, *, noise_floor: float) -> MorseIndex:
    """Return the index from the compression to the whole space, with the checks of `morse_index`."""
    return index_of_all_eigenvalues(compression, check_tau(tau, compression, noise_floor), noise_floor)


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
