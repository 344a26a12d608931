"""Hash-based normal numbers from a seed and a position, cheap to compile; the numbers of `Layout.random`."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Integer

from jaxopt_study.linalg.checks import describe
from jaxopt_study.linalg.layout import Layout, seed_words
from jaxopt_study.types import Vector


def draw_like(structure: Any, seed: Integer[ArrayLike, ""]) -> Vector:
    """Return a pytree of normal numbers, hashed from their position and a seed.

    `jax.random` takes a third of a second to compile for every shape, too long for a probe of an optimizer. The numbers
    are those of `Layout.random`; with them the confidence of `sharpness` and the standard errors of a spectral density
    hold in repeated trials (tests/curvature). No statistical claim of `dynamics` depends on them.

    Args:
        structure: A pytree of arrays or `jax.ShapeDtypeStruct`s.
        seed: A non-negative integer; may be traced.

    Returns:
        Arrays of the same shapes, dtypes and shardings, with mean 0 and variance 1.

    Example:
        >>> x = draw_like(jnp.zeros(100_000), 7)
        >>> print(abs(x.mean()) < 0.01, abs(x.var() - 1) < 0.02)
        True True
    """
    leaves, treedef = jax.tree.flatten(describe(structure))
    # Leaf by leaf, because a flat layout would not keep the leaves' dtypes and shardings.
    layout = Layout(tuple(leaves), treedef, flat=False)
    return jax.tree.map(lambda leaf: leaf[0], layout.random(seed_words(jnp.zeros(1, jnp.uint32)), seed, 1))
