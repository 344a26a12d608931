"""The target of `jaxopt-study curvature`: a run of a comparison, or a user's own loss and parameters."""

import re
from pathlib import Path

from jaxopt_study import files
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._target import Target
from jaxopt_study.cli._target_from_module import target_from_module
from jaxopt_study.cli._target_from_run import target_from_run


def find_target(
    path: str,
    optimizer: str | None,
    start: int,
    *,
    settings: str | None = None,
    data_dir: Path | None = None,
    download: bool = False,
) -> Target:
    """Return the point to diagnose.

    Args:
        path: The results folder of a comparison, its record, or `module:name`.
        optimizer: For a comparison, the name of one of its optimizers; for a user's loss, an expression as in
            `read_optimizer`, or None.
        start: For a comparison, the index of the seed.
        settings: For a comparison, "default" or "tuned"; None takes "tuned" if the optimizer was tuned.
        data_dir: For a comparison, the folder of its data, as in `compare`.
        download: Whether to download them.

    Raises:
        UserError: If the target is missing or invalid.
    """
    try:
        record_path = files.as_path(path)
        exists = record_path.exists()
    except (OSError, ValueError) as error:
        raise UserError(f"{path!r} cannot be used: {error}.") from None
    if exists:
        return target_from_run(record_path, optimizer, settings, start, data_dir, download)
    if re.fullmatch(r"[\w.]+:[\w.]+", path):
        if data_dir is not None or download or start or settings:
            raise UserError(
                "--data-dir, --download, --settings and --start are for a results folder of `jaxopt-study compare`."
            )
        return target_from_module(path, optimizer)
    raise UserError(
        f"{path!r} is neither a results folder of `jaxopt-study compare` nor module:name, such as mine:loss_and_params "
        "for mine.py."
    )
