"""`jaxopt-study compare`: what can be asked for, and in which order it is done."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import tyro
from rich.console import Console

from jaxopt_study import problems, records, sweeps
from jaxopt_study.cli import compare_figures, compare_report
from jaxopt_study.cli.contestants import Contestant, contestants, failure_of
from jaxopt_study.cli.expressions import UserError
from jaxopt_study.cli.folders import choose_folder, results_folder
from jaxopt_study.cli.heats import Heat, curvature_probe, on_plane, repeated, run_heats
from jaxopt_study.cli.network import OnNetwork, described, load_data, network_problem, shown
from jaxopt_study.cli.progress import JobBar
from jaxopt_study.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Compare(OnNetwork):
    """Compare the notes' optimizers on a network on real data, untuned and tuned, and race them on x²/20 + y².

    SGD, momentum, Nesterov, AdaGrad, AdaDelta, RMSprop and Adam. On the network each runs at the notes' settings, and
    tuned: the best of --budget trials of its learning rate by validation loss, drawn log-uniformly from five decades
    (1e-4 to 10; RMSprop and Adam 1e-5 to 1; AdaDelta, which has none, a factor on its step of .01 to 1000). Reports
    come from other seeds than those that tuned, seed by seed from the same start on the same batches, and the test
    examples are seen once. Both rankings are printed with 95% intervals, with who can be told apart, and with tuned
    values at an end of their range. --budget 0 runs the notes' settings only. The contour problem is not tuned.

    Writes into a folder: record.json (configuration, versions, hash of the data, every chain), scores.csv (a row per
    optimizer, settings and seed), curves.csv (a row per step and metric), trials.csv (the trials of the tuning),
    comparison.png (both rankings), differences.png, budget.png (what fewer trials would have found), loss.png,
    accuracy.png, trajectories.png, trajectories-together.png and race.gif. What has finished is kept as it comes;
    Ctrl-C keeps it, and --resume goes on from there.
    """

    optimizer: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MODULE:FUNCTION")] = ()
    """Your own optimizer beside the others: module:function, returning any Optax transformation. If the function has an
    argument learning_rate it is tuned, from 1e-5 to 10 or as --space says; otherwise it takes none, and runs as it is.
    Without a default of that argument it is reported tuned only, and is not in the contour race."""
    only: Annotated[tuple[str, ...], shown("NAME [NAME ...]", "all")] = ()
    """Names of the notes' optimizers to run."""
    budget: int = 10
    """Trials of the tuning of each optimizer; 0 tunes nothing."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTIMIZER.NAME=RANGE")] = ()
    """What is tuned of an optimizer in place of the range above, such as "adam.learning_rate=log(1e-4, 1)" and
    "adam.b1=uniform(0.5, 0.99)"; the ranges are those of `jaxopt-study search`."""
    tune_seeds: int = 1
    """Starts of each trial."""
    seeds: int = 10
    """Starts of each report, which are others. The contour problem has one start."""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """What is reported of the test examples, and ranked."""
    probe: Annotated[Literal["curvature"] | None, shown("{curvature}", "none")] = None
    """Measure sharpness, its ratio to the optimizer's stability limit, and what each step was expected to do, ten times
    along every reported run at the tuned settings (the notes' with --budget 0), on all training examples. Adds
    curvature.png."""

    counts: ClassVar[Mapping[str, int]] = {**OnNetwork.counts, "seeds": 1, "tune_seeds": 1, "budget": 0}

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers of every run.

        Returns:
            Plain values by name.
        """
        own = ("only", "optimizer", "budget", "space", "tune_seeds", "seeds", "metric", "probe")
        return super().settings() | records.plain({name: getattr(self, name) for name in own})

    def run(self, console: Console) -> int:
        """Do it.

        Args:
            console: Where the table goes.

        Returns:
            The exit code.
        """
        return compare(self, console)


@dataclass
class Progress:
    """What a comparison has so far."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    comparison: sweeps.Comparison | None = None
    files: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # from the contour problem

    @property
    def failed(self) -> list[dict[str, Any]]:
        """What could not be run."""
        return [entry for entry in self.entries if "error" in entry]


def compare(config: Compare, console: Console) -> int:
    """Run every optimizer on both problems, keep each result as it comes, and draw, print and save them all.

    Args:
        config: What was asked for.
        console: Where the table goes; progress goes to standard error.

    Returns:
        The exit code.

    Raises:
        UserError: If something asked for cannot be done.
    """
    began = time.perf_counter()
    settings = config.settings()
    runners = contestants(config.only, config.optimizer, config.space)
    dataset = load_data(config)
    folder = choose_folder(config.out, "compare", config.data, resume=config.resume)
    _check_configuration(folder, settings)
    network = network_problem(settings, dataset)
    so_far, status = Progress(), "complete"
    with results_folder(folder):
        try:
            _run(config, settings, runners, network, dataset.sha256, folder, so_far)
        except KeyboardInterrupt:
            status = "interrupted"
    if so_far.failed and status == "complete":
        status = "failed"
    record = records.Record(
        "compare",
        config.data,
        config=settings,
        results={
            "entries": so_far.entries,
            "comparison": compare_report.summary(so_far.comparison),
            "not_on_plane": so_far.absent,
            "seconds": time.perf_counter() - began,
            "data_source": dataset.source,
        },
        data_hash=dataset.sha256,
        status=status,
    )
    tables = compare_report.write(record, so_far.comparison, folder)
    errors = Console(stderr=True)
    if status != "interrupted":
        compare_report.show(console, record, so_far.comparison, [*so_far.files, *tables], folder)
    for entry in so_far.failed:
        message = f"{entry['optimizer']} failed on {entry['problem']}: {entry['error']}"
        errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    if status == "interrupted":
        message = f"Interrupted. What had finished is kept in {folder}; go on with the same arguments and "
        errors.print(f"{message}--out {folder} --resume.", markup=False, highlight=False, soft_wrap=True)
        return 130
    return 1 if so_far.failed else 0


def _run(
    config: Compare,
    settings: dict[str, Any],
    runners: Mapping[str, Contestant],
    network: Problem,
    data_hash: str,
    folder: Path,
    so_far: Progress,
) -> None:
    bowl = problems.planar.bowl()
    so_far.absent += [name for name, runner in runners.items() if runner.on_plane is None]
    with JobBar() as bar:
        for entry in run_heats(on_plane(bowl, runners), {}, folder, bar, resume=config.resume):
            so_far.entries.append(entry)
        able = {}
        for name, runner in runners.items():
            error = failure_of(runner, network) if runner.path else None
            if error is None:
                able[name] = runner
            else:
                so_far.entries.append({"problem": network.name, "optimizer": name, "error": error})
        if able:
            so_far.comparison = _on_network(settings, able, network, folder / "journal", bar)
            so_far.entries += compare_report.entries(so_far.comparison, able)
            if settings["probe"]:
                _probe(settings, able, network, data_hash, folder, so_far, bar, resume=config.resume)
        bar.begin("drawing")
        so_far.files += compare_figures.draw(
            so_far.entries, so_far.comparison, bowl, folder, title=described(settings), settings=settings,
            absent=so_far.absent,
        )  # fmt: skip


def _on_network(
    settings: Mapping[str, Any], runners: Mapping[str, Contestant], network: Problem, journal: Path, bar: JobBar
) -> sweeps.Comparison:
    candidates = {name: runner.on_network for name, runner in runners.items()}
    tuned = sum(settings["budget"] > 0 and one.space is not None for one in candidates.values())
    untuned = sum(one.defaults is not None for one in candidates.values())
    stages = (
        ("tuning", tuned * settings["budget"] * settings["tune_seeds"]),
        ("reporting", (tuned + untuned) * settings["seeds"]),
    )
    try:
        return sweeps.compare(
            candidates,
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
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _probe(
    settings: dict[str, Any],
    runners: Mapping[str, Contestant],
    network: Problem,
    data_hash: str,
    folder: Path,
    so_far: Progress,
    bar: JobBar,
    *,
    resume: bool,
) -> None:
    if so_far.comparison is None:
        return
    program = repeated(network, settings, probe=curvature_probe(settings))
    reports = so_far.comparison.of(network.name, "tuned" if settings["budget"] else "default")
    heats = [
        Heat(network.name, name, report.settings, runners[name].with_settings(report.config), program.run)
        for name, report in reports.items()
    ]
    asked = {"config": settings, "data": data_hash}
    for probed in run_heats(heats, asked, folder, bar, resume=resume):
        for entry in so_far.entries:
            if all(entry.get(name) == probed[name] for name in ("problem", "optimizer", "settings")):
                entry |= {name: probed[name] for name in ("curvature", "error") if name in probed}


def _check_configuration(folder: Path, settings: Mapping[str, Any]) -> None:
    """Complain if a folder that is gone on in has results of another configuration."""
    if not (folder / "record.json").exists():
        return
    try:
        before = records.load(folder).config
    except records.RecordError as error:
        raise UserError(f"cannot go on in {folder}: {error}") from None
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        raise UserError(
            f"{folder} holds results of another configuration, which differs in {', '.join(changed)}. "
            "Name another folder with --out."
        )
