"""The host's part of a run: parts of adaptive length, interrupts, progress. Never inside a trace."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jaxopt_study.training._compiled_loop import begin, host_chunk, last_records, next_chunk
from jaxopt_study.training._records import only_recorded
from jaxopt_study.training._run_spec import Carry, Constants, Inputs, Plan

_SECONDS_PER_CHUNK = 0.4  # short enough to answer Ctrl-C and move a bar, long enough to cost nothing
_GROWTH = 16
_LONGEST_POLL = 0.05  # seconds

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
    done, ended, pace = 0, False, _Pace(plan.cadences)
    with interrupts(held=False) as interrupted:
        while done < num_steps and not ended and not interrupted():
            stop = min(done + min(pace.size(done), plan.capacity), num_steps)
            began = time.perf_counter()
            if plan.loop == "host":
                carry, records, stop = host_chunk(plan, inputs, constants, carry, done, stop, interrupted)
            else:
                carry, records = next_chunk(plan, inputs, constants, carry, np.int32(done), np.int32(stop))
            wait((carry.num_steps, records["losses"]))
            records = _written(plan, records, done, stop, int(carry.num_steps))
            ended = int(carry.diverged_at) >= 0 or bool(carry.stopped)
            pace.took(done, stop, time.perf_counter() - began)
            interrupted.hold()
            parts.append(records)
            done = stop
            report(done, num_steps, float(records["losses"][-1]))
        interrupted.hold()
        covered = num_steps if ended else done
        last: dict[str, Any] = {}
        if plan.cadences:
            carry, last = last_records(plan, inputs, constants, carry, np.int32(covered))
            wait(carry.num_steps)
        return constants, carry, _joined(parts), last, covered, interrupted()


class _Pace:
    """How many steps to take before the host looks again, from what steps and records have taken so far.

    Parts without an evaluation do not tell how long one takes, so both are timed: a part that held many evaluations
    would keep Ctrl-C waiting.
    """

    def __init__(self, cadences: Mapping[str, int]):
        self._cadences = tuple(cadences.values())
        self._last = 0
        self._per_step: float | None = None
        self._per_record: float | None = None

    def size(self, done: int) -> int:
        """Return how many steps the next part may have, at least one."""
        most = max(1, _GROWTH * self._last)
        while most > 1 and not self._is_short(done, done + most):
            most //= 2
        return most

    def took(self, first: int, stop: int, seconds: float) -> None:
        """Remember how long the steps first … stop − 1 took. The first part also compiles, and tells nothing."""
        if first == 0:
            return
        records, steps = self._records(first, stop), stop - first
        if not records:
            self._per_step = seconds / steps
        elif self._per_step is None:
            self._per_step = self._per_record = seconds / (steps + records)
        else:
            self._per_record = max(seconds - steps * self._per_step, 0.0) / records
        self._last = steps

    def _is_short(self, first: int, stop: int) -> bool:
        records = self._records(first, stop)
        if self._per_record is None and records > 1:
            return False
        seconds = (stop - first) * (self._per_step or 0.0) + records * (self._per_record or 0.0)
        return seconds <= _SECONDS_PER_CHUNK

    def _records(self, first: int, stop: int) -> int:
        return sum(-(-stop // every) - -(-first // every) for every in self._cadences)


def wait(arrays: Any) -> None:
    """Wait for arrays in Python, where Ctrl-C gets through, and not inside XLA."""
    pause = 1e-4
    computed: list[Any] = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
    while not all(leaf.is_ready() for leaf in computed):
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL)


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {what for records in parts for what in records}
    of_kind = {what: [records[what] for records in parts if what in records] for what in kinds}
    return {what: jax.tree.map(lambda *xs: np.concatenate(xs), *records) for what, records in of_kind.items()}


def _written(plan: Plan, records: dict[str, Any], first: int, stop: int, num_steps: int) -> dict[str, Any]:
    """Return the part of a chunk's buffers that was written: one slot per step or per multiple of the cadence.

    What was written after the run had ended, after `num_steps` steps, is blank.
    """
    found = {}
    for what, buffers in records.items():
        every = plan.cadences.get(what, 1)
        count = -(-stop // every) - -(-first // every)
        whole = jax.tree.map(lambda x, n=count: np.array(x[:n]), jax.device_get(buffers))
        at = every * (-(-first // every) + np.arange(count))
        found[what] = only_recorded(whole, at <= num_steps if what in plan.cadences else at < num_steps)
    return found


class Interrupt:
    """Whether Ctrl-C was pressed.

    Args:
        outer: The handlers of the program around, by the number of the signal.
        held: Whether the first Ctrl-C is only noted, because there is something to keep.
    """

    def __init__(self, outer: Mapping[int, Any], *, held: bool):
        self._outer = outer
        self._pressed, self._held = threading.Event(), threading.Event()
        if held:
            self.hold()

    def __call__(self) -> bool:
        """Return whether Ctrl-C was pressed."""
        return self._pressed.is_set()

    def hold(self) -> None:
        """Note the first Ctrl-C from now on, instead of acting on it."""
        self._held.set()

    def press(self, number: int, frame: Any) -> None:
        """Handle the signal."""
        if self._pressed.is_set() or not self._held.is_set():
            self._outer[number](number, frame)
        self._pressed.set()
        getattr(self._outer[number], "hold", lambda: None)()


@contextmanager
def interrupts(*, held: bool = True) -> Iterator[Interrupt]:
    """Hold back Ctrl-C until the part in progress is safe; a second Ctrl-C acts at once.

    The same holds for SIGTERM in a program that lets it interrupt: one whose handler is Python's own of Ctrl-C, or says
    that it can be held back by a method `hold`, which is then called in its place.

    Args:
        held: False lets the first one act at once, too, until `hold` is called.

    Yields:
        A function that says whether Ctrl-C was pressed.
    """
    outer: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        outer = {number: handler for number, handler in handlers.items() if _interrupts(handler)}
    interrupt = Interrupt(outer, held=held)
    for number in outer:
        signal.signal(number, interrupt.press)
    try:
        yield interrupt
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
