"""Run lanes on a machine: one compiled program per shape of trial, a few calls in flight, results as they come."""

import hashlib
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, Mesh, PartitionSpec, use_abstract_mesh

from jaxopt_study.programs import RANDOM_DRAWS, constants, contains
from jaxopt_study.sweeps.layout import TRIALS, Layout, place, usable_cores
from jaxopt_study.sweeps.trials import Lane

_PATIENCE = 0.5  # seconds that a call in flight gets to end after an interrupt
_IN_FLIGHT = 2  # calls given to the devices ahead of the one whose results are awaited
_MAX_PROGRAMS = 32  # kept from sweep to sweep, the latest
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Traced:
    """A trial traced for one lane, before anything is decided about the machine.

    Attributes:
        lane: The trial, as a function that repeats the traced program.
        start: Where it starts; None if that is among what all lanes share.
        jaxpr: The program of `lane`.
        start_jaxpr: The program of `start`.
        record: Shapes and dtypes of what a lane returns, by name.
    """

    lane: Lane
    start: Lane | None
    jaxpr: Any
    start_jaxpr: Any
    record: dict[str, jax.ShapeDtypeStruct]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the programs and the constants in them: equal ones compute the same from equal arguments.

        What a program calls back into Python for is not in it.
        """
        digest = hashlib.sha256()
        for jaxpr in filter(None, (self.jaxpr, self.start_jaxpr)):
            digest.update(_ADDRESS.sub("", str(jaxpr)).encode())
            for value in constants(jaxpr):
                is_key = jax.dtypes.issubdtype(getattr(value, "dtype", None), jax.dtypes.prng_key)
                digest.update(np.asarray(jax.random.key_data(value) if is_key else value).tobytes())
        return digest.hexdigest()

    @property
    def calls_back(self) -> bool:
        """Whether the programs call Python, so that equal ones may do different things."""
        return any(contains(jaxpr, "callback") for jaxpr in filter(None, (self.jaxpr, self.start_jaxpr)))


@dataclass(frozen=True)
class Program:
    """A compiled trial, for as many lanes at once as the layout says.

    Attributes:
        layout: Where it runs.
        executable: The compiled trial, a function of (lanes, shared).
        start: Where the lanes start, a compiled function of the same; None if that is among what they share.
    """

    layout: Layout
    executable: Callable[[Any, Any], Any]
    start: Callable[[Any, Any], Any] | None


_programs: dict[Any, Program] = {}


def trace(lane: Lane, start: Lane | None, one: Any, shared: Any, mesh: Mesh) -> Traced:
    """Trace a trial.

    Args:
        lane: The trial.
        start: Where it starts, if that is not among what all lanes share.
        one: Arguments of one lane.
        shared: What all lanes share.
        mesh: Where it will run; a trial may say how its batches lie along axes other than "trials".

    Returns:
        The traced trial. Cost: the user's functions run once.
    """
    start_jaxpr = None
    with use_abstract_mesh(mesh.abstract_mesh.update_axis_types({TRIALS: AxisType.Manual})):
        if start is not None:
            start_jaxpr, like = jax.make_jaxpr(start, return_shape=True)(one, shared)
            start, one = _repeated(start_jaxpr, like), one | {"start": like}
        jaxpr, like = jax.make_jaxpr(lane, return_shape=True)(one, shared)
    return Traced(_repeated(jaxpr, like), start, jaxpr, start_jaxpr, like)


def _repeated(jaxpr: Any, like: Any) -> Lane:
    structure, flat = jax.tree.structure(like), jaxpr_as_fun(jaxpr)
    return lambda one, shared: structure.unflatten(flat(*jax.tree.leaves((one, shared))))


class AbandonedError(Exception):
    """Somebody interrupted before the programs were compiled."""


def build(
    groups: Sequence[tuple[Traced, Any, Any, Layout]], interrupted: Callable[[], bool] = lambda: False
) -> list[Program]:
    """Compile trials for their layouts, side by side; with fewer lanes at once where they do not fit the memory.

    Args:
        groups: For each trial the traced trial, arguments of its lanes with a leading axis, what they share, placed
            (only shapes and dtypes are used), and the layout asked for.
        interrupted: Is asked now and then whether to go on; what is being compiled then ends in the background.

    Returns:
        The programs, whose layouts may be narrower than those asked for.

    Raises:
        AbandonedError: If somebody interrupted.
    """
    limit = device_memory()
    pool = ThreadPoolExecutor(usable_cores())  # XLA compiles outside of Python's lock; lowering is inside it
    try:
        begun: dict[Any, Callable[[], Program]] = {}
        waiting = [_compiled(pool, begun, interrupted, *group) for group in groups]
        programs = []
        for (traced, lanes, shared, layout), finish in zip(groups, waiting, strict=True):
            program = finish()
            while (needed := _bytes_needed(program.executable)) > limit and layout.width > 1:
                layout = replace(layout, width=max(1, min(layout.width // 2, int(layout.width * limit / needed))))
                program = _compiled(pool, begun, interrupted, traced, lanes, shared, layout)()
            programs.append(program)
        return programs
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _awaited(future: Future[Any], interrupted: Callable[[], bool]) -> Any:
    while not wait([future], timeout=0.05).done:  # an interrupt gets through here, not while waiting for a lock
        if interrupted():
            raise AbandonedError
    return future.result()


def _compiled(
    pool: Executor,
    begun: dict[Any, Callable[[], Program]],
    interrupted: Callable[[], bool],
    traced: Traced,
    lanes: Any,
    shared: Any,
    layout: Layout,
) -> Callable[[], Program]:
    # The function that is returned waits for it. What was begun, or is known, is not compiled again.

    def many(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((layout.lanes_per_call, *x.shape[1:]), x.dtype, sharding=layout.sharding)

    arguments, start = jax.tree.map(many, lanes), None
    shapes = jax.tree.leaves(jax.tree.map(lambda x: f"{x.dtype}{x.shape}", (arguments, shared)))
    only = traced.lane if traced.calls_back else None
    known = traced.fingerprint, only, layout, jax.tree.structure((arguments, shared)), *shapes
    if known in _programs:
        program = _programs[known]
        return lambda: program
    if known in begun:
        return begun[known]
    if interrupted():
        raise AbandonedError
    if traced.start is not None:
        spread = _spread(traced.start, layout)
        start = pool.submit(jax.jit(spread).lower(arguments, shared).compile, RANDOM_DRAWS)
        arguments |= {"start": jax.tree.map(many, jax.eval_shape(spread, arguments, shared))}
    executable = pool.submit(jax.jit(_spread(traced.lane, layout)).lower(arguments, shared).compile)

    def finish() -> Program:
        compiled = _awaited(executable, interrupted)
        program = Program(layout, compiled, None if start is None else _awaited(start, interrupted))
        _programs[known] = program
        while len(_programs) > _MAX_PROGRAMS:
            del _programs[next(iter(_programs))]
        return program

    begun[known] = finish
    return finish


def run(
    program: Program,
    lanes: Any,
    shared: Any,
    which: np.ndarray,
    done: np.ndarray,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Compute lanes, a call after the other.

    Which lanes share a call depends on `which` and the layout only, so that a lane that is computed again, because what
    came of it was lost, has the same company and the same result.

    Args:
        program: The compiled trial.
        lanes: Arguments of all lanes, NumPy arrays with a leading axis.
        shared: What all lanes share, placed as the program expects it.
        which: Which lanes belong to this program, in order.
        done: Of all lanes, which need not be computed. A call is left out if it has no other.
        interrupted: Is asked now and then whether to go on. Calls in flight then have half a second to end; others are
            given up, and end in the background.

    Yields:
        After each call the lanes that were to be computed and their records, on every process the same.
    """
    size = program.layout.lanes_per_call
    waiting: deque[tuple[np.ndarray, np.ndarray, Any]] = deque()
    for first in range(0, len(which), size):
        part = which[first : first + size]
        if done[part].all():
            continue
        filled = np.concatenate([part, np.full(size - len(part), part[-1])])  # the last call repeats its last lane
        arguments = jax.tree.map(lambda x, rows=filled: place(x[rows], program.layout.sharding), lanes)
        if program.start is not None:
            arguments |= {"start": program.start(arguments, shared)}
        waiting.append((part, ~done[part], program.executable(arguments, shared)))
        if len(waiting) > _IN_FLIGHT:
            if not _ready(waiting[0][2], interrupted):
                return
            yield _fetched(*waiting.popleft())
    while waiting and _ready(waiting[0][2], interrupted):
        yield _fetched(*waiting.popleft())


def device_memory() -> int:
    """Return how many bytes a sweep may use on a device: nine tenths of what is free there, or half of the host's."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.9 * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (2 * len(devices))
    return 2**62


def _spread(lane: Lane, layout: Layout) -> Callable[[Any, Any], Any]:
    def on_device(lanes: Any, shared: Any) -> Any:
        if layout.width > 1:
            return jax.vmap(lane, in_axes=(0, None))(lanes, shared)
        record = lane(jax.tree.map(lambda x: x[0], lanes), shared)
        return jax.tree.map(lambda x: x[None], record)

    if layout.mesh.size == 1:
        return on_device
    one = PartitionSpec(TRIALS)
    return jax.shard_map(
        on_device,
        mesh=layout.mesh,
        in_specs=(one, PartitionSpec()),
        out_specs=one,
        axis_names={TRIALS},
        check_vma=False,
    )


def _ready(record: Any, interrupted: Callable[[], bool]) -> bool:
    # Wait for a call; False if it takes longer than somebody who interrupts is to wait.
    pause, deadline = 1e-4, math.inf
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(record)):
        if interrupted() and jax.process_count() == 1:  # the others would wait for this process
            deadline = min(deadline, time.perf_counter() + _PATIENCE)
        if time.perf_counter() > deadline:
            return False
        time.sleep(pause)  # an interrupt gets through here, not while waiting inside XLA
        pause = min(1.2 * pause, 0.02)
    return True


def _fetched(part: np.ndarray, wanted: np.ndarray, record: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    if jax.process_count() > 1:
        record = multihost_utils.process_allgather(record, tiled=True)
    return part[wanted], {name: np.asarray(values)[: len(part)][wanted] for name, values in record.items()}


def _bytes_needed(executable: Any) -> int:
    memory = executable.memory_analysis()
    return 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
