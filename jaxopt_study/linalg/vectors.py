"""Vector arithmetic on pytrees, and on bases of them.

A vector has the structure of the parameters. A basis of m vectors has one more leading axis, of length m, on every
leaf. Leaves are never ravelled into one array, so a sharded leaf keeps its sharding: every function reduces leaf by
leaf, and only scalars or m coefficients travel between devices. Contractions run at the highest precision.

In single precision, squares underflow for numbers below 1e-19 and overflow above 1e19. `norm` therefore divides a
vector by its unit first, the power of two next to its largest entry, which does not round. A loop that cannot afford to
read every vector twice divides the operator's products by one unit, that of the first product (`settled_unit`,
`in_units`), uses `plain_norm` on these numbers of order one, and multiplies its results by the unit at the end. Scaling
an operator by a power of two then scales every result bit for bit.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Num

from jaxopt_study._programs import wider
from jaxopt_study.linalg.sharding import replicated_over_mesh_of, shard_like
from jaxopt_study.types import Key, Vector

Distribution = Literal["normal", "rademacher", "sphere"]


def inner(a: Vector, b: Vector) -> Float[Array, ""]:
    """Return the inner product ⟨a, b⟩ = Σ aᵢ bᵢ, accumulated in at least single precision.

    Args:
        a: A vector.
        b: A vector of the same structure and shapes.

    Returns:
        A real scalar. Cost: one read of both vectors.
    """
    return _sum_of_leaves(lambda x, y: _contract(x, y, x.ndim), a, b)


def norm(a: Vector) -> Float[Array, ""]:
    """Return the Euclidean norm ‖a‖ of a vector, without overflow or underflow of its squares.

    Args:
        a: A vector.

    Returns:
        √⟨a, a⟩, a real scalar; equal to `plain_norm` bit for bit where squares stay in range. Cost: two reads of a.

    Example:
        >>> print(norm(jnp.array([3e-30, 4e-30])), norm({"x": jnp.array([3e30]), "y": jnp.array([4e30])}))
        5e-30 5e+30
    """
    scaled, unit = unscaled(a)
    return unit * plain_norm(scaled)


def plain_norm(a: Vector) -> Float[Array, ""]:
    """Return √⟨a, a⟩ with one read of the vector; entries must be of order 1, or squares underflow or overflow."""
    return jnp.sqrt(inner(a, a))


def max_abs(a: Vector) -> Float[Array, ""]:
    """Return max |aᵢ|, a real scalar in at least single precision; NaN if an entry is."""
    parts = [jnp.max(jnp.abs(leaf), initial=0).astype(accumulator(leaf.dtype)) for leaf in _leaves(a)]
    return jax.tree.reduce(jnp.maximum, promoted(*parts))


def power_of_two(x: Float[Array, ""]) -> Float[Array, ""]:
    """Return the power of two next to x ≥ 0, clipped so that its reciprocal is a normal number; NaN for NaN."""
    info = jnp.finfo(x.dtype)
    tiny = float(info.tiny)
    return lax.stop_gradient(jnp.clip(lax.reduce_precision(x, info.nexp, 0), tiny, 1 / tiny))


def unscaled(a: Vector) -> tuple[Vector, Float[Array, ""]]:
    """Divide a vector by the power of two next to its largest entry, which then lies between ½ and 2.

    Args:
        a: A vector, or an array of coefficients.

    Returns:
        The vector in at least single precision, and the power of two; their product is exactly a. A zero vector stays
        zero.
    """
    unit = power_of_two(max_abs(a))
    return _opaque(jax.tree.map(lambda x: _times(x, 1 / unit, accumulator(x.dtype)), a)), unit


def settled_unit(unit: Float[Array, ""], products: Vector) -> Float[Array, ""]:
    """Return the unit of a loop's products: the previous unit, or the unit of these products if it was 0.

    Args:
        unit: A power of two, or 0 before the first product.
        products: Products with the operator, a vector or a block.

    Returns:
        The unit; 0 as long as all products are 0. Cost: one read of the products, less than a branch would cost.
    """
    most = max_abs(products).astype(unit.dtype)
    return jnp.where(unit > 0, unit, jnp.where(most > 0, power_of_two(most), 0))


def in_units(unit: Float[Array, ""], products: Vector) -> Vector:
    """Return products divided by their unit, without rounding; unchanged while the unit is 0."""
    return _opaque(scale(1 / jnp.where(unit > 0, unit, 1), products))


def scale(factor: Num[ArrayLike, ""], a: Vector) -> Vector:
    """Return factor · a in the dtypes of a."""
    return jax.tree.map(lambda x: _times(x, factor, x.dtype), a)


def add(a: Vector, b: Vector) -> Vector:
    """Return a + b in the dtypes of a."""
    return jax.tree.map(lambda x, y: jnp.add(*promoted(x, y)).astype(x.dtype), a, b)


def subtract(a: Vector, b: Vector) -> Vector:
    """Return a − b in the dtypes of a."""
    return jax.tree.map(lambda x, y: jnp.subtract(*promoted(x, y)).astype(x.dtype), a, b)


def axpy(factor: Num[ArrayLike, ""], a: Vector, b: Vector) -> Vector:
    """Return factor · a + b in the dtypes of b."""

    def of_leaves(x: Array, y: Array) -> Array:
        c, x = promoted(factor, x)
        return jnp.add(*promoted(c * x, y)).astype(y.dtype)

    return jax.tree.map(of_leaves, a, b)


def normalize(a: Vector) -> tuple[Vector, Float[Array, ""]]:
    """Return a/‖a‖ and ‖a‖, without overflow or underflow; a zero vector stays zero."""
    scaled, unit = unscaled(a)
    length = plain_norm(scaled)
    inverse = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    return jax.tree.map(lambda x, like: _times(x, inverse, like.dtype), scaled, a), unit * length


def zeros_like(structure: Any) -> Vector:
    """Return the zero vector of a structure, its shapes, dtypes and shardings included."""
    return jax.tree.map(lambda leaf: shard_like(jnp.zeros(leaf.shape, leaf.dtype), leaf), structure)


def random_like(structure: Any, *, key: Key, distribution: Distribution = "normal") -> Vector:
    """Draw a random vector.

    The numbers depend on the key and on the order and shapes of the leaves, not on their sharding.

    Args:
        structure: A pytree of arrays or `jax.ShapeDtypeStruct`s, with the shapes and dtypes of the vector.
        key: A key, consumed.
        distribution: "normal" for independent standard normals, "rademacher" for independent ±1, "sphere" for the
            uniform distribution on the unit sphere.

    Returns:
        The vector.

    Raises:
        ValueError: If the distribution is unknown.

    Example:
        >>> v = random_like({"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}, key=jax.random.key(0), distribution="sphere")
        >>> print(f"{norm(v):.5f}")
        1.00000
    """
    if distribution not in {"normal", "rademacher", "sphere"}:
        raise ValueError(f"distribution must be 'normal', 'rademacher' or 'sphere'; received {distribution!r}.")
    leaves, treedef = jax.tree.flatten(structure)
    draw = _signs if distribution == "rademacher" else jax.random.normal
    drawn = [
        shard_like(draw(subkey, leaf.shape, accumulator(leaf.dtype)).astype(leaf.dtype), leaf)
        for subkey, leaf in zip(jax.random.split(key, max(len(leaves), 1)), leaves, strict=False)
    ]
    v = treedef.unflatten(drawn)
    return normalize(v)[0] if distribution == "sphere" else v


def _signs(key: Key, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    # 32 signs from each random word take a fraction of the time of one sign from each.
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None, :]) & 1
    return (1 - 2 * bits.astype(dtype)).reshape(-1)[:size].reshape(shape)


def zeros_basis(structure: Any, m: int) -> Vector:
    """Return a basis of m zero vectors, a leading axis m on every leaf, with the sharding of the vectors."""
    return jax.tree.map(lambda leaf: shard_like(jnp.zeros((m, *leaf.shape), leaf.dtype), leaf), structure)


def stack(vectors: list[Vector]) -> Vector:
    """Return the basis whose rows are the given vectors."""
    return jax.tree.map(lambda *rows: jnp.stack(rows), *vectors)


def row(basis: Vector, index: Int[ArrayLike, ""]) -> Vector:
    """Return one vector of a basis; the index may be traced."""
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), basis)


def with_row(basis: Vector, index: Int[ArrayLike, ""], v: Vector) -> Vector:
    """Return the basis with one vector replaced; the index may be traced."""
    return jax.tree.map(lambda leaf, x: lax.dynamic_update_index_in_dim(leaf, x.astype(leaf.dtype), index, 0), basis, v)


def project(basis: Vector, v: Vector) -> Float[Array, " m"]:
    """Return Qᵀv, the m inner products of the vectors of a basis with v.

    Args:
        basis: m vectors.
        v: One vector.

    Returns:
        The coefficients (m,). Cost: one read of the basis; m numbers travel between devices.
    """
    return _sum_of_leaves(lambda q, x: _contract(q, x, x.ndim), basis, v)


def gram(basis: Vector, block: Vector) -> Float[Array, "m b"]:
    """Return the m × b matrix of inner products of the vectors of two bases."""

    def of_leaf(q: Float[Array, "m ..."], x: Float[Array, "b ..."]) -> Float[Array, "m b"]:
        axes = tuple(range(1, q.ndim))
        return lax.dot_general(
            q,
            x,
            ((axes, axes), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=accumulator(q.dtype),
            out_sharding=replicated_over_mesh_of(q, 2),
        )

    return _sum_of_leaves(of_leaf, basis, block)


def combine(basis: Vector, coefficients: Float[Array, " m"] | Float[Array, "m b"]) -> Vector:
    """Return the linear combination Σⱼ cⱼ qⱼ of the vectors of a basis, or a block of combinations.

    Args:
        basis: m vectors.
        coefficients: (m,) for one combination, or (m, b) for a block of b.

    Returns:
        A vector, or a basis of b vectors, in the dtypes of the basis. Cost: one read of the basis.
    """

    def of_leaf(q: Array) -> Array:
        c = coefficients.astype(wider(q.dtype, coefficients.dtype) if q.dtype.itemsize < 4 else q.dtype)
        return lax.dot_general(c, q.astype(c.dtype), (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST).astype(
            q.dtype
        )

    return jax.tree.map(of_leaf, basis)


def accumulator(dtype: Any) -> Any:
    """Return the dtype in which numbers of a dtype are summed: at least single precision."""
    return wider(dtype, jnp.float32)


def epsilon(structure: Any) -> float:
    """Return the machine epsilon of the least precise leaf of a pytree of floating-point arrays."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(structure))


def _contract(q: Float[Array, "..."], x: Float[Array, "..."], num_axes: int) -> Float[Array, "..."]:
    q, x = promoted(q, x)
    q_axes, x_axes = tuple(range(q.ndim - num_axes, q.ndim)), tuple(range(num_axes))
    return lax.dot_general(
        q,
        x,
        ((q_axes, x_axes), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=accumulator(q.dtype),
        out_sharding=replicated_over_mesh_of(q, q.ndim + x.ndim - 2 * num_axes),
    )


def _sum_of_leaves(of_leaf: Callable[[Array, Array], Array], a: Vector, b: Vector) -> Float[Array, "..."]:
    parts: list[Array] = _leaves(jax.tree.map(of_leaf, a, b))
    total = parts[0]
    for part in parts[1:]:
        total = jnp.add(*promoted(total, part))
    return total


def _leaves(a: Vector) -> list[Array]:
    leaves = jax.tree.leaves(a)
    if not leaves:
        raise ValueError("A vector needs at least one leaf; received none.")
    return leaves


def _opaque(a: Vector) -> Vector:
    # XLA would move a constant factor, as of a loss 1e-30 · f, out of a sum of squares and square it.
    return lax.optimization_barrier(a)


def promoted(*numbers: Any) -> list[Array]:
    """Return numbers in the dtype to which they promote, also where JAX is configured not to promote implicitly."""
    types: list[Any] = [jax.typeof(x) for x in numbers]
    strong = [t.dtype for t in types if not t.weak_type]
    dtype = wider(*(strong or [t.dtype for t in types]))
    return [jnp.asarray(x, dtype) for x in numbers]


def _times(x: Float[Array, "*shape"], factor: Num[ArrayLike, ""], dtype: Any) -> Float[Array, "*shape"]:
    return jnp.multiply(*promoted(x, factor)).astype(dtype)
