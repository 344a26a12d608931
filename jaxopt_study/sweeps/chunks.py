"""The bytes of one chunk of a journal: arrays of lanes, the study they belong to, and proof that they are whole.

A chunk is an ordinary NumPy archive (`numpy.load` reads it). Its ZIP comment is the SHA-256 of all bytes before it, so
that nothing of a damaged file is ever interpreted.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = "jaxopt_study.journal/1"

_PREFIX = "array:"  # keeps the users' names apart from "header" and "lanes"
_DIGITS = 64  # of SHA-256, in hexadecimal
_REGISTERED = 2  # what `isbuiltin` says of a dtype that another library made, such as JAX's bfloat16


def pack(study: str, lanes: np.ndarray, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a chunk as bytes.

    Args:
        study: Hash of the study's configuration.
        lanes: Lane numbers, int64, shape (n,).
        arrays: By name, each with leading axis n. Every dtype but objects is kept exactly, JAX's included.

    Returns:
        The bytes of a NumPy archive, not compressed.
    """
    foreign = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin == _REGISTERED}
    header = json.dumps({"format": FORMAT, "study": study, "foreign": foreign})
    content: dict[str, Any] = {}
    for name, array in arrays.items():  # NumPy's files know its own dtypes; others travel as raw bytes
        content[_PREFIX + name] = array.view(f"V{array.dtype.itemsize}") if name in foreign else array
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(header.encode(), np.uint8), lanes=lanes, **content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * _DIGITS
    body = buffer.getvalue()[:-_DIGITS]
    return body + hashlib.sha256(body).hexdigest().encode()


def unpack(study: str, data: bytes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return what `pack` was given.

    Args:
        study: Hash of the configuration of the study that the chunk must belong to.
        data: Bytes of a file.

    Returns:
        Lanes and arrays.

    Raises:
        ValueError: If the bytes are not a whole chunk of this study; the message says why.

    Example:
        >>> data = pack("study", np.arange(2), {"loss": np.array([0.5, 0.25])})
        >>> unpack("study", data)
        (array([0, 1]), {'loss': array([0.5 , 0.25])})
        >>> unpack("study", data[:-1])
        Traceback (most recent call last):
        ValueError: it is truncated or damaged: its contents do not match its hash
    """
    body, digest = data[:-_DIGITS], data[-_DIGITS:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("it is truncated or damaged: its contents do not match its hash")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        header: dict[str, Any] = json.loads(archive["header"].tobytes()) if "header" in archive else {}
        if header.get("format") != FORMAT:
            raise ValueError(f"its format is {header.get('format')!r}, expected {FORMAT!r}")
        if header["study"] != study:
            raise ValueError("it belongs to another study")
        names = [name.removeprefix(_PREFIX) for name in archive.files if name.startswith(_PREFIX)]
        arrays = {name: archive[_PREFIX + name] for name in names}
        arrays |= {name: arrays[name].view(np.dtype(dtype)) for name, dtype in header["foreign"].items()}
        return archive["lanes"], arrays
