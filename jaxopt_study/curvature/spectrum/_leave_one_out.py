"""Estimates of trace and diagonal that use every product twice: XTrace, XNysTrace and XDiag.

Each of k random vectors is a probe of what the space of the other k − 1 leaves of the operator. The samples of all
vectors come from one factorisation, by downdates of rank one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxopt_study.curvature.spectrum._estimate import standard_error
from jaxopt_study.linalg import gram_schmidt, vectors
from jaxopt_study.types import Vector

Block = Callable[[Vector], Vector]
_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


class Averaged(NamedTuple):
    """The mean of the samples of a trace, in a unit of the operator."""

    mean: Float[Array, ""]
    error: Float[Array, ""]  # standard error by the jackknife
    size: Float[Array, ""]  # sum of the magnitudes of the terms, whose rounding remains
    unit: Float[Array, ""]


def xtrace(block: Block, rows: Vector, size: int) -> Averaged:
    """Return the mean of the samples of XTrace.

    With Y = HΩ and Q₍ᵢ₎ an orthonormal basis of the columns of Y but the i-th, and P = 1 − Q₍ᵢ₎Q₍ᵢ₎ᵀ,

        sampleᵢ = tr Q₍ᵢ₎ᵀHQ₍ᵢ₎ + (n − k + 1)/‖Pω‖² · (Pω)ᵀ H (Pω),  ω = ωᵢ

    With Y = QR, Q₍ᵢ₎Q₍ᵢ₎ᵀ = Q(1 − ssᵀ)Qᵀ for the unit vector s along row i of R⁻¹, which is orthogonal to the other
    columns of R.

    Args:
        block: The product with a block of k vectors.
        rows: Ω, k normal vectors.
        size: n > 2k.

    Returns:
        The mean, and its error from the means without each vector. Cost: 2k products and O(k⁴) operations.
    """
    basis, images, small = _sketch(block, rows)
    return _average(partial(_xtrace_samples, size), _against(basis, images, rows, small), small.unit)


class _Small(NamedTuple):
    factor: Float[Array, "k k"]  # R
    unit: Float[Array, ""]


def _sketch(block: Block, rows: Vector) -> tuple[Vector, Vector, _Small]:
    """Return Q, HQ and R."""
    basis, small = _factorised(block(rows))
    return basis, block(basis), small


@jax.jit
def _factorised(products: Vector) -> tuple[Vector, _Small]:
    dtypes = jax.tree.map(lambda row: row.dtype, products)
    products, unit = vectors.unscaled(products)
    basis, factor = gram_schmidt.triangular_factors(products)
    return jax.tree.map(lambda row, dtype: row.astype(dtype), basis, dtypes), _Small(factor, unit)


class _Against(NamedTuple):
    factor: Float[Array, "k k"]  # R
    tests: Float[Array, "k k"]  # W = QᵀΩ
    images: Float[Array, "k k"]  # T = (HQ)ᵀΩ
    inside: Float[Array, "k k"]  # QᵀHQ
    squares: Float[Array, " k"]  # ‖ω‖²

    def without(self, kept: Int[Array, " m"]) -> "_Against":
        """Return the same for some of the vectors: a rotation inside the span of Q."""
        rotation, factor = jnp.linalg.qr(self.factor[:, kept])
        tests, images = (_matmul(rotation.T, x[:, kept]) for x in (self.tests, self.images))
        return _Against(factor, tests, images, _matmul(rotation.T, _matmul(self.inside, rotation)), self.squares[kept])


@jax.jit
def _against(basis: Vector, images: Vector, rows: Vector, small: _Small) -> _Against:
    images = vectors.in_units(small.unit, images)
    inside = _symmetric(vectors.gram(basis, images))
    squares = jax.vmap(vectors.inner)(rows, rows)
    return _Against(small.factor, vectors.gram(basis, rows), vectors.gram(images, rows), inside, squares)


def _symmetric(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
    return (matrix + matrix.T) / 2


def _left_out(factor: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """Return s of every column i of R: the unit vector that is orthogonal to the other columns."""
    pivots = jnp.diag(factor)
    largest = jnp.max(jnp.abs(pivots))
    least = jnp.finfo(factor.dtype).eps * jnp.where(largest > 0, largest, 1)  # dependent columns leave any direction
    factor = factor + jnp.diag(jnp.where(jnp.abs(pivots) < least, least - pivots, 0))
    inverse = jax.scipy.linalg.solve_triangular(factor / least, jnp.eye(len(factor), dtype=factor.dtype), trans="T")
    inverse = inverse / jnp.max(jnp.abs(inverse), axis=0, keepdims=True)
    return inverse / jnp.sqrt(jnp.sum(inverse**2, axis=0, keepdims=True))


def _xtrace_samples(size: int, small: _Against) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """Return the samples, and the sum of the magnitudes of the terms."""
    r, w, t, h, squares = small
    k, s = len(squares), _left_out(r)
    along = jnp.sum(s * w, axis=0)
    c = w - s * along[None]  # Q c is the part of ω inside the space of the other vectors
    removed = jnp.sum(s * _matmul(h, s), axis=0)
    terms = jnp.stack([w * r, -2 * c * t, c * _matmul(h, c)])
    scale = (size - k + 1) / (squares - jnp.sum(w**2, axis=0) + along**2)
    values = jnp.trace(h) - removed + scale * jnp.sum(terms, axis=(0, 1))
    rounded = jnp.abs(removed) + scale * jnp.sum(jnp.abs(terms), axis=(0, 1))
    return values, jnp.sum(jnp.abs(jnp.diag(h))) + jnp.mean(rounded)


def xnystrace(block: Block, rows: Vector, size: int) -> Averaged:
    """Return the mean of the samples of XNysTrace, for an operator without negative eigenvalues.

    With the Nyström approximation N₍ᵢ₎ of H from the products with all vectors but the i-th,

        sampleᵢ = tr N₍ᵢ₎ + (n − k + 1)/‖ω⊥‖² · ωᵀ (H − N₍ᵢ₎) ω,  ω = ωᵢ,

    where ω⊥ is the part of ω outside the span of the others. With G = ΩᵀHΩ, N = YG⁻¹Yᵀ, and N₍ᵢ₎ is N without
    (YG⁻¹e)(YG⁻¹e)ᵀ/(G⁻¹)ᵢᵢ; the last factor is 1/(G⁻¹)ᵢᵢ. A multiple of the identity, of the size of rounding or of the
    negative eigenvalues, is added to H to make G positive, and its trace subtracted from the samples.

    Args:
        block: The product with a block of k vectors.
        rows: Ω, k normal vectors.
        size: n > k.

    Returns:
        The mean, and its error from the means without each vector. Cost: k products and O(k⁴) operations.
    """
    small, shift, unit = _nystrom(size, rows, block(rows))
    found = _average(partial(_xnystrace_samples, size), small, unit)
    return found._replace(mean=found.mean - shift * size)


class _Nystrom(NamedTuple):
    factor: Float[Array, "k k"]  # R of Y = QR
    core: Float[Array, "k k"]  # G
    between: Float[Array, "k k"]  # ΩᵀΩ

    def without(self, kept: Int[Array, " m"]) -> "_Nystrom":
        """Return the same for some of the vectors."""
        return _Nystrom(self.factor[:, kept], self.core[kept][:, kept], self.between[kept][:, kept])


@partial(jax.jit, static_argnums=0)
def _nystrom(size: int, rows: Vector, products: Vector) -> tuple[_Nystrom, Float[Array, ""], Float[Array, ""]]:
    products, unit = vectors.unscaled(products)
    between, core = vectors.gram(rows, rows), _symmetric(vectors.gram(rows, products))
    lengths = jax.vmap(vectors.norm)(products)
    rounding = 8 * jnp.finfo(between.dtype).eps * jnp.sqrt(jnp.sum(lengths**2) / size)
    below = -jnp.linalg.eigvalsh(core)[0] / jnp.linalg.eigvalsh(between)[0]  # positive by rounding only
    shift = jnp.maximum(jnp.maximum(rounding, 2 * below), jnp.finfo(between.dtype).tiny ** 0.5)
    products = jax.tree.map(lambda y, x: y + (shift * x).astype(y.dtype), products, rows)
    return _Nystrom(gram_schmidt.triangular_factors(products)[1], core + shift * between, between), shift, unit


def _xnystrace_samples(size: int, small: _Nystrom) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    k = len(small.core)
    inverse = _inverse_of_lower(jnp.linalg.cholesky(small.core))
    halves = _matmul(small.factor, inverse.T)  # B with N = Q B Bᵀ Qᵀ
    inside = _matmul(halves.T, halves)
    pivots = jnp.sum(inverse**2, axis=0)
    scale = (size - k + 1) * jnp.sum(_inverse_of_lower(jnp.linalg.cholesky(small.between)) ** 2, axis=0)
    removed = jnp.sum(inverse * _matmul(inside, inverse), axis=0) / pivots
    values = jnp.trace(inside) - removed + scale / pivots
    return values, jnp.trace(inside) + jnp.mean(scale / pivots)


def _inverse_of_lower(lower: Float[Array, "k k"]) -> Float[Array, "k k"]:
    return jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(lower), dtype=lower.dtype), lower=True)


@partial(jax.jit, static_argnums=0)
def _average(samples: Any, small: Any, unit: Float[Array, ""]) -> Averaged:
    """Return the mean of the samples with the jackknife's error.

    The samples share the space that the vectors span, so their spread is too small an error. The mean is a symmetric
    function of independent vectors, and the spread of the means without each of them is at least the error of a mean of
    k − 1 vectors, on average over the vectors (Efron and Stein, 1981, Ann. Stat. 9).
    """
    values, size = samples(small)
    k = len(values)

    def without(i: Int[Array, ""]) -> Float[Array, ""]:
        others = jnp.arange(k - 1)
        return jnp.mean(samples(small.without(jnp.where(others >= i, others + 1, others)))[0])

    means = lax.map(without, jnp.arange(k)) if k > 2 else values
    return Averaged(jnp.mean(values), (k - 1) * standard_error(means), size, unit)


def xdiag(block: Block, rows: Vector, add: Callable[[Any, Vector], Any], moments: Any) -> tuple[Any, Vector]:
    """Return moments of the samples of XDiag, with the projections on both sides of a symmetric operator.

    With Π = Q₍ᵢ₎Q₍ᵢ₎ᵀ and P = 1 − Π as in `xtrace`, and signs ω,

        sampleᵢ = diag(ΠH + HΠ − ΠHΠ) + ω ∘ PHPω

    Args:
        block: The product with a block of k vectors.
        rows: Ω, k vectors of ±1.
        add: From moments and a sample to the moments with it.
        moments: Those of no samples.

    Returns:
        The moments, and the magnitudes of the terms of the mean. Cost: 2k products.
    """
    basis, images, small = _sketch(block, rows)
    return _diagonal_moments(add, basis, images, rows, small, moments)


@partial(jax.jit, static_argnums=0)
def _diagonal_moments(
    add: Any, basis: Vector, images: Vector, rows: Vector, small: _Small, moments: Any
) -> tuple[Any, Vector]:
    against = _against(basis, images, rows, small)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, images)
    images = vectors.in_units(small.unit, images)
    s, h = _left_out(small.factor), against.inside
    c = against.tests - s * jnp.sum(s * against.tests, axis=0, keepdims=True)
    inner = small.factor - _matmul(h, c)  # Qᵀ H P ω
    through = vectors.combine(basis, h)
    parts = jax.tree.map(lambda q, z, qh: q * (2 * z - qh), basis, images, through)
    whole = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)

    def sample(moments: Any, i: Any) -> tuple[Any, None]:
        out, part = s[:, i], c[:, i]
        hs, hc = _matmul(h, out), _matmul(h, part)
        along, q_hs, q_hc = (vectors.combine(basis, x) for x in (out, hs, hc))
        z_s, z_c = (vectors.combine(images, x) for x in (out, part))
        curved, left = jnp.dot(out, hs), jnp.dot(out, inner[:, i])
        omega = vectors.row(rows, i)

        def entry(d: Any, q: Any, qhs: Any, zs: Any, qhc: Any, zc: Any, x: Any, dtype: Any) -> Any:
            inside = d - 2 * q * (zs - qhs) - q**2 * curved.astype(d.dtype)
            value = inside + x * (qhc - zc + q * left.astype(q.dtype))
            return (value * small.unit.astype(value.dtype)).astype(dtype)

        value = jax.tree.map(entry, whole, along, q_hs, z_s, q_hc, z_c, omega, dtypes)
        return add(moments, value), None

    moments, _ = lax.scan(sample, moments, jnp.arange(len(s)))
    sizes = jax.tree.map(lambda leaf: jnp.sum(jnp.abs(leaf), axis=0) * small.unit.astype(leaf.dtype), parts)
    return moments, sizes
