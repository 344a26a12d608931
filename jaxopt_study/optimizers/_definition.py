"""Definition of named optimizers: defaults by convention, argument checks, names of other libraries."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args

import jax.numpy as jnp

from jaxopt_study._checks import check_bool, check_real, describe_argument
from jaxopt_study.transforms import ScalarLike, ScalarOrSchedule, Transform, composite

P = ParamSpec("P")
R = TypeVar("R")


class Range(NamedTuple):
    """The valid range of a hyperparameter."""

    low: float = 0.0
    high: float = float("inf")
    closed: str = "[)"
    remedy: str = ""


DECAY = Range(0.0, 1.0, "[)", "A decay is the weight of the past: 0.9 remembers about 10 steps, 0.999 about 1000.")
POSITIVE = Range(closed="()")
NON_NEGATIVE = Range()
RANGES = {
    "learning_rate": Range(remedy="A step is −learning_rate × direction; use maximize=True to ascend."),
    "schedule": NON_NEGATIVE,
    "decay": DECAY,
    "momentum": DECAY,
    "b1": DECAY,
    "b2": DECAY,
    "b3": DECAY,
    "eps": NON_NEGATIVE,
    "eps_root": NON_NEGATIVE,
    "initial": NON_NEGATIVE,
    "momentum_decay": NON_NEGATIVE,
    "threshold": Range(4.0, remedy="Below 4 the variance is infinite."),
    "weight_decay": NON_NEGATIVE,
    "lr_decay": NON_NEGATIVE,
    "dampening": Range(0.0, 1.0, "[]"),
    "lambd": NON_NEGATIVE,
    "alpha": NON_NEGATIVE,
    "t0": NON_NEGATIVE,
    "eta_minus": Range(0.0, 1.0, "()"),
    "eta_plus": Range(1.0, closed="()"),
    "min_step_size": NON_NEGATIVE,
    "max_step_size": NON_NEGATIVE,
    "decay_rate": NON_NEGATIVE,
    "min_rms": POSITIVE,
    "damping": NON_NEGATIVE,
    "tolerance": Range(0.0, 1.0, "[)", "It is relative to the norm of the gradient."),
    "clipping_threshold": Range(0.0, float("inf"), "[]", "Infinity or None clips nothing."),
}


def optimizer(
    conventions: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    ranges: Mapping[str, Range] | None = None,
    search_range: tuple[float, float] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function the constructor of a named optimizer.

    The result is a `composite` that checks numbers, schedules, flags and dtypes by their annotations and names before
    they reach the atoms, so that an error names the argument that the user gave.

    Args:
        conventions: Defaults that depend on the argument `convention`, as for `composite`.
        aliases: Optax's or PyTorch's names of arguments, mapped to the names used here. Calls accept them; they appear
            nowhere else.
        ranges: Valid ranges of hyperparameters that differ from `RANGES`.
        search_range: Default range (low, high) of a search for the learning rate, wide enough for networks of a few
            layers on images; None declares none.

    Returns:
        A decorator for functions that return a `Transform`.
    """
    limits, also = {**RANGES, **(ranges or {})}, dict(aliases or {})

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name, signature = function.__name__, inspect.signature(function)
        checks = [
            (parameter, check)
            for parameter in signature.parameters
            if (check := _check(name, signature.parameters[parameter], limits))
        ]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for parameter, check in checks:
                check(bound.arguments[parameter])
            return function(*args, **kwargs)

        vars(checked)["search_range"] = search_range
        built = composite(conventions)(checked)
        if not also:
            return built

        @functools.wraps(built)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            for other, own in also.items():
                if other in kwargs:
                    if own in kwargs:
                        raise TypeError(f"{name}: {other} is another name of {own}; received both. Give {own} only.")
                    kwargs[own] = kwargs.pop(other)
            return built(*args, **kwargs)

        return renamed

    return decorate


def search_range(maker: Any) -> tuple[float, float] | None:
    """Return the range in which an optimizer declares that its learning rate be searched.

    Args:
        maker: The constructor of a named optimizer, or an optimizer that it built.

    Returns:
        (low, high), or None for anything that declares none.

    Example:
        >>> from jaxopt_study import optimizers
        >>> search_range(optimizers.adam) == search_range(optimizers.adam(0.1))
        True
    """
    built = maker.spec.constructor.build if isinstance(maker, Transform) and maker.spec else maker
    return getattr(built, "search_range", None)


def _check(who: str, parameter: inspect.Parameter, ranges: Mapping[str, Range]) -> Callable[[Any], None] | None:
    """Return the check for an argument's annotation and name."""
    name, annotation = parameter.name, parameter.annotation
    if annotation is bool:
        return lambda value: _ignore(check_bool(who, name, value))
    if name.endswith("dtype"):
        return lambda value: _check_dtype(who, name, value)
    optional = isinstance(annotation, UnionType) and type(None) in get_args(annotation)
    scheduled = annotation in (ScalarOrSchedule, ScalarOrSchedule | None)
    if not scheduled and annotation not in (ScalarLike, ScalarLike | None):
        return None
    low, high, closed, remedy = ranges[name]

    def check(value: Any) -> None:
        # A class is callable, but it is not a schedule.
        is_schedule = scheduled and callable(value) and not isinstance(value, type)
        if not is_schedule and not (optional and value is None):
            check_real(who, name, value, low, high, closed=closed, remedy=remedy)

    return check


def _check_dtype(who: str, name: str, value: Any) -> None:
    if value is None:
        return
    try:
        known = not hasattr(value, "shape")  # an array has a dtype but is not one
        floating = known and jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise TypeError(f"{who} needs {name} to be a floating dtype or None; received {describe_argument(value)}.")


def _ignore(value: Any) -> None:
    del value
