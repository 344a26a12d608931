"""`Record`: a result with its configuration and environment, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from jaxopt_study import files
from jaxopt_study.records._environment import environment
from jaxopt_study.records._plain_values import RecordError, plain

Status = Literal["complete", "interrupted", "failed"]
_PARTS = ("config", "results", "environment")


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
        check_fields({item.name: getattr(self, item.name) for item in fields(self)})
        for part in _PARTS:
            object.__setattr__(self, part, plain(getattr(self, part), part))


def check_fields(content: Mapping[str, Any]) -> None:
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
