"""Compilation of trials for their layouts, with a cache of programs."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, Mesh, PartitionSpec, use_abstract_mesh

from jaxopt_study._programs import RANDOM_DRAWS, constants, contains
from jaxopt_study.sweeps._execution._interruptible_wait import GaveUpError, wait_until
from jaxopt_study.sweeps._execution._layout import TRIALS, Layout, usable_cores
from jaxopt_study.sweeps._execution._trials import Lane

_MAX_PROGRAMS = 32  # the most recent programs are kept between sweeps


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


def compile_programs(
    groups: Sequence[tuple[Traced, Any, Any, Layout]],
    interrupted: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Program]:
    """Compile trials for their layouts in parallel, with fewer lanes at once if they do not fit into memory.

    Args:
        groups: For each trial the traced trial, arguments of its lanes with a leading axis, the placed shared arguments
            (only shapes and dtypes are used), and the requested layout.
        interrupted: Function that returns whether to give up.
        progress: Function that is called with (programs compiled, all programs) after each.

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
            progress(len(programs), len(groups))
    except GaveUpError:
        return programs
    finally:
        pool.shutdown(wait=not ask(), cancel_futures=True)
    return programs


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
        wait_until(lambda: executable.done() and (start is None or start.done()), interrupted)
        program = Program(layout, executable.result(), None if start is None else start.result())
        _programs[known] = program
        while len(_programs) > _MAX_PROGRAMS:
            del _programs[next(iter(_programs))]
        return program

    begun[known] = finish
    return finish


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


def _bytes_needed(executable: Any) -> int:
    memory = executable.memory_analysis()
    return 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
