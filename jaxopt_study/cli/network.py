"""What the commands that train a network on data share: their options, the data, the network."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import tyro

from jaxopt_study import problems, records, sweeps
from jaxopt_study.cli.expressions import UserError
from jaxopt_study.problems import Problem
from jaxopt_study.problems.datasets import Dataset, DatasetError

SETTINGS: dict[str, dict[str, Any]] = {  # where the user says nothing
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
class OnNetwork:
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

    counts: ClassVar[Mapping[str, int]] = {"steps": 1, "batch_size": 1, "evaluations": 1}

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers of every run.

        Returns:
            Plain values by name, with the defaults of the data set filled in.

        Raises:
            UserError: If one is out of range.
        """
        own = {name: getattr(self, name) for name in ("data", "seed", "steps", "batch_size", "widths")}
        chosen: dict[str, Any] = {
            name: SETTINGS[self.data].get(name) if value is None else value for name, value in own.items()
        }
        for name, least in self.counts.items():
            value = chosen.get(name, getattr(self, name))
            if value < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}; received {value}.")
        if any(width < 1 for width in chosen["widths"]):
            raise UserError(f"--widths must be at least 1 each; received {' '.join(map(str, chosen['widths']))}.")
        return records.plain(chosen | {"evaluate_every": max(1, chosen["steps"] // self.evaluations)})


def use_all_cores() -> None:
    """Make JAX see each core as a device, over which runs are spread; before JAX starts, unless the user said more."""
    told = jax.config.values["jax_num_cpu_devices"] > 0 or "device_count" in os.environ.get("XLA_FLAGS", "")
    if told:
        return
    with suppress(RuntimeError):  # JAX has started
        sweeps.use_cpu_cores()


def load_data(config: OnNetwork) -> Dataset:
    """Return the data set.

    Args:
        config: What was asked for.

    Returns:
        The data set, split by the seed.

    Raises:
        UserError: If it cannot be had; the message says what is missing.
    """
    if config.data == "digits":
        if config.data_dir is not None or config.download:
            raise UserError(
                "--data-dir and --download are for --data mnist and fashion_mnist; the digits need neither."
            )
        return problems.datasets.digits(seed=config.seed)
    load = getattr(problems.datasets, config.data)
    try:
        return load(config.data_dir, download=config.download, seed=config.seed)
    except DatasetError as error:
        remedy = str(error).replace("Give data_dir", "Give --data-dir").replace("pass download=True", "pass --download")
        raise UserError(remedy) from None


def network_problem(settings: Mapping[str, Any], dataset: Dataset, **changes: Any) -> Problem:
    """Return the network on its data.

    Args:
        settings: As `OnNetwork.settings` returns them.
        dataset: The data set.
        **changes: Further arguments of `mlp_classifier`; and "width" and "depth", for hidden layers of one width.

    Returns:
        The problem, named after the data set.

    Raises:
        UserError: If a batch is larger than the data set.
    """
    widths = tuple(settings["widths"])
    if {"width", "depth"} & set(changes):
        widths = (changes.pop("width", widths[0] if widths else 100),) * changes.pop("depth", len(widths))
    network = problems.networks.mlp_classifier(dataset, widths=widths, **changes)
    if settings["batch_size"] > (network.num_examples or 0):
        raise UserError(
            f"--batch-size {settings['batch_size']} is more than the {network.num_examples} training examples."
        )
    return network.replace(name=settings["data"])


def described(settings: Mapping[str, Any]) -> str:
    """Return what was trained in a few words, for titles."""
    return f"{settings['data']}, MLP {'-'.join(map(str, settings['widths'])) or 'linear'}"
