"""The IDX format of MNIST and its relatives: big-endian header, then unsigned bytes."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from jaxopt_study.problems.datasets.dataset import DatasetError

IdxKind = Literal["images", "labels"]

_MAGIC = {"images": 0x0803, "labels": 0x0801}  # 08 = unsigned byte, then the number of dimensions
_GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressing it if its first bytes, whatever its name, are those of gzip.

    Args:
        path: The file.

    Returns:
        Its uncompressed bytes.

    Raises:
        DatasetError: If the file cannot be read, or its compressed data end early or fail their checksum.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP_MAGIC) else raw
    except EOFError as error:
        raise DatasetError(f"{path} is truncated: its compressed data end early. Download it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is corrupted: {error}. Download it again.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}. Check the path and its permissions.") from error


def read_idx(path: str | Path, kind: IdxKind) -> np.ndarray:
    """Read the images or the labels in an IDX file, gzipped or not.

    The layout is a big-endian magic number (2051 for images, 2049 for labels), the size of each dimension as a 32-bit
    integer, then one unsigned byte per entry. It does not scale or flatten. A file that is missing, truncated, too
    long, corrupted, not in this format, or of the other kind gets a `DatasetError`.

    Args:
        path: The file.
        kind: "images" or "labels": what the file must hold.

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
    return parse_idx(read_bytes(Path(path)), kind, str(path))


def parse_idx(content: bytes, kind: IdxKind, path: str) -> np.ndarray:
    """Parse the uncompressed bytes of an IDX file; `read_idx` says what is checked.

    Args:
        content: The uncompressed bytes.
        kind: "images" or "labels".
        path: The file, for messages.

    Returns:
        `uint8` array of shape (examples, rows, columns) or (examples,).

    Raises:
        DatasetError: If the bytes are not a whole IDX file of this kind.
    """
    magic = struct.unpack(">I", content[:4])[0] if len(content) >= 4 else None
    if magic != _MAGIC[kind]:
        other = next((other for other, number in _MAGIC.items() if number == magic), None)
        if other is None:
            raise DatasetError(
                f"{path} should hold {kind} in IDX format (magic number {_MAGIC[kind]}), but it is no such file: it "
                f"starts with {content[:4]!r}. Download it again."
            )
        raise DatasetError(
            f"{path} should hold {kind} (magic number {_MAGIC[kind]}), but it holds {other} (magic number {magic}). "
            "Were image and label files swapped or renamed?"
        )
    num_dims = _MAGIC[kind] & 0xFF
    header = 4 + 4 * num_dims
    if len(content) < header:
        raise DatasetError(f"{path} is truncated: {len(content)} bytes, shorter than its header. Download it again.")
    shape = struct.unpack(f">{num_dims}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        fault = "truncated" if len(content) < expected else "corrupted"
        raise DatasetError(
            f"{path} is {fault}: its header announces {shape[0]} {kind}, that is {expected} bytes in all; "
            f"it has {len(content)}. Download it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def content_md5(content: bytes) -> str:
    """Return the MD5 of uncompressed bytes: against damage and mix-ups, the form in which these sums are published."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
