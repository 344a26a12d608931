"""What commands say while they work."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

SECONDS_PER_LINE = 30.0  # where there is no terminal


class JobBar:
    """Say how far a job of many runs is: a bar on a terminal, a line now and then elsewhere, on standard error.

    Use it as a context.
    """

    def __init__(self):
        self._console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console, transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, note="")

    def __enter__(self) -> "JobBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, what: str, done: int = 0, total: int | None = None, note: str = "") -> None:
        """Say what begins.

        Args:
            what: A few words.
            done: Runs done of it.
            total: Runs in all; None if that is not known.
            note: What else there is to say.
        """
        self._bar.reset(self._task, description=what, completed=done, total=total, note=note)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Say what goes on in the job that has begun, without starting its clock again.

        Args:
            what: A few words.
            done: Parts done of it.
            total: Parts in all.
            note: What else there is to say.
        """
        self._bar.update(self._task, description=what, completed=done, total=total, note=note)

    def end(self, entry: Mapping[str, Any]) -> None:
        """Say that a run has ended.

        Args:
            entry: What came of it: "problem", "optimizer" and its seconds, or an "error".
        """
        ending = "failed" if "error" in entry else f"{entry['run_seconds']:.1f} s"
        self.line(f"{entry['problem']} {entry['optimizer']}: {ending}")

    def sweep(self, where: str, what: str, *stages: tuple[str, int]) -> Callable[[int, int, float], None]:
        """Return what a sweep, or several one after the other, call after each part.

        Args:
            where: The problem.
            what: What the best so far is the best of.
            *stages: Name and number of runs of each; those without runs are never called.

        Returns:
            A function of (runs done, runs in all, best so far).
        """
        began = said = time.perf_counter()
        stage, first, last, whole = 0, 0, -1, -1
        self.begin(f"{where}: compiling")

        def progress(done: int, total: int, best: float) -> None:
            nonlocal stage, first, last, whole, began, said
            now = time.perf_counter()
            if total != whole or done <= last:  # another sweep than before
                stage += whole >= 0
                while stage < len(stages) - 1 and total != stages[stage][1]:
                    stage += 1
                began, said, first = now, now, done
            left = (now - began) / max(done - first, 1) * (total - done)
            name, last, whole = stages[min(stage, len(stages) - 1)][0], done, total
            note = f"best {what} {best:.4g}" + (f", {_clock(left)} left" if first < done < total else "")
            self._bar.update(self._task, description=f"{where}: {name}", completed=done, total=total, note=note)
            if done == total or now - said > SECONDS_PER_LINE:
                self.line(f"{where}, {name}: {done} of {total} runs, {note}")
                said = now
            if done == total:
                self._bar.update(self._task, description=f"{where}: {name} done")

        return progress

    def line(self, text: str) -> None:
        """Print a line, where there is no terminal to show a bar on.

        Args:
            text: The line.
        """
        if not self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
