"""Validation of `train`'s arguments."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxopt_study._checks import check_kept, check_key, describe_argument, is_finite
from jaxopt_study.problems import Problem
from jaxopt_study.training._batch_order import repeats
from jaxopt_study.training._curriculum import Curriculum
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._evaluate import (
    check_problem,
    check_split,
)
from jaxopt_study.training._order_in_program import check_order
from jaxopt_study.training._trajectory import EarlyStopping, Probe
from jaxopt_study.transforms import Transform, is_nnx
from jaxopt_study.types import Mode


def check_arguments(problem: Any, key: Any, progress: Any) -> None:
    """Check the arguments of a run that are not part of its plan.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are several keys.
    """
    check_problem("train", problem)
    check_key("train", key)
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(
            "train needs progress to be None, True, False or a function of (steps done, T, last loss); received "
            f"{describe_argument(progress)}."
        )


def check_requests(early_stopping: Any, probe: Any) -> None:
    """Raise TypeError unless early stopping and probe are what they must be."""
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise TypeError(
            f"train needs early_stopping to be an EarlyStopping or None; received {describe_argument(early_stopping)}."
        )
    check_probe("train", probe)


def check_probe(who: str, probe: Any) -> None:
    """Raise TypeError unless the argument is a probe or None."""
    if probe is not None and not isinstance(probe, Probe | CurvatureProbe) and not callable(probe):
        raise TypeError(
            f"{who} needs probe to be a Probe, a CurvatureProbe or a function of (params, opt_state, batch); received "
            f"{describe_argument(probe)}."
        )


def check_optimizer(optimizer: Any) -> bool:
    """Return whether the optimizer is a pytree of numbers, which can be an argument of a compiled program."""
    if is_nnx(optimizer, "Optimizer"):
        raise TypeError(
            "train needs an Optax transformation; received an nnx.Optimizer. Give optimizer.tx to train, and the "
            "model to problems.from_nnx."
        )
    is_class = isinstance(optimizer, type)
    if is_class or not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        raise TypeError(
            "train needs an optimizer with init and update, such as optax.adam(1e-3); received "
            f"{describe_argument(optimizer)}. If it is a constructor, call it."
        )
    return isinstance(optimizer, Transform)


def check_batches(problem: Problem, batch_size: int | None, order: Any, num_steps: int) -> int | None:
    """Return the batch size, or None if every step uses all examples."""
    count = problem.num_examples
    if batch_size is None and isinstance(order, Curriculum):
        raise ValueError(
            "A curriculum selects the examples of a batch and needs a batch_size; received batch_size=None."
        )
    if batch_size is None:
        return None
    if count is None:
        raise ValueError(
            f"Problem {problem.name!r} has no data for batches; received batch_size={batch_size}. Leave batch_size out."
        )
    if batch_size > count:
        raise ValueError(
            f"Problem {problem.name!r} has {count} training examples, fewer than batch_size={batch_size}. Use "
            "batch_size=None for all of them at every step."
        )
    if batch_size == count and not repeats(order):
        return None
    check_order(order, count, int(batch_size), num_steps)
    return int(batch_size)


def check_start(problem: Problem, params: Any, like: Any, made: Any) -> None:
    """Raise ValueError unless initial parameters are finite and of the problem's structure and shapes."""
    # An init without random draws may stand for parameters of any shape that the loss accepts.
    if jax.tree.structure(like) == jax.tree.structure(made):
        for (path, given), expected in zip(jax.tree.leaves_with_path(like), jax.tree.leaves(made), strict=True):
            if given.shape != expected.shape:
                raise ValueError(
                    f"train needs params{jax.tree_util.keystr(path)} to have the shape of problem {problem.name!r}, "
                    f"{expected.shape}; received {given.shape}. Train batched parameters with jax.vmap."
                )
    else:
        raise ValueError(
            f"train needs params with the structure of problem {problem.name!r}, {jax.tree.structure(made)}; received "
            f"{jax.tree.structure(like)}."
        )
    for path, leaf in jax.tree.leaves_with_path(params):
        if not is_finite(leaf):
            raise ValueError(
                f"train needs finite initial parameters; params{jax.tree_util.keystr(path)} has NaN or infinity. Use "
                "parameters from before the divergence."
            )
        if not isinstance(leaf, jax.Array):
            check_kept(f"train: params{jax.tree_util.keystr(path)}", np.asarray(leaf))


def steps_per_epoch(problem: Problem, batch_size: int | None) -> int:
    """Return the number of steps after which every example was seen, the cadence of early stopping."""
    if problem.num_examples is None:
        raise ValueError(
            f"Early stopping needs evaluate_every for problem {problem.name!r}, which has no data and therefore no "
            "epochs."
        )
    return 1 if batch_size is None else -(-problem.num_examples // batch_size)


def splits_to_evaluate(problem: Problem, evaluate_on: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the splits that are evaluated."""
    if evaluate_on is None:
        return ("train",) if problem.validation is None else ("validation",)
    if not isinstance(evaluate_on, str | Sequence):
        raise TypeError(
            "train needs evaluate_on to be one or several of 'train', 'validation', 'test'; received "
            f"{describe_argument(evaluate_on)}."
        )
    splits = (evaluate_on,) if isinstance(evaluate_on, str) else tuple(evaluate_on)
    for split in splits:
        check_split(problem, split)
    return splits


def check_metric(problem: Problem, metric: str, splits: tuple[str, ...]) -> None:
    """Raise ValueError unless the metric of early stopping is evaluated."""
    known = [f"{split}_{name}" for split in splits for name in ("loss", *sorted(problem.metrics))]
    if metric in known:
        return
    if metric.startswith("validation_") and problem.validation is None:
        raise ValueError(
            f"Early stopping on {metric!r} needs validation examples, but problem {problem.name!r} has none. Add them "
            f"with problem.replace(validation=…), or use one of {', '.join(map(repr, known))}."
        )
    raise ValueError(
        f"Early stopping: {metric!r} is not among the evaluated metrics: {', '.join(map(repr, known))}. Add its split "
        "to evaluate_on, or its function to problem.metrics."
    )


def direction_of(problem: Problem, rule: EarlyStopping) -> Mode | str:
    """Return the direction of the metric of early stopping."""
    name = rule.metric.partition("_")[2]
    mode = problem.mode_of(name) if rule.mode is None else rule.mode
    if mode is None:
        raise ValueError(
            f"Early stopping on {rule.metric!r} needs a direction, but the metric has none. Use EarlyStopping(…, "
            "mode='max') or 'min', or declare it as problems.Metric(fn, mode='max') in the metrics of problem "
            f"{problem.name!r}."
        )
    return mode
