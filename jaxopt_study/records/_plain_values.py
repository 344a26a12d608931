"""Conversion of values to plain JSON values and back, with NaN and infinity as strings."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxopt_study import files
from jaxopt_study._checks import check_text, in_double

LEVELS_AROUND = 10  # nesting levels around a part of a record, or around the configuration of a journal
MAX_DEPTH = files.MAX_DEPTH - LEVELS_AROUND
_MAX_BITS = 10_000  # of an integer; Python converts at most 4,300 digits
_UNWRITTEN = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


# What reading the content of a record may raise: it is data, and may say anything.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class RecordError(ValueError):
    """A record cannot be written or read; the message gives the cause and the remedy."""


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


def to_plain(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return math.nan  # always the same object, so that records with NaN compare equal
    if isinstance(value, str) and value in _UNWRITTEN:
        raise RecordError(
            f"{where} is the string {value!r}, which represents a number in a record. Use another string."
        )
    if type(value) is int and value.bit_length() > _MAX_BITS:
        raise RecordError(
            f"{where} is an integer of {value.bit_length():,} bits, too long to write as text. Use a float."
        )
    if value is None or type(value) in (bool, int, float):
        return value
    if type(value) is str:
        return _checked_text(value, where)
    if depth > MAX_DEPTH:
        raise RecordError(f"{where[:80]}… is nested deeper than {MAX_DEPTH}. Flatten it.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RecordError(
                    f"{where} has the key {key!r}, but keys in a record must be strings. Convert it with str."
                )
            _checked_text(key, where)
        return {str(key): to_plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value), where, depth)
    if isinstance(value, Path | str):
        return _checked_text(str(value), where)
    is_key = isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    if isinstance(value, np.ndarray | np.generic | jax.Array) and not is_key and not isinstance(value, Tracer):
        value = in_double(value)
        return to_plain(np.asarray(value).tolist(), where, depth)
    if isinstance(value, list | tuple):
        return [to_plain(item, where, depth + 1) for item in value]
    raise RecordError(f"{where} cannot be written as JSON: {value!r}. Convert it to numbers, strings, lists or dicts.")


def _checked_text(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"{where} has a character that cannot be written: {error}. Replace it.") from None
    return text


def encode(value: Any) -> Any:
    """Return plain values with NaN and infinity as strings."""
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def decode(value: Any) -> Any:
    """Undo `encode`.

    Returns:
        Plain values.
    """
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return _UNWRITTEN.get(value, value) if isinstance(value, str) else value
