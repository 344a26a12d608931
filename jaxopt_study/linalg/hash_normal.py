"""Normal numbers hashed from a seed and their position: cheap to compile, with the distribution of `Layout.random`."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_study.linalg.checks import describe
from jaxopt_study.linalg.layout import Layout, seed_words
from jaxopt_study.types import Vector


def draw_like(like: Any, seed: Any) -> Vector:
    """Return a pytree of normal numbers, hashed from their position and a seed.

    `jax.random` costs a third of a second of compilation for every shape, which a probe of an optimizer does not need.
    The numbers are those of `Layout.random`, to whose distribution the confidence of `sharpness` and the standard
    errors of a spectral density hold in repeated trials (tests/curvature); no claim of `dynamics` rests on it.

    Args:
        like: A pytree of arrays or `jax.ShapeDtypeStruct`s.
        seed: An unsigned or non-negative integer, possibly traced.

    Returns:
        Arrays of the same shapes, dtypes and shardings, with mean 0 and variance 1, without visible correlation.

    Example:
        >>> x = draw_like(jnp.zeros(100_000), 7)
        >>> print(abs(x.mean()) < 0.01, abs(x.var() - 1) < 0.02)
        True True
    """
    leaves, structure = jax.tree.flatten(describe(like))
    # Leaf by leaf, because a flat layout would not keep the leaves' dtypes and shardings.
    layout = Layout(tuple(leaves), structure, flat=False)
    return jax.tree.map(lambda leaf: leaf[0], layout.random(seed_words(jnp.zeros(1, jnp.uint32)), seed, 1))
