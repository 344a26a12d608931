"""`jaxopt-study curvature`: what can be asked for, and in which order it is done."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from jaxopt_study import records
from jaxopt_study.cli.curvature_report import draw, eigenvalue_rows, show
from jaxopt_study.cli.diagnosis import STAGES, Choices, Subject
from jaxopt_study.cli.expressions import UserError
from jaxopt_study.cli.folders import choose_folder, make_folder
from jaxopt_study.cli.progress import stages_bar, waiting
from jaxopt_study.cli.targets import content_hash, find_target


@dataclass(frozen=True)
class Curvature:
    """Diagnose the Hessian where a run of `compare` ended, or at your own parameters.

    It audits the Hessian's products, then finds eigenvalues at both ends, a bracket of the largest one and so of the
    critical learning rate, the density of the spectrum, its trace, the curvature along the gradient, and the kind of
    point; and with an optimizer its stability threshold, the sharpness in its own metric, and whether its next step is
    stable. Every number comes with its error.

    Writes into a folder: record.json (configuration, versions, hashes, every number), eigenvalues.csv (a row per
    eigenvalue, with its residual) and spectrum.png. The record is written after every stage; Ctrl-C keeps those.
    """

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """A results folder of `jaxopt-study compare`, whose run is repeated; or your own module:name, which is (loss,
    params), (loss, params, data) or (loss, params, data, opt_state) with a scalar loss(params, data), the mean over the
    examples, or a function that returns one."""
    optimizer: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Of a folder: which of its optimizers, in the state in which the run left it; name one that your own code built as
    it was named in `compare`, module:function, for a folder runs no code. Of your own loss: one as in `jaxopt-study
    explain`, such as "adam(1e-3)", in the state that TARGET gives, else in the one before its first step."""
    settings: Annotated[
        Literal["default", "tuned"] | None,
        tyro.conf.arg(metavar="{default,tuned}", help_behavior_hint="(default: tuned, if it was)"),
    ] = None
    """Of a folder: at which of its settings."""
    start: int = 0
    """Of a folder: which of the run's starts."""
    num_eigenpairs: int = 10
    """Eigenvalues, half of them the largest, half the smallest."""
    tolerance: float = 1e-3
    """Residual asked of eigenvalues, relative to the largest magnitude."""
    num_probes: int = 10
    """Random vectors of the spectral density; its errors fall with their root."""
    num_steps: int = 100
    """Products for each of them; the bulk is resolved to about its width divided by this."""
    trace_probes: int = 60
    """Random vectors of the trace."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all at once)")] = None
    """Examples at a time, if all of them do not fit into memory. It does not change the Hessian."""
    seed: int = 0
    """Of all random vectors."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Of a folder of a run on MNIST or Fashion-MNIST: where the data are, as for `compare`."""
    download: bool = False
    """Download missing data, as for `compare`."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", aliases=["--output"], help_behavior_hint="(default: results/curvature-NAME-TIME)"
        ),
    ] = None
    """The results folder."""

    def run(self, console: Console) -> int:
        """Do it.

        Args:
            console: Where the table goes.

        Returns:
            The exit code.
        """
        return diagnose(self, console)

    def choices(self) -> Choices:
        """Return how much is to be spent.

        Returns:
            The choices.

        Raises:
            UserError: If one is out of range.
        """
        least = {"num_eigenpairs": 2, "num_probes": 2, "num_steps": 1, "trace_probes": 2, "batch_size": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"--{name.replace('_', '-')} must be at least {smallest}; received {value}.")
        if not 0 < self.tolerance < 1:
            raise UserError(f"--tolerance must be between 0 and 1; received {self.tolerance}.")
        return Choices(**{name: getattr(self, name) for name in Choices.__dataclass_fields__})


def diagnose(config: Curvature, console: Console) -> int:
    """Run every stage, keep each result as it comes, and draw, print and save them all.

    Args:
        config: What was asked for.
        console: Where the table goes; progress goes to standard error.

    Returns:
        The exit code.

    Raises:
        UserError: If something asked for cannot be done.
    """
    choices = config.choices()
    choose_folder(config.out, "curvature", "target")  # before anything takes time
    target = find_target(
        config.target, config.optimizer, config.start, settings=config.settings, data_dir=config.data_dir,
        download=config.download,
    )  # fmt: skip
    folder = choose_folder(config.out, "curvature", target.name)
    try:
        subject = Subject(target, choices)
    except Exception as error:  # a user's loss may raise anything
        raise UserError(f"{config.target} cannot be diagnosed: {type(error).__name__}: {error}") from error
    make_folder(folder)
    stages = {name: stage for name, stage in STAGES.items() if target.optimizer is not None or not stage.of_optimizer}
    results: dict[str, Any] = {}
    errors: dict[str, str] = {}
    seconds: dict[str, float] = {}
    params_hash = content_hash(target.params)

    def keep(status: records.Status) -> records.Record:
        record = records.Record(
            "curvature",
            target.name,
            config={**target.described, **asdict(choices), "precision": subject.op.precision},
            results={
                **results,
                "optimizer": target.expression,
                "size": subject.op.size,
                "params_sha256": params_hash,
                "seconds": seconds,
                "errors": errors,
            },
            data_hash=target.data_hash,
            status=status,
        )
        records.save(record, folder / "record.json")
        records.write_csv(folder / "eigenvalues.csv", *eigenvalue_rows(results))
        return record

    try:
        with stages_bar(len(stages)) as (advance, say):
            for name, stage in stages.items():
                advance(stage.title, len(seconds), _products(results))
                began = time.perf_counter()
                try:
                    results[name] = records.plain(waiting(lambda run=stage.run: run(subject, results)))
                except Exception as error:
                    errors[name] = f"{type(error).__name__}: {error}"
                seconds[name] = time.perf_counter() - began
                say(stage.title, seconds[name], results.get(name, {}).get("num_matvecs"))
                keep("interrupted")  # until all are done
                if _hopeless(results, errors):
                    break
            pictures = draw(results, target, folder)
    except KeyboardInterrupt:
        keep("interrupted")
        message = f"Interrupted. {len(seconds)} of {len(stages)} stages had finished and are kept in {folder}."
        Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
        return 130
    unsound = results.get("audit", {}).get("verdict") == "unsound"
    record = keep("failed" if errors or unsound else "complete")
    show(console, record, target, [*pictures, "eigenvalues.csv", "record.json"], folder)
    if target.note:
        Console(stderr=True).print(target.note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    _complain(results, errors)
    return 1 if errors or unsound else 0


def _hopeless(results: dict[str, Any], errors: dict[str, str]) -> bool:
    """Return whether there is no operator whose spectrum could be found."""
    return "audit" in errors or results["audit"]["verdict"] == "unsound"


def _products(results: dict[str, Any]) -> int:
    return sum(result["num_matvecs"] for result in results.values())


def _complain(results: dict[str, Any], errors: dict[str, str]) -> None:
    said = Console(stderr=True)
    tell: Callable[[str, str], None] = lambda text, style: said.print(
        text, style=style, markup=False, highlight=False, soft_wrap=True
    )
    if "audit" in results:
        audit = results["audit"]
        for message in audit["messages"]:
            tell(f"audit: {message}", "red" if audit["verdict"] == "unsound" else "yellow")
        if audit["verdict"] == "unsound":
            tell("The products are not those of a Hessian, so nothing else was computed.", "red")
    for name, error in errors.items():
        tell(f"{STAGES[name].title} failed: {error}", "red")
