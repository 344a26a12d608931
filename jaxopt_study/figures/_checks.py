"""What every figure asks of its texts, levels and axes."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

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
_BOUNDED = {  # lower and upper end, and which belong to it
    "width": (0.0, 300.0, "(]"),  # inches
    "height": (0.0, 300.0, "(]"),
    "dpi": (10.0, 10_000.0, "[]"),  # with fewer dots letters have no size
    "seconds": (0.0, 600.0, "(]"),  # a frame of a GIF stays for 655 at most
}
_SHARES = frozenset({"level"})
_COUNTS = frozenset({"columns", "num_problems"})
_OPTIONAL = frozenset({"marks", "rates", "ranges", "edges", "choices", "linear_within", "num_problems"})


def check_style(who: str, **options: Any) -> None:
    """Check the options that figures share by their names; None passes where it is a default.

    Args:
        who: The figure that was asked for.
        **options: What it was given.

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


def check_arrays(who: str, name: str, arrays: Any) -> dict[str, np.ndarray]:
    """Return a mapping of names to numbers as arrays, NaN and infinity included.

    Args:
        who: The figure that was asked for.
        name: The argument's name.
        arrays: By name, nested sequences or arrays.

    Returns:
        By name, in double precision.

    Raises:
        TypeError: If it is no mapping, a name is no text, or something is no real number.
        ValueError: If numbers do not form an array.
    """
    check_mapping(who, name, arrays)
    return {
        check_text(who, f"the names of {name}", key): check_numbers(who, f"{name}[{key!r}]", values, finite=False)
        for key, values in arrays.items()
    }


def check_row(who: str, name: str, values: Any) -> np.ndarray:
    """Return numbers as an array, if they are one or more in a row."""
    row = check_numbers(who, name, values, finite=False)
    if row.ndim != 1 or not row.size:
        raise ValueError(f"{who} needs {name} to be one or more numbers in a row; received shape {row.shape}.")
    return row


def check_axis(who: str, name: str, values: Any) -> np.ndarray:
    """Return numbers of a horizontal axis as an array, if they are one or more, finite and increasing."""
    row = check_row(who, name, values)
    if not np.isfinite(row).all() or not (np.diff(row) > 0).all():
        raise ValueError(f"{who} needs {name} to be finite and increasing; received {_shown(row)}.")
    return row


def check_ends(
    who: str, smallest: float | int | None, largest: float | int | None, *, log: bool = False
) -> tuple[float | None, float | None]:
    """Return the ends of an axis that were asked for; None where the axis is to fit what is drawn.

    Args:
        who: The figure that was asked for.
        smallest: Lower end.
        largest: Upper end.
        log: Whether the axis is logarithmic.

    Returns:
        Both.

    Raises:
        TypeError: If one is no real number.
        ValueError: If they are not finite, not in order, or not positive on a logarithmic axis.
    """
    low, high = (
        None if end is None else float(check_real(who, name, end, 0.0 if log else -np.inf, closed="()"))
        for name, end in (("smallest", smallest), ("largest", largest))
    )
    if low is not None and high is not None and low >= high:
        raise ValueError(f"{who} needs smallest < largest; received {low} and {high}.")
    return low, high


def check_names(who: str, name: str, values: Any, *, count: int | None = None) -> list[str]:
    """Return texts as a list; raise for anything else, one text in place of several included.

    Args:
        who: The figure that was asked for.
        name: The argument's name.
        values: The texts.
        count: How many there must be; None for any number.

    Returns:
        The texts.

    Raises:
        TypeError: If it is no sequence, or something in it is no text.
        ValueError: If there are more or fewer.
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


def check_flags(who: str, name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of True and False of a shape; raise TypeError for another kind, ValueError for another shape."""
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
    """Return a mapping that has certain fields; raise TypeError if it is none, ValueError if one is missing."""
    check_mapping(who, name, values)
    missing = sorted(field for field in fields if field not in values)
    if missing:
        raise ValueError(f"{who} needs {name} with {missing}; received {list(values)}.")
    return values


def check_number(who: str, name: str, value: Any) -> float:
    """Return one number that was measured, which may be NaN or infinite."""
    number = check_numbers(who, name, value, finite=False)
    if number.shape != ():
        raise ValueError(f"{who} needs {name} to be one number; received shape {number.shape}.")
    return float(number)


def _shown(row: np.ndarray) -> str:
    return np.array2string(row, separator=", ", threshold=8, edgeitems=3)
