"""Composition of transformations: `chain` (in sequence) and `merge` (in parallel)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import describe_argument
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform, with_any_extra
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import check_result
from jaxopt_study.transforms._state_checks import MismatchError, refuse_complex
from jaxopt_study.transforms._tap import TapState


@atom(state=tuple, contains=True)
def chain(*parts: optax.GradientTransformation) -> Transform:
    """Apply transformations one after another.

    With parts f₁ … fₙ, each with its own state:

        u = fₙ(… f₂(f₁(g)))

    It is `optax.chain` with a specification; parts may be any Optax transformations. Inside a chain that contains a
    `tap`, the raw gradient is passed to the parts as the extra argument `raw_gradient`.

    Args:
        *parts: The transformations, first to last; at least one.

    Returns:
        A transformation whose state is the tuple of the parts' states. Cost: that of the parts.

    Raises:
        ValueError: If there are no parts, or the state is that of another chain.
        TypeError: If a part is not an Optax transformation.

    Example:
        >>> tx = chain(clip_by_global_norm(1.0), scale_by_learning_rate(0.1))
        >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
        >>> print(updates.round(6))  # the gradient has norm 5, the update 0.1
        [-0.06 -0.08]

    References:
        Optax's `chain`.
    """
    if not parts:
        raise ValueError(
            "chain: expected at least one transformation, received none; use identity() to change nothing."
        )
    transforms = _checked("chain", parts)

    def init(params: PyTree) -> tuple[Any, ...]:
        return tuple(part.init(params) for part in transforms)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        if len(state) != len(transforms):
            raise MismatchError(
                f"chain: the state belongs to another chain: it has {len(state)} parts, this chain has "
                f"{len(transforms)}. Use the state that init of this chain returned."
            )
        if has_tap(state):
            extra.setdefault("raw_gradient", updates)
        new_state = []
        for part, part_state in zip(transforms, state, strict=True):
            updates, part_state = part.update(updates, part_state, params, **extra)
            new_state.append(part_state)
        return updates, tuple(new_state)

    return Transform(init, update)


class MergeState(NamedTuple):
    """The states of the branches of a `merge`."""

    branches: tuple[Any, ...]


@atom(state=MergeState, contains=True)
def merge(fn: Callable[..., Any], *branches: optax.GradientTransformation) -> Transform:
    """Give the same gradient to several branches and combine their outputs, leaf by leaf.

    With branches b₁ … bₙ:

        u = fn(b₁(g), …, bₙ(g))

    A chain passes on a single tree; an adaptive step is a ratio of two statistics of the same gradient, which `merge`
    expresses. The result has the gradient's dtype.

    Args:
        fn: Takes one array from each branch and returns one array of the same shape. If the chain is to be saved, use
            an importable function or a constructed one such as `divide_by_root()`.
        *branches: The transformations; at least one.

    Returns:
        A transformation whose state holds the branches' states. Cost: that of the branches, and of `fn`.

    Raises:
        ValueError: If there are no branches.
        TypeError: If `fn` is not a function, a branch is not an Optax transformation, or the gradient is complex and
            `fn` is not known to be linear, that is, not one of `weighted_sum`, `interpolate`, `jnp.add` and
            `jnp.subtract`.

    Example:
        >>> tx = merge(lambda g, s: g / jnp.sqrt(s), identity(), total())
        >>> updates, _ = tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))
        >>> print(updates)  # AdaGrad's first step is the sign of the gradient
        [ 1. -1.]

    References:
        The shape of every adaptive method: Duchi, Hazan and Singer (2011), equation (1); Kingma and Ba (2015),
        Algorithm 1.
    """
    if isinstance(fn, optax.GradientTransformation) or not callable(fn):
        raise TypeError(
            "merge: expected the function that combines the branches as first argument, received "
            f"{describe_argument(fn)}: write merge(fn, branch, …)."
        )
    if not branches:
        raise ValueError(
            "merge: expected at least one branch, received none; fn takes the output of each branch as one argument."
        )
    transforms = _checked("merge", branches)
    is_linear = fn in (jnp.add, jnp.subtract) or _name(fn) in ("weighted_sum", "interpolate")

    def combine(g: Leaf, *x: Any) -> Leaf:
        combined = jnp.asarray(check_result("merge", "fn", fn(*x)))
        shapes = {np.shape(combined), *map(np.shape, x)}
        if len(shapes) > 1:  # branches may change the gradient's shape only all together
            raise MismatchError(
                "merge: gradient, state and parameters differ in shape: the branches returned "
                f"{', '.join(str(np.shape(branch)) for branch in x)}, and the function returned shape "
                f"{np.shape(combined)}. Combine arrays of one shape, elementwise."
            )
        return combined.astype(g.dtype)

    def init(params: PyTree) -> MergeState:
        if not is_linear:
            refuse_complex("merge", "params", params)
        return MergeState(tuple(branch.init(params) for branch in transforms))

    def update(updates: PyTree, state: MergeState, params: PyTree = None, **extra: Any) -> tuple[PyTree, MergeState]:
        if not is_linear:
            refuse_complex("merge", "the gradient", updates)
        outputs, states = zip(
            *(
                branch.update(updates, branch_state, params, **extra)
                for branch, branch_state in zip(transforms, state.branches, strict=True)
            ),
            strict=True,
        )
        return jax.tree.map(combine, updates, *outputs), MergeState(states)

    return Transform(init, update)


def has_tap(state: Any) -> bool:
    """Return whether an optimizer state contains a `tap` that is on."""
    return any(isinstance(x, TapState) for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, TapState)))


def _name(fn: Any) -> str | None:
    """Return the name of the constructor that made a function, if one of this package did."""
    spec = getattr(fn, "spec", None)
    return None if spec is None else spec.constructor.name


def _checked(name: str, parts: tuple[Any, ...]) -> list[optax.GradientTransformationExtraArgs]:
    for index, part in enumerate(parts):
        if not isinstance(part, optax.GradientTransformation):
            hint = " Call it: it is a constructor." if callable(part) else ""
            raise TypeError(f"{name}: part {index} must be an Optax transformation, received {part!r}.{hint}")
    return [with_any_extra(part) for part in parts]
