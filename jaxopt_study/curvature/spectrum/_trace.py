"""Trace and diagonal of an operator: exact for few coordinates, else from random probes with deflation."""

import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from jaxopt_study._checks import check_integer, check_key
from jaxopt_study._programs import jit_solver, nan_is_an_answer
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum._estimate import TWO_PROBES, Estimate, standard_error
from jaxopt_study.linalg import gram_schmidt, vectors
from jaxopt_study.linalg.coordinates import as_vector, diagonal_entries
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key, Matvec, Vector

_BLOCK_BYTES = 2**32  # memory for concurrent probes on accelerators
_FEW = 32  # coordinates up to which the result is exact: two random sign vectors could be equal

Quantity = Literal["trace", "diagonal"]


class _Moments(NamedTuple):
    count: Int[Array, ""]
    mean: Vector
    spread: Vector  # √Σ (x − mean)²; its square could overflow


@nan_is_an_answer
def trace(
    op: Operator, *, num_probes: int = 60, rank: int = 20, key: Key, probes_at_once: int | None = None
) -> Estimate:
    """Compute tr H, or estimate it from random probes after deflating an r-dimensional dominant subspace.

    If n ≤ p + 2r, or n ≤ 32, n products with the coordinate vectors e give Σ eᵀHe, to rounding, with a standard error
    of 0. For more coordinates, with Q an orthonormal basis of H Ω for r normal vectors Ω, P = 1 − QQᵀ, and p vectors x
    of independent ±1,

        tr H = tr QᵀHQ + tr PHP ≈ tr QᵀHQ + mean of (Px)ᵀ H (Px)

    The first term is exact; the second is estimated without bias (Hutchinson) for every Q. Given Q, its samples are
    independent with variance 2 Σ_{i≠j} (PHP)ᵢⱼ², so their spread gives the standard error. For a spectrum with at most
    r large eigenvalues little variance remains; for a flat one `rank=0`, plain Hutchinson, has the smaller error for
    the same number of products, because Q takes 2r of them.

    Args:
        op: H, symmetric; not necessarily positive.
        num_probes: p ≥ 2.
        rank: r ≥ 0. 0 is Hutchinson's estimator.
        key: Key of the probes.
        probes_at_once: Number of vectors in a block of products. None takes one on a CPU, and on accelerators as many
            as fit into 4 GiB.

    Returns:
        Trace and standard error; NaN if a product is. Cost: p + 2r products after one linearisation, r reads of the
        basis for each probe; memory 2r + 4 vectors; or n products and the memory of two vectors. ± 2 standard errors
        contain the trace in about 95% of cases; for few probes use Student's t with p − 1 degrees of freedom.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `num_probes` < 2, `rank` < 0 or `probes_at_once` < 1.

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
        Epperly, Tropp and Webber (2024), XTrace, SIAM J. Matrix Anal. Appl. 45: uses each product twice, with dependent
        samples.
    """
    name = "trace"
    return _estimate(name, check_operator(name, op), num_probes, rank, check_key(name, key), probes_at_once)


@nan_is_an_answer
def diagonal(
    op: Operator, *, num_probes: int = 60, rank: int = 20, key: Key, probes_at_once: int | None = None
) -> Estimate:
    """Compute the diagonal of H, or estimate it from random probes after deflating an r-dimensional dominant subspace.

    If n ≤ p + 2r, or n ≤ 32, n products with the coordinate vectors e give all eᵀHe, to rounding, with standard errors
    of 0. For more coordinates, with Q an orthonormal basis of H Ω for r normal vectors Ω, P = 1 − QQᵀ, Z = HQ, and p
    vectors x of independent ±1,

        H = ZQᵀ + QZᵀ − Q(QᵀZ)Qᵀ + PHP,  diag PHP ≈ mean of x ∘ PHP x

    The first three terms are exact; the last is estimated without bias (Bekas, Kokiopoulou and Saad), entry i with
    variance Σ_{j≠i} (PHP)ᵢⱼ² / p. All entries use the same probes, so their errors are correlated.

    Args:
        op: H, symmetric.
        num_probes: p ≥ 2.
        rank: r ≥ 0. 0 estimates the whole diagonal from probes.
        key: Key of the probes.
        probes_at_once: As in `trace`.

    Returns:
        Diagonal and standard errors, pytrees like the parameters. Cost: p + 2r products after one linearisation, 2r
        reads of the basis for each probe; memory 2r + 6 vectors; or n products and the memory of three vectors.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `num_probes` < 2, `rank` < 0 or `probes_at_once` < 1.

    Example:
        >>> from jaxopt_study.curvature import from_matrix
        >>> low_rank = jnp.outer(2.0 ** jnp.arange(4.0), 2.0 ** jnp.arange(4.0))
        >>> estimate = diagonal(from_matrix(low_rank), num_probes=2, rank=1, key=jax.random.key(0))
        >>> print(bool(jnp.allclose(estimate.value, jnp.diag(low_rank), atol=1e-4)))
        True

    References:
        Bekas, Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix, Appl. Numer. Math. 57. Baston and
        Nakatsukasa (2022), Stochastic diagonal estimation, arXiv 2201.10684: Diag++, which projects on one side.
    """
    name = "diagonal"
    return _estimate(name, check_operator(name, op), num_probes, rank, check_key(name, key), probes_at_once)


def _estimate(quantity: Quantity, op: Operator, num_probes: int, rank: int, key: Key, at_once: int | None) -> Estimate:
    num_probes = check_integer(quantity, "num_probes", num_probes, 2, remedy=TWO_PROBES)
    rank = check_integer(quantity, "rank", rank, 0)
    if at_once is not None:
        at_once = check_integer(quantity, "probes_at_once", at_once, 1)
    if op.size <= max(num_probes + 2 * rank, _FEW):
        return _exact(quantity, op, at_once or _vectors_at_once(op, op.size))
    if op.loop == "host":
        return _on_host(quantity, op, num_probes, rank, key)
    return _compiled(quantity, op, num_probes, rank, key, at_once)


def _exact(quantity: Quantity, op: Operator, together: int) -> Estimate:
    entries = diagonal_entries(op, together)
    value = jnp.sum(entries) if quantity == "trace" else as_vector(op.like, entries)
    zero = jax.tree.map(lambda x: x * 0, value)  # NaN remains NaN
    return Estimate(value, zero, jnp.asarray(op.size, dtype=jnp.int32))


@partial(jit_solver, static_argnums=(0, 2, 3, 5))
def _compiled(quantity: Quantity, op: Operator, num_probes: int, rank: int, key: Key, at_once: int | None) -> Estimate:
    product = op.linearize()
    together = at_once or _vectors_at_once(op, max(num_probes, rank))
    sketch_key, probe_key = jax.random.split(key)
    basis = images = None
    if rank:
        block = partial(lax.map, product, batch_size=together if together > 1 else None)
        sketch = block(_random_rows(op, sketch_key, rank))
        basis = gram_schmidt.orthonormal_basis(sketch)
        images = block(basis)

    def one(moments: _Moments, probe: Key) -> tuple[_Moments, None]:
        return _add_sample(moments, _sample(quantity, product, basis, _probe(op, probe))), None

    keys = jax.random.split(probe_key, num_probes)
    if together == 1:
        moments, _ = lax.scan(one, _zero_moments(quantity, op), keys)
    else:
        samples = lax.map(lambda k: _sample(quantity, product, basis, _probe(op, k)), keys, batch_size=together)
        moments = _moments_of(samples, num_probes)
    return _finish(quantity, moments, basis, images, num_probes + 2 * rank)


def _on_host(quantity: Quantity, op: Operator, num_probes: int, rank: int, key: Key) -> Estimate:
    product = op.product()
    sketch_key, probe_key = jax.random.split(key)
    basis = images = None
    if rank:
        rows = _host_rows(op, sketch_key, rank)
        basis = _host_orthonormal(_host_block(product, rows, rank))
        images = _host_block(product, basis, rank)
    moments = _zero_moments(quantity, op)
    for probe in jax.random.split(probe_key, num_probes):
        x, y = _host_probe(op, basis, probe)
        moments = _host_add_sample(quantity, moments, basis, x, y, product(y))
    return _host_finish(quantity, moments, basis, images, num_probes + 2 * rank)


def _host_block(product: Matvec, rows: Vector, count: int) -> Vector:
    return vectors.stack([product(vectors.row(rows, i)) for i in range(count)])


def _probe(op: Operator, key: Key) -> Vector:
    return vectors.random_like(op.like, key=key, distribution="rademacher")


def _random_rows(op: Operator, key: Key, rank: int) -> Vector:
    # Normal, not ±1: with probability 1 no direction is orthogonal to them.
    return jax.vmap(lambda k: vectors.random_like(op.like, key=k))(jax.random.split(key, rank))


def _outside(basis: Vector | None, x: Vector) -> Vector:
    """Return P x."""
    return x if basis is None else gram_schmidt.remove(basis, x)[0]


def _sample(quantity: Quantity, product: Matvec, basis: Vector | None, x: Vector) -> Vector:
    y = _outside(basis, x)
    return _sample_from(quantity, basis, x, y, product(y))


def _sample_from(quantity: Quantity, basis: Vector | None, x: Vector, y: Vector, image: Vector) -> Vector:
    if quantity == "trace":
        return vectors.inner(y, image)
    return jax.tree.map(jnp.multiply, x, _outside(basis, image))


def _zero_moments(quantity: Quantity, op: Operator) -> _Moments:
    zero = jnp.zeros((), vectors.accumulator(op.dtype)) if quantity == "trace" else vectors.zeros_like(op.like)
    return _Moments(jnp.int32(0), zero, zero)


def _add_sample(moments: _Moments, sample: Vector) -> _Moments:
    """Return mean and spread with one more sample, without the cancellation of Σx² − (Σx)²."""
    count = moments.count + 1
    share = jnp.sqrt(moments.count / count)
    mean = jax.tree.map(lambda m, x: m + (x - m) / count.astype(m.dtype), moments.mean, sample)
    spread = jax.tree.map(
        lambda s, x, before: jnp.hypot(s, share.astype(s.dtype) * (x - before)), moments.spread, sample, moments.mean
    )
    return _Moments(count, mean, spread)


def _moments_of(samples: Vector, count: int) -> _Moments:
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), samples)
    spread = jax.tree.map(lambda x: standard_error(x) * math.sqrt(count * (count - 1)), samples)
    return _Moments(jnp.int32(count), mean, spread)


def _finish(
    quantity: Quantity, moments: _Moments, basis: Vector | None, images: Vector | None, num_matvecs: int
) -> Estimate:
    p = moments.count
    error = jax.tree.map(lambda s: s / jnp.sqrt(p * (p - 1)).astype(s.dtype), moments.spread)
    value, size = moments.mean, jax.tree.map(jnp.abs, moments.mean)
    if basis is not None and quantity == "trace":
        terms = jax.vmap(vectors.inner)(basis, images)
        value, size = value + jnp.sum(terms), size + jnp.sum(jnp.abs(terms))
    elif basis is not None:
        inside = vectors.combine(basis, vectors.gram(basis, images))  # Q(QᵀZ), row by row
        terms = jax.tree.map(lambda q, z, qm: q * (2 * z - qm), basis, images, inside)
        value = jax.tree.map(lambda v, t: v + jnp.sum(t, axis=0), value, terms)
        size = jax.tree.map(lambda v, t: v + jnp.sum(jnp.abs(t), axis=0), size, terms)
    # At least the rounding error of the sums, also where the samples have no variance.
    error = jax.tree.map(lambda e, s: jnp.maximum(e, jnp.finfo(s.dtype).eps * s), error, size)
    return Estimate(value, error, jnp.asarray(num_matvecs, dtype=jnp.int32))


_host_rows = jax.jit(_random_rows, static_argnums=2)
_host_orthonormal = jax.jit(gram_schmidt.orthonormal_basis)
_host_finish = jax.jit(_finish, static_argnums=(0, 4))


@jax.jit
def _host_probe(op: Operator, basis: Vector | None, key: Key) -> tuple[Vector, Vector]:
    x = _probe(op, key)
    return x, _outside(basis, x)


@partial(jax.jit, static_argnums=0)
def _host_add_sample(
    quantity: Quantity, moments: _Moments, basis: Vector | None, x: Vector, y: Vector, image: Vector
) -> _Moments:
    return _add_sample(moments, _sample_from(quantity, basis, x, y, image))


def _vectors_at_once(op: Operator, most: int) -> int:
    if jax.default_backend() == "cpu":
        return 1
    vector_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(op.like))
    return max(1, min(most, _BLOCK_BYTES // max(1, 4 * vector_bytes)))
