"""Critical sharpness: the curvature that losses along the next update imply, without second derivatives."""

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxopt_study._checks import check_integer, check_static_real
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import noise_floor, value_and_gradient
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._next_update import next_update
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, LossFn, Params, Vector

Kind = Literal["crossing", "decreasing", "ascent", "unresolved"]


class CriticalSharpness(NamedTuple):
    """Where the loss along the next update is as high as at its start, and the curvature that this implies.

    Attributes:
        value: λ_c, the middle of the interval; NaN where the interval has no upper end.
        error: Half the width of the interval, which holds the crossing for certain, beyond the rounding of losses and
            of the slope.
        step: Multiple s of the update at the crossing; the next step increases the loss if it is below 1.
        step_lower: A multiple at which the loss is certainly below its start; 0 if none was found.
        step_upper: A multiple at which it is certainly above; ∞ if none was found.
        learning_rate: η, by which multiples of the update become learning rates.
        kind: "crossing" if both ends were found; "decreasing" if the loss is not above its start at any multiple;
            "ascent" if it increases from the start; "unresolved" if all differences are rounding errors.
        num_losses: Number of points at which the loss was evaluated.
    """

    value: float
    error: float
    step: float
    step_lower: float
    step_upper: float
    learning_rate: float
    kind: Kind
    num_losses: int

    __repr__, _repr_html_ = displayed(_cards.critical_sharpness)


@nan_is_an_answer
def critical_sharpness(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    tol: float = 0.01,
    max_losses: int = 60,
) -> CriticalSharpness:
    """Find where the loss along the next update is as high as at its start, and the curvature that this implies.

    With the next update u from the gradient g over all data, and its learning rate η:

        s_c = min{s > 0 : L(θ + s u) > L(θ)},  η_c = s_c η,  λ_c = 2/η_c

    On the quadratic model s_c = −2 gᵀu / uᵀHu. For gradient descent, u = −ηg, therefore λ_c = gᵀHg/‖g‖² there; it is
    at most the largest eigenvalue, and equal to it once the gradient is along its eigenvector. For other optimizers η
    can be defined in two ways. If `learning_rate` is given, λ_c is that of the paper, in the units of the optimizer's
    preconditioner, to be compared with its stability threshold. If it is None, η is the rate of the gradient descent
    with the same slope and length of the step, η = ‖u‖² / (−gᵀu). Then λ_c is the curvature uᵀHu/‖u‖² of
    `directional_sharpness` on the quadratic model, to be compared with the largest eigenvalue of H.

    No second derivative is taken, so any loss will do. The search starts at s = 1 and multiplies by 2 or ½, so a loss
    that rises and falls several times along u has one of its crossings found. Each difference of losses is evaluated
    twice, at points that differ by one rounding of each parameter; only differences beyond this spread and the rounding
    of the loss count. A loss that is not finite counts as higher.

    Args:
        optimizer: Any Optax transformation, or chain of this package.
        opt_state: Its state after the last step.
        loss: loss(params, data) → scalar, without randomness.
        params: θ.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        learning_rate: η > 0 of the optimizer's next step; None for that of an equivalent gradient descent.
        tol: Requested relative width of the interval.
        max_losses: Largest number of points.

    Returns:
        Curvature, interval and number of evaluations. Cost: a gradient, an update, and two losses at the start and at
        each of about 10 points.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: If the state belongs to another optimizer, or an argument is out of range.

    Example:
        >>> loss = lambda p, _: 0.5 * (4 * p[0] ** 2 + p[1] ** 2)
        >>> params, tx = jnp.array([1.0, 0.0]), optax.sgd(0.1)
        >>> found = critical_sharpness(tx, tx.init(params), loss, params)
        >>> print(round(found.value, 1), round(found.step, 1), found.kind)  # 2/(4 · .1) steps
        4.0 5.0 crossing

    References:
        Kalra, Gagnon-Audet, Gromov, Mediratta, Niu, Miller and Shvartsman (2026), A Scalable Measure of Loss Landscape
        Curvature for Analyzing the Training Dynamics of LLMs, arXiv 2601.16979.
    """
    name = "critical_sharpness"
    tol = check_static_real(name, "tol", tol, 0.0, 1.0, closed="()", remedy="Take 0.01.")
    max_losses = check_integer(name, "max_losses", max_losses, 2)
    if learning_rate is not None:
        learning_rate = check_static_real(name, "learning_rate", learning_rate, 0.0, closed="()")
    with mesh_context(params):
        step = next_update(name, optimizer, opt_state, loss, params, data, batch_size)
        op = step.curvature
        slope, length, steepest = map(float, _slope(value_and_gradient(op, op.params)[1], step.updates))
        rounding = noise_floor(op) * steepest / abs(slope) if slope else 0.0  # of the slope
        slope, square = slope * length, length**2
        search = _Search(op, step.updates, slope, max_losses)
        kind = search.run(tol)
    if learning_rate is None:
        learning_rate = square / -slope if slope < 0 else math.nan
    else:
        rounding = 0.0
    if kind == "ascent":
        return CriticalSharpness(math.inf, math.nan, 0.0, 0.0, search.high, learning_rate, kind, search.count)
    smallest = 2 / learning_rate / search.high * max(1 - rounding, 0)
    largest = 2 / learning_rate / search.low * (1 + rounding) if search.low > 0 else math.inf
    value, error = (smallest + largest) / 2, (largest - smallest) / 2
    if math.isinf(largest):  # an interval without an upper end has no middle
        value = step = math.nan
    else:
        step = 2 / learning_rate / value if value > 0 else math.inf
    return CriticalSharpness(
        value=value,
        error=error,
        step=step,
        step_lower=search.low,
        step_upper=search.high,
        learning_rate=learning_rate,
        kind=kind,
        num_losses=search.count,
    )


class _Search:
    """Bracket of the crossing: the loss is certainly below its start at `low`, and certainly above at `high`."""

    def __init__(self, op: Any, updates: Vector, slope: float, most: int) -> None:
        self.op, self.updates, self.most, self.count = op, updates, most, 0
        self.low, self.high = 0.0, math.inf
        self.low_slope, self.high_slope = slope, math.nan  # mean slopes (L(θ + su) − L(θ))/s

    def run(self, tol: float) -> Kind:
        """Find the bracket and shrink it to a relative width.

        Args:
            tol: The width.

        Returns:
            What was found.
        """
        if self.low_slope == 0 or math.isnan(self.low_slope):
            return "unresolved"
        if self.low_slope > 0:
            return "ascent"
        s = 1.0
        while self.sign(s) > 0 and self.count < self.most and s > 2.0**-30:
            s /= 2
        while math.isinf(self.high) and self.count < self.most and s < 2.0**30:
            s *= 2
            self.sign(s)
        if math.isinf(self.high):
            return "decreasing" if self.low > 0 else "unresolved"
        width = tol / 3
        while self.high > (1 + tol) * self.low and self.count + 2 <= self.most and width < 1:
            guess, before = self.guess(), (self.low, self.high)
            for s in (guess * (1 - width), guess * (1 + width)):
                if self.low < s < self.high:
                    self.sign(s)
            if (self.low, self.high) == before:
                width *= 3  # both differences were rounding errors
            elif self.high - self.low > (before[1] - before[0]) / 2:
                self.sign((self.low + self.high) / 2)
        return "crossing" if self.low > 0 else "unresolved"

    def guess(self) -> float:
        """Return the zero of the mean slope, linear between its ends, as it is for a quadratic."""
        if not math.isfinite(self.high_slope):
            return (self.low + self.high) / 2
        share = self.low_slope / (self.low_slope - self.high_slope)
        return self.low + (self.high - self.low) * min(max(share, 0.0), 1.0)

    def sign(self, s: float) -> int:
        """Return 1 or −1 if the loss is certainly above or below its start, 0 if not, and move that end to s."""
        change, noise = map(float, _change(*self.op.mean_over_data(lambda part: _values(part, self.updates, s))))
        self.count += 1
        if not change <= noise:  # NaN, too
            self.high, self.high_slope = min(self.high, s), change / s
            return 1
        if change < -noise and s < self.high:
            self.low, self.low_slope = max(self.low, s), change / s
            return -1
        return 0


@jax.jit
def _slope(grads: Vector, updates: Vector) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Return gᵀu/‖u‖, ‖u‖ and ‖g‖."""
    direction, length = vectors.normalize(updates)
    return vectors.inner(grads, direction), length, vectors.norm(grads)


@jax.jit
def _values(op: Any, updates: Vector, s: Float[ArrayLike, ""]) -> tuple[Float[Array, "2 2"], Float[Array, ""]]:
    """Return L(θ) and L(θ + su), each at two points that differ by one rounding of each parameter, and the loss's ε."""
    params = op.params
    signs = jax.tree.map(jnp.sign, draw_like(params, 0))

    def at(shift: int, factor: Any) -> Float[Array, ""]:
        start = jax.tree.map(lambda p, r: p * (1 + shift * jnp.finfo(p.dtype).eps * r).astype(p.dtype), params, signs)
        point = vectors.axpy(factor, updates, start)
        return op.mean(partial(op.loss, point))

    values = jnp.stack([jnp.stack([at(shift, factor) for shift in (1, -1)]) for factor in (0, s)])
    wide = values.astype(vectors.accumulator(values.dtype))
    return wide, jnp.asarray(jnp.finfo(values.dtype).eps, wide.dtype)


@jax.jit
def _change(values: Float[Array, "2 2"], rounding: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return L(θ + su) − L(θ), and the size up to which it may be a rounding error."""
    starts, ends = values
    changes = ends - starts
    level = jnp.max(jnp.abs(jnp.stack([starts, ends])))
    spread = jnp.abs(changes[0] - changes[1]) / 2
    return jnp.mean(changes), jnp.maximum(spread, 4 * rounding * level)
