"""Batch normalisation: its accuracy, and the range of initial scales that train with it and without it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import journal
from jaxopt_study import optimizers, sweeps
from jaxopt_study.figures import response
from jaxopt_study.problems import Problem, datasets, networks
from jaxopt_study.records import Record

BOOK = "Saito (2016), Deep Learning from Scratch, figure 6-18, and the notes: learns faster, depends less on the start"
EARLIER = "measured once before; the tolerance is ours"
NETWORKS = {"plain": "none", "batch norm": "batch"}


@dataclass(frozen=True)
class Config:
    """Sixteen initial scales of figure 6-18, with and without batch normalisation, at two learning rates."""

    data: images.Images = "mnist"
    num_train: int = 1_000
    widths: tuple[int, ...] = (100,) * 5
    scales: tuple[float, float] = (1e-4, 1.0)
    num_scales: int = 16
    rates: tuple[float, float] = (0.01, 0.1)  # the notes', and one that does without batch normalisation
    batch_size: int = 100
    order: Literal["with_replacement", "reshuffle"] = "with_replacement"  # as in the book
    num_steps: int = 200  # 20 epochs
    evaluate_every: int = 20
    num_seeds: int = 10
    good: float = 0.85  # training accuracy, which the notes draw, of a scale that trains
    large: int = 2  # places from the largest scale: .293 of sixteen
    small: int = 6  # .025
    wider: float = 3.75  # scales: a decade of the sixteen in four
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=200, widths=(30,) * 3, num_scales=8, batch_size=200, order="reshuffle", num_steps=200,
        rates=(0.1, 1.0), num_seeds=4, good=0.7, large=1, small=3, wider=1.75,
    ),
    "paper": Config(),
}  # fmt: skip


def make_problem(dataset: datasets.Dataset, widths: tuple[int, ...], scale: Any, normalisation: str) -> Problem:
    """Return the network; the initial scale may be traced, so that all of them share a program."""
    return networks.mlp_classifier(
        dataset, widths=widths, initialiser=scale, normalisation=None if normalisation == "none" else normalisation
    )


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train at every scale, with and without batch normalisation: two programs, one for each network."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0, split="first")
    found = sweeps.search(
        optimizers.sgd(config.rates[0]),
        {
            "normalisation": sweeps.choices(*NETWORKS.values()),
            "learning_rate": sweeps.choices(*config.rates),
            "scale": sweeps.log_uniform(*config.scales),
        },
        partial(make_problem, dataset, config.widths),
        sampler="grid", num_trials=4 * config.num_scales, num_seeds=config.num_seeds, num_steps=config.num_steps,
        batch_size=config.batch_size, order=config.order, key=jax.random.key(config.seed), metric="test_accuracy",
        evaluate_every=config.evaluate_every, evaluate_on=("train", "test"), journal=journal("scales"),
    )  # fmt: skip
    names = {value: name for name, value in NETWORKS.items()}
    return {
        "steps": found.steps,
        "trials": [
            {
                "network": names[trial["normalisation"]],
                "learning_rate": trial["learning_rate"],
                "scale": trial["scale"],
                "test_accuracy": np.where(np.isnan(found.final[i]), 0.1, found.final[i]),  # diverged: guesses
                "train_curves": [[round(float(x), 4) for x in row] for row in found.curves["train_accuracy"][i]],
            }
            for i, trial in enumerate(found.configs)
        ],
        "data_sha256": dataset.sha256,
    }


def claims(record: Record) -> list[Claim]:
    """Judge the numbers of scales that train, and the accuracies by scale."""
    config = record.config
    slow, fast = config["rates"]
    scales = sorted({trial["scale"] for trial in record.results["trials"]}, reverse=True)
    large, small = scales[config["large"]], scales[config["small"]]

    def of(network: str, rate: float, what: Callable[[Mapping[str, Any]], Any]) -> Float[np.ndarray, "scales seeds"]:
        """Return a result of every scale, the largest scale first."""
        rows = {
            trial["scale"]: what(trial)
            for trial in record.results["trials"]
            if (trial["network"], trial["learning_rate"]) == (network, rate)
        }
        return np.array([rows[scale] for scale in scales])

    def test(network: str, rate: float = slow) -> Float[np.ndarray, "scales seeds"]:
        return of(network, rate, lambda trial: trial["test_accuracy"])

    def trained(network: str, rate: float = slow) -> Int[np.ndarray, " seeds"]:
        """Count the scales at which training ends well; a run that diverged has NaN."""
        ends = of(network, rate, lambda trial: [float(curve[-1]) for curve in trial["train_curves"]])
        return (ends >= config["good"]).sum(axis=0)

    def ahead(place: int) -> Measurement:
        return mean_over_seeds(test("plain")[place] - test("batch norm")[place])

    count = {name: mean_over_seeds(trained(name)) for name in NETWORKS}
    best = {name: test(name).max(axis=0) for name in NETWORKS}
    counted = [
        Claim(
            f"Without batch norm training accuracy reaches {config['good']:g} at 2 of {config['num_scales']} scales",
            count["plain"],
            near(2.0, 1.0, EARLIER),
            Control("with batch norm", count["batch norm"]),
        ),
        Claim(
            f"With batch norm it does at 9 of {config['num_scales']}",
            count["batch norm"],
            near(9.0, 2.0, EARLIER),
            Control("without", count["plain"]),
        ),
        Claim(
            f"Without batch norm test accuracy reaches {config['good']:g} at none",
            mean_over_seeds((test("plain") >= config["good"]).sum(axis=0)),
            at_most(0.0, "contradicts an earlier count of 2, which is that of the training accuracy"),
            Control("with batch norm", mean_over_seeds((test("batch norm") >= config["good"]).sum(axis=0))),
        ),
    ]
    return [
        Claim(
            f"Batch norm widens the range of scales that train to {config['good']:g} by a decade or more",
            mean_over_seeds(trained("batch norm") - trained("plain")),
            at_least(config["wider"], f"{BOOK}; a decade is {config['wider']:g} of the scales"),
            Control(f"a rate of {fast:g} in its place", mean_over_seeds(trained("plain", fast) - trained("plain"))),
            "Number of scales, with less without. Agrees with the notes.",
        ),
        *(counted if config["data"] == "mnist" else []),
        Claim(
            f"At std {large:.3g} the plain network wins",
            ahead(config["large"]),
            at_least(0.0, "contradicts that batch norm is simply better"),
            Control(f"std {small:.2g}", ahead(config["small"])),
            "Test accuracy, plain less batch norm.",
        ),
        Claim(
            "A wider range is not all: each at its best scale, batch norm is ahead",
            mean_over_seeds(best["batch norm"] - best["plain"]),
            at_least(0.0, "the notes: learns faster"),
            Control(
                f"batch norm at std {large:.3g}", mean_over_seeds(test("batch norm")[config["large"]] - best["plain"])
            ),
            "Test accuracy, batch norm less plain, both best by the same test images, at this rate and length.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the final accuracies in training and test, by scale."""
    results, config = record.results, record.config
    slow = config["rates"][0]
    data = images.TITLES[config["data"]]
    scales = sorted({trial["scale"] for trial in results["trials"]}, reverse=True)

    def of(network: str, rate: float, scale: float) -> Mapping[str, Any]:
        wanted = network, rate, scale
        (found,) = [t for t in results["trials"] if (t["network"], t["learning_rate"], t["scale"]) == wanted]
        return found

    def trained(network: str, scale: float) -> Float[np.ndarray, " seeds"]:
        return np.array(of(network, slow, scale)["train_curves"], float)[:, -1]

    at_end = {
        f"{network}, rate {rate:g}": [np.median(of(network, rate, scale)["test_accuracy"]) for scale in scales[::-1]]
        for rate in config["rates"]
        for network in NETWORKS
    }
    return {
        "scales": response(
            scales[::-1],
            {network: np.transpose([trained(network, scale) for scale in scales[::-1]]) for network in NETWORKS},
            xlabel="standard deviation of the initial weights", ylabel="training accuracy at the end", log_x=True,
            level=config["good"], level_label="counts as trained", smallest=0.0, largest=1.0,
            title=f"{data}, {config['num_train']} images, SGD {slow:g}: which initial scales train (no line: diverged)",
        ),
        "basin": response(
            scales[::-1], at_end, xlabel="standard deviation of the initial weights", log_x=True,
            level=config["good"], level_label="counts as trained",
            ylabel=f"test accuracy, median of {config['num_seeds']} seeds", smallest=0.0, largest=1.0,
            title=f"{data}: how exactly the initial scale must be chosen",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Is batch normalisation simply better, or does it widen the range of initial scales that train?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
