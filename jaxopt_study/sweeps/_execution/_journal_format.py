"""File format of a journal's chunks: arrays of lanes, hash of the study, and checksum.

A chunk is an ordinary NumPy archive (`numpy.load` reads it). Its ZIP comment is the SHA-256 of all bytes before it, so
that a damaged file is never interpreted. A hash does not authenticate the writer, so the contents are checked as
untrusted data.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, Shaped

from jaxopt_study import files

FORMAT = "jaxopt_study.journal/1"

_PREFIX = "array:"  # separates the users' names from "header" and "lanes"
_DIGITS = 64  # of SHA-256, in hexadecimal
_REGISTERED = 2  # the value of `isbuiltin` for a dtype registered by another library, such as JAX's bfloat16


def pack(
    study: str, lanes: Integer[np.ndarray, " lanes"], arrays: Mapping[str, Shaped[np.ndarray, "lanes ..."]]
) -> bytes:
    """Return a chunk as bytes.

    Args:
        study: Hash of the study's configuration.
        lanes: Indices of the lanes, int64, shape (n,).
        arrays: Arrays by name, each with leading axis n. Every dtype except objects is kept exactly, including JAX's.

    Returns:
        The bytes of an uncompressed NumPy archive.
    """
    foreign = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin == _REGISTERED}
    header = json.dumps({"format": FORMAT, "study": study, "foreign": foreign})
    content: dict[str, Any] = {}
    for name, array in arrays.items():  # NumPy's files support only its own dtypes; others are stored as raw bytes
        content[_PREFIX + name] = array.view(f"V{array.dtype.itemsize}") if name in foreign else array
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(header.encode(), np.uint8), lanes=lanes, **content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * _DIGITS
    body = buffer.getvalue()[:-_DIGITS]
    return body + hashlib.sha256(body).hexdigest().encode()


def unpack(study: str, data: bytes) -> tuple[Integer[np.ndarray, " lanes"], dict[str, Shaped[np.ndarray, "lanes ..."]]]:
    """Return the lanes and arrays of a packed chunk.

    Args:
        study: Hash of the configuration of the study to which the chunk must belong.
        data: Bytes of a file.

    Returns:
        Lanes and arrays.

    Raises:
        ValueError: If the bytes are not a complete chunk of this study; the message gives the reason.

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
    try:
        members = _members(data)
    except Exception as error:  # a hash proves that the bytes are complete, not who wrote them
        raise ValueError(f"it is not an archive of arrays: {type(error).__name__}: {error}") from None
    header = _header(members.pop("header", None))
    if header.get("format") != FORMAT:
        raise ValueError(f"its format is {repr(header.get('format'))[:80]}, expected {FORMAT!r}")
    if header.get("study") != study:
        raise ValueError("it belongs to another study")
    lanes = members.pop("lanes", None)
    if lanes is None or lanes.dtype != np.int64 or lanes.ndim != 1:
        raise ValueError("its lanes are not integers of shape (n,)")
    if (lanes < 0).any() or len(np.unique(lanes)) < len(lanes):
        raise ValueError("its lanes are negative or repeated")
    if strange := [name for name in members if not name.startswith(_PREFIX)]:
        raise ValueError(f"it has an unexpected member {strange[0][:80]!r}")
    arrays = {name.removeprefix(_PREFIX): array for name, array in members.items()}
    arrays |= _foreign(header.get("foreign"), arrays)
    for name, array in arrays.items():
        if array.dtype.kind == "V" and array.dtype.isbuiltin != _REGISTERED:
            raise ValueError(f"the dtype of {name!r} is {array.dtype}, which is not numeric")
        if array.shape[:1] != lanes.shape:
            raise ValueError(f"{name!r} has shape {array.shape}, which does not match {len(lanes)} lanes")
    return lanes, arrays


def _members(data: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return the arrays of an archive by name, none larger than its data in the archive."""
    contents: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise ValueError("it is compressed or encrypted, which a chunk is not")
        if sum(entry.file_size for entry in entries) > len(data):
            raise ValueError("it announces more bytes than it has")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in contents:
                raise ValueError(f"it holds {name!r} twice")
            contents[name] = _array(archive.read(entry))
    return contents


def _array(member: bytes) -> Shaped[np.ndarray, "..."]:
    """Return the array in the bytes of a NumPy file; raise unless the header accounts for every byte."""
    file = io.BytesIO(member)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"its arrays are of version {version}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.subdtype or dtype.names or not dtype.itemsize or any(size < 0 for size in shape):
        raise ValueError(f"an array of {dtype} and shape {shape} is not numeric")
    size, there = math.prod(shape) * dtype.itemsize, len(member) - file.tell()
    if size != there:
        raise ValueError(f"an array of {dtype} and shape {shape} needs {size} bytes, but the file has {there}")
    if not size:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(member, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


def _header(member: np.ndarray | None) -> dict[str, Any]:
    try:
        header = {} if member is None else files.parse_json(member.tobytes().decode())
    except ValueError as error:
        raise ValueError(f"its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a dictionary")
    return header


def _foreign(named: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with dtypes that NumPy's files do not support, restored by the dtype names in the header."""
    if not isinstance(named, dict) or not all(isinstance(dtype, str) for dtype in named.values()):
        raise ValueError("its header does not list the dtypes of the arrays")
    restored = {}
    for name, word in named.items():
        try:
            dtype = jnp.dtype(word)
            if dtype.isbuiltin != _REGISTERED or name not in arrays or arrays[name].dtype != f"V{dtype.itemsize}":
                raise TypeError("no such array")
        except TypeError as error:
            raise ValueError(f"its header gives {name[:80]!r} the dtype {word[:80]!r}: {error}") from None
        restored[name] = arrays[name].view(dtype)
    return restored
