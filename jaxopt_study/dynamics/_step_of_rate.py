"""Linearised training step as a function of the learning rate, compiled once for all rates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._programs import strongly_typed
from jaxopt_study.dynamics._linearised_step import LinearStep
from jaxopt_study.dynamics._step_derivatives import Point, product_at
from jaxopt_study.dynamics._updates import as_transformation
from jaxopt_study.linalg.operator import Loop
from jaxopt_study.types import Matvec


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("rate", "params", "opt_state", "curvature", "scales", "average"),
    meta_fields=("make_optimizer", "loss", "moving", "held", "structure"),
)
@dataclass(frozen=True, eq=False)
class StepOfRate:
    """The derivative of (θ, m) ↦ (θ′, m′) for the optimizer of a learning rate that may be traced."""

    rate: Float[Array, ""]
    params: Any
    opt_state: Any  # None for that of `init`
    curvature: Any  # Hessian at the gradient point, with the data
    make_optimizer: Callable[..., Any]
    loss: Callable[..., Any]
    moving: tuple[bool, ...]
    held: tuple[bool, ...]
    structure: Any  # of a pair of parameters and momentum buffers, with shapes, dtypes and shardings; hashable
    scales: Any = None  # units of parameters and momentum buffers, as in `LinearStep`
    average: Any = None  # loss and gradient, as in `LinearStep`

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a pair of parameters and list of momentum buffers."""
        leaves, treedef = self.structure
        return treedef.unflatten(leaves)

    @property
    def loop(self) -> Loop:
        """Kind of loop for many products, that of the Hessian."""
        return self.curvature.loop

    def linearize(self) -> Matvec:
        """Return v ↦ A v, for use in the same trace."""
        return self.at_rate().linearize()

    def product(self) -> Matvec:
        """Return a compiled v ↦ A v for use from Python."""
        return product_at(_at_point(self), self.curvature.product(), self.scales)

    def at_rate(self) -> LinearStep:
        """Return the linearised step of this rate; for use inside a trace."""
        optimizer = as_transformation(self.make_optimizer(self.rate))
        state = self.opt_state
        if state is None:
            state = lax.stop_gradient(strongly_typed(optimizer.init(self.params)))
        return LinearStep(
            self.params, state, self.curvature, optimizer, self.loss, self.moving, self.held, self.scales,
            average=self.average,
        )  # fmt: skip


@jax.jit
def _at_point(step: StepOfRate) -> Point:
    return step.at_rate().at_point()
