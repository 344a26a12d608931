"""Noise on the parameters at every training step."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxopt_study._checks import check_real, describe_argument
from jaxopt_study.problems._problem import Problem
from jaxopt_study.types import Batch, Key, ModelState, Params, Scalar


def weight_noise(problem: Problem, std: ArrayLike) -> Problem:
    """Add independent Gaussian noise to the parameters at every training step.

    The step differentiates the loss at θ + σ z with z ~ N(0, I), drawn anew at every step, and updates θ. To second
    order in σ the mean of that loss is a penalty on curvature, in which the trace of the Hessian H appears:

        E L(θ + σ z) = L(θ) + ½ σ² tr H + O(σ⁴)

    `loss` and `metrics` are unchanged: evaluation sees the parameters as they are.

    Args:
        problem: A problem with or without data. The noise is that of its floating parameters; others do not move.
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
        moved = structure.unflatten([_moved(std, k, jnp.asarray(x)) for k, x in zip(keys, leaves, strict=True)])
        return (problem.loss(moved, batch), state) if inner is None else inner(moved, state, batch, stepping)

    return problem.replace(step_loss=step_loss)


def _moved(std: ArrayLike, key: Key, leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):  # a counter or a key
        return leaf
    return leaf + jnp.asarray(std, leaf.dtype) * jax.random.normal(key, leaf.shape, leaf.dtype)
