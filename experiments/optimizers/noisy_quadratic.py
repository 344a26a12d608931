"""The noisy quadratic model: expected losses of SGD, momentum and averaged SGD against exact recursions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_most, exact, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.records import Record

ZHANG = "Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?, section 3"
METHODS = {"SGD": 0.0, "momentum .9": 0.9}


@dataclass(frozen=True)
class Config:
    """The noisy quadratic model: H = diag(1, ½, …, 1/d), noise of covariance H."""

    dim: int = 100
    rate: float = 0.1  # of SGD; momentum has (1 − β) times as much, so that both move alike
    average: float = 0.99  # decay of the average of SGD's iterates
    num_steps: int = 1_000
    num_runs: int = 10_000
    every: int = 10
    seed: int = 0


PRESETS = {"smoke": Config(dim=20, num_steps=200, num_runs=500), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train many times from one start, and iterate the moments exactly."""
    del data_dir
    with jax.enable_x64(True):
        problem = problems.noisy_quadratic(config.dim, start=np.ones(config.dim))
        keys = jax.random.split(jax.random.key(config.seed), config.num_runs)
        measured: dict[str, Any] = {}
        for label, decay in METHODS.items():
            optimizer = optimizers.momentum(config.rate * (1 - decay), decay)
            losses = jax.jit(jax.vmap(partial(_losses, config, problem, optimizer)))
            mean, error = part(label, partial(_moments, losses, keys))
            measured[label] = {"mean": mean[0], "error": error[0]}
            if not decay:
                measured["SGD, averaged"] = {"mean": mean[1], "error": error[1]}
    spectrum = 1 / np.arange(1.0, config.dim + 1)
    exactly = {label: _expected(config, spectrum, *_system(config, label)) for label in measured}
    silent = {label: _expected(config, spectrum, *_system(config, label), noise=0.0) for label in measured}
    return {
        "steps": np.arange(0, config.num_steps + 1, config.every),
        "measured": measured,
        "exact": exactly,
        "without_noise": silent,
        "steady": {label: _steady(spectrum, *_system(config, label)) for label in measured},
        "first_order": {"SGD": config.rate / 4 * spectrum.sum()},
    }


def _losses(config: Config, problem: problems.Problem, optimizer: Any, key: jax.Array) -> jax.Array:
    """Return the loss of the iterates and of their exponential average at every `every`-th step."""
    run = training.train(problem, optimizer, num_steps=config.num_steps, key=key, record_params_every=1)

    def step(mean: jax.Array, params: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = config.average * mean + (1 - config.average) * params
        return mean, jnp.stack([problem.loss(params), problem.loss(mean)])

    return jax.lax.scan(step, run.snapshots[0], run.snapshots)[1][:: config.every].T


def _moments(losses: Any, keys: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over the runs, a hundred of them at a time."""
    found = np.concatenate([np.asarray(losses(chunk)) for chunk in keys.reshape(-1, 100)])
    return found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(found))


def _system(config: Config, label: str) -> tuple[Any, np.ndarray, int]:
    """Return A(λ) and b of the step zₜ₊₁ = A zₜ + b ξₜ for one coordinate, and which entry of z has the loss.

    z is (θ, v) of momentum, v ← βv − η(λθ + ξ), θ ← θ + v; and (θ, θ̄) of the average, θ̄ ← ρθ̄ + (1 − ρ)θ after the step.
    """
    if label == "SGD, averaged":
        rate, keep = config.rate, config.average
        return (
            lambda curvature: np.array([[1 - rate * curvature, 0], [(1 - keep) * (1 - rate * curvature), keep]]),
            np.array([-rate, -(1 - keep) * rate]),
            1,
        )
    decay = METHODS[label]
    rate = config.rate * (1 - decay)
    return (
        lambda curvature: np.array([[1 - rate * curvature, decay], [-rate * curvature, decay]]),
        np.array([-rate, -rate]),
        0,
    )


def _expected(
    config: Config, spectrum: np.ndarray, matrix: Any, noise_vector: np.ndarray, entry: int, *, noise: float = 1.0
) -> np.ndarray:
    """Return ½ Σ λ E[zₜ²] at every `every`-th step, from E[z zᵀ] ← A E[z zᵀ] Aᵀ + λ b bᵀ."""
    start = np.array([1.0, 1.0]) if entry else np.array([1.0, 0.0])
    total = np.zeros(config.num_steps + 1)
    for curvature in spectrum:
        A, moment = matrix(curvature), np.outer(start, start)
        for t in range(config.num_steps + 1):
            total[t] += curvature / 2 * moment[entry, entry]
            moment = A @ moment @ A.T + noise * curvature * np.outer(noise_vector, noise_vector)
    return total[:: config.every]


def _steady(spectrum: np.ndarray, matrix: Any, noise_vector: np.ndarray, entry: int) -> float:
    """Return the limit, from the fixed point of the recursion: (I − A ⊗ A) vec M = λ vec bbᵀ."""
    total = 0.0
    for curvature in spectrum:
        A = matrix(curvature)
        source = curvature * np.outer(noise_vector, noise_vector)
        moment = np.linalg.solve(np.eye(4) - np.kron(A, A), source.ravel()).reshape(2, 2)
        total += curvature / 2 * moment[entry, entry]
    return float(total)


def claims(record: Record) -> list[Claim]:
    """Judge the distance of measured means to the recursion, in standard errors, and the steady states."""
    results = record.results

    def farthest(label: str, against: str) -> Measurement:
        found = results["measured"][label]
        difference = np.asarray(found["mean"]) - np.asarray(results[against][label])
        return exact(float(np.max(np.abs(difference[1:]) / np.asarray(found["error"])[1:])))

    judged = [
        Claim(
            f"{label}: the mean loss follows the exact recursion",
            farthest(label, "exact"),
            at_most(4.0, f"{ZHANG}; four standard errors at every {record.config['every']}th step"),
            Control("the recursion without its noise term", farthest(label, "without_noise")),
            f"Largest distance in standard errors, over {record.config['num_runs']} runs.",
        )
        for label in results["measured"]
    ]
    steady, rate = results["steady"], record.config["rate"]
    judged.append(
        Claim(
            "SGD's steady loss is ¼ η tr H to first order in η",
            exact(steady["SGD"] / results["first_order"]["SGD"]),
            near(1.0, rate / 2, f"{ZHANG}; ½ηλ/(2 − ηλ) summed over λ, so that the correction is at most ηλ/2"),
            Control("the average of the iterates, which is below", exact(steady["SGD, averaged"] / steady["SGD"])),
            f"η = {rate:g}. Momentum at (1 − β)η ends at {steady['momentum .9'] / steady['SGD']:.3f} of SGD's.",
        )
    )
    return judged


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw measured and expected losses."""
    results = record.results
    return {
        "noisy_quadratic": panels(
            results["steps"],
            [
                Panel(
                    label,
                    {
                        "mean of the runs": np.asarray(found["mean"])[None],
                        "exact recursion": np.asarray(results["exact"][label])[None],
                        "recursion without noise": np.asarray(results["without_noise"][label])[None],
                    },
                    log=True,
                    smallest=0.1 * results["steady"][label],
                    level=results["steady"][label],
                    level_label="steady state, exact",
                )
                for label, found in results["measured"].items()
            ],
            ylabel="expected loss",
            title="Noisy quadratic: noise sets a floor, and averaging the iterates lowers it",
        )
    }


EXPERIMENT = Experiment(
    question="Does the expected loss of SGD, momentum and averaged SGD follow its exact recursion under noise?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
