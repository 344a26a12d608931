"""What each number in an optimizer's state is: memory, statistic or clock, found by running the optimizer.

Reverse every gradient and every parameter, and a memory of gradients is reversed, while a statistic of their size is
the same. So two runs on opposite gradients tell them apart in any transformation, without a list of names.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_study.curvature import vectors
from jaxopt_study.dynamics.draws import draw_like
from jaxopt_study.dynamics.updates import call_update

Role = Literal["memory", "statistic", "centre", "clock"]
Freeze = Literal["statistics", "nothing"] | Callable[[str], bool]

_NUM_STEPS = 4


def state_roles(optimizer: Any, params: Any) -> dict[str, Role]:
    """Return what every leaf of an optimizer's state is, by path.

    With gradients g₁ … g₄ drawn at random, the state after them, S(g, θ), is compared with S(−g, −θ) and with the state
    after other gradients. A leaf is

        a clock      if other gradients leave the same value: counters, keys, injected hyperparameters;
        a statistic  if it is more even than odd, ‖S(g, θ) + S(−g, −θ)‖ > ‖S(g, θ) − S(−g, −θ)‖: second moments, sums of
                     squares, largest magnitudes, norms;
        a memory     if it is more odd than even: momentum, velocities, the last gradient.

    A memory that by itself moves nothing is called a centre: at zero gradient, with the other memories at zero, neither
    the updates nor the other memories notice it. It acts only through what divides, as the mean inside centred
    RMSprop's deviation, and is frozen with the statistics.

    It does not look at the state of a run, and does not see what four steps do not use: inside `optax.MultiSteps` of
    more than four, the inner state looks like a clock.

    Args:
        optimizer: Any Optax transformation.
        params: The parameters, of which structure, shapes and dtypes are used.

    Returns:
        The role of every leaf, by its path in the state. Cost: 12 updates, and 4 more for every kind of memory;
        three states are held.

    Example:
        >>> roles = state_roles(optax.adam(0.1), jnp.zeros(2))
        >>> for path, role in roles.items():
        ...     print(path, role)
        [0].count clock
        [0].mu memory
        [0].nu statistic
    """
    like = jax.eval_shape(optimizer.init, params)
    return dict(zip(leaf_paths(like), leaf_roles(optimizer, params), strict=True))


def leaf_roles(optimizer: Any, params: Any) -> tuple[Role, ...]:
    """Return the role of every leaf of the state, in order."""
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=vectors.spread(leaf)), params
    )
    with vectors.entering_mesh(shapes):
        return _roles(optimizer, shapes)


def _roles(optimizer: Any, shapes: Any) -> tuple[Role, ...]:
    parity, state = _compare(optimizer, Shapes(shapes))
    leaves, structure = jax.tree.flatten(state)
    roles: list[Role] = [
        "clock" if not _is_float(leaf) or bool(fixed) else "memory" if odd > even else "statistic"
        for leaf, (fixed, even, odd) in zip(leaves, parity, strict=True)
    ]
    kinds = [kind for kind, _ in leaf_owners(state, shapes)]
    memories = {kind for kind, role in zip(kinds, roles, strict=True) if role == "memory"}
    if not memories:
        return tuple(roles)
    quiet = _without(structure, leaves, roles, keep=lambda _: False, kinds=kinds)
    baseline = _push(optimizer, quiet, Shapes(shapes))
    for kind in memories:
        alone = _without(structure, leaves, roles, lambda k, kind=kind: k == kind, kinds)
        pushed = _push(optimizer, alone, Shapes(shapes))
        others = [role == "memory" and k != kind for role, k in zip(roles, kinds, strict=True)]
        if not _differs(baseline, pushed, others):
            roles = ["centre" if k == kind and r == "memory" else r for k, r in zip(kinds, roles, strict=True)]
    return tuple(roles)


def frozen_leaves(optimizer: Any, params: Any, freeze: Freeze) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return which leaves of the state are variables of the linearised step, and which results are held constant.

    Args:
        optimizer: Any Optax transformation.
        params: The parameters.
        freeze: "statistics", "nothing", or a function of a path that says what to freeze.

    Returns:
        For every leaf, whether it varies, and whether its new value is held constant inside the update.

    Raises:
        ValueError: If `freeze` is none of these.
    """
    roles = leaf_roles(optimizer, params)
    if callable(freeze):
        like = jax.eval_shape(optimizer.init, params)
        chosen = [bool(freeze(path)) for path in leaf_paths(like)]
        moving = [role != "clock" and not frozen for role, frozen in zip(roles, chosen, strict=True)]
        return tuple(moving), tuple(chosen)
    if freeze == "statistics":
        return tuple(role == "memory" for role in roles), tuple(role in {"statistic", "centre"} for role in roles)
    if freeze == "nothing":
        return tuple(role != "clock" for role in roles), (False,) * len(roles)
    raise ValueError(
        "freeze must be 'statistics', 'nothing', or a function of the path of a leaf of the state; received "
        f"{freeze!r}."
    )


def leaf_paths(state: Any) -> list[str]:
    """Return the path of every leaf of a state, as `state_roles` names them."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]


@partial(jax.jit, static_argnums=(0, 1))
def _compare(optimizer: Any, shapes: "Shapes") -> tuple[Any, Any]:
    """Return for every leaf whether it ignores the gradient, and its even and odd part; and the state itself."""
    params = draw_like(shapes.tree, 0)

    def run(signs: Any, seed: Any) -> Any:
        theta = jax.tree.map(lambda p: signs.astype(p.dtype) * p, params)

        def step(state: Any, t: Any) -> tuple[Any, None]:
            grads = jax.tree.map(lambda g: signs.astype(g.dtype) * g, draw_like(shapes.tree, _NUM_STEPS * seed + t + 1))
            _, new = call_update(optimizer, grads, state, theta, jnp.float32(1.0), lambda p: jnp.float32(1.0))
            return _as(new, state), None

        start = jax.tree.map(_strong, optimizer.init(theta))
        return lax.scan(step, start, jnp.arange(_NUM_STEPS))[0]

    # One after the other: not every transformation can be batched.
    runs = lax.map(lambda lane: run(*lane), (jnp.array([1.0, -1.0, 1.0]), jnp.array([0, 0, 1])))
    parity = [
        (jnp.all(a == c), _size(a + b), _size(a - b)) if _is_float(a) else (jnp.bool_(True), 0.0, 0.0)
        for a, b, c in jax.tree.leaves(runs)
    ]
    return parity, jax.tree.map(lambda leaf: leaf[0], runs)


@partial(jax.jit, static_argnums=(0, 2))
def _push(optimizer: Any, state: Any, shapes: "Shapes") -> tuple[Any, Any]:
    """Return the updates and the last state of steps at zero gradient and zero parameters."""
    zeros = vectors.zeros_like(shapes.tree)

    def step(old: Any, _: None) -> tuple[Any, Any]:
        updates, new = call_update(optimizer, zeros, old, zeros, jnp.float32(0.0), lambda p: jnp.float32(0.0))
        return _as(new, old), updates

    state, updates = lax.scan(step, state, None, length=_NUM_STEPS)
    return updates, state


def _without(
    structure: Any, leaves: list[Any], roles: list[Role], keep: Callable[[str], bool], kinds: list[str]
) -> Any:
    """Return the state with every memory at zero, but those kept."""
    return structure.unflatten(
        [
            jnp.zeros_like(leaf) if role == "memory" and not keep(kind) else leaf
            for leaf, role, kind in zip(leaves, roles, kinds, strict=True)
        ]
    )


def _differs(a: tuple[Any, Any], b: tuple[Any, Any], watched: list[bool]) -> bool:
    """Return whether two updates differ, or the watched leaves of two states."""
    pairs = list(zip(*map(jax.tree.leaves, (a[0], b[0])), strict=True))
    states = zip(*map(jax.tree.leaves, (a[1], b[1])), watched, strict=True)
    pairs += [(x, y) for x, y, watch in states if watch]
    return any(bool(jnp.any(x != y)) for x, y in pairs)  # NaN ≠ NaN: what cannot be told counts as a memory


def leaf_owners(state: Any, params: Any) -> tuple[tuple[str, int], ...]:
    """Return for every leaf of a state the tree it is in, and which parameter it belongs to.

    Args:
        state: An optimizer's state.
        params: The parameters.

    Returns:
        For every leaf, a name that all leaves of one momentum share, and the index of the parameter of the same path
        and shape, or -1.
    """
    endings = [
        (jax.tree_util.keystr(path), index, jnp.shape(leaf))
        for index, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params))
    ]

    def owner(path: str, shape: Any) -> tuple[str, int]:
        matching = [(len(ending), index) for ending, index, like in endings if path.endswith(ending) and shape == like]
        if not matching:
            return path, -1
        length, index = max(matching)
        return path[: len(path) - length], index

    paths = jax.tree_util.tree_leaves_with_path(state)
    return tuple(owner(jax.tree_util.keystr(path), jnp.shape(leaf)) for path, leaf in paths)


class Shapes:
    """A pytree of shapes, dtypes and shardings as a static argument."""

    def __init__(self, tree: Any):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self._key = (tuple((leaf.shape, jnp.dtype(leaf.dtype), leaf.sharding) for leaf in leaves), structure)

    def __hash__(self):
        return hash(self._key)

    def __eq__(self, other):
        return isinstance(other, Shapes) and self._key == other._key


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _size(x: Any) -> Any:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))))


def _strong(leaf: Any) -> Any:
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else lax.convert_element_type(leaf, leaf.dtype)


def _as(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), new, old)
