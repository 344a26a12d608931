"""Trace and diagonal of an operator: exact for few coordinates, else from random probes by one of several methods."""

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._checks import check_choice, check_integer, check_key
from jaxopt_study._programs import jit_solver, nan_is_an_answer
from jaxopt_study.curvature._noise_floor import noise_floor
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum._deflation import (
    Moments,
    Quantity,
    add_sample,
    bytes_of,
    compiled,
    errors_of,
    host_block,
    normal_rows,
    on_host,
    signs,
    vectors_at_once,
    with_rounding,
    zero_moments,
)
from jaxopt_study.curvature.spectrum._estimate import TWO_PROBES, Estimate, MethodEstimate, by_method
from jaxopt_study.curvature.spectrum._leave_one_out import Averaged, xdiag, xnystrace, xtrace
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.coordinates import as_vector, diagonal_entries
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key, Vector

_LEFT_OUT_BYTES = 2**31  # memory up to which the vectors of XNysTrace are kept
_LEFT_OUT = 4  # fewest vectors of which one is left out
_FEW = 32  # coordinates up to which the result is exact: two random sign vectors could be equal

Method = Literal["auto", "deflated", "xtrace", "xnystrace"]
DiagonalMethod = Literal["deflated", "xdiag"]


@nan_is_an_answer
def trace(
    op: Operator,
    *,
    num_probes: int = 60,
    rank: int = 20,
    key: Key,
    probes_at_once: int | None = None,
    method: Method = "auto",
) -> MethodEstimate:
    """Compute tr H, or estimate it from m = p + 2r products with random vectors.

    If n ≤ m, or n ≤ 32, n products with the coordinate vectors e give Σ eᵀHe with the rounding error of the products.
    For more coordinates there are three methods, none of which has a bias:

    "deflated": with Q an orthonormal basis of H Ω for r normal vectors Ω, P = 1 − QQᵀ, and p vectors x of independent
    ±1,

        tr H = tr QᵀHQ + tr PHP ≈ tr QᵀHQ + mean of (Px)ᵀ H (Px)

    The first term is exact, the second is Hutchinson's estimator. Given Q, its samples are independent with variance 2
    Σ_{i≠j} (PHP)ᵢⱼ². With `rank=0`, plain Hutchinson, the error is smallest for a flat spectrum.

    "xtrace": k = m/2 normal vectors, of which each is the probe x for the space Q of the k − 1 others; every product
    with H Ω and HQ counts for all k samples. Where eigenvalues decay, the space is more than twice as large as with
    "deflated" and the error smaller; for a flat spectrum it is larger, by √(p/k), 1.1 for the defaults, and more for a
    nearly diagonal H, whose diagonal signs ±1 see exactly and normal vectors do not.

    "xnystrace": the same with Nyström approximations of k = m vectors, for an H without negative eigenvalues.

    Args:
        op: H, symmetric; not necessarily positive.
        num_probes: p ≥ 2.
        rank: r ≥ 0. 0 is Hutchinson's estimator.
        key: Key of the probes.
        probes_at_once: Number of vectors in a block of products. None takes one on a CPU, and on accelerators as many
            as fit into 4 GiB.
        method: "auto" takes "xnystrace" for an H that is known to have no negative eigenvalues, a Fisher matrix or a
            Gauss–Newton matrix of `SoftmaxCrossEntropy`, if r ≥ 1, m ≥ 8 and 3 m vectors take at most 2 GiB; else
            "deflated". On a network's Gauss–Newton matrix the error of "xnystrace" is .74 of that of "deflated" for
            equal products; on its Hessian that of "xtrace" is the same, and stated 1.4 times too large.

    Returns:
        Trace and standard error, with the `method` in words: "exact", "hutchinson", "deflated", "xtrace", "xnystrace".
        NaN if a product is. Cost: m products, at most 1 less, after one linearisation or two; memory of 2r + 4 vectors
        for "deflated", of 1.5 m for "xtrace", 3 m for "xnystrace"; or n products and the memory of two vectors. ± 2
        standard errors contain the trace in about 95% of cases; for few probes use Student's t with p − 1 degrees of
        freedom. The samples of "xtrace" and "xnystrace" are exchangeable, not independent; the standard error is the
        jackknife's over the vectors, which is too large rather than too small.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `num_probes` < 2, `rank` < 0, `probes_at_once` < 1, or the method is unknown or has fewer than
            three vectors.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.concatenate([jnp.array([100.0, 50.0]), jnp.linspace(-1.0, 1.0, 500)])
        >>> mix = lambda v: v - 2 * jnp.mean(v)  # a reflection, so that H is not diagonal
        >>> op = from_matvec(lambda v: mix(spectrum * mix(v)), spectrum)
        >>> plain = trace(op, num_probes=60, rank=0, key=jax.random.key(0))
        >>> deflated = trace(op, num_probes=40, rank=10, key=jax.random.key(0))  # as many products
        >>> print(bool(abs(deflated.value - 150.0) < 3 * deflated.standard_error))
        True
        >>> print(bool(deflated.standard_error < 0.8 * plain.standard_error))
        True

    References:
        Hutchinson (1990), Commun. Stat. Simul. 19. Meyer, Musco, Musco and Woodruff (2021), Hutch++, SOSA, Algorithm 1.
        Epperly, Tropp and Webber (2024), XTrace, SIAM J. Matrix Anal. Appl. 45, arXiv 2301.07825, sections 2 and 4,
        with the normalisation of 2.3.
    """
    name = "trace"
    check_choice(name, "method", method, get_args(Method))
    return _estimate(name, check_operator(name, op), num_probes, rank, check_key(name, key), probes_at_once, method)


@nan_is_an_answer
def diagonal(
    op: Operator,
    *,
    num_probes: int = 60,
    rank: int = 20,
    key: Key,
    probes_at_once: int | None = None,
    method: DiagonalMethod = "deflated",
) -> MethodEstimate:
    """Compute the diagonal of H, or estimate it from m = p + 2r products with random vectors.

    If n ≤ m, or n ≤ 32, n products with the coordinate vectors e give all eᵀHe with the rounding error of the products.
    For more coordinates, and the method "deflated", with Q an orthonormal basis of H Ω for r normal vectors Ω, P = 1 −
    QQᵀ, Z = HQ, and p vectors x of independent ±1,

        H = ZQᵀ + QZᵀ − Q(QᵀZ)Qᵀ + PHP,  diag PHP ≈ mean of x ∘ PHP x

    The first three terms are exact; the last is estimated without bias (Bekas, Kokiopoulou and Saad), entry i with
    variance Σ_{j≠i} (PHP)ᵢⱼ² / p. All entries use the same probes, so their errors are correlated. "xdiag" takes k =
    m/2 vectors of ±1, each of which is the probe x for the space Q of the k − 1 others, as in `trace`.

    Args:
        op: H, symmetric.
        num_probes: p ≥ 2.
        rank: r ≥ 0. 0 estimates the whole diagonal from probes.
        key: Key of the probes.
        probes_at_once: As in `trace`.
        method: "deflated" or "xdiag".

    Returns:
        Diagonal and standard errors, pytrees like the parameters, with the `method` in words: "exact", "hutchinson",
        "deflated" or "xdiag". Cost: m products after one linearisation or two, 2r reads of the basis for each probe;
        memory of 2r + 6 vectors for "deflated", of 2 m for "xdiag"; or n products and the memory of three vectors. The
        errors of "xdiag" are those of independent samples, which they are not: for k = 15 they were up to a sixth too
        small.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: As `trace`.

    Example:
        >>> from jaxopt_study.curvature import from_matrix
        >>> low_rank = jnp.outer(2.0 ** jnp.arange(4.0), 2.0 ** jnp.arange(4.0))
        >>> estimate = diagonal(from_matrix(low_rank), num_probes=2, rank=1, key=jax.random.key(0))
        >>> print(bool(jnp.allclose(estimate.value, jnp.diag(low_rank), atol=1e-4)))
        True

    References:
        Bekas, Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix, Appl. Numer. Math. 57. Baston and
        Nakatsukasa (2022), Stochastic diagonal estimation, arXiv 2201.10684: Diag++, which projects on one side.
        Epperly, Tropp and Webber (2024), as for `trace`, section 5: XDiag, there with the projection on one side.
    """
    name = "diagonal"
    check_choice(name, "method", method, get_args(DiagonalMethod))
    return _estimate(name, check_operator(name, op), num_probes, rank, check_key(name, key), probes_at_once, method)


def _estimate(
    quantity: Quantity, op: Operator, num_probes: int, rank: int, key: Key, at_once: int | None, method: str
) -> MethodEstimate:
    num_probes = check_integer(quantity, "num_probes", num_probes, 2, remedy=TWO_PROBES)
    rank = check_integer(quantity, "rank", rank, 0)
    if at_once is not None:
        at_once = check_integer(quantity, "probes_at_once", at_once, 1)
    if op.size <= max(num_probes + 2 * rank, _FEW):
        return by_method("exact", _exact(quantity, op, at_once or vectors_at_once(op, op.size)))
    count = num_probes + 2 * rank
    if method == "auto":
        method = "xnystrace" if rank and op.is_semidefinite and _fits(op, count) else "deflated"
    if method == "deflated":
        name = "deflated" if rank else "hutchinson"
        if op.loop == "host":
            return by_method(name, on_host(quantity, op, num_probes, rank, key))
        return by_method(name, compiled(quantity, op, num_probes, rank, key, at_once))
    count = count if method == "xnystrace" else count // 2
    if count < 3:
        raise ValueError(
            f"{quantity} by {method!r} needs three vectors, of which one is left out; received num_probes={num_probes} "
            f"and rank={rank}. Take more probes."
        )
    return by_method(method, _left_out(quantity, op, count, key, at_once, method))


def _fits(op: Operator, count: int) -> bool:
    return count >= 2 * _LEFT_OUT and 3 * count * bytes_of(op) <= _LEFT_OUT_BYTES


def _left_out(quantity: Quantity, op: Operator, count: int, key: Key, at_once: int | None, method: str) -> Estimate:
    if op.loop == "host":
        product = op.product()
        block = lambda rows: host_block(product, rows, count)
    else:
        block = partial(_images, op, at_once or vectors_at_once(op, count))
    if quantity == "diagonal":
        rows = _sign_rows(op, key, count)
        return _of_moments(*xdiag(block, rows, add_sample, zero_moments(quantity, op)), 2 * count)
    rows = normal_rows(op, key, count)
    estimate = xnystrace if method == "xnystrace" else xtrace
    return _of_average(estimate(block, rows, op.size), count if method == "xnystrace" else 2 * count)


@partial(jit_solver, static_argnums=1)
def _images(op: Operator, together: int, rows: Vector) -> Vector:
    return lax.map(op.linearize(), rows, batch_size=together if together > 1 else None)


@partial(jax.jit, static_argnums=1)
def _of_average(found: Averaged, num_matvecs: int) -> Estimate:
    error = jnp.maximum(found.error, jnp.finfo(found.error.dtype).eps * found.size)
    return Estimate(found.mean * found.unit, error * found.unit, jnp.asarray(num_matvecs, dtype=jnp.int32))


@partial(jax.jit, static_argnums=2)
def _of_moments(moments: Moments, sizes: Vector, num_matvecs: int) -> Estimate:
    return with_rounding(moments.mean, errors_of(moments), sizes, num_matvecs)


def _exact(quantity: Quantity, op: Operator, together: int) -> Estimate:
    return _of_entries(quantity, op, noise_floor(op), *diagonal_entries(op, together))


@partial(jax.jit, static_argnums=(0, 2))
def _of_entries(
    quantity: Quantity, op: Operator, floor: float, entries: Float[Array, " n"], lengths: Float[Array, " n"]
) -> Estimate:
    """Return the sum of the entries, or all of them, with the rounding errors of the products."""
    count = jnp.asarray(op.size, dtype=jnp.int32)
    if quantity == "trace":
        return Estimate(jnp.sum(entries), floor * vectors.norm(lengths), count)
    errors = jnp.full_like(entries, floor * jnp.max(lengths))
    return Estimate(as_vector(op.like, entries), as_vector(op.like, errors), count)


@partial(jax.jit, static_argnums=2)
def _sign_rows(op: Operator, key: Key, count: int) -> Vector:
    return jax.vmap(partial(signs, op))(jax.random.split(key, count))
