"""The training step's derivative as a linear map, for any loss and any optimizer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array

from jaxopt_study.curvature import hessian
from jaxopt_study.dynamics.draws import draw_like
from jaxopt_study.dynamics.freezing import holding
from jaxopt_study.dynamics.roles import leaf_owners
from jaxopt_study.dynamics.updates import call_update
from jaxopt_study.transforms import gradient_point
from jaxopt_study.types import Matvec

_DIAGONAL = 1e-5  # a response this close to a diagonal one is: rounding leaves 1e-7, a mixing clip 1/√n


class Point(NamedTuple):
    """Where the step is linearised: the derivative of the update there, and what it was formed from."""

    grads: Any  # at the gradient point
    value: Array  # the loss there
    to_point: Any  # (δθ, δmemory) ↦ δ(gradient point)
    through_update: Any  # (δg, δθ, δmemory, δvalue) ↦ (δθ′, δmemory′)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "opt_state", "data", "scales"),
    meta_fields=("optimizer", "loss", "moving", "held"),
)
@dataclass(frozen=True, eq=False)
class LinearStep:
    """The derivative of (θ, memory) ↦ (θ′, memory′), a linear map of pairs that is not symmetric.

    With `scales` S, a pair like the vectors, it is S⁻¹ A S: the same eigenvalues, seen in other units.
    """

    params: Any
    opt_state: Any
    data: Any
    optimizer: Any
    loss: Callable[..., Any]
    moving: tuple[bool, ...]  # which leaves of the state vary
    held: tuple[bool, ...]  # which leaves' new values are constants
    scales: Any = None

    @property
    def like(self) -> Any:
        """A pair of the parameters and the list of the state's varying leaves."""
        return self.params, self._memory(self.opt_state)

    @property
    def loop(self) -> str:
        """Whether many products belong into one compiled loop, as the Hessian's do."""
        return hessian(self.loss, self.params, self.data).loop

    def linearize(self) -> Matvec:
        """Do the work that many products share, and return v ↦ A v, to be used in the same trace."""
        here = self.at_point()
        point = gradient_point(self.params, self.opt_state)
        return Partial(_product, here, hessian(self.loss, point, self.data).linearize(), self.scales)

    def at_point(self) -> Point:
        """Take the gradient and linearise the update; to be used inside a trace."""
        memory = self._memory(self.opt_state)

        def point_at(params: Any, memory: Any) -> Any:
            return gradient_point(params, self._state(memory))

        with jax.default_matmul_precision("highest"):
            point, to_point = jax.linearize(point_at, self.params, memory)
            value, grads = jax.value_and_grad(lambda p: self.loss(p, self.data))(point)
            through_update = jax.linearize(self.step_with, grads, self.params, memory, value)[1]
        return Point(grads, value, to_point, through_update)

    def step_with(self, grads: Any, params: Any, memory: Any, value: Any) -> tuple[Any, Any]:
        """Return parameters and memory after a step with a given gradient."""

        def update(grads: Any, params: Any, memory: Any, value: Any) -> tuple[Any, Any]:
            state = self._state(memory)
            updates, new = call_update(
                self.optimizer, grads, state, params, value, lambda p: self.loss(p, self.data)
            )
            return optax.apply_updates(params, updates), new

        holds = [None] * len(jax.tree.leaves(params)) + [lax.stop_gradient if held else None for held in self.held]
        params, state = holding(update, holds)(grads, params, memory, value)
        return params, self._memory(state)

    def balanced(self) -> "LinearStep":
        """Return the same map in units in which parameters and memories move each other equally.

        With elementwise gain d of the gradient on the step and s of a memory on the step, a parameter is measured in √d
        and a memory in √d/s. A preconditioned method then looks symmetric, P^-½ H P^-½ in place of P⁻¹ H, and the norm
        in which residuals are measured does not depend on the units of the loss.
        """
        owners = leaf_owners(self.opt_state, self.params)
        owners = tuple(owner for owner, moves in zip(owners, self.moving, strict=True) if moves)
        return replace(self, scales=_scales(self, owners))

    def _memory(self, state: Any) -> list[Any]:
        return [leaf for leaf, moves in zip(jax.tree.leaves(state), self.moving, strict=True) if moves]

    def _state(self, memory: list[Any]) -> Any:
        leaves, structure = jax.tree.flatten(self.opt_state)
        given = iter(memory)
        return structure.unflatten([
            next(given) if moves else leaf for leaf, moves in zip(leaves, self.moving, strict=True)
        ])


def _product(here: Point, hvp: Matvec, scales: Any, v: Any) -> Any:
    if scales is not None:
        v = jax.tree.map(lambda x, s: x * s, v, scales)
    params, memory = v
    moved = here.to_point(params, memory)
    slope = sum(
        jnp.vdot(g, d, precision=lax.Precision.HIGHEST).astype(here.value.dtype)
        for g, d in zip(jax.tree.leaves(here.grads), jax.tree.leaves(moved), strict=True)
    )
    new = here.through_update(hvp(moved), params, memory, jnp.asarray(slope, here.value.dtype))
    return new if scales is None else jax.tree.map(lambda x, s: x / s, new, scales)


def gain(here: Point, like: Any) -> tuple[Any, Array]:
    """Return the elementwise response of the step to the gradient, and whether the response is elementwise.

    Args:
        here: The linearised update.
        like: A pair of parameters and memories.

    Returns:
        ∂θ′ᵢ/∂gᵢ, like the parameters, and a boolean: False if the update mixes coordinates, as a global norm does.
    """
    params, memory = jax.tree.map(jnp.zeros_like, like)
    value = jnp.zeros_like(here.value)
    return _diagonal(lambda g: here.through_update(g, params, memory, value)[0], like[0])


def _diagonal(push: Matvec, like: Any) -> tuple[Any, Array]:
    """Return J·1, and whether J is diagonal: then J r = (J·1) r for a random r of signs."""
    signs = jax.tree.map(jnp.sign, draw_like(like, 0))
    row = push(jax.tree.map(jnp.ones_like, like))
    mixed = jax.tree.map(lambda a, r, b: b - a * r, row, signs, push(signs))
    return row, optax.tree.norm(mixed) <= _DIAGONAL * optax.tree.norm(row)


@partial(jax.jit, static_argnums=1)
def _scales(step: LinearStep, owners: tuple[tuple[str, int], ...]) -> Any:
    params, memory = step.like
    here = step.at_point()
    nothing = jax.tree.map(jnp.zeros_like, params)
    value = jnp.zeros_like(here.value)
    direct, diagonal = gain(here, step.like)
    direct = jax.tree.leaves(_positive(direct, diagonal))
    found: list[Any] = list(map(jnp.ones_like, memory))
    for kind in sorted({kind for kind, owner in owners if owner >= 0}):
        pushed = [jnp.full_like(leaf, k == kind and owner >= 0) for leaf, (k, owner) in zip(memory, owners, strict=True)]
        response = here.through_update(nothing, nothing, pushed, value)[0]
        response = jax.tree.leaves(_sizes(response, diagonal))
        for i, (k, owner) in enumerate(owners):
            if k == kind and owner >= 0:
                # A memory that acts only later is measured as the gradient it will act like.
                own = jnp.where(response[owner] > 0, response[owner], direct[owner])
                found[i] = (jnp.sqrt(direct[owner]) / own).astype(memory[i].dtype)
    roots = [jnp.sqrt(d).astype(p.dtype) for d, p in zip(direct, jax.tree.leaves(params), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), roots), found


def _sizes(response: Any, diagonal: Array) -> Any:
    """Return |response|, or its root mean square everywhere where it is not elementwise."""
    count = sum(leaf.size for leaf in jax.tree.leaves(response))
    level = optax.tree.norm(response) / jnp.sqrt(count)
    return jax.tree.map(lambda leaf: jnp.where(diagonal, jnp.abs(leaf), level.astype(leaf.dtype)), response)


def _positive(response: Any, diagonal: Array) -> Any:
    sizes = _sizes(response, diagonal)
    largest = jnp.max(jnp.stack([jnp.max(leaf, initial=0.0) for leaf in jax.tree.leaves(sizes)]))
    largest = jnp.where(largest > 0, largest, 1.0)
    # Below this a square of it would leave the range of single precision.
    return jax.tree.map(lambda leaf: jnp.where(leaf > 1e-16 * largest, leaf, largest).astype(leaf.dtype), sizes)
