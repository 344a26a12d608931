"""Progress of a command on standard error, and a wait that Ctrl-C interrupts."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from rich.console import Console

from jaxopt_study.training import Bar

SECONDS_PER_LINE = 30.0  # where there is no terminal


class JobBar:
    """Progress of a job of many runs: a bar at a terminal, otherwise a line now and then.

    Use it as a context manager.
    """

    def __init__(self):
        self._console = Console(stderr=True)
        self._bar = Bar(None, "")

    def __enter__(self) -> "JobBar":
        return self

    def __exit__(self, *failure: Any) -> None:
        self._bar.__exit__(*failure)

    def begin(self, label: str, done: int = 0, total: int | None = None) -> None:
        """Begin a part of the job, with a new clock.

        Args:
            label: Name of the part.
            done: Number of finished runs.
            total: Number of runs; None if it is unknown.
        """
        self._bar.show(label, done, total, restart=True)

    def move(self, label: str, done: int, total: int, note: str = "") -> None:
        """Update the bar.

        Args:
            label: Name of the part in progress.
            done: Number of finished parts.
            total: Number of parts.
            note: Text after the bar.
        """
        self._bar.show(label, done, total, note)

    def end(self, entry: Mapping[str, Any]) -> None:
        """Report a finished run, where there is no terminal.

        Args:
            entry: Its results: "problem", "optimizer", and "run_seconds" or "error".
        """
        ending = "failed" if "error" in entry else f"{entry['run_seconds']:.1f} s"
        self.line(f"{entry['problem']} {entry['optimizer']}: {ending}")

    def sweep(self, where: str, quantity: str, *stages: tuple[str, int]) -> Callable[[int, int, float], None]:
        """Return the `progress` function of one or several consecutive sweeps.

        Args:
            where: Name of the problem.
            quantity: Name of the metric whose best value is shown.
            *stages: Name and number of runs of each sweep; those without runs are skipped.

        Returns:
            A function of (runs done, total runs, best value so far).
        """
        began = reported = time.perf_counter()
        stage, first, last, whole = 0, 0, -1, -1
        self.begin(f"{where}: compiling")

        def progress(done: int, total: int, best: float) -> None:
            nonlocal stage, first, last, whole, began, reported
            now, note = time.perf_counter(), f"best {quantity} {best:.4g}"
            next_sweep = total != whole or done <= last
            if next_sweep:
                stage += whole >= 0
                while stage < len(stages) - 1 and total != stages[stage][1]:
                    stage += 1
                began, reported, first = now, now, done
            name, last, whole = stages[min(stage, len(stages) - 1)][0], done, total
            label = f"{where}: {name} done" if done == total else f"{where}: {name}"
            self._bar.show(label, done, total, note, restart=next_sweep)
            if done == total or now - reported > SECONDS_PER_LINE:
                left = (now - began) / max(done - first, 1) * (total - done)
                note += f", {_clock(left)} left" if first < done < total else ""
                self.line(f"{where}, {name}: {done} of {total} runs, {note}")
                reported = now

        return progress

    def line(self, text: str) -> None:
        """Print a line, unless there is a terminal with a bar.

        Args:
            text: The line.
        """
        if not self._console.is_interactive:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def waiting(function: Callable[[], Any]) -> Any:
    """Run a function in another thread, so that Ctrl-C is handled while XLA computes.

    Args:
        function: The function. After an interrupt it continues in the background.

    Returns:
        Its result.
    """
    outcome: dict[str, Any] = {}
    x64 = bool(jax.config.values["jax_enable_x64"])  # a setting of this thread's context, not of the new one

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
