"""Checks of flags, choices, functions, texts and mappings."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxopt_study._checks._describe import appended, describe_argument


def check_bool(who: str, name: str, value: Any) -> bool:
    """Return a flag as a `bool`; raise TypeError for anything else, including traced and numeric values."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{who} needs {name} to be True or False; received {describe_argument(value)}.")
    return bool(value)


def check_choice(who: str, name: str, value: Any, choices: Collection[Any], *, remedy: str = "") -> Any:
    """Return a value if it is one of the given choices; otherwise raise ValueError that lists them."""
    known = isinstance(value, str | int | float | bool | None) and any(
        type(value) is type(choice) and value == choice for choice in choices
    )
    if not known:
        listed = ", ".join(map(repr, choices))
        raise ValueError(
            f"{who} needs {name} to be one of {listed}; received {describe_argument(value)}.{appended(remedy)}"
        )
    return value


def check_callable(who: str, name: str, value: Any, *, expected: str = "a function") -> Any:
    """Return a callable; raise TypeError for anything else."""
    if not callable(value):
        raise TypeError(f"{who} needs {name} to be {expected}; received {describe_argument(value)}.")
    return value


def check_static(who: str, name: str, value: Any) -> Any:
    """Return a value known before compiling; raise TypeError for a traced one."""
    if isinstance(value, Tracer):
        raise TypeError(f"{who} needs {name} to be known before compiling; received a traced value.")
    return value


def check_text(who: str, name: str, value: Any) -> str:
    """Return a string; raise TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{who} needs {name} to be text; received {describe_argument(value)}.")
    return value


def check_mapping(who: str, name: str, value: Any) -> Mapping[Any, Any]:
    """Return a mapping; raise TypeError for anything else."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{who} needs {name} to be a mapping; received {describe_argument(value)}.")
    return value
