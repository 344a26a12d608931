"""Memory layout of a solver's vectors, and random directions in it."""

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Integer, UInt32

from jaxopt_study._programs import wider
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.sharding import shard_like, sharding_of
from jaxopt_study.types import Key, Vector


@dataclass(frozen=True)
class Layout:
    """Layout of a solver's vectors: one flat array, or the leaves as they are.

    If all leaves are on one device and have the same dtype, a solver's basis is one matrix (m, n): the contractions of
    a step are then two kernels instead of two for every leaf, and the solver compiles faster. The product always
    receives the user's pytree. Leaves that are sharded or have different dtypes keep their form.
    """

    leaves: tuple[jax.ShapeDtypeStruct, ...]
    treedef: Any
    flat: bool

    @property
    def structure(self) -> Any:
        """Structure, shapes and dtypes of a vector in this layout."""
        if self.flat:
            return jax.ShapeDtypeStruct((self.size,), self.leaves[0].dtype)
        return self.treedef.unflatten(self.leaves)

    @property
    def size(self) -> int:
        """Number n of coordinates."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves)

    @property
    def scalar(self) -> Any:
        """The dtype of inner products and coefficients."""
        return wider(*(vectors.accumulator(leaf.dtype) for leaf in self.leaves))

    def pack(self, v: Vector) -> Vector:
        """Return a vector of the user's structure in this layout."""
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(v)]) if self.flat else v

    def unpack(self, x: Vector) -> Vector:
        """Return a vector of this layout in the user's structure."""
        if not self.flat:
            return x
        pieces, start = [], 0
        for leaf in self.leaves:
            stop = start + math.prod(leaf.shape)
            pieces.append(lax.slice(x, (start,), (stop,)).reshape(leaf.shape))
            start = stop
        return self.treedef.unflatten(pieces)

    def deliver(self, x: Vector) -> Vector:
        """Return a vector or a block in the user's structure, outside of the compiled program.

        On a CPU NumPy copies the leaves; compiled code would take one kernel for each.
        """
        if not self.flat:
            return x
        if isinstance(x, Tracer) or any(device.platform != "cpu" for device in x.devices()):
            return _unpack(self, x)
        on_host, pieces, start = np.asarray(x), [], 0
        for leaf in self.leaves:
            stop = start + math.prod(leaf.shape)
            pieces.append(np.array(on_host[..., start:stop]).reshape((*x.shape[:-1], *leaf.shape)))
            start = stop
        return self.treedef.unflatten(jax.device_put(pieces, x.sharding))

    def random(self, seed: UInt32[Array, "2"], serial: Integer[ArrayLike, ""], b: int) -> Vector:
        """Draw b independent standard normal vectors, different ones for every pair of seed and serial number.

        The bits are a hash of the coordinate's index among all coordinates, and the Box–Muller transform makes them
        normal: the distribution of `jax.random.normal` to 24 bits, in a quarter of the time to compile, which matters
        inside a solver's loop. Every layout draws the same vector, so a solve starts alike on one device and on many.

        Args:
            seed: uint32 (2,), from `seed_words`.
            serial: Number of the draw, among those with the same seed.
            b: Number of vectors.

        Returns:
            A block of b vectors of this layout.
        """
        leaves, structure = jax.tree.flatten(self.structure)
        serial = jnp.asarray(serial).astype(jnp.uint32)
        starts = itertools.accumulate((math.prod(leaf.shape) for leaf in leaves), initial=0)
        return structure.unflatten(
            [_normal(leaf, start, seed, serial, b) for leaf, start in zip(leaves, starts, strict=False)]
        )


@partial(jax.jit, static_argnums=0)
def _unpack(layout: Layout, x: Vector) -> Vector:
    return layout.unpack(x) if x.ndim == 1 else jax.vmap(layout.unpack)(x)


def layout_of(structure: Any) -> Layout:
    """Return the layout for vectors of given shapes, dtypes and shardings."""
    leaves, treedef = jax.tree.flatten(structure)
    flat = len({leaf.dtype for leaf in leaves}) == 1 and all(sharding_of(leaf) is None for leaf in leaves)
    return Layout(tuple(leaves), treedef, flat)


def seed_words(key: Key) -> UInt32[Array, "2"]:
    """Return a hash of a key in two words; the key is not consumed."""
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    first, second = jnp.uint32(0x9E3779B9), jnp.uint32(0x85EBCA6B)
    for i in range(data.shape[-1]):
        first, second = _mix(first ^ data[i]), _mix(second + data[i])
    return jnp.stack([first, second])


def _normal(
    leaf: Any, start: int, seed: UInt32[Array, "2"], serial: UInt32[Array, ""], b: int
) -> Float[Array, "{b} ..."]:
    coordinate = lax.iota(jnp.uint32, math.prod(leaf.shape)) + jnp.uint32(start % 2**32)
    vector = serial ^ _mix(lax.iota(jnp.uint32, b))
    mixed = _mix(coordinate ^ seed[0])[None, :] + _mix(vector ^ seed[1])[:, None]
    radius, angle = _mix(mixed), _mix(mixed ^ jnp.uint32(0x5BD1E995))
    uniform = ((radius >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
    turn = (angle >> 8).astype(jnp.float32) * (2.0**-24 * 2 * math.pi)
    x = (jnp.sqrt(-2.0 * jnp.log(uniform)) * jnp.cos(turn)).astype(leaf.dtype).reshape((b, *leaf.shape))
    return shard_like(x, leaf)


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    # Wellons' lowbias32: a bijection in which every bit of the result depends on every bit of x.
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
