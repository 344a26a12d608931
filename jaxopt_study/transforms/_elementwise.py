"""Atoms without state: the identity, and an elementwise function of the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import describe_argument
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import check_result


@atom(linear=True)
def identity() -> Transform:
    """Return the gradient unchanged, as one branch of a `merge`.

    Returns:
        A stateless transformation.

    Example:
        >>> print(identity().update(jnp.array([2.0]), optax.EmptyState())[0])
        [2.]
    """
    return Transform(optax.init_empty_state, lambda updates, state, params=None, **extra: (updates, state))


@atom()
def elementwise(fn: Callable[[Leaf], Leaf]) -> Transform:
    """Apply a function to every leaf.

    Args:
        fn: An elementwise function. If the chain is to be saved, use an importable function or a constructed one such
            as `root()`.

    Returns:
        A stateless transformation. Cost: fused with its neighbours, that of `fn`.

    Raises:
        TypeError: If `fn` is not a function of arrays, or the gradient is complex.

    Example:
        >>> print(elementwise(jnp.sign).update(jnp.array([-2.0, 0.0, 3.0]), optax.EmptyState())[0])
        [-1.  0.  1.]
    """
    if isinstance(fn, optax.GradientTransformation) or not callable(fn):
        raise TypeError(
            f"elementwise needs fn to be a function of one array; received {describe_argument(fn)}. Use chain to "
            "compose transformations."
        )

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda g: check_result("elementwise", "fn", fn(g)), updates), state

    return Transform(optax.init_empty_state, update)
