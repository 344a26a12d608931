"""Edge of stability of Adam and RMSprop, measured on the preconditioned Hessian."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Expectation, Measurement, at_least, mean_over_seeds
from experiments.curvature.edge_of_stability import regression, shortened
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import dynamics, optimizers, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform

COHEN = "Cohen et al. (2022), Adaptive gradient methods at the edge of stability"


@dataclass(frozen=True)
class Config:
    """The regression of `edge_of_stability`, and the optimizers that are watched on it."""

    degree: int = 4
    num_points: int = 20
    width: int = 100
    start_std: float = 0.5
    adam_rates: tuple[float, ...] = (1e-3, 5e-4, 2.5e-4)
    rmsprop_rates: tuple[float, ...] = (1e-3, 5e-4, 2.5e-4)
    small_rate: float = 2.5e-5  # of Adam: too small to get off the first plateau in as many steps
    b1: float = 0.9
    b2: float = 0.99
    num_steps: int = 8_000
    every: int = 51  # odd: the iterates at the edge may alternate from step to step
    num_seeds: int = 5
    seed: int = 0


PRESETS = {
    "smoke": Config(adam_rates=(1e-3, 2.5e-4), rmsprop_rates=()),
    "paper": Config(),
}


def chains(config: Config) -> dict[str, tuple[Transform, float]]:
    """Return the optimizers by label, with their learning rates."""
    adam = {rate: optimizers.adam(rate, b1=config.b1, b2=config.b2) for rate in (*config.adam_rates, config.small_rate)}
    rmsprop = {rate: optimizers.rmsprop(rate, decay=config.b2) for rate in config.rmsprop_rates}
    return {f"Adam {rate:g}": (chain, rate) for rate, chain in adam.items()} | {
        f"RMSprop {rate:g}": (chain, rate) for rate, chain in rmsprop.items()
    }


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train with every optimizer from the same starts, measuring both sharpnesses along the way."""
    del data_dir
    problem = regression(config.degree, config.num_points, config.width, config.start_std)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    probe = training.CurvatureProbe(every=config.every, account=False, max_matvecs=80)

    def lane(chain: Transform, rate: float) -> dict[str, Any]:
        runs = [
            training.train(problem, chain, num_steps=config.num_steps, key=key, probe=probe, progress=False)
            for key in keys
        ]
        limit = dynamics.stability_limit(chain)
        probes = [found.probes for found in runs]
        at = np.asarray(runs[0].probe_steps)
        losses = np.stack([found.losses for found in runs])
        return {
            "steps": at,
            "expression": repr(chain),
            "learning_rate": rate,
            "limit": limit,
            "ratio": shortened(np.stack([found["gain_sharpness"] for found in probes]) / limit),
            "sharpness": shortened(np.stack([found["eigenvalues"][:, 0] for found in probes])),
            "median_relative_residual": float(
                np.median([found["gain_residual"] / found["gain_sharpness"] for found in probes])
            ),
            "worst_relative_residual": float(
                np.max([found["gain_residual"] / found["gain_sharpness"] for found in probes])
            ),
            "loss": shortened(losses[:, np.minimum(at, config.num_steps - 1)]),
        }

    lanes = {label: part(label, partial(lane, *both)) for label, both in chains(config).items()}
    steps = [found.pop("steps") for found in lanes.values()]
    return {"steps": steps[0], "lanes": lanes}


def claims(record: Record) -> list[Claim]:
    """Judge where the preconditioned sharpness settles, for each optimizer and rate."""
    config, lanes = record.config, record.results["lanes"]
    half, early = len(record.results["steps"]) // 2, len(record.results["steps"]) // 20
    small = f"Adam {config['small_rate']:g}"
    bands = {
        "Adam": Expectation(0.90, 1.10, f"{COHEN}: equilibrates at 38/η, for β₁ = .9; the tolerance is ours"),
        "RMSprop": Expectation(0.95, 1.10, f"{COHEN}: equilibrates at 2/η; the tolerance is ours"),
    }

    def late(values: Any, scale: float = 1.0) -> Measurement:
        return mean_over_seeds([np.median(np.array(row)[half:]) * scale for row in values])

    judged = []
    for label, lane in lanes.items():
        family = label.split()[0]
        if label == small:
            continue
        beta = config["b1"] if family == "Adam" else 0.0
        raw = lane["learning_rate"] * (1 - beta) / lane["limit"]  # the unit in which P is the identity
        judged.append(
            Claim(
                f"{label}: the preconditioned sharpness settles at the limit {lane['limit']:.3g}",
                late(lane["ratio"]),
                bands[family],
                Control("the raw sharpness in the same unit, P = 1", late(lane["sharpness"], raw)),
                "Median over the second half of λmax(D^½ H D^½)/limit, D the gains of one step.",
            )
        )
    adam = [label for label in lanes if label.startswith("Adam") and label != small]
    slowest = adam[-1]

    def growth(label: str, key: str) -> Measurement:
        rows = np.array(lanes[label][key])
        return mean_over_seeds(np.log2(np.median(rows[:, half:], axis=1) / rows[:, early]))

    judged += [
        Claim(
            f"{slowest}: the ratio rises to the limit, it does not start there",
            growth(slowest, "ratio"),
            at_least(0.5, f"{COHEN}, section 3: the preconditioned sharpness rises until it is at the threshold"),
            Control(
                "from the middle of the run on",
                mean_over_seeds(
                    [np.log2(np.median(row[-half // 2 :]) / np.median(row[half : -half // 2]))
                     for row in np.array(lanes[slowest]["ratio"])]
                ),
            ),
            "log₂ of the median over the second half over the value after a twentieth of the run. The gains take part "
            f"in the rise: {small}, whose raw sharpness hardly doubles, comes to the limit on a plateau of small "
            "gradients, and leaves it.",
        ),
        Claim(
            f"The raw sharpness of {adam[0]} goes on growing after the ratio has settled",
            mean_over_seeds(
                [np.log2(row[-1] / row[len(row) // 4]) for row in np.array(lanes[adam[0]]["sharpness"])]
            ),
            at_least(0.1, f"{COHEN}, section 4: adaptive methods go on into sharper regions, unlike gradient descent"),
            Control(
                "the ratio itself",
                mean_over_seeds(
                    [np.log2(np.median(row[-half // 2 :]) / np.median(row[len(row) // 4 : half]))
                     for row in np.array(lanes[adam[0]]["ratio"])]
                ),
            ),
            "log₂ of its growth over the last three quarters of the run.",
        ),
    ]  # fmt: skip
    return judged


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the preconditioned ratio of both optimizers, the raw sharpness, and the loss."""
    lanes = record.results["lanes"]

    def of(key: str, family: str = "") -> dict[str, Any]:
        return {label: np.array(lane[key]) for label, lane in lanes.items() if label.startswith(family)}

    look: Mapping[str, Any] = {"level": 1.0, "log": True, "smallest": 0.003, "largest": 20}
    ratios = [
        Panel(f"{family}: preconditioned sharpness / limit", of("ratio", family), **look)
        for family in ("Adam", "RMSprop")
        if of("ratio", family)
    ]  # fmt: skip
    return {
        "adaptive_edge_of_stability": panels(
            record.results["steps"],
            [
                *ratios,
                Panel("raw sharpness λ (largest eigenvalue)", of("sharpness"), smallest=0.0),
                Panel("½ mean squared error", of("loss"), log=True),
            ],
            columns=2,
            title="Adam and RMSprop on 20 points: the preconditioned sharpness settles at its limit",
        )
    }


EXPERIMENT = Experiment(
    question="Do Adam and RMSprop run at the edge of stability of the preconditioned Hessian?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
