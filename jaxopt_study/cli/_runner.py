"""What every command does around its own work: its clock, its record, and what it says at the end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxopt_study import records
from jaxopt_study.cli._errors import UserError
from jaxopt_study.problems.datasets import Dataset

UNUSABLE = 2  # also the parser's code, for arguments that cannot be understood
INTERRUPTED = 130


class Job:
    """One run of a command.

    Args:
        command: Its name, which is the kind of its record.

    Attributes:
        console: Where results go, standard output; progress and complaints go to standard error.
    """

    def __init__(self, command: str):
        self.console = Console()
        self._command, self._began = command, time.perf_counter()

    def record(
        self,
        name: str,
        settings: Mapping[str, Any],
        results: Mapping[str, Any],
        dataset: Dataset,
        status: records.Status = "complete",
    ) -> records.Record:
        """Return the record of a command that trains on data.

        Args:
            name: What it worked on.
            settings: What decided its numbers.
            results: What came out.
            dataset: The data.
            status: How it ended.
        """
        around = {"seconds": time.perf_counter() - self._began, "data_source": dataset.source}
        return records.Record(
            self._command,
            name,
            config=settings,
            results={**results, **around},
            data_hash=dataset.sha256,
            status=status,
        )

    def close(self, summary: str, folder: Path, files: Sequence[str]) -> None:
        """Print where everything is.

        Args:
            summary: The last words about the results.
            folder: Where the files are.
            files: Their names.
        """
        self.say(f"\n{summary}. In {folder}: {', '.join(files)}", soft_wrap=True)

    def say(self, text: str, **options: Any) -> None:
        """Print a text as it is, without colours."""
        self.console.print(text, highlight=False, markup=False, **options)


def complain(text: str, style: str | None = None) -> None:
    """Print a text on standard error as it is.

    Args:
        text: The text.
        style: Its colour.
    """
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def interrupted(folder: Path, kept: str = "What had finished is kept") -> int:
    """Say how to go on after an interrupt.

    Args:
        folder: The results folder.
        kept: What is in it.

    Returns:
        The exit code.
    """
    complain(f"Interrupted. {kept} in {folder}; go on with the same arguments and --out {folder} --resume.")
    return INTERRUPTED


@contextmanager
def user_errors() -> Iterator[None]:
    """Show what a library function refuses as a mistake in the arguments.

    Raises:
        UserError: In place of TypeError and ValueError.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def run_command(name: str, command: Callable[[Any, Job], int], options: Any) -> int:
    """Run a command.

    Args:
        name: What it is called.
        command: What does it, a function of the options and the job that returns the exit code.
        options: What was asked for.

    Returns:
        The exit code; 2 if something asked for cannot be done, which is said.
    """
    try:
        return command(options, Job(name))
    except (UserError, records.RecordError) as error:
        complain(f"Error: {error}", "red")
        return UNUSABLE
