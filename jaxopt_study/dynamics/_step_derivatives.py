"""Derivatives of a training step at one point: products with them, their diagonal, and the units they define."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from jaxopt_study.dynamics._updates import differentiated
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.types import Matvec, Vector

# Relative difference up to which a coordinate counts as independent of others: rounding gives 1e-7, a clip by a norm
# 1/√n. It applies to every coordinate separately, because their sensitivities may differ by a factor of 10⁸.
_DIAGONAL = 1e-5


class Point(NamedTuple):
    """Derivatives of a step at one point, with momentum buffers m."""

    grads: Vector  # at the gradient point
    value: Float[Array, ""]  # loss at the gradient point
    to_point: Callable[..., Any]  # (δθ, δm) ↦ δ(gradient point)
    through_update: Callable[..., Any]  # (δg, δθ, δm, δvalue) ↦ (δθ′, δm′)


def product_with(here: Point, hvp: Matvec, scales: Any, v: Any) -> Any:
    """Return A v, from the derivatives of the step and a product with the Hessian."""
    params, memory, moved = _before(here, scales, v)
    return _after(here, scales, params, memory, moved, hvp(moved))


def product_at(here: Point, hvp: Matvec, scales: Any) -> Matvec:
    """Return v ↦ A v for use from Python, from the derivatives of the step and a compiled product with the Hessian."""
    return partial(product_with, here, hvp, scales)


@jax.jit
def _before(here: Point, scales: Any, v: Any) -> tuple[Any, Any, Any]:
    """Return δθ, δm and the change of the gradient point."""
    params, memory = v if scales is None else jax.tree.map(lambda x, s: x * s, v, scales)
    return params, memory, here.to_point(params, memory)


@jax.jit
def _after(here: Point, scales: Any, params: Any, memory: Any, moved: Any, curved: Any) -> Any:
    """Return (δθ′, δm′) from the change of the gradient."""
    slope = vectors.inner(here.grads, moved).astype(here.value.dtype)
    new = here.through_update(curved, params, memory, slope)
    return new if scales is None else jax.tree.map(lambda x, s: x / s, new, scales)


def preconditioner_diagonal(here: Point, like: Any) -> tuple[Any, Bool[Array, ""]]:
    """Return the diagonal of ∂θ′/∂g, and whether ∂θ′/∂g is diagonal.

    Args:
        here: The linearised update.
        like: A pair of parameters and momentum buffers.

    Returns:
        ∂θ′ᵢ/∂gᵢ, like the parameters, and False if the update mixes coordinates, as a global norm does.
    """
    params, memory = vectors.zeros_like(like)
    value = jnp.zeros_like(here.value)
    point = differentiated(like[0])
    return _diagonal(lambda g: differentiated(here.through_update(g, params, memory, value)[0]), point)


def _diagonal(push: Matvec, like: Any) -> tuple[Any, Bool[Array, ""]]:
    """Return J·1, and whether J is diagonal, that is J r = (J·1) r for a random r."""
    random = draw_like(like, 0)  # not signs, which could be equal for two mixed coordinates
    row = push(_filled_like(like, 1))

    def is_own(
        answer: Float[Array, "*shape"], x: Float[Array, "*shape"], pushed: Float[Array, "*shape"]
    ) -> Bool[Array, ""]:
        limits = jnp.finfo(pushed.dtype)
        share = max(_DIAGONAL, 16 * float(limits.eps))  # larger in half precision, which may underflow
        least = 4 * float(limits.smallest_subnormal)
        return jnp.all(jnp.abs(pushed - answer * x) <= share * jnp.abs(answer * x) + least)

    own = jax.tree.leaves(jax.tree.map(is_own, row, random, push(random)))
    return row, jnp.stack(own).all()


def units(here: Point, like: Any, owners: tuple[tuple[str, int], ...]) -> tuple[Vector, Float[Array, ""]]:
    """Return the units of parameters and momentum buffers, and the sensitivity ‖∂θ′/∂g · 1‖.

    Args:
        here: The derivatives of the step.
        like: A pair of parameters and momentum buffers.
        owners: Kind of each momentum buffer, and the index of its parameter; −1 for none.

    Returns:
        The units, like the pair, as in `LinearStep.balanced`; and the sensitivity.
    """
    params, memory = like
    zeros = vectors.zeros_like(params)
    value = jnp.zeros_like(here.value)
    point = differentiated(params)
    direct, diagonal = preconditioner_diagonal(here, like)
    strength = vectors.norm(direct)
    direct = jax.tree.leaves(_positive(direct, diagonal))
    scales = list(_filled_like(memory, 1))
    for kind in sorted({kind for kind, owner in owners if owner >= 0}):
        pushed = [_filled_like(leaf, k == kind and owner >= 0) for leaf, (k, owner) in zip(memory, owners, strict=True)]
        effect = differentiated(here.through_update(vectors.zeros_like(point), zeros, pushed, value)[0])
        effect = jax.tree.leaves(_sizes(effect, diagonal))
        for i, (k, owner) in enumerate(owners):
            if k == kind and owner >= 0:
                # A buffer that acts only in later steps has the unit of a gradient.
                own = jnp.where(effect[owner] > 0, effect[owner], direct[owner])
                scales[i] = (jnp.sqrt(direct[owner]) / own).astype(memory[i].dtype)
    roots = [jnp.sqrt(d).astype(p.dtype) for d, p in zip(direct, jax.tree.leaves(point), strict=True)]
    copies = len(jax.tree.leaves(params)) // len(roots)  # slow parameters have the units of the fast ones
    return (jax.tree.unflatten(jax.tree.structure(params), roots * copies), scales), strength


def _filled_like(like: Any, value: Shaped[ArrayLike, ""]) -> Vector:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), vectors.zeros_like(like))


def _sizes(sensitivity: Vector, diagonal: Bool[Array, ""]) -> Vector:
    """Return |sensitivity|, or its root mean square for all coordinates if it is not diagonal."""
    count = sum(leaf.size for leaf in jax.tree.leaves(sensitivity))
    level = vectors.norm(sensitivity) / jnp.sqrt(count)
    return jax.tree.map(lambda leaf: jnp.where(diagonal, jnp.abs(leaf), level.astype(leaf.dtype)), sensitivity)


def _positive(sensitivity: Vector, diagonal: Bool[Array, ""]) -> Vector:
    sizes = _sizes(sensitivity, diagonal)
    largest = jnp.max(jnp.stack([jnp.max(leaf, initial=0.0) for leaf in jax.tree.leaves(sizes)]))
    largest = jnp.where(largest > 0, largest, 1.0)
    # The square of a smaller number would underflow in single precision.
    return jax.tree.map(lambda leaf: jnp.where(leaf > 1e-16 * largest, leaf, largest).astype(leaf.dtype), sizes)
