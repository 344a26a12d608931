"""Runs of one optimizer after the other, each kept when it has finished: the contour problem, and probed runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from jaxopt_study import dynamics, files, records, sweeps
from jaxopt_study.cli._candidates import NamedCandidate
from jaxopt_study.cli._expressions import specification
from jaxopt_study.cli._multi_seed import MultiSeedRun, SeedsResult
from jaxopt_study.cli._progress import JobBar, waiting
from jaxopt_study.problems import Problem
from jaxopt_study.training import CurvatureProbe

POINTS = 30  # plotted in the plane, the start included
MEASUREMENTS = 10  # of curvature along a run, besides the last


@dataclass(frozen=True)
class Run:
    """One optimizer at given settings on one problem; `config` are those that it cannot tell itself."""

    problem: str
    name: str
    settings: str
    optimizer: optax.GradientTransformation
    train: Callable[[optax.GradientTransformation], SeedsResult]
    config: Mapping[str, Any] | None = None


def plane_runs(plane: Problem, candidates: Mapping[str, NamedCandidate]) -> list[Run]:
    """Return the runs on the contour problem, without the candidates that have no settings for it.

    Args:
        plane: The problem.
        candidates: All of them.
    """
    key = jax.random.fold_in(jax.random.key(0), 0)
    program = MultiSeedRun(plane, key[None], num_steps=POINTS - 1, record_params_every=1)
    return [
        Run(plane.name, name, "default", candidate.plane, program.train, config=_own_settings(candidate))
        for name, candidate in candidates.items()
        if candidate.plane is not None
    ]


def _own_settings(candidate: NamedCandidate) -> Mapping[str, Any] | None:
    """Return the default settings of a user's optimizer; the notes' have settings of the contour problem's own."""
    return candidate.network.defaults if candidate.path else None


def repeated(
    network: Problem,
    settings: Mapping[str, Any],
    seeds: slice = slice(None),
    *,
    probe: CurvatureProbe | None = None,
) -> MultiSeedRun:
    """Return what repeats the reported runs of a comparison, which kept their scores but not where they ended.

    Args:
        network: The problem of the comparison.
        settings: Its configuration.
        seeds: Which of its seeds.
        probe: What to measure on the way.
    """
    keys = sweeps.report_keys(jax.random.key(settings["seed"]), 0, settings["seeds"])[seeds]
    return MultiSeedRun(
        network,
        keys,
        num_steps=settings["steps"],
        batch_size=settings["batch_size"],
        evaluate_every=settings["evaluate_every"],
        probe=probe,
    )


def curvature_probe(settings: Mapping[str, Any]) -> CurvatureProbe:
    """Return what `--probe curvature` measures; for the loss over all examples a batch of 1,000 at a time is enough.

    Args:
        settings: The configuration of the comparison.
    """
    return CurvatureProbe(every=max(1, settings["steps"] // MEASUREMENTS), batch_size=1000)


def kept_runs(
    runs: list[Run], asked: Mapping[str, Any], folder: Path, bar: JobBar, *, resume: bool
) -> Iterator[dict[str, Any]]:
    """Run one after the other; what an earlier process finished is read.

    Args:
        runs: What to run.
        asked: What decides the numbers besides the optimizer and the problem.
        folder: Of the results; each goes into a file of its own, in parts/.
        bar: Is told when a run begins and ends.
        resume: Whether to look for files.

    Yields:
        Results as plain values; those that failed have an "error".
    """
    for number, planned in enumerate(runs):
        bar.begin(f"{planned.problem} {planned.name}", number, len(runs))
        described = specification(planned.optimizer)
        wanted = {**asked, "problem": planned.problem, "settings": planned.settings, "spec": described["spec"]}
        name = files.check_name("A run's name", f"{planned.problem}-{planned.name.replace(':', '.')}")
        part = folder / "parts" / f"{name}.json"
        entry = _kept(part, wanted) if resume and described["spec"] is not None else None
        if entry is None:
            start = {"problem": planned.problem, "optimizer": planned.name, "settings": planned.settings, **described}
            start |= {} if planned.config is None else {"config": planned.config}
            try:
                result = waiting(lambda planned=planned: planned.train(planned.optimizer))
                entry = records.plain(start | _outcome(result, planned.optimizer))
            except Exception as error:  # a user's optimizer may raise anything; the others go on
                entry = records.plain(start | {"error": f"{type(error).__name__}: {error}"})
            else:
                records.save(records.Record("compare-part", part.stem, config=wanted, results=entry), part)
        bar.end(entry)
        yield entry


def _kept(part: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        kept = records.load(part)
    except records.RecordError:  # none, or a damaged one, which is made again
        return None
    whole = {"problem", "optimizer", "settings", "diverged", "curves", "finals"} <= set(kept.results)
    return dict(kept.results) if whole and kept.config == records.plain(wanted) else None


def _outcome(result: SeedsResult, optimizer: optax.GradientTransformation) -> dict[str, Any]:
    """Return a result as plain values."""
    run = result.trajectory
    curves = {"train_loss": result.windowed_losses()}
    for name, values in run.evaluations.items():
        curves |= {"step": values[0]} if name == "step" else {name: values}
    if run.snapshots is not None:
        curves |= {"step": run.snapshot_steps[0], "path": run.snapshots}
    probed = {}
    if run.probes is not None:
        probed = {"curvature": {"step": run.probe_steps[0], "limit": _stability_limit(optimizer, result), **run.probes}}
    return probed | {
        "seeds": len(result.diverged),
        "diverged": result.diverged,
        "diverged_at": run.diverged_at,
        "curves": curves,
        "finals": result.finals,
        "compile_seconds": result.compile_seconds,
        "run_seconds": result.run_seconds,
    }


def _stability_limit(optimizer: optax.GradientTransformation, result: SeedsResult) -> float:
    """Return the gain sharpness at which the optimizer is at its edge, NaN where a single number does not decide."""
    of_one = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    run = result.trajectory
    try:
        return dynamics.stability_limit(optimizer, of_one(run.opt_state), of_one(run.params))
    except ValueError:  # the update mixes parameters
        return float("nan")
