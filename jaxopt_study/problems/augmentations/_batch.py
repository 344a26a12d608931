"""Inputs and images of a batch, checked, and boxes of pixels."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxopt_study._checks import check_key, describe_argument


def checked_inputs(who: str, key: Any, batch: Any) -> Float[Array, "examples ..."]:
    """Return the inputs of a batch; raise TypeError unless it has floating inputs and targets, and a key with it."""
    check_key(who, key)
    if not isinstance(batch, dict) or not {"x", "y"} <= set(batch):
        raise TypeError(f'{who} needs a batch {{"x": inputs, "y": targets}}; received {describe_argument(batch)}.')
    x = jnp.asarray(batch["x"])
    if not x.ndim or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{who} needs floating inputs, one row per example; received {x.dtype} of shape {x.shape}.")
    return x


def checked_images(who: str, key: Any, batch: Any) -> Float[Array, "examples height width channels"]:
    """Return the images of a batch; raise ValueError for inputs of another shape."""
    x = checked_inputs(who, key, batch)
    if x.ndim != 4:
        raise ValueError(
            f"{who} needs images of shape (examples, height, width, channels); received {x.shape}. Load the data set "
            "with flatten=False."
        )
    return x


def in_box(shape: tuple[int, int], top: Any, bottom: Any, left: Any, right: Any) -> Bool[Array, "height width"]:
    """Return where an image lies in a box; ends are excluded, and may lie outside the image."""
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None, :]
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def compute_dtype(dtype: Any) -> Any:
    """Return the dtype of the arithmetic: single precision or wider, whatever the inputs are stored in."""
    return dtype if dtype == jnp.float64 else jnp.float32
