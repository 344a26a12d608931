"""How a solver lays out its vectors, and the random directions it draws in that layout."""

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
from jaxtyping import Array, UInt32

from jaxopt_study._programs import wider
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Key, Vector


@dataclass(frozen=True)
class Layout:
    """The coordinates in which a solver works: one long vector, or the leaves as they are.

    Where every leaf lives on one device and has the same dtype, a solver's basis is one matrix (m, n): the contractions
    of a step are then two kernels instead of two for every leaf, which is what compiling a solver costs. The product
    itself always gets the user's pytree. Leaves that are spread over devices, or of different dtypes, stay as they are.
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
        """Return a vector, or a block, in the user's structure, outside of the program that made it.

        On a CPU the leaves are copied out by NumPy: fourteen leaves cost fourteen kernels to compile otherwise.
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

    def random(self, seed: UInt32[Array, "2"], serial: Any, b: int) -> Vector:
        """Draw b independent standard normal vectors; every pair of seed and serial number gives others.

        The bits are a hash of the coordinate's index among all coordinates, and the normal numbers come from them by
        Box and Muller: the same distribution as `jax.random.normal` to 24 bits, and a quarter of the time to compile,
        which matters because a solver needs random directions in the midst of its loop. Every layout draws the same
        vector, so that one device and many start alike.

        Args:
            seed: uint32 (2,), from `seed_words`.
            serial: A number that tells the draws with one seed apart.
            b: How many vectors.

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


def layout_of(like: Any) -> Layout:
    """Return the layout for vectors of given shapes, dtypes and shardings."""
    leaves, structure = jax.tree.flatten(like)
    flat = len({leaf.dtype for leaf in leaves}) == 1 and all(vectors.spread(leaf) is None for leaf in leaves)
    return Layout(tuple(leaves), structure, flat)


def seed_words(key: Key) -> UInt32[Array, "2"]:
    """Return two words that depend on all of a key: uint32 (2,). Nothing is drawn from the key."""
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    first, second = jnp.uint32(0x9E3779B9), jnp.uint32(0x85EBCA6B)
    for i in range(data.shape[-1]):
        first, second = _mix(first ^ data[i]), _mix(second + data[i])
    return jnp.stack([first, second])


def _normal(leaf: Any, start: int, seed: UInt32[Array, "2"], serial: UInt32[Array, ""], b: int) -> Array:
    coordinate = lax.iota(jnp.uint32, math.prod(leaf.shape)) + jnp.uint32(start % 2**32)
    vector = serial ^ _mix(lax.iota(jnp.uint32, b))
    mixed = _mix(coordinate ^ seed[0])[None, :] + _mix(vector ^ seed[1])[:, None]
    radius, angle = _mix(mixed), _mix(mixed ^ jnp.uint32(0x5BD1E995))
    uniform = ((radius >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
    turn = (angle >> 8).astype(jnp.float32) * (2.0**-24 * 2 * math.pi)
    x = (jnp.sqrt(-2.0 * jnp.log(uniform)) * jnp.cos(turn)).astype(leaf.dtype).reshape((b, *leaf.shape))
    return vectors.placed(x, leaf)


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    # Wellons' lowbias32: one to one, and every bit of the result depends on every bit.
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
