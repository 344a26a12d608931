"""Dropout on 300 images: the gap, the accuracy early and late, and the weight-scaling rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

SAITO = "Saito (2016), Deep Learning from Scratch, §6.4.3: dropout .2 on the first 300 images"
GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §7.12: the weight-scaling rule"
SRIVASTAVA = "Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting"


@dataclass(frozen=True)
class Config:
    """Saito's overfitting network, and five times its epochs."""

    data: images.Images = "mnist"
    num_train: int = 300
    num_test: int | None = 2_000
    widths: tuple[int, ...] = (100,) * 6
    dropout: float = 0.2
    rate: float = 0.01
    batch_size: int = 100
    epochs: int = 301
    longer: int = 5
    num_evaluations: int = 20
    num_masks: int = 200
    num_seeds: int = 3
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=100, num_test=300, widths=(40,) * 5, rate=0.05, batch_size=50, epochs=40, longer=15,
        num_evaluations=60, num_seeds=8,
    ),
    "paper": Config(num_seeds=10, seed=1),
}  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train with and without dropout; compare the scaled network with the mean of thinned ones."""
    dataset = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=config.num_test, split="first"
    )
    num_steps = config.epochs * config.longer * config.num_train // config.batch_size
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    def trained(dropout: float) -> dict[str, Any]:
        problem = networks.mlp_classifier(dataset, widths=config.widths, dropout=dropout)
        train = partial(
            training.train, problem, optimizers.sgd(config.rate), num_steps=num_steps, batch_size=config.batch_size,
            order="with_replacement", evaluate_every=num_steps // config.num_evaluations, evaluate_on=("train", "test"),
        )  # fmt: skip
        runs = jax.jit(jax.vmap(lambda key: train(key=key)))(keys)
        if not dropout:
            return {"curves": runs.evaluations}
        model = networks.MLP(10, widths=config.widths, dropout=dropout)
        x = jnp.asarray(dataset.parts["test"]["x"][:200])
        return {"curves": runs.evaluations, "masks": _masks(config, model, runs.params, x)}

    plain, dropped = part("plain", partial(trained, 0.0)), part("dropout", partial(trained, config.dropout))
    return {
        "plain": plain["curves"],
        "dropout": dropped["curves"],
        "masks": dropped["masks"],
        "data_sha256": dataset.sha256,
    }


def _masks(config: Config, model: nn.Module, params: Any, x: jax.Array) -> dict[str, jax.Array]:
    """Compare one pass with the mean over masks: on the last hidden layer alone, and on all of the network."""
    keys = jax.random.split(jax.random.key(config.seed + 1), config.num_masks)
    keep = 1 - config.dropout

    def last_layer(params: Any) -> dict[str, jax.Array]:
        h = x
        for i in range(len(config.widths)):
            h = jax.nn.relu(h @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"])

        def logits(h: jax.Array) -> jax.Array:
            return h @ params["output"]["kernel"] + params["output"]["bias"]

        def thinned(key: jax.Array) -> jax.Array:
            return jax.nn.log_softmax(logits(jnp.where(jax.random.bernoulli(key, keep, h.shape), h, 0)))

        geometric = jax.nn.softmax(jnp.mean(jax.lax.map(thinned, keys), axis=0))
        return {
            "scaled": _distance(jax.nn.softmax(logits(keep * h)), geometric),
            "unscaled": _distance(jax.nn.softmax(logits(h)), geometric),
        }

    def whole(params: Any) -> jax.Array:
        def thinned(key: jax.Array) -> jax.Array:
            logits = model.apply({"params": params}, x, train=True, rngs={"dropout": key})
            return jax.nn.log_softmax(jnp.asarray(logits))

        geometric = jax.nn.softmax(jnp.mean(jax.lax.map(thinned, keys), axis=0))
        return _distance(jax.nn.softmax(jnp.asarray(model.apply({"params": params}, x))), geometric)

    h = jax.random.uniform(jax.random.key(config.seed + 2), (1000,))
    drop = nn.Dropout(config.dropout, deterministic=False)
    mean = jnp.mean(jax.vmap(lambda key: jnp.asarray(drop.apply({}, h, rngs={"dropout": key})))(keys), axis=0)
    both = jax.jit(jax.vmap(lambda params: {**last_layer(params), "whole": whole(params)}))(params)
    return {**both, "mean_of_masked": jnp.sum(keep * mean) / jnp.sum(h)}


def _distance(p: jax.Array, q: jax.Array) -> jax.Array:
    """Return the mean total variation of two predictions."""
    return jnp.mean(jnp.abs(p - q).sum(axis=-1)) / 2


def claims(record: Record) -> list[Claim]:
    """Judge the gap, the accuracy early and late, and the scaling rule."""
    results, config = record.results, record.config
    masks = {name: np.asarray(values) for name, values in results["masks"].items()}
    early = config["num_evaluations"] // config["longer"]

    def at(label: str, name: str, index: int) -> np.ndarray:
        return np.asarray(results[label][name])[:, index]

    def gap(label: str, index: int) -> np.ndarray:
        return at(label, "train_accuracy", index) - at(label, "test_accuracy", index)

    def difference(name: str, index: int) -> Measurement:
        return mean_over_seeds(at("dropout", name, index) - at("plain", name, index))

    keep = 1 - config["dropout"]
    return [
        Claim(
            "After the book's epochs dropout has closed a part of the gap between training and test accuracy",
            mean_over_seeds(gap("dropout", early) - gap("plain", early)),
            at_most(-0.02, SAITO),
            Control(
                "a network without dropout, against itself half-way",
                mean_over_seeds(gap("plain", early) - gap("plain", max(1, early // 2))),
            ),
            f"Difference of the gaps. Plain: {mean_over_seeds(gap('plain', early))}.",
        ),
        Claim(
            "There it lowers the test accuracy: the network is not trained yet",
            difference("test_accuracy", early),
            at_most(-0.01, "the book shows the gap; a gap closes also where both get worse"),
            Control(f"after {config['longer']} times the epochs", difference("test_accuracy", -1)),
            "Test accuracy with dropout less that without.",
        ),
        Claim(
            f"After {config['longer']} times the epochs it is level, or ahead",
            difference("test_accuracy", -1),
            at_least(-0.01, f"{SRIVASTAVA}; a point"),
            Control("after the book's epochs", difference("test_accuracy", early)),
        ),
        Claim(
            "Dropping activations multiplies their mean by 1 − p; the notes (003) say weights",
            exact(float(masks["mean_of_masked"])),
            near(keep, 0.01, GOODFELLOW),
            Control("without dropping any", exact(1.0)),
            "Sum of masked activations over that of all, before Flax divides by 1 − p.",
        ),
        Claim(
            "One pass with scaled activations gives the geometric mean of the thinned predictions: exact for one layer",
            mean_over_seeds(masks["scaled"]),
            at_most(0.01, f"{GOODFELLOW}; total variation, error of {config['num_masks']} masks"),
            Control("no scaling at test time", mean_over_seeds(masks["unscaled"])),
            "Masks on the last hidden layer of the networks trained with dropout. With masks on all layers the rule is "
            f"an approximation: {mean_over_seeds(masks['whole'])}.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw accuracies over the epochs."""
    results, config = record.results, record.config
    epochs = np.asarray(results["plain"]["step"])[0] * config["batch_size"] / config["num_train"]
    return {
        "dropout": panels(
            epochs,
            [
                Panel(title, {
                    label: results[which][f"{part}_accuracy"]
                    for label, which in (("without", "plain"), ("dropout", "dropout"))
                }, smallest=0.0, largest=1.02)
                for title, part in (("training accuracy", "train"), ("test accuracy", "test"))
            ],
            columns=2, xlabel="epoch",
            title=f"{images.TITLES[config['data']]}, {config['num_train']} images: dropout {config['dropout']:g} takes "
            "longer to train",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does dropout help on 300 images, and does the scaled network stand for the mean of the thinned ones?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
