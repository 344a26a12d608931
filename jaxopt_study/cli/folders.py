"""Results folders: new ones, ones to go on in, and whether they can be written."""

import tempfile
from datetime import datetime
from pathlib import Path

from jaxopt_study.cli.expressions import UserError


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
        UserError: If it is a file, or holds something and is not to be gone on in.
    """
    if out is None:
        if resume:
            raise UserError("--resume needs --out, the folder to go on in.")
        return Path("results") / f"{command}-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder.")
    if out.is_dir() and any(out.iterdir()) and not resume:
        remedy = "Name another folder with --out" + ("." if command == "curvature" else ", or add --resume.")
        raise UserError(f"{out} holds something already. {remedy}")
    return out


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
