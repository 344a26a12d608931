"""Data classes of a run: static plan, inputs, constants and the carry of the loop."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, no_type_check

import jax
import numpy as np
from jaxtyping import Array, Bool, Integer, PyTree, Shaped

from jaxopt_study.dynamics import differentiated
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._flat_parameters import restore_leaves
from jaxopt_study.training._trajectory import EarlyStopping, Probe
from jaxopt_study.types import Batch, Key, ModelState, Params

Step = Integer[Array, ""] | np.int32 | int  # t, traced or not


@dataclass(frozen=True)
class Plan:
    """The static part of a run. Runs with equal plans and inputs of equal shapes share compiled programs."""

    init: Callable
    loss: Callable
    step_loss: Callable | None
    init_state: Callable | None
    metrics: tuple[tuple[str, Callable], ...]
    optimizer: Any  # a transformation that is not a pytree of numbers; otherwise None, and it is among the inputs
    structure: Any  # the tree structure of the parameters
    shapes: tuple[jax.ShapeDtypeStruct, ...]  # the leaves of the parameters in the user's layout
    batch_size: int | None  # None: all examples at every step
    order: Any  # the order of the batches, or its structure as a pytree
    evaluate_every: int | None
    evaluate_on: tuple[str, ...]
    evaluate_batch_size: int | None
    early_stopping: EarlyStopping | None
    snapshot_every: int | None
    probe: Probe | CurvatureProbe | None
    loss_dtype: Any = None
    layout: str = "tree"
    loop: str = "compiled"
    convolutional: bool = False  # whether the loss convolves, so that programs are compiled for it
    capacity: int = 0  # number of steps whose records fit into the buffers of one call
    careful: bool = False  # whether every step keeps the old values until the new ones are found to be finite
    sharded: bool = False  # whether parameters are spread over devices
    paired: bool = False  # whether parameters are the pair of fast and slow ones of `optax.lookahead`

    @property
    def like(self) -> Params:
        """Structure and shapes of the user's parameters, without values."""
        return jax.tree.unflatten(self.structure, self.shapes)

    def shaped(self, carried: Params) -> Params:
        """Return carried parameters in the user's shapes."""
        return restore_leaves(carried, self.like) if self.layout == "flat" else carried

    def shaped_part(self, carried: Params) -> Params:
        """Return the carried parameters that the loss depends on, in the user's shapes."""
        return restore_leaves(carried, differentiated(self.like)) if self.layout == "flat" else carried

    def shaped_state(self, optimizer: Any, opt_state: PyTree) -> PyTree:
        """Return a carried optimizer state in the shapes of `optimizer.init` for the user's parameters."""
        return (
            restore_leaves(opt_state, jax.eval_shape(optimizer.init, self.like)) if self.layout == "flat" else opt_state
        )

    @property
    def cadences(self) -> dict[str, int]:
        """Names and cadences of the records that are not made at every step."""
        intervals = {"evaluations": self.evaluate_every, "snapshots": self.snapshot_every}
        intervals["probes"] = self.probe.every if self.probe else None
        return {name: every for name, every in intervals.items() if every}


# JAX also builds these of shapes and axes: `jax.tree.map(jnp.shape, carry)`. Annotations therefore are not checked.
@no_type_check
@partial(jax.tree_util.register_dataclass, data_fields=["optimizer", "data", "examples", "order"], meta_fields=[])
@dataclass(frozen=True)
class Inputs:
    """Read-only inputs of a run; arguments of the compiled program, not constants in it."""

    optimizer: Any
    data: Batch
    examples: dict[str, Batch]  # what is evaluated, by the name of the split
    order: Any  # arrays of the order of the batches, if it has any


@no_type_check
@partial(
    jax.tree_util.register_dataclass,
    data_fields=["optimizer", "order", "step_key"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Constants:
    """Values computed once in a run: the optimizer with its own random keys, the state of the order, the step's key."""

    optimizer: Any
    order: Any  # what its `init` returned
    step_key: Key


@no_type_check
@partial(
    jax.tree_util.register_dataclass,
    data_fields=["glimpse", "pushed", "last_moved", "longest_rest"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Motion:
    """Record of whether the parameters move: a few coordinates of each leaf, compared from step to step."""

    glimpse: list[Shaped[Array, " few"]]
    pushed: Bool[Array, ""]  # whether the last step's gradient at them was not 0
    last_moved: Integer[Array, ""]  # number of steps after which they last changed
    longest_rest: Integer[Array, ""]  # the longest rest before they moved again, as between two updates of `MultiSteps`


@no_type_check
@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "model_state", "found", "value", "step", "failures"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Best:
    """The best parameters under early stopping, and the number of evaluations without improvement since."""

    params: Params
    model_state: ModelState
    found: Bool[Array, ""]  # whether any value has been found
    value: Shaped[Array, ""]
    step: Integer[Array, ""]
    failures: Integer[Array, ""]


@no_type_check
@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "params", "opt_state", "model_state", "num_steps", "diverged_at", "stopped", "best", "motion", "probe_memory",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclass(frozen=True)
class Carry:
    """The carry of the loop; parameters and optimizer state in the plan's layout."""

    params: Params
    opt_state: PyTree
    model_state: ModelState
    num_steps: Integer[Array, ""]
    diverged_at: Integer[Array, ""]
    stopped: Bool[Array, ""]
    best: Best | None
    motion: Motion
    probe_memory: PyTree = None

    @property
    def active(self) -> Bool[Array, ""]:
        """Whether the run continues."""
        return (self.diverged_at < 0) & ~self.stopped
