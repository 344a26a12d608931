"""Description of a received argument, and the end of a message."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def describe_argument(value: Any) -> str:
    """Return a description of an argument, to complete "received …"."""
    if isinstance(value, int) and value.bit_length() > 1024:  # Python does not print very long integers
        return f"an integer of {value.bit_length():,} bits"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}…"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        if shape == () and not isinstance(value, Tracer) and isinstance(value, np.ndarray | np.generic | jax.Array):
            return f"{value}, an array {dtype}[]"
        return f"an array {dtype}{list(shape)}"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    return f"a {type(value).__name__}"


def appended(remedy: str) -> str:
    """Return a remedy as a further sentence of a message; nothing for an empty one."""
    return f" {remedy}" if remedy else ""
