"""Noise on the weights: its cost in the loss, and the trace of the Hessian."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, mean_over_seeds, near, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, optimizers, training
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

THEORY = "Taylor's theorem: E L(θ + σε) − L(θ) = ½σ² tr H + O(σ⁴) for ε ~ N(0, I), since E ε = 0"
NOTES = "the notes (003): noise on the weights regularises"


@dataclass(frozen=True)
class Config:
    """A smooth network at its start and after training."""

    data: images.Images = "mnist"
    num_train: int = 500
    widths: tuple[int, ...] = (30, 30)
    rate: float = 0.1
    num_steps: int = 1_500
    stds: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
    fitted: int = 3  # how many of them, from the smallest, the slope is fitted to
    num_draws: int = 200  # antithetic pairs a seed
    num_probes: int = 200
    num_seeds: int = 6
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=200, widths=(16,), num_steps=200, num_draws=150, num_probes=100, num_seeds=4
    ),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Measure the rise of the loss under noise, and the trace, at the start and after training."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=0)
    problem = networks.mlp_classifier(dataset, widths=config.widths, activation="tanh", initialiser="xavier")
    stds = jnp.array(config.stds)
    measure = jax.jit(partial(_rise, config, problem.loss))

    def measured(key: jax.Array) -> dict[str, Any]:
        key_train, key_noise, key_trace = jax.random.split(key, 3)
        start = jax.tree.map(lambda x: x.astype(float), problem.init(key_train))
        data = jax.tree.map(lambda x: jnp.asarray(x, float) if x.dtype.kind == "f" else jnp.asarray(x), problem.data)
        run = training.train(
            problem, optimizers.sgd(config.rate), num_steps=config.num_steps, key=key_train, params=start
        )
        end, before = (
            curvature.trace(curvature.hessian(problem.loss, params, data), num_probes=config.num_probes, key=key_trace)
            for params in (run.params, start)
        )
        return {
            "rise": measure(run.params, data, stds, key_noise),
            "trace": end.value,
            "trace_error": end.standard_error,
            "start_trace": before.value,
        }

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
        found = [part(f"seed {i}", partial(measured, key)) for i, key in enumerate(keys)]
    return {
        "stds": np.array(config.stds),
        **{name: np.array([each[name] for each in found]) for name in found[0]},
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _rise(config: Config, loss: Any, params: Any, data: Any, stds: jax.Array, key: jax.Array) -> jax.Array:
    """Return the mean rise of the loss for each σ; pairs ±ε cancel what is odd in ε, and all σ share the ε."""
    here = loss(params, data)
    leaves, structure = jax.tree.flatten(params)

    def one(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]

        def at(scale: jax.Array) -> jax.Array:
            return loss(structure.unflatten([x + scale * e for x, e in zip(leaves, noise, strict=True)]), data)

        return jax.vmap(lambda std: (at(std) + at(-std)) / 2 - here)(stds)

    return jnp.mean(jax.lax.map(one, jax.random.split(key, config.num_draws)), axis=0)


def claims(record: Record) -> list[Claim]:
    """Judge the slope in σ, and the size."""
    results, config = record.results, record.config
    stds, rise = np.asarray(results["stds"]), np.asarray(results["rise"])
    trace = np.asarray(results["trace"])

    def slope(first: int, last: int) -> Measurement:
        logs = np.log(np.abs(rise[:, first:last]))
        return mean_over_seeds([np.polyfit(np.log(stds[first:last]), lane, 1)[0] for lane in logs])

    def coefficient(of: np.ndarray) -> Measurement:
        return ratio_over_seeds(rise[:, 2], stds[2] ** 2 / 2 * of)

    errors = np.asarray(results["trace_error"]) / trace
    return [
        Claim(
            "The loss rises in proportion to the noise's variance",
            slope(0, config["fitted"]),
            near(2.0, 0.05, THEORY),
            Control("the largest σ, beyond the quadratic region", slope(-2, len(stds))),
            f"Slope of log rise over log σ, σ from {stds[0]:g} to {stds[config['fitted'] - 1]:g}. To σ = {stds[4]:g}, "
            f"as first planned, it is {slope(0, 5)}: there the term in σ⁴ shows.",
        ),
        Claim(
            "The factor is half the trace of the Hessian, as `curvature.trace` estimates it",
            coefficient(trace),
            near(1.0, 0.1, f"{THEORY}; {NOTES}; ten percent"),
            Control("the trace at the start of training", coefficient(np.asarray(results["start_trace"]))),
            f"Rise over ½σ² tr H at σ = {stds[2]:g}; the traces are known to {errors.max():.1%}. Noise on the weights "
            "is a penalty on the trace: it prefers flat minima.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the rise over σ."""
    results = record.results
    stds = np.asarray(results["stds"])
    expected = np.outer(np.asarray(results["trace"]), stds**2 / 2)
    title = f"{images.TITLES[record.config['data']]}: noise on the weights costs ½σ² tr H"
    return {
        "weight_noise": response(
            stds, {"measured": np.maximum(results["rise"], 1e-12), "½σ² tr H": expected}, xlabel="σ of the noise",
            ylabel="rise of the training loss (nats)", log_x=True, log_y=True, title=title,
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does noise on the weights cost half its variance times the trace of the Hessian?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
