"""Linearised training step: its derivative as a linear map, for any loss and any optimizer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxopt_study.curvature import hessian, value_and_gradient
from jaxopt_study.dynamics._state_roles import Freeze, frozen_leaves, leaf_owners
from jaxopt_study.dynamics._step_derivatives import Point, product_at, product_with, units
from jaxopt_study.dynamics._stop_gradient_at import hold_results
from jaxopt_study.dynamics._updates import call_update, differentiated, keep_dtypes
from jaxopt_study.linalg.checks import describe
from jaxopt_study.linalg.operator import Loop
from jaxopt_study.transforms import gradient_point
from jaxopt_study.types import Matvec, Params, Vector


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "opt_state", "curvature", "scales", "average"),
    meta_fields=("optimizer", "loss", "moving", "held", "shardings"),
)
@dataclass(frozen=True, eq=False)
class LinearStep:
    """The derivative A of (θ, m) ↦ (θ′, m′), a linear map of pairs that is not symmetric, with momentum buffers m.

    With `scales` S, a pair, the map is S⁻¹ A S: the same eigenvalues in other units.
    """

    params: Any
    opt_state: Any
    curvature: Any  # Hessian of the loss at the gradient point, with the data
    optimizer: Any
    loss: Callable[..., Any]
    moving: tuple[bool, ...]  # mask of the state leaves that vary
    held: tuple[bool, ...]  # mask of the state leaves whose new values are constants
    scales: Any = None
    shardings: tuple[Any, ...] | None = None  # shardings of the leaves of a pair; None for those of the arrays
    average: Any = None  # loss and gradient at the gradient point, where the data come from a loader

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a pair of parameters and list of momentum buffers."""
        return describe((self.params, self._memory(self.opt_state)), self.shardings)

    @property
    def loop(self) -> Loop:
        """Kind of loop for many products, that of the Hessian."""
        return self.curvature.loop

    def linearize(self) -> Matvec:
        """Return v ↦ A v, for use in the same trace; the work that products share is done once."""
        return Partial(product_with, self.at_point(), self.curvature.linearize(), self.scales)

    def product(self) -> Matvec:
        """Return a compiled v ↦ A v for use from Python; the step is linearised once."""
        return product_at(at_point(self), self.curvature.product(), self.scales)

    def at_point(self) -> Point:
        """Return gradient and linearised update; for use inside a trace."""
        memory = self._memory(self.opt_state)

        def point_at(params: Any, memory: Any) -> Any:
            return gradient_point(differentiated(params), self._state(memory))

        with jax.default_matmul_precision("highest"):
            point, to_point = jax.linearize(point_at, self.params, memory)
            value, grads = self._average(point)
            through_update = jax.linearize(self.step_with, grads, self.params, memory, value)[1]
        return Point(grads, value, to_point, through_update)

    def step_with(
        self, grads: Vector, params: Params, memory: list[Array], value: Float[Array, ""]
    ) -> tuple[Params, list[Array]]:
        """Return parameters and momentum buffers after a step with a given gradient."""

        def update(grads: Vector, params: Params, memory: list[Array], value: Float[Array, ""]) -> tuple[Params, Any]:
            state = self._state(memory)
            updates, new = call_update(
                self.optimizer, grads, state, params, value, lambda p: self.curvature.mean(partial(self.loss, p))
            )
            return optax.apply_updates(params, updates), new

        holds = [None] * len(jax.tree.leaves(params)) + [lax.stop_gradient if held else None for held in self.held]
        params, state = hold_results(update, holds)(grads, params, memory, value)
        return params, self._memory(state)

    def following(self) -> "LinearStep":
        """Return the next step, linearised at the result of this one."""
        params, opt_state = _advanced(self)
        point = gradient_point(differentiated(params), opt_state)
        step = replace(self, params=params, opt_state=opt_state, curvature=at(self.curvature, point))
        return step.informed()

    def informed(self) -> "LinearStep":
        """Return the step with loss and gradient where the data come from a loader, which its programs cannot read."""
        if not self.curvature.is_streamed:
            return self
        return replace(self, average=value_and_gradient(self.curvature, self.curvature.params))

    def advance(self) -> tuple[Any, Any]:
        """Return parameters and state after the step."""
        with jax.default_matmul_precision("highest"):
            point = gradient_point(differentiated(self.params), self.opt_state)
            value, grads = self._average(point)
            updates, state = call_update(
                self.optimizer,
                grads,
                self.opt_state,
                self.params,
                value,
                lambda p: self.curvature.mean(partial(self.loss, p)),
            )
        return optax.apply_updates(self.params, updates), keep_dtypes(state, self.opt_state)

    def balanced(self) -> "LinearStep":
        """Return the same map in units in which parameters and momentum buffers have equal effects on each other.

        With the sensitivity d of the step to the gradient and s to a momentum buffer, elementwise, the unit of a
        parameter is √d and that of the buffer √d/s. A preconditioned method then appears symmetric, P^-½ H P^-½ instead
        of P⁻¹ H, and the norm of residuals is independent of the units of the loss.
        """
        owners = leaf_owners(self.opt_state, differentiated(self.params))
        owners = tuple(owner for owner, moves in zip(owners, self.moving, strict=True) if moves)
        return replace(self, scales=_units(self, owners)[0])

    def step_sensitivity(self) -> float:
        """Return the sensitivity of the step to the gradient, ‖∂θ′/∂g · 1‖."""
        return float(_units(self, ())[1])

    def _average(self, point: Params) -> tuple[Float[Array, ""], Vector]:
        return value_and_gradient(self.curvature, point) if self.average is None else self.average

    def _memory(self, state: Any) -> list[Any]:
        return [leaf for leaf, moves in zip(jax.tree.leaves(state), self.moving, strict=True) if moves]

    def _state(self, memory: list[Any]) -> Any:
        leaves, structure = jax.tree.flatten(self.opt_state)
        given = iter(memory)
        return structure.unflatten(
            [next(given) if moves else leaf for leaf, moves in zip(leaves, self.moving, strict=True)]
        )


@jax.jit
def _advanced(step: LinearStep) -> tuple[Any, Any]:
    return step.advance()


@jax.jit
def at_point(step: LinearStep) -> Point:
    """Return gradient and linearised update, from a compiled program."""
    return step.at_point()


def linear_step(
    optimizer: Any,
    opt_state: Any,
    loss: Callable[..., Any],
    params: Any,
    data: Any,
    freeze: Freeze,
    batch_size: int | None,
    steps: int = 1,
) -> LinearStep:
    """Check the arguments, detect the frozen leaves, and return the derivative of the step in its original units.

    Args:
        optimizer: Any Optax transformation.
        opt_state: Its state.
        loss: loss(params, batch) → scalar.
        params: θ.
        data: Data of the loss: arrays, or batches.
        freeze: As in `stability`.
        batch_size: Examples per batch, or None.
        steps: The optimizer's period.

    Returns:
        The map. Cost: a dozen updates to detect the frozen leaves.

    Raises:
        TypeError: If parameters or loss do not fit a Hessian.
    """
    curvature = hessian(loss, gradient_point(differentiated(params), opt_state), data, batch_size=batch_size)
    params = jax.tree.map(jnp.asarray, params)
    moving, held = frozen_leaves(optimizer, params, freeze, steps)
    step = LinearStep(params, opt_state, curvature, optimizer, loss, moving, held)
    return replace(step, shardings=tuple(leaf.sharding for leaf in jax.tree.leaves(step.like))).informed()


def at(curvature: Any, params: Params) -> Any:
    """Return the Hessian of the same loss and data at other parameters."""
    if curvature.is_streamed:
        return replace(curvature, template=replace(curvature.template, params=params))
    return replace(curvature, params=params)


@partial(jax.jit, static_argnums=1)
def _units(step: LinearStep, owners: tuple[tuple[str, int], ...]) -> tuple[Vector, Float[Array, ""]]:
    return units(step.at_point(), step.like, owners)
