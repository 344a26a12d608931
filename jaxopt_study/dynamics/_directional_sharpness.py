"""Directional sharpness: the curvature along an optimizer's next update, within and across layers."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import jit_solver, nan_is_an_answer
from jaxopt_study.curvature import Operator, group_leaves, noise_floor, only
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._next_update import next_update
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, LossFn, Params, Vector


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("value", "error", "within", "across", "shares", "interactions", "norm", "num_matvecs"),
    meta_fields=("names",),
)
@dataclass(frozen=True)
class DirectionalSharpness:
    """Curvature along the next update u, in total and by pairs of layers, with Σ over all pairs equal to `value`.

    Attributes:
        names: Names of the layers.
        value: uᵀHu / ‖u‖², between the smallest and the largest eigenvalue; NaN for a zero update.
        error: Bound on its rounding error. The data are taken as they are; no error for their choice is included.
        within: Σ_l u_lᵀ H_ll u_l / ‖u‖², the part of `value` from each layer with itself.
        across: `value` − `within`, the part from pairs of different layers.
        shares: ‖u_l‖² / ‖u‖² of every layer.
        interactions: u_lᵀ H_lk u_k / ‖u‖² of all pairs of layers.
        norm: ‖u‖.
        num_matvecs: Number of products.
    """

    names: tuple[str, ...]
    value: Float[Array, ""]
    error: Float[Array, ""]
    within: Float[Array, ""]
    across: Float[Array, ""]
    shares: Float[Array, " layers"]
    interactions: Float[Array, "layers layers"]
    norm: Float[Array, ""]
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.directional_sharpness)
    to_pandas = tabulated(_cards.columns_of_directions)
    plot = plotted


@nan_is_an_answer
def directional_sharpness(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    by: Any = "layer",
) -> DirectionalSharpness:
    """Compute the curvature along the optimizer's next update, within and across layers.

    With the next update u of any optimizer, from the gradient over all data, and the Hessian H at the parameters θ:

        value = uᵀHu / ‖u‖² = Σ_l u_lᵀ H_ll u_l / ‖u‖² + Σ_{l≠k} u_lᵀ H_lk u_k / ‖u‖²

    The quadratic model of the loss changes by gᵀu + ½ ‖u‖² · value in the step, so of two updates with the same slope
    and length the one with the smaller value decreases it more. Two parts of opposite signs in a layer and across
    layers can cancel.

    Args:
        optimizer: Any Optax transformation, or chain of this package.
        opt_state: Its state after the last step.
        loss: loss(params, data) → scalar, without randomness.
        params: θ.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        by: "layer", "leaf", or a function from the path of a leaf to the name of its layer, as in `curvature.blocks`.

    Returns:
        The curvature and its parts. Cost: one gradient, one update and a product for each layer, after one
        linearisation; memory of one product.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: If the state belongs to another optimizer, or parameters or update are not finite.

    Example:
        >>> loss = lambda p, _: 2 * p["a"] ** 2 + p["a"] * p["b"] + p["b"] ** 2
        >>> params, tx = {"a": jnp.array(1.0), "b": jnp.array(1.0)}, optax.sign_sgd(0.1)
        >>> found = directional_sharpness(tx, tx.init(params), loss, params)  # the update is along (1, 1)
        >>> print(found.value.round(4), found.within.round(4), found.across.round(4))
        4.0 3.0 1.0

    References:
        Wang, Zhang, Li, Bergemann and Yang (2026), Why Muon Outperforms Adam: A Curvature Perspective, arXiv
        2606.04662: normalised directional sharpness, and its parts within and across layers. Pan and Li (2023), Toward
        Understanding Why Adam Converges Faster Than SGD for Transformers, arXiv 2306.00204.
    """
    name = "directional_sharpness"
    with mesh_context(params):
        step = next_update(name, optimizer, opt_state, loss, params, data, batch_size)
        names, owners = group_leaves(name, step.updates, by)
        unit, length = _normalized(step.updates)
        if step.curvature.loop == "compiled":
            images = _images(step.curvature, owners, len(names), unit)
        else:
            product = step.curvature.product()
            parts = (_only(owners, layer, unit) for layer in range(len(names)))
            images = vectors.stack([product(part) for part in parts])
        return _summary(images, unit, length, names, owners, noise_floor(step.curvature))


_normalized = jax.jit(vectors.normalize)
_only = jax.jit(only, static_argnums=0)


@partial(jit_solver, static_argnums=(1, 2))
def _images(op: Operator, owners: tuple[int, ...], num_layers: int, unit: Vector) -> Vector:
    product = op.linearize()
    return lax.map(lambda layer: product(only(owners, layer, unit)), jnp.arange(num_layers))


@partial(jax.jit, static_argnums=(3, 4, 5))
def _summary(
    images: Vector,
    unit: Vector,
    length: Float[Array, ""],
    names: tuple[str, ...],
    owners: tuple[int, ...],
    floor: float,
) -> DirectionalSharpness:
    layers = range(len(names))
    own = [only(owners, layer, unit) for layer in layers]
    table = jnp.stack([vectors.project(images, part) for part in own])
    table = jnp.where(length > 0, table, jnp.nan)
    sizes = jnp.stack([vectors.norm(part) for part in own])
    lengths = jnp.stack([vectors.norm(vectors.row(images, layer)) for layer in layers])
    # Each product has an error of the noise floor times ‖H‖ ‖v‖; ‖Hv‖/‖v‖ bounds ‖H‖ from below.
    norm = jnp.max(jnp.where(sizes > 0, lengths / jnp.where(sizes > 0, sizes, 1), 0))
    value, within = jnp.sum(table), jnp.trace(table)
    return DirectionalSharpness(
        names, value, floor * norm * jnp.sum(sizes), within, value - within, sizes**2, table, length,
        jnp.int32(len(names)),
    )  # fmt: skip
