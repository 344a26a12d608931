"""Compilation of trials and asynchronous execution of their lanes on the devices."""

import hashlib
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, Mesh, PartitionSpec, use_abstract_mesh
from jaxtyping import Bool, Integer, Shaped

from jaxopt_study._programs import RANDOM_DRAWS, constants, contains
from jaxopt_study.sweeps._execution._layout import TRIALS, Layout, place, usable_cores
from jaxopt_study.sweeps._execution._trials import Lane

_IN_FLIGHT = 2  # calls sent to the devices ahead of the one being awaited
_GRACE = 0.5  # seconds to wait, after an interrupt, for results that are almost ready
_MAX_PROGRAMS = 32  # the most recent programs are kept between sweeps
Call = tuple[np.ndarray, np.ndarray, Future[Any]]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Traced:
    """A trial traced for one lane, independent of the machine.

    Attributes:
        lane: The trial, as a function that repeats the traced program.
        start: The function that returns the initial parameters; None if all lanes share them.
        jaxpr: The program of `lane`.
        start_jaxpr: The program of `start`.
        record: Shapes and dtypes of a lane's results, by name.
    """

    lane: Lane
    start: Lane | None
    jaxpr: Any
    start_jaxpr: Any
    record: dict[str, jax.ShapeDtypeStruct]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the programs and their constants; equal hashes mean equal computations.

        Python callbacks are not included.
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
        """Whether the programs call Python, so that equal programs may behave differently."""
        return any(contains(jaxpr, "callback") for jaxpr in filter(None, (self.jaxpr, self.start_jaxpr)))


@dataclass(frozen=True)
class Program:
    """A compiled trial for as many lanes at once as the layout has.

    Attributes:
        layout: The layout of the lanes.
        executable: The compiled trial, a function of (lanes, shared).
        start: The compiled function that returns the initial parameters of the lanes; None if they share them.
    """

    layout: Layout
    executable: Callable[[Any, Any], Any]
    start: Callable[[Any, Any], Any] | None


_programs: dict[Any, Program] = {}


def trace(lane: Lane, start: Lane | None, one: Any, shared: Any, mesh: Mesh) -> Traced:
    """Trace a trial.

    Args:
        lane: The trial.
        start: The function that returns the initial parameters, if the lanes do not share them.
        one: Arguments of one lane.
        shared: Arguments shared by all lanes.
        mesh: The device mesh; a trial may shard its batches along axes other than "trials".

    Returns:
        The traced trial. Cost: the user's functions run once.
    """
    start_jaxpr = None
    one, shared = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (one, shared))  # no placement
    with use_abstract_mesh(mesh.abstract_mesh.update_axis_types({TRIALS: AxisType.Manual})):
        if start is not None:
            start_jaxpr, like = jax.make_jaxpr(start, return_shape=True)(one, shared)
            start, one = _repeated(start_jaxpr, like), one | {"start": like}
        jaxpr, like = jax.make_jaxpr(lane, return_shape=True)(one, shared)
    return Traced(_repeated(jaxpr, like), start, jaxpr, start_jaxpr, like)


def _repeated(jaxpr: Any, like: Any) -> Lane:
    structure, flat = jax.tree.structure(like), jaxpr_as_fun(jaxpr)
    return lambda one, shared: structure.unflatten(flat(*jax.tree.leaves((one, shared))))


def build(
    groups: Sequence[tuple[Traced, Any, Any, Layout]], interrupted: Callable[[], bool] = lambda: False
) -> list[Program]:
    """Compile trials for their layouts in parallel, with fewer lanes at once if they do not fit into memory.

    Args:
        groups: For each trial the traced trial, arguments of its lanes with a leading axis, the placed shared arguments
            (only shapes and dtypes are used), and the requested layout.
        interrupted: Function that returns whether to give up.

    Returns:
        The programs, whose layouts may be narrower than requested; fewer programs after an interrupt, when compilations
        in progress are left to finish on their own.
    """
    limit = device_memory()
    pool = ThreadPoolExecutor(usable_cores())  # XLA compiles without Python's lock; lowering holds it
    begun: dict[Any, Callable[[], Program]] = {}
    programs: list[Program] = []
    ask = interrupted if jax.process_count() == 1 else lambda: False  # processes must compile and compute in step
    try:
        waiting = []
        for group in groups:
            if ask():
                return programs
            waiting.append(_compiled(pool, begun, ask, *group))
        for (traced, lanes, shared, layout), finish in zip(groups, waiting, strict=True):
            program = finish()
            while (needed := _bytes_needed(program.executable)) > limit and layout.width > 1:
                layout = replace(layout, width=max(1, min(layout.width // 2, int(layout.width * limit / needed))))
                program = _compiled(pool, begun, ask, traced, lanes, shared, layout)()
            programs.append(program)
    except _GaveUpError:
        return programs
    finally:
        pool.shutdown(wait=not ask(), cancel_futures=True)
    return programs


class _GaveUpError(Exception):
    """Waiting was interrupted."""


def _wait(ready: Callable[[], bool], interrupted: Callable[[], bool]) -> None:
    """Wait in Python, where interrupts are handled, instead of inside XLA.

    Raises:
        _GaveUpError: After an interrupt, if half a second more was not enough.
    """
    pause, until = 1e-4, math.inf
    while not ready():
        if interrupted():
            until = min(until, time.monotonic() + _GRACE)
            if time.monotonic() > until:
                raise _GaveUpError
        time.sleep(pause)
        pause = min(1.2 * pause, 0.02)


def _compiled(
    pool: Executor,
    begun: dict[Any, Callable[[], Program]],
    interrupted: Callable[[], bool],
    traced: Traced,
    lanes: Any,
    shared: Any,
    layout: Layout,
) -> Callable[[], Program]:
    # The returned function waits for the result. Programs being compiled or in the cache are not compiled again.

    def many(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((layout.lanes_per_call, *x.shape[1:]), x.dtype, sharding=layout.sharding)

    arguments, start = jax.tree.map(many, lanes), None
    shapes = jax.tree.leaves(jax.tree.map(lambda x: f"{x.dtype}{x.shape}", (arguments, shared)))
    only = traced.lane if traced.calls_back else None
    # Equal programs whose problems name their metrics differently are distinct.
    known = traced.fingerprint, tuple(traced.record), only, layout, jax.tree.structure((arguments, shared)), *shapes
    if known in _programs:
        program = _programs[known]
        return lambda: program
    if known in begun:
        return begun[known]
    if traced.start is not None:
        spread = _spread(traced.start, layout)
        start = pool.submit(jax.jit(spread).lower(arguments, shared).compile, RANDOM_DRAWS)
        arguments |= {"start": jax.tree.map(many, jax.eval_shape(spread, arguments, shared))}
    executable = pool.submit(jax.jit(_spread(traced.lane, layout)).lower(arguments, shared).compile)

    def finish() -> Program:
        _wait(lambda: executable.done() and (start is None or start.done()), interrupted)
        program = Program(layout, executable.result(), None if start is None else start.result())
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
    which: Integer[np.ndarray, " lanes"],
    done: Bool[np.ndarray, " all_lanes"],
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Integer[np.ndarray, " part"], dict[str, Shaped[np.ndarray, "part ..."]]]]:
    """Compute lanes in successive calls.

    The lanes that share a call depend only on `which` and the layout, so that recomputing a lane whose result was lost
    gives the same result.

    Args:
        program: The compiled trial.
        lanes: Arguments of all lanes, NumPy arrays with a leading axis.
        shared: Arguments shared by all lanes, placed as the program expects.
        which: Indices of the lanes of this program, in order.
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
        for part, wanted, given in _ahead(_calls(pool, program, lanes, shared, which, done)):
            _wait(given.done, ask)
            record = given.result()
            _wait(lambda record=record: all(leaf.is_ready() for leaf in jax.tree.leaves(record)), ask)
            yield _fetched(part, wanted, record)
    except _GaveUpError:
        return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _calls(
    pool: Executor,
    program: Program,
    lanes: Any,
    shared: Any,
    which: Integer[np.ndarray, " lanes"],
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
    for first in range(0, len(which), size):
        part = which[first : first + size]
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


def device_memory() -> int:
    """Return the bytes that a sweep may use per device: nine tenths of what is free, or a share of half the host's."""
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


def _fetched(
    part: Integer[np.ndarray, " part"], wanted: Bool[np.ndarray, " part"], record: Any
) -> tuple[Integer[np.ndarray, " wanted"], dict[str, Shaped[np.ndarray, "wanted ..."]]]:
    if jax.process_count() > 1:
        record = multihost_utils.process_allgather(record, tiled=True)
    return part[wanted], {name: np.asarray(values)[: len(part)][wanted] for name, values in record.items()}


def _bytes_needed(executable: Any) -> int:
    memory = executable.memory_analysis()
    return 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
