"""Order of the examples: never shuffled, shuffled once or every epoch, and drawn with replacement."""

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

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.orders import Written, written
from experiments.parts import part
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

HAOCHEN = "HaoChen and Sra (2019), Random shuffling beats SGD after finite epochs, theorem 1: 1/T² + n³/T³"
SAFRAN = "Safran and Shamir (2020), How good is SGD with random shuffling?: 1/T² for one permutation"
BOTTOU = "Bottou, Curtis and Nocedal (2018), Optimization methods for large-scale machine learning, theorem 4.7: 1/T"
GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.1.3: shuffle, and once is enough"
ORDERS = {"with replacement": "with_replacement", "shuffled once": "shuffle_once", "every epoch": "reshuffle"}


@dataclass(frozen=True)
class Config:
    """Least squares with single examples and a rate c/(t + t₀), and a network on images."""

    num_examples: int = 50
    num_features: int = 5
    rate: float = 8.0  # c
    warmup: int = 400  # t₀
    num_epochs: int = 256
    from_epoch: int = 32  # of the fitted slope
    num_groups: int = 8
    group_size: int = 20  # runs whose mean loss is one sample of the slope
    data: images.Images = "mnist"
    num_train: int = 2_000
    num_test: int = 4_000
    widths: tuple[int, ...] = (32,)
    network_rate: float = 0.1
    batch_size: int = 25
    network_epochs: int = 5
    num_seeds: int = 8
    seed: int = 0


PRESETS = {
    "smoke": Config(
        num_examples=20, num_epochs=256, group_size=20, data="digits", num_train=600, num_test=500, widths=(16,),
        batch_size=10, num_seeds=6,
    ),
    "paper": Config(),
}  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Follow the loss on least squares and the test accuracy of a network under each order."""
    dataset = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=config.num_test, seed=config.seed
    )
    with jax.enable_x64(True):
        epochs, excess = _least_squares(config)
    accuracies, problem = _network(config, dataset)
    return {
        "epochs": epochs,
        "excess": excess,
        "accuracy": accuracies,
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _least_squares(config: Config) -> tuple[np.ndarray, dict[str, Any]]:
    """Return epochs, powers of two, and by order the mean excess loss of each group after them.

    Runs start at the minimum, so that all of the excess loss is due to the noise.
    """
    problem = problems.linear_regression(
        config.num_examples, config.num_features, noise=1.0, condition_number=1.0, key=jax.random.key(config.seed)
    )
    data: Any = problem.data
    hessian = data["x"].T @ data["x"] / config.num_examples
    best = jnp.asarray(problem.minima[0].params)
    optimizer = optax.sgd(lambda t: config.rate / (t + config.warmup))
    epochs = 2 ** np.arange(int(np.log2(config.num_epochs)) + 1)
    num_steps = config.num_epochs * config.num_examples

    def one(rows: jax.Array) -> jax.Array:
        run = training.train(
            problem, optimizer, num_steps=num_steps, key=jax.random.key(0), batch_size=1, order=Written(rows),
            params=best, record_params_every=config.num_examples,
        )  # fmt: skip
        away = jnp.asarray(run.snapshots)[epochs] - best
        return 0.5 * jnp.sum(away @ hessian * away, axis=1)

    keys = jax.random.split(jax.random.key(config.seed + 1), config.num_groups * config.group_size)
    train = jax.jit(jax.vmap(one))

    def mean_excess(order: str) -> np.ndarray:
        rows = jax.vmap(lambda key: written(order, key, num_steps, 1, config.num_examples))(keys)
        return np.asarray(train(rows)).reshape(config.num_groups, config.group_size, -1).mean(axis=1)

    return epochs, {
        label: part(f"least squares, {label}", partial(mean_excess, order)) for label, order in ORDERS.items()
    }


def _network(config: Config, dataset: problems.datasets.Dataset) -> tuple[dict[str, Any], problems.Problem]:
    """Return the test accuracy after every epoch, for each order and seed."""
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    per_epoch = config.num_train // config.batch_size
    num_steps, size = config.network_epochs * per_epoch, config.batch_size
    keys = jax.random.split(jax.random.key(config.seed + 2), config.num_seeds)

    @jax.jit
    @jax.vmap
    def accuracies(key: jax.Array, rows: jax.Array) -> jax.Array:
        return training.train(
            problem, optimizers.sgd(config.network_rate), num_steps=num_steps, key=key, batch_size=size,
            order=Written(rows), evaluate_every=per_epoch, evaluate_on="test",
        ).evaluations["test_accuracy"]  # fmt: skip

    rows = {
        label: jax.vmap(lambda key, order=order: written(order, key, num_steps, size, config.num_train))(keys)
        for label, order in ORDERS.items()
    }
    in_order = jnp.arange(num_steps * size).reshape(num_steps, size) % config.num_train
    by_class = jnp.argsort(jnp.asarray(dataset.train["y"]), stable=True)
    for label, stored in (("independent, never shuffled", in_order), ("sorted, never shuffled", by_class[in_order])):
        rows[label] = jnp.broadcast_to(stored, (config.num_seeds, *stored.shape))
    return {label: part(f"network, {label}", partial(accuracies, keys, each)) for label, each in rows.items()}, problem


def claims(record: Record) -> list[Claim]:
    """Judge the rates of convergence, and what a network loses."""
    results, config = record.results, record.config
    epochs = np.asarray(results["epochs"], float)
    late = epochs >= config["from_epoch"]

    def slope(label: str) -> Measurement:
        groups = np.log(np.asarray(results["excess"][label]))[:, late]
        clock = np.log(epochs[late] * config["num_examples"] + config["warmup"])
        return mean_over_seeds([np.polyfit(clock, group, 1)[0] for group in groups])

    last = {label: np.asarray(values)[:, -1] for label, values in results["accuracy"].items()}

    def loss_of(label: str, against: str = "every epoch") -> Measurement:
        return mean_over_seeds(last[against] - last[label])

    ends = {label: np.asarray(groups)[:, -1] for label, groups in results["excess"].items()}
    gain = np.exp(np.log(ends["with replacement"] / ends["every epoch"]).mean())
    return [
        Claim(
            "Least squares, drawn with replacement: the excess loss falls as 1/T",
            slope("with replacement"),
            near(-1.0, 0.15, f"{BOTTOU}; .15 for the transient"),
            Control("reshuffled every epoch", slope("every epoch")),
            f"Slope of log excess loss over log(t + t₀), from epoch {config['from_epoch']} to {epochs[-1]:.0f}; "
            "batches of one example, rate c/(t + t₀).",
        ),
        Claim(
            "Least squares, reshuffled every epoch: it falls at least as 1/T²",
            slope("every epoch"),
            at_most(-1.85, f"{HAOCHEN}; .15 for the transient"),
            Control("with replacement", slope("with replacement")),
            f"After {epochs[-1]:.0f} epochs reshuffling is {gain:.3g} times nearer to the minimum, in loss. While "
            "fewer than n² epochs are over, the term n³/T³ is the larger one, and the slope is near −3.",
        ),
        Claim(
            "Least squares, shuffled once: it falls as 1/T²",
            slope("shuffled once"),
            near(-2.0, 0.15, f"{SAFRAN}; .15 for the transient"),
            Control("with replacement", slope("with replacement")),
            "On least squares once is worse than every epoch; the notes (004) say that once is enough.",
        ),
        Claim(
            "A network on data sorted by class and never shuffled fails",
            loss_of("sorted, never shuffled"),
            at_least(0.1, f"{GOODFELLOW}; ten points of test accuracy"),
            Control("independent data in the order in which they come", loss_of("independent, never shuffled")),
            "Test accuracy of reshuffling less that of the order. Shuffling matters because data are stored in an "
            "order, not because the order repeats.",
        ),
        Claim(
            "Shuffling once does as well as shuffling every epoch, as the notes (004) say",
            loss_of("shuffled once"),
            near(0.0, 0.01, f"{GOODFELLOW}; one point of test accuracy"),
            Control("sorted and never shuffled", loss_of("sorted, never shuffled")),
            f"Drawing with replacement: {loss_of('with replacement')}.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw both parts."""
    results, config = record.results, record.config
    accuracy = results["accuracy"]
    shown = {label: np.asarray(values) for label, values in accuracy.items()}
    steps = np.arange(config["network_epochs"] + 1)
    return {
        "least_squares": response(
            results["epochs"], {label: np.asarray(values) for label, values in results["excess"].items()},
            xlabel="epochs", ylabel=f"excess loss, mean of {config['group_size']} runs", log_x=True, log_y=True,
            title="Least squares, rate ∝ 1/t: independent draws converge as 1/T, one permutation as 1/T²",
        ),
        "accuracy": response(
            steps, shown, xlabel="epochs", ylabel="test accuracy",
            title=f"{images.TITLES[config['data']]}: sorted data must be shuffled, once",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Which order of the examples trains, and how fast: never shuffled, once, every epoch, with replacement?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
