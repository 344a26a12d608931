"""What `jaxopt-study compare` and `curvature` say while they work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

AdvanceStage = Callable[[str, int, int], None]
SayStage = Callable[[str, float, int | None], None]
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


@contextmanager
def stages_bar(
    total: int,
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str, float, int | None], None]]]:
    """Show a bar over the stages of a diagnosis on a terminal; one line per finished stage elsewhere.

    Args:
        total: Number of stages.

    Yields:
        `advance(title, done, products)`, for when a stage begins, and `say(title, seconds, products)`, for when it has
        ended; products are None if it failed. Both write to standard error.
    """
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[products]} products"),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip

    def advance(title: str, done: int, products: int) -> None:
        bar.update(task, description=title, completed=done, products=products)

    def say(title: str, seconds: float, products: int | None) -> None:
        if not console.is_terminal:
            ending = "failed" if products is None else f"{products} products"
            console.print(f"{title}: {seconds:.1f} s, {ending}", markup=False, highlight=False)

    with bar:
        task = bar.add_task("starting", total=total, products=0)
        yield advance, say


def waiting(function: Callable[[], Any]) -> Any:
    """Run a function beside the main thread, so that an interrupt gets through while XLA computes.

    Args:
        function: What to run. After an interrupt it is left to end by itself.

    Returns:
        What it returns.
    """
    outcome: dict[str, Any] = {}
    x64 = bool(jax.config.values["jax_enable_x64"])  # a context's setting, which another thread would not see

    def work() -> None:
        try:
            with jax.enable_x64(x64):
                outcome["value"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
