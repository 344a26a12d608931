"""Noise of the mini-batch gradient: its variance, the full gradient's norm, and their ratio."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import scipy
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, check_key, check_static_real
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import Estimate, Hessian, empirical_risk_operator, refuse_stream
from jaxopt_study.dynamics import _cards
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector


class GradientNoise(NamedTuple):
    """Noise of the mini-batch gradient, each number with its standard error over the choice of batches.

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
    batch_size: int,
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

    Args:
        loss: `loss(params, batch)` → scalar, the mean over the examples of the batch, without randomness.
        params: θ, a pytree of real floating arrays.
        data: A pytree of arrays with one common leading axis, the N examples.
        batch_size: b, in 1 … N. Small batches are better: the cost grows with b K, the accuracy of tr Σ with K alone.
        num_batches: K ≥ 3.
        confidence: Coverage of the interval of the noise scale, in (0, 1).
        key: Determines the batches.

    Returns:
        The three estimates and the interval. Each `num_matvecs` is the number of batch gradients, 2K: two passes over
        the same batches with the memory of two gradients. Beyond the range of the parameters' dtype tr Σ and |G|² are 0
        or infinite; the noise scale is not, since it has no units of the loss.

    Raises:
        TypeError: If an argument has the wrong type, the loss does not take two arguments or does not return a real
            scalar, or there are no data.
        ValueError: If a number is out of range, the parameters are not finite, the data have no common leading axis, or
            the loss normalises over the batch.

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
    check_integer(name, "batch_size", batch_size, 1)
    if data is None:
        raise TypeError("gradient_noise needs data, the examples of which batches are drawn; received None.")
    refuse_stream(name, data)
    op = empirical_risk_operator(_Noise(loss), params, data, batch_size=batch_size, remat=None, precision="highest")
    count = jax.tree.leaves(op.data)[0].shape[0]
    batch_size = check_integer(
        name, "batch_size", batch_size, 1, count, remedy=f"The data have {count} examples; small batches are better."
    )
    if op.loop == "host":
        sums = _on_host(loss, batch_size, op.params, op.data, jax.random.split(key, num_batches))
    else:
        sums = _compiled(loss, batch_size, op.params, op.data, jax.random.split(key, num_batches))
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, num_batches - 1))
    return _estimates(batch_size, quantile, *sums)


class _Noise(Hessian):
    """The loss whose noise is measured, with the checks of a Hessian's loss."""

    name: ClassVar[str] = "gradient_noise"


def _gradient(loss: Any, batch_size: int, params: Params, data: Batch, key: Key) -> Vector:
    """Return the gradient of a batch drawn with replacement, in at least single precision."""
    rows = jax.random.randint(key, (batch_size,), 0, jax.tree.leaves(data)[0].shape[0])
    with jax.default_matmul_precision("highest"):
        grads = jax.grad(loss)(params, jax.tree.map(lambda x: x[rows], data))
    return jax.tree.map(lambda x: x.astype(vectors.accumulator(x.dtype)), grads)


def _add(
    loss: Any, batch_size: int, params: Params, data: Batch, total: Vector, key: Key
) -> tuple[Vector, Float[Array, ""]]:
    grads = _gradient(loss, batch_size, params, data, key)
    return vectors.add(total, grads), vectors.max_abs(grads)


def _products(
    loss: Any, batch_size: int, params: Params, data: Batch, mean: Vector, unit: Float[Array, ""], key: Key
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return |gₖ − ḡ|² and (gₖ − ḡ)ᵀḡ, in squared units."""
    away = vectors.in_units(unit, vectors.subtract(_gradient(loss, batch_size, params, data, key), mean))
    return vectors.inner(away, away), vectors.inner(away, vectors.in_units(unit, mean))


def _square(unit: Float[Array, ""], mean: Vector) -> Float[Array, ""]:
    mean = vectors.in_units(unit, mean)
    return vectors.inner(mean, mean)


def _zeros(params: Params) -> Vector:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, vectors.accumulator(x.dtype)), params)


def _mean_and_unit(total: Vector, sizes: Float[Array, " batches"]) -> tuple[Vector, Float[Array, ""]]:
    """Return ḡ, and the power of two next to the largest entry of any gradient: squares in this unit stay in range."""
    return vectors.scale(1 / len(sizes), total), vectors.power_of_two(jnp.max(sizes))


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(loss: Any, batch_size: int, params: Params, data: Batch, keys: Key) -> tuple[Any, Any, Any, Any]:
    total, sizes = lax.scan(partial(_add, loss, batch_size, params, data), _zeros(params), keys)
    mean, unit = _mean_and_unit(total, sizes)
    spread, along = lax.map(partial(_products, loss, batch_size, params, data, mean, unit), keys)
    return spread, along, _square(unit, mean), unit


_one_add = jax.jit(_add, static_argnums=(0, 1))
_one_product = jax.jit(_products, static_argnums=(0, 1))


def _on_host(loss: Any, batch_size: int, params: Params, data: Batch, keys: Key) -> tuple[Any, Any, Any, Any]:
    """Return the same from a loop of Python, faster for XLA's convolutions on a CPU."""
    total, sizes = _zeros(params), []
    for key in keys:
        total, size = _one_add(loss, batch_size, params, data, total, key)
        sizes.append(size)
    mean, unit = _mean_and_unit(total, jnp.stack(sizes))
    found = [_one_product(loss, batch_size, params, data, mean, unit, key) for key in keys]
    spread, along = (jnp.stack(parts) for parts in zip(*found, strict=True))
    return spread, along, _square(unit, mean), unit


@partial(jax.jit, static_argnums=(0, 1))
def _estimates(
    batch_size: int,
    quantile: float,
    spread: Float[Array, " batches"],
    along: Float[Array, " batches"],
    level: Float[Array, ""],
    unit: Float[Array, ""],
) -> GradientNoise:
    """Return the estimates from aₖ = |gₖ − ḡ|², cₖ = (gₖ − ḡ)ᵀḡ and |ḡ|², all in squared units of the gradient."""
    k = len(spread)
    total = jnp.sum(spread)
    trace, norm = batch_size * total / (k - 1), level - total / (k * (k - 1))
    # The same without batch k: ḡ moves by −(gₖ − ḡ)/(K − 1), and the sum of squares about it falls by aₖ K/(K − 1).
    rest = jnp.maximum(total - spread * (k / (k - 1)), 0) / (k - 2)
    traces = batch_size * rest
    norms = level - 2 * along / (k - 1) + spread / (k - 1) ** 2 - rest / (k - 1)
    share = jnp.sqrt((k - 1) / k).astype(spread.dtype)
    traces, norms = share * (traces - jnp.mean(traces)), share * (norms - jnp.mean(norms))

    eps = jnp.finfo(spread.dtype).eps  # errors are at least those of rounding
    trace_error = jnp.maximum(jnp.sqrt(jnp.sum(traces**2)), eps * trace)
    norm_error = jnp.maximum(jnp.sqrt(jnp.sum(norms**2)), eps * (level + total / (k * (k - 1))))
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
