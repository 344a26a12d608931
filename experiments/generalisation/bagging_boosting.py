"""Bagging and boosting of trees: bias, variance, and independence of the test data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.ensemble import BaggingRegressor, GradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, near, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study.figures import response
from jaxopt_study.records import Record

NOTES = "the notes (003)"
BREIMAN = "Breiman (1996), Bagging predictors"
FRIEDMAN = "Friedman (2001), Greedy function approximation: a gradient boosting machine"


@dataclass(frozen=True)
class Config:
    """Regression trees on Friedman's first benchmark function."""

    num_examples: int = 200
    num_points: int = 400  # at which predictions are compared
    noise: float = 1.0
    num_draws: int = 30  # data sets a group
    num_groups: int = 6
    ensemble: int = 50  # trees in a bag
    boosts: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200)
    seed: int = 0


PRESETS = {
    "smoke": Config(num_examples=100, num_points=200, num_draws=8, num_groups=3, ensemble=15),
    "paper": Config(),
}


def _truth(x: np.ndarray) -> np.ndarray:
    return 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Fit every model to every draw, and decompose its error at fixed points."""
    del data_dir
    rng = np.random.default_rng(config.seed)
    points = rng.uniform(size=(config.num_points, 5))
    other = rng.permutation(config.num_points)  # what a model would look like that had seen other test targets
    groups = [part(f"group {group}", partial(_group, config, points, group)) for group in range(config.num_groups)]
    x, y = _drawn(config, 0, 0)  # the fit is a function of the training examples alone
    once, again = (_fits(config, x, y, at, 0)["boosting 200"] for at in (points, points[other]))
    return {
        "parts": {
            label: {name: np.array([found[label][name] for found in groups]) for name in ("bias", "variance")}
            for label in groups[0]
        },
        "changed_by_test_points": float(np.abs(again - once[other]).max()),
    }


def _drawn(config: Config, group: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples and targets of a draw."""
    rng = np.random.default_rng([config.seed, group, draw])
    x = rng.uniform(size=(config.num_examples, 5))
    return x, _truth(x) + config.noise * rng.standard_normal(config.num_examples)


def _group(config: Config, points: np.ndarray, group: int) -> dict[str, dict[str, float]]:
    """Return bias² and variance of each model over the draws of a group."""
    fits = [_fits(config, *_drawn(config, group, draw), points, draw) for draw in range(config.num_draws)]
    found = {}
    for label in fits[0]:
        each = np.array([predictions[label] for predictions in fits])
        variance = float(each.var(axis=0, ddof=1).mean())
        bias = float(((each.mean(axis=0) - _truth(points)) ** 2).mean()) - variance / len(each)
        found[label] = {"bias": max(bias, 1e-12), "variance": variance}
    return found


def _fits(config: Config, x: np.ndarray, y: np.ndarray, points: np.ndarray, draw: int) -> dict[str, np.ndarray]:
    """Return the models' predictions at the points."""
    tree, linear = DecisionTreeRegressor(random_state=draw), LinearRegression()
    bagged = partial(BaggingRegressor, n_estimators=config.ensemble, random_state=draw)
    models = {
        "tree": tree,
        "bagged trees": bagged(tree),
        "linear": linear,
        "bagged linear": bagged(linear),
    }
    found = {label: model.fit(x, y).predict(points) for label, model in models.items()}
    boosted = GradientBoostingRegressor(n_estimators=max(config.boosts), max_depth=1, random_state=draw).fit(x, y)
    stages = list(boosted.staged_predict(points))
    return found | {f"boosting {count}": stages[count - 1] for count in config.boosts}


def claims(record: Record) -> list[Claim]:
    """Judge variances and biases."""
    parts = {
        label: {name: np.asarray(values) for name, values in part.items()}
        for label, part in record.results["parts"].items()
    }

    def ratio(part: str, of: str, to: str) -> Measurement:
        return ratio_over_seeds(parts[of][part], parts[to][part])

    most = f"boosting {max(record.config['boosts'])}"
    return [
        Claim(
            "Bagging trees divides their variance",
            ratio("variance", "bagged trees", "tree"),
            at_most(0.5, f"{BREIMAN}; {NOTES}; at least by two"),
            Control("bagging a linear model, which is stable", ratio("variance", "bagged linear", "linear")),
            "Variance over draws of the data, bagged over single.",
        ),
        Claim(
            "Bagging leaves the bias about where it was",
            ratio("bias", "bagged trees", "tree"),
            at_least(0.7, f"{BREIMAN}: an average has the mean of its members, fitted to fewer distinct examples"),
            Control(f"boosting, {most.split()[1]} stumps against one", ratio("bias", most, "boosting 1")),
            "bias², bagged over single tree; it may rise.",
        ),
        Claim(
            "Boosting lowers the bias",
            ratio("bias", most, "boosting 1"),
            at_most(0.2, f"{FRIEDMAN}; {NOTES}; to a fifth"),
            Control("bagging", ratio("bias", "bagged trees", "tree")),
            f"bias² of {most.split()[1]} stumps over that of one. The variance grows by "
            f"{ratio('variance', most, 'boosting 1').value:.3g}.",
        ),
        Claim(
            "Boosting does not train on the test data: its prediction at a point does not depend on the other points",
            exact(record.results["changed_by_test_points"]),
            near(
                0.0, 1e-12, f"{NOTES} say that it trains on test data: it fits the residuals of the training examples"
            ),
            Control("another set of training examples", exact(float(np.sqrt(parts[most]["variance"].min())))),
            "Largest change when the test points are given in another order.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw bias and variance over the number of stumps."""
    parts = record.results["parts"]
    boosts = record.config["boosts"]

    def curve(name: str) -> np.ndarray:
        return np.array([parts[f"boosting {count}"][name] for count in boosts]).T

    def level(label: str, name: str) -> np.ndarray:
        return np.repeat(np.asarray(parts[label][name])[:, None], len(boosts), axis=1)

    curves = {
        "boosting: bias²": curve("bias"), "boosting: variance": curve("variance"),
        "one tree: variance": level("tree", "variance"), "bagged trees: variance": level("bagged trees", "variance"),
    }  # fmt: skip
    return {
        "bagging_boosting": response(
            boosts, curves, xlabel="stumps in the boosted model", log_x=True, log_y=True, ylabel="part of the error",
            title="Boosting trades bias for variance; bagging divides a tree's variance",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does bagging lower the variance and boosting the bias, and does boosting train on the test data?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
