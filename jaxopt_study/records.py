"""Records: results on disk with their configuration and environment.

A record is one JSON file. Numbers are restored exactly; JSON has no NaN and no infinity, so these are written as the
strings "NaN", "Infinity" and "-Infinity".
"""

import csv
import hashlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import jax

from jaxopt_study import files
from jaxopt_study._checks import check_bool, check_text, describe_argument
from jaxopt_study._plain_values import LEVELS_AROUND, decode, encode, to_plain
from jaxopt_study._plain_values import RecordError as RecordError

FORMAT = "jaxopt_study.record/1"
Status = Literal["complete", "interrupted", "failed"]

_PARTS = ("config", "results", "environment")
_LONGEST_NAME = 255  # of a file name, in bytes
_PACKAGES = ("jaxopt-study", "jax", "jaxlib", "optax", "flax", "numpy")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Record:
    """A result with its configuration and environment.

    Values are converted to plain JSON values on construction: arrays and tuples to lists, dataclasses to dictionaries,
    paths to strings. A record therefore equals the one loaded from its file, including NaN.

    Attributes:
        kind: The kind of computation: "compare", "experiment", …
        name: Name within its kind; may be used as a file or folder name.
        config: The complete configuration; with the same code and environment it gives the same results.
        results: The results.
        environment: Versions and hardware; by default those of this process.
        data_hash: SHA-256 of the data; None without data.
        status: "complete", "interrupted" or "failed".
        created: Time of creation in UTC, as ISO 8601.

    Raises:
        RecordError: If a value cannot be written as JSON, the status is unknown, or the name is not a valid file name.

    Example:
        >>> record = Record("demo", "nan", config={"rate": 0.1}, results={"losses": np.array([1.0, np.nan])})
        >>> record.results
        {'losses': [1.0, nan]}
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=lambda: environment())
    data_hash: str | None = None
    status: Status = "complete"
    created: str = field(default_factory=_now)

    def __post_init__(self):
        _check_fields({item.name: getattr(self, item.name) for item in fields(self)})
        for part in _PARTS:
            object.__setattr__(self, part, plain(getattr(self, part), part))


def _check_fields(content: Mapping[str, Any]) -> None:
    """Raise RecordError if a field is invalid."""
    if not isinstance(content["status"], str) or content["status"] not in get_args(Status):
        raise RecordError(f"A record's status must be one of {get_args(Status)}; received {content['status']!r}.")
    for what in ("kind", "name"):
        try:
            files.check_name(f"A record's {what}", content[what])
        except files.PathError as error:
            raise RecordError(str(error)) from None
    for what, kinds in {"created": str, "data_hash": str | None}.items():
        if not isinstance(content[what], kinds):
            raise RecordError(f"A record's {what} must be text; received {content[what]!r}.")
    for part in _PARTS:
        if not isinstance(content[part], Mapping) and not is_dataclass(content[part]):
            raise RecordError(f"A record's {part} must be a dictionary; received {type(content[part]).__name__}.")


def environment() -> dict[str, Any]:
    """Return a description of versions, machine, devices and number formats.

    It contains no user, host or folder names.

    Returns:
        Plain values by name.

    Example:
        >>> sorted(environment())
        ['cpu_count', 'devices', 'machine', 'matmul_precision', 'platform', 'python', 'versions', 'x64']
    """
    devices = jax.devices()
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a checkout that was not installed
            versions[package] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
    }


def content_hash(value: Any) -> str:
    """Return the hash of any value that a record can hold.

    Args:
        value: A value, for example a configuration.

    Returns:
        SHA-256 in hexadecimal; equal for values that are equal in a record, whatever the order of keys.

    Raises:
        RecordError: If the value cannot be written as JSON.

    Example:
        >>> content_hash({"a": 1, "b": (2, 3)}) == content_hash({"b": [2, 3], "a": 1})
        True
    """
    text = json.dumps(
        encode(to_plain(value, "value", -LEVELS_AROUND)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


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
    path = _path(path)
    content = {name.name: getattr(record, name.name) for name in fields(record)}
    document = {"format": FORMAT, **content, "sha256": content_hash(content)}
    text = json.dumps(encode(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path = path / "record.json" if path.is_dir() or not path.suffix else path
        return write_atomically(path, text, durable=durable)
    except OSError as error:
        raise RecordError(_unwritten(path, error)) from error


def load(path: str | Path) -> Record:
    """Read a record.

    Args:
        path: The file, or the folder that contains "record.json".

    Returns:
        A record equal to the saved one.

    Raises:
        RecordError: If the file does not exist, is not a record, is damaged, was changed by hand or has another format.
    """
    path = _path(path)
    try:
        path = path / "record.json" if path.is_dir() else path
        document = files.parse_json(files.read_bounded(path).decode())
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist. Expected a file that `save` wrote.") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged or not a record: {error}. Create it again.") from None
    found = document.get("format") if isinstance(document, dict) else type(document).__name__
    if found != FORMAT:
        raise RecordError(
            f"{path} is not a record of this version: expected format {FORMAT!r}, received {repr(found)[:80]}."
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
        _check_fields(content)
        return Record(**content)
    except RecordError as error:
        raise RecordError(f"{path} was changed after it was written: {error} Create it again.") from None


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
    path = _path(path)
    try:
        return write_atomically(path, text.getvalue())
    except OSError as error:
        raise RecordError(_unwritten(path, error)) from error


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
    path = _path(path)
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


def plain(value: Any, where: str = "value") -> Any:
    """Return a value as plain JSON values: None, bool, int, float, str, lists and dictionaries.

    Args:
        value: Any nesting of these with arrays, tuples, dataclasses and paths.
        where: Name of the value in messages.

    Returns:
        The plain value. Single-precision numbers become doubles of the same value.

    Raises:
        TypeError: If `where` is not a string.
        RecordError: If a part of the value cannot be converted.

    Example:
        >>> plain({"a": np.float32(0.5), "b": (1, np.arange(2))})
        {'a': 0.5, 'b': [1, [0, 1]]}
    """
    return to_plain(value, check_text("plain", "where", where), 0)


def _path(path: str | Path) -> Path:
    try:
        return files.as_path(path)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _unwritten(path: Path, error: OSError) -> str:
    return f"{path} could not be written: {error.strerror or error}. Make room, or choose another path."


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
