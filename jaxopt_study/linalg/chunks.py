"""Memory layout of vectors in blocks: one array of short chunks, none of which belongs to two blocks."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from jaxopt_study._programs import wider
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.layout import Layout
from jaxopt_study.linalg.sharding import replicate, shard_like
from jaxopt_study.types import Vector

_CHUNK = 128


@dataclass(frozen=True)
class Chunks:
    """Layout in which sums over every block are a few kernels, whatever the number of blocks and leaves.

    A vector is an array (chunks, c). Each leaf is padded with zeros to whole chunks. A sum over blocks is a sum over
    the entries of each chunk, and a sum of these few numbers by block. A program with a kernel for every leaf would
    take minutes to compile for a network of a hundred leaves. The array is on one device.

    Attributes:
        leaves: Shapes and dtypes of the leaves.
        treedef: Structure of the user's vectors.
        owners: For each leaf, the index of its block.
        num_blocks: The number of blocks.
    """

    leaves: tuple[jax.ShapeDtypeStruct, ...]
    treedef: Any
    owners: tuple[int, ...]
    num_blocks: int

    @property
    def length(self) -> int:
        """Length c of a chunk: short where the leaves are, so that padding wastes little."""
        return min(_CHUNK, max(1, -(-self.size // max(1, len(self.leaves)))))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks of each leaf."""
        return tuple(-(-math.prod(leaf.shape) // self.length) for leaf in self.leaves)

    @property
    def size(self) -> int:
        """Number n of coordinates."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves)

    @property
    def scalar(self) -> Any:
        """The dtype of a vector in this layout."""
        return wider(*(vectors.accumulator(leaf.dtype) for leaf in self.leaves))

    @property
    def structure(self) -> Any:
        """Shape and dtype of a vector in this layout."""
        return jax.ShapeDtypeStruct((sum(self.counts), self.length), self.scalar)

    @property
    def block_of_chunk(self) -> Int[np.ndarray, " chunks"]:
        """The block of each chunk."""
        return np.repeat(np.asarray(self.owners, np.int32), self.counts)

    def pack(self, v: Vector) -> Float[Array, "chunks c"]:
        """Return a vector of the user's structure in this layout."""
        pieces = []
        for leaf, count in zip(jax.tree.leaves(v), self.counts, strict=True):
            flat = replicate(leaf).reshape(-1).astype(self.scalar)
            pieces.append(jnp.pad(flat, (0, count * self.length - flat.shape[0])))
        return jnp.concatenate(pieces).reshape(-1, self.length)

    def unpack(self, x: Float[Array, "chunks c"]) -> Vector:
        """Return a vector of this layout in the user's structure."""
        pieces, start, flat = [], 0, x.reshape(-1)
        for leaf, count in zip(self.leaves, self.counts, strict=True):
            piece = lax.slice(flat, (start,), (start + math.prod(leaf.shape),))
            pieces.append(shard_like(piece.reshape(leaf.shape).astype(leaf.dtype), leaf))
            start += count * self.length
        return self.treedef.unflatten(pieces)

    def random(self, seed: UInt32[Array, "2"], serial: Any) -> Float[Array, "chunks c"]:
        """Return independent standard normals for all coordinates, as from `Layout.random`; padding is 0."""
        like = jax.ShapeDtypeStruct((sum(self.counts) * self.length,), self.scalar)
        drawn = Layout((like,), jax.tree.structure(0), True).random(seed, serial, 1)[0]
        sizes = [math.prod(leaf.shape) for leaf in self.leaves]
        filled = np.concatenate(
            [
                np.clip(size - self.length * np.arange(count), 0, self.length)
                for size, count in zip(sizes, self.counts, strict=True)
            ]
        ).astype(np.int32)
        inside = jnp.arange(self.length, dtype=jnp.int32)[None, :] < jnp.asarray(filled)[:, None]
        return jnp.where(inside, drawn.reshape(-1, self.length), 0)

    def sums(self, numbers: Float[Array, "chunks ..."]) -> Float[Array, "blocks ..."]:
        """Return the sums by block of numbers of the chunks."""
        return jax.ops.segment_sum(numbers, jnp.asarray(self.block_of_chunk), self.num_blocks)

    def largest(self, x: Float[Array, "chunks c"]) -> Float[Array, " blocks"]:
        """Return the largest size of an entry in every block; NaN if one is."""
        of_chunk = jnp.max(jnp.abs(x), axis=1)
        most = jax.ops.segment_max(of_chunk, jnp.asarray(self.block_of_chunk), self.num_blocks)
        return jnp.maximum(most, 0)  # a block without coordinates has −∞

    def norms(self, x: Float[Array, "chunks c"]) -> Float[Array, " blocks"]:
        """Return the norm of every block of numbers of order one."""
        return jnp.sqrt(self.sums(jnp.sum(x * x, axis=1)))

    def times(self, factors: Float[Array, " blocks"], x: Float[Array, "chunks c"]) -> Float[Array, "chunks c"]:
        """Return a vector with every block multiplied by its factor."""
        return factors[jnp.asarray(self.block_of_chunk)][:, None] * x

    def project(self, basis: Float[Array, "m chunks c"], x: Float[Array, "chunks c"]) -> Float[Array, "blocks m"]:
        """Return the inner products with the vectors of a basis, in every block."""
        return self.sums(jnp.einsum("mkc,kc->km", basis, x, precision=lax.Precision.HIGHEST))

    def combine(self, basis: Float[Array, "m chunks c"], coefficients: Float[Array, "blocks m"]) -> Any:
        """Return the combination of the vectors of a basis with coefficients of every block."""
        spread = coefficients[jnp.asarray(self.block_of_chunk)]
        return jnp.einsum("km,mkc->kc", spread, basis, precision=lax.Precision.HIGHEST)
