"""Saving and loading of records, as JSON files that contain a hash of their contents."""

import json
from dataclasses import fields
from pathlib import Path

from jaxopt_study import files
from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study.records._plain_values import RecordError, content_hash, decode, encode
from jaxopt_study.records._record import Record, check_fields
from jaxopt_study.records._writing import checked_path, unwritten_message, write_atomically

FORMAT = "jaxopt_study.record/1"


def save(record: Record, path: str | Path, *, durable: bool = False) -> Path:
    """Write a record atomically: a reader sees the old file or the new one, never a part.

    The file contains a hash of its contents, so that `load` detects changes.

    Args:
        record: The record.
        path: A file, or a folder (a path without suffix), in which the file is "record.json". Folders are created.
        durable: Whether to return only when the file would survive a loss of power.

    Returns:
        The file's path.

    Raises:
        RecordError: If the record cannot be written.
        TypeError: If `record` is not a record, or `durable` is not a bool.

    Example:
        >>> import tempfile
        >>> record = Record("demo", "empty", config={}, results={})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(record, folder)
        ...     print(path.name, load(path) == record)
        record.json True
    """
    if not isinstance(record, Record):
        raise TypeError(f"save needs a Record; received {describe_argument(record)}.")
    durable = check_bool("save", "durable", durable)
    path = checked_path(path)
    content = {name.name: getattr(record, name.name) for name in fields(record)}
    document = {"format": FORMAT, **content, "sha256": content_hash(content)}
    text = json.dumps(encode(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path = path / "record.json" if path.is_dir() or not path.suffix else path
        return write_atomically(path, text, durable=durable)
    except OSError as error:
        raise RecordError(unwritten_message(path, error)) from error


def load(path: str | Path) -> Record:
    """Read a record.

    Args:
        path: The file, or the folder that contains "record.json".

    Returns:
        A record equal to the saved one.

    Raises:
        RecordError: If the file does not exist, is not a record, is damaged, was changed by hand or has another format.
    """
    path = checked_path(path)
    try:
        path = path / "record.json" if path.is_dir() else path
        document = files.parse_json(files.read_bounded(path).decode())
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist. Expected a file that `save` wrote.") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged or not a record: {error}. Create it again.") from None
    received = document.get("format") if isinstance(document, dict) else type(document).__name__
    if received != FORMAT:
        raise RecordError(
            f"{path} is not a record of this version: expected format {FORMAT!r}, received {repr(received)[:80]}."
        )
    expected = {item.name for item in fields(Record)}
    content = {name: value for name, value in document.items() if name not in ("format", "sha256")}
    if set(content) != expected:
        raise RecordError(
            f"{path} has the wrong fields: missing {sorted(expected - set(content))}, unknown "
            f"{sorted(set(content) - expected)}."
        )
    content = decode(content)
    try:
        if content_hash(content) != document.get("sha256"):
            raise RecordError("its contents do not match its hash.")
        check_fields(content)
        return Record(**content)
    except RecordError as error:
        raise RecordError(f"{path} was changed after it was written: {error} Create it again.") from None
