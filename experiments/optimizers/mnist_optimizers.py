"""Figure 6-9 of Saito (2016): optimizers on MNIST, with default and with tuned learning rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import journal
from jaxopt_study import figures, optimizers, sweeps
from jaxopt_study.figures import pairs
from jaxopt_study.problems import networks
from jaxopt_study.records import Record
from jaxopt_study.sweeps import Interval, best_of_k, median_interval, paired_differences
from jaxopt_study.transforms import Transform

BOOK = "Saito (2016), Deep Learning from Scratch, figure 6-9; the notes' second race"
NOTES = "the notes: always Adam; avoid SGD and momentum"
FOUR = ("SGD", "Momentum", "AdaGrad", "Adam")  # figure 6-9 has no RMSprop


@dataclass(frozen=True)
class Config:
    """Settings of the comparison of Saito (2016), and of the tuning of every optimizer."""

    data: images.Images = "mnist"
    num_train: int | None = None  # all; the book has 60,000
    num_validation: int = 5_000  # select settings
    widths: tuple[int, ...] = (100, 100, 100, 100)
    batch_size: int | None = 128
    order: Literal["with_replacement", "reshuffle"] = "with_replacement"  # as in the book
    num_steps: int = 2000
    window: int = 100  # a loss is the mean over so many steps; the result is the last
    budget: int = 16  # trials for each optimizer
    report_seeds: int = 10  # not used for tuning
    # By optimizer, three decades of learning rates around those of Saito (2016).
    ranges: tuple[tuple[str, float, float], ...] = (
        ("SGD", 1e-3, 1.0), ("Momentum", 1e-3, 1.0), ("AdaGrad", 1e-3, 1.0), ("Adam", 1e-4, 0.1),
        ("RMSprop", 1e-4, 0.1),
    )  # fmt: skip
    collapsed: float = 0.25  # share of the notes' difference that counts as none
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=200, num_validation=300, widths=(30, 30), batch_size=None, order="reshuffle",
        num_steps=200, window=20, budget=8, report_seeds=4,
        ranges=(("SGD", 1e-3, 1.0), ("Momentum", 1e-3, 1.0), ("AdaGrad", 1e-3, 1.0), ("Adam", 1e-4, 0.1)),
    ),
    "paper": Config(),
}  # fmt: skip

OPTIMIZERS: Mapping[str, Transform] = {
    "SGD": optimizers.sgd(0.01),
    "Momentum": optimizers.momentum(0.01, convention="saito2016"),
    "AdaGrad": optimizers.adagrad(0.01, convention="saito2016"),
    "Adam": optimizers.adam(0.001, convention="saito2016"),
    "RMSprop": optimizers.rmsprop(0.01, convention="saito2016"),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Tune every optimizer with the same budget, and report it untuned and tuned from the same starts and batches."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=config.num_validation)
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    compared = sweeps.compare(
        {
            label: sweeps.Candidate(OPTIMIZERS[label], {"learning_rate": sweeps.log_uniform(low, high)})
            for label, low, high in config.ranges
        },
        problem, budget=config.budget, report_seeds=config.report_seeds, num_steps=config.num_steps,
        evaluate_every=config.window, batch_size=config.batch_size, order=config.order,
        key=jax.random.key(config.seed), journal=journal("comparison"),
    )  # fmt: skip
    return {
        "steps": compared.reports[0].steps,
        "reports": [_plain(report) for report in compared.reports],
        "tuning": {
            label: {
                "learning_rate": [trial["learning_rate"] for trial in found.configs],
                "validation_loss": found.scores,
                "boundary": dict(found.best.boundary),
            }
            for (_, label), found in compared.searches.items()
        },
        "verdict": {settings: compared.verdict(settings=settings) for settings in ("default", "tuned")},
        "expressions": {label: repr(OPTIMIZERS[label]) for label, *_ in config.ranges},
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _plain(report: sweeps.Report) -> dict[str, Any]:
    curves = np.where(report.diverged[:, None], np.nan, report.curves["batch_loss"])
    return {
        "optimizer": report.candidate,
        "settings": report.settings,
        "learning_rate": report.config["learning_rate"],
        "diverged": report.diverged,
        "loss": curves[:, -1],
        "test_loss": report.finals["test_loss"],
        "test_accuracy": report.finals["test_accuracy"],
        "curves": [[float(f"{value:.5g}") for value in curve] for curve in curves],  # drawn, not judged
    }


def claims(record: Record) -> list[Claim]:
    """Judge the comparison with the learning rates of Saito (2016), and with tuned ones."""
    notes, tuned = (_of(record, settings, "loss") for settings in ("default", "tuned"))
    accuracy = {settings: _of(record, settings, "test_accuracy") for settings in ("default", "tuned")}
    share, budget = record.config["collapsed"], record.config["budget"]
    small = at_most(share, f"{share:.0%} of the notes' difference or less is a collapse; {NOTES}")
    rivals = np.stack([notes[label] for label in FOUR[1:]]).max(axis=0)

    def behind_adam(losses: Float[np.ndarray, " seeds"]) -> Measurement:
        """Return how far losses lie behind the tuned Adam, in units of SGD's distance from Adam in the notes' race."""
        return mean_over_seeds((losses - tuned["Adam"]) / (notes["SGD"] - notes["Adam"]))

    def spread(losses: Mapping[str, Float[np.ndarray, " seeds"]]) -> Float[np.ndarray, " seeds"]:
        four = np.stack([losses[label] for label in FOUR])
        return four.max(axis=0) - four.min(axis=0)

    def behind_in_accuracy(settings: str) -> Measurement:
        return mean_over_seeds(accuracy["tuned"]["Adam"] - accuracy[settings]["SGD"])

    def gained(label: str) -> Measurement:
        return mean_over_seeds((notes[label] - tuned[label]) / (notes["SGD"] - tuned["SGD"]))

    rates = {label: _report(record, "tuned", label)["learning_rate"] for label, *_ in record.config["ranges"]}
    at_ends = [label for label, found in record.results["tuning"].items() if found["boundary"]]
    chosen = ", ".join(f"{label} {rate:.2g}" for label, rate in rates.items())
    ends = f"at an end of its range: {', '.join(at_ends)}" if at_ends else "none at an end of its range"
    judged = [
        Claim(
            "At the notes' learning rates SGD ends at twice the loss of Momentum, AdaGrad and Adam, or worse",
            ratio_over_seeds(notes["SGD"], rivals),
            at_least(2.0, BOOK),
            Control("SGD tuned", ratio_over_seeds(tuned["SGD"], rivals)),
            "SGD's training loss over that of the worst of the three. Agrees with the notes.",
        ),
        Claim(
            f"Tuned with {budget} trials each, SGD's distance from Adam collapses",
            behind_adam(tuned["SGD"]),
            small,
            Control("SGD at the notes' .01", behind_adam(notes["SGD"])),
            "Distance in training loss, as a share of that in the notes' race. Contradicts the notes' 'avoid SGD'. "
            f"Tuned: {chosen}; {ends}.",
        ),
        Claim(
            f"Tuned with {budget} trials each, Momentum is not behind Adam",
            behind_adam(tuned["Momentum"]),
            small,
            Control("the same step without momentum, SGD at .01", behind_adam(notes["SGD"])),
            "As above. Contradicts the notes' 'avoid momentum'.",
        ),
        Claim(
            "Tuning collapses the ranking of the notes' four",
            mean_over_seeds(spread(tuned) / spread(notes)),
            small,
            Control("tuning for Adam alone", mean_over_seeds(spread(notes | {"Adam": tuned["Adam"]}) / spread(notes))),
            "Distance of the worst from the best, as a share of that in the notes' race. By test loss, untuned: "
            f"{record.results['verdict']['default']}. Tuned: {record.results['verdict']['tuned']}.",
        ),
        Claim(
            "Tuned, SGD's test accuracy is within a point of Adam's",
            behind_in_accuracy("tuned"),
            at_most(0.01, NOTES),
            Control("SGD at the notes' .01", behind_in_accuracy("default")),
            "Adam's accuracy less SGD's.",
        ),
    ]
    if "RMSprop" not in rates:
        return judged
    return [
        *judged,
        Claim(
            "RMSprop at .01 loses to RMSprop tuned: an adaptive step needs its rate tuned, too",
            ratio_over_seeds(notes["RMSprop"], tuned["RMSprop"]),
            at_least(1.5, "half as much again is more than the ranking of the tuned differs by"),
            Control("Adam, whose .001 is good", ratio_over_seeds(notes["Adam"], tuned["Adam"])),
            "Ratio of training losses.",
        ),
        Claim(
            "What the notes saw is Adam's good default: tuning gains it a quarter of what it gains SGD, or less",
            gained("Adam"),
            at_most(0.25, "the tolerance is ours"),
            Control("RMSprop, whose default is bad", gained("RMSprop")),
            "Fall of the training loss by tuning, as a share of SGD's.",
        ),
    ]


GUESSING = {"test_accuracy": 0.1, "test_loss": np.log(10), "loss": np.log(10)}  # what one of ten classes at random has


def _report(record: Record, settings: str, label: str) -> Mapping[str, Any]:
    (found,) = [r for r in record.results["reports"] if (r["settings"], r["optimizer"]) == (settings, label)]
    return found


def _of(record: Record, settings: str, what: str) -> dict[str, Float[np.ndarray, " seeds"]]:
    """Return a result by optimizer, one number per seed; a run that diverged has that of guessing."""
    guess = GUESSING[what]
    found = {label: np.array(_report(record, settings, label)[what]) for label, *_ in record.config["ranges"]}
    return {label: np.where(np.isfinite(values), values, guess) for label, values in found.items()}


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the learning curves and rankings of both settings, all differences, and the best loss by budget."""
    results, config = record.results, record.config
    labels = [label for label, *_ in config["ranges"]]
    data = images.TITLES[config["data"]]
    floor = {"mnist": 0.03, "digits": 5e-4}[config["data"]]
    rate = {
        settings: {label: f"{_report(record, settings, label)['learning_rate']:.2g}" for label in labels}
        for settings in ("default", "tuned")
    }

    def race(settings: str, title: str) -> Figure:
        curves = {f"{label} {rate[settings][label]}": _report(record, settings, label)["curves"] for label in labels}
        return figures.learning_curves(
            results["steps"], curves, ylabel="training loss (nats)", title=title, log=True, smallest=floor, largest=2.5,
        )  # fmt: skip

    def row(interval: Interval) -> tuple[Any, Any, Any]:
        return interval.estimate, interval.lower, interval.upper

    def side(settings: str) -> tuple[dict[str, Float[np.ndarray, " seeds"]], dict[str, tuple[Any, Any, Any]]]:
        scores = _of(record, settings, "test_loss")
        return scores, {label: row(median_interval(values)) for label, values in scores.items()}

    found = paired_differences(_of(record, "tuned", "test_loss"), mode="min")
    k = np.arange(1, config["budget"] + 1)
    best = {label: best_of_k(results["tuning"][label]["validation_loss"], k, mode="min") for label in labels}
    return {
        "race_at_notes_rates": race("default", f"{data}, learning rates of Saito (2016)"),
        "race_tuned": race("tuned", f"{data}, each tuned with {config['budget']} trials"),
        "two_rates": pairs(
            {label: (_of(record, "default", "loss")[label], _of(record, "tuned", "loss")[label]) for label in labels},
            settings=("learning rate of Saito (2016)", f"tuned with {config['budget']} trials"),
            labels={label: (rate["default"][label], rate["tuned"][label]) for label in labels},
            xlabel=f"training loss (nats), mean of the last {config['window']} steps; one dot per seed",
            title=f"{data}: default and tuned learning rates",
            log=True,
        ),
        "rankings": figures.comparison(
            side("default"), side("tuned"), xlabel="test loss (nats)", log=True,
            headings=("learning rates of Saito (2016)", f"tuned with {config['budget']} trials"), title=data,
        ),
        "differences": figures.difference_matrix(
            found, unit="test loss (nats)",
            title=f"{data}, tuned: differences, {config['report_seeds']} paired seeds",
        ),
        "budget": figures.budget_curves(
            k, {label: row(interval) for label, interval in best.items()}, ylabel="best validation loss (nats)",
            log=True, title=f"{data}: expected best of k trials",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Is Adam the optimizer to use, and are SGD and momentum the ones to avoid?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
