"""The Python loop around compiled chunks of steps: chunk lengths and interrupts."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jaxopt_study._progress_bar import Report
from jaxopt_study.training._compiled_loop import (
    begin,
    host_chunk,
    last_records,
    next_chunk,
    next_chunk_with_convolutions,
)
from jaxopt_study.training._records import only_recorded
from jaxopt_study.training._run_spec import Carry, Constants, Inputs, Plan

_SECONDS_PER_CHUNK = 0.4  # short enough for Ctrl-C and the progress bar, long enough for negligible overhead
_GROWTH = 16
_LONGEST_POLL = 0.002  # seconds: what a short run may wait in vain


def drive(
    plan: Plan, inputs: Inputs, params: Any, key: Any, num_steps: int, report: Report
) -> tuple[Constants, Carry, dict[str, Any], dict[str, Any], int, bool]:
    """Run until all steps are taken, the run ends early, or it is interrupted.

    Returns:
        Constants and last carry; records of the steps, and those after the last; the number of steps that the
        trajectory covers; and whether the run was interrupted.
    """
    constants, carry = begin(plan, inputs, params, key)
    advance = next_chunk_with_convolutions if plan.convolutional else next_chunk
    parts: list[dict[str, Any]] = []
    done, ended, pace = 0, False, _Pace(plan.cadences)
    with interrupts(held=False) as interrupted:
        while done < num_steps and not ended and not interrupted():
            stop = min(done + min(pace.size(done), plan.capacity), num_steps)
            began = time.perf_counter()
            if plan.loop == "host":
                carry, records, stop = host_chunk(plan, inputs, constants, carry, done, stop, interrupted)
            else:
                carry, records = advance(plan, inputs, constants, carry, np.int32(done), np.int32(stop))
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
    """Choice of the next chunk's length from the times of steps and records so far.

    Steps and evaluations are timed separately: chunks without an evaluation do not show its duration, and a chunk with
    many evaluations would delay Ctrl-C.
    """

    def __init__(self, cadences: Mapping[str, int]):
        self._cadences = tuple(cadences.values())
        self._last = 0
        self._per_step: float | None = None
        self._per_record: float | None = None

    def size(self, done: int) -> int:
        """Return the number of steps of the next chunk, at least one."""
        most = max(1, _GROWTH * self._last)
        while most > 1 and not self._is_short(done, done + most):
            most //= 2
        return most

    def took(self, first: int, stop: int, seconds: float) -> None:
        """Record the duration of the steps first … stop − 1, except for the first chunk, which includes compilation."""
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
    """Wait for arrays in Python, where Ctrl-C is handled, instead of inside XLA."""
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
    """Return the written part of a chunk's buffers: one slot per step or per multiple of the cadence.

    Slots written after the end of the run, after `num_steps` steps, are blank.
    """
    recorded = {}
    for what, buffers in records.items():
        every = plan.cadences.get(what, 1)
        count = -(-stop // every) - -(-first // every)
        whole = jax.tree.map(lambda x, n=count: np.array(x[:n]), jax.device_get(buffers))
        at = every * (-(-first // every) + np.arange(count))
        recorded[what] = only_recorded(whole, at <= num_steps if what in plan.cadences else at < num_steps)
    return recorded


class Interrupt:
    """Record of whether Ctrl-C was pressed.

    Args:
        outer: The previous signal handlers, by signal number.
        held: Whether the first Ctrl-C is only recorded, because there are results to keep.
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
        """From now on, record the first Ctrl-C instead of raising at once."""
        self._held.set()

    def press(self, number: int, frame: Any) -> None:
        """Handle the signal."""
        if self._pressed.is_set() or not self._held.is_set():
            self._outer[number](number, frame)
        self._pressed.set()
        getattr(self._outer[number], "hold", lambda: None)()


@contextmanager
def interrupts(*, held: bool = True) -> Iterator[Interrupt]:
    """Defer Ctrl-C until the chunk in progress is complete; a second Ctrl-C acts at once.

    SIGTERM is treated likewise if its handler is Python's default handler of Ctrl-C, or has a method `hold`, which is
    then called instead.

    Args:
        held: If False, the first Ctrl-C also acts at once until `hold` is called.

    Yields:
        A function that returns whether Ctrl-C was pressed.
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
    """Return whether a signal handler can be deferred, which excludes a program's own handlers."""
    return handler is signal.default_int_handler or hasattr(handler, "hold")
