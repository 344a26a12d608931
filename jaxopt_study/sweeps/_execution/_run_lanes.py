"""Asynchronous execution of the lanes of a program on the devices."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Integer, Shaped

from jaxopt_study.sweeps._execution._compile import Program
from jaxopt_study.sweeps._execution._interruptible_wait import GaveUpError, wait_until
from jaxopt_study.sweeps._execution._layout import place

_IN_FLIGHT = 2  # calls sent to the devices ahead of the one being awaited


Call = tuple[np.ndarray, np.ndarray, Future[Any]]


def run_lanes(
    program: Program,
    lanes: Any,
    shared: Any,
    lane_ids: Integer[np.ndarray, " lanes"],
    done: Bool[np.ndarray, " all_lanes"],
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Integer[np.ndarray, " part"], dict[str, Shaped[np.ndarray, "part ..."]]]]:
    """Compute lanes in successive calls.

    The lanes that share a call depend only on `lane_ids` and the layout, so that recomputing a lane whose result was
    lost gives the same result.

    Args:
        program: The compiled trial.
        lanes: Arguments of all lanes, NumPy arrays with a leading axis.
        shared: Arguments shared by all lanes, placed as the program expects.
        lane_ids: Indices of the lanes of this program, in order.
        done: For every lane, whether it is already computed. A call without other lanes is skipped.
        interrupted: Function that returns whether to stop without waiting for the calls in flight.

    Yields:
        After each call the newly computed lanes and their records, the same on every process.
    """
    ask = interrupted if jax.process_count() == 1 else lambda: False  # processes must gather results in step
    # A CPU may accept a call only after the previous one has finished, and the calling thread is then deaf to
    # interrupts.
    pool = ThreadPoolExecutor(1)
    try:
        for part, needed, given in _ahead(_calls(pool, program, lanes, shared, lane_ids, done)):
            wait_until(given.done, ask)
            record = given.result()
            wait_until(lambda record=record: all(leaf.is_ready() for leaf in jax.tree.leaves(record)), ask)
            yield _fetched(part, needed, record)
    except GaveUpError:
        return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _calls(
    pool: Executor,
    program: Program,
    lanes: Any,
    shared: Any,
    lane_ids: Integer[np.ndarray, " lanes"],
    done: Bool[np.ndarray, " all_lanes"],
) -> Iterator[Call]:
    """Send successive calls to the devices.

    Yields:
        The lanes of a call, a mask of those needed, and the future of the results, whose arrays may not be ready even
        when it is done.
    """
    double = bool(jax.config.read("jax_enable_x64"))

    def give(arguments: Any) -> Any:
        # Threads start with JAX's global settings, whatever the caller's are.
        with jax.enable_x64(double), jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False):
            if program.start is not None:
                arguments = arguments | {"start": program.start(arguments, shared)}
            return program.executable(arguments, shared)

    size = program.layout.lanes_per_call
    for first in range(0, len(lane_ids), size):
        part = lane_ids[first : first + size]
        if done[part].all():
            continue
        filled = np.concatenate([part, np.full(size - len(part), part[-1])])  # the last call repeats its last lane
        arguments = jax.tree.map(lambda x, rows=filled: place(x[rows], program.layout.sharding), lanes)
        yield part, ~done[part], pool.submit(give, arguments)


def _ahead(calls: Iterator[Call]) -> Iterator[Call]:
    """Start a few calls ahead of the one being awaited.

    Yields:
        The calls, in order.
    """
    waiting: deque[Call] = deque()
    for call in calls:
        waiting.append(call)
        if len(waiting) > _IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


def _fetched(
    part: Integer[np.ndarray, " part"], needed: Bool[np.ndarray, " part"], record: Any
) -> tuple[Integer[np.ndarray, " wanted"], dict[str, Shaped[np.ndarray, "wanted ..."]]]:
    if jax.process_count() > 1:
        record = multihost_utils.process_allgather(record, tiled=True)
    return part[needed], {name: np.asarray(values)[: len(part)][needed] for name, values in record.items()}
