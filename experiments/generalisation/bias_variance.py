"""Bias and variance: the expected error of polynomials of growing degree as noise + bias² + variance."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds
from experiments.experiment import Experiment
from jaxopt_study.figures import response
from jaxopt_study.records import Record

NOTES = "the notes (003): error = noise + bias² + variance"
GEMAN = "Geman, Bienenstock and Doursat (1992), Neural networks and the bias/variance dilemma"


@dataclass(frozen=True)
class Config:
    """Polynomials fitted to noisy samples of a sine."""

    num_examples: int = 25
    noise: float = 0.3  # standard deviation
    degrees: tuple[int, ...] = tuple(range(13))
    num_draws: int = 4_000
    num_groups: int = 20
    num_points: int = 200  # at which predictions are compared
    seed: int = 0


PRESETS = {"smoke": Config(num_draws=800, num_groups=10), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Fit every degree to every draw, with noise and without, and decompose the error."""
    del data_dir
    return {
        "degrees": np.array(config.degrees),
        "noisy": _decompose(config, config.noise),
        "clean": _decompose(config, 0.0),
    }


def _truth(x: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * x)


def _decompose(config: Config, noise: float) -> dict[str, np.ndarray]:
    """Return error, bias² and variance, shape (groups, degrees); each group has draws and new targets of its own."""
    rng = np.random.default_rng(config.seed)
    points = np.linspace(-0.95, 0.95, config.num_points)
    # Chebyshev's polynomials keep the least-squares problems well conditioned.
    basis = np.polynomial.chebyshev.chebvander(points, max(config.degrees))
    draws = config.num_draws // config.num_groups
    found: dict[str, list[list[float]]] = {"error": [], "bias": [], "variance": []}
    for _ in range(config.num_groups):
        # Fixed inputs at the Chebyshev nodes: only the noise is drawn.
        x = np.cos(np.pi * (np.arange(config.num_examples) + 0.5) / config.num_examples)
        y = _truth(x) + noise * rng.standard_normal((draws, config.num_examples))
        targets = _truth(points) + noise * rng.standard_normal((draws, config.num_points))
        rows: dict[str, list[float]] = {name: [] for name in found}
        for degree in config.degrees:
            design = np.polynomial.chebyshev.chebvander(x, degree)
            predictions = y @ np.linalg.pinv(design).T @ basis[:, : degree + 1].T
            variance = predictions.var(axis=0, ddof=1).mean()
            # The squared mean error contains 1/draws of the variance, which is taken out.
            bias = ((predictions.mean(axis=0) - _truth(points)) ** 2).mean() - variance / draws
            rows["error"].append(float(((predictions - targets) ** 2).mean()))
            rows["bias"].append(float(bias))
            rows["variance"].append(float(variance))
        for name, values in rows.items():
            found[name].append(values)
    return {name: np.array(values) for name, values in found.items()}


def claims(record: Record) -> list[Claim]:
    """Judge the sum, the U and the floor."""
    noise = record.config["noise"] ** 2
    found = {
        kind: {name: np.asarray(values) for name, values in record.results[kind].items()} for kind in ("noisy", "clean")
    }

    def gap(kind: str, floor: float) -> Measurement:
        """Return the largest |error − noise − bias² − variance| over the degrees, in standard errors."""
        each = found[kind]
        difference = each["error"] - floor - each["bias"] - each["variance"]
        error = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
        return exact(float(np.max(np.abs(difference.mean(axis=0)) / error)))

    error = found["noisy"]["error"]
    best = int(error.mean(axis=0).argmin())
    growing = found["noisy"]["variance"]
    clean = found["clean"]["error"]

    def ends(errors: np.ndarray, at: int) -> Measurement:
        """Return the smaller of the two ends of the curve over its value at a degree, by group."""
        return mean_over_seeds(np.minimum(errors[:, 0], errors[:, -1]) / errors[:, at])

    return [
        Claim(
            "At every degree the error is noise + bias² + variance",
            gap("noisy", noise),
            at_most(4.0, f"{NOTES}; {GEMAN}; 4 standard errors of {record.config['num_groups']} groups"),
            Control("the sum without the noise", gap("noisy", 0.0)),
            "Largest difference over the degrees, in standard errors.",
        ),
        Claim(
            "The error makes a U: constant and largest degree are both well above the best",
            ends(error, best),
            at_least(1.1, f"{GEMAN}; a tenth"),
            Control("without noise, against the largest degree", ends(clean, -1)),
            f"The best degree is {record.config['degrees'][best]}. With more parameters than examples the curve can "
            "fall again (double descent), which the notes' U does not say.",
        ),
        Claim(
            "The variance grows in proportion to the number of coefficients",
            mean_over_seeds(growing[:, -1] / growing[:, 0] / len(record.config["degrees"])),
            at_least(0.7, "σ²(p/N) for p coefficients at N nodes, averaged over the interval"),
            Control("without noise there is none", exact(float(found["clean"]["variance"].max()))),
            "Variance of the largest degree over that of the constant, divided by the ratio of their coefficients.",
        ),
        Claim(
            "Without noise the sum has no floor",
            exact(float(clean.mean(axis=0)[-1])),
            at_most(1e-6, "a sine is a polynomial of degree 12 to that accuracy"),
            Control("with noise", exact(float(error.mean(axis=0).min()))),
            "Error of the largest degree; with noise, of the best.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the parts over the degree."""
    noisy, noise = record.results["noisy"], record.config["noise"] ** 2
    total = np.asarray(noisy["bias"]) + np.asarray(noisy["variance"]) + noise
    curves = {
        "expected error": noisy["error"], "noise + bias² + variance": total,
        "bias²": np.maximum(np.asarray(noisy["bias"]), 1e-6), "variance": noisy["variance"],
    }  # fmt: skip
    return {
        "bias_variance": response(
            record.results["degrees"], curves, xlabel="degree of the polynomial", ylabel="squared error", log_y=True,
            level=noise, level_label="noise", smallest=1e-4,
            title="Bias falls, variance grows, noise stays: the error makes a U",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Is the expected error the sum of noise, bias and variance, and does it make a U over the model's size?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
