"""Hyperparameters as scalars: what is accepted, how it is checked, when it is evaluated, in which precision it acts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array

from jaxopt_study.types import Schedule

ScalarLike = float | int | jax.Array | np.ndarray | np.generic
ScalarOrSchedule = ScalarLike | Callable[..., Any]


def concrete(value: Any) -> float | None:
    """Return a hyperparameter as a Python float, or None where its value is not known while Python runs."""
    if callable(value) or isinstance(value, Tracer):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def check_interval(
    atom: str, name: str, value: Any, low: float, high: float, *, closed: str = "[)", remedy: str = ""
) -> None:
    """Raise ValueError if a concrete hyperparameter lies outside an interval; traced values and schedules pass."""
    if value is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{atom}: {name} must be a number, an array or a schedule, received {value!r}.")
    number = concrete(value)
    if number is None:
        return
    above = number >= low if closed[0] == "[" else number > low
    below = number <= high if closed[1] == "]" else number < high
    if not (above and below):
        interval = f"{closed[0]}{low:g}, {high:g}{closed[1]}"
        raise ValueError(f"{atom}: {name} must lie in {interval}, received {value}.{' ' + remedy if remedy else ''}")


def check_decay(atom: str, value: Any, name: str = "decay") -> None:
    """Raise ValueError unless a concrete decay lies in [0, 1)."""
    remedy = "A decay is the weight of the past: 0.9 remembers about 10 steps, 0.999 about 1000."
    number = concrete(value)
    if number is not None and number > 1:
        remedy += f" For a memory of n steps use 1 - 1/n (here {1 - 1 / number:g})."
    check_interval(atom, name, value, 0.0, 1.0, remedy=remedy)


def check_non_negative(atom: str, name: str, value: Any, remedy: str = "") -> None:
    """Raise ValueError if a concrete hyperparameter is negative or not a number."""
    check_interval(atom, name, value, 0.0, np.inf, remedy=remedy)


def check_limit(atom: str, name: str, value: Any) -> None:
    """Raise ValueError if a concrete limit on a size is negative or not a number; infinity means no limit."""
    check_interval(atom, name, value, 0.0, np.inf, closed="[]", remedy="Infinity clips nothing.")


def at_step(value: ScalarOrSchedule | Schedule, count: Any) -> Any:
    """Return a hyperparameter at a step: a schedule is called with the number of steps already taken."""
    return value(count) if callable(value) else value


def cast(value: Any, dtype: Any) -> Any:
    """Return a hyperparameter in the precision of the leaf it acts on, so that it never promotes the leaf."""
    return value if isinstance(value, (float, int)) else jnp.asarray(value).astype(dtype)


def complement(decay: Any) -> Any:
    """Return 1 - decay, formed in double precision where the decay is known while Python runs."""
    return 1.0 - (float(decay) if isinstance(decay, (float, int, np.floating)) else decay)


def one_minus_power(decay: Any, count: Any) -> Array:
    """Return 1 - decay**count without cancellation, as −expm1(count · log1p(−(1 − decay)))."""
    real = jnp.result_type(float)
    rate, count = complement(decay), jnp.asarray(count, dtype=real)
    if isinstance(rate, float) and rate < 1.0:
        return -jnp.expm1(count * float(np.log1p(-rate)))
    # Up to ½ the power itself cancels nothing, and has a derivative at 0, where the logarithm's is not a number.
    decay, rate = jnp.asarray(decay, dtype=real), jnp.asarray(rate, dtype=real)
    small = decay <= 0.5
    log = jnp.log1p(-jnp.where(small, 0.5, rate))
    return jnp.where(small, 1.0 - decay**count, -jnp.expm1(count * log))


def increment(count: Array) -> Array:
    """Return a step counter raised by one; it stays at its largest value rather than overflow."""
    return jnp.asarray(optax.safe_increment(count))
