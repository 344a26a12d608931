"""Steps to a target against the batch size, and the gradient noise scale, beyond which larger batches stop paying."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from experiments import images
from experiments.claims import (
    Claim,
    Control,
    Expectation,
    Measurement,
    at_least,
    mean_over_seeds,
    near,
    ratio_over_seeds,
)
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import dynamics, optimizers, problems, training
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

SHALLUE = "Shallue et al. (2019), Measuring the effects of data parallelism on neural network training, figure 1"
MCCANDLISH = "McCandlish et al. (2018), An empirical model of large-batch training, equations 2.7 and 2.11"


@dataclass(frozen=True)
class Config:
    """SGD on a network to a target of the validation loss, at many batch sizes and rates."""

    data: images.Images = "mnist"
    num_train: int = 4_000
    num_validation: int = 300
    widths: tuple[int, ...] = (32,)
    target: float = 0.5  # of the validation loss, in nats
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64, 256)
    least_rate: float = 0.0125  # the others are powers of two times as large
    num_rates: int = 7
    most_steps: int = 60  # of an unlimited batch; a batch of B gets most_steps · (1 + expected/B)
    expected: int = 60
    num_seeds: int = 6
    num_points: int = 8  # along the run, at which the noise is measured
    noise_batch: int = 16
    noise_batches: int = 64
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=1_000, num_validation=300, widths=(16,), num_seeds=4, batch_sizes=(1, 4, 64, 256),
        least_rate=0.05, num_rates=6, most_steps=80, expected=20,
    ),
    "paper": Config(),
}  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train at every batch size and rate, and measure the noise along the run of the largest batch."""
    dataset = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=config.num_validation, seed=config.seed
    )
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    rates = config.least_rate * 2.0 ** np.arange(config.num_rates)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    steps = np.array(
        [
            part(f"batch size {size}", partial(_steps_to_target, config, problem, size, rates, keys))
            for size in config.batch_sizes
        ]
    )
    best = np.where(np.isfinite(steps), steps, np.inf).mean(axis=2).argmin(axis=1)
    tuned = steps[np.arange(len(steps)), best]  # (sizes, seeds)
    return {
        "rates": rates,
        "steps": steps,
        "best_rates": rates[best],
        "tuned": tuned,
        "noise": part("noise", lambda: _noise(config, problem, float(rates[best[-1]]), tuned[-1], keys)),
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _steps_to_target(
    config: Config, problem: problems.Problem, size: int, rates: np.ndarray, keys: jax.Array
) -> np.ndarray:
    """Return the steps until the validation loss is at the target, for each rate and seed; infinite if it never is."""
    every = max(1, round(config.most_steps * (1 + config.expected / size) / 60))

    def one(rate: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = training.train(
            problem, optimizers.sgd(rate), num_steps=60 * every, key=key, batch_size=size, order="with_replacement",
            evaluate_every=every, evaluate_on="validation",
        ).evaluations  # fmt: skip
        return found["step"], found["validation_loss"]

    steps, losses = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(jnp.asarray(rates), keys)
    return _first_below(np.asarray(steps)[0, 0], np.asarray(losses), config.target)


def _first_below(steps: np.ndarray, losses: np.ndarray, target: float) -> np.ndarray:
    """Return where losses first fall to the target, between two evaluations by a straight line; infinite if nowhere."""
    below = losses <= target
    after = np.maximum(below.argmax(axis=-1), 1)
    ends = [np.take_along_axis(losses, index[..., None], axis=-1)[..., 0] for index in (after - 1, after)]
    share = (ends[0] - target) / (ends[0] - ends[1])
    return np.where(below.any(axis=-1), steps[after - 1] + share * (steps[after] - steps[after - 1]), np.inf)


def _noise(
    config: Config, problem: problems.Problem, rate: float, counts: np.ndarray, keys: jax.Array
) -> dict[str, np.ndarray]:
    """Return the noise scale at points of each run to the target, and the same with gradients of random signs."""
    model = networks.MLP(10, widths=config.widths)
    signs = jax.random.rademacher(jax.random.key(config.seed + 7), (config.num_train,), jnp.float32)
    data: Any = {**problem.data, "sign": signs} if problem.data else {}
    points = np.round(np.linspace(0, counts, config.num_points, axis=1)).astype(int)
    longest = int(points.max())

    def signed_loss(params: Any, batch: Any) -> jax.Array:
        logits = jnp.asarray(model.apply({"params": params}, batch["x"]))
        return jnp.mean(batch["sign"] * optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]))

    @jax.jit
    @jax.vmap
    def measure(key: jax.Array, points: jax.Array) -> dict[str, jax.Array]:
        run = training.train(
            problem, optimizers.sgd(rate), num_steps=longest, key=key, batch_size=config.batch_sizes[-1],
            order="with_replacement", record_params_every=1,
        )  # fmt: skip
        noise = partial(
            dynamics.gradient_noise, data=data, batch_size=config.noise_batch, num_batches=config.noise_batches,
            key=jax.random.fold_in(key, 1),
        )  # fmt: skip

        def at(params: Any) -> dict[str, jax.Array]:
            found = noise(problem.loss, params)
            values = {"scale": found.noise_scale.value, "lower": found.lower, "upper": found.upper}
            return values | {"random_signs": noise(signed_loss, params).noise_scale.value}

        return jax.lax.map(at, jax.tree.map(lambda x: x[points], run.snapshots))

    return {name: np.asarray(x) for name, x in measure(keys, jnp.asarray(points)).items()}


def fitted(sizes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return S_min and B_crit of S = S_min (1 + B_crit/B), by least squares of the logarithm."""

    def residuals(logs: np.ndarray) -> np.ndarray:
        return np.log(steps) - logs[0] - np.log1p(np.exp(logs[1]) / sizes)

    return np.exp(least_squares(residuals, [np.log(steps[-1]), np.log(sizes[len(sizes) // 2])]).x)


def claims(record: Record) -> list[Claim]:
    """Judge the scaling at both ends, and the turn against the noise scale."""
    results, config = record.results, record.config
    sizes, tuned = np.asarray(config["batch_sizes"], float), np.asarray(results["tuned"])
    noise = {name: np.asarray(values) for name, values in results["noise"].items()}

    def slope(first: int, last: int) -> Measurement:
        over = np.log(sizes[last] / sizes[first])
        return mean_over_seeds(np.log(tuned[last] / tuned[first]) / over)

    turns = np.array([fitted(sizes, steps)[1] for steps in tuned.T])
    usable = np.where(np.isfinite(noise["random_signs"]), noise["random_signs"], 10 * config["num_train"])
    turn = ratio_over_seeds(turns, np.ones(len(turns)))
    mean_scale = ratio_over_seeds(noise["scale"].mean(axis=1), np.ones(len(turns)))
    at_edge = [
        f"{size:.0f}" for size, rate in zip(sizes, np.asarray(results["best_rates"]), strict=True)
        if rate in {results["rates"][0], results["rates"][-1]}
    ]  # fmt: skip
    edge = f"; at an end of the grid for {', '.join(at_edge)}" if at_edge else ""
    rates = ", ".join(f"{rate:g}" for rate in np.asarray(results["best_rates"]))
    return [
        Claim(
            "Small batches scale nearly perfectly: twice the batch, half the steps",
            slope(0, 1),
            near(-1.0, 0.3, f"{SHALLUE}; .3 for the grid of rates and the beginning of the turn"),
            Control("the largest batches", slope(-2, -1)),
            f"Slope of log steps over log batch size from {sizes[0]:.0f} to {sizes[1]:.0f}, each with its tuned rate "
            f"({rates} from small to large batches{edge}).",
        ),
        Claim(
            "Large batches do not: more examples, as many steps",
            slope(-2, -1),
            at_least(-0.3, f"{SHALLUE}; at most a third of what perfect scaling saves"),
            Control("the smallest batches", slope(0, 1)),
            f"The same slope from {sizes[-2]:.0f} to {sizes[-1]:.0f}.",
        ),
        Claim(
            "The noise scale tr Σ/|G|² predicts the turn within a factor of 3",
            ratio_over_seeds(noise["scale"].mean(axis=1), turns),
            Expectation(1 / 3, 3.0, MCCANDLISH),
            Control(
                "every example's gradient with a random sign", ratio_over_seeds(usable.mean(axis=1), turns)
            ),
            f"Mean of the noise scale over the steps of the largest batch, {mean_scale} examples, over the B_crit of "
            f"S = S_min(1 + B_crit/B) fitted to the steps, {turn}. The scale is "
            f"{np.median(noise['scale'][:, 0]):.3g} at the start and {np.median(noise['scale'][:, -1]):.3g} at the "
            "target.",
        ),
    ]  # fmt: skip


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw steps over batch size, and the noise scale along the run."""
    results, config = record.results, record.config
    sizes, tuned = np.asarray(config["batch_sizes"], float), np.asarray(results["tuned"])
    fits = [fitted(sizes, steps) for steps in tuned.T]
    predicted = np.mean(np.asarray(results["noise"]["scale"]), axis=1)
    curves = {
        "measured, tuned rate": tuned.T,
        "fitted S(1 + B_crit/B)": np.stack([least * (1 + turn / sizes) for least, turn in fits]),
        "with the noise scale as B_crit": np.stack(
            [fit[0] * (1 + turn / sizes) for fit, turn in zip(fits, predicted, strict=True)]
        ),
        "perfect scaling": tuned[0].mean() * sizes[0] / sizes,
    }
    return {
        "steps_to_target": response(
            sizes, curves, xlabel="batch size", ylabel="steps to the target", log_x=True, log_y=True,
            smallest=0.5 * float(tuned.min()),
            title=f"{images.TITLES[config['data']]}, to a loss of {config['target']:g}: larger batches stop paying at "
            "the noise scale",
        ),
        "noise_scale": response(
            np.linspace(0, 1, config["num_points"]), {"noise scale": np.asarray(results["noise"]["scale"])},
            xlabel="share of the steps to the target", ylabel="tr Σ/|G|² (examples)", log_y=True,
            level=float(np.median([turn for _, turn in fits])), level_label="fitted B_crit",
            title="The noise scale along the run of the largest batch",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Up to which batch size do larger batches save steps, and does the gradient noise scale predict it?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
