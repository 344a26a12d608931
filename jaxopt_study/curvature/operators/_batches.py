"""Means over a data set, computed in batches."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Int, Shaped

from jaxopt_study._checks import check_integer, check_kept, describe_argument, in_double
from jaxopt_study.linalg.sharding import rows, shard_like, sharding_of
from jaxopt_study.linalg.vectors import accumulator
from jaxopt_study.types import Batch


def batch_mean(
    function: Callable[[Batch], Any], data: Batch, batch_size: int | None, *, shard_interleaved: bool = False
) -> Any:
    """Compute the mean over all examples of a function that is a mean over a batch.

    With N examples in batches B of at most b:

        (1/N) Σ_B |B| f(B)

    so a smaller last batch has a smaller weight. The result is f(data) if f is a mean over examples; it is not if the
    examples of a batch depend on each other, as with batch normalisation in training mode.

    Args:
        function: f, from a batch to a pytree of floating arrays.
        data: Arrays with a common leading axis, the examples; any pytree with `batch_size=None`.
        batch_size: b ≥ 1; None for all examples at once.
        shard_interleaved: Whether a batch takes every ⌊N/b⌋-th example instead of b consecutive ones. Batches of data
            that are sharded by examples are then sharded, too, if the number of devices divides b.

    Returns:
        The mean in the dtypes of f, summed in at least single precision. Cost: ⌈N/b⌉ calls in a compiled loop, with the
        memory of one call.
    """
    if batch_size is None or batch_size >= num_examples(data):
        return function(data)
    total, size = num_examples(data), batch_size
    count, rest = divmod(total, size)

    def batch(index: Int[ArrayLike, ""]) -> Batch:
        return jax.tree.map(lambda x: _slice(x, index, size, count, shard_interleaved=shard_interleaved), data)

    def step(sums: Any, index: Int[Array, ""]) -> tuple[Any, None]:
        return jax.tree.map(lambda s, x: s + x.astype(s.dtype), sums, function(batch(index))), None

    like = jax.eval_shape(lambda: function(batch(0)))
    zeros = jax.tree.map(lambda x: shard_like(jnp.zeros(x.shape, accumulator(x.dtype)), x), like)
    sums, _ = lax.scan(step, zeros, jnp.arange(count))
    if not rest:
        return jax.tree.map(lambda s, x: (s * (size / total)).astype(x.dtype), sums, like)
    last = function(jax.tree.map(lambda x: slice_of(x, count * size, rest), data))
    return jax.tree.map(
        lambda s, x: (s * (size / total) + x.astype(s.dtype) * (rest / total)).astype(x.dtype), sums, last
    )


def batches_of(data: Batch, batch_size: int) -> list[tuple[float, Batch]]:
    """Return the batches of a data set, each with its weight |B|/N."""
    total = num_examples(data)
    starts = range(0, total, batch_size)
    return [
        (
            min(batch_size, total - start) / total,
            jax.tree.map(lambda x, start=start: slice_of(x, start, min(batch_size, total - start)), data),
        )
        for start in starts
    ]


def num_examples(data: Batch) -> int:
    """Return the number of examples, the common length of the leading axes."""
    return jax.tree.leaves(data)[0].shape[0]


def is_divided(data: Batch, batch_size: int | None) -> bool:
    """Return whether the examples are sharded and batches of them can be."""
    if batch_size is None:
        return False
    leaves = jax.tree.leaves(data)
    placed = [(x.shape, sharding) for x in leaves if (sharding := sharding_of(x)) is not None and x.ndim]
    shards = [shape[0] // max(sharding.shard_shape(shape)[0], 1) for shape, sharding in placed]
    return max(shards, default=1) > 1 and all(batch_size % count == 0 for count in shards)


def check_batches(name: str, data: Batch | None, batch_size: Any) -> Batch:
    """Return the data as arrays; raise unless they can be read in batches of that size.

    Args:
        name: The function that was called, for the messages.
        data: A pytree of arrays, or None.
        batch_size: Examples per batch, or None.

    Returns:
        The data on the device, or None.

    Raises:
        ValueError: If the data have no examples, `batch_size` is not positive, data are missing, or they have no common
            leading axis.
        TypeError: If a leaf is not an array, or `batch_size` is not an integer.
    """
    data = jax.tree.map(partial(as_array, name), data, is_leaf=lambda part: isinstance(part, Iterator))
    counts = {x.shape[0] for x in jax.tree.leaves(data) if x.ndim}
    if counts == {0}:  # a mean of nothing is NaN, and the curvature that autodiff finds for it is 0
        raise ValueError(
            f"The data of {name} must have at least one example; received none. Check how the data were selected, or "
            "pass data=None for a loss without data."
        )
    if batch_size is None:
        return data
    check_integer(name, "batch_size", batch_size, 1, remedy="None takes all examples at once.")
    shapes = [x.shape for x in jax.tree.leaves(data)]
    if not shapes:
        raise ValueError(f"{name} with batch_size needs data; received none. Leave batch_size out.")
    if any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise ValueError(
            f"The data of {name} must be arrays with a common leading axis, the examples, to be read in batches; "
            f"received shapes {shapes}. Move arrays that are not per example into the loss."
        )
    return data


def as_array(name: str, x: Any) -> jax.Array:
    """Return a leaf of the data as an array; raise TypeError if it is none."""
    x = in_double(x)
    if isinstance(x, np.ndarray):
        check_kept(f"The data of {name}", x)
    try:
        return x if isinstance(x, jax.Array) else jnp.asarray(x)
    except (TypeError, OverflowError) as error:
        raise TypeError(
            f"data of {name} must be arrays; received {describe_argument(x)}. Concatenate the batches of a loader: "
            "jax.tree.map(lambda *x: jnp.concatenate(x), *loader)."
        ) from error


def slice_of(x: Shaped[Array, "examples ..."], start: Int[ArrayLike, ""], size: int) -> Shaped[Array, "{size} ..."]:
    """Return consecutive examples; on a mesh with explicit axes also where the devices do not divide their number."""
    if any(getattr(jax.typeof(x).sharding, "spec", ())):
        return rows(x, jnp.add(start, jnp.arange(size)))
    return lax.dynamic_slice_in_dim(x, start, size)


def _slice(
    x: Shaped[Array, "examples ..."], index: Int[ArrayLike, ""], size: int, count: int, *, shard_interleaved: bool
) -> Shaped[Array, "{size} ..."]:
    if not shard_interleaved:
        return slice_of(x, index * size, size)
    table = jnp.reshape(x[: size * count], (size, count, *x.shape[1:]))
    return lax.dynamic_index_in_dim(table, index, axis=1, keepdims=False)
