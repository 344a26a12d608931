"""What `jaxopt-study compare` says while it works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[str, str, int, int], None]
Say = Callable[[dict[str, Any]], None]


@contextmanager
def progress_bar() -> Iterator[tuple[Advance, Say]]:
    """Show a bar over the whole job on a terminal; one line per finished run elsewhere.

    Yields:
        `advance(problem, optimizer, done, total)`, for when a run begins, and `say(entry)`, for when it has ended.
        Both write to standard error.
    """
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip

    def advance(problem: str, name: str, done: int, total: int) -> None:
        bar.update(task, description=f"{problem} {name}".strip(), completed=done, total=total)

    def say(entry: dict[str, Any]) -> None:
        if not console.is_terminal:
            seconds = entry.get("compile_seconds", 0.0) + entry.get("run_seconds", 0.0)
            ending = "failed" if "error" in entry else f"{seconds:.1f} s"
            console.print(f"{entry['problem']} {entry['optimizer']}: {ending}", markup=False, highlight=False)

    with bar:
        task = bar.add_task("starting", total=None)
        yield advance, say
