"""Checks of the arguments that figures share: texts, levels, arrays and axes."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxopt_study._checks import (
    check_bool,
    check_integer,
    check_mapping,
    check_numbers,
    check_real,
    check_text,
    describe_argument,
)

_TEXTS = frozenset({"title", "xlabel", "ylabel", "unit", "edge_label", "mark_label", "level_label", "score_label"})
_FLAGS = frozenset({"log", "log_x", "log_y", "log_score", "larger_is_better", "together"})
_POSITIVE = frozenset({"linear_within"})
_BOUNDED = {  # lower and upper end, and which of them are included
    "width": (0.0, 300.0, "(]"),  # inches
    "height": (0.0, 300.0, "(]"),
    "dpi": (10.0, 10_000.0, "[]"),  # with fewer dots, letters have no size
    "seconds": (0.0, 600.0, "(]"),  # the longest duration of a GIF frame is 655
}
_SHARES = frozenset({"level"})
_COUNTS = frozenset({"columns", "num_problems"})
_OPTIONAL = frozenset({"marks", "rates", "ranges", "edges", "choices", "linear_within", "num_problems"})


def check_style(who: str, **options: Any) -> None:
    """Check options that figures share, by their names; None passes if it is a default.

    Args:
        who: The name of the figure function, for messages.
        **options: The options given.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If it is out of range.
    """
    for name, value in options.items():
        if name in _TEXTS:
            check_text(who, name, value)
        elif name in _FLAGS:
            check_bool(who, name, value)
        elif value is None and name in _OPTIONAL:
            continue
        elif name in _SHARES:
            check_real(who, name, value, 0.0, 1.0, closed="()")
        elif name in _COUNTS:
            check_integer(who, name, value, 1)
        elif name in _POSITIVE:
            check_real(who, name, value, 0.0, closed="()")
        elif name in _BOUNDED:
            low, high, closed = _BOUNDED[name]
            check_real(who, name, value, low, high, closed=closed)
        else:
            check_mapping(who, name, value)


def check_arrays(who: str, name: str, arrays: Any) -> dict[str, Float[np.ndarray, "..."]]:
    """Return a mapping of names to numbers as arrays, NaN and infinity included.

    Args:
        who: The name of the figure function, for messages.
        name: The argument's name.
        arrays: By name, nested sequences or arrays.

    Returns:
        By name, in double precision.

    Raises:
        TypeError: If `arrays` is not a mapping, a name is not a string, or an entry is not a real number.
        ValueError: If numbers do not form an array.
    """
    check_mapping(who, name, arrays)
    return {
        check_text(who, f"the names of {name}", key): check_numbers(who, f"{name}[{key!r}]", values, finite=False)
        for key, values in arrays.items()
    }


def check_row(who: str, name: str, values: Any) -> Float[np.ndarray, " n"]:
    """Return numbers as an array; raise ValueError unless they are a non-empty sequence."""
    row = check_numbers(who, name, values, finite=False)
    if row.ndim != 1 or not row.size:
        raise ValueError(f"{who} needs {name} to be a sequence of one or more numbers; received shape {row.shape}.")
    return row


def check_axis(who: str, name: str, values: Any) -> Float[np.ndarray, " n"]:
    """Return the numbers of a horizontal axis as an array; raise ValueError unless they are finite and increasing."""
    row = check_row(who, name, values)
    if not np.isfinite(row).all() or not (np.diff(row) > 0).all():
        raise ValueError(f"{who} needs {name} to be finite and increasing; received {_shown(row)}.")
    return row


def check_ends(
    who: str, smallest: float | int | None, largest: float | int | None, *, log: bool = False
) -> tuple[float | None, float | None]:
    """Return the given limits of an axis; None fits a limit to the data.

    Args:
        who: The name of the figure function, for messages.
        smallest: Lower end.
        largest: Upper end.
        log: Whether the axis is logarithmic.

    Returns:
        Both limits.

    Raises:
        TypeError: If one is not a real number.
        ValueError: If the limits are not finite, not in order, or not positive on a logarithmic axis.
    """
    low, high = (
        None if end is None else float(check_real(who, name, end, 0.0 if log else -np.inf, closed="()"))
        for name, end in (("smallest", smallest), ("largest", largest))
    )
    if low is not None and high is not None and low >= high:
        raise ValueError(f"{who} needs smallest < largest; received {low} and {high}.")
    return low, high


def check_names(who: str, name: str, values: Any, *, count: int | None = None) -> list[str]:
    """Return texts as a list; raise for anything else, including a single string.

    Args:
        who: The name of the figure function, for messages.
        name: The argument's name.
        values: The texts.
        count: The required number; None for any number.

    Returns:
        The texts.

    Raises:
        TypeError: If `values` is not a sequence, or an entry is not a string.
        ValueError: If the number differs from `count`.
    """
    expected = "texts" if count is None else f"{count} texts"
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{who} needs {name} to be a list of {expected}; received {describe_argument(values)}.")
    texts = list(values)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{who} needs {name} to be a list of {expected}; received {describe_argument(text)} in it.")
    if count is not None and len(texts) != count:
        raise ValueError(f"{who} needs {name} to be {expected}; received {len(texts)}.")
    return texts


def check_flags(who: str, name: str, values: Any, shape: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    """Return a boolean array of a given shape; raise TypeError for another kind, ValueError for another shape."""
    try:
        flags = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{who} needs {name} to be True or False, shape {shape}; received {describe_argument(values)}."
        ) from error
    if flags.size and flags.dtype != bool:
        raise TypeError(
            f"{who} needs {name} to be True or False, shape {shape}; received {describe_argument(values)} of "
            f"{flags.dtype}."
        )
    if flags.shape != shape:
        raise ValueError(f"{who} needs {name} to be True or False, shape {shape}; received shape {flags.shape}.")
    return flags.astype(bool)


def check_fields(who: str, name: str, values: Any, fields: Collection[str]) -> Mapping[str, Any]:
    """Return a mapping with the given fields; raise TypeError if it is not one, ValueError if a field is missing."""
    check_mapping(who, name, values)
    missing = sorted(field for field in fields if field not in values)
    if missing:
        raise ValueError(f"{who} needs {name} with {missing}; received {list(values)}.")
    return values


def check_number(who: str, name: str, value: Any) -> float:
    """Return one measured number, which may be NaN or infinite."""
    number = check_numbers(who, name, value, finite=False)
    if number.shape != ():
        raise ValueError(f"{who} needs {name} to be one number; received shape {number.shape}.")
    return float(number)


def _shown(row: Float[np.ndarray, " n"]) -> str:
    return np.array2string(row, separator=", ", threshold=8, edgeitems=3)


def fields_of(result: Any) -> Any:
    """Return the fields of a result by name; anything that is no result is returned as it is."""
    if hasattr(result, "_asdict"):
        return result._asdict()
    if is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in fields(result)}
    return result
