"""`part` and `journal`: what an interrupted run of an experiment does not compute twice."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import experiments
import jaxopt_study
from jaxopt_study import files
from jaxopt_study.records import MALFORMED, Record, content_hash, load, plain, save
from jaxopt_study.records import environment as environment_now

PREFIX = ".parts-"


@dataclass
class _Kept:
    folder: Path
    report: Callable[[str], None]
    names: set[str] = field(default_factory=set)  # of parts and searches so far
    seconds_read: float = 0.0  # what computing the parts took that were read

    def claimed(self, what: str, name: str) -> str:
        """Return a name for a file or folder; refuse one that is taken, whose content would be read in its place."""
        if name in self.names:
            raise ValueError(f"{what} must be its own; {name!r} is used twice in this experiment. Rename one.")
        self.names.add(files.check_name(what, name))
        return name


_KEPT: ContextVar[_Kept | None] = ContextVar("_KEPT", default=None)


def part(name: str, compute: Callable[[], Any]) -> Any:
    """Compute a part of an experiment's results, or read it if an interrupted run has computed it.

    Args:
        name: Name of the part, unique within the experiment; may be used as a file name.
        compute: Returns plain values or arrays. What it returns depends on the experiment's configuration alone.

    Returns:
        What `compute` returns, as plain values, arrays and tuples as lists; the same whether it was computed or read.

    Raises:
        ValueError: If another part or search of the experiment has the name.
    """
    kept = _KEPT.get()
    if kept is None:
        return plain(compute())
    path = kept.folder / f"{kept.claimed('The name of a part', name)}.json"
    try:
        results = load(path).results
        value, seconds = results["value"], float(results["seconds"])
    except MALFORMED:  # not there, or damaged while it was written
        began = time.perf_counter()
        value = plain(compute())
        seconds = time.perf_counter() - began
        save(Record("part", name, config={}, results={"value": value, "seconds": seconds}), path)
        kept.report(f"  {name}: {seconds:.0f} s")
        return value
    kept.seconds_read += seconds
    return value


def journal(name: str) -> Path | None:
    """Return the folder in which a search or comparison of an experiment keeps finished trials; None without one.

    Args:
        name: Name of the search, unique within the experiment; may be used as a folder name.

    Returns:
        The argument `journal` of `sweeps.search`, `compare` and `ablate`.

    Raises:
        ValueError: If another part or search of the experiment has the name.
    """
    kept = _KEPT.get()
    return None if kept is None else kept.folder / kept.claimed("The name of a search", name)


@contextmanager
def kept_in(
    folder: Path | None, config: Any, *, resume: bool, report: Callable[[str], None] = lambda line: None
) -> Iterator[Callable[[], float]]:
    """Keep the parts of a run in its folder, until all of it is finished.

    Args:
        folder: Folder of the experiment; None keeps nothing.
        config: The run's configuration. Parts of another configuration, other code or other versions are not used.
        resume: Whether parts of an interrupted run are used; otherwise they are deleted.
        report: Called with a line on each part that was computed.

    Yields:
        A function that returns how long the run has taken so far, in seconds, computing the parts that were read
        included.
    """
    began = time.perf_counter()
    if folder is None:
        yield lambda: time.perf_counter() - began
        return
    identity = content_hash({"config": config, "code": _code(), "environment": environment_now()})
    parts = folder / f"{PREFIX}{identity[:16]}"
    for other in folder.glob(f"{PREFIX}*"):
        if not resume or other != parts:
            shutil.rmtree(other)
    parts.mkdir(parents=True, exist_ok=True)
    kept = _Kept(parts, report)
    token = _KEPT.set(kept)
    try:
        yield lambda: time.perf_counter() - began + kept.seconds_read
    finally:
        _KEPT.reset(token)
    shutil.rmtree(parts)


@cache
def _code() -> str:
    """Return the hash of the source of this package and of the library."""
    digest = hashlib.sha256()
    for package in (experiments, jaxopt_study):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
