"""`python -m experiments`: list the experiments, run some of them, judge their claims, and report them on one page."""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.claims import COLOURS, summary, table
from experiments.experiment import Experiment, Outcome, conclude, discover, execute, is_finished
from experiments.report import page
from experiments.statements import FOUND, STATEMENTS
from jaxopt_study import files
from jaxopt_study.files import PathError
from jaxopt_study.problems.datasets import DatasetError
from jaxopt_study.records import MALFORMED, RecordError, load, write_atomically
from jaxopt_study.sweeps import use_cpu_cores

STORED = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None, *, console: Console | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; None takes those of the process.
        console: Where to write; None writes to standard output.

    Returns:
        0; with `--check`, 1 if a claim failed; 2 if data or a record are missing or damaged, or the folder cannot be
        written. Of several experiments, one that cannot be finished does not keep the others from running: those are
        named at the end, and the status is 1. After Ctrl-C 130 and after SIGTERM 143: what is finished is kept.
    """
    console = console or Console(width=None if sys.stdout.isatty() else 160)
    found = discover()
    asked = parser(list(found)).parse_args(arguments)
    if asked.command == "list":
        console.print(_listing(found, asked.out))
        return 0
    if asked.command == "report":
        try:
            written = write_atomically(files.check_place(asked.to), page(found, asked.out).encode())
        except PathError as error:
            console.print(escape(str(error)), highlight=False, soft_wrap=True)
            return 2
        console.print(f"wrote {escape(str(written))}", highlight=False, soft_wrap=True)
        return 0
    failed, unfinished = 0, []
    names = list(found) if "all" in asked.names else asked.names
    known = (DatasetError, PathError, RecordError)
    caught = known if len(names) == 1 else (Exception,)
    for name in names:
        experiment = found[name]
        console.print(f"[bold]{name}[/bold]: {experiment.question}", highlight=False)
        try:
            if asked.command == "run" and asked.resume and is_finished(experiment, asked.preset, asked.out / name):
                outcome = _judged(experiment, asked.out / name)
            elif asked.command == "run":
                outcome = execute(
                    name, experiment, asked.preset, out=asked.out, data_dir=asked.data_dir, resume=asked.resume,
                    report=partial(console.print, highlight=False, markup=False),
                )  # fmt: skip
            else:
                outcome = _judged(experiment, asked.out / name)
        except KeyboardInterrupt as stopped:
            console.print("Interrupted. What is finished is kept; the same command with --resume goes on.")
            return 128 + next((number for number in stopped.args if isinstance(number, int)), signal.SIGINT)
        except caught as error:
            told = str(error) if isinstance(error, known) else f"{type(error).__name__}: {error}"
            console.print(f"[red]{name}:[/red] {escape(told)}", highlight=False, soft_wrap=True)
            unfinished.append(name)
            continue
        failed += _report(outcome, console)
    if unfinished:
        if len(names) > 1:
            console.print(f"not finished: {', '.join(unfinished)}", highlight=False, soft_wrap=True)
        return 2 if len(names) == 1 else 1
    return int(asked.check and failed > 0)


def _listing(found: Mapping[str, Experiment[Any]], folder: Path) -> Table:
    """Return a table of the notes' statements by chapter, with what was found, and the records' verdicts and times."""
    listing = Table(
        "experiment", "the notes say", "found", "claims", "run time", show_lines=True, title_justify="left",
        title='The study examines five lecture notes on deep-learning optimization, 000–004, here called "the notes".',
    )  # fmt: skip
    for name, experiment in found.items():
        verdicts, seconds = _stored(folder / name)
        said = "\n".join(f"{note}: {words}" for note, words in STATEMENTS.get(name, ())) or experiment.question
        listing.add_row(
            f"[bold]{name}[/bold]\n{escape(experiment.chapter)}",
            escape(said), escape(FOUND.get(name, "")), verdicts, seconds,
        )  # fmt: skip
    return listing


def _stored(folder: Path) -> tuple[str, str]:
    """Return the verdicts and the run time in a record, in words; dashes if there is none."""
    try:
        results = load(folder).results
        verdicts = [claim["verdict"] for claim in results["claims"]]
        seconds = results.get("run_seconds")
        told_seconds = f"{seconds:.0f} s" if isinstance(seconds, int | float) else "–"
    except MALFORMED:
        return "–", "–"
    counts = {verdict: verdicts.count(verdict) for verdict in COLOURS}
    told = "\n".join(
        f"[{colour}]{counts[verdict]} {verdict}[/]" for verdict, colour in COLOURS.items() if counts[verdict]
    )
    return told, told_seconds


def _judged(experiment: Experiment[Any], folder: Path) -> Outcome:
    record = load(folder)
    try:
        return conclude(experiment, record, folder=folder)
    except MALFORMED as error:
        raise RecordError(
            f"{folder} does not hold what this experiment writes ({type(error).__name__}: {error}). Run it again."
        ) from error


def _report(outcome: Outcome, console: Console) -> int:
    """Print claims and files; return the number of claims that failed."""
    counts = summary(outcome.claims)
    console.print(table(outcome.claims))
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), highlight=False)
    for path in outcome.files:
        console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    return counts["FAIL"]


def parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        names: Names of the experiments.

    Returns:
        The parser.
    """
    whole = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    listing = commands.add_parser(
        "list", help="list what the notes say, what was found, the verdicts and the run times",
        epilog="Example: python -m experiments list",
    )  # fmt: skip
    listing.add_argument(
        "--out", type=Path, default=STORED, metavar="DIR", help="folder of the records (default: those of the study)"
    )
    report = commands.add_parser(
        "report", help="write one page of all stored records, to be opened in a browser",
        epilog="Example: python -m experiments report --to study.html",
    )  # fmt: skip
    report.add_argument(
        "--out", type=Path, default=STORED, metavar="DIR", help="folder of the records (default: those of the study)"
    )
    report.add_argument(
        "--to", type=Path, default=Path("results/study.html"), metavar="FILE", help="the page (default: %(default)s)"
    )
    run = commands.add_parser(
        "run", help="run experiments, judge their claims, keep records and figures",
        epilog="Example: python -m experiments run trajectories --check",
    )  # fmt: skip
    judge = commands.add_parser(
        "judge", help="judge and draw kept records again, without running anything",
        epilog="Example: python -m experiments judge trajectories --out experiments/results",
    )  # fmt: skip
    for command in (run, judge):
        command.add_argument(
            "names", nargs="+", metavar="NAME", choices=[*names, "all"], help=f"{', '.join(names)}, or all"
        )
        command.add_argument("--check", action="store_true", help="exit with 1 if a claim fails")
        command.add_argument(
            "--out", type=Path, default=Path("results/experiments"), metavar="DIR",
            help="where the folder NAME with record and figures is (default: %(default)s)",
        )  # fmt: skip
    run.add_argument("--preset", default="smoke", choices=["smoke", "paper"], help="size of the run (default: smoke)")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier call was stopped: compute only what --out does not have yet, and judge the rest",
    )
    run.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with the four MNIST files, for --preset paper"
    )
    return whole


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)  # schedulers send it before they kill a process
    use_cpu_cores()  # a sweep runs one trial on each; everything else stays on the first
    sys.exit(main())
