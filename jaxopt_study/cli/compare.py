"""`jaxopt-study compare`: what can be asked for, and in which order it is done."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import optax
import tyro
from rich.console import Console

from jaxopt_study import dynamics, problems, race, records
from jaxopt_study.cli import finals
from jaxopt_study.cli.expressions import UserError, import_optimizer
from jaxopt_study.cli.progress import progress_bar
from jaxopt_study.cli.report import draw, show, tidy_rows, write_results
from jaxopt_study.problems import Problem
from jaxopt_study.problems.datasets import Dataset, DatasetError
from jaxopt_study.training import CurvatureProbe

POINTS = 30  # plotted in the plane, the start included
MEASUREMENTS = 10  # of curvature along a run, besides the last
SETTINGS: dict[str, dict[str, Any]] = {  # where the user says nothing
    "digits": {"steps": 1000, "batch_size": 64, "widths": (100, 100)},
    "mnist": {"steps": 2000, "batch_size": 128, "widths": (100, 100, 100, 100)},
    "fashion_mnist": {"steps": 2000, "batch_size": 128, "widths": (100, 100, 100, 100)},
}


def _shown(metavar: str, default: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True)
class Compare:
    """Train the notes' optimizers on x²/20 + y² and on a network on real data, and draw what happened.

    SGD, momentum, Nesterov, AdaGrad, AdaDelta, RMSprop and Adam run at the notes' settings, from the same starts and on
    the same batches. Nothing is tuned: the ranking is a ranking of those settings.

    Writes into a folder: record.json (configuration, versions, hash of the data, every chain), curves.csv (a row per
    optimizer, seed, step and metric), loss.png, accuracy.png, trajectories.png, trajectories-together.png and race.gif;
    and in parts/, for `jaxopt-study curvature`, where every run ended. Each optimizer is saved when it has finished;
    Ctrl-C keeps those, and --resume goes on from there.
    """

    data: Literal["digits", "mnist", "fashion_mnist"] = "digits"
    """What the network learns. The digits come with scikit-learn; the others are read from files."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """The folder with the four IDX files, or one above it; else $JAXOPT_STUDY_DATA, or what --download fills."""
    download: bool = False
    """Download missing files of MNIST (11 MB) or Fashion-MNIST (30 MB), and check them."""
    optimizer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Your own optimizer beside the others: module:function, without arguments, returning any Optax transformation."""
    only: Annotated[tuple[str, ...], _shown("NAME [NAME ...]", "all")] = ()
    """Names of the notes' optimizers to run."""
    seeds: int = 5
    """Number of starts, which run side by side. The contour problem has one start."""
    seed: int = 0
    """Which starts, batches and split of the data."""
    steps: Annotated[int | None, _shown("INT", "1000 on digits, 2000 on the others")] = None
    """Training steps of the network."""
    batch_size: Annotated[int | None, _shown("INT", "64 on digits, 128 on the others")] = None
    """Examples per step."""
    widths: Annotated[
        tuple[int, ...] | None, _shown("INT [INT ...]", "100 100 on digits, 100 100 100 100 on the others")
    ] = None
    """Hidden layers of the network."""
    evaluations: Annotated[int, tyro.conf.arg(metavar="INT")] = 40
    """How often the validation examples are evaluated along a run."""
    probe: Annotated[Literal["curvature"] | None, _shown("{curvature}", "none")] = None
    """Measure sharpness, its ratio to the optimizer's stability limit, and what each step was expected to do, ten times
    along every run of the network, on all training examples. Adds curvature.png."""
    out: Annotated[Path | None, _shown("PATH", "results/compare-DATA-TIME")] = None
    """The results folder."""
    resume: bool = False
    """Go on in a folder that an earlier run of the same configuration left (--out names it)."""

    def run(self, console: Console) -> int:
        """Do it.

        Args:
            console: Where the table goes.

        Returns:
            The exit code.
        """
        return compare(self, console)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the numbers of an optimizer.

        Returns:
            Plain values by name, with the defaults of the data set filled in.

        Raises:
            UserError: If one is out of range.
        """
        own = {
            name: getattr(self, name) for name in ("data", "seeds", "seed", "steps", "batch_size", "widths", "probe")
        }
        chosen: dict[str, Any] = {
            name: SETTINGS[self.data].get(name) if value is None else value for name, value in own.items()
        }
        chosen["evaluate_every"] = max(1, chosen["steps"] // max(1, self.evaluations))
        for name in ("seeds", "steps", "batch_size"):
            if chosen[name] < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1; received {chosen[name]}.")
        if any(width < 1 for width in chosen["widths"]):
            raise UserError(f"--widths must be at least 1 each; received {' '.join(map(str, chosen['widths']))}.")
        return records.plain(chosen)


@dataclass(frozen=True)
class Heat:
    """One optimizer on one problem."""

    problem: str
    name: str
    optimizer: optax.GradientTransformation
    run: Callable[[optax.GradientTransformation], race.Result]


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
    plane, network = contestants(config)
    dataset = load_data(config)
    folder = open_folder(config, settings)
    bowl = problems.planar.bowl()
    classifier = network_problem(settings, dataset)
    if settings["batch_size"] > (classifier.num_examples or 0):
        raise UserError(
            f"--batch-size {settings['batch_size']} is more than the {classifier.num_examples} training examples."
        )
    entries: list[dict[str, Any]] = []
    status: records.Status = "complete"
    total = len(plane) + len(network)
    try:
        with progress_bar() as (advance, say):
            for heat in heats(bowl, classifier, plane, network, settings):
                advance(heat.problem, heat.name, len(entries), total)
                entry = finish(heat, settings, dataset.sha256, folder, resume=config.resume)
                entries.append(entry)
                say(entry)
            advance("drawing", "", total, total)
            whole = [entry for entry in entries if "error" not in entry]
            written = draw(whole, bowl, folder, title=f"{config.data}, MLP {'-'.join(map(str, settings['widths']))}")
    except KeyboardInterrupt:
        status, written = "interrupted", []
    if any("error" in entry for entry in entries):
        status = "failed" if status == "complete" else status
    record = records.Record(
        "compare",
        config.data,
        config=settings,
        results={"entries": entries, "seconds": time.perf_counter() - began, "data_source": dataset.source},
        data_hash=dataset.sha256,
        status=status,
    )
    write_results(record, tidy_rows(entries), folder)
    if status != "interrupted":
        show(console, record, [*written, "curves.csv", "record.json"], folder)
    failed = [entry for entry in entries if "error" in entry]
    for entry in failed:
        message = f"{entry['optimizer']} failed on {entry['problem']}: {entry['error']}"
        Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    if status == "interrupted":
        message = (
            f"Interrupted. {len(entries)} of {total} runs had finished and are kept in {folder}; "
            f"go on with the same arguments and --out {folder} --resume."
        )
        Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
        return 130
    return 1 if failed else 0


def contestants(config: Compare) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the optimizers by name, for the plane and for the network."""
    plane, network = race.plane_optimizers(), race.network_optimizers()
    unknown = [name for name in config.only if name not in network]
    if unknown:
        raise UserError(f"--only {' '.join(unknown)}: not among the notes' optimizers, {', '.join(network)}.")
    if config.only:
        plane, network = ({name: which[name] for name in config.only} for which in (plane, network))
    for path in config.optimizer:
        if config.optimizer.count(path) > 1:
            raise UserError(f"--optimizer {path} is given twice.")
        built = import_optimizer(path)
        short = path.rpartition(":")[2]
        name = path if short in network else short
        plane, network = plane | {name: built}, network | {name: built}
    return plane, network


def load_data(config: Compare) -> Dataset:
    """Return the data set."""
    if config.data == "digits":
        if config.data_dir is not None or config.download:
            raise UserError(
                "--data-dir and --download are for --data mnist and fashion_mnist; the digits need neither."
            )
        return problems.datasets.digits(seed=config.seed)
    load = getattr(problems.datasets, config.data)
    try:
        return load(config.data_dir, download=config.download, seed=config.seed)
    except DatasetError as error:
        remedy = str(error).replace("Give data_dir", "Give --data-dir").replace("pass download=True", "pass --download")
        raise UserError(remedy) from None


def network_problem(settings: Mapping[str, Any], dataset: Dataset) -> Problem:
    """Return the network on its data."""
    network = problems.networks.mlp_classifier(dataset, widths=tuple(settings["widths"]))
    return network.replace(name=settings["data"])


def open_folder(config: Compare, settings: dict[str, Any]) -> Path:
    """Return the results folder, empty, new, or to be continued."""
    if config.out is None:
        if config.resume:
            raise UserError("--resume needs --out, the folder to go on in.")
        return Path("results") / f"compare-{config.data}-{datetime.now():%Y%m%d-%H%M%S}"
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"--out {config.out} is a file; name a folder.")
    if config.out.is_dir() and any(config.out.iterdir()):
        if not config.resume:
            raise UserError(f"{config.out} holds something already. Name another folder with --out, or add --resume.")
        if (config.out / "record.json").exists():
            try:
                before = records.load(config.out).config
            except records.RecordError as error:
                raise UserError(f"cannot go on in {config.out}: {error}") from None
            changed = sorted(name for name in settings if before.get(name) != settings[name])
            if changed:
                raise UserError(
                    f"{config.out} holds results of another configuration, which differs in {', '.join(changed)}. "
                    "Name another folder with --out."
                )
    return config.out


def heats(
    plane: Problem, network: Problem, on_plane: dict[str, Any], on_network: dict[str, Any], settings: dict[str, Any]
) -> Iterator[Heat]:
    """Yield what is to be run, in order; the programs of a problem are shared."""
    short = race.Race(plane, num_steps=POINTS - 1, record_params_every=1)
    for name, optimizer in on_plane.items():
        yield Heat(plane.name, name, optimizer, short.run)
    long = race.Race(
        network,
        num_steps=settings["steps"],
        num_seeds=settings["seeds"],
        seed=settings["seed"],
        batch_size=settings["batch_size"],
        evaluate_every=settings["evaluate_every"],
        probe=curvature_probe(settings) if settings["probe"] else None,
    )
    for name, optimizer in on_network.items():
        yield Heat(network.name, name, optimizer, long.run)


def curvature_probe(settings: Mapping[str, Any]) -> CurvatureProbe:
    """Return what `--probe curvature` measures; for the loss over all examples a batch of 1,000 at a time is enough."""
    return CurvatureProbe(every=max(1, settings["steps"] // MEASUREMENTS), batch_size=1000)


def finish(heat: Heat, settings: dict[str, Any], data_hash: str, folder: Path, *, resume: bool) -> dict[str, Any]:
    """Return the result of a heat, from an earlier run if it has the same configuration, else by running it."""
    described = race.specification(heat.optimizer)
    asked = {"settings": settings, "problem": heat.problem, "data": data_hash, "spec": described["spec"]}
    part = folder / "parts" / f"{heat.problem}-{heat.name.replace(':', '.')}.json"
    if resume and described["spec"] is not None and part.exists():
        try:
            kept = records.load(part)
        except records.RecordError:
            kept = None  # a damaged part is made again
        if kept is not None and kept.config == records.plain(asked):
            return dict(kept.results)
    entry: dict[str, Any] = {"problem": heat.problem, "optimizer": heat.name, **described}
    try:
        result = heat.run(heat.optimizer)
        entry |= outcome(result, heat.optimizer)
    except Exception as error:  # a user's optimizer may raise anything; the others go on
        entry["error"] = f"{type(error).__name__}: {error}"
        return records.plain(entry)
    entry["final"] = finals.save(result, part.with_suffix(".npz"))
    record = records.Record(
        "compare-part", f"{heat.problem}/{heat.name}", config=asked, results=entry, data_hash=data_hash
    )
    records.save(record, part)
    return dict(record.results)


def outcome(result: race.Result, optimizer: optax.GradientTransformation) -> dict[str, Any]:
    """Return a result as plain values."""
    run = result.trajectory
    curves = {"train_loss": result.windowed_losses()}
    for name, values in run.evaluations.items():
        curves |= {"step": values[0]} if name == "step" else {name: values}
    if run.snapshots is not None:
        curves |= {"step": run.snapshot_steps[0], "path": run.snapshots}
    curvature = {}
    if run.probes is not None:
        curvature = {
            "curvature": {"step": run.probe_steps[0], "limit": stability_limit(optimizer, result), **run.probes}
        }
    return curvature | {
        "seeds": len(result.diverged),
        "diverged": result.diverged,
        "diverged_at": run.diverged_at,
        "curves": curves,
        "finals": result.finals,
        "compile_seconds": result.compile_seconds,
        "run_seconds": result.run_seconds,
    }


def stability_limit(optimizer: optax.GradientTransformation, result: race.Result) -> float:
    """Return the gain sharpness at which the optimizer is at its edge, NaN where a single number does not decide."""
    of_one = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
    run = result.trajectory
    try:
        return dynamics.stability_limit(optimizer, of_one(run.opt_state), of_one(run.params))
    except ValueError:  # the update mixes parameters
        return float("nan")
