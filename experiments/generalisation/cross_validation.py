"""Cross-validation: its closed form for ridge regression, its bias, and features chosen outside the folds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_most, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from jaxopt_study.figures import response
from jaxopt_study.problems import datasets
from jaxopt_study.records import Record

NOTES = "the notes (003): k-fold cross-validation"
HASTIE = "Hastie, Tibshirani and Friedman (2009), The elements of statistical learning"


@dataclass(frozen=True)
class Config:
    """Ridge regressions, and classification of pure noise."""

    num_examples: int = 60
    num_features: int = 20
    noise: float = 1.0
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    num_folds: int = 10
    num_draws: int = 200
    noise_examples: int = 50
    noise_features: int = 2_000
    chosen: int = 50  # features with the largest correlation to the labels
    seed: int = 0


PRESETS = {"smoke": Config(num_draws=60, noise_features=1_000, chosen=30), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Cross-validate ridge regressions over draws of the data, and nearest means on noise."""
    del data_dir
    draws = [_ridge(config, np.random.default_rng([config.seed, i])) for i in range(config.num_draws)]
    noise = [_pure_noise(config, np.random.default_rng([config.seed + 1, i])) for i in range(config.num_draws)]
    return {
        "penalties": np.array(config.penalties),
        "ridge": {name: np.array([draw[name] for draw in draws]) for name in draws[0]},
        "noise": {name: np.array([draw[name] for draw in noise]) for name in noise[0]},
    }


def _fit(X: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(X.T @ X + penalty * np.eye(X.shape[1]), X.T @ y)


def _ridge(config: Config, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return risks for each penalty: true, and estimated by leaving out, in folds, by formula, and in training."""
    truth = rng.standard_normal(config.num_features) / np.sqrt(config.num_features)
    X = rng.standard_normal((config.num_examples, config.num_features))
    y = X @ truth + config.noise * rng.standard_normal(config.num_examples)
    found: dict[str, list[float]] = {
        name: [] for name in ("true", "left_out", "closed_form", "folds", "folds_true", "training")
    }
    for penalty in config.penalties:
        w = _fit(X, y, penalty)
        hat = X @ np.linalg.solve(X.T @ X + penalty * np.eye(config.num_features), X.T)
        found["true"].append(_risk(config, w, truth))
        found["training"].append(float(np.mean((y - X @ w) ** 2)))
        found["closed_form"].append(float(np.mean(((y - X @ w) / (1 - np.diag(hat))) ** 2)))
        left_out, _ = _cross_validated(config, X, y, penalty, config.num_examples, truth)
        folds, folds_true = _cross_validated(config, X, y, penalty, config.num_folds, truth)
        found["left_out"].append(left_out)
        found["folds"].append(folds)
        found["folds_true"].append(folds_true)
    return {name: np.array(values) for name, values in found.items()}


def _risk(config: Config, w: np.ndarray, truth: np.ndarray) -> float:
    """Return E(y − xᵀw)² for standard normal x."""
    return float(np.sum((w - truth) ** 2)) + config.noise**2


def _cross_validated(
    config: Config, X: np.ndarray, y: np.ndarray, penalty: float, num_folds: int, truth: np.ndarray
) -> tuple[float, float]:
    """Return the cross-validated squared error, and the mean true risk of the fits it averages."""
    numbered = datasets.from_arrays(np.arange(len(X), dtype=np.float32)[:, None], y, name="ridge", split="first")
    errors, risks = [], []
    for fold in datasets.k_folds(numbered, num_folds):
        train, held_out = (part["x"][:, 0].astype(int) for part in (fold.train, fold.validation or fold.train))
        w = _fit(X[train], y[train], penalty)
        errors.append((y[held_out] - X[held_out] @ w) ** 2)
        risks.append(_risk(config, w, truth))
    return float(np.mean(np.concatenate(errors))), float(np.mean(risks))


def _pure_noise(config: Config, rng: np.random.Generator) -> dict[str, float]:
    """Return error rates of nearest class means on labels that have nothing to do with the features."""
    X = rng.standard_normal((config.noise_examples, config.noise_features))
    y = np.arange(config.noise_examples) % 2
    data = datasets.from_arrays(
        np.arange(config.noise_examples, dtype=np.float32)[:, None], y, name="noise", num_classes=2, split="first"
    )
    best = _chosen(config, X, y)
    wrong: dict[str, list[float]] = {"outside": [], "inside": []}
    for fold in datasets.k_folds(data, 5):
        train, held_out = (part["x"][:, 0].astype(int) for part in (fold.train, fold.validation or fold.train))
        for name, features in (("outside", best), ("inside", _chosen(config, X[train], y[train]))):
            means = [X[train][y[train] == label][:, features].mean(axis=0) for label in (0, 1)]
            distances = [np.sum((X[held_out][:, features] - mean) ** 2, axis=1) for mean in means]
            wrong[name].append(float(np.mean((distances[1] < distances[0]) != y[held_out])))
    return {name: float(np.mean(rates)) for name, rates in wrong.items()}


def _chosen(config: Config, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    centred = X - X.mean(axis=0)
    correlation = np.abs((y - y.mean()) @ centred) / np.linalg.norm(centred, axis=0)
    return np.argsort(correlation)[-config.chosen :]


def claims(record: Record) -> list[Claim]:
    """Judge the closed form, the bias of the estimate, and the selection outside the folds."""
    ridge = {name: np.asarray(values) for name, values in record.results["ridge"].items()}
    noise = {name: np.asarray(values) for name, values in record.results["noise"].items()}
    middle = len(record.config["penalties"]) // 2

    def excess(estimate: str, of: str) -> Measurement:
        return mean_over_seeds(ridge[estimate][:, middle] / ridge[of][:, middle] - 1)

    mismatch = np.abs(ridge["left_out"] / ridge["closed_form"] - 1)
    training = np.abs(ridge["training"] / ridge["closed_form"] - 1)
    folds = record.config["num_folds"]
    return [
        Claim(
            "Leave-one-out of ridge regression equals its closed form, mean of (residual/(1 − hᵢᵢ))²",
            exact(float(mismatch.max())),
            at_most(1e-8, f"{HASTIE}, equation 7.64; rounding in double precision"),
            Control("residuals without the factor 1/(1 − hᵢᵢ)", exact(float(training.min()))),
            "Largest relative difference over penalties and draws.",
        ),
        Claim(
            f"{folds}-fold cross-validation is right on average for the fits it makes",
            excess("folds", "folds_true"),
            near(0.0, 0.08, f"{NOTES}; the true risk is known in closed form here, eight percent of it"),
            Control("the error on the training examples", excess("training", "true")),
            f"Estimate over true risk of the {folds} fits, less 1, λ = {record.config['penalties'][middle]:g}. For the "
            f"fit to all examples it is too high by {excess('folds', 'true').value:.1%}: the folds train on fewer.",
        ),
        Claim(
            "On pure noise with features chosen outside the folds, cross-validation promises far less than half errors",
            mean_over_seeds(noise["outside"]),
            at_most(0.25, f"{HASTIE}, §7.10.2: 3 % for 5,000 features"),
            Control("features chosen inside each fold", mean_over_seeds(noise["inside"])),
            "Error rate; no rule can do better than ½ here.",
        ),
        Claim(
            "Chosen inside each fold it says ½, the truth",
            mean_over_seeds(noise["inside"]),
            near(0.5, 0.05, f"{HASTIE}, §7.10.2: every step that looks at labels belongs inside"),
            Control("features chosen outside", mean_over_seeds(noise["outside"])),
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw estimates and truth over the penalty."""
    ridge = record.results["ridge"]
    labels = {
        "true": "true risk", "folds": f"{record.config['num_folds']} folds", "left_out": "leave one out",
        "training": "training error",
    }  # fmt: skip
    return {
        "ridge": response(
            record.results["penalties"], {label: ridge[name] for name, label in labels.items()}, xlabel="penalty λ",
            log_x=True, ylabel="squared error", title="Ridge regression: cross-validation finds the penalty, training "
            "error does not",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does cross-validation estimate the risk, and when does it deceive?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
