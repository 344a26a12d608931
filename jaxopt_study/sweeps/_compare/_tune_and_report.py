"""Protocol of a comparison: tune with equal budgets, select on validation examples, report on other seeds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from jaxopt_study import files
from jaxopt_study.problems import Problem
from jaxopt_study.records import plain
from jaxopt_study.sweeps._compare._comparison import Comparison
from jaxopt_study.sweeps._compare._report import Report, Settings
from jaxopt_study.sweeps._execution._keys import report_keys, study_key
from jaxopt_study.sweeps._execution._sweep import Outcome, sweep
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._execution._values import check_values
from jaxopt_study.sweeps._search._result import Search
from jaxopt_study.sweeps._search._samplers import SamplerName, sample
from jaxopt_study.sweeps._search._search import as_search
from jaxopt_study.sweeps._space._space import Space
from jaxopt_study.types import Key, Mode


class ComparisonInterrupted(KeyboardInterrupt):
    """A comparison was interrupted from the keyboard; `comparison` holds the problems with complete reports."""

    def __init__(self, comparison: Comparison):
        super().__init__(f"interrupted with {len(comparison.reports)} reports; .comparison holds them")
        self.comparison = comparison

    def __reduce__(self) -> tuple[Any, ...]:
        return ComparisonInterrupted, (self.comparison,)


@dataclass(frozen=True, eq=False)
class CandidateTrials:
    """The runs of one candidate on one problem.

    Attributes:
        trials: The function from hyperparameters and a seed to a record. Candidates that share it share programs.
        space: The space to tune; None for nothing.
        defaults: Settings without tuning; None if there are none.
        fixed: Hyperparameters that all trials have.
    """

    trials: Trials
    space: Space | None
    defaults: Mapping[str, Any] | None
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """The splits that select settings, and those that are reported."""

    select: str
    report: str


def splits(problems: Iterable[Problem]) -> Splits:
    """Return the splits for selection and for reporting that all problems have."""
    problems = list(problems)
    everywhere = lambda part: all(getattr(one, part) is not None for one in problems)
    select = "validation" if everywhere("validation") else "train"
    return Splits(select, "test" if everywhere("test") else select)


def tune_and_report(
    candidates: Mapping[str, Mapping[str, CandidateTrials]],
    *,
    budget: int,
    key: Key,
    tune_seeds: int,
    report_seeds: int,
    sampler: SamplerName,
    metric: str,
    select_by: str,
    mode: Mode,
    select_mode: Mode,
    journal: str | Path | None,
    mesh: Mesh | None,
    width: int | Literal["auto"],
    progress: bool | Callable[[int, int, float], None] | None,
    keep_params: bool = False,
) -> Comparison:
    """Run a comparison.

    Args:
        candidates: The runs by problem and candidate.
        budget: As in `compare`.
        key: As in `compare`.
        tune_seeds: As in `compare`.
        report_seeds: As in `compare`.
        sampler: As in `compare`.
        metric: The reported metric with its split: "test_loss".
        select_by: The selecting metric with its split: "validation_loss".
        mode: Direction of `metric`.
        select_mode: Direction of `select_by`.
        journal: As in `compare`; with a folder for each problem and stage.
        mesh: As in `compare`.
        width: As in `compare`.
        progress: As in `compare`.
        keep_params: As in `compare`.

    Returns:
        The comparison.

    Raises:
        ValueError: If an argument is out of range, or a candidate has neither a space with a budget nor default
            settings.
        ComparisonInterrupted: On Ctrl-C.
    """
    _check(candidates, budget)
    if journal is not None:
        for where in candidates:
            files.check_name("A problem's name, which names its folder in the journal,", where)
    key = study_key("A comparison", key)
    result = Comparison([], {}, budget, metric, select_by, mode, select_mode)
    draws = [_drawn(here, budget, sampler, _tuning_keys(key, i)[0]) for i, here in enumerate(candidates.values())]
    for here, drawn in zip(candidates.values(), draws, strict=True):  # before anything is compiled
        _check_values(here, drawn)

    def run(
        cases: list[tuple[Trials, dict[str, Any]]],
        stage: Literal["tune", "report"],
        where: str,
        seed_keys: Shaped[Key, " seeds"],
    ) -> Outcome:
        study_config = {
            "stage": stage,
            "mode": result.select_mode,
            "seeds": jax.random.key_data(seed_keys),
            "cases": [config for _, config in cases],
        }
        try:
            outcome = sweep(
                cases, seed_keys=seed_keys, metric=select_by, mode=result.select_mode,
                journal=None if journal is None else Path(journal) / where / stage, study_config=plain(study_config),
                mesh=mesh, width=width, progress=progress, name=f"{stage} on {where}", report=stage == "report",
                most_seeds=max(tune_seeds, report_seeds),
            )  # fmt: skip
        except KeyboardInterrupt as pressed:  # during tracing
            raise ComparisonInterrupted(replace(result, complete=False)) from pressed
        if outcome.interrupted:
            raise ComparisonInterrupted(replace(result, complete=False))
        return outcome

    for number, ((where, here), drawn) in enumerate(zip(candidates.items(), draws, strict=True)):
        final = {id(candidate.trials): _reporting(candidate.trials, metric, keep_params) for candidate in here.values()}
        if drawn:
            tune_keys = jax.random.split(_tuning_keys(key, number)[1], tune_seeds)
            # Those that report also tune, since their programs serve both, unless they store more.
            tuning = {name: here[name].trials if keep_params else final[id(here[name].trials)] for name in drawn}
            cases = [
                (tuning[name], {**here[name].fixed, **config})
                for name, (_, configs, _) in drawn.items()
                for config in configs
            ]
            outcome = _without_reports(run(cases, "tune", where, tune_keys), tuning.values())
            for i, (name, (space, configs, points)) in enumerate(drawn.items()):
                part = outcome.rows(slice(i * budget, (i + 1) * budget))
                result.searches[where, name] = as_search(
                    part, here[name].trials, space, configs, points, select_by, result.select_mode, tune_keys
                )
        entries = _entries(here, result.searches, where)
        cases = [(final[id(here[name].trials)], {**here[name].fixed, **config}) for name, _, config in entries]
        seed_keys = report_keys(key, number, report_seeds)
        outcome = run(cases, "report", where, seed_keys)
        for row, (name, settings, config) in enumerate(entries):
            candidate, part = here[name], outcome.rows(row)
            ends = cases[row][0].end_points(cases[row][1], part.records)
            result.reports.append(_report(part, ends, where, name, settings, config, metric, candidate, seed_keys))
    return result


Drawn = dict[
    str, tuple[Space, list[dict[str, Any]], Float[np.ndarray, "trials dimensions"]]
]  # by candidate: space, trials, points


def _tuning_keys(key: Key, number: int) -> tuple[Key, Key]:
    """Return the key that draws the trials of a problem, and the keys of their seeds."""
    sample_key, seed_key = jax.random.split(jax.random.fold_in(jax.random.split(key)[0], number))
    return sample_key, seed_key


def _drawn(
    here: Mapping[str, CandidateTrials],
    budget: int,
    sampler: SamplerName,
    sample_key: Key,
) -> Drawn:
    return {
        name: (candidate.space, *sample(candidate.space, budget, sampler=sampler, key=sample_key))  # paired if equal
        for name, candidate in here.items()
        if budget and candidate.space is not None
    }


def _check_values(here: Mapping[str, CandidateTrials], drawn: Drawn) -> None:
    for name, candidate in here.items():
        if name in drawn:
            space, configs, _ = drawn[name]
            check_values(candidate.trials, [{**candidate.fixed, **c} for c in configs], space, f"{name!r}: trial")
        if candidate.defaults is not None:
            check_values(
                candidate.trials, [{**candidate.fixed, **candidate.defaults}], None, f"{name!r}: default settings"
            )


def _reporting(trials: Trials, metric: str, keep_params: bool) -> Trials:
    """Return trials that evaluate the final parameters on the test examples, if these are reported, or keep them."""
    report_on = ("test",) if metric.startswith("test_") else trials.report_on
    return replace(trials, report_on=report_on, keep_params=keep_params)


def _without_reports(outcome: Outcome, trials: Iterable[Trials]) -> Outcome:
    """Return an outcome without the results of `report_on`, which are NaN where nothing is reported."""
    splits = {split for one in trials for split in one.report_on}
    kept = {name: values for name, values in outcome.records.items() if name.partition("_")[0] not in splits}
    return replace(outcome, records=kept)


def _check(candidates: Mapping[str, Mapping[str, CandidateTrials]], budget: int) -> None:
    for here in candidates.values():
        for name, candidate in here.items():
            if candidate.defaults is None and (budget == 0 or candidate.space is None):
                lacks = "nothing to tune" if candidate.space is None else "the budget is 0"
                raise ValueError(
                    f"Candidate {name!r} has no default settings and {lacks}. Give it Candidate(…, defaults={{…}}), "
                    "or a space and a budget."
                )


def _entries(
    candidates: Mapping[str, CandidateTrials], searches: Mapping[tuple[str, str], Search], where: str
) -> list[tuple[str, Settings, Mapping[str, Any]]]:
    """Return the reports to make: name, settings and configuration."""
    entries: list[tuple[str, Settings, Mapping[str, Any]]] = []
    for name, candidate in candidates.items():
        if candidate.defaults is not None:
            entries.append((name, "default", candidate.defaults))
        if (where, name) in searches:
            search = searches[where, name]  # if all trials diverged, the one that went furthest
            entries.append((name, "tuned", search.configs[int(search.ranking[0])]))
    return entries


def _report(
    outcome: Outcome,
    ends: Mapping[str, Any],
    problem: str,
    name: str,
    settings: Settings,
    config: Mapping[str, Any],
    metric: str,
    candidate: CandidateTrials,
    seed_keys: Shaped[Key, " seeds"],
) -> Report:
    trials = candidate.trials
    records = dict(outcome.records)
    diverged = records.pop("diverged_at") >= 0
    stalled = records.pop("stalled")
    records.pop("num_steps")
    finals = {name: np.where(diverged, np.nan, values) for name, values in records.items() if values.ndim == 1}
    curves = {name: values for name, values in records.items() if values.ndim == 2}
    finals |= {name: np.where(diverged, np.nan, values[:, -1]) for name, values in curves.items()}
    seconds = float(np.nanmean(outcome.seconds)) if np.isfinite(outcome.seconds).any() else float("nan")
    return Report(
        problem=problem,
        candidate=name,
        settings=settings,
        config=dict(config),
        scores=finals[metric],
        finals=finals,
        curves=curves,
        steps=trials.steps(),
        diverged=diverged,
        stalled=stalled,
        seconds_per_step=seconds / max(trials.num_steps, 1),
        params=ends.get("params"),
        model_state=ends.get("model_state"),
        trials=trials,
        fixed=candidate.fixed,
        seed_keys=seed_keys,
    )
