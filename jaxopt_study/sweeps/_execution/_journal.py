"""Journal: the finished results of a sweep on disk, written in chunks that survive crashes.

A journal is a folder: `study.json` describes the study, and each `chunk-<n>.npz` holds the results of some lanes. A
file gets its name only after all of it is on disk, so that killing the process, or the machine, loses at most the chunk
being computed.
"""

import os
import re
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from jaxopt_study import files, records
from jaxopt_study.sweeps._execution import _journal_format as chunks
from jaxopt_study.sweeps._execution._journal_folder import (
    CHUNK,
    STUDY,
    JournalError,
    check_room,
    lock_folder,
    make_folder,
    write_or_compare,
)

_DRAFT = re.compile(r"\.(study\.json|chunk-\d+\.npz)\..+")  # left behind by a killed write
_MAX_BYTES = 2**34  # of a chunk


class Journal:
    """A folder with the results of finished lanes, open in one process at a time.

    `open` creates or continues a journal. A lane is one run of the sweep, usually a trial with a seed.

    Attributes:
        folder: Path of the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Journal.open(folder, {"num_trials": 4}) as journal:
        ...         journal.append(np.array([0, 1]), {"loss": np.array([0.5, 0.25])})
        ...     with Journal.open(folder, {"num_trials": 4}) as journal:  # for example, after a crash
        ...         journal.load()
        (array([0, 1]), {'loss': array([0.5 , 0.25])})
    """

    def __init__(self, folder: Path, study: str, lock: int):
        self.folder = folder
        self._study = study
        self._unlock = weakref.finalize(self, os.close, lock)
        self._lanes: set[int] | None = None  # in the folder; None until they are read
        self._kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] | None = None  # dtype and shape of one lane's arrays

    @classmethod
    def open(cls, folder: str | Path, config: Mapping[str, Any], *, expected_bytes: int = 0) -> "Journal":
        """Create a journal, or continue one with the same configuration.

        All problems with the folder are detected here, before anything is computed.

        Args:
            folder: A new or empty folder, or that of a journal. Missing parents are created.
            config: Everything that determines the results, including versions and data hashes.
            expected_bytes: Number of bytes still to be written, for which the disk must have room.

        Returns:
            The journal. It is locked against other processes until it is closed, deleted or its process ends.

        Raises:
            JournalError: If the folder cannot be written, is in use, contains other files, has a journal of another
                configuration (the message lists the differences), or its disk lacks room.
        """
        try:
            folder = files.as_path(folder)
            plain_config = records.plain(config, "config")
        except ValueError as error:
            raise JournalError(str(error)) from None
        make_folder(folder)
        lock = lock_folder(folder)
        try:
            check_room(folder, expected_bytes)
            write_or_compare(folder, plain_config)
            for entry in folder.iterdir():
                if _DRAFT.fullmatch(entry.name):
                    entry.unlink(missing_ok=True)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, records.content_hash(plain_config), lock)

    @staticmethod
    def peek(folder: str | Path) -> Mapping[str, Any]:
        """Return the configuration of the journal in a folder; empty if there is none that can be read."""
        try:
            return records.load(files.as_path(folder) / STUDY).config
        except ValueError:
            return {}

    def append(self, lanes: np.ndarray, arrays: Mapping[str, Any]) -> None:
        """Write one chunk, which survives a crash once this returns.

        Args:
            lanes: Indices of the lanes, integers, shape (n,); none of them may be in the journal.
            arrays: Arrays by name, each with leading axis n; names, dtypes and further axes must be the same for all
                chunks.

        Raises:
            JournalError: If lanes and arrays do not match each other or earlier chunks, or the disk is full. The
                journal is then unchanged.
        """
        numbers = np.asarray(lanes)
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        if self._lanes is None:
            self.load()
        known: set[int] = self._lanes or set()
        self._check(numbers, arrays, known)
        path = self.folder / f"chunk-{max([number for number, _ in self._chunks()], default=-1) + 1:05d}.npz"
        data = chunks.pack(self._study, numbers.astype(np.int64), arrays)
        self._lanes = None  # until the chunk is known to be written, only the folder knows
        try:
            records.write_atomically(path, data, durable=True)
        except OSError as error:
            with suppress(OSError):  # if only the last flush failed, the file has its name
                path.unlink(missing_ok=True)
            raise JournalError(
                f"{path} could not be written: {error.strerror or error}. The {len(known)} lanes written before are "
                f"safe in {self.folder}; these {len(numbers)} are not. Free disk space and run it again: it continues "
                "from there."
            ) from None
        self._lanes = known | set(numbers.tolist())
        self._kinds = _kinds(arrays)

    def load(
        self, *, num_lanes: int | None = None, like: Mapping[str, np.ndarray] | None = None
    ) -> tuple[Integer[np.ndarray, " lanes"], dict[str, Shaped[np.ndarray, "lanes ..."]]]:
        """Return everything in the journal.

        Args:
            num_lanes: Number of lanes of the study, if known; the journal's lanes must be below it.
            like: Arrays with the names, dtypes and further axes that the journal's arrays must have, if known.

        Returns:
            The indices of the lanes, int64, in the order of writing, and the arrays by name with the lanes as leading
            axis; no arrays if there are no chunks.

        Raises:
            JournalError: If a chunk is truncated, damaged, of another study, repeats lanes, or has other arrays than
                this study. The message names the file; if it is deleted, only its lanes are computed again.
        """
        self._check_open()
        expected = None if like is None else _kinds(like)
        known: set[int] = set()
        chunks_read: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        kinds = None
        for _, path in self._chunks():
            try:
                lanes, arrays = chunks.unpack(self._study, files.read_bounded(path, _MAX_BYTES))
                if num_lanes is not None and len(lanes) and lanes.max() >= num_lanes:
                    raise ValueError(f"it has lane {lanes.max()}, and the study has {num_lanes}")
                if expected is not None and _kinds(arrays) != expected:
                    raise ValueError(f"its arrays are {_kinds(arrays)}, those of the study {expected}")
                if repeated := known & set(lanes.tolist()):
                    raise ValueError(f"it repeats lanes of chunks before it, such as {min(repeated)}")
                if kinds is not None and _kinds(arrays) != kinds:
                    raise ValueError(f"its arrays are {_kinds(arrays)}, those of the chunks before it {kinds}")
            except (OSError, ValueError) as error:
                raise JournalError(
                    f"{path} cannot be used: {error}. Delete this file; only its lanes will be computed again."
                ) from None
            kinds = _kinds(arrays)
            known |= set(lanes.tolist())
            chunks_read.append((lanes, arrays))
        self._lanes, self._kinds = known, kinds
        if not chunks_read:
            return np.zeros(0, np.int64), {}
        joined = {name: np.concatenate([arrays[name] for _, arrays in chunks_read]) for name in chunks_read[0][1]}
        return np.concatenate([lanes for lanes, _ in chunks_read]), joined

    def close(self) -> None:
        """Close the journal, so that other processes can open the folder."""
        self._unlock()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _chunks(self) -> list[tuple[int, Path]]:
        matches = [(CHUNK.fullmatch(entry.name), entry) for entry in self.folder.iterdir()]
        return sorted((int(match[1]), entry) for match, entry in matches if match)

    def _check_open(self) -> None:
        if not self._unlock.alive:
            raise JournalError(f"The journal {self.folder} is closed; open it again.")
        if not (self.folder / STUDY).exists():
            raise JournalError(
                f"{self.folder / STUDY} no longer exists. Restore the folder, or start again in a new one."
            )

    def _check(self, lanes: np.ndarray, arrays: Mapping[str, np.ndarray], known: set[int]) -> None:
        self._check_open()
        if lanes.ndim != 1 or not len(lanes) or lanes.dtype.kind not in "iu":
            raise JournalError(f"Expected lanes as integers of shape (n,), n ≥ 1; received {lanes!r}.")
        numbers = lanes.tolist()
        if written := [lane for lane in numbers if lane in known]:
            raise JournalError(f"Lanes {written} are already in the journal; each lane is written once.")
        if len(set(numbers)) < len(numbers):
            raise JournalError(f"Each lane is written once; received duplicates in {numbers}.")
        for name, array in arrays.items():
            if array.dtype.hasobject or array.shape[:1] != lanes.shape:
                raise JournalError(
                    f"{name}: expected an array of numbers with leading axis {len(lanes)}; received dtype "
                    f"{array.dtype} and shape {array.shape}."
                )
        if self._kinds is not None and _kinds(arrays) != self._kinds:
            raise JournalError(f"Expected arrays as in the chunks before, {self._kinds}; received {_kinds(arrays)}.")


def _kinds(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    return {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
