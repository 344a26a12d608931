"""Traced hyperparameters in Optax's constructors, some of which branch in Python on their values."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

_DECISIONS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def form_for(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[..., Any]:
    """Return a constructor that accepts these arguments: a replacement if the original cannot take traced ones."""
    return _FORMS.get(function, function) if _any_traced((args, kwargs)) else function


@contextmanager
def explained(function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Iterator[None]:
    """Translate JAX's error about branching on a traced value into one that names the hyperparameter and the remedy."""
    try:
        yield
    except _DECISIONS as error:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
        traced = [argument for argument, value in bound.items() if _any_traced(value)]
        if not traced:
            raise
        raise TypeError(
            f"from_optax({name}): the constructor needs the value of {' or '.join(traced)} in Python, for example in "
            "an `if`, so a search, jit or vmap cannot trace it. Pass it as a plain number, with one optimizer per "
            "value, and search the others. To search a schedule, search a factor that multiplies it: chain(…, "
            "scale_by_learning_rate(schedule, flip_sign=False), scale_by_learning_rate(factor))."
        ) from error


def _any_traced(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def _warmup_cosine_decay(
    init_value: Any,
    peak_value: Any,
    warmup_steps: int,
    decay_steps: int,
    end_value: Any = 0.0,
    exponent: Any = 1.0,
) -> optax.Schedule:
    """Return Optax's schedule of this name without its Python branch on a zero peak."""
    flat = peak_value == 0
    alpha = jnp.where(flat, 0.0, end_value / jnp.where(flat, 1.0, peak_value))
    warmup = optax.linear_schedule(init_value, peak_value, warmup_steps)
    decay = optax.cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)
    return optax.join_schedules([warmup, decay], [warmup_steps])


_FORMS: dict[Any, Callable[..., Any]] = {optax.warmup_cosine_decay_schedule: _warmup_cosine_decay}
