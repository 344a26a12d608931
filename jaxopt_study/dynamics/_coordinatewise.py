"""Check that an optimizer acts elementwise: on every coordinate of a leaf as on a single number.

Adam does. A layer's trust ratio, orthogonalised momentum or a factored second moment does not: on a single number such
rules differ, and results for a single number do not apply to a matrix.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxopt_study._programs import jit_for_few_calls, strongly_typed
from jaxopt_study.dynamics._neutral_step import StepSensitivity, neutral_step
from jaxopt_study.dynamics._state_roles import Role
from jaxopt_study.dynamics._static_shapes import Shapes, shapes_of
from jaxopt_study.dynamics._updates import call_update, differentiated

# Longer than the axes from which rules treat a matrix as such: 128 for the factored and low-rank ones of Optax.
_MAX_AXIS = 256
_UNKNOWN = ((3,), (130, 129))  # shapes of leaves for parameters that are not given
_PARAMETER, _GRADIENT = 1e-2, 3e-8  # below clips by a norm, with a large ratio, whose square does not underflow
_VALUE = 1.0  # a loss, on which an elementwise rule does not depend
_CLOSE = 1e-5  # momentum buffers may be in single precision


def check_coordinatewise(
    name: str,
    optimizer: Any,
    one: Any,
    params: Any,
    states: list[Any],
    roles: tuple[Role, ...],
    steps: list[StepSensitivity],
) -> None:
    """Raise ValueError unless the step on whole leaves acts elementwise, as on single numbers.

    The derivative of the step on whole leaves, in a random direction at a small random gradient, is compared with the
    sensitivity of the single coordinates. A clip by a norm is not active there, and passes.

    Args:
        name: The function that was called, for the message.
        optimizer: An Optax transformation.
        one: Parameters with a single coordinate for every leaf.
        params: The parameters, for their shapes; None if they are not given.
        states: The state of the single coordinates before each step of a period.
        roles: Roles of the leaves of the state.
        steps: The sensitivity of the single coordinates in each step.

    Raises:
        ValueError: If they differ.
    """
    if not any(step.moves.any() for step in steps) and _depends_on_loss(optimizer, one, states[0]):
        raise _refusal(name, params)
    counts = _counts(one, states[0], roles)
    for wide in _wide(one, params):
        try:
            start = strongly_typed(optimizer.init(wide))
            same_structure = jax.tree.structure(start) == jax.tree.structure(states[0])
            at, along = _drawn(wide, start, roles)
            pushed = partial(_pushed, optimizer, Shapes(shapes_of(wide)), roles)
            moved = (
                [pushed(_with_counters(start, state, roles), at, along) for state in states] if same_structure else []
            )
        except Exception as error:  # any error of a transformation for other shapes
            raise _refusal(name, params, f" (for another shape it raises {type(error).__name__}: {error})") from error
        if not moved or not all(map(partial(_agrees, counts, along), moved, steps)):
            raise _refusal(name, params)


def _refusal(name: str, params: Any, because: str = "") -> ValueError:
    leaf = "a leaf" if params is not None else "an array"
    return ValueError(
        f"{name}: the optimizer is not elementwise{because}: its update depends on the shape or norm of {leaf}, on the "
        "loss, or on the direction of gradient and parameters, as with trust ratios, orthogonalised or factored "
        "gradients, line searches and Rprop. Use `stability`, which linearises at the actual parameters."
    )


def _depends_on_loss(optimizer: Any, one: Any, state: Any) -> bool:
    """Return whether a rule that does not move in its neutral state stores anything that depends on the loss."""

    def after(value: float) -> Any:
        value = jnp.float64(value)
        return call_update(optimizer, differentiated(one), state, one, value, lambda p: value)

    pairs = zip(*(jax.tree.leaves(after(value)) for value in (0.0, 1.0)), strict=True)
    return any(jnp.issubdtype(a.dtype, jnp.floating) and bool(jnp.any(a != b)) for a, b in pairs)


def _wide(one: Any, params: Any) -> list[Any]:
    """Return parameters of the same structure, all zeros, with more than one coordinate in their leaves."""
    if params is None:
        return [jax.tree.map(lambda _, shape=shape: jnp.zeros(shape, jnp.float64), one) for shape in _UNKNOWN]
    return [jax.tree.map(lambda x: jnp.zeros([min(n, _MAX_AXIS) for n in jnp.shape(x)], jnp.float64), params)]


def _counts(one: Any, state: Any, roles: tuple[Role, ...]) -> tuple[list[int], list[int]]:
    """Return the number of coordinates of the single problem in each leaf of (θ, m) and of the gradient."""
    memory = [leaf for leaf, role in zip(jax.tree.leaves(state), roles, strict=True) if role == "memory"]
    variables, grads = jax.tree.leaves((one, memory)), jax.tree.leaves(differentiated(one))
    return [leaf.size for leaf in variables], [leaf.size for leaf in grads]


def _with_counters(state: Any, clocks: Any, roles: tuple[Role, ...]) -> Any:
    """Return a state with the step counters of another one."""
    leaves, structure = jax.tree.flatten(state)
    others = jax.tree.leaves(clocks)
    return structure.unflatten(
        [
            other if role == "clock" and leaf.shape == other.shape else leaf
            for leaf, other, role in zip(leaves, others, roles, strict=True)
        ]
    )


def _drawn(wide: Any, state: Any, roles: tuple[Role, ...]) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Return a random point and a random direction of gradient, parameters and momentum buffers."""
    random = np.random.default_rng(0)  # NumPy: compiling the draws would take as long as the step
    memory = [leaf for leaf, role in zip(jax.tree.leaves(state), roles, strict=True) if role == "memory"]

    def drawn(like: Any, size: float) -> Any:
        return jax.tree.map(lambda x: np.asarray(size * random.normal(size=x.shape), x.dtype), like)

    grads = differentiated(wide)
    at = drawn(grads, _GRADIENT), drawn(wide, _PARAMETER), drawn(memory, _GRADIENT)
    return at, (drawn(grads, 1.0), drawn(wide, 1.0), drawn(memory, 1.0))


@partial(jit_for_few_calls, static_argnums=(0, 1, 2))
def _pushed(optimizer: Any, wide: Shapes, roles: tuple[Role, ...], state: Any, at: Any, along: Any) -> list[Any]:
    """Return the derivative of the step at a point in a direction."""
    neutral = neutral_step(optimizer, wide.tree, state, roles)
    step = partial(neutral.step, value=_VALUE, curvature=_VALUE)
    return jax.tree.leaves(jax.jvp(step, at, along)[1])


def _agrees(counts: tuple[list[int], list[int]], along: Any, moved: list[Any], step: StepSensitivity) -> bool:
    """Return whether every coordinate moves according to the sensitivity of a single one."""
    variables, gradients = counts
    inputs = [*_rows(jax.tree.leaves(along[1:]), variables), *_rows(jax.tree.leaves(along[0]), gradients)]
    outputs = _rows(moved, variables)
    for image, constants, slopes in zip(outputs, step.constant, step.to_gradient, strict=True):
        terms = [(c, x) for c, x in zip([*constants, *slopes], inputs, strict=True) if c != 0]
        if any(x.shape != image.shape for _, x in terms):
            return False
        expected = sum((c * x for c, x in terms), np.zeros_like(image))
        size = sum((abs(c * x) for c, x in terms), np.zeros_like(image))
        if not (np.abs(image - expected) <= _CLOSE * size).all():
            return False
    return True


def _rows(leaves: list[Any], counts: list[int]) -> list[Float64[np.ndarray, " size"]]:
    """Return the flat values of a whole leaf for every coordinate of the single problem."""
    rows = []
    for leaf, count in zip(leaves, counts, strict=True):
        # The coordinates of a number are along leading axes.
        rows += list(np.reshape(np.asarray(leaf, np.float64), (count, -1) if leaf.size else (count, 0)))
    return rows
