"""Tell momentum buffers, second-moment buffers and step counters in an optimizer's state apart, by running it.

Negating all gradients and parameters negates a momentum buffer and leaves a second-moment buffer unchanged. So two runs
on opposite gradients tell them apart in any transformation, without a list of names.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study._programs import nan_is_an_answer, strongly_typed
from jaxopt_study.dynamics._static_shapes import Shapes
from jaxopt_study.dynamics._step_period import period
from jaxopt_study.dynamics._updates import (
    as_transformation,
    call_update,
    check_runs,
    check_shapes,
    differentiated,
    keep_dtypes,
)
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.linalg.sharding import mesh_context, sharding_of

Role = Literal["memory", "statistic", "centre", "clock"]
Freeze = Literal["statistics", "nothing"] | Callable[[str], bool]

_NUM_STEPS = 4
_SMALL = 2.0**-33  # of gradients that no clip reachesfrom jaxopt_study.linalg.sharding import mesh_context, sharding_of


@nan_is_an_answer
def state_roles(optimizer: Any, params: Any) -> dict[str, Role]:
    """Return what every leaf of an optimizer's state is, by path.

    With gradients g₁ … g₄ and parameters θ₁ … θ₄ drawn at random, the state after them, S(g, θ), is compared with
    S(−g, −θ) and with the state after others. A leaf is

        "clock"      if others, and much smaller ones, leave the same value: step counters, keys, injected
                     hyperparameters;
        "statistic"  if it is more even than odd, ‖S(g, θ) + S(−g, −θ)‖ > ‖S(g, θ) − S(−g, −θ)‖: second-moment buffers,
                     sums of squares, largest magnitudes, norms;
        "memory"     if it is more odd than even: momentum buffers, velocities, the last gradient.

    A memory that by itself moves nothing is a "centre", a mean buffer: at zero gradient, with the other memories at
    zero, neither the updates nor the other memories depend on it. It acts only through the divisor, as the mean in the
    deviation of centred RMSprop does, and is frozen with the statistics.

    Where counters start anew after p steps, as inside `optax.MultiSteps`, it takes 4p steps, and compares after each of
    the last p. It does not look at the state of a run, and does not see what so few steps do not use.

    Args:
        optimizer: Any Optax transformation.
        params: The parameters, of which structure, shapes and dtypes are used.

    Returns:
        The role of every leaf, by its path in the state. Cost: 12p updates, 8p more for every kind of memory, p times
        as many if it moves nothing, and finding p; three states are held.

    Raises:
        TypeError: If the optimizer is none, or the parameters are not real floating-point arrays.
        ValueError: If p cannot be told, or is more than 1,024, or the optimizer cannot take a step on the parameters.

    Example:
        >>> roles = state_roles(optax.adam(0.1), jnp.zeros(2))
        >>> for path, role in roles.items():
        ...     print(path, role)
        [0].count clock
        [0].mu memory
        [0].nu statistic
    """
    optimizer = as_transformation(optimizer, "state_roles")
    like = check_runs("state_roles", optimizer, check_shapes("state_roles", params))
    steps = period("state_roles", optimizer, params, composes=False)
    return dict(zip(leaf_paths(like), leaf_roles(optimizer, params, steps), strict=True))


def leaf_roles(optimizer: Any, params: Any, steps: int) -> tuple[Role, ...]:
    """Return the role of every leaf of the state of an optimizer with a period of some steps, in order."""

    def shape(leaf: Any) -> Any:
        if 0 in jnp.shape(leaf):  # nothing is seen without numbers: what the leaf's state is with some
            return jax.ShapeDtypeStruct([max(n, 1) for n in jnp.shape(leaf)], jnp.result_type(leaf))
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=sharding_of(leaf))

    shapes = jax.tree.map(shape, params)
    with mesh_context(shapes), jax.disable_jit(False):  # hundreds of steps on invented gradients
        return _roles(optimizer, shapes, steps)


def _roles(optimizer: Any, shapes: Any, steps: int) -> tuple[Role, ...]:
    parity, state = _compare(optimizer, Shapes(shapes), steps)
    leaves, structure = jax.tree.flatten(state)
    roles: list[Role] = [
        "clock" if not _is_float(leaf) or bool(fixed) else "memory" if odd > even else "statistic"
        for leaf, (fixed, even, odd) in zip(leaves, parity, strict=True)
    ]
    kinds = [kind for kind, _ in leaf_owners(state, differentiated(shapes))]
    memories = {kind for kind, role in zip(kinds, roles, strict=True) if role == "memory"}
    if not memories:
        return tuple(roles)
    idle, remembering = set(memories), set()
    for t in range(steps):  # what moves nothing in one phase of a period may do so in another
        quiet = _without(structure, leaves, roles, keep=lambda _: False, kinds=kinds)
        for kind in sorted(idle):
            alone = _without(structure, leaves, roles, lambda k, kind=kind: k == kind, kinds)
            others = [role == "memory" and k != kind for role, k in zip(roles, kinds, strict=True)]
            updates, differing = _push(optimizer, (quiet, alone), Shapes(shapes), steps)
            remembering |= {k for k, differs in zip(kinds, differing, strict=True) if k == kind and differs}
            if updates or any(differs and watch for differs, watch in zip(differing, others, strict=True)):
                idle.remove(kind)
        if not idle or t == steps - 1:
            break
        leaves = jax.tree.leaves(_next(optimizer, structure.unflatten(leaves), Shapes(shapes), t))
    # A momentum of decay 0 moves nothing either, but the gradient passes through it: it must not be held.
    centres = idle & remembering
    return tuple("centre" if k in centres and r == "memory" else r for k, r in zip(kinds, roles, strict=True))


def frozen_leaves(optimizer: Any, params: Any, freeze: Freeze, steps: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return which leaves of the state are variables of the linearised step, and which results are held constant.

    Args:
        optimizer: Any Optax transformation.
        params: The parameters.
        freeze: "statistics", "nothing", or a function of a path that says what to freeze.
        steps: The optimizer's period.

    Returns:
        For every leaf, whether it varies, and whether its new value is held constant inside the update.

    Raises:
        TypeError: If the function does not return True or False.
        ValueError: If `freeze` is none of these.
    """
    roles = leaf_roles(optimizer, params, steps)
    if callable(freeze):
        like = jax.eval_shape(optimizer.init, params)
        chosen = [check_bool("stability", f"freeze({path!r})", freeze(path)) for path in leaf_paths(like)]
        moving = [role != "clock" and not frozen for role, frozen in zip(roles, chosen, strict=True)]
        return tuple(moving), tuple(chosen)
    if not isinstance(freeze, str) or freeze not in ("statistics", "nothing"):
        raise ValueError(
            "freeze must be 'statistics', 'nothing', or a function of the path of a leaf of the state; received "
            f"{describe_argument(freeze)}."
        )
    if freeze == "statistics":
        return tuple(role == "memory" for role in roles), tuple(role in {"statistic", "centre"} for role in roles)
    return tuple(role != "clock" for role in roles), (False,) * len(roles)


def leaf_paths(state: Any) -> list[str]:
    """Return the path of every leaf of a state, as `state_roles` names them."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compare(optimizer: Any, shapes: Shapes, steps: int) -> tuple[Any, Any]:
    """Return for every leaf whether it ignores the gradient, and its even and odd part; and the state itself."""
    draw = partial(draw_like, shapes.tree)
    total = _NUM_STEPS * steps

    def signed(sign: Any, tree: Any) -> Any:
        return jax.tree.map(lambda x: sign.astype(x.dtype) * x, tree)

    def advance(lane: Any, t: Any) -> Any:
        state, sign, seed = lane
        # The start is the same for all: what only remembers it is a constant.
        theta = draw(jnp.where(t == 0, 0, total * (seed + 2) + t))
        grads = draw_like(differentiated(shapes.tree), total * seed + t + 1)
        # Clipped to the same size everywhere, all of them would leave the same second moments.
        grads = signed(jnp.where(seed == 0, 1.0, _SMALL), grads)
        value = jnp.float32(1.0)
        _, new = call_update(optimizer, signed(sign, grads), state, signed(sign, theta), value, lambda p: value)
        return keep_dtypes(new, state)

    def step(carry: Any, t: Any) -> tuple[Any, None]:
        states, parity = carry
        # One lane after the other: not every transformation can be batched.
        states = lax.map(lambda lane: advance(lane, t), (states, signs, seeds))
        return (states, jax.tree.map(lambda *x: _joined(t >= total - steps, *x), parity, _parity(states))), None

    signs, seeds = jnp.array([1.0, -1.0, 1.0]), jnp.array([0, 0, 1])
    start = lax.map(lambda sign: strongly_typed(optimizer.init(signed(sign, draw(0)))), signs)
    nothing = [(jnp.bool_(True), jnp.float32(0.0), jnp.float32(0.0)) for _ in jax.tree.leaves(start)]
    nothing = jax.tree.map(lambda x, y: x.astype(y.dtype), nothing, _parity(start))
    (states, parity), _ = lax.scan(step, (start, nothing), jnp.arange(total))
    return parity, jax.tree.map(lambda leaf: leaf[0], states)


@partial(jax.jit, static_argnums=(0, 2))
def _next(optimizer: Any, state: Any, shapes: Shapes, seed: Any) -> Any:
    """Return the state after one more step on a random gradient."""
    params, grads = draw_like(shapes.tree, 2 * seed + 7), draw_like(differentiated(shapes.tree), 2 * seed + 8)
    _, new = call_update(optimizer, grads, state, params, jnp.float32(1.0), lambda p: jnp.float32(1.0))
    return keep_dtypes(new, state)


def _parity(states: Any) -> list[tuple[Any, Any, Any]]:
    """Return for every leaf whether the first and the last lane agree, and the even and odd part of the first two."""
    zero = jnp.float32(0.0)
    return [
        (jnp.all(x[0] == x[2]), vectors.norm(x[0] + x[1]), vectors.norm(x[0] - x[1]))
        if _is_float(x)
        else (jnp.bool_(True), zero, zero)
        for x in jax.tree.leaves(states)
    ]


def _joined(counts: Any, before: Any, now: Any) -> Any:
    joined = before & now if before.dtype == bool else before + now
    return jnp.where(counts, joined, before)


@partial(jax.jit, static_argnums=(0, 2, 3))
def _push(optimizer: Any, states: tuple[Any, Any], shapes: Shapes, steps: int) -> tuple[Any, Any]:
    """Return whether the updates of two states ever differ at zero gradients and parameters, and which leaves do."""
    zeros, grads = vectors.zeros_like(shapes.tree), vectors.zeros_like(differentiated(shapes.tree))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        states, differ = carry

        def advance(old: Any) -> tuple[Any, Any]:
            value = jnp.float32(0.0)
            updates, new = call_update(optimizer, grads, old, zeros, value, lambda p: value)
            return updates, keep_dtypes(new, old)

        updates, states = lax.map(advance, states)
        found = [differ, *map(_two_differ, jax.tree.leaves(updates))]
        return (states, jnp.stack(found).any()), None

    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), *states)
    (stacked, updates), _ = lax.scan(step, (stacked, jnp.bool_(False)), None, length=_NUM_STEPS * steps)
    return updates, [_two_differ(x) if _is_float(x) else jnp.bool_(False) for x in jax.tree.leaves(stacked)]


def _two_differ(x: Any) -> Any:
    return jnp.any(x[0] != x[1])  # NaN ≠ NaN: what cannot be told counts as a memory


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


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
