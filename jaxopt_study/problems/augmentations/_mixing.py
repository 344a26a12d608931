"""Augmentations that mix two examples of a batch and their targets: mixup and cutmix."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, check_real
from jaxopt_study.problems.augmentations._augmented import Augmentation
from jaxopt_study.problems.augmentations._batch import checked_images, checked_inputs, compute_dtype, in_box
from jaxopt_study.types import Batch, Key

_LEAST_ALPHA = 1e-6  # of a beta distribution; below 1e-38 single precision has no such number, and the draw is NaN


def mixup(alpha: ArrayLike = 1.0, *, num_classes: int) -> Augmentation:
    """Mix every example with another one of the batch, inputs and targets alike.

        x ← λ x + (1 − λ) x_π,   q ← λ q + (1 − λ) q_π,   λ ~ Beta(α, α)

    with π a permutation of the batch. λ and π are drawn once for a batch.

    Args:
        alpha: α ≥ 1e-6, finite. Small values leave most batches nearly unmixed, 1 draws λ uniformly.
        num_classes: C ≥ 1.

    Returns:
        The augmentation, for inputs of any shape. Integer labels become probabilities of shape (examples, C) that sum
        to 1; probabilities are mixed as they are.

    References:
        Zhang, Cissé, Dauphin and Lopez-Paz (2018), mixup: Beyond empirical risk minimization.
    """
    check_real("mixup", "alpha", alpha, _LEAST_ALPHA)
    check_integer("mixup", "num_classes", num_classes, 1)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_inputs("mixup", key, batch)
        weighing, pairing = jax.random.split(key)
        weight = _beta(weighing, alpha, x.dtype)
        partners = jax.random.permutation(pairing, len(x))
        wide = x.astype(weight.dtype)
        return {
            **batch,
            "x": (weight * wide + (1 - weight) * wide[partners]).astype(x.dtype),
            "y": _mixed_targets(batch["y"], partners, weight, num_classes),
        }

    return augment


def cutmix(alpha: ArrayLike = 1.0, *, num_classes: int) -> Augmentation:
    """Replace a box of every image by the same box of another one of the batch, and mix the targets by area.

    The box has the share 1 − λ of the image before it is cut at the border, λ ~ Beta(α, α), its centre drawn from all
    pixels. Targets are mixed by the share of pixels that were kept. Box and partners are drawn once for a batch.

    Args:
        alpha: α ≥ 1e-6, finite; 1 draws λ uniformly.
        num_classes: C ≥ 1.

    Returns:
        The augmentation. Targets become probabilities, as by `mixup`.

    References:
        Yun et al. (2019), CutMix: Regularization strategy to train strong classifiers with localizable features, §3.
    """
    check_real("cutmix", "alpha", alpha, _LEAST_ALPHA)
    check_integer("cutmix", "num_classes", num_classes, 1)

    def augment(key: Key, batch: Batch) -> Batch:
        x = checked_images("cutmix", key, batch)
        height, width = x.shape[1:3]
        weighing, pairing, rows, columns = jax.random.split(key, 4)
        side = jnp.sqrt(1 - _beta(weighing, alpha, x.dtype))

        def ends(key: Key, extent: int) -> tuple[jax.Array, jax.Array]:
            length = jnp.floor(side * extent).astype(jnp.int32)
            start = jax.random.randint(key, (), 0, extent) - length // 2
            return start, start + length

        box = in_box((height, width), *ends(rows, height), *ends(columns, width))
        partners = jax.random.permutation(pairing, len(x))
        kept = 1 - jnp.mean(box, dtype=side.dtype)
        return {
            **batch,
            "x": jnp.where(box[None, :, :, None], x[partners], x),
            "y": _mixed_targets(batch["y"], partners, kept, num_classes),
        }

    return augment


def _mixed_targets(
    targets: Any, partners: jax.Array, weight: Any, num_classes: int
) -> Float[Array, "examples classes"]:
    targets = jnp.asarray(targets)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        targets = jax.nn.one_hot(targets, num_classes)
    if targets.ndim != 2 or targets.shape[1] != num_classes:
        raise ValueError(
            f"Targets to be mixed must be labels of shape (examples,) or probabilities of shape (examples, "
            f"{num_classes}); received shape {targets.shape}."
        )
    weight = jnp.asarray(weight, targets.dtype)
    return weight * targets + (1 - weight) * targets[partners]


def _beta(key: Key, alpha: ArrayLike, dtype: Any) -> Float[Array, ""]:
    wide = compute_dtype(dtype)
    return jax.random.beta(key, jnp.asarray(alpha, wide), jnp.asarray(alpha, wide), dtype=wide)
