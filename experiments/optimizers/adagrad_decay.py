"""Effective rates of AdaGrad, RMSprop and AdaDelta under gradients without a trend, and AdaGrad on rare features."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_most, mean_over_seeds, near, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import journal
from jaxopt_study import optimizers, sweeps
from jaxopt_study.figures import Panel, panels, response
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform

NOTES = "the notes (000): AdaGrad's rate goes on falling, which RMSprop and AdaDelta repair"
DUCHI = "Duchi, Hazan and Singer (2011), Adaptive subgradient methods, §1.3: rare features gain from AdaGrad"


@dataclass(frozen=True)
class Config:
    """Gradients without a trend, and a logistic regression on rare features."""

    num_coordinates: int = 1_000  # of gradients, independent standard normal: the rate is averaged over them
    num_steps: int = 10_000
    first: int = 1_000  # where the slope begins: ten times the memory of RMSprop, 1/(1 − .99)
    num_seeds: int = 10
    num_features: int = 500
    train_steps: int = 1_000  # one pass: every example is seen once
    batch_size: int = 20
    num_rates: int = 9
    seed: int = 0


PRESETS = {
    "smoke": Config(num_coordinates=100, num_steps=3_000, num_seeds=12, num_features=300, train_steps=500, num_rates=5),
    "paper": Config(),
}


def methods() -> dict[str, Transform]:
    """Return the optimizers whose effective rate is followed."""
    return {
        "AdaGrad": optimizers.adagrad(0.1),
        "RMSprop": optimizers.rmsprop(0.1, decay=0.99),
        "AdaDelta": optimizers.adadelta(eps=1e-2),
    }


def searched() -> dict[str, Any]:
    """Return the optimizers that are tuned on the features."""
    return {"SGD": optimizers.sgd, "SGD, η/√t": decaying_sgd, "AdaGrad": optimizers.adagrad}


def decaying_sgd(learning_rate: Any) -> Transform:
    """Return SGD at the rate η/√t, as Duchi et al. compare it: AdaGrad's decay without its adaptation."""
    return optimizers.sgd(lambda count: learning_rate / jnp.sqrt(count + 1.0))


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Measure effective rates under gradients without a trend; tune SGD and AdaGrad on rare and on mixed features."""
    del data_dir
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    steps = np.unique(np.geomspace(1, config.num_steps, 60).astype(int))
    rates = {
        label: np.asarray(jax.jit(jax.vmap(lambda key, tx=tx: _effective_rate(config, tx, key)))(keys))[:, steps - 1]
        for label, tx in methods().items()
    }
    return {
        "steps": steps,
        "rates": rates,
        **_searches(config),
    }


def _effective_rate(config: Config, optimizer: Transform, key: jax.Array) -> jax.Array:
    """Return the root mean square of the update relative to that of the gradient, at every step."""

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        gradient = jax.random.normal(key, (config.num_coordinates,))
        update, state = optimizer.update(gradient, state, params)
        return state, jnp.linalg.norm(update) / jnp.linalg.norm(gradient)

    params = jnp.zeros(config.num_coordinates)
    return jax.lax.scan(step, optimizer.init(params), jax.random.split(key, config.num_steps))[1]


def _searches(config: Config) -> dict[str, Any]:
    """Return test losses of each optimizer on a grid of rates, shape (rates, seeds), on rare and on mixed features."""
    rare, mixed = (
        datasets.sparse_features(
            num_features=config.num_features, rotated=rotated, num_train=config.train_steps * config.batch_size,
            num_validation=0, num_test=4_000, seed=config.seed,
        )
        for rotated in (False, True)
    )  # fmt: skip
    problem = networks.mlp_classifier(rare, widths=())
    # The same problem with other data compiles nothing again.
    kinds = {"rare": problem, "mixed": problem.replace(data=mixed.train, test=mixed.parts["test"])}
    found: dict[str, Any] = {kind: {} for kind in kinds}
    for label, optimizer in searched().items():
        for kind, posed in kinds.items():
            search = sweeps.search(
                optimizer, {"learning_rate": sweeps.log_uniform(1e-2, 1e2)}, posed, sampler="grid",
                num_trials=config.num_rates, num_seeds=config.num_seeds, num_steps=config.train_steps,
                batch_size=config.batch_size, key=jax.random.key(config.seed), evaluate_on="test", metric="test_loss",
                progress=False, journal=journal(f"{label.replace('/', ' by ')}, {kind}"),
            )  # fmt: skip
            losses = np.where(np.isfinite(search.final), search.final, np.inf)
            order = np.argsort([trial["learning_rate"] for trial in search.configs])
            found[kind][label] = losses[order]
            found["searched"] = np.array([search.configs[i]["learning_rate"] for i in order])
    return found


def claims(record: Record) -> list[Claim]:
    """Judge slopes, and who wins on which features."""
    results, config = record.results, record.config
    log_steps = np.log(np.asarray(results["steps"], float))
    late = np.asarray(results["steps"]) >= config["first"]

    def slope(label: str) -> Measurement:
        logs = np.log(np.asarray(results["rates"][label]))
        return mean_over_seeds([np.polyfit(log_steps[late], lane[late], 1)[0] for lane in logs])

    def tuned(features: str) -> Measurement:
        """Compare the test losses at the rates whose mean over the seeds is lowest; SGD in its better form."""
        best = {label: np.asarray(results[features][label]) for label in searched()}
        best = {label: losses[losses.mean(axis=1).argmin()] for label, losses in best.items()}
        return ratio_over_seeds(best["AdaGrad"], min(best["SGD"], best["SGD, η/√t"], key=np.mean))

    return [
        Claim(
            "Under gradients without a trend AdaGrad's effective rate falls as t^−½",
            slope("AdaGrad"),
            near(-0.5, 0.02, f"{NOTES}; √Σg² grows as √t"),
            Control("RMSprop", slope("RMSprop")),
            f"Slope of log rate over log t, from step {config['first']} on; the rate is ‖update‖/‖gradient‖.",
        ),
        Claim(
            "RMSprop's does not fall", slope("RMSprop"), near(0.0, 0.05, NOTES), Control("AdaGrad", slope("AdaGrad"))
        ),
        Claim(
            "AdaDelta's does not fall",
            slope("AdaDelta"),
            near(0.0, 0.05, NOTES),
            Control("AdaGrad", slope("AdaGrad")),
            "It feeds its own steps back into its rate: what it settles at, and how slowly, depends on ε (here 1e-2).",
        ),
        Claim(
            "On rare features AdaGrad beats SGD, at a constant rate or at η/√t, all tuned",
            tuned("rare"),
            at_most(0.97, f"{DUCHI}; three percent of the test loss"),
            Control("the same features, rotated: none is rare", tuned("mixed")),
            "Ratio of the test losses, each at its best rate by the mean over the same seeds; SGD in its better form.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw effective rates over the steps, and test losses over the learning rate."""
    results = record.results
    rates = {label: np.asarray(lanes) / np.asarray(lanes)[:, :1] for label, lanes in results["rates"].items()}
    ceiling = 2 * np.log(2)

    def curves(features: str) -> dict[str, Any]:
        found = results[features]
        return {label: np.minimum(np.asarray(found[label]).T, ceiling) for label in searched()}

    return {
        "effective_rate": response(
            results["steps"], rates, xlabel="step t", ylabel="‖update‖/‖gradient‖, relative to the first step",
            log_x=True, log_y=True, title="Gradients without a trend: only AdaGrad's rate goes on falling",
        ),
        "rare_features": panels(
            np.log10(np.asarray(results["searched"])),
            [
                Panel("rare features", curves("rare"), smallest=0.3, largest=0.8),
                Panel("the same, rotated", curves("mixed"), smallest=0.3, largest=0.8),
            ],
            columns=2, xlabel="log₁₀ learning rate", ylabel="test loss (nats)",
            title="Logistic regression: AdaGrad's advantage is that of rare features",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does AdaGrad's effective rate fall as 1/√t, and where is that good?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
