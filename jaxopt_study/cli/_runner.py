"""Common parts of all commands: clock, record, closing message and error handling."""

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
        command: Name of the command and kind of its record.

    Attributes:
        console: Standard output, for results. Progress and warnings go to standard error.
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
            name: Name of the subject.
            settings: Settings that determine the results.
            results: The results.
            dataset: The data.
            status: "complete", "failed" or "interrupted".
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
        """Print a summary and the names of the files in a results folder."""
        self.say(f"\n{summary}. In {folder}: {', '.join(files)}", soft_wrap=True)

    def say(self, text: str, **options: Any) -> None:
        """Print a text without markup."""
        self.console.print(text, highlight=False, markup=False, **options)


def complain(text: str, style: str | None = None) -> None:
    """Print a text without markup on standard error, in a colour."""
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def interrupted(folder: Path, kept: str = "Finished runs are kept") -> int:
    """Report an interrupt, and how to resume.

    Args:
        folder: Results folder.
        kept: Its contents, in words.

    Returns:
        The exit code.
    """
    complain(f"Interrupted. {kept} in {folder}; resume with the same arguments and --out {folder} --resume.")
    return INTERRUPTED


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the TypeError and ValueError of a library function into a UserError.

    Raises:
        UserError: In their place.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def run_command(name: str, command: Callable[[Any, Job], int], options: Any) -> int:
    """Run a command, and report its errors.

    Args:
        name: Name of the command.
        command: A function of options and job that returns the exit code.
        options: Options of the command.

    Returns:
        The exit code; 2 if an option cannot be used.
    """
    try:
        return command(options, Job(name))
    except (UserError, records.RecordError) as error:
        complain(f"Error: {error}", "red")
        return UNUSABLE
