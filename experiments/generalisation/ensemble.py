"""Ensembles: the mean of five networks' predictions, and the mean of their weights."""

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
from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

SAITO = "Saito (2016), Deep Learning from Scratch, §6.4.3: five networks gain a few percent"
JENSEN = "Jensen's inequality: −log of the mean is at most the mean of −log, example by example"


@dataclass(frozen=True)
class Config:
    """Groups of networks that differ in start and batches."""

    data: images.Images = "mnist"
    num_train: int = 1_000
    widths: tuple[int, ...] = (100, 100)
    rate: float = 0.1
    batch_size: int = 50
    num_steps: int = 2_000
    size: int = 5
    num_groups: int = 10
    seed: int = 1


PRESETS = {
    "smoke": Config(data="digits", num_train=100, widths=(30,), rate=0.3, batch_size=20, num_steps=300, num_groups=6),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train groups of networks, and average predictions and weights."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0)
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    model = networks.MLP(10, widths=config.widths)
    x, y = (jnp.asarray(dataset.parts["test"][name]) for name in ("x", "y"))
    train = partial(
        training.train, problem, optimizers.sgd(config.rate), num_steps=config.num_steps, batch_size=config.batch_size
    )

    def log_probabilities(params: Any) -> jax.Array:
        return jax.nn.log_softmax(jnp.asarray(model.apply({"params": params}, x)))

    @jax.jit
    def group(key: jax.Array) -> dict[str, Any]:
        params = jax.vmap(lambda key: train(key=key).params)(jax.random.split(key, config.size))
        logs = jax.vmap(log_probabilities)(params)
        mean_weights = jax.tree.map(lambda leaf: leaf.mean(axis=0), params)
        predictions = {
            "single": logs,
            "ensemble": jax.nn.logsumexp(logs, axis=0) - jnp.log(config.size),
            "copies": jax.nn.logsumexp(jnp.repeat(logs[:1], config.size, axis=0), axis=0) - jnp.log(config.size),
            "mean of weights": log_probabilities(mean_weights),
        }
        sizes = [jax.nn.logsumexp(logs[:count], axis=0) - jnp.log(count) for count in range(1, config.size + 1)]
        scores = {label: _scores(logs, y) for label, logs in predictions.items()}
        return scores | {"by_size": _scores(jnp.stack(sizes), y)["nll"]}

    keys = jax.random.split(jax.random.key(config.seed), config.num_groups)
    groups = [part(f"group {i}", partial(group, key)) for i, key in enumerate(keys)]
    return {
        "groups": jax.tree.map(lambda *each: each, *groups, is_leaf=lambda at: not isinstance(at, dict)),
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _scores(logs: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Return test NLL and accuracy of log probabilities, over all leading axes."""
    picked = jnp.take_along_axis(logs, jnp.broadcast_to(labels[:, None], (*logs.shape[:-1], 1)), axis=-1)[..., 0]
    return {"nll": -picked.mean(axis=-1), "accuracy": (logs.argmax(axis=-1) == labels).mean(axis=-1)}


def claims(record: Record) -> list[Claim]:
    """Judge Jensen's inequality, the accuracy, and the mean of the weights."""
    groups = record.results["groups"]

    def gain(label: str, score: str) -> Measurement:
        """Return the mean score of the single networks less that of a combination, by group."""
        return mean_over_seeds(np.asarray(groups["single"][score]).mean(axis=1) - np.asarray(groups[label][score]))

    single = np.asarray(groups["single"]["nll"])
    gaps = single.mean(axis=1) - np.asarray(groups["ensemble"]["nll"])
    best = single.min(axis=1) - np.asarray(groups["ensemble"]["nll"])
    return [
        Claim(
            "The NLL of the mean prediction is below the mean NLL, in every group",
            exact(float(gaps.min())),
            at_least(1e-6, JENSEN),
            Control(
                "five copies of one network, against that network",
                exact(float(np.abs(single[:, 0] - np.asarray(groups["copies"]["nll"])).max())),
            ),
            f"Smallest gain in nats; the mean is {gain('ensemble', 'nll')}. Against the best "
            f"of the five it is at least {best.min():.3g}.",
        ),
        Claim(
            "The mean prediction is more often right",
            gain("ensemble", "accuracy"),
            at_most(-0.001, f"{SAITO}; a tenth of a point"),
            Control("five copies of one network", _copies(groups)),
            "Test accuracy of the single networks less that of the ensemble. The book says a few percent.",
        ),
        Claim(
            "The mean of the weights is no network of this kind",
            gain("mean of weights", "accuracy"),
            at_least(0.05, "hidden units of different networks do not correspond; see `weight_symmetry`"),
            Control("the mean of the predictions", gain("ensemble", "accuracy")),
            "Test accuracy of the single networks less that of the network with the mean weights.",
        ),
    ]


def _copies(groups: Mapping[str, Any]) -> Measurement:
    single = np.asarray(groups["single"]["accuracy"])[:, 0]
    return mean_over_seeds(single - np.asarray(groups["copies"]["accuracy"]))


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the NLL over the number of networks."""
    groups, config = record.results["groups"], record.config
    sizes = np.arange(1, config["size"] + 1)
    single = np.asarray(groups["single"]["nll"]).mean(axis=1)
    curves = {"mean of predictions": groups["by_size"], "one network": np.repeat(single[:, None], len(sizes), axis=1)}
    return {
        "ensemble": response(
            sizes, curves, xlabel="networks", ylabel="test NLL (nats)",
            title=f"{images.TITLES[config['data']]}, {config['num_train']:,} images: each network gains less than the "
            "one before",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="What does the mean of five networks' predictions gain, and what does the mean of their weights?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
