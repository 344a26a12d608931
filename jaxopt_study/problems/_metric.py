"""Metrics: scalars evaluated beside the loss, with the direction in which they improve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxopt_study._checks import check_bool, check_callable, check_choice
from jaxopt_study.types import LossFn, Mode

Function = TypeVar("Function", bound=Callable[..., Any])
MODES: tuple[Mode, Mode] = ("min", "max")


@runtime_checkable
class MetricFunction(Protocol):
    """A scalar evaluated beside the loss that declares the direction in which it improves.

    Any callable with these members is a metric of a `Problem` by which early stopping, `search`, `compare` and `ablate`
    can select; a `Metric` is one. An attribute `is_proportion` that is true says that the value is the fraction of the
    examples with some property, as accuracy is; without it, the value is any number.

    """

    @property
    def mode(self) -> Mode | str:
        """The direction: "min" if smaller values are better, "max" if larger values are."""
        ...

    def __call__(self, *arguments: Any) -> Any:
        """Return the metric as a scalar, a mean over the examples of a batch.

        Args:
            *arguments: Those of the loss: (params, batch), and the model state if the problem has one.
        """
        ...


@dataclass(frozen=True)
class Metric:
    """A metric function together with the direction in which it improves.

    A search, a comparison and early stopping need the direction, and it is never inferred from a name: for a metric
    without a direction, pass `mode=…`.

    Attributes:
        fn: `fn(params, batch)`, with a third argument if `loss` has one; a mean over the examples.
        mode: "min" if smaller values are better, "max" if larger values are.
        is_proportion: Whether the value is a fraction of the examples, as accuracy is. It then lies in [0, 1], is a
            multiple of 1/n on n examples, and its sampling noise is binomial.

    Raises:
        TypeError: If `fn` is not a function, or `is_proportion` is not a boolean.
        ValueError: If `mode` is neither "min" nor "max".

    Example:
        >>> hits = Metric(lambda params, batch: (params > batch).mean(), mode="max")
        >>> mode_of(hits), mode_of(hits.fn)
        ('max', None)
    """

    fn: Callable[..., Any]
    mode: Mode | str
    is_proportion: bool = False

    def __post_init__(self):
        check_callable("Metric", "fn", self.fn, expected="a function of (params, batch)")
        check_choice("Metric", "mode", self.mode, MODES)
        check_bool("Metric", "is_proportion", self.is_proportion)

    def __call__(self, *arguments: Any) -> Any:
        """Return fn(*arguments)."""
        return self.fn(*arguments)


def better(mode: Mode | str, *, is_proportion: bool = False) -> Callable[[Function], Function]:
    """Return a decorator that records the direction in which a metric function improves.

    Args:
        mode: "min" or "max".
        is_proportion: As in `Metric`.

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
        vars(function).update(mode=mode, is_proportion=is_proportion)
        return function

    return declare


def mode_of(metric: Callable[..., Any]) -> Mode | None:
    """Return the direction of a metric, "min" or "max", or None if it has none."""
    declared = getattr(metric, "mode", None)
    return next((mode for mode in MODES if declared == mode), None)


def is_proportion(metric: Callable[..., Any]) -> bool:
    """Return whether a metric declares that its value is a fraction of the examples."""
    return getattr(metric, "is_proportion", False) is True


def directed_as(metric: Callable[..., Any], function: LossFn) -> LossFn:
    """Return a function that declares what a metric does, which it computes from other arguments."""
    mode = mode_of(metric)
    return function if mode is None else Metric(function, mode, is_proportion(metric))
