"""Results folders: new ones, ones to go on in, and whether they can be written."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from jaxopt_study import files
from jaxopt_study.cli._errors import UserError


def choose_folder(out: Path | None, command: str, name: str, *, resume: bool = False) -> Path:
    """Return the results folder, which is new or empty, or to be gone on in. It makes nothing.

    Args:
        out: What the user said.
        command: The command, for a name where the user said nothing.
        name: What it works on, for the same.
        resume: Whether to go on in a folder that holds something.

    Returns:
        The folder.

    Raises:
        UserError: If it is a file, cannot be made or written, or holds something and is not to be gone on in; or if the
            name would lead elsewhere.
    """
    if out is None and resume:
        raise UserError("--resume needs --out, the folder to go on in.")
    try:
        files.check_name("The name of what the results are of", name)
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
        raise UserError(f"{out} holds something already. {remedy}")
    return out


@contextmanager
def results_folder(folder: Path) -> Iterator[Path]:
    """Make a folder for results, and take it away again if what was asked for is refused after all.

    Args:
        folder: The folder. What stood in it before stays.

    Yields:
        The folder.

    Raises:
        UserError: If it cannot be made or written.
    """
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    held = [] if made else list(folder.iterdir())
    make_folder(folder)
    try:
        yield folder
    except UserError:
        if not held and not any(folder.rglob("chunk-*.npz")):  # of a journal: work that is not to be lost
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            for part in made:
                with suppress(OSError):  # something else has come into it
                    part.rmdir()
        raise


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
