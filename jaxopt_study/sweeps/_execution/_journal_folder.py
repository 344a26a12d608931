"""Folder of a journal: its checks, its lock, and the description of the study."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxopt_study import records
from jaxopt_study.sweeps._execution import _journal_format as chunks

STUDY, LOCK = "study.json", ".lock"
CHUNK = re.compile(r"chunk-(\d{1,9})\.npz")

_SHOWN = 12  # differences listed in a message


class JournalError(ValueError):
    """A journal cannot be opened, written or read; the message gives the cause, the safe results and the remedy."""


def make_folder(folder: Path) -> None:
    """Create the folder of a journal; raise JournalError if there is something else."""
    try:
        if folder.exists() and not folder.is_dir():
            raise JournalError(f"A journal must be a folder; {folder} is a file. Choose another path.")
        folder.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise JournalError(f"{folder} cannot be used: {error}. Choose a folder that you can write.") from None
    if STUDY in names:
        return
    if any(CHUNK.fullmatch(name) for name in names):
        raise JournalError(
            f"{folder} has chunks but no {STUDY}, which describes them. Restore it, or choose another folder."
        )
    if names:
        raise JournalError(
            f"{folder} is neither empty nor a journal: it contains {sorted(names)[0]!r}. Choose another folder."
        )


def lock_folder(folder: Path) -> int:
    """Return a locked file, which the kernel unlocks when the process ends in any way."""
    import fcntl  # not available on every system

    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise JournalError(f"{folder} cannot be written: {error}. Choose a folder that you can write.") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise JournalError(
            f"{folder} is in use by another process, or by another open journal of this process. Wait until it ends, "
            "stop it, or choose another folder."
        ) from None
    except OSError as error:
        os.close(handle)
        raise JournalError(f"{folder} cannot be locked: {error}. Choose a folder on a local disk.") from None
    return handle


def check_room(folder: Path, expected_bytes: int) -> None:
    """Raise JournalError if the folder cannot be written, or its disk lacks room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:  # the lock may be writable although the folder is not
            probe.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise JournalError(f"{folder} cannot be written: {error}. Choose a folder that you can write.") from None
    if free < expected_bytes:
        raise JournalError(
            f"The results need about {expected_bytes:,} bytes; the disk of {folder} has {free:,} free. Free some, or "
            f"choose a folder on another disk."
        )


def write_or_compare(folder: Path, config: Any) -> None:
    """Write the description of the study, or raise unless the existing one is equal."""
    path = folder / STUDY
    if not path.exists():
        written = records.Record("journal", "study", config=config, results={"format": chunks.FORMAT})
        try:
            records.save(written, path, durable=True)
        except records.RecordError as error:
            raise JournalError(f"{error} Nothing was computed, so nothing is lost.") from None
    try:
        record = records.load(path)
    except records.RecordError as error:
        raise JournalError(
            f"{error} It describes the chunks: restore it from a copy, or choose another folder."
        ) from None
    if record.kind != "journal" or record.results.get("format") != chunks.FORMAT:
        raise JournalError(f"{path}: expected the format {chunks.FORMAT!r}. Choose another folder.")
    if differences := list(_differences("config", record.config, config)):
        more = f"\n  … and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        listed = "".join(f"\n  {line}" for line in differences[:_SHOWN])
        raise JournalError(
            f"{folder} has results of another configuration:{listed}{more}\n"
            "Use the same configuration, or choose another folder."
        )


def _differences(where: str, stored: Any, requested: Any) -> Iterable[str]:
    if isinstance(stored, dict) and isinstance(requested, dict):
        for name in stored | requested:
            path = f"{where}[{name!r}]"
            if name not in requested:
                yield f"{path}: stored {stored[name]!r}, not requested"
            elif name not in stored:
                yield f"{path}: not stored, requested {requested[name]!r}"
            else:
                yield from _differences(path, stored[name], requested[name])
    elif isinstance(stored, list) and isinstance(requested, list) and len(stored) == len(requested):
        for index, (one, other) in enumerate(zip(stored, requested, strict=True)):
            yield from _differences(f"{where}[{index}]", one, other)
    elif repr(stored) != repr(requested):  # distinguishes 1 from True and 0.0 from -0.0, but not NaN from NaN
        yield f"{where}: stored {stored!r}, requested {requested!r}"
