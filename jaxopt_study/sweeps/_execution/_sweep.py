"""Execution of a sweep: grouping of lanes by program, layout, journal and interrupts."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, use_abstract_mesh
from jaxtyping import Bool, Float, Integer, Real, Shaped

from jaxopt_study.sweeps._execution._compile import compile_programs
from jaxopt_study.sweeps._execution._groups import Group, blank_records, by_program, group_of, identity_of
from jaxopt_study.sweeps._execution._journal import Journal, JournalError
from jaxopt_study.sweeps._execution._layout import TRIALS, Layout, automatic, choose_width, default_mesh
from jaxopt_study.sweeps._execution._run_lanes import run_lanes
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.training import Bar, interrupts
from jaxopt_study.types import Key

_SECONDS_PER_CHUNK = 1.0  # most work lost if the process is killed, unless a call takes longer

_NO_MESH = AbstractMesh((), ())
Progress = bool | Callable[[int, int, float], None] | None  # lanes done, total lanes, best metric so far


@dataclass(frozen=True, eq=False)
class Outcome:
    """Results of the lanes of a sweep, n cases × s seeds.

    Attributes:
        records: Results of `Trials.lane` by name, shape (n, s, …); NaN (0 for integers) if a lane was not run.
        finished: Shape (n, s).
        seconds: Device time of each lane, shape (n, s); NaN if it was read from a journal or not run.
        layout: Layout of the lanes.
        compile_seconds: Time for tracing and compiling.
        run_seconds: Time for running.
        interrupted: Whether Ctrl-C was pressed.
    """

    records: dict[str, Shaped[np.ndarray, "..."]]
    finished: Bool[np.ndarray, "*lanes"]
    seconds: Float[np.ndarray, "*lanes"]
    layout: dict[str, Any]
    compile_seconds: float
    run_seconds: float
    interrupted: bool

    def rows(self, index: int | slice) -> "Outcome":
        """Return the results of some of the cases; for a single case, without the axis of cases."""
        return replace(
            self,
            records={name: values[index] for name, values in self.records.items()},
            finished=self.finished[index],
            seconds=self.seconds[index],
        )


@contextlib.contextmanager
def _as_it_is() -> Iterator[None]:
    """Run compiled, with NaN allowed as a result and the sweep's own mesh, whatever JAX's settings.

    A diverged trial is not an error, as it would be under `jax_debug_nans`.
    """
    with jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False), use_abstract_mesh(_NO_MESH):
        yield


@_as_it_is()
def sweep(
    cases: Sequence[tuple[Trials, Mapping[str, Any]]],
    *,
    seed_keys: Shaped[Key, " seeds"],
    metric: str,
    mode: str,
    journal: str | Path | None,
    study_config: Mapping[str, Any],
    mesh: Mesh | None,
    width: int | Literal["auto"],
    progress: Progress,
    name: str,
    report: bool = True,
    most_seeds: int = 1,
) -> Outcome:
    """Run every case with every seed.

    Args:
        cases: n cases, each with hyperparameters by name and the `Trials` that runs them. Cases with the same `Trials`
            and the same values of static hyperparameters share a program.
        seed_keys: Shape (s,). Lane i·s + j is case i with seed j.
        metric: The metric whose best value `progress` shows.
        mode: "min" or "max".
        journal: A folder for finished lanes, which are not run again; None stores nothing.
        study_config: The configuration of the sweep besides its programs and data; the journal of another sweep raises.
        mesh: Device mesh with an axis "trials"; None takes all devices.
        width: Number of lanes vectorised on each device.
        progress: As in `train`, with lanes instead of steps and the best metric so far instead of the loss.
        name: Label of the progress bar.
        report: Whether the final parameters are evaluated on the `report_on` of the trials; otherwise those results
            are NaN, from the same program.
        most_seeds: Sweeps of the same trials with at most so many seeds share their programs.

    Returns:
        The outcome; after Ctrl-C, that of the finished lanes.

    Raises:
        JournalError: If the journal belongs to another sweep, is damaged, in use or cannot be written.
        ValueError: If the metric is not evaluated, or trials evaluate different metrics.
        TypeError: If Python code branches on a traced value.
    """
    began = time.perf_counter()
    mesh = default_mesh() if mesh is None else automatic(mesh)
    groups = [
        group_of(cases, members, seed_keys, mesh, report=report, most_seeds=most_seeds) for members in by_program(cases)
    ]
    widths = _widths(groups, mesh, width, journal)
    groups = [replace(group, layout=Layout(mesh, each)) for group, each in zip(groups, widths, strict=True)]
    shape = len(cases), len(seed_keys)
    total = len(cases) * len(seed_keys)
    records = blank_records([group.traced for group in groups], metric, total)
    finished, seconds = np.zeros(total, bool), np.full(total, np.nan)
    with contextlib.ExitStack() as stack:
        book = None
        if journal is not None:
            with _together(journal):  # one process reads the disk, and all continue from there
                if jax.process_index() == 0:
                    identity = {**study_config, **identity_of(groups)}
                    size = sum(values.nbytes for values in records.values())
                    book = stack.enter_context(Journal.open(journal, identity, expected_bytes=size))
                    _restore(book, records, finished)
            if jax.process_count() > 1:
                agreed = multihost_utils.broadcast_one_to_all((records, finished))
                records, finished = jax.tree.map(np.array, agreed)
        bar = stack.enter_context(Bar(progress, name, quantity="best"))
        interrupted = stack.enter_context(interrupts())
        left = [group for group in groups if not finished[group.lane_ids].all()]
        shared = [group.layout.placed(group.shared) for group in left]
        requests = [(g.traced, g.lanes, s, g.layout) for g, s in zip(left, shared, strict=True)]
        programs = compile_programs(requests, interrupted, lambda done, of: bar.move(done, of, "programs compiled"))
        compiled = time.perf_counter()
        chunk = stack.enter_context(contextlib.closing(_Chunk(book, records)))  # written even after an error
        if finished.any():
            bar(int(finished.sum()), total, _best(records[metric][finished, -1], mode))
        for group, program, common in zip(left, programs, shared, strict=False):  # fewer programs after an interrupt
            started, before = time.perf_counter(), finished.copy()
            for lanes, values in run_lanes(program, group.lanes, common, group.lane_ids, finished, interrupted):
                for result, new in values.items():
                    records[result][lanes] = new
                finished[lanes] = True
                chunk.add(lanes)
                best = _best(records[metric][finished, -1], mode)
                bar(int(finished.sum()), total, best)
                if interrupted():
                    break
            lanes = np.flatnonzero(finished & ~before)
            seconds[lanes] = (time.perf_counter() - started) * mesh.size / max(len(lanes), 1)
            if interrupted():
                break
        chunk.write()
        ended, stopped = time.perf_counter(), interrupted()
    return Outcome(
        records={what: values.reshape(*shape, *values.shape[1:]) for what, values in records.items()},
        finished=finished.reshape(shape),
        seconds=seconds.reshape(shape),
        layout=groups[0].layout.describe() | {"width": sorted({one.layout.width for one in programs or groups})},
        compile_seconds=compiled - began,
        run_seconds=ended - compiled,
        interrupted=stopped,
    )


@contextlib.contextmanager
def _together(journal: str | Path) -> Iterator[None]:
    """Make all processes fail with the first one, instead of waiting for it for ever."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(failure is not None)):
        failure = failure or JournalError(
            f"The first process could not use the journal {journal}; see its error message."
        )
    if failure is not None:
        raise failure


def _best(values: Real[np.ndarray, " lanes"], mode: str) -> float:
    values = values[np.isfinite(values)]
    return float("nan") if not values.size else float(values.min() if mode == "min" else values.max())


class _Chunk:
    """Finished lanes that are not yet on disk."""

    def __init__(self, book: Journal | None, records: dict[str, Shaped[np.ndarray, "lanes ..."]]):
        self._book, self._records = book, records
        self._lanes: list[np.ndarray] = []
        self._began = time.perf_counter()

    def add(self, lanes: Integer[np.ndarray, " lanes"]) -> None:
        self._lanes.append(lanes)
        if time.perf_counter() - self._began > _SECONDS_PER_CHUNK:
            self.write()

    def close(self) -> None:
        """Write the remaining lanes."""
        self.write()

    def write(self) -> None:
        pending, self._lanes, self._began = self._lanes, [], time.perf_counter()
        if self._book is not None and pending:
            lanes = np.concatenate(pending)
            self._book.append(lanes, {what: values[lanes] for what, values in self._records.items()})
            self._began = time.perf_counter()


def _widths(groups: Sequence[Group], mesh: Mesh, width: int | Literal["auto"], journal: str | Path | None) -> list[int]:
    """Return the vectorised width of each program: given, from the journal, or chosen for this machine.

    No program is wider than its lanes, which would only repeat some of them.
    """
    most = [-(-len(group.lane_ids) // mesh.shape[TRIALS]) for group in groups]
    if width != "auto":
        return [min(width, each) for each in most]
    widths = [1] * len(groups)
    if jax.process_index() == 0:
        widths = [] if journal is None else _stored_widths(Journal.peek(journal))
        if len(widths) != len(groups) or any(not 1 <= each <= top for each, top in zip(widths, most, strict=True)):
            widths = [
                choose_width(group.traced.jaxpr.jaxpr, lanes_per_device=top)
                for group, top in zip(groups, most, strict=True)
            ]
    if jax.process_count() > 1:
        widths = multihost_utils.broadcast_one_to_all(np.array(widths))
    return [int(width) for width in widths]


def _stored_widths(config: Mapping[str, Any]) -> list[int]:
    """Return the widths in the configuration of a journal, which anyone may have written; none if they are not there.

    What else is wrong with it is said when the journal is opened.
    """
    layouts = config.get("layout")
    widths = (
        [layout.get("width") for layout in layouts if isinstance(layout, dict)] if isinstance(layouts, list) else []
    )
    return [width for width in widths if isinstance(width, int)]


def _restore(
    book: Journal, records: dict[str, Shaped[np.ndarray, "lanes ..."]], finished: Bool[np.ndarray, " lanes"]
) -> None:
    lanes, values = book.load(num_lanes=len(finished), like=records)
    for result, new in values.items():
        records[result][lanes] = new
    finished[lanes] = True
