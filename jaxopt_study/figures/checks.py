"""What every figure asks of its texts, levels and axes."""

from typing import Any

import numpy as np

from jaxopt_study.checks import check_bool, check_integer, check_mapping, check_numbers, check_real, check_text

_TEXTS = frozenset({"title", "xlabel", "ylabel", "unit", "edge_label", "mark_label", "level_label", "score_label"})
_FLAGS = frozenset({"log", "log_x", "log_y", "log_score", "larger_is_better", "together"})
_POSITIVE = frozenset({"seconds", "linear_within"})
_BOUNDED = {"width": 300.0, "height": 300.0, "dpi": 10_000.0}  # inches; Matplotlib draws at most 2¹⁶ dots
_SHARES = frozenset({"level"})
_COUNTS = frozenset({"columns", "num_problems"})
_MAPPINGS = frozenset({"marks", "rates", "ranges", "edges", "choices"})


def check_style(who: str, **options: Any) -> None:
    """Check the options that figures share by their names; None passes where a figure has it for a default.

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
        elif value is None:
            continue
        elif name in _SHARES:
            check_real(who, name, value, 0.0, 1.0, closed="()")
        elif name in _COUNTS:
            check_integer(who, name, value, 1)
        elif name in _POSITIVE:
            check_real(who, name, value, 0.0, closed="()")
        elif name in _BOUNDED:
            check_real(who, name, value, 0.0, _BOUNDED[name], closed="(]")
        elif name in _MAPPINGS:
            check_mapping(who, name, value)
        else:
            check_real(who, name, value)


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
