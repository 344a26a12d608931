"""Jacobian of a whole period of steps, for optimizers whose steps differ."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from jaxopt_study.dynamics._linearised_step import LinearStep
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.operator import Loop
from jaxopt_study.types import Matvec


@partial(jax.tree_util.register_dataclass, data_fields=("steps",), meta_fields=())
@dataclass(frozen=True, eq=False)
class Composition:
    """The Jacobian of successive steps: the product of their Jacobians along the trajectory."""

    steps: tuple[LinearStep, ...]

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a pair, as for each step."""
        return self.steps[0].like

    @property
    def loop(self) -> Loop:
        """Kind of loop: "host", so that single steps are compiled instead of the whole product."""
        return "host"

    def product(self) -> Matvec:
        """Return v ↦ A v for use from Python; every step is linearised once."""
        return _composed([step.product() for step in self.steps])

    def linearize(self) -> Matvec:
        """Return v ↦ A v, for use in the same trace."""
        return _composed([step.linearize() for step in self.steps])

    def changes_sign(self, leading: Any) -> bool:
        """Return whether a growing deviation changes its sign in one of the steps, which overshoot.

        Args:
            leading: Deviation of parameters and momentum buffers, in the units of the map.

        Returns:
            Whether the deviation of the parameters has a negative inner product with itself one step before.
        """
        for step in self.steps:
            before, leading = leading, step.product()(leading)
            if vectors.inner(before[0], leading[0]) < 0:
                return True
        return False


def _composed(products: list[Matvec]) -> Matvec:
    def product(v: Any) -> Any:
        for one in products:
            v = one(v)
        return v

    return product


def compose(step: LinearStep, num_steps: int) -> LinearStep | Composition:
    """Return the Jacobian of several steps, in the balanced units of the one with the largest step sensitivity.

    Args:
        step: The first step.
        num_steps: Number of steps, ≥ 1.

    Returns:
        The map. Cost: a gradient for every step, and memory for its parameters and state.
    """
    if num_steps == 1:
        return step.balanced()
    steps = [step]
    for _ in range(num_steps - 1):
        steps.append(steps[-1].following())
    scales = max(steps, key=LinearStep.step_sensitivity).balanced().scales
    return Composition(tuple(replace(one, scales=scales) for one in steps))
