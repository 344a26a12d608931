"""Storages of Optuna: in memory, in a journal file, or in a database."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxopt_study import files

# What Optuna raises for a storage that was changed.
_DAMAGED = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def load_optuna() -> Any:
    """Return the optional package; raise ImportError that says how to install it."""
    try:
        import optuna
    except ImportError:
        raise ImportError(
            "OptunaSampler needs the optional package optuna: pip install 'jaxopt-study[optuna]'."
        ) from None
    return optuna


def open_storage(optuna: Any, storage: str | Path | None) -> Any:
    """Return a storage in memory, in a journal file or in a database."""
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if "://" not in str(storage):
        path = files.check_place(storage).resolve()  # Optuna never releases a dead worker's lock of a relative path
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_journal(path)
        lock = optuna.storages.journal.JournalFileSymlinkLock(str(path))
        _drop_torn_line(path, lock)
        try:
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path), lock))
        except _DAMAGED as error:
            raise ValueError(
                f"Optuna cannot read {path} ({type(error).__name__}: {error}). Choose another name, or restore the "
                "file."
            ) from error
    return _database(optuna, str(storage))


def _check_journal(path: Path) -> None:
    """Raise ValueError if a non-empty file is not a journal of Optuna, before anything is appended to it."""
    begin = b'{"op_code"'
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(len(begin))
        if start != begin[: len(start)]:  # the beginning of a truncated journal is accepted
            raise ValueError(
                f"OptunaSampler needs storage to be a new file or one that it wrote; {path} has other contents. "
                "Choose another name."
            )


def _drop_torn_line(path: Path, lock: Any) -> None:
    """Remove the unfinished last line of a killed process, to which Optuna would append, and then read neither.

    A line that another process is just writing is finished before the lock is free.
    """
    if _length_in_lines(path) is None:
        return
    lock.acquire()
    try:
        if (length := _length_in_lines(path)) is not None:
            os.truncate(path, length)
    finally:
        lock.release()


def _length_in_lines(path: Path) -> int | None:
    """Return the length of a file up to its last finished line; None if all of its lines are finished."""
    content = path.read_bytes() if path.is_file() else b""
    return None if content.endswith(b"\n") or not content else content.rfind(b"\n") + 1


def _database(optuna: Any, url: str) -> Any:
    """Return a database's storage, retrying if another process creates its tables at the same time."""
    from sqlalchemy.exc import DatabaseError, SQLAlchemyError

    patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    waits = [0.1, 0.2, 0.4, 0.8, 1.6]
    while True:
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=patient)
        except (
            SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
            ImportError,
            RuntimeError,
            ValueError,
        ) as error:
            if not waits or not isinstance(error, DatabaseError | optuna.exceptions.StorageInternalError):
                raise ValueError(
                    f"OptunaSampler cannot open the database given as storage: {error}. Check the URL, and that the "
                    "driver is installed."
                ) from error
            time.sleep(waits.pop(0))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what Optuna raises for a damaged or changed storage into an error that names the study.

    Args:
        name: Name of the study.

    Raises:
        ValueError: For any error of the storage, or of Optuna with what stands in it.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (*_DAMAGED, OptunaError, SQLAlchemyError) as error:
        raise ValueError(
            f"Optuna cannot use the study {name!r} in its storage ({type(error).__name__}: {error}). Choose another "
            "study_name, or restore the storage; if a database was only busy, try again."
        ) from error


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Silence Optuna's messages about a study, and restore its settings afterwards."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
