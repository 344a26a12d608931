"""Noise of the mini-batch gradient: its variance, the full gradient's norm, and their ratio."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jaxopt_study._checks import check_integer, check_key, check_static_real
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import GROWTH, Estimate, Hessian, check_examples, is_stream, operator_of_data
from jaxopt_study.dynamics import _cards
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.sharding import rows, shard_like
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector


class GradientNoise(NamedTuple):
    """Noise of the mini-batch gradient, each number with its standard error over the choice of batches.

    The errors are at least those of rounding: of gₖ − ḡ, 16 ε times |ḡ|.

    Attributes:
        trace: tr Σ, the variance of the gradient of one example, summed over the parameters. That of a batch of b
            examples is tr Σ/b. Never negative.
        squared_norm: |G|², G the gradient over all data. Unbiased, so that it can be negative where the noise hides G.
        noise_scale: tr Σ/|G|², in examples: the batch size at which the noise of the gradient is as large as the
            gradient. Infinite if the estimate of |G|² is not positive. A ratio of unbiased estimates is not unbiased;
            trust its interval.
        lower: Lower end of Fieller's interval of the noise scale.
        upper: Upper end; infinite if the batches do not show that |G|² is positive.
    """

    trace: Estimate
    squared_norm: Estimate
    noise_scale: Estimate
    lower: Float[Array, ""]
    upper: Float[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.gradient_noise)


@nan_is_an_answer
def gradient_noise(
    loss: LossFn,
    params: Params,
    data: Batch,
    *,
    batch_size: int | None = None,
    num_batches: int = 64,
    confidence: float = 0.95,
    key: Key,
) -> GradientNoise:
    """Estimate the gradient noise, the squared norm of the gradient, and the noise scale, from gradients of batches.

    From the gradients gₖ of K batches of b examples, drawn independently and with replacement, with mean ḡ:

        tr Σ ≈ b/(K − 1) Σ |gₖ − ḡ|²,    |G|² ≈ |ḡ|² − tr Σ/(bK) = mean of gⱼᵀgₖ over j ≠ k,    noise scale = tr Σ/|G|²

    Σ is the covariance of the gradient of one example, G the gradient over all of the data. Both estimates are
    unbiased. They are those of McCandlish et al. from two batch sizes, b and bK, with every batch of the smaller size
    used. |ḡ|² alone is too large by tr Σ/(bK). Standard errors are those of the jackknife over batches; the interval
    of the noise scale is Fieller's, with Student's t of K − 1 degrees of freedom: the ratios r at which the estimate of
    tr Σ − r |G|² lies within t standard errors of 0.

    The noise is that of batches from `data`. The gradient over a set of data that is itself a sample differs from that
    of its distribution, by a variance of tr Σ/N.

    The first K batches of a loader are taken as they come, of bₖ examples, as samples of the distribution from which
    the loader's examples come; Σ and G are then those of the distribution. With ḡ weighted by examples, and B = Σ bₖ,

        tr Σ ≈ 1/(K − 1) Σ bₖ |gₖ − ḡ|²,    |G|² ≈ |ḡ|² − tr Σ/B

    A loader that does not shuffle gives batches of a kind, such as one class, whose noise is not that of training.

    Args:
        loss: `loss(params, batch)` → scalar, the mean over the examples of the batch, without randomness.
        params: θ, a pytree of real floating arrays.
        data: A pytree of arrays with one common leading axis, the N examples; or batches, as in `curvature.hessian`.
        batch_size: b, in 1 … N; None for the batches of a loader. Small batches are better: the cost grows with b K,
            the accuracy of tr Σ with K alone.
        num_batches: K ≥ 3; of a loader, the largest number of batches to read. They are kept as the loader gives them,
            usually in the memory of the host, for the second pass.
        confidence: Coverage of the interval of the noise scale, in (0, 1).
        key: Determines the batches.

    Returns:
        The three estimates and the interval. Each `num_matvecs` is the number of batch gradients, 2K: two passes over
        the same batches with the memory of two gradients. Beyond the range of the parameters' dtype tr Σ and |G|² are 0
        or infinite; the noise scale is not, since it has no units of the loss.

    Raises:
        TypeError: If an argument has the wrong type, the loss does not take two arguments or does not return a real
            scalar, or there are no data.
        ValueError: If a number is out of range, a loader has fewer than three batches, the parameters are not finite,
            the data have no common leading axis, or the loss normalises over the batch.

    Example:
        >>> loss = lambda mean, batch: 0.5 * jnp.mean(jnp.sum((batch - mean) ** 2, axis=1))
        >>> data = jax.random.normal(jax.random.key(0), (1_000, 5))  # tr Σ ≈ 5
        >>> found = gradient_noise(loss, jnp.ones(5), data, batch_size=10, key=jax.random.key(1))  # |G|² ≈ 5
        >>> print(bool(abs(found.trace.value - 5) < 4 * found.trace.standard_error))
        True
        >>> print(bool(found.lower < 1 < found.upper))
        True

    References:
        McCandlish, Kaplan, Amodei et al. (2018), An Empirical Model of Large-Batch Training, arXiv 1812.06162, section
        2.2 and appendix A.1. Fieller (1954), Some problems in interval estimation, J. R. Stat. Soc. B 16. Arvesen
        (1969), Jackknifing U-statistics, Ann. Math. Stat. 40.
    """
    name = "gradient_noise"
    key = check_key(name, key)
    num_batches = check_integer(name, "num_batches", num_batches, 3, remedy="A standard error takes three batches.")
    confidence = check_static_real(name, "confidence", confidence, 0, 1, closed="()")
    check_examples(name, data)
    if not is_stream(data):
        check_integer(name, "batch_size", batch_size, 1, remedy="Only a loader has batches of its own.")
    op: Any = operator_of_data(_Noise(loss), params, data, batch_size=batch_size, remat=None, precision="highest")
    if op.is_streamed:
        return _over_stream(op, num_batches, confidence)
    count = jax.tree.leaves(op.data)[0].shape[0]
    batch_size = check_integer(
        name, "batch_size", batch_size, 1, count, remedy=f"The data have {count} examples; small batches are better."
    )
    if op.loop == "host":
        keys = jax.random.split(key, num_batches)
        read = lambda: (_one_draw(batch_size, op.data, key) for key in keys)
        sums = _on_host(loss, op.params, read, np.full(num_batches, batch_size))
    else:
        sums = _compiled(loss, batch_size, op.params, op.data, jax.random.split(key, num_batches))
    return _estimates(np.full(num_batches, batch_size), confidence, *sums)


def _over_stream(op: Any, num_batches: int, confidence: float) -> GradientNoise:
    batches = op.stream.first(num_batches)
    counts = np.array([count for count, _ in batches])
    if len(counts) < 3:
        raise ValueError(
            f"gradient_noise needs three batches for a standard error; received a loader of {len(counts)}. Set a "
            "smaller batch size in the loader."
        )
    return _estimates(
        counts, confidence, *_on_host(op.loss, op.params, lambda: (batch for _, batch in batches), counts)
    )


class _Noise(Hessian):
    """The loss whose noise is measured, with the checks of a Hessian's loss."""

    name: ClassVar[str] = "gradient_noise"


def _draw(batch_size: int, data: Batch, key: Key) -> Batch:
    """Return a batch drawn with replacement."""
    drawn = jax.random.randint(key, (batch_size,), 0, jax.tree.leaves(data)[0].shape[0])
    return jax.tree.map(lambda x: rows(x, drawn), data)


def _gradient(loss: Any, params: Params, batch: Batch) -> Vector:
    """Return the gradient of a batch in at least single precision."""
    with jax.default_matmul_precision("highest"):
        grads = jax.grad(loss)(params, batch)
    return jax.tree.map(lambda x: x.astype(vectors.accumulator(x.dtype)), grads)


def _add(
    loss: Any, params: Params, share: Float[ArrayLike, ""], total: Vector, batch: Batch
) -> tuple[Vector, Float[Array, ""]]:
    grads = _gradient(loss, params, batch)
    return vectors.axpy(share, grads, total), vectors.max_abs(grads)


def _products(
    loss: Any, params: Params, mean: Vector, unit: Float[Array, ""], batch: Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    return _deviation(_gradient(loss, params, batch), mean, unit)


def _deviation(grads: Vector, mean: Vector, unit: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return |gₖ − ḡ|² and (gₖ − ḡ)ᵀḡ, in squared units."""
    away = vectors.in_units(unit, vectors.subtract(grads, mean))
    return vectors.inner(away, away), vectors.inner(away, vectors.in_units(unit, mean))


def _square(unit: Float[Array, ""], mean: Vector) -> Float[Array, ""]:
    mean = vectors.in_units(unit, mean)
    return vectors.inner(mean, mean)


def _zeros(params: Params) -> Vector:
    return jax.tree.map(lambda x: shard_like(jnp.zeros(x.shape, vectors.accumulator(x.dtype)), x), params)


def _unit(sizes: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the power of two next to the largest entry of any gradient: squares in this unit stay in range."""
    return vectors.power_of_two(jnp.max(sizes))


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(loss: Any, batch_size: int, params: Params, data: Batch, keys: Key) -> tuple[Any, Any, Any, Any]:
    count, zeros = len(keys), _zeros(params)
    none = jax.tree.map(jnp.zeros_like, _deviation(zeros, zeros, _unit(vectors.max_abs(zeros))))

    # Both passes in one loop, so that the program holds one gradient.
    def step(carry: tuple[Vector, Float[Array, ""]], i: Int[Array, ""]) -> tuple[Any, Any]:
        mean, size = carry
        grads = _gradient(loss, params, _draw(batch_size, data, keys[i % count]))

        def first() -> tuple[Any, Any]:
            return (vectors.axpy(1 / count, grads, mean), jnp.maximum(size, vectors.max_abs(grads))), none

        return lax.cond(i < count, first, lambda: (carry, _deviation(grads, mean, _unit(size))))

    carry = (zeros, vectors.max_abs(zeros))
    (mean, size), (spread, along) = lax.scan(step, carry, jnp.arange(2 * count, dtype=jnp.int32))
    unit = _unit(size)
    return spread[count:], along[count:], _square(unit, mean), unit


_one_draw = jax.jit(_draw, static_argnums=0)
_one_add = jax.jit(_add, static_argnums=0)
_one_product = jax.jit(_products, static_argnums=0)


def _on_host(
    loss: Any, params: Params, read: Callable[[], Iterable[Batch]], counts: Int[np.ndarray, " batches"]
) -> tuple[Any, Any, Any, Any]:
    """Return the same for batches that Python reads twice; faster for XLA's convolutions on a CPU."""
    mean, sizes = _zeros(params), []
    for share, batch in zip(counts / counts.sum(), read(), strict=True):
        mean, size = _one_add(loss, params, share, mean, batch)
        sizes.append(size)
    unit = _unit(jnp.stack(sizes))
    found = [_one_product(loss, params, mean, unit, batch) for batch in read()]
    spread, along = (jnp.stack(parts) for parts in zip(*found, strict=True))
    return spread, along, _square(unit, mean), unit


def _estimates(
    counts: Int[np.ndarray, " batches"],
    confidence: float,
    spread: Float[Array, " batches"],
    along: Float[Array, " batches"],
    level: Float[Array, ""],
    unit: Float[Array, ""],
) -> GradientNoise:
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, len(counts) - 1))
    examples = counts.sum()
    shares = counts / (examples - counts)
    weights = [jnp.asarray(x, spread.dtype) for x in (counts, shares, examples - counts, examples)]
    return _weighted(quantile, *weights, spread, along, level, unit)


@partial(jax.jit, static_argnums=0)
def _weighted(
    quantile: float,
    counts: Float[Array, " batches"],
    shares: Float[Array, " batches"],
    others: Float[Array, " batches"],
    examples: Float[Array, ""],
    spread: Float[Array, " batches"],
    along: Float[Array, " batches"],
    level: Float[Array, ""],
    unit: Float[Array, ""],
) -> GradientNoise:
    """Return the estimates from aₖ = |gₖ − ḡ|², cₖ = (gₖ − ḡ)ᵀḡ and |ḡ|², all in squared units of the gradient.

    Batch k has bₖ of B examples, the others have B − bₖ, and its share is bₖ/(B − bₖ).
    """
    k = len(spread)
    total = jnp.sum(counts * spread)
    trace = total / (k - 1)
    hidden = trace / examples
    norm = level - hidden
    # The same without batch k: ḡ moves by −(gₖ − ḡ) times the share, and the sum of squares falls by bₖ aₖ B/(B − bₖ).
    traces = jnp.maximum(total - examples * shares * spread, 0) / (k - 2)
    norms = level - 2 * along * shares + spread * shares**2 - traces / others
    share = jnp.sqrt((k - 1) / k).astype(spread.dtype)
    traces, norms = share * (traces - jnp.mean(traces)), share * (norms - jnp.mean(norms))

    # Errors are at least those of rounding. Equal batches differ by the rounding of a gradient, and so does their mean.
    eps = GROWTH * jnp.finfo(spread.dtype).eps
    away = eps * jnp.sqrt(level)
    of_trace = jnp.sqrt(jnp.mean(counts)) * away * (2 * jnp.sqrt(trace) + jnp.sqrt(jnp.mean(counts)) * away)
    trace_error = jnp.maximum(jnp.sqrt(jnp.sum(traces**2)), of_trace + eps * trace)
    norm_error = jnp.maximum(jnp.sqrt(jnp.sum(norms**2)), eps * (level + hidden))
    both = jnp.sum(traces * norms)
    ratio = jnp.where(norm > 0, trace / norm, jnp.inf)
    variance = trace_error**2 - 2 * ratio * both + (ratio * norm_error) ** 2  # of x − r y
    ratio_error = jnp.where(norm > 0, jnp.maximum(jnp.sqrt(jnp.maximum(variance, 0)) / norm, eps * ratio), jnp.inf)
    lower, upper = _fieller(trace, norm, quantile * trace_error, quantile * norm_error, quantile**2 * both)
    products = jnp.int32(2 * k)

    def in_units(value: Float[Array, ""], error: Float[Array, ""]) -> Estimate:
        return Estimate(value * unit * unit, error * unit * unit, products)

    return GradientNoise(
        in_units(trace, trace_error), in_units(norm, norm_error), Estimate(ratio, ratio_error, products), lower, upper
    )


def _fieller(
    above: Float[Array, ""],
    below: Float[Array, ""],
    above_error: Float[Array, ""],
    below_error: Float[Array, ""],
    both: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the ends of the ratios r ≥ 0 with (x − r y)² ≤ e_x² − 2 r c + r² e_y², the errors times the quantile."""
    a, b, c = below**2 - below_error**2, above * below - both, above**2 - above_error**2  # a r² − 2 b r + c ≤ 0
    root = jnp.sqrt(jnp.maximum(b**2 - a * c, 0))
    shown = (a > 0) & (below > 0)
    # Where y is not shown to be positive, the ratios reach infinity, and the lower end is the only positive root.
    low = jnp.where(b + root > 0, c / (b + root), 0.0)
    upper = jnp.where(shown, (b + root) / jnp.where(shown, a, 1), jnp.inf)
    unknown = jnp.isnan(above + below)
    return jnp.where(unknown, jnp.nan, jnp.maximum(low, 0.0)), jnp.where(unknown, jnp.nan, upper)
