"""Noise of the mini-batch gradient: its size as a function of the batch size, and its bias."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_most, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import training
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.1.3, equation 8.1: σ/√n"
COCHRAN = "Cochran (1977), Sampling techniques, §2.6: the factor √((N − n)/(N − 1)) without replacement"


@dataclass(frozen=True)
class Config:
    """A network at its start, and batches of 1 to N examples."""

    data: images.Images = "mnist"
    num_train: int = 1_024  # N
    widths: tuple[int, ...] = (50,)
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64, 256, 512, 768)
    num_batches: int = 500  # in each group
    num_groups: int = 8  # groups of batches, behind the interval
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=256, widths=(16,), batch_sizes=(1, 4, 16, 64, 192), num_batches=400, num_groups=8
    ),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Take every example's gradient once, and average them over drawn batches."""
    dataset = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=0, seed=config.seed
    )
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    params = problem.init(jax.random.key(config.seed))

    def of_example(example: Any) -> jax.Array:
        return ravel_pytree(jax.grad(problem.loss)(params, jax.tree.map(lambda x: x[None], example)))[0]

    gradients = jnp.asarray(jax.jit(jax.vmap(of_example))(problem.data))
    mean = gradients.mean(axis=0)
    full = ravel_pytree(jax.grad(problem.loss)(params, problem.data))[0]
    # The mean of a batch is a weighted sum of the rows, so their inner products give every error and bias.
    away = gradients - mean
    products, along = away @ away.T, away @ mean / (mean @ mean)
    by_class = jnp.argsort(jnp.asarray(dataset.train["y"]), stable=True)
    keys = jax.random.split(jax.random.key(config.seed + 1), config.num_groups)

    def measured(label: str) -> dict[str, np.ndarray]:
        places = by_class if label == "sorted" else jnp.arange(config.num_train)
        groups = [_group(label, config, places, products, along, key) for key in keys]
        error, bias, bias_error = (np.stack(values, axis=1) for values in zip(*groups, strict=True))
        return {"error": error, "bias": bias, "bias_error": bias_error}

    found = {label: part(label, partial(measured, label)) for label in ("with replacement", "without", "sorted")}
    return {
        "batch_sizes": np.array(config.batch_sizes),
        "found": found,
        "bias_of_first": np.array([along[by_class[:size]].mean() for size in config.batch_sizes]),
        "sigma": float(jnp.sqrt(jnp.trace(products) / config.num_train)),
        "full_gradient_norm": float(jnp.linalg.norm(full)),
        "mean_against_full": float(jnp.linalg.norm(mean - full) / jnp.linalg.norm(full)),
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


@partial(jax.jit, static_argnames=("label", "config"))
def _group(
    label: str, config: Config, places: jax.Array, products: jax.Array, along: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the root mean square error of a group of batch gradients, and its bias with a standard error, by size.

    A batch is the beginning of the next larger one. The bias is that of the component along the full gradient,
    relative to it.
    """
    count, largest = len(places), max(config.batch_sizes)
    order = "with_replacement" if label == "with replacement" else "reshuffle"

    def draw(key: jax.Array) -> jax.Array:
        if label == "sorted":  # consecutive examples of data sorted by class
            return (jax.random.randint(key, (), 0, count) + jnp.arange(largest)) % count
        return training.batch_indices(order, training.batch_order(order).init(key, count), 0, largest, count)

    rows = places[jax.vmap(draw)(jax.random.split(key, config.num_batches))]
    errors, biases, bias_errors = [], [], []
    for size in config.batch_sizes:
        weights = jax.vmap(lambda row, size=size: jnp.zeros(count).at[row].add(1 / size))(rows[:, :size])
        errors.append(jnp.sqrt(jnp.sum((weights @ products) * weights, axis=1).mean()))
        biases.append((weights @ along).mean())
        bias_errors.append((weights @ along).std() / jnp.sqrt(config.num_batches))
    return jnp.stack(errors), jnp.stack(biases), jnp.stack(bias_errors)


def claims(record: Record) -> list[Claim]:
    """Judge slope, finite-population factor and bias."""
    results, config = record.results, record.config
    sizes = np.asarray(results["batch_sizes"], float)
    count = config["num_train"]
    found = {
        label: {name: np.asarray(values) for name, values in each.items()} for label, each in results["found"].items()
    }

    def slope(label: str) -> Measurement:
        return mean_over_seeds([np.polyfit(np.log(sizes), np.log(group), 1)[0] for group in found[label]["error"].T])

    def factor(label: str) -> Measurement:
        """Return the error of the largest batch relative to σ/√n."""
        return mean_over_seeds(found[label]["error"][-1] / (results["sigma"] / np.sqrt(sizes[-1])))

    def largest_bias(mean: Any, label: str) -> Measurement:
        """Return the largest bias over the batch sizes, in standard errors of the mean over all groups."""
        error = np.sqrt((found[label]["bias_error"] ** 2).sum(axis=1)) / found[label]["bias"].shape[1]
        return exact(float(np.max(np.abs(mean) / error)))

    def bias(label: str) -> Measurement:
        return largest_bias(found[label]["bias"].mean(axis=1), label)

    expected = float(np.sqrt((count - sizes[-1]) / (count - 1)))
    return [
        Claim(
            "With replacement the error falls as 1/√n",
            slope("with replacement"),
            near(-0.5, 0.01, GOODFELLOW),
            Control("consecutive examples of data sorted by class", slope("sorted")),
            f"Slope of log error over log n, n from {sizes[0]:.0f} to {sizes[-1]:.0f} of N = {count}; the error is "
            "√E‖ĝ − g‖². Halving it takes four times the examples.",
        ),
        Claim(
            f"Without replacement it is smaller by √((N − n)/(N − 1)), at n = {sizes[-1]:.0f}",
            factor("without"),
            near(expected, 0.02 * expected, COCHRAN),
            Control("with replacement", factor("with replacement")),
            "Error relative to σ/√n, σ from all N gradients.",
        ),
        Claim(
            "The mini-batch gradient is not biased; the notes (004) say it is",
            bias("with replacement"),
            at_most(4.0, "the mean of a batch's gradients has the mean of all as its expectation; 4 standard errors"),
            Control(
                "always the first n examples of data sorted by class",
                largest_bias(np.asarray(results["bias_of_first"]), "with replacement"),
            ),
            "Largest bias along the full gradient over the batch sizes, in its standard errors; "
            f"{bias('without').value:.1f} without replacement, {bias('sorted').value:.1f} for stretches of sorted "
            "data, which are noisy and not biased.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the error over the batch size."""
    results, config = record.results, record.config
    sizes = np.asarray(results["batch_sizes"], float)
    labels = {"with replacement": "with replacement", "without": "without replacement", "sorted": "sorted by class"}
    curves: dict[str, Any] = {
        labels[label]: np.asarray(each["error"]).T / results["full_gradient_norm"]
        for label, each in results["found"].items()
    }
    curves["σ/√n"] = results["sigma"] / np.sqrt(sizes) / results["full_gradient_norm"]
    return {
        "standard_error": response(
            sizes, curves, xlabel=f"batch size n (of N = {config['num_train']})", log_x=True, log_y=True,
            ylabel="error √E‖ĝ − g‖², relative to ‖g‖",
            title=f"{images.TITLES[config['data']]}: the noise of the gradient falls as 1/√n",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="How fast does the noise of a mini-batch gradient fall with the batch size, and is it biased?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
