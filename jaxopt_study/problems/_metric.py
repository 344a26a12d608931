"""A number to evaluate beside the loss, and which values of it are better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxopt_study._checks import check_callable, check_choice
from jaxopt_study.types import LossFn, Mode

Function = TypeVar("Function", bound=Callable[..., Any])
MODES: tuple[Mode, Mode] = ("min", "max")


@dataclass(frozen=True)
class Metric:
    """A function of a problem's metrics that says which of its values are better.

    A search, a comparison or early stopping needs to know that. No name tells: those who choose by a metric that does
    not say must be told by `mode=…`.

    Attributes:
        fn: `fn(params, batch)`, or with a third argument where `loss` has one; a mean over the examples.
        mode: Whether smaller ("min") or larger ("max") values are better.

    Raises:
        TypeError: If `fn` is not a function.
        ValueError: If `mode` is neither.

    Example:
        >>> hits = Metric(lambda params, batch: (params > batch).mean(), mode="max")
        >>> mode_of(hits), mode_of(hits.fn)
        ('max', None)
    """

    fn: Callable[..., Any]
    mode: Mode | str

    def __post_init__(self):
        check_callable("Metric", "fn", self.fn, expected="a function of (params, batch)")
        check_choice("Metric", "mode", self.mode, MODES)

    def __call__(self, *arguments: Any) -> Any:
        """Return fn(*arguments)."""
        return self.fn(*arguments)


def better(mode: Mode | str) -> Callable[[Function], Function]:
    """Return a decorator that writes down which values of a function are better, for functions that are metrics.

    Args:
        mode: "min" or "max".

    Returns:
        The decorator. The function stays what it was.

    Example:
        >>> @better("max")
        ... def hits(params, batch):
        ...     return (params > batch).mean()
        >>> mode_of(hits)
        'max'
    """
    check_choice("better", "mode", mode, MODES)

    def declare(function: Function) -> Function:
        vars(function)["mode"] = mode
        return function

    return declare


def mode_of(metric: Callable[..., Any]) -> Mode | None:
    """Return which values of a metric are better, or None if it does not say."""
    declared = getattr(metric, "mode", None)
    return next((mode for mode in MODES if declared == mode), None)


def directed_as(metric: Callable[..., Any], function: LossFn) -> LossFn:
    """Return a function that computes a metric from other arguments, with the direction of the metric."""
    mode = mode_of(metric)
    return function if mode is None else Metric(function, mode)
