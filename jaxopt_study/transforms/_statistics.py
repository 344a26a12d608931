"""Running statistics of the gradient: moving average, sum and maximum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import check_bool, check_callable
from jaxopt_study._programs import wider
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import Leaf, RealLeaf
from jaxopt_study.transforms._scalars import (
    ScalarLike,
    cast,
    check_decay,
    check_dtype,
    check_interval,
    check_non_negative,
    check_result,
    check_statistic,
    complement,
    concrete,
)
from jaxopt_study.transforms._state_checks import refuse_complex

Statistic = Callable[[Leaf], Leaf]


class EmaState(NamedTuple):
    """Exponential moving average of a statistic of the gradient."""

    average: optax.Updates  # mₜ, structure of the parameters


class TotalState(NamedTuple):
    """Running sum of a statistic of the gradient."""

    total: optax.Updates  # Sₜ, structure of the parameters


class RunningMaxState(NamedTuple):
    """Running maximum of a statistic of the gradient."""

    maximum: optax.Updates  # uₜ, structure of the parameters


@atom(state=EmaState, linear=True)
def ema(
    decay: ScalarLike,
    *,
    of: Statistic | None = None,
    initial: ScalarLike = 0.0,
    dtype: Any = None,
    lagged: bool = False,
) -> Transform:
    """Replace the gradient by the exponential moving average of one of its statistics.

    With gradient gₜ, statistic φ, decay β and m₀ = initial, elementwise:

        mₜ = β mₜ₋₁ + (1 − β) φ(gₜ)

    The average is biased towards m₀ for about 1/(1−β) steps; `bias_correction` removes this bias. It is computed as
    mₜ₋₁ + (1 − β)(φ(gₜ) − mₜ₋₁), with 1 − β formed in double precision, because β itself rounded to single precision
    moves the average by up to 3e-3 at β = .99999. In single precision an average of nearly constant values stops moving
    once its increments round to zero, at a relative distance of up to 6e-8/(1 − β) from them.

    Range: (1 − β)φ(g) must be a normal number of the average's dtype. With φ the square and β = .999 that is |g| from
    4e-18 to 1.8e19 in single precision and bfloat16, from .25 to 255 in float16. Below this range the square underflows
    and only ε is left in the divisor. Above it the average stays infinite, and a step divided by its root is 0, never
    NaN: that coordinate no longer moves, as in Optax. Clip the gradient if it may leave the range.

    Args:
        decay: β in [0, 1). A traced β is used in its own precision, whose rounding then matters as described above.
        of: φ, an elementwise function of the gradient, such as `jnp.square`; None takes the gradient itself. It is
            applied in the wider of the gradient's and the average's dtype.
        initial: m₀. `bias_correction` is valid only for m₀ = 0.
        dtype: dtype of the average; None keeps the parameters'. Use `jnp.float32` under half-precision parameters.
            Optax's name for it, `accumulator_dtype`, is accepted, too.
        lagged: Return mₜ₋₁, the average before this step, as Lion needs it.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of m.

    Raises:
        ValueError: If `decay` is outside [0, 1).
        TypeError: If an argument is of the wrong kind, or the gradient is complex and `of` or `dtype` is given.

    Example:
        >>> tx = ema(0.75, of=jnp.square)
        >>> state = tx.init(jnp.zeros(2))
        >>> for _ in range(3):
        ...     average, state = tx.update(jnp.array([2.0, 0.0]), state)
        >>> print(average / 4.0)  # 1 − .75³ of the way to the square
        [0.578125 0.      ]

    References:
        Kingma and Ba (2015), Adam, Algorithm 1. Optax's `ema` corrects the bias inside and takes no statistic.
    """
    check_decay("ema", decay)
    check_interval("ema", "initial", initial, -float("inf"), float("inf"), closed="()")
    check_statistic("ema", of)
    check_dtype("ema", dtype)
    check_bool("ema", "lagged", lagged)
    rate = complement(decay)
    host = isinstance(rate, float)
    is_linear = of is None and dtype is None

    def init(params: PyTree) -> EmaState:
        if not is_linear:
            refuse_complex("ema", "params", params)
        return EmaState(_full(params, initial, dtype))

    def move(m: Leaf, g: Leaf) -> Leaf:
        x = _statistic("ema", of, g, m.dtype)
        # A statistic of finite gradients may overflow, and an infinite average stays infinite: ∞ − ∞ and 0·∞ must not
        # occur.
        bounded = m if of is None else jnp.clip(m, -jnp.finfo(m.dtype).max, jnp.finfo(m.dtype).max)
        if host and rate <= 0.5:  # unlike squares, gradients have a sign, so their difference may overflow
            return m + (rate * x - rate * m if of is None else rate * (x - bounded))
        # With a short memory the difference would lose x beside a large m; a traced decay may be small.
        beta = cast(decay, m.dtype)
        return beta * jnp.where(beta == 0, bounded, m) + cast(rate, m.dtype) * x

    def update(updates: PyTree, state: EmaState, params: PyTree = None, **extra: Any) -> tuple[PyTree, EmaState]:
        if not is_linear:
            refuse_complex("ema", "the gradient", updates)
        average = jax.tree.map(lambda g, m: move(m, g), updates, state.average)
        return (state.average if lagged else average), EmaState(average)

    return Transform(init, update)


@atom(state=TotalState)
def total(*, of: Statistic = jnp.square, initial: ScalarLike = 0.0, dtype: Any = None) -> Transform:
    """Replace the gradient by the running sum of one of its statistics.

    With gradient gₜ, statistic φ and S₀ = initial, elementwise:

        Sₜ = Sₜ₋₁ + φ(gₜ)

    It forgets nothing: a step divided by √Sₜ can only shrink, which is AdaGrad's strength on sparse gradients and its
    weakness on long runs. For a fading memory use `ema`. The sum is not a step by itself: `merge` it with the gradient.

    Range: squares of |g| from 1.1e-19 to 1.8e19 are normal numbers in single precision and bfloat16, from .008 to 255
    in float16. Below this range the square underflows, and only S₀ and ε are left in the divisor. Above it the sum
    stays infinite, and a step divided by its root is 0: that coordinate no longer moves.

    Args:
        of: φ, an elementwise function of the gradient, applied in the wider of the gradient's and the sum's dtype.
        initial: S₀ ≥ 0. The paper uses 0; Optax's `adagrad` starts at 0.1.
        dtype: dtype of the sum; None keeps the parameters'. Optax's name, `accumulator_dtype`, is accepted, too.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of S.

    Raises:
        ValueError: If `initial` is negative.
        TypeError: If an argument is of the wrong kind, or the gradient complex.

    Example:
        >>> tx = total()
        >>> state = tx.init(jnp.zeros(2))
        >>> statistic, state = tx.update(jnp.array([3.0, -1.0]), state)
        >>> statistic, state = tx.update(jnp.array([4.0, 0.0]), state)
        >>> print(jnp.sqrt(statistic))  # the Euclidean length of each coordinate's gradients
        [5. 1.]

    References:
        Duchi, Hazan and Singer (2011), Adaptive Subgradient Methods, JMLR 12: the diagonal case.
    """
    check_non_negative("total", "initial", initial)
    check_callable("total", "of", of, expected="an elementwise function such as jnp.square")
    check_dtype("total", dtype)

    def init(params: PyTree) -> TotalState:
        return TotalState(_full(params, initial, dtype))

    def update(updates: PyTree, state: TotalState, params: PyTree = None, **extra: Any) -> tuple[PyTree, TotalState]:
        sums = jax.tree.map(lambda g, s: s + _statistic("total", of, g, s.dtype), updates, state.total)
        return sums, TotalState(sums)

    return Transform(init, update)


@atom(state=RunningMaxState)
def running_max(
    decay: ScalarLike = 1.0, *, of: Statistic | None = None, initial: ScalarLike = 0.0, dtype: Any = None
) -> Transform:
    """Replace the gradient by the running maximum of one of its statistics.

    With gradient gₜ, statistic φ, decay β and u₀ = initial, elementwise:

        uₜ = max(β uₜ₋₁, φ(gₜ))

    With β = 1 it never decreases: after `ema(b2, of=jnp.square)` it turns Adam into AMSGrad. Optax applies
    `bias_correction` before it, PyTorch after it. With β < 1 and φ = |·| it is AdaMax's norm.

    Args:
        decay: β in [0, 1].
        of: φ, an elementwise function of the gradient, applied in the wider of the gradient's and the maximum's dtype;
            None takes the gradient itself.
        initial: u₀.
        dtype: dtype of the maximum; None keeps the parameters'. Optax's name, `accumulator_dtype`, is accepted, too.

    Returns:
        A transformation whose output and state have the parameters' structure. Cost: one read and one write of u.

    Raises:
        ValueError: If `decay` is outside [0, 1].
        TypeError: If an argument is of the wrong kind, or the gradient complex.

    Example:
        >>> tx = running_max(0.5, of=jnp.abs)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in [4.0, -1.0, 0.1]:
        ...     maximum, state = tx.update(jnp.array([g]), state)
        >>> print(maximum)  # the first gradient, halved twice
        [1.]

    References:
        Reddi, Kale and Kumar (2018), On the Convergence of Adam and Beyond, Algorithm 2 (β = 1). Kingma and Ba (2015),
        section 7.1, equation (12) (β = β₂).
    """
    check_interval("running_max", "decay", decay, 0.0, 1.0, closed="[]")
    check_interval("running_max", "initial", initial, -float("inf"), float("inf"), closed="()")
    check_statistic("running_max", of)
    check_dtype("running_max", dtype)

    def init(params: PyTree) -> RunningMaxState:
        return RunningMaxState(_full(params, initial, dtype))

    def move(u: RealLeaf, g: RealLeaf) -> RealLeaf:
        x = _statistic("running_max", of, g, u.dtype)
        return jnp.maximum(u if concrete(decay) == 1.0 else cast(decay, u.dtype) * u, x)

    def update(
        updates: PyTree, state: RunningMaxState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RunningMaxState]:
        maximum = jax.tree.map(lambda g, u: move(u, g), updates, state.maximum)
        return maximum, RunningMaxState(maximum)

    return Transform(init, update)


def _full(params: Any, value: Any, dtype: Any) -> Any:
    def fill(p: Any) -> Leaf:
        kind = jnp.dtype(dtype or p.dtype)
        return jnp.full_like(p, cast(value, kind), dtype=kind)

    return jax.tree.map(fill, params)


def _statistic(who: str, of: Statistic | None, g: Leaf, dtype: Any) -> Leaf:
    """Return φ(g) in a dtype: φ acts in the wider dtype, since a square may overflow or underflow in the narrower."""
    if of is None:
        return g.astype(dtype)
    return jnp.asarray(check_result(who, "of", of(g.astype(wider(g.dtype, dtype))))).astype(dtype)
