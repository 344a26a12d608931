"""Training step at zero gradient, parameters and momentum buffers, with second-moment buffers at 1."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Shaped

from jaxopt_study.dynamics._state_roles import Role
from jaxopt_study.dynamics._stop_gradient_at import hold_results
from jaxopt_study.dynamics._updates import call_update, differentiated, keep_dtypes
from jaxopt_study.transforms import gradient_point

Matrix = Array | np.ndarray


class StepSensitivity(NamedTuple):
    """Jacobians of a step over all coordinates, with momentum buffers m."""

    constant: Float[Matrix, "d d"]  # ∂(θ′, m′)/∂(θ, m) at a fixed gradient
    to_gradient: Float[Matrix, "d n"]  # ∂(θ′, m′)/∂g
    to_point: Float[Matrix, "n d"]  # ∂(gradient point)/∂(θ, m)
    moves: Bool[Matrix, " n"]  # whether gradient and momentum buffers move a coordinate


class NeutralStep(NamedTuple):
    """The step with statistics held at 1, as a function of gradient, parameters and momentum buffers m."""

    step: Callable[..., tuple[Any, list[Any]]]  # (g, θ, m, value=0, value_fn=0) ↦ (θ′, m′)
    point: Callable[[Any, list[Any]], Any]  # (θ, m) ↦ the gradient point
    params: Any  # zeros
    memory: list[Any]  # zeros
    following: Callable[[], Any]  # the state after a step at zero gradient

    def sensitivity(self) -> tuple[StepSensitivity, Any]:
        """Return the Jacobians at zero, and the state after the step; for use inside a trace."""
        start, restore = ravel_pytree((self.params, self.memory))
        zero, restore_grads = ravel_pytree(differentiated(self.params))
        flat = lambda pair: ravel_pytree(pair)[0]
        stepped = lambda g, z: flat(self.step(restore_grads(g), *restore(z)))
        to_gradient, constant = jax.jacfwd(stepped, argnums=(0, 1))(zero, start)
        to_point = jax.jacfwd(lambda z: flat(self.point(*restore(z))))(start)
        grads, memory = (
            jax.tree.map(partial(jnp.full_like, fill_value=value), tree)
            for tree, value in ((differentiated(self.params), 1.0), (self.memory, 0.7))
        )
        moves = flat(differentiated(self.step(grads, self.params, memory)[0])) != 0
        return StepSensitivity(constant, to_gradient, to_point, moves), self.following()


def neutral_step(optimizer: Any, params: Any, state: Any, roles: tuple[Role, ...]) -> NeutralStep:
    """Return an optimizer's step with statistics at their neutral value before, during and after the step.

    Args:
        optimizer: An Optax transformation.
        params: The parameters; only structure, shapes and dtypes are used.
        state: A state; only its step counters are used.
        roles: Roles of its leaves.

    Returns:
        The step.
    """
    leaves, structure = jax.tree.flatten(state)
    params = jax.tree.map(jnp.zeros_like, params)
    memory = [jnp.zeros_like(leaf) for leaf, role in zip(leaves, roles, strict=True) if role == "memory"]
    fixed = [neutral(leaf, role) for leaf, role in zip(leaves, roles, strict=True)]
    holds = [None] * len(jax.tree.leaves(params)) + [
        partial(neutral, role=role) if role in {"statistic", "centre"} else None for role in roles
    ]

    def state_with(memory: list[Any]) -> Any:
        given = iter(memory)
        return structure.unflatten(
            [next(given) if role == "memory" else leaf for leaf, role in zip(fixed, roles, strict=True)]
        )

    def update(grads: Any, params: Any, memory: list[Any], value: Float[Array, ""], value_fn: Any) -> tuple[Any, Any]:
        updates, new = call_update(optimizer, grads, state_with(memory), params, value, value_fn)
        return optax.apply_updates(params, updates), new

    def step(
        grads: Any, params: Any, memory: list[Any], value: float = 0.0, curvature: float = 0.0
    ) -> tuple[Any, list[Any]]:
        def value_fn(p: Any) -> Float[Array, ""]:
            return jnp.float64(value) + 0.5 * curvature * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))

        one = partial(update, value=jnp.float64(value), value_fn=value_fn)
        params, new = hold_results(one, holds)(grads, params, memory)
        return params, [leaf for leaf, role in zip(jax.tree.leaves(new), roles, strict=True) if role == "memory"]

    def following() -> Any:
        zeros, nothing = jax.tree.map(jnp.zeros_like, differentiated(params)), jnp.float64(0.0)
        return keep_dtypes(update(zeros, params, memory, nothing, lambda p: nothing)[1], state)

    def point(params: Any, memory: list[Any]) -> Any:
        return gradient_point(differentiated(params), state_with(memory))

    return NeutralStep(step, point, params, memory, following)


def neutral(leaf: Shaped[Array, "*shape"], role: Role) -> Shaped[Array, "*shape"]:
    """Return a leaf of a state at its neutral value: 1 for second-moment buffers, 0 for mean buffers, else as it is."""
    if role == "statistic":
        return jnp.ones_like(leaf)
    return jnp.zeros_like(leaf) if role == "centre" else leaf
