"""The options that the commands which train a network share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

DEFAULTS: dict[str, dict[str, Any]] = {  # where the user says nothing
    "digits": {"steps": 1000, "batch_size": 64, "widths": (100, 100)},
    "mnist": {"steps": 2000, "batch_size": 128, "widths": (100, 100, 100, 100)},
    "fashion_mnist": {"steps": 2000, "batch_size": 128, "widths": (100, 100, 100, 100)},
}


def shown(metavar: str, default: str, **options: Any) -> Any:
    """Return how the help shows an option whose default depends on other options.

    Args:
        metavar: What stands for its value.
        default: What it is if nothing is said; "" for nothing.
        **options: Further arguments of `tyro.conf.arg`.

    Returns:
        An annotation.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "", **options)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The options of every command that trains a network."""

    data: Literal["digits", "mnist", "fashion_mnist"] = "digits"
    """What the network learns. The digits come with scikit-learn; the others are read from files."""
    data_dir: Annotated[Path | None, shown("PATH", "")] = None
    """The folder with the four IDX files, or one above it; else $JAXOPT_STUDY_DATA, or what --download fills."""
    download: bool = False
    """Download missing files of MNIST (11 MB) or Fashion-MNIST (30 MB), and check them."""
    widths: Annotated[
        tuple[int, ...] | None, shown("INT [INT ...]", "100 100 on digits, 100 100 100 100 on the others")
    ] = None
    """Hidden layers of the network."""
    steps: Annotated[int | None, shown("INT", "1000 on digits, 2000 on the others")] = None
    """Training steps of every run."""
    batch_size: Annotated[int | None, shown("INT", "64 on digits, 128 on the others")] = None
    """Examples per step."""
    evaluations: Annotated[int, tyro.conf.arg(metavar="INT")] = 40
    """How often the validation examples are evaluated along a run."""
    seed: int = 0
    """Which starts, batches, trials and split of the data."""
    out: Annotated[Path | None, shown("PATH", "results/COMMAND-NAME-TIME", aliases=["--output"])] = None
    """The results folder."""
    resume: bool = False
    """Go on in a folder that an earlier run of the same command left (--out names it). What had finished, however it
    ended, is not run again."""

    recorded: ClassVar[tuple[str, ...]] = ()  # names of the options of its own that decide numbers
    counts: ClassVar[Mapping[str, int]] = {"steps": 1, "batch_size": 1, "evaluations": 1}  # the least of each
