"""Is Adam the optimizer to use, and are SGD and momentum the ones to avoid? The notes' race, at two learning rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, ratio_over_seeds
from experiments.experiment import Experiment
from jaxopt_study import figures, optimizers, problems, training
from jaxopt_study.figures.pairs import pairs
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform

BOOK = "Saito (2016), Deep Learning from Scratch, figure 6-9; the notes' second race"
NOTES = "the notes: always Adam; avoid SGD and momentum"


@dataclass(frozen=True)
class Config:
    """Settings of the notes' race, and its second learning rate for every optimizer."""

    data: Literal["digits", "mnist"] = "mnist"
    widths: tuple[int, ...] = (100, 100, 100, 100)
    batch_size: int = 128  # drawn with replacement, as in the book
    num_steps: int = 2000
    num_last: int = 100  # the result is the mean loss of so many last steps
    tune_seeds: int = 3  # choose between the two learning rates
    report_seeds: int = 10  # measure; none of them chose
    notes_rate: tuple[tuple[str, float], ...] = (
        ("SGD", 0.01), ("Momentum", 0.01), ("AdaGrad", 0.01), ("Adam", 0.001), ("RMSprop", 0.01),
    )  # fmt: skip
    other_rate: tuple[tuple[str, float], ...] = (
        ("SGD", 0.3), ("Momentum", 0.03), ("AdaGrad", 0.03), ("Adam", 0.003), ("RMSprop", 0.001),
    )  # fmt: skip
    collapsed: float = 0.25  # share of the notes' difference that counts as none
    num_drawn: int = 50  # points of a curve, each the mean of consecutive steps
    seed: int = 0


PRESETS = {
    "smoke": Config(data="digits", widths=(50, 50), num_steps=300, num_last=50, tune_seeds=1, report_seeds=3),
    "paper": Config(),
}

OPTIMIZERS: Mapping[str, Transform] = {
    "SGD": optimizers.sgd(0.01),
    "Momentum": optimizers.momentum(0.01, convention="book"),
    "AdaGrad": optimizers.adagrad(0.01, convention="book"),
    "Adam": optimizers.adam(0.001, convention="book"),
    "RMSprop": optimizers.rmsprop(0.01, convention="book"),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train every optimizer at both of its learning rates, all from the same starts on the same batches."""
    dataset = _dataset(config, data_dir)
    problem = networks.mlp_classifier(dataset, widths=config.widths, activation="relu", initialiser="he")
    key_tune, key_report = jax.random.split(jax.random.key(config.seed))
    keys = [*jax.random.split(key_tune, config.tune_seeds), *jax.random.split(key_report, config.report_seeds)]
    trials = [
        {"optimizer": label, "learning_rate": rate, "setting": setting}
        for setting, rates in (("notes", config.notes_rate), ("other", config.other_rate))
        for label, rate in rates
    ]
    for trial in trials:
        chain = OPTIMIZERS[trial["optimizer"]].replace(learning_rate=trial["learning_rate"])
        runs = [_train(problem, chain, config, key) for key in keys]
        losses = np.stack([run.losses for run in runs])
        tune, report = np.split(losses, [config.tune_seeds])
        curves = report.reshape(config.report_seeds, config.num_drawn, -1).mean(axis=2)
        trial |= {
            "expression": repr(chain),
            "tune_loss": tune[:, -config.num_last :].mean(axis=1),
            "loss": report[:, -config.num_last :].mean(axis=1),
            "test_accuracy": [run.evaluations["test_accuracy"][-1] for run in runs[config.tune_seeds :]],
            "curves": [[float(f"{value:.5g}") for value in curve] for curve in curves],  # drawn, not judged
        }
    return {
        "steps": (np.arange(config.num_drawn) + 0.5) * config.num_steps / config.num_drawn,
        "trials": trials,
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _dataset(config: Config, data_dir: Path | None) -> datasets.Dataset:
    if config.data == "digits":
        return datasets.digits(num_validation=0)
    return datasets.mnist(data_dir, num_validation=0)  # the book trains on all 60,000


def _train(problem: problems.Problem, chain: Transform, config: Config, key: Any) -> training.Trajectory:
    return training.train(
        problem, chain, num_steps=config.num_steps, key=key, batch_size=config.batch_size, order="replacement",
        evaluate_every=config.num_steps, evaluate_on="test",
    )  # fmt: skip


def claims(record: Record) -> list[Claim]:
    """Judge the race at the notes' learning rates, and at the better of two."""
    loss = {(trial["setting"], trial["optimizer"]): np.array(trial["loss"]) for trial in record.results["trials"]}
    better = chosen(record)
    notes = {label: loss["notes", label] for label in better}
    tuned = {label: loss[setting, label] for label, setting in better.items()}
    share, rates = record.config["collapsed"], dict(record.config["other_rate"])
    small = at_most(share, f"{share:.0%} of the notes' difference or less is a collapse; {NOTES}")
    adam_alone = notes | {"Adam": tuned["Adam"]}
    rivals = np.stack([notes[label] for label in ("Momentum", "AdaGrad", "Adam")]).max(axis=0)

    def behind_adam(losses: np.ndarray) -> Measurement:
        """Return how far losses lie behind the tuned Adam, in units of SGD's distance from Adam in the notes' race."""
        return mean_over_seeds((losses - tuned["Adam"]) / (notes["SGD"] - notes["Adam"]))

    def accuracy(setting: str, label: str) -> np.ndarray:
        trials = record.results["trials"]
        (found,) = [t["test_accuracy"] for t in trials if (t["setting"], t["optimizer"]) == (setting, label)]
        return np.array(found)

    def spread(losses: Mapping[str, np.ndarray]) -> np.ndarray:
        four = np.stack([losses[label] for label in ("SGD", "Momentum", "AdaGrad", "Adam")])
        return four.max(axis=0) - four.min(axis=0)

    return [
        Claim(
            "At the notes' learning rates SGD ends at twice the loss of Momentum, AdaGrad and Adam, or worse",
            ratio_over_seeds(notes["SGD"], rivals),
            at_least(2.0, BOOK),
            Control(f"SGD at {rates['SGD']}", ratio_over_seeds(loss["other", "SGD"], rivals)),
            "SGD's loss over that of the worst of the three. Agrees with the notes.",
        ),
        Claim(
            "At the better of two learning rates each, SGD's distance from Adam collapses",
            behind_adam(tuned["SGD"]),
            small,
            Control("SGD at the notes' .01", behind_adam(notes["SGD"])),
            "Distance in loss, as a share of that in the notes' race. Contradicts the notes' 'avoid SGD'.",
        ),
        Claim(
            "At the better of two learning rates each, Momentum is not behind Adam",
            behind_adam(tuned["Momentum"]),
            small,
            Control("the same step without momentum, SGD at .01", behind_adam(notes["SGD"])),
            "As above. Contradicts the notes' 'avoid momentum'.",
        ),
        Claim(
            "Two learning rates each are enough to collapse the ranking of the notes' four",
            mean_over_seeds(spread(tuned) / spread(notes)),
            small,
            Control("two chances for Adam alone", mean_over_seeds(spread(adam_alone) / spread(notes))),
            "Distance of the worst from the best, as a share of that in the notes' race.",
        ),
        Claim(
            "At those rates SGD's test accuracy is within a point of Adam's",
            mean_over_seeds(accuracy(better["Adam"], "Adam") - accuracy(better["SGD"], "SGD")),
            at_most(0.01, NOTES),
            Control(
                "SGD at the notes' .01", mean_over_seeds(accuracy(better["Adam"], "Adam") - accuracy("notes", "SGD"))
            ),
            "Adam's accuracy less SGD's.",
        ),
        Claim(
            f"RMSprop at .01 loses to RMSprop at {rates['RMSprop']}: an adaptive step needs its rate tuned, too",
            ratio_over_seeds(notes["RMSprop"], loss["other", "RMSprop"]),
            at_least(1.5, "half as much again is more than the ranking of the tuned differs by"),
            Control("Adam at .003 for .001", ratio_over_seeds(loss["other", "Adam"], notes["Adam"])),
            "Ratio of losses.",
        ),
    ]


def chosen(record: Record) -> dict[str, str]:
    """Return which of its two learning rates, "notes" or "other", each optimizer does better at on the tuning seeds."""
    tune = {(trial["optimizer"], trial["setting"]): np.mean(trial["tune_loss"]) for trial in record.results["trials"]}
    labels = [label for label, _ in record.config["notes_rate"]]
    return {label: min(("notes", "other"), key=lambda setting, label=label: tune[label, setting]) for label in labels}


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the notes' race, the race at the better of two learning rates, and both results side by side."""
    trials = {(trial["setting"], trial["optimizer"]): trial for trial in record.results["trials"]}
    better = chosen(record)
    data = {"mnist": "MNIST", "digits": "scikit-learn's digits"}[record.config["data"]]
    floor = {"mnist": 0.03, "digits": 5e-4}[record.config["data"]]
    last = record.config["num_last"]

    def race(settings: Mapping[str, str], title: str) -> Figure:
        curves = {
            f"{label} {trials[setting, label]['learning_rate']:g}": trials[setting, label]["curves"]
            for label, setting in settings.items()
        }
        return figures.learning_curves(
            record.results["steps"], curves, ylabel="training loss (nats)", title=title, log=True,
            smallest=floor, largest=2.5,
        )  # fmt: skip

    return {
        "race_at_notes_rates": race(dict.fromkeys(better, "notes"), f"{data}, at the notes' learning rates"),
        "race_at_better_rates": race(better, f"{data}, at the better of two learning rates"),
        "two_rates": pairs(
            {label: (trials["notes", label]["loss"], trials["other", label]["loss"]) for label in better},
            settings=("the notes' learning rate", "a second one"),
            labels={
                label: (f"{trials['notes', label]['learning_rate']:g}", f"{trials['other', label]['learning_rate']:g}")
                for label in better
            },
            xlabel=f"training loss (nats), mean of the last {last} steps; one dot per seed",
            title=f"{data}: what the ranking depends on",
            log=True,
        ),
    }


EXPERIMENT = Experiment(
    question="Is Adam the optimizer to use, and are SGD and momentum the ones to avoid?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
