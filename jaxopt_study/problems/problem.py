"""What is minimised: a loss, where it starts, its data and, where known, its answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import numpy as np

from jaxopt_study.problems.metric import Metric as Metric  # its public place
from jaxopt_study.problems.metric import mode_of
from jaxopt_study.types import Batch, Key, LossFn, Mode, ModelState, Params, Scalar

Kind = Literal["minimum", "saddle", "maximum", "degenerate"]


@dataclass(frozen=True)
class CriticalPoint:
    """A point where the gradient vanishes, known in closed form or to machine precision."""

    params: Params
    value: float  # the loss there
    kind: Kind
    index: int | None = None  # number of negative Hessian eigenvalues; None if unknown
    label: str = ""


@dataclass(frozen=True, eq=False)
class Problem:
    """A loss to minimise together with everything a study needs to know about it.

    The simplest problem is `Problem("mine", init=lambda key: params, loss=loss)`: a deterministic `loss(params, batch)`
    without data, where `batch` is `None`. With `data`, a batch has the structure of `data` with a shorter leading axis.

    A model with variables that are carried and not trained (batch statistics), or with randomness in training
    (dropout), also gives `init_state` and `step_loss`. `loss` and `metrics` are then the deterministic evaluation, and
    take the carried variables as a third argument.

    Attributes:
        name: A short identifier, used in records and figures.
        init: `init(key) -> params`.
        loss: `loss(params, batch)`, or `loss(params, batch, model_state)` if `init_state` is given: the mean over the
            examples of the batch, a scalar.
        data: Training examples, arrays with a common leading axis; None for a deterministic problem.
        validation: Examples for choosing, in the same form.
        test: Examples for the final report, in the same form.
        metrics: Further scalars of the same arguments as `loss`, by name; means over the examples of the batch. A
            `Metric` says which values are better, which choosing by it needs.
        init_state: `init_state(key) -> model_state`, or None.
        step_loss: `step_loss(params, model_state, batch, key) -> (loss, model_state)`, what a training step
            differentiates; None means `loss`.
        critical_points: Known answers.
        domain: Lower and upper corner of the region of interest of a planar problem, for contour plots.
        spectrum: Eigenvalues of the Hessian, ascending, if it is constant.
        metadata: What a record should keep: hashes of the data, sizes, seeds.
    """

    name: str
    init: Callable[[Key], Params]
    loss: LossFn
    data: Batch | None = None
    validation: Batch | None = None
    test: Batch | None = None
    metrics: Mapping[str, LossFn] = field(default_factory=dict)
    init_state: Callable[[Key], ModelState] | None = None
    step_loss: Callable[[Params, ModelState, Batch, Key], tuple[Scalar, ModelState]] | None = None
    critical_points: tuple[CriticalPoint, ...] = ()
    domain: tuple[tuple[float, float], tuple[float, float]] | None = None
    spectrum: np.ndarray | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("data", "validation", "test"):
            _check_examples(self.name, name, getattr(self, name))
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
        """Return whether smaller ("min") or larger ("max") values of a metric are better, None if it does not say.

        Args:
            metric: "loss", which is minimised, or a name in `metrics`.

        Raises:
            ValueError: If the problem has no such metric.
        """
        if metric == "loss":
            return "min"
        if metric not in self.metrics:
            known = ", ".join(map(repr, ("loss", *sorted(self.metrics))))
            raise ValueError(f"Problem {self.name!r} has the metrics {known}; received {metric!r}.")
        return mode_of(self.metrics[metric])

    def replace(self, **changes: Any) -> "Problem":
        """Return a copy with some attributes changed."""
        return replace(self, **changes)


def _check_examples(problem: str, name: str, examples: Batch | None) -> None:
    if examples is None:
        return
    leaves = jax.tree.leaves(examples)
    shapes = [np.shape(leaf) for leaf in leaves]
    if not leaves or any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"The {name} of problem {problem!r} must be arrays with one common leading axis, the examples; "
            f"received shapes {shapes}."
        )
    if shapes[0][0] == 0:
        raise ValueError(f"The {name} of problem {problem!r} holds no examples; use None for a problem without data.")
