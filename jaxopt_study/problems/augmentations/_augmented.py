"""`augmented` puts augmentations into the training step of a problem; `compose` applies several."""

from collections.abc import Callable

import jax

from jaxopt_study._checks import check_callable, check_key, describe_argument
from jaxopt_study.problems._problem import Problem
from jaxopt_study.types import Batch, Key, ModelState, Params, Scalar

Augmentation = Callable[[Key, Batch], Batch]


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
