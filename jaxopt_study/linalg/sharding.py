"""Sharding of vectors: read it, copy it to other arrays, and enter the mesh of a pytree."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, reshard
from jaxtyping import Array, Integer, Shaped


def sharding_of(leaf: Any) -> NamedSharding | None:
    """Return the sharding of a leaf over several devices; None on a single device, or where it is unknown in a trace.

    The type of a traced array holds its sharding where its mesh has explicit axes; on others the compiler decides.
    """
    sharding = jax.typeof(leaf).sharding if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size < 2:
        return None
    return sharding if _is_explicit(sharding.mesh) or not isinstance(leaf, Tracer) else None


def shard_like(x: Shaped[Array, "*shape"], leaf: Any) -> Shaped[Array, "*shape"]:
    """Return x with the sharding of a leaf; axes in front of the leaf's, those of a basis, are not divided."""
    sharding = sharding_of(leaf)
    if sharding is None:
        return x
    extra = x.ndim - len(leaf.shape)
    target = NamedSharding(sharding.mesh, PartitionSpec(*(None,) * extra, *sharding.spec))
    return reshard(x, target) if _is_explicit(sharding.mesh) else lax.with_sharding_constraint(x, target)


def replicate(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Return x undivided on every device of a mesh with explicit axes; elsewhere the compiler decides."""
    sharding = replicated_over_mesh_of(x, x.ndim)
    return x if sharding is None else reshard(x, sharding)


def rows(x: Shaped[Array, "examples ..."], indices: Integer[Array, " batch"]) -> Shaped[Array, "batch ..."]:
    """Return some of the examples, with the sharding of all examples on an explicit mesh."""
    sharding = getattr(jax.typeof(x), "sharding", None)
    if sharding is None or not any(sharding.spec):
        return x.at[indices].get(mode="promise_in_bounds")
    shared = sharding.shard_shape(x.shape)[0] < len(x)
    parts = len(x) // sharding.shard_shape(x.shape)[0]
    first = sharding.spec[0] if shared and len(indices) % parts == 0 else None
    spec = PartitionSpec(first, *sharding.spec[1:])
    return x.at[indices].get(mode="promise_in_bounds", out_sharding=sharding.update(spec=spec))


def constant(structure: Any, value: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of one value that can be updated with inner products of vectors of the given structure."""
    x = jnp.full(shape, value, dtype)
    meshes = [sharding.mesh for leaf in jax.tree.leaves(structure) if (sharding := sharding_of(leaf)) is not None]
    return reshard(x, _replicated(meshes[0], len(shape))) if meshes and _is_explicit(meshes[0]) else x


def mesh_context(tree: Any) -> AbstractContextManager[Any]:
    """Return a context in which JAX knows the mesh of a pytree of arrays, if its axes are explicit.

    Without it, a program whose results do not depend on an array of the mesh is compiled for one device and rejected.
    """
    for leaf in jax.tree.leaves(tree):
        sharding = sharding_of(leaf)
        if sharding is not None and _is_explicit(sharding.mesh) and isinstance(sharding.mesh, Mesh):
            return jax.set_mesh(sharding.mesh)
    return nullcontext()


def replicated_over_mesh_of(x: Array, ndim: int) -> NamedSharding | None:
    """Return the sharding of an undivided result of a contraction with x; None unless the mesh has explicit axes."""
    # On a mesh with explicit axes JAX requires the sharding of a sum over divided axes; on others it forbids it.
    mesh = jax.typeof(x).sharding.mesh
    return _replicated(mesh, ndim) if _is_explicit(mesh) else None


def _replicated(mesh: Any, ndim: int) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*(None,) * ndim))


def _is_explicit(mesh: Any) -> bool:
    return AxisType.Explicit in mesh.axis_types
