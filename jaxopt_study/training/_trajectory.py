"""`Trajectory`, the result of a run, and the options `EarlyStopping` and `Probe`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, no_type_check

import jax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Integer, PyTree, Shaped

from jaxopt_study._checks import (
    check_callable,
    check_choice,
    check_integer,
    check_real,
    check_static,
    describe_argument,
)
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study.training import _cards
from jaxopt_study.types import Mode, ModelState, Params


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has not improved for `patience` evaluations, and return the best parameters.

    Attributes:
        metric: Name of an evaluated quantity: `"validation_loss"`, `"validation_accuracy"`, …
        patience: Number of consecutive evaluations without improvement after which the run ends, ≥ 1.
        mode: "min" if smaller values are better, "max" if larger ones are; None takes the direction that the metric
            declares: losses are minimised, a `problems.Metric` has its mode. A metric without a direction raises.
        min_delta: Smallest difference that counts as an improvement, ≥ 0, in the metric's units.
    """

    metric: str = "validation_loss"
    patience: int = 5
    mode: Mode | str | None = None
    min_delta: float = 0.0

    def __post_init__(self):
        who = "EarlyStopping"
        if not isinstance(self.metric, str):
            raise TypeError(
                f"{who} needs metric to be a name such as 'validation_loss'; received {describe_argument(self.metric)}."
            )
        remedy = "With 1 the run ends at the first evaluation without improvement."
        check_integer(who, "patience", self.patience, 1, remedy=remedy)
        check_choice(who, "mode", self.mode, ("min", "max", None), remedy="None takes that of the metric.")
        check_static(who, "min_delta", self.min_delta)
        check_real(who, "min_delta", self.min_delta, 0)


@dataclass(frozen=True)
class Probe:
    """A measurement made along the run, inside the compiled program.

    Attributes:
        fn: `fn(params, opt_state, batch)`, or `fn(params, opt_state, batch, model_state)` if the problem has
            `init_state`; returns any pytree of arrays. `params` and `opt_state` have the user's structure and shapes;
            `batch` is that of the next step.
        every: Measure before the steps 0, every, 2·every, … and at the end.
        init: For a probe with memory: a function with the same arguments as `fn`, at step 0, that returns the initial
            memory, any pytree of arrays. `fn` then takes the memory as its first argument, and returns the pair (new
            memory, measurement).
    """

    fn: Callable[..., Any]
    every: int = 1
    init: Callable[..., Any] | None = None

    def __post_init__(self):
        check_callable("Probe", "fn", self.fn, expected="a function of (params, opt_state, batch)")
        check_integer("Probe", "every", self.every, 1)
        if self.init is not None:
            check_callable("Probe", "init", self.init, expected="a function of (params, opt_state, batch), or None")

    def measure(self, memory: Any, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """Return the new memory and the measurement."""
        if self.init is None:
            return None, self.fn(*arguments)
        both = self.fn(memory, *arguments)
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise TypeError(
                "train: the fn of a Probe with init must return (new memory, measurement); received "
                f"{describe_argument(both)} from {describe_argument(self.fn)}."
            )
        return both[0], both[1]


@no_type_check  # JAX also builds pytrees of shapes and axes: `jax.tree.map(jnp.shape, trajectory)`
@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "params", "opt_state", "model_state", "losses", "num_steps", "diverged", "diverged_at", "stopped_early",
        "stalled", "last_moved",
        "evaluations", "best_step", "last_params", "snapshots", "snapshot_steps", "probes", "probe_steps", "taps",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclass(frozen=True)
class Trajectory:
    """The result of a run; under `vmap`, of many runs, with leading batch axes.

    T is the requested number of steps. Records of a cadence e are made *before* the steps 0, e, 2e, … and once after
    the last, so the first entry belongs to the start and the last to the result. After a run has ended by divergence or
    early stopping, records hold NaN (0 if they are integers).

    Attributes:
        params: The last parameters, or the best ones under early stopping.
        opt_state: The optimizer's state after the last step taken, in the structure and shapes of `optimizer.init`.
        model_state: State of the model that belongs to `params`; None if it has none.
        losses: Training loss of each step's batch at the point of its gradient, shape (T,).
        num_steps: Number of steps applied, ≤ T.
        diverged: Whether the loss, gradient, new parameters or new model state of a step were not finite. That step was
            not applied.
        diverged_at: Index of that step, −1 if there is none.
        stopped_early: Whether patience ran out.
        evaluations: By name, shape (K,); `"step"` is the number of steps applied before. Empty if nothing was
            evaluated.
        best_step: Under early stopping, the number of steps that lead to `params`; otherwise None.
        last_params: Under early stopping, the parameters to which `opt_state` belongs; otherwise None.
        snapshots: Recorded parameters, each leaf with a leading axis; None if not recorded.
        snapshot_steps: Number of steps applied before each snapshot.
        probes: Measurements of the probe, each leaf with a leading axis; None without a probe.
        probe_steps: Number of steps applied before each measurement.
        taps: By name, the metrics of every tap in the optimizer, each with a leading axis T; empty without taps.
        stalled: Whether the parameters stopped changing although the gradient was not 0: for at least the last tenth of
            the steps, and for longer than between any two earlier changes. Only 64 evenly spaced coordinates of each
            leaf are compared.
        last_moved: Number of steps after which one of these coordinates last changed, 0 if none ever did.
    """

    params: Params
    opt_state: PyTree
    model_state: ModelState
    losses: Float[Array, "*runs steps"]
    num_steps: Integer[Array, "*runs"]
    diverged: Bool[Array, "*runs"]
    diverged_at: Integer[Array, "*runs"]
    stopped_early: Bool[Array, "*runs"]
    evaluations: dict[str, Shaped[Array, "*runs evaluations"]]
    best_step: Integer[Array, "*runs"] = None  # pyright: ignore[reportAssignmentType]
    last_params: Any = None
    snapshots: Any = None
    snapshot_steps: Integer[Array, "*runs snapshots"] = None  # pyright: ignore[reportAssignmentType]
    probes: Any = None
    probe_steps: Integer[Array, "*runs probes"] = None  # pyright: ignore[reportAssignmentType]
    taps: Any = None
    stalled: Bool[Array, "*runs"] = None  # pyright: ignore[reportAssignmentType]
    last_moved: Integer[Array, "*runs"] = None  # pyright: ignore[reportAssignmentType]

    __repr__, _repr_html_ = displayed(_cards.trajectory)
    to_pandas = tabulated(_cards.columns_of_trajectory)
    plot = plotted

    def replace(self, **changes: Any) -> "Trajectory":
        """Return a copy with some attributes changed."""
        return replace(self, **changes)


class TrainingInterrupted(KeyboardInterrupt):
    """A run was interrupted from the keyboard; `trajectory` holds the finished part.

    It is a `KeyboardInterrupt`, so a program that does not catch it stops as usual. To keep the finished part:

        try:
            trajectory = train(problem, optimizer, num_steps=100_000, key=key)
        except TrainingInterrupted as interrupted:
            trajectory = interrupted.trajectory
    """

    def __init__(self, trajectory: Trajectory):
        super().__init__(f"interrupted after {int(trajectory.num_steps)} steps; .trajectory holds the finished part")
        self.trajectory = trajectory

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingInterrupted, (self.trajectory,)


def _summary(value: Any) -> str:
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value:
        if getattr(value, "ndim", 1) == 0 and not isinstance(value, Tracer):
            return str(value)
        return f"{value.dtype}{list(value.shape)}"
    return f"<{len(leaves)} arrays>"
