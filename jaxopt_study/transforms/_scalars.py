"""Scalar hyperparameters: validation, schedules and precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Real

from jaxopt_study import _checks as checks
from jaxopt_study._programs import wider
from jaxopt_study.types import Schedule

ScalarLike = float | int | Real[Array, ""] | Real[np.ndarray, ""] | np.generic
ScalarOrSchedule = ScalarLike | Callable[..., Any]


def concrete(value: Any) -> float | None:
    """Return a hyperparameter as a Python float, or None if it is traced."""
    if isinstance(value, Tracer) or not checks.is_real_scalar(value):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits; the range check rejects it
        return None


def check_interval(
    atom: str,
    name: str,
    value: Any,
    low: float,
    high: float,
    *,
    closed: str = "[)",
    remedy: str = "",
    schedule: bool = False,
) -> None:
    """Raise TypeError unless a hyperparameter is one real number, and ValueError if it lies outside an interval.

    A traced hyperparameter passes, since its value is unknown; a schedule passes if `schedule` is True.
    """
    if schedule and is_schedule(value):
        return
    if schedule and not checks.is_real_scalar(value):
        remedy = "Give a number, or a schedule: a function of the step."
    checks.check_real(atom, name, value, low, high, closed=closed, remedy=remedy)


def check_decay(atom: str, value: Any, name: str = "decay", *, schedule: bool = False) -> None:
    """Raise ValueError unless a concrete decay lies in [0, 1)."""
    remedy = "A decay is the weight of the past: 0.9 remembers about 10 steps, 0.999 about 1000."
    number = concrete(value)
    if number is not None and number > 1:
        remedy += f" For a memory of n steps use 1 - 1/n (here {1 - 1 / number:g})."
    check_interval(atom, name, value, 0.0, 1.0, remedy=remedy, schedule=schedule)


def check_non_negative(atom: str, name: str, value: Any, remedy: str = "", *, schedule: bool = False) -> None:
    """Raise ValueError if a concrete hyperparameter is negative or not finite."""
    check_interval(atom, name, value, 0.0, np.inf, remedy=remedy, schedule=schedule)


def check_limit(atom: str, name: str, value: Any) -> None:
    """Raise ValueError if a concrete limit on a size is negative or not a number; infinity means no limit."""
    check_interval(atom, name, value, 0.0, np.inf, closed="[]", remedy="Infinity clips nothing.")


def check_statistic(atom: str, value: Any) -> None:
    """Raise TypeError if a statistic φ cannot be called."""
    if value is not None:
        checks.check_callable(atom, "of", value, expected="an elementwise function such as jnp.square")


def check_result(atom: str, name: str, value: Any) -> Any:
    """Return the result of a user's function; raise TypeError unless it is an array."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int):
        raise TypeError(f"{atom} needs {name} to return an array; received {checks.describe_argument(value)} from it.")
    return value


def check_dtype(atom: str, value: Any) -> None:
    """Raise TypeError unless the dtype of an accumulator is None or a real floating-point one."""
    if value is None:
        return
    try:  # NumPy would read an array as its dtype
        dtype = None if isinstance(value, jax.Array | np.ndarray | np.generic) else jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{atom} needs dtype to be a real floating-point dtype, or None for the parameters'; received "
            f"{checks.describe_argument(value)}. For example, give jnp.float32."
        )


def is_schedule(value: Any) -> bool:
    """Return whether a hyperparameter is a function of the step; a class is not."""
    return callable(value) and not isinstance(value, type)


def at_step(value: ScalarOrSchedule | Schedule, count: Any, atom: str = "a schedule", name: str = "value") -> Any:
    """Return a hyperparameter at a step: a schedule is called with the number of steps already taken.

    Args:
        value: A number or a schedule.
        count: Steps already taken.
        atom: Name of the caller, for the message.
        name: The hyperparameter's name.

    Returns:
        One real number.

    Raises:
        TypeError: If a schedule returns anything else.
    """
    if not is_schedule(value):
        return value
    now = value(count)  # pyright: ignore[reportCallIssue]
    if not checks.is_real_scalar(now):
        raise TypeError(
            f"{atom} needs {name} to be one real number at every step; its schedule returned "
            f"{checks.describe_argument(now)}."
        )
    return now


def align(*arrays: Any) -> list[Any]:
    """Return arrays in the widest of their dtypes."""
    dtype = wider(*(x.dtype for x in arrays))
    return [x.astype(dtype) for x in arrays]


def cast(value: Any, dtype: Any) -> Any:
    """Return a hyperparameter in the precision of the leaf it acts on, so that it never promotes the leaf."""
    return value if isinstance(value, (float, int)) else jnp.asarray(value).astype(dtype)


def complement(decay: Any) -> Any:
    """Return 1 - decay, formed in double precision unless the decay is traced."""
    return 1.0 - (float(decay) if isinstance(decay, (float, int, np.floating)) else decay)


def one_minus_power(decay: Any, count: Any) -> Float[Array, "*batch"]:
    """Return 1 - decay**count without cancellation, as −expm1(count · log1p(−(1 − decay)))."""
    real = jnp.result_type(float)
    rate, count = complement(decay), jnp.asarray(count, dtype=real)
    if isinstance(rate, float) and rate < 1.0:
        return -jnp.expm1(count * float(np.log1p(-rate)))
    # Up to ½ the power itself does not cancel, and it is differentiable at 0, where the logarithm's derivative is NaN.
    decay, rate = jnp.asarray(decay, dtype=real), jnp.asarray(rate, dtype=real)
    small = decay <= 0.5
    log = jnp.log1p(-jnp.where(small, 0.5, rate))
    return jnp.where(small, 1.0 - decay**count, -jnp.expm1(count * log))


def increment(count: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """Return a step counter incremented by one; it stays at its largest value instead of overflowing."""
    return jnp.asarray(optax.safe_increment(count))
