"""Batch sharpness: the curvature of random batches along their own gradients."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxopt_study._checks import check_bool, check_integer, check_key
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import nan_is_an_answer, wider
from jaxopt_study.curvature import (
    Hessian,
    check_examples,
    is_stream,
    mean_and_error,
    noise_floor,
    operator_of_data,
    ratio_and_error,
    slope,
)
from jaxopt_study.dynamics import _cards
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.hvp import linearized_gradient
from jaxopt_study.linalg.sharding import rows
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector


class BatchSharpness(NamedTuple):
    """Curvature of random batches along their own gradients.

    Attributes:
        value: E[gᵀHg] / E[‖g‖²] with gradient g and Hessian H of the same random batch.
        error: Its standard error over the batches; at least the rounding error, which is all of it if all batches are
            the same.
        mean_quotient: E[gᵀHg / ‖g‖²], the mean of the quotients, which weights all batches alike.
        mean_quotient_error: Its standard error, also at least the rounding error.
        full_batch: ḡᵀH̄ḡ / ‖ḡ‖² of all data.
        num_batches: Number of batches.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]
    mean_quotient: Float[Array, ""]
    mean_quotient_error: Float[Array, ""]
    full_batch: Float[Array, ""]
    num_batches: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.batch_sharpness)
    plot = plotted


@nan_is_an_answer
def batch_sharpness(
    loss: LossFn,
    params: Params,
    data: Batch,
    *,
    batch_size: int | None = None,
    key: Key,
    num_batches: int = 64,
    replace: bool = False,
) -> BatchSharpness:
    """Estimate the curvature of random batches along their own gradients.

    For random batches B of b examples, each with the gradient g and the Hessian H of its own mean loss:

        batch sharpness = E_B[gᵀ H g] / E_B[‖g‖²]

    For SGD with learning rate η it is this that settles at 2/η, while the largest eigenvalue of the full Hessian stays
    below: one step of SGD changes the loss of its own batch by −η ‖g‖² + ½ η² gᵀHg, so on average it increases it where
    the batch sharpness is above 2/η. At b = N it is the curvature along the gradient.

    Args:
        loss: loss(params, batch) → scalar, a mean over the examples of the batch, without randomness.
        params: θ.
        data: Arrays with a common leading axis, the examples; or batches, as in `curvature.hessian`, which are then the
            random ones: let the loader shuffle. `full_batch` is of all that it gives.
        batch_size: b, from 1 to N; None for the batches of a loader.
        key: Key of the batches.
        num_batches: Number of independent batches, ≥ 2; of a loader, the largest number to read.
        replace: Whether the examples of a batch are drawn with replacement. By default all are different, as in an
            epoch.

    Returns:
        Estimates with standard errors. Cost: a gradient and a Hessian-vector product of each batch, and of all data at
        once; memory of the latter, or of one batch of a loader.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `batch_size` is not in [1, N], `num_batches` < 2, or parameters or data do not suit.

    Example:
        >>> data = jnp.array([1.0, 2.0])  # gradients x p and curvatures x of the examples
        >>> loss = lambda p, x: jnp.mean(x * p**2) / 2
        >>> found = batch_sharpness(loss, jnp.array(1.0), data, batch_size=1, key=jax.random.key(0), num_batches=1000)
        >>> print(bool(abs(found.value - 9 / 5) < 4 * found.error), found.full_batch)  # (1³ + 2³)/(1² + 2²)
        True 1.5

    References:
        Andreyev and Beneventano (2025), Edge of Stochastic Stability: Revisiting the Edge of Stability for SGD, arXiv
        2412.20553: the ratio of the two expectations.
    """
    name = "batch_sharpness"
    key = check_key(name, key)
    num_batches = check_integer(name, "num_batches", num_batches, 2, remedy="A standard error takes two.")
    replace = check_bool(name, "replace", replace)
    check_examples(name, data)
    streamed = is_stream(data)
    size = 1 if batch_size is None and not streamed else batch_size
    op: Any = operator_of_data(_Loss(loss), params, data, batch_size=size, remat=None, precision="highest")
    if streamed:
        return _over_stream(op, num_batches)
    count = jax.tree.leaves(op.data)[0].shape[0]
    batch_size = check_integer(name, "batch_size", batch_size, 1, count, remedy="There are no more examples.")
    if batch_size == count and not replace:
        num_batches = 2  # they are all the same
    return _measure(loss, op.params, op.data, key, batch_size, num_batches, replace, noise_floor(op))


def _over_stream(op: Any, num_batches: int) -> BatchSharpness:
    found = [_one(op.loss, op.params, batch) for _, batch in op.stream.first(num_batches)]
    if len(found) < 2:
        raise ValueError(
            f"batch_sharpness needs two batches for a standard error; received a loader of {len(found)}. Set a smaller "
            "batch size in the loader."
        )
    quotients, lengths, images = (jnp.stack(parts) for parts in zip(*found, strict=True))
    _, grads, curved = slope(op)
    return _summary(quotients, lengths, images, *_along(grads, curved), noise_floor(op))


@jax.jit
def _along(grads: Vector, curved: Vector) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return gᵀHg/‖g‖² and ‖g‖ from g and Hg/‖g‖."""
    direction, length = vectors.normalize(grads)
    return vectors.inner(direction, curved), length


class _Loss(Hessian):
    """The loss of a batch, with the checks of a Hessian's loss."""

    name: ClassVar[str] = "batch_sharpness"


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _measure(
    loss: Any, params: Params, data: Batch, key: Key, batch_size: int, num_batches: int, replace: bool, floor: float
) -> BatchSharpness:
    count = jax.tree.leaves(data)[0].shape[0]
    terms = partial(_terms, loss, params)

    def of_key(key: Key) -> tuple[Float[Array, ""], ...]:
        chosen = jax.random.choice(key, count, (batch_size,), replace=replace)
        return terms(jax.tree.map(lambda x: rows(x, chosen), data))

    if batch_size == count and not replace:
        found = jax.tree.map(lambda x: jnp.stack([x, x]), terms(data))
    else:
        found = lax.map(of_key, jax.random.split(key, num_batches))
    return _summary(*found, *terms(data)[:2], floor)


def _terms(loss: Any, params: Params, batch: Batch) -> tuple[Float[Array, ""], ...]:
    """Return gᵀHg/‖g‖², ‖g‖ and ‖Hg‖/‖g‖."""
    with jax.default_matmul_precision("highest"):
        grads, product = linearized_gradient(lambda p: loss(p, batch), params)
        direction, length = vectors.normalize(grads)
        image = product(direction)
        curved, size = vectors.inner(direction, image), vectors.norm(image)
    dtype = vectors.accumulator(wider(curved.dtype, length.dtype))
    return curved.astype(dtype), length.astype(dtype), size.astype(dtype)


_one = jax.jit(_terms, static_argnums=0)


@partial(jax.jit, static_argnums=5)
def _summary(
    quotients: Float[Array, " batches"],
    lengths: Float[Array, " batches"],
    images: Float[Array, " batches"],
    full: Float[Array, ""],
    whole: Float[Array, ""],
    floor: float,
) -> BatchSharpness:
    nan = jnp.where(jnp.all(lengths == 0), jnp.nan, 0).astype(lengths.dtype)
    largest = jnp.max(lengths)
    weights = (lengths / jnp.where(largest > 0, largest, 1)) ** 2
    value, error = ratio_and_error(weights * quotients, weights)
    mean, mean_error = mean_and_error(quotients)
    rounding = floor * jnp.max(images)  # of a quotient
    error, mean_error = jnp.maximum(error, rounding), jnp.maximum(mean_error, rounding)
    full = jnp.where(whole > 0, full, jnp.nan)
    return BatchSharpness(value + nan, error + nan, mean + nan, mean_error + nan, full, jnp.int32(len(lengths)))
