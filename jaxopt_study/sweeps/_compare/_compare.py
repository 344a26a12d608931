"""Comparison of optimizers, with equal tuning budgets and with reports on held-out seeds and data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps._compare._candidates import Candidate, as_candidate
from jaxopt_study.sweeps._compare._comparison import Comparison
from jaxopt_study.sweeps._compare._tune_and_report import CandidateTrials, splits, tune_and_report
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._search._arguments import check_run, common_direction, selection
from jaxopt_study.sweeps._search._samplers import SamplerName
from jaxopt_study.sweeps._search._search import static_names
from jaxopt_study.sweeps._space._space import as_space
from jaxopt_study.training import Order
from jaxopt_study.types import Key, Mode


def compare(
    candidates: Mapping[str, Any],
    problem: Problem | Mapping[str, Problem],
    *,
    budget: int,
    num_steps: int,
    key: Key,
    tune_seeds: int = 1,
    report_seeds: int = 10,
    sampler: SamplerName = "random",
    metric: str = "loss",
    select_by: str | None = None,
    mode: Mode | str | None = None,
    select_mode: Mode | str | None = None,
    batch_size: int | None = None,
    order: Order = "reshuffle",
    evaluate_every: int | None = None,
    evaluate_batch_size: int | None = None,
    journal: str | Path | None = None,
    mesh: Mesh | None = None,
    width: int | Literal["auto"] = "auto",
    progress: bool | Callable[[int, int, float], None] | None = None,
    keep_params: bool = False,
) -> Comparison:
    """Compare optimizers fairly: tune with equal budgets, and report on seeds and data that the tuning did not use.

    For every problem and candidate:

    1. *Tune.* Run `budget` trials from the candidate's space, with `tune_seeds` runs each, and select the best mean of
       `select_by` on the validation examples. Candidates with equal spaces try the same settings. No test example is
       used. If all trials diverge, the one that went furthest is selected.
    2. *Report.* Run `report_seeds` other seeds with the selected and with the default settings. Seed j starts at the
       same parameters and uses the same batches for every candidate, so that differences are paired. The test examples
       are used once, on the final parameters.

    Budgets are equal in trials, not in seconds. A space with more dimensions or worse ranges uses its budget less well,
    so the spaces are part of the comparison. With `budget=0` only default settings are reported.

    Args:
        candidates: By name: a `Candidate`, a pair (function that returns an optimizer, space), or any Optax
            transformation, which has nothing to tune.
        problem: One problem, or several by name.
        budget: Number of tuning trials per candidate and problem, ≥ 0.
        num_steps: T, the number of steps of every run.
        key: Random key, of any implementation, of trials and seeds; tuning and reporting have separate keys.
            `report_keys(key, …)[j]` determines the start and the batches of reporting seed j.
        tune_seeds: Number of runs per tuning trial, ≥ 1.
        report_seeds: Number of runs per report, ≥ 1. With fewer than six, intervals assume normal differences.
        sampler: As in `search`.
        metric: The reported metric, "loss" or one of the problem's metrics, on the test examples if there are any,
            otherwise on the validation or training examples.
        select_by: The metric that selects settings, on the validation examples; None takes `metric`.
        mode: Whether smaller ("min") or larger ("max") values of `metric` are better; None takes the direction that the
            metric declares: losses are minimised, a `problems.Metric` has its mode. A metric without a direction
            raises.
        select_mode: The same for `select_by`; None takes `mode` if the metric is the same, otherwise what the metric
            declares.
        batch_size: As in `train`.
        order: As in `train`.
        evaluate_every: As in `train`; the cadence of the curves and of `steps_to_target`. None evaluates at the start
            and at the end.
        evaluate_batch_size: As in `train`.
        journal: A folder for finished results, as in `search`.
        mesh: As in `search`.
        width: As in `search`.
        progress: As in `search`.
        keep_params: Whether reports keep where every seed ended, `Report.params`; the journal, too.

    Returns:
        The reports, and the searches that found the settings; `replay` of either runs any seed alone. Cost: for each
        candidate and problem (budget · tune_seeds + 2 · report_seeds) · T gradients, and two programs to compile.

    Raises:
        ValueError: If an argument is out of range, there are no candidates, a candidate has neither a space nor default
            settings, a space has an unknown hyperparameter or a value that a constructor rejects, or a problem lacks
            the metric or the metric has no direction.
        TypeError: If a candidate or an argument is of the wrong kind, or a function branches in Python on a traced
            value.
        JournalError: As in `search`.
        ComparisonInterrupted: On Ctrl-C; a `KeyboardInterrupt` with the complete reports.

    Example:
        >>> from jaxopt_study import optimizers, problems, sweeps
        >>> rates = {"learning_rate": sweeps.log_uniform(1e-2, 2.0)}
        >>> result = sweeps.compare(
        ...     {"sgd": sweeps.Candidate(optimizers.sgd(0.01), rates), "momentum": (optimizers.momentum, rates)},
        ...     problems.planar.bowl(),
        ...     budget=20,
        ...     num_steps=40,
        ...     key=jax.random.key(0),
        ...     report_seeds=1,
        ... )
        >>> result.ranking()
        ['momentum', 'sgd']

    References:
        Choi et al. (2019), On empirical comparisons of optimizers for deep learning: rankings depend on spaces.
        Schmidt, Schneider and Hennig (2021), Descending through a crowded valley, ICML, for budgets and default
        settings. Bouthillier et al. (2021), Accounting for variance in machine learning benchmarks, MLSys, for seeds.
    """
    candidates, problems = _candidates(candidates), _problems(problem)
    check_run(
        "compare", key=key, mesh=mesh, width=width, journal=journal, progress=progress, sampler=sampler,
        budget=(budget, 0), num_steps=(num_steps, 0),
        evaluate_every=(1 if evaluate_every is None else evaluate_every, 1),
        tune_seeds=(tune_seeds, 1), report_seeds=(report_seeds, 1),
    )  # fmt: skip
    _check(candidates, problems)
    select_by, mode, select_mode = selection("compare", metric, select_by, mode, select_mode)
    mode = common_direction("compare", metric, mode, problems.values())
    select_mode = common_direction("compare", select_by, select_mode, problems.values())
    examples = splits(problems.values())
    options = {"batch_size": batch_size, "order": order, "evaluate_batch_size": evaluate_batch_size}
    shared: dict[Any, Trials] = {}  # candidates that differ only in their space are traced once

    def trials(candidate: Candidate, where: str, one: Problem) -> Trials:
        static = static_names(as_space(candidate.space)) if candidate.space else ()
        made = Trials(
            candidate.make_optimizer, one, num_steps, evaluate_every, examples.select, (), static, options
        )  # fmt: skip
        return shared.setdefault((where, id(candidate.make_optimizer), static), made)

    runs = {
        where: {
            name: CandidateTrials(
                trials(candidate, where, one),
                None if candidate.space is None else as_space(candidate.space),
                candidate.defaults,
            )
            for name, candidate in candidates.items()
        }
        for where, one in problems.items()
    }
    return tune_and_report(
        runs,
        budget=budget,
        key=key,
        tune_seeds=tune_seeds,
        report_seeds=report_seeds,
        sampler=sampler,
        metric=f"{examples.report}_{metric}",
        select_by=f"{examples.select}_{select_by}",
        mode=mode,
        select_mode=select_mode,
        journal=journal,
        mesh=mesh,
        width=width,
        progress=progress,
        keep_params=check_bool("compare", "keep_params", keep_params),
    )


def _candidates(given: Any) -> dict[str, Candidate]:
    if not isinstance(given, Mapping):
        raise TypeError(
            'compare needs candidates by name, {"sgd": (optimizers.sgd, space), …}; received '
            f"{describe_argument(given)}."
        )
    return {name: as_candidate(name, one) for name, one in given.items()}


def _problems(given: Any) -> dict[str, Problem]:
    problems = {given.name: given} if isinstance(given, Problem) else given
    if not isinstance(problems, Mapping) or not all(isinstance(one, Problem) for one in problems.values()):
        raise TypeError(f"compare needs a Problem, or several by name; received {describe_argument(given)}.")
    return dict(problems)


def _check(candidates: Mapping[str, Candidate], problems: Mapping[str, Problem]) -> None:
    if not candidates or not problems:
        raise ValueError(
            f"compare needs at least one candidate and one problem; received {len(candidates)} and {len(problems)}."
        )
    for candidate in candidates.values():
        for one in problems.values():
            static = static_names(as_space(candidate.space)) if candidate.space else ()
            Trials(candidate.make_optimizer, one, 0, None, None, (), static, {}).check_names(candidate.names)
