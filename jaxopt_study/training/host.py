"""The host's part of a run: parts of adaptive length, interrupts, progress. Never inside a trace."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jaxopt_study.training.loops import begin, host_chunk, last_records, next_chunk
from jaxopt_study.training.plan import Carry, Constants, Inputs, Plan

_SECONDS_PER_CHUNK = 0.4  # short enough to answer Ctrl-C and move a bar, long enough to cost nothing
_GROWTH = 16

Report = Callable[[int, int, float], None]  # steps done, steps in all, last loss


def drive(
    plan: Plan, inputs: Inputs, params: Any, key: Any, num_steps: int, report: Report
) -> tuple[Constants, Carry, dict[str, Any], dict[str, Any], int, bool]:
    """Run until the steps are taken, the run ends itself, or somebody interrupts it.

    Returns:
        Constants and last carry; records of the steps, and those after the last; how many steps the trajectory covers;
        and whether somebody interrupted.
    """
    constants, carry = begin(plan, inputs, params, key)
    parts: list[dict[str, Any]] = []
    done, size, ended = 0, 1, False
    with interrupts() as interrupted:
        while done < num_steps and not ended and not interrupted():
            stop = min(done + min(size, plan.capacity), num_steps)
            began = time.perf_counter()
            if plan.loop == "host":
                carry, records = host_chunk(plan, inputs, constants, carry, done, stop)
            else:
                carry, records = next_chunk(plan, inputs, constants, carry, np.int32(done), np.int32(stop))
            records = _written(plan, records, done, stop)
            ended = int(carry.diverged_at) >= 0 or bool(carry.stopped)
            elapsed = time.perf_counter() - began
            parts.append(records)
            size = max(1, min(_GROWTH * size, int((stop - done) * _SECONDS_PER_CHUNK / max(elapsed, 1e-9))))
            done = stop
            report(done, num_steps, float(records["losses"][-1]))
        covered = num_steps if ended else done
        last: dict[str, Any] = {}
        if plan.cadences:
            carry, last = last_records(plan, inputs, constants, carry, np.int32(covered))
        return constants, carry, _joined(parts), last, covered, interrupted()


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {what for records in parts for what in records}
    of_kind = {what: [records[what] for records in parts if what in records] for what in kinds}
    return {what: jax.tree.map(lambda *xs: np.concatenate(xs), *records) for what, records in of_kind.items()}


def _written(plan: Plan, records: dict[str, Any], first: int, stop: int) -> dict[str, Any]:
    """Return the part of a chunk's buffers that was written: one slot per step or per multiple of the cadence."""
    found = {}
    for what, buffers in records.items():
        every = plan.cadences.get(what, 1)
        count = -(-stop // every) - -(-first // every)
        found[what] = jax.tree.map(lambda x, n=count: np.array(x[:n]), jax.device_get(buffers))
    return found


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C until the part in progress is safe; a second Ctrl-C acts at once.

    The same holds for SIGTERM in a program that lets it interrupt: one whose handler is Python's own of Ctrl-C, or says
    that it can be held back by a method `hold`, which is then called in its place.

    Yields:
        A function that says whether Ctrl-C was pressed.
    """
    pressed = threading.Event()
    outer: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        outer = {number: handler for number, handler in handlers.items() if _interrupts(handler)}

    def press(number: int, frame: Any) -> None:
        if pressed.is_set():
            outer[number](number, frame)
        pressed.set()
        getattr(outer[number], "hold", lambda: None)()

    for number in outer:
        signal.signal(number, press)
    try:
        yield pressed.is_set
    finally:
        for number, handler in outer.items():
            signal.signal(number, handler)


def _interrupts(handler: Any) -> bool:
    """Return whether a handler is one that can be held back, and not a program's own idea of an interrupt."""
    return handler is signal.default_int_handler or hasattr(handler, "hold")


class Bar:
    """A progress bar that appears by itself on long runs.

    Args:
        progress: True shows it at once, False never; None after two seconds, if somebody is looking; a callable is
            called instead with (steps done, steps in all, last loss).
        name: What the bar says.
        quantity: What the third number is called.
    """

    def __init__(self, progress: bool | Report | None, name: str, quantity: str = "loss"):
        self._progress, self._name, self._quantity = progress, name, quantity
        self._began = time.perf_counter()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Move the bar."""
        if callable(self._progress):
            self._progress(done, total, loss)
        elif self._progress or (self._progress is None and time.perf_counter() - self._began > 2.0):
            if self._bar is None:
                self._bar = self._open(total)
            if self._bar is None:
                self._progress = False  # nobody is looking
            else:
                self._bar.update(self._task, completed=done, loss=f"{loss:.4g}")

    def _open(self, total: int) -> Any:
        from rich.console import Console  # here, so that only runs that show a bar pay for it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        can_draw = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_interactive
        if not self._progress and not can_draw:
            return None
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn(f"{self._quantity} {{task.fields[loss]}}"), console=console, transient=True,
        )  # fmt: skip
        bar.start()
        self._task = bar.add_task(self._name, total=total, loss="…")
        return bar
