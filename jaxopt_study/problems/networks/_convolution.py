"""Convolution on CPUs, as products of tiles of rows with banded matrices.

The sums of a convolution are a trilinear form ⟨y, x ∗ K⟩ of images x, kernel K and outputs y. Its derivatives with
respect to y, x and K are the convolution and its two transposes; each is bilinear, and their derivatives are again
these three. They are three primitives here, so that derivatives of every order are computed in a fast form.

An output row is cut into tiles of t columns. A tile depends on a patch: as many rows as K has, of `reach` columns. The
product of the patch with a banded matrix, in which K is repeated along a diagonal, gives t columns of all outputs. The
matrix holds zeros; but the product of every pixel's own patch with K has only as many columns as K has outputs, too few
for a processor to be fast, and these patches are several times as large. Inside, arrays have the order (columns,
channels, rows, examples): patches are copies of contiguous memory, and loops over the last axis are long. XLA cancels
the transpositions between one layer and the next.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from jaxopt_study._programs import wider

# Time to copy an element of a patch, in products with it (two cores, AVX-512).
_COPY = 160


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution.

    Attributes:
        image: Examples, height, width, channels.
        kernel: Height, width, channels, outputs.
        strides: Rows and columns from one output to the next.
        pads: Zeros before and after the rows, and before and after the columns.
    """

    image: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    @property
    def output(self) -> tuple[int, int, int, int]:
        """Examples, rows, columns, outputs."""
        rows, columns = (
            max(0, (size + sum(pad) - kernel) // stride + 1)
            for size, pad, kernel, stride in zip(self.image[1:3], self.pads, self.kernel, self.strides, strict=False)
        )
        return self.image[0], rows, columns, self.kernel[3]

    @property
    def products(self) -> int:
        """Products of an entry of the images with one of the kernel, padding included."""
        return math.prod(self.output) * math.prod(self.kernel[:3])


@dataclass(frozen=True)
class Tiles:
    """Tiles of an output row.

    Attributes:
        width: t, columns of a tile; the last tile may end beyond the row.
        reach: Columns of the image that a tile depends on.
        starts: First of them, for each tile.
        bands: Where K is in the banded matrices: true if column b of K multiplies column w of the patch for column j of
            the tile; shape (tiles, kernel width, reach, t).
    """

    width: int
    reach: int
    starts: tuple[int, ...]
    bands: np.ndarray


def convolution(
    x: Float[Array, "examples height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels outputs"],
    strides: Sequence[int],
    padding: str,
) -> Float[Array, "examples rows columns outputs"]:
    """Correlate images with a kernel.

    Args:
        x: The images.
        kernel: The kernel, of the same dtype.
        strides: Rows and columns from one output to the next.
        padding: "SAME" or "VALID".

    Returns:
        The sums. Memory beside them: patches of (kernel height) · reach / t times the size of x, and banded matrices
        that are as large as the outputs of one example times (kernel height) · reach · channels / rows.
    """
    (up, down), (left, right) = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    examples, height, width, _ = x.shape
    high, across, channels, outputs = kernel.shape
    geometry = Geometry(
        (examples, height, width, channels),
        (high, across, channels, outputs),
        (strides[0], strides[1]),
        ((up, down), (left, right)),
    )
    if 0 in geometry.output + geometry.image:
        return jnp.zeros(geometry.output, x.dtype)
    return _of_outputs.bind(x, kernel, geometry=geometry)


@lru_cache(maxsize=256)
def tiles(geometry: Geometry) -> Tiles:
    """Return the tiles that cost least: long tiles make large products, short ones multiply fewer zeros.

    Args:
        geometry: Sizes of the convolution.
    """
    examples, rows, columns, outputs = geometry.output

    def cost(cut: Tiles) -> int:
        entries, size = len(cut.starts) * cut.reach, cut.width * outputs
        return entries * (rows * examples * (size + _COPY) + 2 * _COPY * size)

    counts = {-(-columns // width) for width in range(1, columns + 1)}
    return min((_cut(geometry, -(-columns // count)) for count in sorted(counts)), key=cost)


def _cut(geometry: Geometry, width: int) -> Tiles:
    available, across, stride = geometry.image[2], geometry.kernel[1], geometry.strides[1]
    left, columns = geometry.pads[1][0], geometry.output[2]
    count = -(-columns // width)
    first = [max(0, i * width * stride - left) for i in range(count)]
    last = [min(available, (min((i + 1) * width, columns) - 1) * stride - left + across) for i in range(count)]
    reach = max(1, *(b - a for a, b in zip(first, last, strict=True)))
    starts = tuple(min(a, available - reach) for a in first)
    tile, entry, offset, column = np.ix_(*map(range, (count, across, reach, width)))
    at = tile * width + column
    bands = (np.array(starts)[tile] + offset == at * stride - left + entry) & (at < columns)
    return Tiles(width, reach, starts, bands)


def _outputs(x: Any, kernel: Any, *, geometry: Geometry) -> Any:
    """Return y = x ∗ K."""
    examples, rows, columns, outputs = geometry.output
    cut = tiles(geometry)
    banded = jnp.einsum("sbwj,abco->sjoawc", cut.bands.astype(kernel.dtype), kernel)
    banded = banded.reshape(len(cut.starts), cut.width * outputs, -1)
    y = jnp.einsum("snk,skp->snp", banded, _patches(x, geometry))
    return y.reshape(-1, outputs, rows, examples)[:columns].transpose(3, 2, 0, 1)


def _images(y: Any, kernel: Any, *, geometry: Geometry) -> Any:
    """Return the derivative of ⟨y, x ∗ K⟩ with respect to x."""
    _, height, width, channels = geometry.image
    examples, rows, _, _ = geometry.output
    cut, high, stride, up = tiles(geometry), geometry.kernel[0], geometry.strides[0], geometry.pads[0][0]
    banded = jnp.einsum("sbwj,abco->sawcjo", cut.bands.astype(kernel.dtype), kernel)
    banded = banded.reshape(len(cut.starts), high * cut.reach * channels, -1)
    patches = jnp.einsum("skn,snp->skp", banded, _in_tiles(y, geometry))
    patches = patches.reshape(len(cut.starts), high, cut.reach, channels, rows, examples)
    zero, none = jnp.zeros((), y.dtype), (0, 0, 0)
    x = jnp.zeros((width, channels, height, examples), y.dtype)
    for i, start in enumerate(cut.starts):
        columns = (start, width - cut.reach - start, 0)
        for a in range(high):
            lines = (a - up, height - (a - up + stride * (rows - 1) + 1), stride - 1)
            x = x + lax.pad(patches[i, a], zero, (columns, none, lines, none))
    return x.transpose(3, 2, 0, 1)


def _kernels(x: Any, y: Any, *, geometry: Geometry) -> Any:
    """Return the derivative of ⟨y, x ∗ K⟩ with respect to K."""
    high, _, channels, outputs = geometry.kernel
    cut = tiles(geometry)
    wide = wider(x.dtype, jnp.float32)  # partial sums are not rounded to half precision
    banded = jnp.einsum(
        "snp,skp->snk", _in_tiles(y, geometry), _patches(x, geometry), preferred_element_type=wide
    ).reshape(len(cut.starts), cut.width, outputs, high, cut.reach, channels)
    return jnp.einsum("sbwj,sjoawc->abco", cut.bands.astype(wide), banded).astype(x.dtype)


def _patches(x: Any, geometry: Geometry) -> Any:
    """Return the patches of all tiles, shape (tiles, kernel height × reach × channels, rows × examples)."""
    cut, high, stride = tiles(geometry), geometry.kernel[0], geometry.strides[0]
    examples, rows, _, _ = geometry.output
    x = jnp.pad(x.transpose(2, 3, 1, 0), ((0, 0), (0, 0), geometry.pads[0], (0, 0)))
    tops = [slice(a, a + stride * (rows - 1) + 1, stride) for a in range(high)]
    patches = jnp.stack([jnp.stack([x[start : start + cut.reach, :, top] for top in tops]) for start in cut.starts])
    return patches.reshape(len(cut.starts), -1, rows * examples)


def _in_tiles(y: Any, geometry: Geometry) -> Any:
    """Return outputs by tile, shape (tiles, t × outputs, rows × examples)."""
    examples, rows, columns, _ = geometry.output
    cut = tiles(geometry)
    beyond = len(cut.starts) * cut.width - columns
    y = jnp.pad(y.transpose(2, 3, 1, 0), ((0, beyond), (0, 0), (0, 0), (0, 0)))
    return y.reshape(len(cut.starts), -1, rows * examples)


def _primitive(name: str, compute: Callable[..., Any], shape: Callable[[Geometry], tuple[int, ...]]) -> Primitive:
    """Return a bilinear primitive without its derivatives."""
    primitive = Primitive(name)

    def batch(operands: Any, axes: Any, *, geometry: Geometry) -> tuple[Any, int]:
        return jax.vmap(partial(compute, geometry=geometry), in_axes=tuple(axes))(*operands), 0

    primitive.def_impl(jax.jit(compute, static_argnames="geometry"))
    primitive.def_abstract_eval(lambda left, right, *, geometry: ShapedArray(shape(geometry), left.dtype))
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = batch
    return primitive


_of_outputs = _primitive("convolution_in_tiles", _outputs, lambda geometry: geometry.output)
_of_images = _primitive("convolution_in_tiles_images", _images, lambda geometry: geometry.image)
_of_kernels = _primitive("convolution_in_tiles_kernels", _kernels, lambda geometry: geometry.kernel)
# For each argument, the derivative of ⟨cotangent, primitive(left, right)⟩ with respect to it.
ad.defbilinear(
    _of_outputs,
    lambda y, x, kernel, *, geometry: _of_images.bind(y, kernel, geometry=geometry),
    lambda y, x, kernel, *, geometry: _of_kernels.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    _of_images,
    lambda x, y, kernel, *, geometry: _of_outputs.bind(x, kernel, geometry=geometry),
    lambda x, y, kernel, *, geometry: _of_kernels.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    _of_kernels,
    lambda kernel, x, y, *, geometry: _of_images.bind(y, kernel, geometry=geometry),
    lambda kernel, x, y, *, geometry: _of_outputs.bind(x, kernel, geometry=geometry),
)
