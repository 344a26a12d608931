"""Learning-rate schedules of PyTorch's and Adafactor's methods, and products of schedules."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._checks import check_bool
from jaxopt_study.transforms._constructors import named_function
from jaxopt_study.transforms._scalars import (
    ScalarLike,
    ScalarOrSchedule,
    at_step,
    cast,
    check_interval,
    check_non_negative,
)


@named_function
def inverse_time_decay(learning_rate: ScalarOrSchedule, rate: ScalarLike) -> Callable[[Any], Any]:
    """Return the schedule ηₜ / (1 + d t), with t steps taken.

    Args:
        learning_rate: η ≥ 0, or a schedule of it.
        rate: d ≥ 0 per step: after 1/d steps the rate is halved.

    Returns:
        A schedule for `scale_by_learning_rate`.

    Raises:
        ValueError: If an argument is negative.

    Example:
        >>> print(f"{inverse_time_decay(0.3, 0.5)(4):.3f}")
        0.100

    References:
        `torch.optim.Adagrad`, its argument `lr_decay`.
    """
    check_non_negative("inverse_time_decay", "learning_rate", learning_rate, schedule=True)
    check_non_negative("inverse_time_decay", "rate", rate)
    return lambda count: _at("inverse_time_decay", learning_rate, count) / (1 + _real(rate) * _time(count))


@named_function
def regularised_decay(
    learning_rate: ScalarOrSchedule, strength: ScalarLike, *, power: ScalarLike = 0.75, lagged: bool = False
) -> Callable[[Any], Any]:
    """Return the schedule ηₜ / (1 + λ ηₜ t)^α, with t steps taken.

    The strong convexity λ of the term ½λ‖θ‖² sets the rate of decay; the power is 1 for the plain iterates and between
    ½ and 1 for averaged ones.

    Args:
        learning_rate: η ≥ 0, or a schedule of it.
        strength: λ ≥ 0, the weight of ½‖θ‖² in the loss.
        power: α ≥ 0.
        lagged: Whether a schedule's η is taken from the previous step, as in PyTorch, which computes the next rate at
            the end of each step.

    Returns:
        A schedule for `scale_by_learning_rate`.

    Raises:
        ValueError: If an argument is negative.

    Example:
        >>> print(regularised_decay(0.5, 0.2, power=1.0)(10).round(6))
        0.25

    References:
        Bottou (2012), Stochastic gradient descent tricks, sections 5.2 (α = 1) and 5.3 (α = ¾ with averaging); Xu
        (2011), Towards optimal one pass large scale learning with averaged stochastic gradient descent, section 5.
    """
    check_non_negative("regularised_decay", "learning_rate", learning_rate, schedule=True)
    check_non_negative("regularised_decay", "strength", strength)
    check_non_negative("regularised_decay", "power", power)
    check_bool("regularised_decay", "lagged", lagged)

    def schedule(count: Any) -> Any:
        seen = jnp.maximum(jnp.asarray(count) - 1, 0) if lagged else count
        rate = _at("regularised_decay", learning_rate, seen)
        return rate / (1 + _real(strength) * rate * _time(count)) ** _real(power)

    return schedule


@named_function
def relative_step(learning_rate: ScalarOrSchedule) -> Callable[[Any], Any]:
    """Return the schedule min(ηₜ, 1/√(t + 1)), with t steps taken.

    Args:
        learning_rate: η ≥ 0, or a schedule of it.

    Returns:
        A schedule for `scale_by_learning_rate`.

    Raises:
        ValueError: If `learning_rate` is negative.

    Example:
        >>> print(relative_step(0.5)(0), relative_step(0.5)(15))
        0.5 0.25

    References:
        Shazeer and Stern (2018), Adafactor, Algorithm 6: ρₜ.
    """
    check_non_negative("relative_step", "learning_rate", learning_rate, schedule=True)
    return lambda count: jnp.minimum(_at("relative_step", learning_rate, count), 1 / jnp.sqrt(_time(count) + 1))


@named_function
def schedule_product(first: ScalarOrSchedule, second: ScalarOrSchedule) -> Callable[[Any], Any]:
    """Return the schedule aₜ bₜ, with t steps taken.

    Args:
        first: a, a number or a schedule.
        second: b, a number or a schedule.

    Returns:
        A schedule.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If an argument is neither a real number nor a schedule.

    Example:
        >>> print(schedule_product(0.5, lambda count: count + 1.0)(3))
        2.0
    """
    for name, value in (("first", first), ("second", second)):
        check_interval("schedule_product", name, value, -float("inf"), float("inf"), closed="()", schedule=True)
    return lambda count: (
        _at("schedule_product", first, count, "first") * _at("schedule_product", second, count, "second")
    )


def _at(who: str, value: Any, count: Any, name: str = "learning_rate") -> Float[Array, "*batch"]:
    return jnp.asarray(at_step(value, count, who, name), dtype=jnp.result_type(float))


def _real(value: Any) -> Any:
    return cast(value, jnp.result_type(float))


def _time(count: Any) -> Float[Array, "*batch"]:
    return jnp.asarray(count, dtype=jnp.result_type(float))
