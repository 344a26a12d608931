"""The protocol of a comparison: tune with equal budgets, choose by validation, report from other seeds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from jaxopt_study import files
from jaxopt_study.problems import Problem
from jaxopt_study.records import plain
from jaxopt_study.sweeps.comparison import Comparison, Report, Settings
from jaxopt_study.sweeps.result import Search
from jaxopt_study.sweeps.samplers import sample
from jaxopt_study.sweeps.search import as_search, check_counts, default_mode
from jaxopt_study.sweeps.space import Space
from jaxopt_study.sweeps.sweep import Outcome, sweep
from jaxopt_study.sweeps.trials import Trials
from jaxopt_study.types import Key


class ComparisonInterrupted(KeyboardInterrupt):
    """A comparison was interrupted from the keyboard; `comparison` holds the problems whose reports are complete."""

    def __init__(self, comparison: Comparison):
        super().__init__(f"interrupted with {len(comparison.reports)} reports; .comparison holds them")
        self.comparison = comparison


@dataclass(frozen=True, eq=False)
class Entrant:
    """What is run for one candidate on one problem.

    Attributes:
        trials: How hyperparameters and a seed become a record. Entrants that share it share programs.
        space: What is tuned; None for nothing.
        defaults: Its settings without tuning; None if it has none.
        fixed: Hyperparameters that every one of its trials has.
    """

    trials: Trials
    space: Space | None
    defaults: Mapping[str, Any] | None
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """Which examples choose settings, and which are reported."""

    select: str
    report: str


def splits(problems: Iterable[Problem]) -> Splits:
    """Return on which examples all problems can be reported, and by which their settings can be chosen."""
    problems = list(problems)
    everywhere = lambda part: all(getattr(one, part) is not None for one in problems)
    select = "validation" if everywhere("validation") else "train"
    return Splits(select, "test" if everywhere("test") else select)


def tune_and_report(
    entrants: Mapping[str, Mapping[str, Entrant]],
    *,
    budget: int,
    key: Key,
    tune_seeds: int,
    report_seeds: int,
    sampler: Literal["random", "grid", "sobol"],
    metric: str,
    select_by: str,
    journal: str | Path | None,
    mesh: Mesh | None,
    width: int | Literal["auto"],
    progress: bool | Callable[[int, int, float], None] | None,
) -> Comparison:
    """Run a comparison.

    Args:
        entrants: By problem and candidate.
        budget: As in `compare`, like everything below.
        key: As there.
        tune_seeds: As there.
        report_seeds: As there.
        sampler: As there.
        metric: What is reported, with its examples: "test_loss".
        select_by: What chooses, with its examples: "validation_loss".
        journal: As there; a folder for each problem and stage.
        mesh: As there.
        width: As there.
        progress: As there.

    Returns:
        The comparison.

    Raises:
        ValueError: If an argument is out of range, or an entrant can be neither tuned nor run untuned.
        ComparisonInterrupted: On Ctrl-C.
    """
    _check(entrants, budget, tune_seeds, report_seeds)
    if journal is not None:
        for where in entrants:
            files.check_name("A problem's name, which its folder in the journal gets,", where)
    tune_key, _ = jax.random.split(key)
    found = Comparison([], {}, budget, metric, select_by, default_mode(metric), default_mode(select_by))

    def run(cases: list[tuple[Trials, dict[str, Any]]], stage: str, where: str, seed_keys: Key) -> Outcome:
        asked = {"stage": stage, "seeds": jax.random.key_data(seed_keys), "cases": [config for _, config in cases]}
        outcome = sweep(
            cases, seed_keys=seed_keys, metric=select_by, mode=found.select_mode,
            journal=None if journal is None else Path(journal) / where / stage, asked=plain(asked),
            mesh=mesh, width=width, progress=progress, name=f"{stage} on {where}",
        )  # fmt: skip
        if outcome.interrupted:
            raise ComparisonInterrupted(replace(found, complete=False))
        return outcome

    for number, (where, here) in enumerate(entrants.items()):
        sample_key, seed_key = jax.random.split(jax.random.fold_in(tune_key, number))
        drawn = {
            name: (
                entrant.space,
                *sample(entrant.space, budget, sampler=sampler, key=sample_key),  # equal spaces, equal trials
            )
            for name, entrant in here.items()
            if budget and entrant.space is not None
        }
        if drawn:
            cases = [
                (here[name].trials, {**here[name].fixed, **config})
                for name, (_, configs, _) in drawn.items()
                for config in configs
            ]
            outcome = run(cases, "tune", where, jax.random.split(seed_key, tune_seeds))
            for i, (name, (space, configs, points)) in enumerate(drawn.items()):
                part = outcome.rows(slice(i * budget, (i + 1) * budget))
                found.searches[where, name] = as_search(
                    part, here[name].trials, space, configs, points, select_by, found.select_mode
                )
        entries = _entries(here, found.searches, where)
        final = {id(entrant.trials): _reporting(entrant.trials, metric) for entrant in here.values()}
        cases = [(final[id(here[name].trials)], {**here[name].fixed, **config}) for name, _, config in entries]
        outcome = run(cases, "report", where, report_keys(key, number, report_seeds))
        for row, (name, settings, config) in enumerate(entries):
            trials = here[name].trials
            found.reports.append(_report(outcome.rows(row), where, name, settings, config, metric, trials))
    return found


def report_keys(key: Key, number: int, num_seeds: int) -> Key:
    """Return what decides the reporting seeds of a comparison, so that a run can be repeated.

    Args:
        key: Of the comparison.
        number: Position of the problem among its problems.
        num_seeds: Its `report_seeds`.

    Returns:
        Shape (num_seeds,). Seed j starts at `problem.init` of, and trains with, the first and second of
        `jax.random.split(keys[j])`; `Race` does so.
    """
    return jax.random.split(jax.random.fold_in(jax.random.split(key)[1], number), num_seeds)


def _reporting(trials: Trials, metric: str) -> Trials:
    """Return trials whose final parameters see the test examples, if these are what is reported."""
    return replace(trials, report_on=("test",)) if metric.startswith("test_") else trials


def _check(entrants: Mapping[str, Mapping[str, Entrant]], budget: int, tune_seeds: int, report_seeds: int) -> None:
    check_counts("A comparison", tune_seeds=tune_seeds, report_seeds=report_seeds)
    if not isinstance(budget, int | np.integer) or isinstance(budget, bool) or budget < 0:
        raise ValueError(f"A comparison needs budget to be an integer ≥ 0, in trials; received {budget!r}.")
    for here in entrants.values():
        for name, entrant in here.items():
            if entrant.defaults is None and (budget == 0 or entrant.space is None):
                lacks = "nothing to tune" if entrant.space is None else "the budget is 0"
                raise ValueError(
                    f"Candidate {name!r} has no default settings and {lacks}: give it Candidate(…, defaults={{…}}), "
                    "or a space and a budget."
                )


def _entries(
    entrants: Mapping[str, Entrant], searches: Mapping[tuple[str, str], Search], where: str
) -> list[tuple[str, Settings, Mapping[str, Any]]]:
    """Return what is reported: name, settings and configuration."""
    entries: list[tuple[str, Settings, Mapping[str, Any]]] = []
    for name, entrant in entrants.items():
        if entrant.defaults is not None:
            entries.append((name, "default", entrant.defaults))
        if (where, name) in searches:
            search = searches[where, name]  # of trials that all diverged, the one that went furthest
            entries.append((name, "tuned", search.configs[int(search.ranking[0])]))
    return entries


def _report(
    outcome: Outcome,
    problem: str,
    candidate: str,
    settings: Settings,
    config: Mapping[str, Any],
    metric: str,
    trials: Trials,
) -> Report:
    records = dict(outcome.records)
    diverged = records.pop("diverged_at") >= 0
    records.pop("num_steps")
    finals = {name: np.where(diverged, np.nan, values) for name, values in records.items() if values.ndim == 1}
    curves = {name: values for name, values in records.items() if values.ndim == 2}
    finals |= {name: np.where(diverged, np.nan, values[:, -1]) for name, values in curves.items()}
    seconds = float(np.nanmean(outcome.seconds)) if np.isfinite(outcome.seconds).any() else float("nan")
    return Report(
        problem=problem,
        candidate=candidate,
        settings=settings,
        config=dict(config),
        scores=finals[metric],
        finals=finals,
        curves=curves,
        steps=trials.steps(),
        diverged=diverged,
        seconds_per_step=seconds / max(trials.num_steps, 1),
    )
