"""Results folders: new ones, and ones to resume in."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from jaxopt_study import files
from jaxopt_study.cli._errors import UserError

try:
    import fcntl
except ImportError:  # a system that cannot lock a folder
    fcntl = None


def choose_folder(out: Path | None, command: str, name: str, *, resume: bool = False) -> Path:
    """Return the results folder, without making it.

    Args:
        out: The folder of --out; None for results/COMMAND-NAME-TIME.
        command: Name of the command.
        name: Name of its subject.
        resume: Whether the folder may hold results of the same command.

    Raises:
        UserError: If it is a file, cannot be used, or holds something without `resume`; or if the name is not one of a
            single folder.
    """
    if out is None and resume:
        raise UserError("--resume needs --out, the folder of the interrupted run.")
    try:
        files.check_name("The name of the subject, which names the results folder,", name)
    except ValueError as error:
        raise UserError(str(error)) from None
    try:
        if out is None:
            return files.check_folder(Path("results") / f"{command}-{name}-{datetime.now():%Y%m%d-%H%M%S}")
        out = files.as_path(out)
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out} is a file; name a folder.")
        files.check_folder(out)
        holds = out.is_dir() and any(out.iterdir())
    except ValueError as error:
        raise UserError(f"{error} Name another folder with --out.") from None
    except OSError as error:
        raise UserError(f"--out {out} cannot be used: {error.strerror}. Name another folder with --out.") from None
    if holds and not resume:
        remedy = "Name another folder with --out" + ("." if command == "curvature" else ", or add --resume.")
        raise UserError(f"{out} is not empty. {remedy}")
    return out


@contextmanager
def results_folder(folder: Path) -> Iterator[Path]:
    """Make a results folder, and remove it again if the command raises UserError.

    The folder is locked: another command that uses it at the same time is refused, and removes nothing.

    Args:
        folder: The folder. Files from before stay.

    Yields:
        The folder.

    Raises:
        UserError: If it cannot be made or written, or another command uses it.
    """
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    make_folder(folder)
    claim = _claim(folder)
    empty = claim is not None and not any(folder.iterdir())
    try:
        yield folder
    except UserError:
        if empty and not any(folder.rglob("chunk-*.npz")):  # finished work in a journal
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            for part in made:
                with suppress(OSError):  # it holds something else by now
                    part.rmdir()
        raise
    finally:
        if claim is not None:
            os.close(claim)


def _claim(folder: Path) -> int | None:
    """Return the folder opened and locked, until it is closed or the process ends; None if it cannot be locked."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if handle is not None:
            os.close(handle)
        if isinstance(error, BlockingIOError | FileNotFoundError):  # in use, or just removed by another command
            raise UserError(
                f"{folder} is in use by another command. Wait for it, or name another folder with --out."
            ) from None
        return None
    return handle


def make_folder(folder: Path) -> None:
    """Make a folder and check that files can be written into it, before anything is computed.

    Args:
        folder: The folder.

    Raises:
        UserError: If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}. Name another folder with --out."
        ) from None
