"""Validation of untrusted file names, paths and JSON texts."""

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

MAX_NAME = 200  # bytes; file systems allow 255, of which suffixes and temporary names need some
MAX_DEPTH = 200  # of nesting in a document; Python's recursion limit is near 1000
MAX_BYTES = 2**30  # of a document


class PathError(ValueError):
    """A path or name cannot be used; the message gives the cause and the remedy."""


def check_name(what: str, name: Any) -> str:
    r"""Return a name if it is safe as a file or folder name and cannot leave its folder.

    Args:
        what: What the name is for, in the message: "A record's name".
        name: The name.

    Returns:
        The same name.

    Raises:
        PathError: If the name is not a string, is empty, "." or "..", is longer than 200 bytes, or has a separator or a
            control character.

    Example:
        >>> check_name("A record's name", "mnist, run 3")
        'mnist, run 3'
        >>> check_name("A record's name", "../mnist")
        Traceback (most recent call last):
        ...
        jaxopt_study.files.PathError: A record's name must be one name, without / and \ and not ".."; received ...
    """
    shown = repr(name) if len(repr(name)) <= 80 else f"{repr(name)[:77]}…"
    if not isinstance(name, str) or name.strip() in {"", ".", ".."} or set("/\\") & set(name):
        raise PathError(f'{what} must be one name, without / and \\ and not ".."; received {shown}. Rename it.')
    if not name.isprintable():
        raise PathError(f"{what} must have no control characters; received {shown}. Rename it.")
    if len(os.fsencode(name)) > MAX_NAME:
        raise PathError(f"{what} must have at most {MAX_NAME} bytes; received {len(os.fsencode(name))}: {shown}.")
    return name


def as_path(path: str | Path) -> Path:
    """Return a user's path with `~` expanded to the home folder.

    Args:
        path: A path on this machine.

    Returns:
        The path, which need not exist.

    Raises:
        PathError: If `path` is not a path, is empty or contains a NUL, or `~` cannot be resolved.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes):
        raise PathError(f"Expected a path; received {path!r}.")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise PathError(f"Expected a non-empty path without NUL; received {text!r}.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # no home folder, or no such user
        raise PathError(f"{text!r} cannot be resolved: {error}. Write the whole path.") from None


def check_place(path: str | Path) -> Path:
    """Return the path of a file after checking that it can be written; nothing is created.

    Args:
        path: The file's path; missing parent folders are allowed.

    Returns:
        The path, with `~` resolved.

    Raises:
        PathError: If the path is a folder, its name is too long, or its folder cannot be created or written.
    """
    path = as_path(path)
    try:
        if path.is_dir():
            raise PathError(f"{path} is a folder. Name a file in it.")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
        _check_parents(path.parent)
    except OSError as error:
        raise PathError(f"{path} cannot be written: {error.strerror or error}. Name another file.") from None
    return path


def check_folder(folder: str | Path) -> Path:
    """Return a folder after checking that it can be written or created; nothing is created.

    Args:
        folder: The folder's path.

    Returns:
        The path, with `~` resolved.

    Raises:
        PathError: If the path is a file, its name is too long, or it cannot be created or written.
    """
    folder = as_path(folder)
    try:
        _check_parents(folder)
    except OSError as error:
        raise PathError(f"{folder} cannot be written: {error.strerror or error}. Name another folder.") from None
    return folder


def _check_parents(folder: Path) -> None:
    """Raise OSError unless the folder, or its lowest existing parent, is a writable folder."""
    for part in (folder, *folder.parents):
        try:
            mode = part.stat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(20, f"{part} is a file, not a folder")
        with tempfile.TemporaryFile(dir=part) as probe:
            probe.write(b"0")
        return


def read_bounded(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file of bounded size; raise for a device or a pipe, which may never end.

    Args:
        path: The file.
        limit: Largest number of bytes.

    Returns:
        The bytes of the file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is not a regular file, or is longer than the limit.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        data = file.read(min(limit, status.st_size) + 1)
        if len(data) > status.st_size:  # the file has grown
            data += file.read(max(0, limit + 1 - len(data)))
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def parse_json(text: str, *, constants: bool = False) -> Any:
    """Parse untrusted JSON into plain values, or raise ValueError.

    Args:
        text: The text.
        constants: Whether to accept NaN, Infinity and -Infinity, which are not JSON.

    Returns:
        Plain values.

    Raises:
        ValueError: If the text is not JSON, is nested deeper than 200, repeats a key, or has a number that is too long
            or a character that cannot be encoded.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        status: dict[str, Any] = {}
        for name, item in pairs:
            if name in status:
                raise ValueError(f"it has the key {name!r} twice")
            status[name] = item
        return status

    def constant(word: str) -> float:
        if not constants:
            raise ValueError(f"it has {word}, which is not JSON")
        return float(word)

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=constant)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from None
    layer, depth = [value], 0
    while layer:  # a loop, because recursion could be too deep
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
        below: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                below += one
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str) and not one.isascii():
                one.encode()  # a lone surrogate cannot be encoded
        layer = below
    return value
