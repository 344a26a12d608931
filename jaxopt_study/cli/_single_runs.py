"""Runs of one optimizer after the other, each kept when it has finished: the contour problem, and curvature probes."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxopt_study import dynamics, files, records, sweeps
from jaxopt_study.cli._candidates import NamedCandidate
from jaxopt_study.cli._expressions import specification
from jaxopt_study.cli._progress import JobBar, waiting
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps import Report
from jaxopt_study.training import CurvatureProbe, Trajectory, evaluate, train

POINTS = 30  # plotted in the plane, the start included
MEASUREMENTS = 10  # of curvature along a run, besides the last


@dataclass(frozen=True)
class Run:
    """One optimizer with given settings on one problem.

    Attributes:
        problem: Name of the problem.
        name: Name of the optimizer.
        settings: "default" or "tuned".
        optimizer: The optimizer.
        results: Runs it and returns its results by name.
        keys: The names of the results.
        config: Hyperparameters that the optimizer does not describe itself.
    """

    problem: str
    name: str
    settings: str
    optimizer: optax.GradientTransformation
    results: Callable[[], dict[str, Any]]
    keys: tuple[str, ...]
    config: Mapping[str, Any] | None = None


def plane_runs(plane: Problem, candidates: Mapping[str, NamedCandidate]) -> list[Run]:
    """Return the runs on the contour problem of all candidates that have settings for it.

    Args:
        plane: The problem.
        candidates: All candidates.
    """
    runs = []
    for name, candidate in candidates.items():
        if candidate.plane is not None:
            config = candidate.network.defaults if candidate.path else None
            compute = lambda tx=candidate.plane: _path(plane, tx)
            runs.append(Run(plane.name, name, "default", candidate.plane, compute, _PATH, config))
    return runs


_PATH = ("seeds", "diverged", "diverged_at", "curves", "finals")


def _path(plane: Problem, optimizer: optax.GradientTransformation) -> dict[str, Any]:
    init_key, key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    run = train(
        plane, optimizer, num_steps=POINTS - 1, key=key, params=plane.init(init_key), record_params_every=1,
        progress=False,
    )  # fmt: skip
    losses = np.asarray(run.losses, dtype=float)
    curves = {
        "train_loss": np.append(losses[:1], losses)[None],
        "step": run.snapshot_steps,
        "path": run.snapshots[None],
    }
    finals = {f"train_{name}": value[None] for name, value in evaluate(plane, run.params, on="train").items()}
    return {
        "seeds": 1,
        "diverged": run.diverged[None],
        "diverged_at": run.diverged_at[None],
        "curves": curves,
        "finals": finals,
    }


def probe_runs(
    reports: Mapping[str, Report], candidates: Mapping[str, NamedCandidate], settings: Mapping[str, Any]
) -> list[Run]:
    """Return repetitions of the reported runs of a comparison that measure the curvature on the way.

    A batch of 1,000 examples at a time is enough for the loss over all examples.

    Args:
        reports: Reports of the comparison, by candidate.
        candidates: The candidates.
        settings: Configuration of the comparison.
    """
    probe = CurvatureProbe(every=max(1, settings["steps"] // MEASUREMENTS), batch_size=1000)
    runs = []
    for name, report in reports.items():
        optimizer = candidates[name].with_settings(report.config)
        compute = lambda tx=optimizer, report=report: {"curvature": _curvature(report, tx, probe)}
        runs.append(Run(report.problem, name, report.settings, optimizer, compute, ("curvature",)))
    return runs


def _curvature(report: Report, optimizer: optax.GradientTransformation, probe: CurvatureProbe) -> dict[str, Any]:
    runs = [report.replay(seed, probe=probe, progress=False) for seed in range(len(report.scores))]
    probes = jax.tree.map(lambda *leaves: np.stack(leaves), *(run.probes for run in runs))
    return {"step": runs[0].probe_steps, "limit": _stability_limit(optimizer, runs[0]), **probes}


def _stability_limit(optimizer: optax.GradientTransformation, run: Trajectory) -> float:
    """Return the gain sharpness at the edge of stability, NaN if no single number decides it."""
    try:
        return dynamics.stability_limit(optimizer, run.opt_state, run.params)
    except ValueError:  # the update mixes parameters
        return float("nan")


def repeat(
    network: Problem, settings: Mapping[str, Any], optimizer: optax.GradientTransformation, seed: int
) -> Trajectory:
    """Repeat a reported run of a comparison, whose record has its scores but not its end point.

    Args:
        network: Problem of the comparison.
        settings: Configuration of the comparison.
        optimizer: The optimizer at the settings of the report.
        seed: Index of the reporting seed.

    Returns:
        The trajectory.
    """
    keys = sweeps.report_keys(jax.random.key(settings["seed"]), 0, settings["seeds"])
    init_key, key = jax.random.split(keys[seed])
    return train(
        network, optimizer, num_steps=settings["steps"], key=key, params=network.init(init_key),
        batch_size=settings["batch_size"], progress=False,
    )  # fmt: skip


def kept_runs(
    runs: list[Run], config: Mapping[str, Any], folder: Path, bar: JobBar, *, resume: bool
) -> Iterator[dict[str, Any]]:
    """Run one after the other, and read the results of runs that an earlier process has finished.

    Args:
        runs: The runs.
        config: Configuration that decides the numbers, besides the optimizer and the problem.
        folder: Results folder; each run has its own file, in parts/.
        bar: Progress bar of the job.
        resume: Whether to look for files.

    Yields:
        Results as plain values; those of failed runs have an "error".
    """
    for number, planned in enumerate(runs):
        bar.begin(f"{planned.problem} {planned.name}", number, len(runs))
        described = specification(planned.optimizer)
        expected = {**config, "problem": planned.problem, "settings": planned.settings, "spec": described["spec"]}
        name = files.check_name("A run's name", f"{planned.problem}-{planned.name.replace(':', '.')}")
        part = folder / "parts" / f"{name}.json"
        start = {"problem": planned.problem, "optimizer": planned.name, "settings": planned.settings, **described}
        start |= {} if planned.config is None else {"config": planned.config}
        entry = _kept(part, expected, start, planned.keys) if resume and described["spec"] is not None else None
        if entry is None:
            began = time.perf_counter()
            try:
                results = waiting(planned.results)
                entry = records.plain(start | results | {"run_seconds": time.perf_counter() - began})
            except Exception as error:  # a user's optimizer may raise anything; the others go on
                entry = records.plain(start | {"error": f"{type(error).__name__}: {error}"})
            else:
                records.save(records.Record("compare-part", part.stem, config=expected, results=entry), part)
        bar.end(entry)
        yield entry


def _kept(
    part: Path, expected: Mapping[str, Any], start: Mapping[str, Any], keys: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return the results in a file; None if there is none, or those of another run, or a damaged or forged one."""
    try:
        kept = records.load(part)
    except records.RecordError:
        return None
    results = kept.results
    same = kept.config == records.plain(expected) and records.plain(start).items() <= results.items()
    return dict(results) if same and set(keys) <= set(results) and _is_outcome(results, keys) else None


def _is_outcome(entry: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Return whether plain values are such as a run returns; a file may come from anyone."""
    numbers: list[Any] = [entry.get("run_seconds")]
    if "curvature" in keys:
        probed = entry["curvature"]
        if not isinstance(probed, dict) or not {"step", "limit"} <= probed.keys():
            return False
        numbers += jax.tree.leaves(probed, is_leaf=lambda part: isinstance(part, list))
    if "curves" in keys:
        curves, finals, seeds = entry["curves"], entry["finals"], entry["seeds"]
        if type(seeds) is not int or not isinstance(curves, dict) or not isinstance(finals, dict):
            return False
        if not {"step", "train_loss", "path"} <= curves.keys() or "train_loss" not in finals:
            return False
        of_seeds = [entry["diverged"], entry["diverged_at"], *finals.values()]
        of_seeds += [values for name, values in curves.items() if name != "step"]
        if not all(isinstance(values, list) and len(values) == seeds for values in of_seeds):
            return False
        numbers += [curves["step"], *of_seeds]
    return all(_are_numbers(values) for values in numbers)


def _are_numbers(values: Any) -> bool:
    try:
        return np.asarray(values).dtype.kind in "biuf"
    except ValueError:  # lists of different lengths
        return False
