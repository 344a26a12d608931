"""Augmentations of each example on its own: noise, shift, rotation, flip and cutout."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxopt_study._checks import check_bool, check_integer, check_real, describe_argument
from jaxopt_study.problems.augmentations._augmented import Augmentation
from jaxopt_study.problems.augmentations._batch import checked_images, checked_inputs, compute_dtype, in_box
from jaxopt_study.types import Batch, Key


def input_noise(std: ArrayLike) -> Augmentation:
    """Add independent Gaussian noise to every number of the inputs.

        x ← x + σ z,   z ~ N(0, 1)

    For small σ and squared error it is a penalty on the Jacobian of the model, Tikhonov's.

    Args:
        std: σ ≥ 0, in the units of the inputs.

    Returns:
        The augmentation, for inputs of any shape.

    References:
        Bishop (1995), Training with noise is equivalent to Tikhonov regularization.
    """
    check_real("input_noise", "std", std, 0)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_inputs("input_noise", key, batch)
        return {**batch, "x": x + jnp.asarray(std, x.dtype) * jax.random.normal(key, x.shape, x.dtype)}

    return augment


def shift(max_pixels: ArrayLike) -> Augmentation:
    """Translate every image by whole pixels, drawn uniformly from −m … m for each axis, and fill with zeros.

    Args:
        max_pixels: m, an integer ≥ 0.

    Returns:
        The augmentation.
    """
    _check_pixels("shift", "max_pixels", max_pixels)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_images("shift", key, batch)
        bound = jnp.asarray(max_pixels, jnp.int32)
        steps = jax.random.randint(key, (len(x), 2), -bound, bound + 1)
        return {**batch, "x": jax.vmap(_translated)(x, steps)}

    return augment


def rotation(max_degrees: ArrayLike) -> Augmentation:
    """Rotate every image about its centre by an angle drawn uniformly from −a … a, with bilinear interpolation.

    Args:
        max_degrees: a in [0, 180], in degrees. What turns in from outside the image is 0.

    Returns:
        The augmentation.
    """
    check_real("rotation", "max_degrees", max_degrees, 0, 180)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_images("rotation", key, batch)
        wide = compute_dtype(x.dtype)  # half a precision does not tell the pixels of a large image apart
        angles = jnp.deg2rad(jnp.asarray(max_degrees, wide)) * jax.random.uniform(key, (len(x),), wide, -1, 1)
        return {**batch, "x": jax.vmap(_rotated)(x.astype(wide), angles).astype(x.dtype)}

    return augment


def flip(probability: ArrayLike = 0.5) -> Augmentation:
    """Mirror every image, left to right, with a given probability.

    Args:
        probability: In [0, 1].

    Returns:
        The augmentation. It keeps the labels, which is wrong where the mirror image means something else, as of digits.
    """
    check_real("flip", "probability", probability, 0, 1)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_images("flip", key, batch)
        mirrored = jax.random.bernoulli(key, probability, (len(x), 1, 1, 1))
        return {**batch, "x": jnp.where(mirrored, x[:, :, ::-1], x)}

    return augment


def cutout(size: ArrayLike, *, inside: bool = True) -> Augmentation:
    """Set a square of every image to 0, at a random place.

    Args:
        size: Side of the square in pixels, an integer ≥ 0 and at most the images' smaller side.
        inside: Whether the square lies inside the image and so has exactly its area. False draws its centre from all
            pixels, as the paper does, so that a part of it may lie outside.

    Returns:
        The augmentation.

    Raises:
        ValueError: If the square is larger than the image.

    References:
        DeVries and Taylor (2017), Improved regularization of convolutional neural networks with cutout.
    """
    static = _check_pixels("cutout", "size", size)
    check_bool("cutout", "inside", inside)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_images("cutout", key, batch)
        height, width = x.shape[1:3]
        if static is not None and static > min(height, width):
            raise ValueError(
                f"cutout needs size to be at most the images' smaller side, {min(height, width)}; received {static}."
            )
        side, tops, lefts = jnp.asarray(size, jnp.int32), *jax.random.split(key)

        def start(key: Key, extent: int) -> jax.Array:
            if inside:
                return jax.random.randint(key, (len(x),), 0, extent - side + 1)
            return jax.random.randint(key, (len(x),), 0, extent) - side // 2

        top, left = start(tops, height), start(lefts, width)
        box = jax.vmap(lambda i, j: in_box((height, width), i, i + side, j, j + side))(top, left)
        return {**batch, "x": jnp.where(box[..., None], 0, x)}

    return augment


def _translated(image: Float[Array, "height width channels"], steps: Any) -> Float[Array, "height width channels"]:
    height, width, _ = image.shape
    rows, columns = jnp.arange(height) - steps[0], jnp.arange(width) - steps[1]
    valid = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
    moved = image[jnp.clip(rows, 0, height - 1)][:, jnp.clip(columns, 0, width - 1)]
    return jnp.where(valid[..., None], moved, 0)


def _rotated(
    image: Float[Array, "height width channels"], angle: Float[Array, ""]
) -> Float[Array, "height width channels"]:
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(
        jnp.arange(height, dtype=image.dtype) - (height - 1) / 2,
        jnp.arange(width, dtype=image.dtype) - (width - 1) / 2,
        indexing="ij",
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [cos * rows - sin * columns + (height - 1) / 2, sin * rows + cos * columns + (width - 1) / 2]
    return jax.vmap(lambda channel: map_coordinates(channel, places, order=1), in_axes=-1, out_axes=-1)(image)


def _check_pixels(who: str, name: str, value: Any) -> int | None:
    """Return a number of pixels, or None for a traced one, of which only the kind is checked."""
    if not isinstance(value, Tracer):
        return check_integer(who, name, value, 0)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{who} needs {name} to be an integer; received {describe_argument(value)}. Round it.")
    return None
