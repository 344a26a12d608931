"""Training from three initial scales: std .01, Xavier and He, and std .01 with batch normalisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_most, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import response
from jaxopt_study.problems import Problem, datasets, networks
from jaxopt_study.records import Record

SAITO = "Saito (2016), Deep Learning from Scratch, §6.2.4 and figure 6-15"
HE = "He et al. (2015), Delving deep into rectifiers, §2.2"
EARLIER = "measured once before, one seed: Xavier .317, He .231"
STARTS = {"std .01": (0.01, 0.0), "Xavier": (0.0, 1.0), "He": (0.0, 2.0)}  # std, and the variance times the fan-in
NORMALISED = "std .01, batch norm"


@dataclass(frozen=True)
class Config:
    """Saito's network and settings."""

    data: images.Images = "mnist"
    num_train: int | None = None
    widths: tuple[int, ...] = (100,) * 4
    rate: float = 0.01
    batch_size: int = 128
    num_steps: int = 2_000
    every: int = 100  # steps that a point of the figure averages
    num_seeds: int = 4
    seed: int = 0


PRESETS = {
    "smoke": Config(data="digits", widths=(40,) * 4, rate=0.05, batch_size=64, num_steps=400, every=50, num_seeds=3),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train from every start, and measure the gradient of each layer before the first step."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1000]), dataset.train)

    def trained(std: Any, gain: Any, key: jax.Array, normalisation: str | None = None) -> dict[str, jax.Array]:
        problem = make_problem(dataset, config.widths, std, gain, normalisation)
        start = problem.init(jax.random.split(key, 5)[0])
        run = training.train(
            problem, optimizers.sgd(config.rate), num_steps=config.num_steps, batch_size=config.batch_size,
            order="with_replacement", key=key,
        )  # fmt: skip
        return {"losses": run.losses, **({} if normalisation else {"gradient": gradients(problem, start, batch)})}

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    stds, gains = (jnp.array(column) for column in zip(*STARTS.values(), strict=True))

    def averaged(lanes: Any) -> dict[str, Any]:
        losses = np.asarray(lanes["losses"])
        return lanes | {"losses": losses.reshape(*losses.shape[:-1], -1, config.every).mean(axis=-1)}

    every = jax.jit(jax.vmap(jax.vmap(trained, (None, None, 0)), (0, 0, None)))
    normal = jax.jit(jax.vmap(lambda key: trained(0.01, 0.0, key, "batch")))
    plain = part("without normalisation", lambda: averaged(every(stds, gains, keys)))
    normalised = part(NORMALISED, lambda: averaged(normal(keys)))
    return {
        "steps": np.arange(config.every, config.num_steps + 1, config.every),
        "losses": dict(zip((*STARTS, NORMALISED), (*plain["losses"], normalised["losses"]), strict=True)),
        "gradient": dict(zip(STARTS, plain["gradient"], strict=True)),
        "data_sha256": dataset.sha256,
    }


def make_problem(
    dataset: datasets.Dataset, widths: tuple[int, ...], std: Any, gain: Any, normalisation: str | None
) -> Problem:
    """Return the network with weights of variance std² + gain/n, n inputs, which may be traced."""

    def initialiser(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jnp.sqrt(std**2 + gain / shape[0]) * jax.random.normal(key, shape, dtype)

    return networks.mlp_classifier(dataset, widths=widths, initialiser=initialiser, normalisation=normalisation)


def gradients(problem: Problem, params: Any, batch: Any) -> jax.Array:
    """Return the norm of the gradient by each layer's weights, from the first layer to the output."""
    gradient = jax.grad(problem.loss)(params, batch)
    return jnp.stack([jnp.linalg.norm(gradient[layer]["kernel"]) for layer in sorted(gradient)])


def claims(record: Record) -> list[Claim]:
    """Judge the losses at the end, and the gradients before the first step."""
    results, config = record.results, record.config

    def at_end(label: str) -> np.ndarray:
        return np.asarray(results["losses"][label])[:, -1]

    def loss(label: str) -> Measurement:
        return mean_over_seeds(at_end(label))

    def below(label: str, other: str) -> Measurement:
        return mean_over_seeds(at_end(label) - at_end(other))

    def smaller(label: str, other: str) -> Measurement:
        norms = {name: np.linalg.norm(np.asarray(results["gradient"][name]), axis=1) for name in (label, other)}
        return mean_over_seeds(np.log10(norms[label] / norms[other]))

    def first_over_last(label: str) -> Measurement:
        norms = np.asarray(results["gradient"][label])
        return mean_over_seeds(norms[:, 0] / norms[:, -1])

    levels = [
        Claim(
            f"After {config['num_steps']:,} steps the loss of {label} is {value:g}",
            loss(label),
            near(value, 0.03, EARLIER),
            Control(other, loss(other)),
        )
        for label, value, other in (("Xavier", 0.317, "He"), ("He", 0.231, "Xavier"))
    ]
    return [
        Claim(
            "From std .01 the network does not train: it ends at ln 10, the loss of a guess",
            loss("std .01"),
            near(np.log(10), 0.01, SAITO),
            Control("std .01 with batch norm", loss(NORMALISED)),
            f"Mean loss of the last {config['every']} steps.",
        ),
        Claim(
            "It could not: its gradient by the weights is a hundredth of He's, or less",
            smaller("std .01", "He"),
            at_most(-2.0, f"{HE}: signals shrink in every layer by std·√(n/2), forward and back"),
            Control("Xavier against He", smaller("Xavier", "He")),
            "log₁₀ of the ratio of norms before the first step, all layers' weights. All layers' gradients are small, "
            f"first over last: {first_over_last('std .01')}; of He's: {first_over_last('He')}.",
        ),
        Claim(
            "From He's scale a ReLU network trains faster than from Xavier's",
            below("He", "Xavier"),
            at_most(-0.03, f"{SAITO}; {EARLIER}"),
            Control("std .01 in He's place", below("std .01", "Xavier")),
            "Mean loss of the last steps, He less Xavier.",
        ),
        *(levels if config["data"] == "mnist" else []),
        Claim(
            "With batch norm std .01 trains as well",
            loss(NORMALISED),
            at_most(1.0, f"{SAITO}, §6.3: the start matters less; 1 nat"),
            Control("without", loss("std .01")),
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the training losses, and the gradients by layer before training."""
    results, config = record.results, record.config
    data = images.TITLES[config["data"]]
    layers = np.arange(1, len(config["widths"]) + 2)
    return {
        "weight_init": response(
            results["steps"], results["losses"], xlabel="step", ylabel="training loss (nats)",
            level=np.log(10), level_label="ln 10: guessing",
            smallest=0.0, title=f"{data}, SGD {config['rate']:g}: std .01 stays at ln 10, He learns faster than Xavier",
        ),
        "gradients": response(
            layers, results["gradient"], xlabel="layer", ylabel="norm of the gradient by the layer's weights",
            log_y=True, title=f"{data}, before the first step: at std .01 there is almost no gradient in any layer",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Which initial scale trains the notes' network, and why does std .01 not?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
