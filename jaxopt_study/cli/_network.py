"""Settings, data and network of the commands that train a network."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import jax

from jaxopt_study import problems, records, sweeps
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._options import DEFAULTS, NetworkOptions
from jaxopt_study.problems import Problem
from jaxopt_study.problems.datasets import Dataset, DatasetError

COMMON = ("data", "seed", "steps", "batch_size", "widths")


def network_settings(options: NetworkOptions) -> dict[str, Any]:
    """Return the settings that determine the results, with the defaults of the data set.

    Raises:
        UserError: If one is out of range.
    """
    settings: dict[str, Any] = {name: getattr(options, name) for name in COMMON}
    settings |= {name: value for name, value in DEFAULTS[options.data].items() if settings[name] is None}
    for name, least in options.counts.items():
        value = settings.get(name, getattr(options, name))
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}; received {value}.")
    if any(width < 1 for width in settings["widths"]):
        raise UserError(f"--widths must be at least 1 each; received {' '.join(map(str, settings['widths']))}.")
    settings["evaluate_every"] = max(1, settings["steps"] // options.evaluations)
    return records.plain(settings | {name: getattr(options, name) for name in options.recorded})


def use_all_cores() -> None:
    """Make each core a device of JAX, for sweeps to use; no effect if JAX has started or the user has set devices."""
    configured = jax.config.values["jax_num_cpu_devices"] > 0 or "device_count" in os.environ.get("XLA_FLAGS", "")
    if configured:
        return
    with suppress(RuntimeError):  # JAX has started
        sweeps.use_cpu_cores()


def load_data(options: NetworkOptions) -> Dataset:
    """Return the data set, split by the seed.

    Raises:
        UserError: If it is missing, or an option does not apply to it.
    """
    if options.data == "digits":
        if options.data_dir is not None or options.download:
            raise UserError(
                "--data-dir and --download are for --data mnist and fashion_mnist; the digits need neither. Leave them "
                "out."
            )
        return problems.datasets.digits(seed=options.seed)
    if options.data == "text":
        if options.download:
            raise UserError("--download is for --data mnist and fashion_mnist; a text needs none. Leave it out.")
        try:
            return problems.datasets.text(options.data_dir, seed=options.seed)
        except ValueError as error:
            raise UserError(str(error)) from None
    load = getattr(problems.datasets, options.data)
    try:
        return load(options.data_dir, download=options.download, seed=options.seed)
    except DatasetError as error:
        remedy = str(error).replace("Give data_dir", "Give --data-dir").replace("pass download=True", "pass --download")
        raise UserError(remedy) from None


def network_problem(settings: Mapping[str, Any], dataset: Dataset, **changes: Any) -> Problem:
    """Return the training problem of the network on its data.

    Args:
        settings: Settings as of `network_settings`.
        dataset: The data set.
        **changes: Further arguments of `mlp_classifier`, or of `gpt` on text, and "width" and "depth" for hidden layers
            or blocks of one width.

    Returns:
        The problem, named after the data set.

    Raises:
        UserError: If a batch is larger than the data set, or a transformer's blocks differ in width.
    """
    widths = tuple(settings["widths"])
    if {"width", "depth"} & set(changes):
        widths = (changes.pop("width", widths[0] if widths else 100),) * changes.pop("depth", len(widths))
    if settings["data"] == "text":
        if len(set(widths)) != 1:
            raise UserError(
                "--widths on text must be one equal width for each block of the transformer; received "
                f"{' '.join(map(str, widths)) or 'none'}."
            )
        network = problems.networks.gpt(dataset, depth=len(widths), width=widths[0], **changes)
    else:
        network = problems.networks.mlp_classifier(dataset, widths=widths, **changes)
    if settings["batch_size"] > (network.num_examples or 0):
        raise UserError(
            f"--batch-size must be at most {network.num_examples}, the number of training examples; received "
            f"{settings['batch_size']}."
        )
    return network.replace(name=settings["data"])


def described(settings: Mapping[str, Any]) -> str:
    """Return a short description of data and network, for titles."""
    network = "GPT" if settings["data"] == "text" else "MLP"
    return f"{settings['data']}, {network} {'-'.join(map(str, settings['widths'])) or 'linear'}"
