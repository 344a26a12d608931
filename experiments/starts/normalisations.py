"""Batch, layer, instance and group norm: identities, invariance to the weights' scale, and the basin of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import response
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record

WU = "Wu and He (2018), Group normalization, §3: layer and instance norm are its extremes"
HOFFER = "Hoffer et al. (2018), Norm matters, §2: f(cw) = f(w), so that the gradient at cw is that at w over c"
SAITO = "Saito (2016), Deep Learning from Scratch, figure 6-18, for batch norm: depends less on the start"
Kind = Literal["batch", "layer", "instance", "group"]
NORMALISATIONS: Mapping[str, Kind | None] = {
    "none": None,
    "batch": "batch",
    "layer": "layer",
    "instance": "instance",
    "group": "group",
}


@dataclass(frozen=True)
class Config:
    """The network and the sixteen initial scales of figure 6-18; a convolution for the invariance."""

    data: images.Images = "mnist"
    num_train: int = 1_000
    widths: tuple[int, ...] = (100,) * 5
    num_groups: int = 5
    scales: tuple[float, float] = (1e-4, 1.0)
    num_scales: int = 16
    rate: float = 0.01
    batch_size: int = 100
    order: Literal["with_replacement", "reshuffle"] = "with_replacement"
    num_steps: int = 200
    num_seeds: int = 3
    good: float = 0.85  # training accuracy of a scale that trains
    wider: float = 3.75  # scales: a decade of the sixteen in four
    factor: float = 10.0  # on the weights before a normalisation
    channels: int = 8
    num_images: int = 50
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=200, widths=(30,) * 3, num_images=20, num_scales=8, rate=0.1, batch_size=200,
        order="reshuffle", good=0.7, wider=1.75,
    ),
    "paper": Config(),
}  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Compare layers on images in double precision, and train dense networks at every scale."""
    dataset = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=0, split="first", flatten=False
    )
    with jax.enable_x64(True):
        layers = {
            "identities": part("identities", partial(_identities, config, dataset)),
            "scaled": part("scaled", partial(_scaled, config, dataset)),
        }
    scales = np.geomspace(*config.scales, config.num_scales)
    return {
        **layers,
        "scales": scales,
        "accuracy": {
            name: part(f"basin, {name}", partial(_basin, config, dataset, scales, name))
            for name in NORMALISATIONS
            if name != "instance"
        },
        "data_sha256": dataset.sha256,
    }


def _convolution(config: Config, normalisation: Kind | None, num_groups: int) -> networks.CNN:
    """Return a network without pooling: rounding would decide which of equal background pixels gets the gradient."""
    return networks.CNN(
        10, channels=(config.channels,), widths=(), pool=1, normalisation=normalisation, num_groups=num_groups
    )


def _identities(config: Config, dataset: datasets.Dataset) -> dict[str, float]:
    """Return the largest difference of an output between two networks with the same weights."""
    x, key = jnp.asarray(dataset.train["x"][: config.num_images], float), jax.random.key(config.seed)

    def dense(normalisation: Kind, num_groups: int) -> networks.MLP:
        return networks.MLP(10, widths=config.widths, normalisation=normalisation, num_groups=num_groups)

    def apart(one: Any, other: Any) -> float:
        def difference() -> jax.Array:
            variables = jax.tree.map(lambda leaf: leaf.astype(float), one.init(key, x))
            return jnp.abs(one.apply(variables, x) - other.apply(variables, x)).max()

        return float(jax.jit(difference)())

    layer, instance = dense("layer", 1), _convolution(config, "instance", 1)
    return {
        "one group, layer": apart(layer, dense("group", 1)),
        "more groups, layer": apart(layer, dense("group", config.num_groups)),
        "group each, instance": apart(instance, _convolution(config, "group", config.channels)),
        "fewer groups, instance": apart(instance, _convolution(config, "group", config.channels // 2)),
    }


def _scaled(config: Config, dataset: datasets.Dataset) -> dict[str, dict[str, float]]:
    """Return what a factor on the convolution's kernel changes, in training mode."""
    x = jnp.asarray(dataset.train["x"][: config.num_images], float)
    labels, found = jnp.asarray(dataset.train["y"][: config.num_images]), {}
    for name, normalisation in NORMALISATIONS.items():
        model = _convolution(config, normalisation, config.channels // 4)
        variables = jax.tree.map(lambda leaf: leaf.astype(float), jax.jit(model.init)(jax.random.key(config.seed), x))

        def loss(kernel: jax.Array, model: Any = model, variables: Any = variables) -> jax.Array:
            params = {**variables["params"], "conv_0": {**variables["params"]["conv_0"], "kernel": kernel}}
            logits, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return networks.cross_entropy(logits, labels)

        both = jax.jit(jax.value_and_grad(loss))
        kernel = variables["params"]["conv_0"]["kernel"]
        (before, gradient), (after, gradient_after) = both(kernel), both(config.factor * kernel)
        found[name] = {
            "loss": float(jnp.abs(after / before - 1)),
            "gradient": float(jnp.linalg.norm(gradient_after) / jnp.linalg.norm(gradient)),
        }
    return found


def _basin(config: Config, dataset: datasets.Dataset, scales: np.ndarray, name: str) -> np.ndarray:
    """Return the training accuracy at the end for each scale and seed; a run that diverged guesses."""

    def trained(scale: jax.Array, key: jax.Array) -> jax.Array:
        problem = networks.mlp_classifier(
            dataset, widths=config.widths, initialiser=scale, normalisation=NORMALISATIONS[name],
            num_groups=config.num_groups,
        )  # fmt: skip
        run = training.train(
            problem, optimizers.sgd(config.rate), num_steps=config.num_steps, batch_size=config.batch_size,
            order=config.order, key=key, evaluate_every=config.num_steps, evaluate_on="train",
        )  # fmt: skip
        return run.evaluations["train_accuracy"][-1]

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    return np.nan_to_num(jax.jit(jax.vmap(jax.vmap(trained, (None, 0)), (0, None)))(jnp.array(scales), keys), nan=0.1)


def claims(record: Record) -> list[Claim]:
    """Judge identities, invariance, and the number of scales that train."""
    results, config = record.results, record.config
    identities, scaled = results["identities"], results["scaled"]
    normalised = [name for name in NORMALISATIONS if name != "none"]
    trained = {name: (np.asarray(x) >= config["good"]).sum(axis=0) for name, x in results["accuracy"].items()}

    def wider(name: str) -> Measurement:
        return mean_over_seeds(trained[name] - trained["none"])

    factor = config["factor"]
    farthest = max((scaled[name]["gradient"] for name in normalised), key=lambda ratio: abs(ratio * factor - 1))
    return [
        Claim(
            "Group norm with one group is layer norm, in a dense network",
            exact(identities["one group, layer"]),
            at_most(1e-12, f"{WU}; rounding in double precision"),
            Control(f"{config['num_groups']} groups", exact(identities["more groups, layer"])),
            "Largest difference of an output.",
        ),
        Claim(
            "With a group for each channel it is instance norm, on images",
            exact(identities["group each, instance"]),
            at_most(1e-12, f"{WU}; rounding in double precision"),
            Control("two channels a group", exact(identities["fewer groups, instance"])),
            "Largest difference of an output.",
        ),
        Claim(
            f"Weights before any of the four may be multiplied by {factor:g}: the loss stays",
            exact(max(scaled[name]["loss"] for name in normalised)),
            at_most(1e-2, f"{HOFFER}; one percent, for ε in the root"),
            Control("no normalisation", exact(scaled["none"]["loss"])),
            "Largest relative change of the loss, batch norm by the batch's own statistics.",
        ),
        Claim(
            f"The gradient by them is then 1/{factor:g} of what it was",
            exact(farthest),
            near(1 / factor, 0.1 / factor, f"{HOFFER}; ten percent, for ε"),
            Control("no normalisation", exact(scaled["none"]["gradient"])),
            "The farthest of the four: large weights lower the learning rate of a normalised layer.",
        ),
        *(
            Claim(
                f"{name.capitalize()} norm widens the range of initial scales that train by a decade",
                wider(name),
                at_least(config["wider"], f"{SAITO}; a decade is {config['wider']:g} of the scales"),
                Control("the plain network from other starts", _other_starts(trained["none"])),
                f"Number of {config['num_scales']} scales with a training accuracy of {config['good']:g}: "
                f"{trained[name].mean():g} with, {trained['none'].mean():g} without.",
            )
            for name in ("batch", "layer", "group")
        ),
    ]


def _other_starts(counts: np.ndarray) -> Measurement:
    return mean_over_seeds(np.roll(counts, 1) - counts)


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the training accuracy over the initial scale."""
    results, config = record.results, record.config
    return {
        "normalisations": response(
            results["scales"], {name: np.asarray(x).T for name, x in results["accuracy"].items()},
            xlabel="standard deviation of the initial weights", ylabel="training accuracy", log_x=True,
            level=config["good"], level_label="counts as trained", smallest=0.0, largest=1.0,
            title=f"{images.TITLES[config['data']]}, {config['num_train']:,} images, SGD {config['rate']:g}: which "
            "initial scales train",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="How do batch, layer, instance and group normalisation relate, and what does each do to the start?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
