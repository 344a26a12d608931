"""`Problem`: a loss with its initial parameters, data and, where known, critical points and spectrum."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Real

from jaxopt_study._checks import (
    check_callable,
    check_choice,
    check_integer,
    check_numbers,
    check_params,
    check_real,
    check_text,
    describe_argument,
)
from jaxopt_study.problems._examples import as_examples
from jaxopt_study.problems._metric import Metric as Metric  # its public place
from jaxopt_study.problems._metric import MetricFunction as MetricFunction
from jaxopt_study.problems._metric import is_proportion, mode_of
from jaxopt_study.types import Batch, Key, LossFn, Mode, ModelState, Params, Scalar

Kind = Literal["minimum", "saddle", "maximum", "degenerate"]
StepLossFn = Callable[[Params, ModelState, Batch, Key], tuple[Scalar, ModelState]]


@dataclass(frozen=True)
class CriticalPoint:
    """A point with zero gradient, known in closed form or to machine precision."""

    params: Params
    value: float  # the loss at the point
    kind: Kind
    index: int | None = None  # number of negative Hessian eigenvalues; None if unknown
    label: str = ""

    def __post_init__(self):
        check_params("CriticalPoint", self.params)
        check_real("CriticalPoint", "value", self.value)
        check_choice("CriticalPoint", "kind", self.kind, get_args(Kind))
        if self.index is not None:
            check_integer("CriticalPoint", "index", self.index, 0)
        check_text("CriticalPoint", "label", self.label)


@dataclass(frozen=True, eq=False)
class Problem:
    """A loss to minimise, with its initial parameters, data and known properties.

    The simplest problem is `Problem("mine", init=lambda key: params, loss=loss)`: a deterministic `loss(params, batch)`
    without data, where `batch` is `None`. With `data`, a batch has the structure of `data` with a shorter leading axis.

    A model with state that is not trained (batch statistics), or with randomness in training (dropout), also gives
    `init_state` and `step_loss`. `loss` and `metrics` are then the deterministic evaluation, and take the state as a
    third argument.

    Attributes:
        name: A short identifier, used in records and figures.
        init: `init(key) -> params`.
        loss: `loss(params, batch)`, or `loss(params, batch, model_state)` if `init_state` is given: the mean over the
            examples of the batch, a scalar.
        data: Training examples, arrays with a common leading axis; None for a deterministic problem.
        validation: Examples for model selection, in the same form.
        test: Examples for the final report, in the same form.
        metrics: Further scalars of the same arguments as `loss`, by name; means over the examples of the batch. A
            `Metric`, or any other `MetricFunction`, also has a direction, which selection by it needs.
        init_state: `init_state(key) -> model_state`, or None.
        step_loss: `step_loss(params, model_state, batch, key) -> (loss, model_state)`, the function that a training
            step differentiates; None means `loss`.
        critical_points: Known minima, saddles and maxima.
        domain: Lower and upper corner of the plotted region of a planar problem.
        spectrum: Eigenvalues of the Hessian, ascending, if it is constant.
        metadata: Information for records: hashes of the data, sizes, seeds.
    """

    name: str
    init: Callable[[Key], Params]
    loss: LossFn
    data: Batch | None = None
    validation: Batch | None = None
    test: Batch | None = None
    metrics: Mapping[str, MetricFunction | LossFn] = field(default_factory=dict)
    init_state: Callable[[Key], ModelState] | None = None
    step_loss: StepLossFn | None = None
    critical_points: tuple[CriticalPoint, ...] = ()
    domain: tuple[tuple[float, float], tuple[float, float]] | None = None
    spectrum: Real[np.ndarray, " eigenvalues"] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        who = f"Problem {self.name!r}" if isinstance(self.name, str) else "Problem"
        check_text(who, "name", self.name)
        check_callable(who, "init", self.init, expected="a function of a key that returns parameters")
        check_callable(who, "loss", self.loss, expected="a function of (params, batch) that returns a scalar")
        for name in ("init_state", "step_loss"):
            if getattr(self, name) is not None:
                check_callable(who, name, getattr(self, name), expected="a function, or None")
        check_metrics(who, self.metrics)
        for name in ("data", "validation", "test"):
            examples = getattr(self, name)
            if examples is not None:
                examples = as_examples(f"The {name} of problem {self.name!r}", examples)
                object.__setattr__(self, name, examples)
                _check_form(self.name, name, examples, self.data)
        if not isinstance(self.critical_points, tuple | list) or not all(
            isinstance(point, CriticalPoint) for point in self.critical_points
        ):
            raise TypeError(f"{who} needs critical_points to be a tuple of CriticalPoint.")
        _check_domain(who, self.domain)
        if self.spectrum is not None:
            spectrum = check_numbers(who, "spectrum", self.spectrum)
            if spectrum.ndim != 1 or not spectrum.size or (np.diff(spectrum) < 0).any():
                raise ValueError(
                    f"{who} needs spectrum to be eigenvalues in ascending order; received "
                    f"{describe_argument(self.spectrum)}."
                )
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"{who} needs metadata to be a mapping; received {describe_argument(self.metadata)}.")
        if self.init_state is not None and self.step_loss is None:
            raise ValueError(
                f"Problem {self.name!r} has init_state but no step_loss, so its model state would never be updated: "
                "give step_loss(params, model_state, batch, key) -> (loss, model_state)."
            )

    @property
    def num_examples(self) -> int | None:
        """Number of training examples, or None for a problem without data."""
        return None if self.data is None else len(jax.tree.leaves(self.data)[0])

    @property
    def minima(self) -> tuple[CriticalPoint, ...]:
        """The known minima."""
        return tuple(point for point in self.critical_points if point.kind == "minimum")

    @property
    def saddles(self) -> tuple[CriticalPoint, ...]:
        """The known saddle points."""
        return tuple(point for point in self.critical_points if point.kind == "saddle")

    def mode_of(self, metric: str) -> Mode | None:
        """Return "min" or "max", the direction in which a metric improves, or None if it has none.

        Args:
            metric: "loss", whose direction is "min", or a name in `metrics`.

        Raises:
            ValueError: If the problem has no such metric.
        """
        if isinstance(metric, str) and metric == "loss":
            return "min"
        return mode_of(self._metric(metric))

    def is_proportion(self, metric: str) -> bool:
        """Return whether a metric declares that its value is a fraction of the examples, as accuracy is.

        Args:
            metric: "loss", which is none, or a name in `metrics`.

        Raises:
            ValueError: If the problem has no such metric.
        """
        if isinstance(metric, str) and metric == "loss":
            return False
        return is_proportion(self._metric(metric))

    def replace(self, **changes: Any) -> "Problem":
        """Return a copy with some attributes changed."""
        return replace(self, **changes)

    def _metric(self, name: Any) -> MetricFunction | LossFn:
        if not isinstance(name, str) or name not in self.metrics:
            known = ", ".join(map(repr, ("loss", *sorted(self.metrics))))
            raise ValueError(f"Problem {self.name!r} has the metrics {known}; received {name!r}.")
        return self.metrics[name]


def check_metrics(who: str, metrics: Any) -> Mapping[str, MetricFunction | LossFn]:
    """Return metrics that are a mapping of names to functions; raise TypeError for anything else."""
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"{who} needs metrics to be a mapping of names to functions; received {describe_argument(metrics)}."
        )
    for label, metric in metrics.items():
        check_text(who, "the names of metrics", label)
        check_callable(who, f"metrics[{label!r}]", metric, expected="a function of the arguments of loss")
    return metrics


def _check_form(problem: str, name: str, examples: Any, data: Any) -> None:
    if data is None:
        return
    given, expected = jax.tree.structure(examples), jax.tree.structure(data)
    if given != expected:
        raise ValueError(
            f"The {name} of problem {problem!r} must have the structure of data, {expected}; received {given}."
        )
    for (path, leaf), like in zip(jax.tree_util.tree_leaves_with_path(examples), jax.tree.leaves(data), strict=True):
        if np.ndim(leaf) != np.ndim(like):
            raise ValueError(
                f"The {name}{jax.tree_util.keystr(path)} of problem {problem!r} must have as many axes as data, "
                f"{np.ndim(like)}; received shape {np.shape(leaf)}."
            )


def _check_domain(who: str, domain: Any) -> None:
    if domain is None:
        return
    corners = check_numbers(who, "domain", domain)
    if corners.shape != (2, 2) or not (corners[0] < corners[1]).all():
        raise ValueError(
            f"{who} needs domain to be a lower and an upper corner, ((x, y), (x, y)), in this order; received "
            f"{domain!r}."
        )
