"""Ablation: the contribution of each atom of a chain, measured by removing it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from jaxopt_study._checks import describe_argument
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps._compare._ablation import Ablation
from jaxopt_study.sweeps._compare._ablation_variants import Variant, variants_of
from jaxopt_study.sweeps._compare._tune_and_report import CandidateTrials, splits, tune_and_report
from jaxopt_study.sweeps._execution._accepted_names import TRAIN_OPTIONS
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._search._arguments import check_run, common_direction, selection
from jaxopt_study.sweeps._search._samplers import SamplerName
from jaxopt_study.sweeps._search._search import static_names
from jaxopt_study.sweeps._space._space import Space, as_space
from jaxopt_study.sweeps._statistics._intervals import check_level
from jaxopt_study.training import Order
from jaxopt_study.transforms import Transform, match
from jaxopt_study.types import Key, Mode


def ablate(
    optimizer: Transform,
    problem: Problem,
    *,
    num_steps: int,
    key: Key,
    num_seeds: int = 10,
    neutral: Mapping[str, float] | None = None,
    space: Space | Mapping[str, Any] | None = None,
    budget: int = 0,
    tune_seeds: int = 1,
    sampler: SamplerName = "random",
    metric: str = "loss",
    select_by: str | None = None,
    mode: Mode | str | None = None,
    select_mode: Mode | str | None = None,
    level: float = 0.95,
    batch_size: int | None = None,
    order: Order = "reshuffle",
    evaluate_every: int | None = None,
    evaluate_batch_size: int | None = None,
    journal: str | Path | None = None,
    mesh: Mesh | None = None,
    width: int | Literal["auto"] = "auto",
    progress: bool | Callable[[int, int, float], None] | None = None,
) -> Ablation:
    """Measure the contribution of each atom by removing it, swapping neighbours or disabling hyperparameters.

    For every seed, each variant of `variants_of` trains from the same start on the same batches as the full chain, and
    the scores are compared in pairs. Variants that differ only in numbers share a compiled program. At fixed settings a
    variant may lose merely because its steps became longer or shorter. With a `space` over the learning rate and a
    `budget`, every variant, including the full chain, is tuned first.

    Args:
        optimizer: A chain of this package, or a named optimizer, which is expanded into its atoms.
        problem: The problem to train on.
        num_steps: T, the number of steps of every run.
        key: Random key of seeds and trials.
        num_seeds: Number of runs of every variant, ≥ 1.
        neutral: Disabled values of hyperparameters, by path or unique suffix of a path in the expanded chain; None
            takes 0 for ε, weight decay and noise.
        space: The space to tune, over paths of the expanded chain that all variants have; None tunes nothing.
        budget: Number of tuning trials per variant, ≥ 0.
        tune_seeds: Number of runs per tuning trial.
        sampler: As in `search`.
        metric: The reported metric, as in `compare`.
        select_by: The metric that selects settings, as in `compare`.
        mode: As in `compare`.
        select_mode: As in `compare`.
        level: Confidence level of the intervals and verdicts.
        batch_size: As in `train`.
        order: As in `train`.
        evaluate_every: As in `train`.
        evaluate_batch_size: As in `train`.
        journal: A folder for finished results, as in `search`.
        mesh: As in `search`.
        width: As in `search`.
        progress: As in `search`.

    Returns:
        The variants and their effects. Cost: (number of variants) · num_seeds · T gradients, and one program to compile
        per structure of the chain; with a budget, also the tuning trials.

    Raises:
        TypeError: If the optimizer is not a `Transform`, or as in `compare`.
        ValueError: If a path matches nothing, there is a budget but no space, or as in `compare`.
        JournalError: As in `search`.
        ComparisonInterrupted: On Ctrl-C.

    Example:
        >>> from jaxopt_study import optimizers, problems, sweeps
        >>> result = sweeps.ablate(
        ...     optimizers.momentum(0.02),
        ...     problems.planar.bowl(),
        ...     num_steps=40,
        ...     key=jax.random.key(0),
        ...     num_seeds=1,
        ... )
        >>> result.contributions()[0].loss[0] > 0.5  # without momentum, progress along the valley is slow
        True

    References:
        Meyes et al. (2019), Ablation studies in artificial neural networks, for the idea and its name.
    """
    check_level("ablate", level)
    check_run(
        "ablate", key=key, mesh=mesh, width=width, journal=journal, progress=progress, sampler=sampler,
        budget=(budget, 0), num_steps=(num_steps, 0),
        evaluate_every=(1 if evaluate_every is None else evaluate_every, 1),
        tune_seeds=(tune_seeds, 1), num_seeds=(num_seeds, 1),
    )  # fmt: skip
    if not isinstance(problem, Problem):
        raise TypeError(f"ablate needs a Problem; received {describe_argument(problem)}.")
    select_by, mode, select_mode = selection("ablate", metric, select_by, mode, select_mode)
    mode = common_direction("ablate", metric, mode, [problem])
    select_mode = common_direction("ablate", select_by, select_mode, [problem])
    variants = variants_of(optimizer, neutral=neutral)
    if space is None and budget:
        raise ValueError(f"ablate needs a space for its budget of {budget} trials; received space=None.")
    space = space if space is None else as_space(space)
    _check_tuned(space, variants[0])
    examples = splits([problem])
    options = {"batch_size": batch_size, "order": order, "evaluate_batch_size": evaluate_batch_size}
    static = () if space is None else static_names(space)
    shared: dict[int, Trials] = {}
    candidates = {}
    for variant in variants:
        trials = shared.setdefault(
            id(variant.optimizer),
            Trials(variant.optimizer, problem, num_steps, evaluate_every, examples.select, (), static, options),
        )
        trials.check_names(space or ())
        candidates[variant.name] = CandidateTrials(trials, space, {}, variant.values)
    comparison = tune_and_report(
        {problem.name: candidates},
        budget=budget,
        key=key,
        tune_seeds=tune_seeds,
        report_seeds=num_seeds,
        sampler=sampler,
        metric=f"{examples.report}_{metric}",
        select_by=f"{examples.select}_{select_by}",
        mode=mode,
        select_mode=select_mode,
        journal=journal,
        mesh=mesh,
        width=width,
        progress=progress,
    )
    return Ablation(variants, comparison, level)


def _check_tuned(space: Space | None, full: Variant) -> None:
    """Raise ValueError if a hyperparameter is both tuned and disabled."""
    paths = list(full.optimizer.hyperparams)
    for name in space or ():
        both = [] if name in TRAIN_OPTIONS else [p for p in match(name, paths, full.optimizer) if p in full.values]
        if both:
            raise ValueError(
                f"{', '.join(both)} cannot be both tuned and disabled. Leave {name!r} out of the space, or list in "
                f"neutral={{…}} only the hyperparameters to disable."
            )
