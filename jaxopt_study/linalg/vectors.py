"""Arithmetic of vectors that are pytrees, and of bases of them.

A vector has the structure of the parameters. A basis of m vectors has one more leading axis, of length m, on every
leaf. Nothing is ravelled into one long vector, so that a sharded leaf stays where it is: every function here reduces
leaf by leaf, and only scalars or m coefficients travel between devices. Contractions run at the highest precision.

Squares of numbers below 1e-19 vanish in single precision, and those of numbers above 1e19 overflow. So a vector that
may have any length is measured by `norm`, which takes its unit out first: the power of two next to its largest entry,
so that nothing is rounded. A loop that cannot afford to read every vector twice divides the operator's products by one
unit instead, from the first of them (`settled_unit`, `in_units`), uses `plain_norm` on what is then of order one, and
multiplies its results by the unit in the end. Both are covariant bit for bit under powers of two.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, reshard
from jaxtyping import Array, Float

from jaxopt_study._programs import wider
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
    """Return the Euclidean norm ‖a‖, a real scalar, of a vector of any length that is a normal number.

    Args:
        a: A vector.

    Returns:
        √⟨a, a⟩, bit for bit where the squares neither vanish nor overflow. Cost: two reads of the vector.

    Example:
        >>> print(norm(jnp.array([3e-30, 4e-30])), norm({"x": jnp.array([3e30]), "y": jnp.array([4e30])}))
        5e-30 5e+30
    """
    scaled, unit = unscaled(a)
    return unit * plain_norm(scaled)


def plain_norm(a: Vector) -> Float[Array, ""]:
    """Return √⟨a, a⟩ by one read of the vector: of one of order 1, as its squares vanish or overflow for others."""
    return jnp.sqrt(inner(a, a))


def largest(a: Vector) -> Float[Array, ""]:
    """Return max |aᵢ|, a real scalar in at least single precision; NaN if an entry is."""
    parts = [jnp.max(jnp.abs(leaf), initial=0).astype(accumulator(leaf.dtype)) for leaf in _leaves(a)]
    return jax.tree.reduce(jnp.maximum, together(*parts))


def power_of_two(x: Float[Array, ""]) -> Float[Array, ""]:
    """Return the power of two next to x ≥ 0, within the range in which its reciprocal is normal, too; NaN for NaN."""
    info = jnp.finfo(x.dtype)
    tiny = float(info.tiny)
    return lax.stop_gradient(jnp.clip(lax.reduce_precision(x, info.nexp, 0), tiny, 1 / tiny))


def unscaled(a: Vector) -> tuple[Vector, Float[Array, ""]]:
    """Return a vector of which the largest entry is between ½ and 2, and the power of two that it was divided by.

    Args:
        a: A vector, or an array of coefficients.

    Returns:
        The vector in at least single precision, and its unit, so that their product is a exactly. A zero vector stays
        zero.
    """
    unit = power_of_two(largest(a))
    return _opaque(jax.tree.map(lambda x: _times(x, 1 / unit, accumulator(x.dtype)), a)), unit


def settled_unit(unit: Float[Array, ""], products: Vector) -> Float[Array, ""]:
    """Return the unit of a loop's products: what it was, or if it was 0 that of the first products that are not zero.

    Args:
        unit: A power of two, or 0 before the first product.
        products: A vector or a block, as the operator made it.

    Returns:
        The unit. Cost: one read of the products; a branch around it would cost more.
    """
    most = largest(products).astype(unit.dtype)
    return jnp.where(unit > 0, unit, jnp.where(most > 0, power_of_two(most), 0))


def in_units(unit: Float[Array, ""], products: Vector) -> Vector:
    """Return products divided by their unit, exactly; by 1 while it is 0."""
    return _opaque(scale(1 / jnp.where(unit > 0, unit, 1), products))


def scale(factor: Any, a: Vector) -> Vector:
    """Return factor · a in the dtypes of a."""
    return jax.tree.map(lambda x: _times(x, factor, x.dtype), a)


def add(a: Vector, b: Vector) -> Vector:
    """Return a + b in the dtypes of a."""
    return jax.tree.map(lambda x, y: jnp.add(*together(x, y)).astype(x.dtype), a, b)


def subtract(a: Vector, b: Vector) -> Vector:
    """Return a − b in the dtypes of a."""
    return jax.tree.map(lambda x, y: jnp.subtract(*together(x, y)).astype(x.dtype), a, b)


def axpy(factor: Any, a: Vector, b: Vector) -> Vector:
    """Return factor · a + b in the dtypes of b."""

    def of_leaves(x: Array, y: Array) -> Array:
        c, x = together(factor, x)
        return jnp.add(*together(c * x, y)).astype(y.dtype)

    return jax.tree.map(of_leaves, a, b)


def normalize(a: Vector) -> tuple[Vector, Float[Array, ""]]:
    """Return a/‖a‖ and ‖a‖, of a vector of any length; a zero vector stays zero."""
    scaled, unit = unscaled(a)
    length = plain_norm(scaled)
    inverse = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    return jax.tree.map(lambda x, like: _times(x, inverse, like.dtype), scaled, a), unit * length


def zeros_like(like: Any) -> Vector:
    """Return the zero vector of the shapes, dtypes and shardings of `like`."""
    return jax.tree.map(lambda leaf: placed(jnp.zeros(leaf.shape, leaf.dtype), leaf), like)


def random_like(like: Any, *, key: Key, distribution: Distribution = "normal") -> Vector:
    """Draw a random vector.

    The numbers depend on the key and on the order and shapes of the leaves, not on how they are sharded.

    Args:
        like: A pytree of arrays or `jax.ShapeDtypeStruct`s, the structure, shapes and dtypes of the vector.
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
    leaves, structure = jax.tree.flatten(like)
    draw = _signs if distribution == "rademacher" else jax.random.normal
    drawn = [
        placed(draw(subkey, leaf.shape, accumulator(leaf.dtype)).astype(leaf.dtype), leaf)
        for subkey, leaf in zip(jax.random.split(key, max(len(leaves), 1)), leaves, strict=False)
    ]
    v = structure.unflatten(drawn)
    return normalize(v)[0] if distribution == "sphere" else v


def _signs(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    # Thirty-two from every random word takes a small part of the time that one from each would.
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None, :]) & 1
    return (1 - 2 * bits.astype(dtype)).reshape(-1)[:size].reshape(shape)


def zeros_basis(like: Any, m: int) -> Vector:
    """Return room for a basis of m vectors: zeros with a leading axis m, sharded as the vectors are."""
    return jax.tree.map(lambda leaf: placed(jnp.zeros((m, *leaf.shape), leaf.dtype), leaf), like)


def stack(vectors: list[Any]) -> Vector:
    """Return the basis whose rows are the given vectors."""
    return jax.tree.map(lambda *rows: jnp.stack(rows), *vectors)


def row(basis: Vector, index: Any) -> Vector:
    """Return one vector of a basis; the index may be traced."""
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), basis)


def with_row(basis: Vector, index: Any, v: Vector) -> Vector:
    """Return the basis with one vector replaced; the index may be traced."""
    return jax.tree.map(lambda leaf, x: lax.dynamic_update_index_in_dim(leaf, x.astype(leaf.dtype), index, 0), basis, v)


def project(basis: Vector, v: Vector) -> Float[Array, " m"]:
    """Return the m inner products of the vectors of a basis with v.

    Args:
        basis: m vectors.
        v: One vector.

    Returns:
        An array (m,). Cost: one read of the basis; between devices, m numbers travel.
    """
    return _sum_of_leaves(lambda q, x: _contract(q, x, x.ndim), basis, v)


def gram(basis: Vector, block: Vector) -> Float[Array, "m b"]:
    """Return the m × b inner products of the vectors of two bases."""

    def of_leaf(q: Array, x: Array) -> Array:
        axes = tuple(range(1, q.ndim))
        return lax.dot_general(
            q,
            x,
            ((axes, axes), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=accumulator(q.dtype),
            out_sharding=_everywhere(q, 2),
        )

    return _sum_of_leaves(of_leaf, basis, block)


def combine(basis: Vector, coefficients: Float[Array, " m"] | Float[Array, "m b"]) -> Vector:
    """Return the linear combination Σⱼ cⱼ qⱼ of the vectors of a basis, or several of them.

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
    """Return the dtype in which numbers of a dtype are summed: its own, and single precision for half."""
    return wider(dtype, jnp.float32)


def epsilon(like: Any) -> float:
    """Return the spacing of floating-point numbers at 1, of the coarsest leaf of a pytree of floating-point arrays."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(like))


def _contract(q: Array, x: Array, num_axes: int) -> Array:
    q, x = together(q, x)
    q_axes, x_axes = tuple(range(q.ndim - num_axes, q.ndim)), tuple(range(num_axes))
    return lax.dot_general(
        q,
        x,
        ((q_axes, x_axes), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=accumulator(q.dtype),
        out_sharding=_everywhere(q, q.ndim + x.ndim - 2 * num_axes),
    )


def _sum_of_leaves(of_leaf: Any, a: Vector, b: Vector) -> Array:
    parts: list[Array] = _leaves(jax.tree.map(of_leaf, a, b))
    total = parts[0]
    for part in parts[1:]:
        total = jnp.add(*together(total, part))
    return total


def _leaves(a: Vector) -> list[Array]:
    leaves = jax.tree.leaves(a)
    if not leaves:
        raise ValueError("A vector needs at least one leaf; received none.")
    return leaves


def _opaque(a: Vector) -> Vector:
    # The compiler takes factors that it knows, as of a loss 1e-30 · f, out of sums of squares, and squares them.
    return lax.optimization_barrier(a)


def together(*numbers: Any) -> list[Array]:
    """Return numbers in the dtype to which they promote, which JAX may be told not to do by itself."""
    types: list[Any] = [jax.typeof(x) for x in numbers]
    strong = [t.dtype for t in types if not t.weak_type]
    dtype = wider(*(strong or [t.dtype for t in types]))
    return [jnp.asarray(x, dtype) for x in numbers]


def _times(x: Array, factor: Any, dtype: Any) -> Array:
    return jnp.multiply(*together(x, factor)).astype(dtype)


def placed(x: Array, leaf: Any) -> Array:
    """Return x spread over devices as a leaf is; axes in front of the leaf's, those of a basis, stay whole."""
    sharding = spread(leaf)
    if sharding is None:
        return x
    extra = x.ndim - len(leaf.shape)
    target = NamedSharding(sharding.mesh, PartitionSpec(*(None,) * extra, *sharding.spec))
    return reshard(x, target) if _is_explicit(sharding.mesh) else lax.with_sharding_constraint(x, target)


def gathered(x: Array) -> Array:
    """Return x whole on every device, where the type of an array says how it is spread; elsewhere JAX sees to it."""
    sharding = _everywhere(x, x.ndim)
    return x if sharding is None else reshard(x, sharding)


def filled(value: Any, shape: tuple[int, ...], dtype: Any, like: Any) -> Array:
    """Return an array of one value, to be written to from inner products of vectors like a given one."""
    x = jnp.full(shape, value, dtype)
    meshes = [sharding.mesh for leaf in jax.tree.leaves(like) if (sharding := spread(leaf)) is not None]
    return reshard(x, _whole(meshes[0], len(shape))) if meshes and _is_explicit(meshes[0]) else x


def entering_mesh(tree: Any) -> AbstractContextManager[Any]:
    """Return a context in which JAX knows the mesh that arrays are spread over, if its axes are explicit.

    A program of which no result depends on an array of the mesh is otherwise made for one device, and refused.
    """
    for leaf in jax.tree.leaves(tree):
        sharding = spread(leaf)
        if sharding is not None and _is_explicit(sharding.mesh) and isinstance(sharding.mesh, Mesh):
            return jax.set_mesh(sharding.mesh)
    return nullcontext()


def _everywhere(x: Array, ndim: int) -> NamedSharding | None:
    # On a mesh with explicit axes JAX wants to be told where sums over divided axes go; on others it must not be told.
    mesh = jax.typeof(x).sharding.mesh
    return _whole(mesh, ndim) if _is_explicit(mesh) else None


def _whole(mesh: Any, ndim: int) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*(None,) * ndim))


def _is_explicit(mesh: Any) -> bool:
    return AxisType.Explicit in mesh.axis_types


def spread(leaf: Any) -> NamedSharding | None:
    """Return how a leaf is spread over several devices; None for a single one, and for a traced array unless it says.

    The type of a traced array says it where its mesh has explicit axes; on others the compiler decides.
    """
    sharding = jax.typeof(leaf).sharding if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size < 2:
        return None
    return sharding if _is_explicit(sharding.mesh) or not isinstance(leaf, Tracer) else None
