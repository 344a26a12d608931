"""Atomic writing of files and of CSV tables."""

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxopt_study import files
from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study.records._plain_values import RecordError, plain

_LONGEST_NAME = 255  # of a file name, in bytes


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Path:
    """Write a tidy CSV table atomically, with a header and one row per observation.

    Args:
        path: The file; its folder is created.
        rows: Rows as mappings by column. Floats are written with all digits, NaN as "nan", None as an empty field.
        columns: The order of the columns; None takes that of the first row.

    Returns:
        The file's path.

    Raises:
        RecordError: If a row is not a mapping with string keys, rows differ in their columns, there are neither rows
            nor columns, or the file cannot be written.
    """
    rows = list(rows) if isinstance(rows, Iterable) else [rows]
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RecordError(f"write_csv needs row {number} to be a mapping; received {describe_argument(row)}.")
    if columns is None:
        if not rows:
            raise RecordError("An empty table needs columns; received neither rows nor columns.")
        columns = list(rows[0])
    if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
        raise RecordError(f"write_csv needs columns to be a list of texts; received {describe_argument(columns)}.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for number, row in enumerate(rows):
        if set(row) != set(columns):
            raise RecordError(f"Row {number} has the columns {sorted(row)}; expected {sorted(columns)}.")
        writer.writerow([plain(row[column], column) for column in columns])
    path = checked_path(path)
    try:
        return write_atomically(path, text.getvalue())
    except OSError as error:
        raise RecordError(unwritten_message(path, error)) from error


def write_atomically(path: str | Path, content: str | bytes, *, durable: bool = False) -> Path:
    """Write a file atomically: readers and crashes leave the old contents or the new ones, never a part.

    Args:
        path: The file; its folder is created.
        content: Text, written as UTF-8, or bytes.
        durable: Whether to return only when the file would survive a loss of power, which takes milliseconds.

    Returns:
        The file's path.

    Raises:
        OSError: If the file cannot be written; the old contents are then unchanged.
        RecordError: If `path` is not a path, or the file name is longer than 255 bytes.
        TypeError: If the content is neither text nor bytes, or `durable` is not a bool.
    """
    path = checked_path(path)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise RecordError(f"{path} has a name of more than {_LONGEST_NAME} bytes. Choose a shorter one.")
    if not isinstance(content, str | bytes):
        raise TypeError(
            f"write_atomically needs content to be text or bytes; received {describe_argument(content)}. Convert it."
        )
    durable = check_bool("write_atomically", "durable", durable)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    prefix = os.fsencode(f".{path.name}.")[: files.MAX_NAME]  # the name itself may be as long as the file system allows
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=os.fsdecode(prefix))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(draft, 0o666 & ~_umask())  # mkstemp creates private files
        os.replace(draft, path)
        if durable:
            _flush_folder(path.parent)
    except BaseException as error:
        Path(draft).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = os.fspath(path)  # errors of a full disk name no file, or the temporary one
        raise
    return path


def checked_path(path: str | Path) -> Path:
    try:
        return files.as_path(path)
    except ValueError as error:
        raise RecordError(str(error)) from None


def unwritten_message(path: Path, error: OSError) -> str:
    return f"{path} could not be written: {error.strerror or error}. Free disk space, or choose another path."


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
