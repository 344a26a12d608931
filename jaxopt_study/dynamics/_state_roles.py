"""Roles of an optimizer's state: momentum buffers, second-moment buffers and step counters, detected by running it.

Negating all gradients and parameters negates a momentum buffer and leaves a second-moment buffer unchanged. So two runs
on opposite gradients distinguish them in any transformation, without a list of names.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study._programs import RANDOM_DRAWS, nan_is_an_answer, strongly_typed
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
# Whether a leaf is independent of the gradient, and the norms of its even and odd part
Parity = tuple[Bool[Array, ""], Float[Array, ""], Float[Array, ""]]

_NUM_STEPS = 4
_SMALL = 2.0**-33  # scale of gradients below every clip


@nan_is_an_answer
def state_roles(optimizer: Any, params: Any) -> dict[str, Role]:
    """Return the role of every leaf of an optimizer's state, by path.

    With random gradients g₁ … g₄ and parameters θ₁ … θ₄, the resulting state S(g, θ) is compared with S(−g, −θ) and
    with the state of other, much smaller gradients. A leaf is

        "clock"      if it is the same for these: step counters, keys, injected hyperparameters;
        "statistic"  if it is more even than odd, ‖S(g, θ) + S(−g, −θ)‖ > ‖S(g, θ) − S(−g, −θ)‖: second-moment buffers,
                     sums of squares, largest magnitudes, norms;
        "memory"     if it is more odd than even: momentum buffers, velocities, the last gradient.

    A "centre" is a mean buffer, an odd leaf without a direct effect: at zero gradient, with the momentum buffers at
    zero, neither the updates nor other buffers depend on it. It acts only through the divisor, as the mean in centred
    RMSprop does, and is frozen with the statistics.

    For counters with a period of p steps, as inside `optax.MultiSteps`, 4p steps are run, and the last p are compared.
    The state of an actual run is not used, and buffers that act only after more steps are not detected.

    Args:
        optimizer: Any Optax transformation.
        params: The parameters; only structure, shapes and dtypes are used.

    Returns:
        The role of every leaf, by its path in the state. Cost: 12p updates, 8p more for every kind of momentum buffer,
        p times as many for a mean buffer, and the detection of p; memory of three states.

    Raises:
        TypeError: If the optimizer has the wrong type, or the parameters are not real floating-point arrays.
        ValueError: If there is no period p ≤ 1,024, or the optimizer cannot take a step on the parameters.

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
    """Return the role of every leaf, in order, of the state of an optimizer with a period of `steps` steps."""

    def shape(leaf: Any) -> Any:
        if 0 in jnp.shape(leaf):  # an empty leaf has the roles of a leaf with numbers
            return jax.ShapeDtypeStruct([max(n, 1) for n in jnp.shape(leaf)], jnp.result_type(leaf))
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=sharding_of(leaf))

    shapes = jax.tree.map(shape, params)
    with mesh_context(shapes), jax.disable_jit(False):  # hundreds of steps on random gradients
        return _roles(optimizer, shapes, steps)


def _roles(optimizer: Any, shapes: Any, steps: int) -> tuple[Role, ...]:
    parity, state = _compare(optimizer, Shapes(shapes), steps)
    leaves, structure = jax.tree.flatten(state)
    roles: list[Role] = [
        "clock" if not _is_float(leaf) or bool(fixed) else "memory" if odd > even else "statistic"
        for leaf, (fixed, even, odd) in zip(leaves, parity, strict=True)
    ]
    kinds = [kind for kind, _ in leaf_owners(state, differentiated(shapes))]
    momenta = {kind for kind, role in zip(kinds, roles, strict=True) if role == "memory"}
    if not momenta:
        return tuple(roles)
    idle, remembering = set(momenta), set()
    for t in range(steps):  # a buffer may have an effect in one phase of a period only
        zero = _with_zeros(structure, leaves, roles, kinds, nonzero=None)
        for kind in sorted(idle):
            alone = _with_zeros(structure, leaves, roles, kinds, nonzero=kind)
            others = [role == "memory" and k != kind for role, k in zip(roles, kinds, strict=True)]
            updates, differing = _effects(optimizer, (zero, alone), Shapes(shapes), steps)
            remembering |= {k for k, differs in zip(kinds, differing, strict=True) if k == kind and differs}
            if updates or any(differs and watch for differs, watch in zip(differing, others, strict=True)):
                idle.remove(kind)
        if not idle or t == steps - 1:
            break
        leaves = jax.tree.leaves(_next(optimizer, structure.unflatten(leaves), Shapes(shapes), t))
    # A momentum buffer of decay 0 has no effect either, but the gradient passes through it: it must not be frozen.
    centres = idle & remembering
    return tuple("centre" if k in centres and r == "memory" else r for k, r in zip(kinds, roles, strict=True))


def frozen_leaves(optimizer: Any, params: Any, freeze: Freeze, steps: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return the masks of state leaves that vary in the linearised step, and of results that are held constant.

    Args:
        optimizer: Any Optax transformation.
        params: The parameters.
        freeze: "statistics", "nothing", or a function that returns whether to freeze the leaf of a path.
        steps: The optimizer's period.

    Returns:
        For every leaf, whether it varies, and whether its new value is a constant inside the update.

    Raises:
        TypeError: If the function does not return True or False.
        ValueError: If `freeze` is another value.
    """
    roles = leaf_roles(optimizer, params, steps)
    if callable(freeze):
        like = jax.eval_shape(optimizer.init, params)
        mask = [check_bool("stability", f"freeze({path!r})", freeze(path)) for path in leaf_paths(like)]
        moving = [role != "clock" and not frozen for role, frozen in zip(roles, mask, strict=True)]
        return tuple(moving), tuple(mask)
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


@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=RANDOM_DRAWS)
def _compare(optimizer: Any, shapes: Shapes, steps: int) -> tuple[list[Parity], Any]:
    """Return for every leaf whether it is independent of the gradient, with its even and odd part; and the state."""
    draw = partial(draw_like, shapes.tree)
    total = _NUM_STEPS * steps

    def signed(sign: Float[Array, ""], tree: Any) -> Any:
        return jax.tree.map(lambda x: sign.astype(x.dtype) * x, tree)

    def advance(lane: Any, t: Int[Array, ""]) -> Any:
        state, sign, seed = lane
        # All lanes have the same start, so a leaf that stores the start counts as constant.
        theta = draw(jnp.where(t == 0, 0, total * (seed + 2) + t))
        grads = draw_like(differentiated(shapes.tree), total * seed + t + 1)
        # Clipped to the same size, all gradients would give the same second moments.
        grads = signed(jnp.where(seed == 0, 1.0, _SMALL), grads)
        value = jnp.float32(1.0)
        _, new = call_update(optimizer, signed(sign, grads), state, signed(sign, theta), value, lambda p: value)
        return keep_dtypes(new, state)

    def step(carry: Any, t: Int[Array, ""]) -> tuple[Any, None]:
        states, parity = carry
        # One lane after another: some transformations cannot be batched.
        states = lax.map(lambda lane: advance(lane, t), (states, signs, seeds))
        return (states, jax.tree.map(lambda *x: _accumulated(t >= total - steps, *x), parity, _parity(states))), None

    signs, seeds = jnp.array([1.0, -1.0, 1.0]), jnp.array([0, 0, 1])
    start = lax.map(lambda sign: strongly_typed(optimizer.init(signed(sign, draw(0)))), signs)
    initial = [(jnp.bool_(True), jnp.float32(0.0), jnp.float32(0.0)) for _ in jax.tree.leaves(start)]
    initial = jax.tree.map(lambda x, y: x.astype(y.dtype), initial, _parity(start))
    (states, parity), _ = lax.scan(step, (start, initial), jnp.arange(total))
    return parity, jax.tree.map(lambda leaf: leaf[0], states)


@partial(jax.jit, static_argnums=(0, 2), compiler_options=RANDOM_DRAWS)
def _next(optimizer: Any, state: Any, shapes: Shapes, seed: Int[ArrayLike, ""]) -> Any:
    """Return the state after one more step on a random gradient."""
    params, grads = draw_like(shapes.tree, 2 * seed + 7), draw_like(differentiated(shapes.tree), 2 * seed + 8)
    _, new = call_update(optimizer, grads, state, params, jnp.float32(1.0), lambda p: jnp.float32(1.0))
    return keep_dtypes(new, state)


def _parity(states: Any) -> list[Parity]:
    """Return for every leaf whether the first and last lane agree, and even and odd part of the first two lanes."""
    zero = jnp.float32(0.0)
    return [
        (jnp.all(x[0] == x[2]), vectors.norm(x[0] + x[1]), vectors.norm(x[0] - x[1]))
        if _is_float(x)
        else (jnp.bool_(True), zero, zero)
        for x in jax.tree.leaves(states)
    ]


def _accumulated(counts: Bool[Array, ""], before: Shaped[Array, ""], now: Shaped[Array, ""]) -> Shaped[Array, ""]:
    both = before & now if before.dtype == bool else before + now
    return jnp.where(counts, both, before)


@partial(jax.jit, static_argnums=(0, 2, 3), compiler_options=RANDOM_DRAWS)
def _effects(
    optimizer: Any, states: tuple[Any, Any], shapes: Shapes, steps: int
) -> tuple[Bool[Array, ""], list[Bool[Array, ""]]]:
    """Return whether the updates of two states differ at zero gradients and parameters, and which leaves do."""
    zeros, grads = vectors.zeros_like(shapes.tree), vectors.zeros_like(differentiated(shapes.tree))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        states, differ = carry

        def advance(old: Any) -> tuple[Any, Any]:
            value = jnp.float32(0.0)
            updates, new = call_update(optimizer, grads, old, zeros, value, lambda p: value)
            return updates, keep_dtypes(new, old)

        updates, states = lax.map(advance, states)
        differing = [differ, *map(_two_differ, jax.tree.leaves(updates))]
        return (states, jnp.stack(differing).any()), None

    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), *states)
    (stacked, updates), _ = lax.scan(step, (stacked, jnp.bool_(False)), None, length=_NUM_STEPS * steps)
    return updates, [_two_differ(x) if _is_float(x) else jnp.bool_(False) for x in jax.tree.leaves(stacked)]


def _two_differ(x: Shaped[Array, "2 ..."]) -> Bool[Array, ""]:
    return jnp.any(x[0] != x[1])  # NaN ≠ NaN counts as an effect


def _with_zeros(structure: Any, leaves: list[Any], roles: list[Role], kinds: list[str], *, nonzero: str | None) -> Any:
    """Return the state with all momentum buffers at zero, except those of one kind."""
    return structure.unflatten(
        [
            jnp.zeros_like(leaf) if role == "memory" and kind != nonzero else leaf
            for leaf, role, kind in zip(leaves, roles, kinds, strict=True)
        ]
    )


def leaf_owners(state: Any, params: Any) -> tuple[tuple[str, int], ...]:
    """Return for every leaf of a state its buffer and its parameter.

    Args:
        state: An optimizer's state.
        params: The parameters.

    Returns:
        For every leaf, a name that all leaves of one buffer share, and the index of the parameter of the same path and
        shape, or -1.
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
