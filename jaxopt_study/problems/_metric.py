"""Metrics: scalars evaluated beside the loss, with the direction in which they improve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxopt_study._checks import check_callable, check_choice
from jaxopt_study.types import LossFn, Mode

Function = TypeVar("Function", bound=Callable[..., Any])
MODES: tuple[Mode, Mode] = ("min", "max")


@dataclass(frozen=True)
class Metric:
    """A metric function together with the direction in which it improves.

    A search, a comparison and early stopping need the direction, and it is never inferred from a name: for a metric
    without a direction, pass `mode=…`.

    Attributes:
        fn: `fn(params, batch)`, with a third argument if `loss` has one; a mean over the examples.
        mode: "min" if smaller values are better, "max" if larger values are.

    Raises:
        TypeError: If `fn` is not a function.
        ValueError: If `mode` is neither "min" nor "max".

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
    """Return a decorator that records the direction in which a metric function improves.

    Args:
        mode: "min" or "max".

    Returns:
        The decorator. It returns the function itself.

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
    """Return the direction of a metric, "min" or "max", or None if it has none."""
    declared = getattr(metric, "mode", None)
    return next((mode for mode in MODES if declared == mode), None)


def directed_as(metric: Callable[..., Any], function: LossFn) -> LossFn:
    """Return a function with the direction of a metric, which it computes from other arguments."""
    mode = mode_of(metric)
    return function if mode is None else Metric(function, mode)
