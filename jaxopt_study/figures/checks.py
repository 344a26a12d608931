"""What every figure asks of its texts, levels and axes."""

from typing import Any

from jaxopt_study.checks import check_bool, check_integer, check_real, check_text

_TEXTS = frozenset({"title", "xlabel", "ylabel", "unit", "edge_label"})
_FLAGS = frozenset({"log", "log_score", "larger_is_better"})
_POSITIVE = frozenset({"seconds", "dpi", "linear_within", "width", "height"})
_SHARES = frozenset({"level"})
_COUNTS = frozenset({"columns"})


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
        else:
            check_real(who, name, value)
