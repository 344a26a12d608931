"""Paths and texts that may come from anyone: names inside their folder, places to write, bounded reading, JSON."""

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

MAX_NAME = 200  # bytes; file systems take 255, of which suffixes and drafts need some
MAX_DEPTH = 200  # nesting of a document; Python's own limit is near 1000 calls
MAX_BYTES = 2**30  # of a document


class PathError(ValueError):
    """A path or a name that cannot be used; the message says why and what to do."""


def check_name(what: str, name: Any) -> str:
    r"""Return a name that may become a file's or a folder's: one that stays in the folder it is put into.

    Args:
        what: What is named, for the message: "A record's name".
        name: Text.

    Returns:
        The same text.

    Raises:
        PathError: If it is no text, empty, "." or "..", longer than 200 bytes, or holds a separator or a control
            character.

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
    """Return a path that a user wrote, with `~` for the home folder.

    Args:
        path: A path of this machine.

    Returns:
        The path. It need not exist.

    Raises:
        PathError: If it is no path, empty or holds a NUL, or `~` cannot be resolved.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes):
        raise PathError(f"Expected a path; received {path!r}.")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise PathError(f"Expected a path that is not empty and has no NUL; received {text!r}.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # no home folder, or no such user
        raise PathError(f"{text!r} cannot be resolved: {error}. Write the whole path.") from None


def check_place(path: str | Path) -> Path:
    """Return where a file is to be written, if it can be; before what goes into it is computed. It makes nothing.

    Args:
        path: The file's path; missing folders above it are allowed.

    Returns:
        The path, with `~` resolved.

    Raises:
        PathError: If it is a folder, its name is too long, or its folder cannot be made or written.
    """
    path = as_path(path)
    try:
        if path.is_dir():
            raise PathError(f"{path} is a folder; name a file in it.")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
        _check_parents(path.parent)
    except OSError as error:
        raise PathError(f"{path} cannot be written: {error.strerror or error}. Name another file.") from None
    return path


def check_folder(folder: str | Path) -> Path:
    """Return a folder, if files can be written into it, or it can be made. It makes nothing.

    Args:
        folder: Its path.

    Returns:
        The path, with `~` resolved.

    Raises:
        PathError: If it is a file, its name is too long, or it cannot be made or written.
    """
    folder = as_path(folder)
    try:
        _check_parents(folder)
    except OSError as error:
        raise PathError(f"{folder} cannot be written: {error.strerror or error}. Name another folder.") from None
    return folder


def _check_parents(folder: Path) -> None:
    """Raise OSError unless the folder, or the lowest one above it that exists, is a folder and can be written."""
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
    """Return the bytes of a regular file of bounded size; a device or a pipe, which may never end, is refused.

    Args:
        path: The file.
        limit: The most bytes accepted.

    Returns:
        Its bytes.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a regular file, or longer than the limit.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        data = file.read(min(limit, found.st_size) + 1)
        if len(data) > found.st_size:  # it has grown
            data += file.read(max(0, limit + 1 - len(data)))
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def parse_json(text: str, *, constants: bool = False) -> Any:
    """Parse JSON that may come from anyone: whatever it is, it gives plain values or one kind of error.

    Args:
        text: The text.
        constants: Whether NaN, Infinity and -Infinity are accepted, which are not JSON.

    Returns:
        Plain values.

    Raises:
        ValueError: If it is not JSON, nested deeper than 200, repeats a key, has a number that is too long, or a
            character that cannot be written.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, item in pairs:
            if name in found:
                raise ValueError(f"it has the key {name!r} twice")
            found[name] = item
        return found

    def constant(word: str) -> float:
        if not constants:
            raise ValueError(f"it has {word}, which is not JSON")
        return float(word)

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=constant)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from None
    layer, depth = [value], 0
    while layer:  # not by recursion, of which there may be too much
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
                one.encode()  # half a pair of surrogates cannot be written
        layer = below
    return value
