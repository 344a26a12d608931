"""Data augmentation: random transformations of a batch, as pure functions of a key and the batch.

An augmentation is a function `augment(key, batch) -> batch` of a batch `{"x": inputs, "y": targets}`. Images have the
shape (examples, height, width, channels); load data sets with `flatten=False`. Strengths may be traced, so that a
search over them is one compiled program. `augmented` puts an augmentation into the training step of a problem, and
`weight_noise` noise on its parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxopt_study._checks import check_bool, check_callable, check_integer, check_key, check_real, describe_argument
from jaxopt_study.problems._problem import Problem
from jaxopt_study.types import Batch, Key, ModelState, Params, Scalar

Augmentation = Callable[[Key, Batch], Batch]

__all__ = [
    "Augmentation",
    "augmented",
    "compose",
    "cutmix",
    "cutout",
    "flip",
    "input_noise",
    "mixup",
    "rotation",
    "shift",
    "weight_noise",
]


def compose(*augmentations: Augmentation) -> Augmentation:
    """Apply augmentations from left to right, each with a key of its own.

    Args:
        augmentations: Functions of a key and a batch. Without any, the batch is unchanged.

    Returns:
        The augmentation. The i-th one gets the key with i folded in.

    Raises:
        TypeError: If one of them is not a function.
    """
    for index, augmentation in enumerate(augmentations):
        check_callable("compose", f"augmentation {index}", augmentation, expected="a function of (key, batch)")

    def augment(key: Key, batch: Batch) -> Batch:
        check_key("compose", key)
        for index, augmentation in enumerate(augmentations):
            batch = augmentation(jax.random.fold_in(key, index), batch)
        return batch

    return augment


def augmented(problem: Problem, *augmentations: Augmentation) -> Problem:
    """Augment every training batch of a problem on the fly.

    The training step differentiates the loss of the augmented batch. `loss` and `metrics` are unchanged: evaluation
    sees the examples as they are.

    Args:
        problem: A problem whose batches are `{"x": inputs, "y": targets}`. For `mixup` and `cutmix` its loss must take
            probabilities as targets, as `networks.classifier` does.
        augmentations: Applied in this order, as by `compose`.

    Returns:
        The problem, with another `step_loss`.

    Raises:
        TypeError: If the problem is not a `Problem`, or an augmentation is not a function.
        ValueError: If the problem has no data.

    Example:
        >>> from jaxopt_study.problems import augmentations, datasets, networks
        >>> problem = networks.mlp_classifier(datasets.digits(), widths=(32,))
        >>> noisy = augmentations.augmented(problem, augmentations.input_noise(0.1))
        >>> params, key = problem.init(jax.random.key(0)), jax.random.key(1)
        >>> loss, _ = noisy.step_loss(params, None, problem.data, key)
        >>> bool(loss != problem.loss(params, problem.data)), noisy.loss is problem.loss
        (True, True)
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"augmented needs a Problem; received {describe_argument(problem)}.")
    if problem.data is None:
        raise ValueError(f"augmented needs a problem with data; {problem.name!r} has none.")
    augment, inner = compose(*augmentations), problem.step_loss

    def step_loss(params: Params, state: ModelState, batch: Batch, key: Key) -> tuple[Scalar, ModelState]:
        augmenting, stepping = jax.random.split(key)
        batch = augment(augmenting, batch)
        return (problem.loss(params, batch), state) if inner is None else inner(params, state, batch, stepping)

    return problem.replace(step_loss=step_loss)


def weight_noise(problem: Problem, std: ArrayLike) -> Problem:
    """Add independent Gaussian noise to the parameters at every training step.

    The step differentiates the loss at θ + σ z with z ~ N(0, I), drawn anew at every step, and updates θ. To second
    order in σ the mean of that loss is a penalty on curvature, in which the trace of the Hessian H appears:

        E L(θ + σ z) = L(θ) + ½ σ² tr H + O(σ⁴)

    `loss` and `metrics` are unchanged: evaluation sees the parameters as they are.

    Args:
        problem: A problem with or without data. Its parameters are floating arrays.
        std: σ ≥ 0, in the units of the parameters; may be traced.

    Returns:
        The problem, with another `step_loss`.

    Raises:
        TypeError: If the problem is not a `Problem`, or σ is not a number.
        ValueError: If σ is negative.

    Example:
        >>> from jaxopt_study.problems import augmentations, quadratic
        >>> noisy = augmentations.weight_noise(quadratic([1.0, 3.0]), 0.1)
        >>> keys = jax.random.split(jax.random.key(0), 10_000)
        >>> losses = jax.vmap(lambda key: noisy.step_loss(jnp.zeros(2), None, None, key)[0])(keys)
        >>> bool(abs(losses.mean() - 0.02) < 0.001)  # ½ 0.1² (1 + 3)
        True

    References:
        Goodfellow, Bengio and Courville (2016), Deep Learning, §7.5.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"weight_noise needs a Problem; received {describe_argument(problem)}.")
    check_real("weight_noise", "std", std, 0)
    inner = problem.step_loss

    def step_loss(params: Params, state: ModelState, batch: Batch, key: Key) -> tuple[Scalar, ModelState]:
        drawing, stepping = jax.random.split(key)
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(drawing, len(leaves))
        moved = structure.unflatten(
            [
                x + jnp.asarray(std, x.dtype) * jax.random.normal(k, x.shape, x.dtype)
                for k, x in zip(keys, leaves, strict=True)
            ]
        )
        return (problem.loss(moved, batch), state) if inner is None else inner(moved, state, batch, stepping)

    return problem.replace(step_loss=step_loss)


def input_noise(std: ArrayLike) -> Augmentation:
    """Add independent Gaussian noise to every number of the inputs.

        x ← x + σ z,   z ~ N(0, 1)

    For small σ and squared error it is a penalty on the Jacobian of the model, Tikhonov's.

    Args:
        std: σ ≥ 0, in the units of the inputs.

    Returns:
        The augmentation, for inputs of any shape.

    References:
        Bishop (1995), Training with noise is equivalent to Tikhonov regularization.
    """
    check_real("input_noise", "std", std, 0)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _inputs("input_noise", batch)
        return {**batch, "x": x + jnp.asarray(std, x.dtype) * jax.random.normal(key, x.shape, x.dtype)}

    return augment


def shift(max_pixels: ArrayLike) -> Augmentation:
    """Translate every image by whole pixels, drawn uniformly from −m … m for each axis, and fill with zeros.

    Args:
        max_pixels: m, an integer ≥ 0.

    Returns:
        The augmentation.
    """
    if not isinstance(max_pixels, Tracer):
        check_integer("shift", "max_pixels", max_pixels, 0)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _images("shift", batch)
        bound = jnp.asarray(max_pixels, jnp.int32)
        steps = jax.random.randint(key, (len(x), 2), -bound, bound + 1)
        return {**batch, "x": jax.vmap(_translated)(x, steps)}

    return augment


def rotation(max_degrees: ArrayLike) -> Augmentation:
    """Rotate every image about its centre by an angle drawn uniformly from −a … a, with bilinear interpolation.

    Args:
        max_degrees: a in [0, 180], in degrees. What turns in from outside the image is 0.

    Returns:
        The augmentation.
    """
    check_real("rotation", "max_degrees", max_degrees, 0, 180)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _images("rotation", batch)
        angles = jnp.deg2rad(jnp.asarray(max_degrees, x.dtype)) * jax.random.uniform(key, (len(x),), x.dtype, -1, 1)
        return {**batch, "x": jax.vmap(_rotated)(x, angles)}

    return augment


def flip(probability: ArrayLike = 0.5) -> Augmentation:
    """Mirror every image, left to right, with a given probability.

    Args:
        probability: In [0, 1].

    Returns:
        The augmentation. It keeps the labels, which is wrong where the mirror image means something else, as of digits.
    """
    check_real("flip", "probability", probability, 0, 1)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _images("flip", batch)
        mirrored = jax.random.bernoulli(key, probability, (len(x), 1, 1, 1))
        return {**batch, "x": jnp.where(mirrored, x[:, :, ::-1], x)}

    return augment


def cutout(size: ArrayLike, *, inside: bool = True) -> Augmentation:
    """Set a square of every image to 0, at a random place.

    Args:
        size: Side of the square in pixels, an integer ≥ 0 and at most the images' smaller side.
        inside: Whether the square lies inside the image and so has exactly its area. False draws its centre from all
            pixels, as the paper does, so that a part of it may lie outside.

    Returns:
        The augmentation.

    Raises:
        ValueError: If the square is larger than the image.

    References:
        DeVries and Taylor (2017), Improved regularization of convolutional neural networks with cutout.
    """
    static = None if isinstance(size, Tracer) else check_integer("cutout", "size", size, 0)
    check_bool("cutout", "inside", inside)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _images("cutout", batch)
        height, width = x.shape[1:3]
        if static is not None and static > min(height, width):
            raise ValueError(
                f"cutout needs size to be at most the images' smaller side, {min(height, width)}; received {static}."
            )
        side, tops, lefts = jnp.asarray(size, jnp.int32), *jax.random.split(key)

        def start(key: Key, extent: int) -> jax.Array:
            if inside:
                return jax.random.randint(key, (len(x),), 0, extent - side + 1)
            return jax.random.randint(key, (len(x),), 0, extent) - side // 2

        top, left = start(tops, height), start(lefts, width)
        box = jax.vmap(lambda i, j: _box((height, width), i, i + side, j, j + side))(top, left)
        return {**batch, "x": jnp.where(box[..., None], 0, x)}

    return augment


def mixup(alpha: ArrayLike = 1.0, *, num_classes: int) -> Augmentation:
    """Mix every example with another one of the batch, inputs and targets alike.

        x ← λ x + (1 − λ) x_π,   q ← λ q + (1 − λ) q_π,   λ ~ Beta(α, α)

    with π a permutation of the batch. λ and π are drawn once for a batch.

    Args:
        alpha: α > 0. Small values leave most batches nearly unmixed, 1 draws λ uniformly.
        num_classes: C ≥ 1.

    Returns:
        The augmentation, for inputs of any shape. Integer labels become probabilities of shape (examples, C) that sum
        to 1; probabilities are mixed as they are.

    References:
        Zhang, Cissé, Dauphin and Lopez-Paz (2018), mixup: Beyond empirical risk minimization.
    """
    check_real("mixup", "alpha", alpha, 0, closed="(]")
    check_integer("mixup", "num_classes", num_classes, 1)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _inputs("mixup", batch)
        weighing, pairing = jax.random.split(key)
        weight = jax.random.beta(weighing, alpha, alpha, dtype=x.dtype)
        partners = jax.random.permutation(pairing, len(x))
        return {
            **batch,
            "x": weight * x + (1 - weight) * x[partners],
            "y": _mixed_targets(batch["y"], partners, weight, num_classes),
        }

    return augment


def cutmix(alpha: ArrayLike = 1.0, *, num_classes: int) -> Augmentation:
    """Replace a box of every image by the same box of another one of the batch, and mix the targets by area.

    The box has the share 1 − λ of the image before it is cut at the border, λ ~ Beta(α, α), its centre drawn from all
    pixels. Targets are mixed by the share of pixels that were kept. Box and partners are drawn once for a batch.

    Args:
        alpha: α > 0; 1 draws λ uniformly.
        num_classes: C ≥ 1.

    Returns:
        The augmentation. Targets become probabilities, as by `mixup`.

    References:
        Yun et al. (2019), CutMix: Regularization strategy to train strong classifiers with localizable features, §3.
    """
    check_real("cutmix", "alpha", alpha, 0, closed="(]")
    check_integer("cutmix", "num_classes", num_classes, 1)

    def augment(key: Key, batch: Batch) -> Batch:
        x = _images("cutmix", batch)
        height, width = x.shape[1:3]
        weighing, pairing, rows, columns = jax.random.split(key, 4)
        side = jnp.sqrt(1 - jax.random.beta(weighing, alpha, alpha, dtype=x.dtype))

        def ends(key: Key, extent: int) -> tuple[jax.Array, jax.Array]:
            length = jnp.floor(side * extent).astype(jnp.int32)
            start = jax.random.randint(key, (), 0, extent) - length // 2
            return start, start + length

        box = _box((height, width), *ends(rows, height), *ends(columns, width))
        partners = jax.random.permutation(pairing, len(x))
        kept = 1 - jnp.mean(box, dtype=x.dtype)
        return {
            **batch,
            "x": jnp.where(box[None, :, :, None], x[partners], x),
            "y": _mixed_targets(batch["y"], partners, kept, num_classes),
        }

    return augment


def _translated(image: Float[Array, "height width channels"], steps: Any) -> Float[Array, "height width channels"]:
    height, width, _ = image.shape
    rows, columns = jnp.arange(height) - steps[0], jnp.arange(width) - steps[1]
    valid = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    moved = image[jnp.clip(rows, 0, height - 1)][:, jnp.clip(columns, 0, width - 1)]
    return jnp.where(valid[..., None], moved, 0)


def _rotated(
    image: Float[Array, "height width channels"], angle: Float[Array, ""]
) -> Float[Array, "height width channels"]:
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [cos * rows - sin * columns + (height - 1) / 2, sin * rows + cos * columns + (width - 1) / 2]
    return jax.vmap(lambda channel: map_coordinates(channel, places, order=1), in_axes=-1, out_axes=-1)(image)


def _box(shape: tuple[int, int], top: Any, bottom: Any, left: Any, right: Any) -> Bool[Array, "height width"]:
    """Return where an image lies in a box; ends are excluded, and may lie outside the image."""
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


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


def _inputs(who: str, batch: Any) -> Float[Array, "examples ..."]:
    if not isinstance(batch, dict) or not {"x", "y"} <= set(batch):
        raise TypeError(f'{who} needs a batch {{"x": inputs, "y": targets}}; received {describe_argument(batch)}.')
    x = jnp.asarray(batch["x"])
    if not x.ndim or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{who} needs floating inputs, one row an example; received {x.dtype} of shape {x.shape}.")
    return x


def _images(who: str, batch: Any) -> Float[Array, "examples height width channels"]:
    x = _inputs(who, batch)
    if x.ndim != 4:
        raise ValueError(
            f"{who} needs images of shape (examples, height, width, channels); received {x.shape}. Load the data set "
            "with flatten=False."
        )
    return x
