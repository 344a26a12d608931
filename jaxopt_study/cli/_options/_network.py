"""Common options of the commands that train a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

DEFAULTS: dict[str, dict[str, Any]] = {  # by data set
    "digits": {"steps": 1000, "batch_size": 64, "widths": (100, 100)},
    "mnist": {"steps": 2000, "batch_size": 128, "widths": (100, 100, 100, 100)},
    "fashion_mnist": {"steps": 2000, "batch_size": 128, "widths": (100, 100, 100, 100)},
    "text": {"steps": 500, "batch_size": 32, "widths": (64, 64)},
}


def shown(metavar: str, default: str, **options: Any) -> Any:
    """Return the annotation of an option whose default depends on other options.

    Args:
        metavar: Placeholder of its value in the help.
        default: Description of the default; "" for none.
        **options: Further arguments of `tyro.conf.arg`.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "", **options)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options of every command that trains a network."""

    data: Literal["digits", "mnist", "fashion_mnist", "text"] = "digits"
    """Data set. The digits come with scikit-learn, and a text, Python's manual, with Python; the others are read from
    files. On text a transformer predicts the next character, on the others a multilayer perceptron the class."""
    data_dir: Annotated[Path | None, shown("PATH", "")] = None
    """Folder with the four IDX files, or its parent. Default: $JAXOPT_STUDY_DATA, or the folder of --download. For
    text: a file, or a folder of files, in UTF-8."""
    download: bool = False
    """Download missing files of MNIST (11 MB) or Fashion-MNIST (30 MB), and verify them."""
    widths: Annotated[
        tuple[int, ...] | None,
        shown("INT [INT ...]", "100 100 on digits, 64 64 on text, 100 100 100 100 on the others"),
    ] = None
    """Widths of the hidden layers; on text, of the transformer's blocks, all equal."""
    steps: Annotated[int | None, shown("INT", "1000 on digits, 500 on text, 2000 on the others")] = None
    """Number of training steps."""
    batch_size: Annotated[int | None, shown("INT", "64 on digits, 32 on text, 128 on the others")] = None
    """Number of examples per step."""
    evaluations: Annotated[int, tyro.conf.arg(metavar="INT")] = 40
    """Number of evaluations on the validation examples along a run."""
    seed: int = 0
    """Random seed of initialisation, batches, trials and the train/validation split."""
    out: Annotated[Path | None, shown("PATH", "results/COMMAND-NAME-TIME", aliases=["--output"])] = None
    """Results folder to write."""
    resume: bool = False
    """Continue an interrupted run of the same command in its results folder, given by --out. Finished runs are not
    repeated."""

    recorded: ClassVar[tuple[str, ...]] = ()  # names of its own options that determine the results
    counts: ClassVar[Mapping[str, int]] = {"steps": 1, "batch_size": 1, "evaluations": 1}  # the smallest valid values
