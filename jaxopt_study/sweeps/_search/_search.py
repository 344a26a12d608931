"""Hyperparameter search with all trials and seeds in one compiled program, and a journal on disk."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from jaxopt_study._checks import describe_argument
from jaxopt_study.records import plain
from jaxopt_study.sweeps._execution._keys import search_keys, study_key
from jaxopt_study.sweeps._execution._sweep import Outcome, sweep
from jaxopt_study.sweeps._execution._trials import MakeOptimizer, MakeProblem, Trials, default_split
from jaxopt_study.sweeps._execution._values import check_values
from jaxopt_study.sweeps._search._arguments import check_run, direction
from jaxopt_study.sweeps._search._ask_tell_loop import ask_and_tell
from jaxopt_study.sweeps._search._halving import Halving, run_halved
from jaxopt_study.sweeps._search._result import Mode, Search
from jaxopt_study.sweeps._search._samplers import Sampler, SamplerName, sample
from jaxopt_study.sweeps._space._space import Space, as_space
from jaxopt_study.training import Order
from jaxopt_study.types import Key

_LOOKED_AT = 64  # configurations checked in advance for a space that Optuna samples later


class SearchInterrupted(KeyboardInterrupt):
    """A search was interrupted from the keyboard; `search` holds the finished trials.

    It is a `KeyboardInterrupt`, so a program that does not catch it stops as usual.
    """

    def __init__(self, search: Search):
        done = int(search.finished.all(axis=1).sum())
        super().__init__(f"interrupted after {done} of {len(search.configs)} trials; .search holds the finished ones")
        self.search = search

    def __reduce__(self) -> tuple[Any, ...]:
        return SearchInterrupted, (self.search,)


def search(
    make_optimizer: MakeOptimizer,
    space: Space | Mapping[str, Any],
    problem: MakeProblem,
    *,
    num_trials: int,
    num_steps: int,
    key: Key,
    num_seeds: int = 1,
    sampler: SamplerName | Sampler = "random",
    halving: Halving | None = None,
    metric: str | None = None,
    mode: Mode | str | None = None,
    batch_size: int | None = None,
    order: Order = "reshuffle",
    evaluate_every: int | None = None,
    evaluate_on: str | Sequence[str] | None = None,
    evaluate_batch_size: int | None = None,
    journal: str | Path | None = None,
    mesh: Mesh | None = None,
    width: int | Literal["auto"] = "auto",
    progress: bool | Callable[[int, int, float], None] | None = None,
) -> Search:
    """Train with every configuration that a sampler draws from a space, with several seeds each, as one array program.

    Trial i with seed j is one run of `train`, the same in every layout: seed j starts at the same parameters (unless
    hyperparameters change the start) and uses the same batches in every trial, so that differences between trials are
    paired over seeds. Runs are distributed over devices first, then vectorised if their operations are small enough to
    gain from it; a program that would not fit into memory takes fewer runs at a time. Configurations that differ only
    in numbers share a compiled program; each distinct value of a static dimension (choices, integers) has its own.

    Selection uses `metric` alone, and test examples are used only if `evaluate_on` includes them.

    Args:
        make_optimizer: A function of hyperparameters that returns any Optax transformation; or a `Transform`, for which
            the names of the space are paths.
        space: Dimensions by name: arguments of `make_optimizer`, of `problem` if that is a function, or "batch_size"
            and "order" of `train`. A name that both functions accept is passed to both: `weight_decay` of
            `optimizers.sgd` and of a network decays twice. To avoid this, restrict one of them: `lambda rate:
            optimizers.sgd(rate)`.
        problem: A problem, or a function of hyperparameters that returns one. Its examples must not depend on traced
            hyperparameters.
        num_trials: n ≥ 1.
        num_steps: T ≥ 0, of every trial.
        key: Decides trials and seeds; the same key repeats the same search, and with more trials or seeds (but not on
            a grid) a longer one begins with it. Of any implementation; seed j has the key `search_keys(key, s)[j]`,
            which says how its start and its batches follow.
        num_seeds: s ≥ 1, runs of each configuration.
        sampler: "random", "grid", "sobol" (scrambled), or a `Sampler`, such as `OptunaSampler`, which is asked for a
            few trials at a time and told their scores. Processes whose samplers share a storage share the study: it
            ends when all of them together have finished n trials, and each returns those it has run.
        halving: Stops trials that are behind early; None gives every trial all steps.
        metric: What is optimised: "validation_loss", "validation_accuracy", … at the end of a trial. None takes
            the loss on the validation examples, or on the training examples if there are none.
        mode: Whether smaller ("min") or larger ("max") is better; None takes what the metric declares: losses are
            minimised, a `problems.Metric` says it, and a metric that does not is refused.
        batch_size: As in `train`.
        order: As in `train`.
        evaluate_every: As in `train`; None evaluates at the start and at the end, with `halving` every `min_steps`.
        evaluate_on: As in `train`.
        evaluate_batch_size: As in `train`.
        journal: A folder for finished results. A search that was interrupted or killed continues from it and ends with
            the same result, bit for bit with the same layout. The folder of another search raises.
        mesh: Device mesh with an axis "trials"; None takes all devices of all processes. On a CPU, call `use_cpu_cores`
            first to have one device per core.
        width: Number of runs vectorised on each device; "auto" estimates the fastest from the size of the operations.
        progress: None shows a bar on searches of more than two seconds at a terminal or in a notebook; True and False
            force it; a function is called with (runs done, total runs, best metric so far).

    Returns:
        All trials and the best one; `replay` runs any of them alone. Cost: n·s·T gradients and updates; compile time
        does not depend on the number of trials.

    Raises:
        TypeError: If an argument is of the wrong kind, or a function branches in Python on a traced value.
        ValueError: If an argument is out of range, the space has an unknown hyperparameter or a value that a
            constructor rejects, or the metric is unknown or has no direction.
        JournalError: If the journal belongs to another search, is damaged, in use, or cannot be written. This is raised
            before any work is done, or with all finished results safe on disk.
        SearchInterrupted: On Ctrl-C, within a second or two; a `KeyboardInterrupt` whose `search` holds the finished
            trials. A second Ctrl-C raises a plain `KeyboardInterrupt`.

    Example:
        >>> from jaxopt_study import optimizers, problems, sweeps
        >>> result = sweeps.search(
        ...     optimizers.sgd,
        ...     {"learning_rate": sweeps.log_uniform(1e-3, 100.0)},
        ...     problems.planar.bowl(),
        ...     num_trials=50,
        ...     num_steps=100,
        ...     key=jax.random.key(0),
        ... )
        >>> 0.5 < result.best.config["learning_rate"] < 2.0  # the stability limit is 2
        True
        >>> bool(result.diverged.any())  # a rate of 100 overflows within 100 steps; the trial is kept and flagged
        True

    References:
        Bergstra and Bengio (2012), Random search for hyper-parameter optimization, JMLR 13.
    """
    space = as_space(space)
    asking = not isinstance(sampler, str)
    if asking and (isinstance(sampler, type) or not isinstance(sampler, Sampler)):
        raise TypeError(
            "search needs sampler to be 'random', 'grid', 'sobol', an OptunaSampler, or an object with ask(space, "
            f"count, *, num_trials) and tell(handle, score); received {describe_argument(sampler)}."
        )
    check_run(
        "search", key=key, mesh=mesh, width=width, journal=journal, progress=progress,
        sampler="random" if asking else sampler, num_trials=(num_trials, 1), num_seeds=(num_seeds, 1),
        num_steps=(num_steps, 0), evaluate_every=(1 if evaluate_every is None else evaluate_every, 1),
    )  # fmt: skip
    if halving is not None and not isinstance(halving, Halving):
        raise TypeError(f"search needs halving to be a Halving, or None; received {describe_argument(halving)}.")
    if evaluate_on is not None and not isinstance(evaluate_on, str | Sequence):
        raise TypeError(
            "search needs evaluate_on to be one or several of 'train', 'validation', 'test', or None; received "
            f"{describe_argument(evaluate_on)}."
        )
    key = study_key("search", key)
    trials = Trials(
        make_optimizer,
        problem,
        num_steps=num_steps,
        evaluate_every=halving.min_steps if halving is not None and evaluate_every is None else evaluate_every,
        evaluate_on=evaluate_on,
        report_on=(),
        static=static_names(space),
        options={"batch_size": batch_size, "order": order, "evaluate_batch_size": evaluate_batch_size},
    )
    trials.check_names(space)
    sample_key, seed_keys = jax.random.split(key)[0], search_keys(key, num_seeds)
    if asking and (journal is not None or halving is not None):
        raise ValueError(
            "An adaptive sampler stores its own trials, so `journal` and `halving` cannot be used with it; received "
            f"journal={journal!r}, halving={halving!r}. Omit them."
        )
    configs, points = (
        ([], np.zeros((0, len(space)))) if asking else sample(space, num_trials, sampler=sampler, key=sample_key)
    )
    if asking:
        check_values(trials, sample(space, _LOOKED_AT, sampler="random", key=sample_key)[0], space, "Sample trial")
    check_values(trials, configs, space)
    one = trials.problem_of(configs[0] if configs else space.at(np.full((1, len(space)), 0.5))[0])
    metric = f"{default_split(one)}_loss" if metric is None else metric
    mode = direction("search", metric, mode, trials.evaluated(one))
    taken = getattr(sampler, "mode", mode) if asking else mode
    if taken != mode:
        raise ValueError(
            f"The sampler has mode={taken!r}, but {metric!r} has mode={mode!r}. Construct the sampler for "
            f"mode={mode!r}, for example OptunaSampler(direction='{mode}imize')."
        )
    run = partial(
        sweep, seed_keys=seed_keys, metric=metric, mode=mode, mesh=mesh, width=width, progress=progress, name="search"
    )
    if asking:
        configs, outcome = ask_and_tell(sampler, space, trials, num_trials, metric, run)
        points = space.unit(configs)
    else:
        study_config = plain({
            "space": space.describe(), "sampler": sampler, "num_trials": num_trials, "num_seeds": num_seeds,
            "num_steps": num_steps, "key": jax.random.key_data(key), "metric": metric, "mode": mode,
        })  # fmt: skip
        if halving is None:
            outcome = run([(trials, config) for config in configs], journal=journal, study_config=study_config)
        else:
            outcome = run_halved(halving, trials, configs, run, journal, study_config)
    result = as_search(outcome, trials, space, configs, points, metric, mode, seed_keys)
    if outcome.interrupted:
        raise SearchInterrupted(result)
    return result


def as_search(
    outcome: Outcome,
    trials: Trials,
    space: Space,
    configs: list[dict[str, Any]],
    points: Float[np.ndarray, "trials dimensions"],
    metric: str,
    mode: Mode,
    seed_keys: Shaped[Key, " seeds"],
) -> Search:
    """Return the outcome of a sweep over a space as a `Search`."""
    records = dict(outcome.records)
    diverged_at, stalled, num_steps = (records.pop(name) for name in ("diverged_at", "stalled", "num_steps"))
    return Search(
        space=space,
        configs=configs,
        points=points,
        metric=metric,
        mode=mode,
        steps=trials.steps(),
        curves={name: values for name, values in records.items() if values.ndim == 3},
        reports={name: values for name, values in records.items() if values.ndim == 2},
        diverged_at=np.where(outcome.finished, diverged_at, -1),
        stalled=stalled & outcome.finished,
        num_steps=num_steps,
        finished=outcome.finished,
        layout=outcome.layout,
        compile_seconds=outcome.compile_seconds,
        run_seconds=outcome.run_seconds,
        trials=trials,
        seed_keys=seed_keys,
    )


def static_names(space: Space) -> tuple[str, ...]:
    """Return the names of the static hyperparameters."""
    return tuple(name for name, dimension in space.items() if dimension.static)
