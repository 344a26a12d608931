"""Progress bar on standard error, of a training run, a sweep, a pass over a loader or a job of the command line."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Any

Report = Callable[[int, int, float], None]  # steps done, total steps, last loss

_SHOWN: list[Any] = []  # what is on the screen now: at most one, to which a bar inside another adds a line


class Bar:
    """A progress bar that appears on long runs.

    Args:
        progress: True shows the bar at once, False never, None after two seconds at a terminal; a callable is called
            instead with (steps done, total steps, last loss).
        name: Label of the bar.
        quantity: Name of the third number.
    """

    def __init__(self, progress: bool | Report | None, name: str, quantity: str = "loss"):
        self._progress, self._name, self._quantity = progress, name, quantity
        self._began = time.perf_counter()
        self._bar: Any = None
        self._task: Any = None
        self._inside = False  # a line of another bar

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        if self._inside:
            self._bar.remove_task(self._task)
        else:
            self._bar.stop()
            _SHOWN.clear()

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Update the bar."""
        if callable(self._progress):
            self._progress(done, total, loss)
        else:
            self.move(done, total, f"{self._quantity} {loss:.4g}")

    def move(self, done: int, total: int | None, note: str = "") -> None:
        """Update the bar of a long run; draw it if two seconds have passed, or with progress=True.

        Args:
            done: Number of finished parts.
            total: Number of parts; None if it is unknown.
            note: Text after the bar.
        """
        if self._progress or (self._progress is None and time.perf_counter() - self._began > 2.0):
            self.show(self._name, done, total, note)

    def show(self, label: str, done: int, total: int | None, note: str = "", *, restart: bool = False) -> None:
        """Draw the bar at once, if there is a terminal or progress=True.

        Args:
            label: Text before the bar.
            done: Number of finished parts.
            total: Number of parts; None if it is unknown.
            note: Text after the bar.
            restart: Whether to start the clock again.
        """
        if self._bar is None and self._progress is not False:
            self._bar = self._open(label, total)
        if self._bar is None:
            self._progress = False  # not a terminal
            return
        change = self._bar.reset if restart else self._bar.update
        change(self._task, description=label, completed=done, total=total, note=note)

    def _open(self, label: str, total: int | None) -> Any:
        if _SHOWN:
            self._task, self._inside = _SHOWN[0].add_task(label, total=total, note=""), True
            return _SHOWN[0]
        from rich.console import Console  # here, so that only runs that show a bar pay for it
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        can_draw = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_interactive
        if not self._progress and not can_draw:
            return None
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console, transient=True,
        )  # fmt: skip
        bar.start()
        _SHOWN.append(bar)
        self._task = bar.add_task(label, total=total, note="")
        return bar
