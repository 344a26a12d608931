"""A regression from the notes (003): SGD, momentum and Adam on the same batches, at one rate and each at its best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, exact, near, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import Panel, panels, response
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record

NOTES = "the notes (003): Adam fits fastest, then momentum, then SGD; all at rate .01"
QIAN = "Qian (1999), On the momentum term in gradient descent learning: small steps of momentum are SGD at η/(1 − β)"
CHOI = "Choi et al. (2019), On empirical comparisons of optimizers: tuned, the more general is never worse"
BETA = 0.9

OPTIMIZERS: Mapping[str, Callable[[Any], Any]] = {
    "SGD": optimizers.sgd,
    "momentum": lambda rate: optimizers.momentum(rate, BETA),
    "Adam": optimizers.adam,
}


@dataclass(frozen=True)
class Config:
    """The homework's settings, and a grid of rates."""

    num_train: int = 10_000
    noise: float = 0.03
    widths: tuple[int, ...] = (64, 64)
    rate: float = 0.01  # the homework's, of all three
    batch_size: int = 64
    num_steps: int = 10_000
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # to tune each; a tenth of most is here, too
    num_seeds: int = 5
    num_records: int = 50
    seed: int = 0


PRESETS = {
    "smoke": Config(
        num_train=500,
        widths=(16, 16),
        batch_size=32,
        num_steps=2_000,
        rates=(0.001, 0.01, 0.1),
        num_records=20,
    ),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train every optimizer at every rate, with the same starts and batches."""
    del data_dir
    dataset = datasets.damped_cosine(
        num_train=config.num_train, num_validation=0, num_test=2_000, noise=config.noise, seed=config.seed
    )
    problem = networks.mlp_regressor(dataset, widths=config.widths, activation="tanh")
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    rates = np.asarray(config.rates)

    def one(make: Callable[[Any], Any], rate: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        run = training.train(
            problem, make(rate), num_steps=config.num_steps, key=key, batch_size=config.batch_size,
            evaluate_every=config.num_steps // config.num_records, evaluate_on="test",
        )  # fmt: skip
        return jnp.where(run.diverged, jnp.inf, run.evaluations["test_loss"]), run.evaluations["step"]

    def curves(make: Callable[[Any], Any]) -> tuple[jax.Array, jax.Array]:
        of_rate = jax.vmap(partial(one, make), in_axes=(None, 0))
        losses, steps = jax.vmap(of_rate, in_axes=(0, None))(jnp.asarray(rates, jnp.float32), keys)
        return losses, steps[0, 0]

    found = {label: part(label, partial(curves, make)) for label, make in OPTIMIZERS.items()}
    x, y = (np.asarray(dataset.parts["test"][name], float) for name in ("x", "y"))
    truth = np.exp(-(x**2)) * np.cos(10 * x)
    return {
        "rates": rates,
        "steps": next(steps for _, steps in found.values()),
        "curves": {label: losses for label, (losses, _) in found.items()},
        "truth": {"mse": float(np.mean((y - truth) ** 2)), "constant": float(y.var()), "num_test": len(y)},
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _ends(record: Record) -> dict[str, np.ndarray]:
    """Return the test losses by rate and seed: means over the last tenth of the run."""
    curves = {label: np.asarray(values, float) for label, values in record.results["curves"].items()}
    last = max(1, record.config["num_records"] // 10)
    return {label: values[..., -last:].mean(axis=-1) for label, values in curves.items()}


def _tuned(ends: np.ndarray) -> int:
    """Return the index of the rate with the smallest mean loss."""
    return int(np.where(np.isfinite(ends), ends, np.inf).mean(axis=1).argmin())


def claims(record: Record) -> list[Claim]:
    """Judge the order at the notes' rate and at tuned rates."""
    config, truth, rates = record.config, record.results["truth"], np.asarray(record.results["rates"])
    ends = _ends(record)

    def at(label: str, rate: float) -> np.ndarray:
        return ends[label][int(np.abs(np.log(rates / rate)).argmin())]

    given = {label: at(label, config["rate"]) for label in ends}
    tuned = {label: values[_tuned(values)] for label, values in ends.items()}
    chosen = {label: rates[_tuned(values)] for label, values in ends.items()}

    def slower_momentum(rate: float) -> Measurement:
        """Return SGD's loss over that of momentum at (1 − β) times its rate, which moves as far."""
        return ratio_over_seeds(at("SGD", rate), at("momentum", (1 - BETA) * rate))

    noise = config["noise"] ** 2
    error = float(np.sqrt(2 / truth["num_test"]))
    listed = ", ".join(f"{label} {np.mean(tuned[label]):.3g} at {chosen[label]:g}" for label in tuned)
    return [
        Claim(
            "At the notes' rate SGD ends above momentum",
            ratio_over_seeds(given["SGD"], given["momentum"]),
            at_least(1.2, f"{NOTES}; a fifth of the loss"),
            Control("momentum at a tenth of the rate, which moves as far as SGD", slower_momentum(config["rate"])),
            f"Ratio of the test losses after {config['num_steps']:,} steps: SGD {np.mean(given['SGD']):.3g}, momentum "
            f"{np.mean(given['momentum']):.3g}. The control agrees with {QIAN}: at one rate the two are compared at "
            "steps that differ by a factor of ten.",
        ),
        Claim(
            "At the notes' rate momentum ends above Adam",
            ratio_over_seeds(given["momentum"], given["Adam"]),
            at_least(1.2, f"{NOTES}; a fifth of the loss"),
            Control("SGD in place of Adam", ratio_over_seeds(given["momentum"], given["SGD"])),
            f"Adam: {np.mean(given['Adam']):.3g}.",
        ),
        Claim(
            "With tuned rates SGD still ends above momentum",
            ratio_over_seeds(tuned["SGD"], tuned["momentum"]),
            at_least(1.5, f"{CHOI}; half as much again"),
            Control("SGD at the notes' rate, and momentum that moves as far", slower_momentum(config["rate"])),
            f"Test losses at the best of {len(rates)} rates: {listed}. On a curvature λ SGD is stable up to 2/λ and "
            "momentum up to 3.8/λ, where it moves 19 times as far along flat directions; see `quadratic_rates`.",
        ),
        Claim(
            "With tuned rates momentum still ends above Adam",
            ratio_over_seeds(tuned["momentum"], tuned["Adam"]),
            at_least(1.2, f"{CHOI}; a fifth of the loss"),
            Control("SGD in place of Adam", ratio_over_seeds(tuned["momentum"], tuned["SGD"])),
            "The notes' order survives tuning on this regression; on MNIST it does not, see `mnist_optimizers`.",
        ),
        Claim(
            f"No network can do better than the noise, {config['noise']:g}² = {noise:.2g}",
            exact(truth["mse"] / noise, error=2 * error),
            near(1.0, 4 * error, "the mean of n squares of normal noise, ± 4 of its √(2/n)"),
            Control("the best constant", exact(truth["constant"] / noise)),
            "Squared error of the true function on the test examples, over the variance of the noise.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the race as given and tuned, and the loss over the rate."""
    results, config = record.results, record.config
    rates, ends = np.asarray(results["rates"]), _ends(record)
    curves = {label: np.asarray(values, float) for label, values in results["curves"].items()}
    at = int(np.argmin(np.abs(rates - config["rate"])))
    noise = {"level": config["noise"] ** 2, "level_label": "variance of the noise", "log": True}
    return {
        "race": panels(
            results["steps"],
            [
                Panel(f"rate {config['rate']:g} for all", {k: v[at] for k, v in curves.items()}, **noise),
                Panel("each with its best rate", {k: v[_tuned(ends[k])] for k, v in curves.items()}, **noise),
            ],
            ylabel="test loss (MSE)",
            title="A regression, 64-64 tanh: which optimizer ends lowest?",
        ),
        "rates": response(
            rates, {label: values.T for label, values in ends.items()}, xlabel="learning rate",
            ylabel="final test loss (MSE)", log_x=True, log_y=True, level=config["noise"] ** 2,
            marks={label: (config["rate"], float(np.median(values[at]))) for label, values in ends.items()},
            mark_label="the notes' rate", title="A curve ends where a run diverges (line: variance of the noise)",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Is Adam ahead of momentum, and momentum of SGD, on a regression: at one rate, and when all are tuned?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
