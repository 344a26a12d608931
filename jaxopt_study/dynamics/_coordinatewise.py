"""Whether an optimizer does to every coordinate of a leaf what it does to a single number.

Adam does. A layer's trust ratio, an orthogonalised momentum or a factored statistic does not: on a single number such a
rule is another one, and what is true of the single number says nothing about a matrix.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study._programs import strongly_typed
from jaxopt_study.dynamics._neutral_step import Response, neutral_step
from jaxopt_study.dynamics._state_roles import Role
from jaxopt_study.dynamics._updates import call_update, differentiated

# No rule asks for longer axes before it treats a matrix as one: Optax's factored and low-rank ones ask for 128.
_LONGEST = 256
_UNKNOWN = ((3,), (130, 129))  # what stands for leaves of which nothing is known
_PARAMETER, _GRADIENT = 1e-2, 3e-8  # no clip by a norm is active; a ratio of the two is large; its square is not lost
_VALUE = 1.0  # a loss, which a rule must not look at
_CLOSE = 1e-5  # memories may be in single precision


def check_coordinatewise(
    name: str,
    optimizer: Any,
    one: Any,
    params: Any,
    states: list[Any],
    roles: tuple[Role, ...],
    found: list[Response],
) -> None:
    """Raise ValueError if on whole leaves the step does not answer coordinate by coordinate as on single numbers.

    The derivative of the step on whole leaves, in a random direction at a small random gradient, is compared with what
    the response of the single coordinates says. A clip by a norm is not active there, and passes.

    Args:
        name: The function that was called, for the message.
        optimizer: An Optax transformation.
        one: Parameters with a single coordinate for every leaf.
        params: The parameters, for the shapes; None where they are not known.
        states: The state of the single coordinates before each step of a period.
        roles: What the leaves of the state are.
        found: The response of the single coordinates in each step.

    Raises:
        ValueError: If they differ.
    """
    if not any(response.moves.any() for response in found) and _depends_on_loss(optimizer, one, states[0]):
        raise _refusal(name, params)
    counts = _counts(one, states[0], roles)
    for wide in _wide(one, params):
        try:
            start = strongly_typed(optimizer.init(wide))
            alike = jax.tree.structure(start) == jax.tree.structure(states[0])
            at, along = _drawn(wide, start, roles)
            pushed = jax.jit(partial(_pushed, optimizer, wide, roles))
            moved = [pushed(_clocked(start, state, roles), at, along) for state in states] if alike else []
        except Exception as error:  # whatever a transformation raises that cannot take these shapes
            raise _refusal(name, params, f" (it raises {type(error).__name__}: {error})") from error
        if not moved or not all(map(partial(_agrees, counts, along), moved, found)):
            raise _refusal(name, params)


def _refusal(name: str, params: Any, because: str = "") -> ValueError:
    leaf = "a leaf" if params is not None else "an array"
    return ValueError(
        f"{name}: the optimizer does not do to each coordinate of {leaf} what it does to a single number{because}. "
        "Its step depends on the leaf's shape or norm, on the loss, or on which way gradient and parameters point, as "
        "with trust ratios, orthogonalised or factored gradients, line searches and Rprop, so no single curvature "
        "decides its stability. Use `stability`, which linearises the step at the parameters themselves."
    )


def _depends_on_loss(optimizer: Any, one: Any, state: Any) -> bool:
    """Return whether a rule that stands still in its neutral state keeps something of the loss."""

    def after(value: float) -> Any:
        value = jnp.float64(value)
        return call_update(optimizer, differentiated(one), state, one, value, lambda p: value)

    pairs = zip(*(jax.tree.leaves(after(value)) for value in (0.0, 1.0)), strict=True)
    return any(jnp.issubdtype(a.dtype, jnp.floating) and bool(jnp.any(a != b)) for a, b in pairs)


def _wide(one: Any, params: Any) -> list[Any]:
    """Return parameters of the same structure, all zeros, with more than one coordinate in their leaves."""
    if params is None:
        return [jax.tree.map(lambda _, shape=shape: jnp.zeros(shape, jnp.float64), one) for shape in _UNKNOWN]
    return [jax.tree.map(lambda x: jnp.zeros([min(n, _LONGEST) for n in jnp.shape(x)], jnp.float64), params)]


def _counts(one: Any, state: Any, roles: tuple[Role, ...]) -> tuple[list[int], list[int]]:
    """Return how many coordinates of the single problem each leaf of (θ, memories), and of the gradient, holds."""
    memory = [leaf for leaf, role in zip(jax.tree.leaves(state), roles, strict=True) if role == "memory"]
    variables, grads = jax.tree.leaves((one, memory)), jax.tree.leaves(differentiated(one))
    return [leaf.size for leaf in variables], [leaf.size for leaf in grads]


def _clocked(state: Any, clocks: Any, roles: tuple[Role, ...]) -> Any:
    """Return a state with the clocks of another one."""
    leaves, structure = jax.tree.flatten(state)
    others = jax.tree.leaves(clocks)
    return structure.unflatten(
        [
            other if role == "clock" and leaf.shape == other.shape else leaf
            for leaf, other, role in zip(leaves, others, roles, strict=True)
        ]
    )


def _drawn(wide: Any, state: Any, roles: tuple[Role, ...]) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Return a random point and a random direction of gradient, parameters and memories."""
    random = np.random.default_rng(0)  # on the host: to compile the draws would take as long as the step
    memory = [leaf for leaf, role in zip(jax.tree.leaves(state), roles, strict=True) if role == "memory"]

    def drawn(like: Any, size: float) -> Any:
        return jax.tree.map(lambda x: np.asarray(size * random.normal(size=x.shape), x.dtype), like)

    grads = differentiated(wide)
    at = drawn(grads, _GRADIENT), drawn(wide, _PARAMETER), drawn(memory, _GRADIENT)
    return at, (drawn(grads, 1.0), drawn(wide, 1.0), drawn(memory, 1.0))


def _pushed(optimizer: Any, wide: Any, roles: tuple[Role, ...], state: Any, at: Any, along: Any) -> list[Any]:
    """Return what the step at a point makes of a direction."""
    neutral = neutral_step(optimizer, wide, state, roles)
    step = partial(neutral.step, value=_VALUE, curvature=_VALUE)
    return jax.tree.leaves(jax.jvp(step, at, along)[1])


def _agrees(counts: tuple[list[int], list[int]], along: Any, moved: list[Any], response: Response) -> bool:
    """Return whether every coordinate has moved as the response of a single one says."""
    variables, gradients = counts
    inputs = [*_rows(jax.tree.leaves(along[1:]), variables), *_rows(jax.tree.leaves(along[0]), gradients)]
    outputs = _rows(moved, variables)
    for image, constants, slopes in zip(outputs, response.constant, response.to_gradient, strict=True):
        terms = [(c, x) for c, x in zip([*constants, *slopes], inputs, strict=True) if c != 0]
        if any(x.shape != image.shape for _, x in terms):
            return False
        expected = sum((c * x for c, x in terms), np.zeros_like(image))
        size = sum((abs(c * x) for c, x in terms), np.zeros_like(image))
        if not (np.abs(image - expected) <= _CLOSE * size).all():
            return False
    return True


def _rows(leaves: list[Any], counts: list[int]) -> list[np.ndarray]:
    """Return for every coordinate of the single problem its values over a whole leaf, flat."""
    rows = []
    for leaf, count in zip(leaves, counts, strict=True):
        # Several numbers for a coordinate are along axes in front.
        rows += list(np.reshape(np.asarray(leaf, np.float64), (count, -1) if leaf.size else (count, 0)))
    return rows
