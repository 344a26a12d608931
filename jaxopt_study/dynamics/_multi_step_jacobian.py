"""The derivative of a whole period of steps, for optimizers that do not do the same in every step."""

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
    """The derivative of several steps in a row: the product of theirs, each where the one before has led."""

    steps: tuple[LinearStep, ...]

    @property
    def like(self) -> Any:
        """As of each step."""
        return self.steps[0].like

    @property
    def loop(self) -> Loop:
        """On the host, so that one step is compiled and not the whole row."""
        return "host"

    def product(self) -> Matvec:
        """Return v ↦ A v, to be called from Python; every step is linearised once, and kept."""
        return _in_a_row([step.product() for step in self.steps])

    def linearize(self) -> Matvec:
        """Return v ↦ A v, to be used in the same trace."""
        return _in_a_row([step.linearize() for step in self.steps])

    def changes_sign(self, leading: Any) -> bool:
        """Return whether a growing deviation changes its sign in one of the steps: whether the steps overshoot.

        Args:
            leading: Deviation of parameters and memory, in the units of the map.

        Returns:
            Whether the parameters' part has a negative inner product with itself one step before.
        """
        for step in self.steps:
            before, leading = leading, step.product()(leading)
            if vectors.inner(before[0], leading[0]) < 0:
                return True
        return False


def _in_a_row(products: list[Matvec]) -> Matvec:
    def product(v: Any) -> Any:
        for one in products:
            v = one(v)
        return v

    return product


def compose(step: LinearStep, num_steps: int) -> LinearStep | Composition:
    """Return the derivative of as many steps, in the balanced units of the one that answers most to the gradient.

    Args:
        step: The first step.
        num_steps: How many, ≥ 1.

    Returns:
        The map. Cost: a gradient for every step; its parameters and state are held.
    """
    if num_steps == 1:
        return step.balanced()
    steps = [step]
    for _ in range(num_steps - 1):
        steps.append(steps[-1].following())
    scales = max(steps, key=LinearStep.response).balanced().scales
    return Composition(tuple(replace(one, scales=scales) for one in steps))
