"""Progress bar of a training run, a sweep or a pass over a loader: on standard error, or below a notebook's cell."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import Any

Report = Callable[[int, int, float], None]  # steps done, total steps, last loss

_SECONDS_PER_DRAWING = 0.1  # in a notebook
_SHOWN: list[Any] = []  # what is on the screen now: at most one, to which a bar inside another adds a line


class Bar:
    """A progress bar that appears on long runs.

    Args:
        progress: True shows the bar at once, False never, None after two seconds at a terminal or in a notebook; a
            callable is called instead with (steps done, total steps, last loss).
        name: Label of the bar.
        quantity: Name of the third number.
    """

    def __init__(self, progress: bool | Report | None, name: str, quantity: str = "loss"):
        self._progress, self._name, self._quantity = progress, name, quantity
        self._began = time.perf_counter()
        self._bar: Any = None
        self._task: Any = None
        self._total: int | None = None
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

        A callable `progress` is not called.

        Args:
            done: Number of finished parts.
            total: Number of parts; None if it is unknown.
            note: Text after the bar.
        """
        if self._progress is True or (self._progress is None and time.perf_counter() - self._began > 2.0):
            self.show(self._name, done, total, note)

    def show(self, label: str, done: int, total: int | None, note: str = "", *, restart: bool = False) -> None:
        """Draw the bar at once, if there is a terminal, a notebook or progress=True.

        Args:
            label: Text before the bar.
            done: Number of finished parts.
            total: Number of parts; None if it is unknown.
            note: Text after the bar.
            restart: Whether to start the clock again, as it does when the number of parts changes.
        """
        if self._bar is None and self._progress is not False:
            self._bar = self._open(label, total)
        if self._bar is None:
            self._progress = False  # nobody looks
            return
        change = self._bar.reset if restart or total != self._total else self._bar.update
        self._total = total
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
        bar: Any
        if console.is_jupyter:
            bar = _NotebookBar()
        elif self._progress or console.is_interactive:
            bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console, transient=True,
            )  # fmt: skip
            bar.start()
        else:
            return None
        _SHOWN.append(bar)
        self._task = bar.add_task(label, total=total, note="")
        return bar


@dataclass
class _Line:
    """One line of progress in a notebook."""

    label: str
    done: int
    total: int | None
    note: str
    began: float  # when its clock started,
    first: int | None = None  # and how much was done then

    def text(self, now: float) -> str:
        """Return what stands beside the bar: the count, the time taken and an estimate of the time left."""
        elapsed, made = now - self.began, self.done - (self.first or 0)
        count = f"{self.done}/{'?' if self.total is None else self.total}"
        left = f", {_clock(elapsed * (self.total - self.done) / made)} left" if self.total and made > 0 else ""
        return f"{count}  {_clock(elapsed)}{left}  {self.note}".rstrip()

    def html(self, now: float) -> str:
        """Return the line as HTML in the colours of the page."""
        value = "" if self.total is None else f' value="{self.done}" max="{self.total}"'
        style = "font-size:13px;font-variant-numeric:tabular-nums;white-space:pre-wrap"
        return f'<div style="{style}">{escape(self.label)} <progress{value}></progress> {escape(self.text(now))}</div>'


class _NotebookBar:
    """A cell's output with a line for each task, as `rich.progress.Progress` has it; needs no widgets.

    The cell's output is empty again when the bar stops.
    """

    def __init__(self):
        self._lines: dict[int, _Line] = {}
        self._output: Any = None
        self._drawn = float("-inf")

    def add_task(self, label: str, *, total: int | None, note: str) -> int:
        task = max(self._lines, default=-1) + 1
        self._lines[task] = _Line(label, 0, total, note, time.perf_counter())
        return task

    def remove_task(self, task: int) -> None:
        del self._lines[task]

    def reset(self, task: int, **shown: Any) -> None:
        self._lines[task].began, self._lines[task].first = time.perf_counter(), None
        self.update(task, **shown)

    def update(self, task: int, *, description: str, completed: int, total: int | None, note: str) -> None:
        line, now = self._lines[task], time.perf_counter()
        line.label, line.done, line.total, line.note = description, completed, total, note
        line.first = completed if line.first is None else line.first
        if now - self._drawn > _SECONDS_PER_DRAWING or completed == total:
            self._drawn = now
            lines = self._lines.values()
            self._draw(
                "\n".join(f"{one.label} {one.text(now)}" for one in lines), "".join(one.html(now) for one in lines)
            )

    def stop(self) -> None:
        if self._output is not None:
            self._draw("", "")

    def _draw(self, text: str, html: str) -> None:
        from IPython.display import display  # here, because only a notebook has it

        content = {"text/plain": text, "text/html": html}
        if self._output is None:
            self._output = display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
