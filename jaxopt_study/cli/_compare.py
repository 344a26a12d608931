"""The command `jaxopt-study compare`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from jaxopt_study import problems, records, sweeps
from jaxopt_study.cli import _compare_figures, _compare_report
from jaxopt_study.cli._candidates import NamedCandidate, failure_of, named_candidates
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._folders import choose_folder, results_folder
from jaxopt_study.cli._network import described, load_data, network_problem, network_settings
from jaxopt_study.cli._options import Compare
from jaxopt_study.cli._progress import JobBar
from jaxopt_study.cli._runner import Job, complain, interrupted, user_errors
from jaxopt_study.cli._single_runs import kept_runs, plane_runs, probe_runs
from jaxopt_study.problems import Problem


@dataclass
class Progress:
    """Results of a comparison so far."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    comparison: sweeps.Comparison | None = None
    files: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # candidates without settings for the contour problem

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Entries of candidates that raised."""
        return [entry for entry in self.entries if "error" in entry]


def compare(options: Compare, job: Job) -> int:
    """Run every candidate on both problems; print, draw and save the results.

    Returns:
        The exit code.

    Raises:
        UserError: If an option cannot be used.
    """
    settings = network_settings(options)
    candidates = named_candidates(options.only, options.optimizer, options.space)
    dataset = load_data(options)
    folder = choose_folder(options.out, "compare", options.data, resume=options.resume)
    _check_configuration(folder, settings)
    network = network_problem(settings, dataset)
    so_far, status = Progress(), "complete"
    with results_folder(folder):
        try:
            _run(options, settings, candidates, network, dataset.sha256, folder, so_far)
        except KeyboardInterrupt:
            status = "interrupted"
    if so_far.failed and status == "complete":
        status = "failed"
    results = {
        "entries": so_far.entries,
        "comparison": _compare_report.summary(so_far.comparison),
        "not_on_plane": so_far.absent,
    }
    record = job.record(options.data, settings, results, dataset, status)
    tables = _compare_report.write(record, so_far.comparison, folder)
    if status != "interrupted":
        share = network.is_proportion(settings["metric"])
        _compare_report.show(job, record, so_far.comparison, [*so_far.files, *tables], folder, share=share)
    for entry in so_far.failed:
        complain(f"{entry['optimizer']} failed on {entry['problem']}: {entry['error']}", "red")
    if status == "interrupted":
        return interrupted(folder)
    return 1 if so_far.failed else 0


def _run(
    options: Compare,
    settings: dict[str, Any],
    candidates: Mapping[str, NamedCandidate],
    network: Problem,
    data_hash: str,
    folder: Path,
    so_far: Progress,
) -> None:
    bowl = problems.planar.bowl()
    so_far.absent += [name for name, candidate in candidates.items() if candidate.plane is None]
    with JobBar() as bar:
        for entry in kept_runs(plane_runs(bowl, candidates), {}, folder, bar, resume=options.resume):
            so_far.entries.append(entry)
        able = {}
        for name, candidate in candidates.items():
            error = failure_of(candidate, network) if candidate.path else None
            if error is None:
                able[name] = candidate
            else:
                so_far.entries.append({"problem": network.name, "optimizer": name, "error": error})
        if able:
            so_far.comparison = _on_network(settings, able, network, folder / "journal", bar)
            so_far.entries += _compare_report.entries(so_far.comparison, able)
            if settings["probe"]:
                _probe(settings, able, data_hash, folder, so_far, bar, resume=options.resume)
        bar.begin("drawing")
        so_far.files += _compare_figures.draw(
            so_far.entries, so_far.comparison, bowl, folder, title=described(settings), settings=settings,
            absent=so_far.absent,
        )  # fmt: skip


def _on_network(
    settings: Mapping[str, Any], candidates: Mapping[str, NamedCandidate], network: Problem, journal: Path, bar: JobBar
) -> sweeps.Comparison:
    entries = {name: candidate.network for name, candidate in candidates.items()}
    tuned = sum(settings["budget"] > 0 and one.space is not None for one in entries.values())
    untuned = sum(one.defaults is not None for one in entries.values())
    stages = (
        ("tuning", tuned * settings["budget"] * settings["tune_seeds"]),
        ("reporting", (tuned + untuned) * settings["seeds"]),
    )
    with user_errors():
        return sweeps.compare(
            entries,
            network,
            budget=settings["budget"],
            num_steps=settings["steps"],
            key=jax.random.key(settings["seed"]),
            tune_seeds=settings["tune_seeds"],
            report_seeds=settings["seeds"],
            metric=settings["metric"],
            select_by="loss",
            batch_size=settings["batch_size"],
            evaluate_every=settings["evaluate_every"],
            journal=journal,
            progress=bar.sweep(network.name, "validation loss", *stages),
        )


def _probe(
    settings: dict[str, Any],
    candidates: Mapping[str, NamedCandidate],
    data_hash: str,
    folder: Path,
    so_far: Progress,
    bar: JobBar,
    *,
    resume: bool,
) -> None:
    if so_far.comparison is None:
        return
    reports = so_far.comparison.of(None, "tuned" if settings["budget"] else "default")
    runs = probe_runs(reports, candidates, settings)
    config = {"config": settings, "data": data_hash}
    for probed in kept_runs(runs, config, folder, bar, resume=resume):
        for entry in so_far.entries:
            if all(entry.get(name) == probed[name] for name in ("problem", "optimizer", "settings")):
                entry |= {name: probed[name] for name in ("curvature", "error") if name in probed}


def _check_configuration(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise UserError if a folder to resume holds results of another configuration."""
    if not (folder / "record.json").exists():
        return
    try:
        before = records.load(folder).config
    except records.RecordError as error:
        raise UserError(f"{folder} cannot be resumed: {error}") from None
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        raise UserError(
            f"{folder} holds results of another configuration, with a different {', '.join(changed)}. "
            "Name another folder with --out."
        )
