"""Gradient descent on linear regression against its closed form, with unique and with many minima."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_most, exact
from experiments.experiment import Experiment
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.records import Record

NOTES = "the notes (002): linear regression has a closed form, and gradient descent finds it"


@dataclass(frozen=True)
class Config:
    """A regression with full column rank, and one with two columns that depend on the others."""

    num_examples: int = 40
    num_features: int = 8
    num_dependent: int = 2
    num_steps: int = 4_000
    num_seeds: int = 20  # data sets
    seed: int = 0


PRESETS = {"smoke": Config(num_steps=2_000, num_seeds=5), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train on every data set from zero and from a random start, in double precision."""
    del data_dir
    with jax.enable_x64(True):
        found = [_one(config, np.random.default_rng([config.seed, i])) for i in range(config.num_seeds)]
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def _one(config: Config, rng: np.random.Generator) -> dict[str, Any]:
    X = rng.standard_normal((config.num_examples, config.num_features))
    y = X @ rng.standard_normal(config.num_features) + 0.5 * rng.standard_normal(config.num_examples)
    dependent = X[:, : config.num_dependent] @ rng.standard_normal((config.num_dependent, config.num_dependent))
    start = rng.standard_normal(config.num_features)
    wide = np.concatenate([X, dependent], axis=1)
    wide_start = rng.standard_normal(wide.shape[1])
    normal = np.linalg.solve(X.T @ X, X.T @ y)
    shortest = np.linalg.pinv(wide) @ y
    path, rate = _path(X, y, start, config.num_steps)
    heavy, _ = _path(X, y, start, config.num_steps, decay=0.5)
    predicted = _predicted(X, start, normal, rate, config.num_steps)
    from_zero, _ = _path(wide, y, np.zeros(wide.shape[1]), config.num_steps)
    from_elsewhere, _ = _path(wide, y, wide_start, config.num_steps)
    scale = np.linalg.norm(start - normal)

    def fit(w: np.ndarray) -> float:
        return float(np.linalg.norm(wide @ (w - shortest)) / np.linalg.norm(y))

    return {
        "path_error": np.abs(path - predicted).max() / scale,
        "momentum_path_error": np.abs(heavy - predicted).max() / scale,
        "distance": np.linalg.norm(path - normal, axis=1) / scale,
        "predicted_distance": np.linalg.norm(predicted - normal, axis=1) / scale,
        "from_zero": np.linalg.norm(from_zero - shortest, axis=1) / np.linalg.norm(shortest),
        "from_elsewhere": np.linalg.norm(from_elsewhere - shortest, axis=1) / np.linalg.norm(shortest),
        "misfit_from_elsewhere": fit(from_elsewhere[-1]),
    }


def _path(X: np.ndarray, y: np.ndarray, start: np.ndarray, num_steps: int, decay: float = 0.0) -> tuple[Any, float]:
    rate = 1 / float(np.linalg.eigvalsh(X.T @ X / len(X))[-1])
    run = training.train(
        _regression(X.shape).replace(data={"x": X, "y": y}),  # one loss for all data sets compiles once
        optimizers.momentum(rate, decay),
        num_steps=num_steps,
        key=jax.random.key(0),
        params=start,
        record_params_every=1,
    )
    return np.asarray(run.snapshots), rate


@cache
def _regression(shape: tuple[int, int]) -> problems.Problem:
    return problems.least_squares(np.ones(shape), np.ones(shape[0]))


def _predicted(X: np.ndarray, start: np.ndarray, solution: np.ndarray, rate: float, num_steps: int) -> np.ndarray:
    """Return w* + (I − ηXᵀX/N)ᵗ (w₀ − w*) for t = 0 … T, from the eigenvectors of XᵀX."""
    values, vectors = np.linalg.eigh(X.T @ X / len(X))
    factors = (1 - rate * values) ** np.arange(num_steps + 1)[:, None]
    return solution + (factors * (vectors.T @ (start - solution))) @ vectors.T


def claims(record: Record) -> list[Claim]:
    """Judge the path, its end, and the minimum of a problem that has many."""
    found = {name: np.asarray(values) for name, values in record.results.items() if name != "claims"}

    def largest(values: Any) -> Measurement:
        return exact(float(np.max(values)))

    return [
        Claim(
            "Every iterate is w* + (I − ηXᵀX/N)ᵗ (w₀ − w*)",
            largest(found["path_error"]),
            at_most(1e-10, f"{NOTES}; rounding in double precision"),
            Control("with momentum .5", exact(float(np.min(found["momentum_path_error"])))),
            "Largest difference of a coordinate over all steps and data sets, relative to ‖w₀ − w*‖; η = 1/L.",
        ),
        Claim(
            "It ends at the solution of the normal equations",
            largest(found["distance"][:, -1]),
            at_most(1e-8, f"{NOTES}; (1 − 1/κ)ᵀ is below that"),
            Control(
                "after the first two-hundredth of the steps", exact(float(np.min(found["distance"][:, _early(found)])))
            ),
            "‖w − w*‖/‖w₀ − w*‖, the largest over data sets.",
        ),
        Claim(
            "With dependent columns, from 0 it ends at the solution of least norm, X⁺y",
            largest(found["from_zero"][:, -1]),
            at_most(1e-8, "the iterates stay in the row space of X; Golub and Van Loan (2013), §5.5"),
            Control("from a random start", exact(float(np.min(found["from_elsewhere"][:, -1])))),
            "‖w − X⁺y‖/‖X⁺y‖, the largest over data sets. From elsewhere it fits as well, to "
            f"{found['misfit_from_elsewhere'].max():.0e}: the notes' closed form, (XᵀX)⁻¹Xᵀy, does not exist here.",
        ),
    ]


def _early(found: Mapping[str, np.ndarray]) -> int:
    return found["distance"].shape[1] // 200


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the distance to the solution along the runs."""
    found = record.results
    steps = np.arange(len(found["distance"][0]))
    shown = slice(None, None, max(1, len(steps) // 200))

    def thinned(name: str) -> Any:
        return np.maximum(np.asarray(found[name])[:, shown], 1e-17)

    return {
        "closed_form": panels(
            steps[shown],
            [
                Panel(
                    "full rank: distance to w*, relative",
                    {"gradient descent": thinned("distance"), "closed form": thinned("predicted_distance")},
                    log=True,
                ),
                Panel(
                    "dependent columns: to X⁺y, relative",
                    {"from 0": thinned("from_zero"), "from a random start": thinned("from_elsewhere")},
                    log=True,
                ),
            ],
            columns=2,
            title="Linear regression: gradient descent follows its closed form",
        )
    }


EXPERIMENT = Experiment(
    question="Does gradient descent on linear regression follow its closed form, and to which minimum does it go?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
