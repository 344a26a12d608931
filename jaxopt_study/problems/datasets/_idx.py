"""Reader of the IDX format of MNIST: a big-endian header, then unsigned bytes."""

import gzip
import hashlib
import math
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from jaxopt_study import files
from jaxopt_study._checks import check_choice
from jaxopt_study.problems.datasets._dataset import DatasetError

IdxKind = Literal["images", "labels"]

_MAGIC: dict[IdxKind, int] = {"images": 0x0803, "labels": 0x0801}  # 08 = unsigned byte, then the number of dimensions
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_PACKED = 1032  # most bytes that one byte of a gzip file can expand to
_MAX_BYTES = 2**31  # of one file; MNIST's largest has 47 MB
_PIECE = 2**20


def read_content(path: Path, kind: IdxKind) -> bytes:
    """Return the bytes of an IDX file, decompressed if its first bytes are those of gzip.

    At most one byte more than the header announces is read, to detect surplus data. A header that announces more than
    the file can hold raises before anything is allocated.

    Args:
        path: The file.
        kind: "images" or "labels", the expected contents.

    Returns:
        The uncompressed bytes: the header and the data that it announces; or only the first four bytes or fewer, if
        they are not those of an IDX file of this kind.

    Raises:
        DatasetError: If the file cannot be read, is shorter or longer than its header announces, or its compressed data
            fail their checksum.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path} cannot be read, because it is a device or a pipe. Name a regular file.")
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _bounded(unpacked, path, kind, status.st_size * _MOST_PACKED, compressed=True)
            return _bounded(file, path, kind, status.st_size, compressed=False)
    except EOFError as error:
        raise DatasetError(f"{path} is truncated: its compressed data end early. Download it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is corrupted: {error}. Download it again.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}. Check the path and its permissions.") from error


def _bounded(file: Any, path: Path, kind: IdxKind, most: int, *, compressed: bool) -> bytes:
    start = file.read(4)
    if start != struct.pack(">I", _MAGIC[kind]):
        return start
    size = 4 * (_MAGIC[kind] & 0xFF)
    content = bytearray(start + file.read(size))
    if len(content) < 4 + size:
        return bytes(content)
    shape, expected = _announced(bytes(content), kind)
    if expected > _MAX_BYTES:
        raise DatasetError(
            f"{path} is corrupted: its header announces {' × '.join(map(str, shape))} {kind}, that is {expected:,} "
            f"bytes, more than the limit of {_MAX_BYTES:,}. Download it again."
        )
    if expected > most:
        holds = (
            f"it has {most}" if not compressed else f"its {most // _MOST_PACKED:,} compressed bytes cannot hold them"
        )
        raise DatasetError(
            f"{path} is truncated: its header announces {shape[0]} {kind}, that is {expected} bytes in all; {holds}. "
            "Download it again."
        )
    while len(content) <= expected and (piece := file.read(min(_PIECE, expected + 1 - len(content)))):
        content += piece
    if len(content) > expected:
        length = "more" if compressed else str(most)
        raise DatasetError(
            f"{path} is corrupted: its header announces {shape[0]} {kind}, that is {expected} bytes in all; it has "
            f"{length}. Download it again."
        )
    return bytes(content)


def _announced(content: bytes, kind: IdxKind) -> tuple[tuple[int, ...], int]:
    """Return the shape in a header and the exact number of bytes that the whole file must have."""
    num_dims = _MAGIC[kind] & 0xFF
    shape = struct.unpack(f">{num_dims}I", content[4 : 4 + 4 * num_dims])
    return shape, 4 + 4 * num_dims + math.prod(shape)


def read_idx(path: str | Path, kind: IdxKind) -> UInt8[np.ndarray, "items ..."]:
    """Read the images or the labels in an IDX file, gzipped or not.

    The layout is a big-endian magic number (2051 for images, 2049 for labels), the size of each dimension as a 32-bit
    integer, then one unsigned byte per entry. The entries are neither scaled nor flattened. `DatasetError` is raised
    for a file that is missing, truncated, too long, corrupted, in another format, or of the other kind.

    Args:
        path: The file.
        kind: "images" or "labels", the required contents.

    Returns:
        `uint8` array of shape (examples, rows, columns) or (examples,).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([5, 0, 4]))
        ...     print(read_idx(path, "labels"))
        [5 0 4]

    References:
        LeCun, Cortes and Burges, The MNIST database of handwritten digits: "File formats".
    """
    check_choice("read_idx", "kind", kind, list(_MAGIC))
    try:
        path = files.as_path(path)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    return parse_idx(read_content(path, kind), kind, str(path))


def parse_idx(content: bytes, kind: IdxKind, path: str) -> UInt8[np.ndarray, "items ..."]:
    """Parse the uncompressed bytes of an IDX file; `read_idx` lists the checks.

    Args:
        content: The uncompressed bytes.
        kind: "images" or "labels".
        path: The file, for messages.

    Returns:
        `uint8` array of shape (examples, rows, columns) or (examples,).

    Raises:
        DatasetError: If the bytes are not a complete IDX file of this kind.
    """
    magic = struct.unpack(">I", content[:4])[0] if len(content) >= 4 else None
    if magic != _MAGIC[kind]:
        other = next((other for other, number in _MAGIC.items() if number == magic), None)
        if other is None:
            raise DatasetError(
                f"{path} should hold {kind} in IDX format (magic number {_MAGIC[kind]}), but it starts with "
                f"{content[:4]!r}. Download it again."
            )
        raise DatasetError(
            f"{path} should hold {kind} (magic number {_MAGIC[kind]}), but it holds {other} (magic number {magic}). "
            "Check whether image and label files were swapped or renamed."
        )
    header = 4 + 4 * (_MAGIC[kind] & 0xFF)
    if len(content) < header:
        raise DatasetError(f"{path} is truncated: {len(content)} bytes, shorter than its header. Download it again.")
    shape, expected = _announced(content, kind)
    if 0 in shape:
        raise DatasetError(
            f"{path} is empty: its header announces {' × '.join(map(str, shape))} {kind}. Name another file."
        )
    if len(content) != expected:
        fault = "truncated" if len(content) < expected else "corrupted"
        raise DatasetError(
            f"{path} is {fault}: its header announces {shape[0]} {kind}, that is {expected} bytes in all; "
            f"it has {len(content)}. Download it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def content_md5(content: bytes) -> str:
    """Return the MD5 of uncompressed bytes, the published form of these checksums, to detect damage and mix-ups."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
