"""Trace and diagonal from random probes outside of a deflated subspace."""

import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from jaxopt_study._programs import jit_solver
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum._estimate import Estimate, standard_error
from jaxopt_study.linalg import gram_schmidt, vectors
from jaxopt_study.types import Key, Matvec, Vector

_BLOCK_BYTES = 2**32  # memory for concurrent probes on accelerators

Quantity = Literal["trace", "diagonal"]


class Moments(NamedTuple):
    """Mean and spread of samples so far."""

    count: Int[Array, ""]
    mean: Vector
    spread: Vector  # √Σ (x − mean)²; its square could overflow


@partial(jit_solver, static_argnums=(0, 2, 3, 5))
def compiled(quantity: Quantity, op: Operator, num_probes: int, rank: int, key: Key, at_once: int | None) -> Estimate:
    """Return the estimate of deflated probes in one compiled program."""
    product = op.linearize()
    together = at_once or vectors_at_once(op, max(num_probes, rank))
    sketch_key, probe_key = jax.random.split(key)
    basis = images = None
    if rank:
        block = partial(lax.map, product, batch_size=together if together > 1 else None)
        sketch = block(_random_rows(op, sketch_key, rank))
        basis = gram_schmidt.orthonormal_basis(sketch)
        images = block(basis)

    def one(moments: Moments, probe: Key) -> tuple[Moments, None]:
        return add_sample(moments, _sample(quantity, product, basis, signs(op, probe))), None

    keys = jax.random.split(probe_key, num_probes)
    if together == 1:
        moments, _ = lax.scan(one, zero_moments(quantity, op), keys)
    else:
        samples = lax.map(lambda k: _sample(quantity, product, basis, signs(op, k)), keys, batch_size=together)
        moments = _moments_of(samples, num_probes)
    return _finish(quantity, moments, basis, images, num_probes + 2 * rank)


def on_host(quantity: Quantity, op: Operator, num_probes: int, rank: int, key: Key) -> Estimate:
    """Return the same with a Python loop of products."""
    product = op.product()
    sketch_key, probe_key = jax.random.split(key)
    basis = images = None
    if rank:
        rows = normal_rows(op, sketch_key, rank)
        basis = _host_orthonormal(host_block(product, rows, rank))
        images = host_block(product, basis, rank)
    moments = zero_moments(quantity, op)
    for probe in jax.random.split(probe_key, num_probes):
        x, y = _host_probe(op, basis, probe)
        moments = _host_add(quantity, moments, basis, x, y, product(y))
    return _host_finish(quantity, moments, basis, images, num_probes + 2 * rank)


def host_block(product: Matvec, rows: Vector, count: int) -> Vector:
    """Return the products with a block of vectors, one after another."""
    return vectors.stack([product(vectors.row(rows, i)) for i in range(count)])


def signs(op: Operator, key: Key) -> Vector:
    """Return a vector of independent ±1."""
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


def zero_moments(quantity: Quantity, op: Operator) -> Moments:
    """Return the moments of no samples."""
    zero = jnp.zeros((), vectors.accumulator(op.dtype)) if quantity == "trace" else vectors.zeros_like(op.like)
    return Moments(jnp.int32(0), zero, zero)


def add_sample(moments: Moments, sample: Vector) -> Moments:
    """Return mean and spread with one more sample, without the cancellation of Σx² − (Σx)²."""
    count = moments.count + 1
    share = jnp.sqrt(moments.count / count)
    mean = jax.tree.map(lambda m, x: m + (x - m) / count.astype(m.dtype), moments.mean, sample)
    spread = jax.tree.map(
        lambda s, x, before: jnp.hypot(s, share.astype(s.dtype) * (x - before)), moments.spread, sample, moments.mean
    )
    return Moments(count, mean, spread)


def _moments_of(samples: Vector, count: int) -> Moments:
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), samples)
    spread = jax.tree.map(lambda x: standard_error(x) * math.sqrt(count * (count - 1)), samples)
    return Moments(jnp.int32(count), mean, spread)


def _finish(
    quantity: Quantity, moments: Moments, basis: Vector | None, images: Vector | None, num_matvecs: int
) -> Estimate:
    value, size = moments.mean, jax.tree.map(jnp.abs, moments.mean)
    if basis is not None and quantity == "trace":
        terms = jax.vmap(vectors.inner)(basis, images)
        value, size = value + jnp.sum(terms), size + jnp.sum(jnp.abs(terms))
    elif basis is not None:
        inside = vectors.combine(basis, vectors.gram(basis, images))  # Q(QᵀZ), row by row
        terms = jax.tree.map(lambda q, z, qm: q * (2 * z - qm), basis, images, inside)
        value = jax.tree.map(lambda v, t: v + jnp.sum(t, axis=0), value, terms)
        size = jax.tree.map(lambda v, t: v + jnp.sum(jnp.abs(t), axis=0), size, terms)
    return with_rounding(value, errors_of(moments), size, num_matvecs)


def errors_of(moments: Moments) -> Vector:
    """Return the standard errors of the mean."""
    p = moments.count
    return jax.tree.map(lambda s: s / jnp.sqrt(p * (p - 1)).astype(s.dtype), moments.spread)


def with_rounding(value: Vector, error: Vector, size: Vector, num_matvecs: int) -> Estimate:
    """Return an estimate with at least the rounding error of the sums, also where the samples have no variance."""
    error = jax.tree.map(lambda e, s: jnp.maximum(e, jnp.finfo(s.dtype).eps * s), error, size)
    return Estimate(value, error, jnp.asarray(num_matvecs, dtype=jnp.int32))


normal_rows = jax.jit(_random_rows, static_argnums=2)
_host_orthonormal = jax.jit(gram_schmidt.orthonormal_basis)
_host_finish = jax.jit(_finish, static_argnums=(0, 4))


@jax.jit
def _host_probe(op: Operator, basis: Vector | None, key: Key) -> tuple[Vector, Vector]:
    x = signs(op, key)
    return x, _outside(basis, x)


@partial(jax.jit, static_argnums=0)
def _host_add(
    quantity: Quantity, moments: Moments, basis: Vector | None, x: Vector, y: Vector, image: Vector
) -> Moments:
    return add_sample(moments, _sample_from(quantity, basis, x, y, image))


def vectors_at_once(op: Operator, most: int) -> int:
    """Return the number of vectors in a block of products."""
    if jax.default_backend() == "cpu":
        return 1
    return max(1, min(most, _BLOCK_BYTES // max(1, 4 * bytes_of(op))))


def bytes_of(op: Operator) -> int:
    """Return the memory of a vector."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(op.like))
