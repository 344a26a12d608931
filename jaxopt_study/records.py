"""Results on disk: what was asked, what came out, and where it was computed.

A record is one JSON file. Its numbers come back exactly; JSON has no NaN and no infinity, so these are written as the
strings "NaN", "Infinity" and "-Infinity".
"""

import csv
import hashlib
import io
import json
import math
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax.core import Tracer

from jaxopt_study import files
from jaxopt_study._checks import check_bool, check_text, describe_argument, in_double

FORMAT = "jaxopt_study.record/1"
Status = Literal["complete", "interrupted", "failed"]

_UNWRITTEN = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_PARTS = ("config", "results", "environment")
_AROUND = 10  # layers around a part of a record, or around the configuration of a journal
_MAX_DEPTH = files.MAX_DEPTH - _AROUND
_LONGEST_NAME = 255  # bytes, of a file
_MAX_BITS = 10_000  # of an integer; Python reads and writes no more than 4,300 digits
_PACKAGES = ("jaxopt-study", "jax", "jaxlib", "optax", "flax", "numpy")


class RecordError(ValueError):
    """A record that cannot be written or read; the message says why and what to do."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Record:
    """What was asked, what came out, and where it was computed.

    Values are turned into plain JSON values at once: arrays and tuples into lists, dataclasses into dictionaries, paths
    into strings. So a record equals the one that is loaded from its file, NaN included.

    Attributes:
        kind: What made it: "compare", "experiment", …
        name: Which one of its kind; it may become the name of a file or a folder.
        config: Everything that was asked for; with the same code and environment it gives the same results.
        results: Everything that came out.
        environment: Where it was computed; by default here and now.
        data_hash: SHA-256 of the data, None without data.
        status: "complete", or how it ended before it was.
        created: When, in UTC, as ISO 8601.

    Raises:
        RecordError: If a value cannot be written as JSON, the status is unknown, or the name cannot be a file's.

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
    """Raise RecordError if a field is not what it should be."""
    if not isinstance(content["status"], str) or content["status"] not in get_args(Status):
        raise RecordError(f"A record's status is one of {get_args(Status)}; received {content['status']!r}.")
    for what in ("kind", "name"):
        try:
            files.check_name(f"A record's {what}", content[what])
        except files.PathError as error:
            raise RecordError(str(error)) from None
    for what, kinds in {"created": str, "data_hash": str | None}.items():
        if not isinstance(content[what], kinds):
            raise RecordError(f"A record's {what} is text; received {content[what]!r}.")
    for part in _PARTS:
        if not isinstance(content[part], Mapping) and not is_dataclass(content[part]):
            raise RecordError(f"A record's {part} is a dictionary; received {type(content[part]).__name__}.")


def environment() -> dict[str, Any]:
    """Describe where a program runs: versions, machine, devices and number formats.

    It names no user, host or folder.

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
        except metadata.PackageNotFoundError:  # run from a checkout that was never installed
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
    """Hash any value that a record can hold.

    Args:
        value: A configuration, for instance.

    Returns:
        SHA-256 in hexadecimal; equal for values that a record would hold as equal, whatever the order of keys.

    Raises:
        RecordError: If the value cannot be written as JSON.

    Example:
        >>> content_hash({"a": 1, "b": (2, 3)}) == content_hash({"b": [2, 3], "a": 1})
        True
    """
    text = json.dumps(
        _encode(_plain(value, "value", -_AROUND)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def save(record: Record, path: str | Path, *, durable: bool = False) -> Path:
    """Write a record; a reader sees the old file or the new one, never a part.

    The file carries a hash of its contents, so that `load` notices a changed number.

    Args:
        record: What to write.
        path: A file, or a folder (without a suffix), in which the file is called "record.json". Folders are made.
        durable: Return only when the file would survive a loss of power.

    Returns:
        The file's path.

    Raises:
        RecordError: If it cannot be written.
        TypeError: If it is no record, or `durable` no bool.

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
    text = json.dumps(_encode(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path = path / "record.json" if path.is_dir() or not path.suffix else path
        return write_atomically(path, text, durable=durable)
    except OSError as error:
        raise RecordError(_unwritten(path, error)) from error


def load(path: str | Path) -> Record:
    """Read a record.

    Args:
        path: The file, or the folder in which it is called "record.json".

    Returns:
        The record, equal to the one that was saved.

    Raises:
        RecordError: If there is no such file, or it is not a record, damaged, changed by hand or of another format.
    """
    path = _path(path)
    try:
        path = path / "record.json" if path.is_dir() else path
        document = files.parse_json(files.read_bounded(path).decode())
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist. Expected a file that `save` wrote.") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged or not a record: {error}. Make it again.") from None
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
    content = _decode(content)
    try:
        if content_hash(content) != document.get("sha256"):
            raise RecordError("its contents do not match its hash.")
        _check_fields(content)
        return Record(**content)
    except RecordError as error:
        raise RecordError(f"{path} is not as it was written: {error} Make it again.") from None


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Path:
    """Write a tidy table, one row per observation, with a header; a reader never sees a part of it.

    Args:
        path: The file; its folder is made.
        rows: Rows by column. Floats are written with all their digits, NaN as "nan", None as nothing.
        columns: Their order; None takes that of the first row.

    Returns:
        The file's path.

    Raises:
        RecordError: If a row is no mapping of texts, rows differ in their columns, there are neither rows nor columns,
            or the file cannot be written.
    """
    rows = list(rows) if isinstance(rows, Iterable) else [rows]
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RecordError(f"write_csv needs row {number} to be a mapping; received {describe_argument(row)}.")
    if columns is None:
        if not rows:
            raise RecordError("An empty table needs its columns; received neither rows nor columns.")
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
    """Write a file so that a reader, or a crash, sees the old contents or the new, never a part.

    Args:
        path: The file; its folder is made.
        content: Text, written as UTF-8, or bytes.
        durable: Return only when the file would survive a loss of power, which takes milliseconds.

    Returns:
        The file's path.

    Raises:
        OSError: If it cannot be written; the old contents are as they were.
        RecordError: If it is no path, or its name longer than 255 bytes.
        TypeError: If the content is neither text nor bytes, or `durable` is no flag.
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
    prefix = os.fsencode(f".{path.name}.")[: files.MAX_NAME]  # a name may be as long as the file system allows
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=os.fsdecode(prefix))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(draft, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(draft, path)
        if durable:
            _flush_folder(path.parent)
    except BaseException as error:
        Path(draft).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = os.fspath(path)  # a full disk does not say what was being written, or names the draft
        raise
    return path


def plain(value: Any, where: str = "value") -> Any:
    """Return a value as what JSON knows: None, bool, int, float, str, lists and dictionaries.

    Args:
        value: Any nesting of those, arrays, tuples, dataclasses and paths.
        where: What messages call it.

    Returns:
        The plain value. Single precision becomes the double with the same value.

    Raises:
        TypeError: If `where` is no text.
        RecordError: If something in it is neither.

    Example:
        >>> plain({"a": np.float32(0.5), "b": (1, np.arange(2))})
        {'a': 0.5, 'b': [1, [0, 1]]}
    """
    return _plain(value, check_text("plain", "where", where), 0)


def _plain(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return math.nan  # always this one, so that records with NaN compare equal
    if isinstance(value, str) and value in _UNWRITTEN:
        raise RecordError(f"{where} is the string {value!r}, which stands for a number in a record; use another word.")
    if type(value) is int and value.bit_length() > _MAX_BITS:
        raise RecordError(f"{where} is an integer of {value.bit_length():,} bits, too long for a text. Use a float.")
    if value is None or type(value) in (bool, int, float):
        return value
    if type(value) is str:
        return _checked_text(value, where)
    if depth > _MAX_DEPTH:
        raise RecordError(f"{where[:80]}… is nested deeper than {_MAX_DEPTH}. Flatten it.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RecordError(f"{where} has the key {key!r}; keys of a record are strings. Convert it with str.")
            _checked_text(key, where)
        return {str(key): _plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), where, depth)
    if isinstance(value, Path | str):
        return _checked_text(str(value), where)
    is_key = isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    if isinstance(value, np.ndarray | np.generic | jax.Array) and not is_key and not isinstance(value, Tracer):
        value = in_double(value)
        return _plain(np.asarray(value).tolist(), where, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth + 1) for item in value]
    raise RecordError(f"{where} cannot be written as JSON: {value!r}. Convert it to numbers, strings, lists or dicts.")


def _checked_text(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"{where} has a character that cannot be written: {error}. Replace it.") from None
    return text


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return _UNWRITTEN.get(value, value) if isinstance(value, str) else value


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
