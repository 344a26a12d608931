"""`Experiment`: how an experiment is defined, found, run, judged and stored."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure

import experiments
from experiments.claims import Claim
from experiments.parts import kept_in
from jaxopt_study import files
from jaxopt_study.figures import render
from jaxopt_study.files import PathError
from jaxopt_study.records import Record, RecordError, load, plain, save, write_atomically

Config = TypeVar("Config")


@dataclass(frozen=True)
class Experiment(Generic[Config]):
    """A question with the code that answers it.

    Claims and figures depend on the record alone, so that a stored record can be judged and drawn again.

    Attributes:
        question: The question, in one sentence.
        presets: Configurations by name, a dataclass each: "smoke" takes seconds on embedded data; "paper" answers.
        run: `run(config, data_dir) -> results`: plain values by name. "data_sha256" among them becomes the record's
            data hash.
        claims: `claims(record)`: the claims, judged by the results.
        figures: `figures(record)`: figures by file name.
        chapter: Title of the folder in which `discover` found it.
    """

    question: str
    presets: Mapping[str, Config]
    run: Callable[[Config, Path | None], Mapping[str, Any]]
    claims: Callable[[Record], Sequence[Claim]]
    figures: Callable[[Record], Mapping[str, Figure]]
    chapter: str = ""


@dataclass(frozen=True)
class Outcome:
    """Outcome of an experiment.

    Attributes:
        record: Configuration, results and claims.
        claims: The claims, judged.
        files: The written files.
    """

    record: Record
    claims: Sequence[Claim]
    files: Sequence[Path]


def discover() -> dict[str, Experiment[Any]]:
    """Find every module of the chapters that defines an `EXPERIMENT`.

    Returns:
        Experiments by the module's name, which is unique among all chapters, in the order of the chapters.

    Raises:
        ValueError: If two experiments have the same name.
    """
    found: dict[str, Experiment[Any]] = {}
    for folder in experiments.CHAPTERS:
        chapter = importlib.import_module(f"{experiments.__name__}.{folder}")
        title = (chapter.__doc__ or folder).partition(":")[0]
        for name in sorted(info.name for info in pkgutil.iter_modules(chapter.__path__)):
            module = importlib.import_module(f"{chapter.__name__}.{name}")
            if name in found:
                raise ValueError(f"Two experiments have the name {name!r}; rename {module.__name__}.")
            if hasattr(module, "EXPERIMENT"):
                found[name] = replace(module.EXPERIMENT, chapter=title)
    return found


def execute(
    name: str,
    experiment: Experiment[Any],
    preset: str,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    resume: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run one experiment, then `conclude`.

    What an interrupted run has finished, its `part`s and the trials of its searches, stays in the folder until a run
    is complete.

    Args:
        name: Name of the experiment and of its folder.
        experiment: The experiment.
        preset: A key of its presets.
        out: Folder in which a folder of the experiment's name gets "record.json" and the figures; None writes nothing.
        data_dir: Folder of data files, if the preset needs any. It is not part of the record.
        resume: Use what an interrupted run has finished, if configuration, code and versions are the same.
        report: Called with a line on each part that was computed.

    Returns:
        The outcome.

    Raises:
        ValueError: If there is no such preset, or the folder cannot be written; before anything is run.
    """
    if preset not in experiment.presets:
        raise ValueError(f"{name} needs one of the presets {sorted(experiment.presets)}; received {preset!r}.")
    folder = None
    if out is not None:
        folder = files.check_folder(files.as_path(out) / files.check_name("An experiment's name", name))
        files.check_place(folder / "record.json")
    settings = {"preset": preset, **asdict(experiment.presets[preset])}
    with kept_in(folder, settings, resume=resume, report=report) as seconds:
        results = dict(experiment.run(experiment.presets[preset], data_dir))
        results["run_seconds"] = seconds()
        data_hash = results.pop("data_sha256", None)
        record = Record("experiment", name, config=settings, results=results, data_hash=data_hash)
        if folder is not None:  # before it is judged, so that no error of a claim or figure loses the run
            save(record, folder / "record.json")
    return conclude(experiment, record, folder=folder)


def is_finished(experiment: Experiment[Any], preset: str, folder: Path) -> bool:
    """Return whether a folder has the record of a finished run of a preset, with its configuration as it stands now."""
    try:
        record = load(folder)
    except (PathError, RecordError):
        return False
    config = plain({"preset": preset, **asdict(experiment.presets[preset])})
    return record.status == "complete" and "claims" in record.results and record.config == config


def conclude(experiment: Experiment[Any], record: Record, *, folder: Path | None = None) -> Outcome:
    """Judge the claims of a record and draw its figures, freshly measured or loaded.

    Args:
        experiment: The experiment of the record.
        record: The record.
        folder: Gets "record.json" and the figures; None writes nothing.

    Returns:
        The outcome.
    """
    claims = experiment.claims(record)
    record = replace(record, results={**record.results, "claims": [asdict(claim) for claim in claims]})
    written = []
    if folder is not None:
        written.append(save(record, folder / "record.json"))
        for stem, figure in experiment.figures(record).items():
            written.append(write_atomically(folder / f"{stem}.png", render(figure, dpi=150)))
    return Outcome(record, claims, written)
