"""Surrogate losses: what cross-entropy still teaches when every training image is classified correctly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.1.2: surrogate losses and early stopping"
SOUDRY = "Soudry et al. (2018), The implicit bias of gradient descent on separable data"


@dataclass(frozen=True)
class Config:
    """A network with one hidden layer, trained on three surrogates of the 0-1 loss."""

    data: images.Images = "mnist"
    num_train: int = 500
    num_test: int = 2_000
    width: int = 100
    rate: float = 0.1
    batch_size: int = 50
    num_steps: int = 4_000
    every: int = 100
    num_seeds: int = 4
    seed: int = 0


PRESETS = {
    "smoke": Config(data="digits", num_train=200, num_test=500, width=40, num_seeds=4),
    "paper": Config(),
}


def margins(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return by how much the right class leads the best wrong one, example by example."""
    right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return right - jnp.where(jax.nn.one_hot(labels, logits.shape[1], dtype=bool), -jnp.inf, logits).max(axis=1)


def hinge(margin: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the mean of max(0, margin − lead): with margin 0, a loss of the wrong examples alone, the perceptron's."""
    return lambda logits, labels: jnp.mean(jnp.maximum(0.0, margin - margins(logits, labels)))


LOSSES = {"NLL": networks.cross_entropy, "hinge": hinge(1.0), "perceptron": hinge(0.0)}


def zero_one(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of wrong examples."""
    return jnp.mean(logits.argmax(axis=1) != labels, dtype=logits.dtype)


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train on every loss from the same starts with the same batches."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=config.num_test)
    model = networks.MLP(10, widths=(config.width,))
    problem = networks.classifier(model, dataset)

    def scored(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[Any, Any], jax.Array]:
        return lambda params, batch: function(jnp.asarray(model.apply({"params": params}, batch["x"])), batch["y"])

    def smallest(params: Any, batch: Any) -> jax.Array:
        """Return the smallest margin over the product of the layers' norms, which growing weights do not change."""
        size = jnp.linalg.norm(params["dense_0"]["kernel"]) * jnp.linalg.norm(params["output"]["kernel"])
        return scored(lambda logits, labels: margins(logits, labels).min())(params, batch) / size

    metrics = {"error": scored(zero_one), "nll": scored(networks.cross_entropy), "margin": smallest}
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    def trained(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
        surrogate = problem.replace(loss=scored(loss), metrics=metrics)
        return jax.jit(
            jax.vmap(
                lambda key: training.train(
                    surrogate, optimizers.sgd(config.rate), num_steps=config.num_steps, batch_size=config.batch_size,
                    key=key, evaluate_every=config.every, evaluate_on=("train", "test"),
                ).evaluations
            )
        )(keys)  # fmt: skip

    found: dict[str, Any] = {label: part(label, partial(trained, loss)) for label, loss in LOSSES.items()}
    start, batch = problem.init(keys[0]), jax.tree.map(jnp.asarray, dataset.train)
    for label, loss in {"0-1": zero_one, "NLL": networks.cross_entropy}.items():
        gradient = jax.grad(scored(loss))(start, batch)
        found[f"{label} gradient"] = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    return {**found, "data_sha256": dataset.sha256}


def _at_zero(runs: Mapping[str, Any]) -> np.ndarray:
    """Return for each seed the first evaluation with no training image wrong; the last if there is none."""
    right = np.asarray(runs["train_error"]) == 0
    return np.where(right.any(axis=1), right.argmax(axis=1), right.shape[1] - 1)


def claims(record: Record) -> list[Claim]:
    """Judge what changes after the training error has reached 0."""
    results = record.results

    def both(label: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a quantity when the training error reaches 0, and at the end."""
        values = np.asarray(results[label][name])
        return values[np.arange(len(values)), _at_zero(results[label])], values[:, -1]

    def factor(label: str, name: str) -> Measurement:
        zero, end = both(label, name)
        return ratio_over_seeds(end, zero)

    def change(label: str, name: str) -> Measurement:
        zero, end = both(label, name)
        return mean_over_seeds(end - zero)

    def late(label: str) -> Measurement:
        """Return the relative change of the training NLL in the last tenth of the run."""
        values = np.asarray(results[label]["train_nll"])
        return mean_over_seeds(1 - values[:, -1] / values[:, -1 - values.shape[1] // 10])

    steps = np.asarray(results["NLL"]["step"])[0][_at_zero(results["NLL"])]
    still = "the perceptron's loss, which is 0 with the error"
    return [
        Claim(
            "The 0-1 loss has no gradient",
            exact(results["0-1 gradient"]),
            at_most(0.0, GOODFELLOW),
            Control("the NLL's", exact(results["NLL gradient"])),
            "Largest entry before the first step.",
        ),
        Claim(
            "The NLL falls on after the training error is 0",
            factor("NLL", "train_nll"),
            at_most(0.2, f"{GOODFELLOW}; a fifth"),
            Control(still, factor("perceptron", "train_nll")),
            f"Training NLL at the end over that at the step of error 0, which is step {np.median(steps):.0f} of "
            f"{record.config['num_steps']:,}.",
        ),
        Claim(
            "It pushes the classes apart: the smallest margin grows more than the weights do",
            factor("NLL", "train_margin"),
            at_least(2.0, f"{GOODFELLOW}; {SOUDRY}; twofold"),
            Control(still, factor("perceptron", "train_margin")),
            "Margin in logits over the product of the layers' norms, as a ratio. Hinge: "
            f"{factor('hinge', 'train_margin')}.",
        ),
        Claim(
            "The test error falls on as well",
            change("NLL", "test_error"),
            at_most(-0.001, f"{GOODFELLOW}; a tenth of a point"),
            Control(still, change("perceptron", "test_error")),
            "Test error at the end less that at training error 0. The notes (004) say that the test loss can fall on; "
            f"here the test NLL changes by {change('NLL', 'test_nll')} nats.",
        ),
        Claim(
            "It has no end: in the last tenth of the run the training NLL still falls",
            late("NLL"),
            at_least(0.01, f"{SOUDRY}; one percent"),
            Control("the hinge loss, which ends once all margins are 1", late("hinge")),
            "Relative fall of the training NLL.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw errors, training NLL and margins over the steps."""
    results, config = record.results, record.config

    def curves(name: str) -> dict[str, Any]:
        return {label: np.asarray(results[label][name]) for label in LOSSES}

    return {
        "surrogate_loss": panels(
            results["NLL"]["step"][0],
            [
                Panel("training error", curves("train_error"), smallest=0.0, largest=0.2),
                Panel("test error", curves("test_error"), smallest=0.0, largest=0.4),
                Panel("training NLL (nats)", curves("train_nll"), log=True),
                Panel("smallest margin, over the layers' norms", curves("train_margin"), smallest=-0.02),
            ],
            columns=2,
            title=f"{images.TITLES[config['data']]}, {config['num_train']} images: no training image is wrong, and "
            "the NLL goes on",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="What does cross-entropy improve after the training error has reached 0?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
