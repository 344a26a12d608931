"""Sharp minima: batch size and curvature, and what a rescaling of the layers does to the measure."""

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
from jaxopt_study import curvature, optimizers, training
from jaxopt_study.figures import pairs
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record

KESKAR = "Keskar et al. (2017), On large-batch training for deep learning: large batches end in sharp minima"
DINH = "Dinh et al. (2017), Sharp minima can generalize for deep nets, §4"
KWON = "Kwon et al. (2021), ASAM: sharpness in units of the weights, which a rescaling of ReLU layers leaves as it is"
GOYAL = "Goyal et al. (2017): the rate in proportion to the batch size"


@dataclass(frozen=True)
class Config:
    """Small and large batches at one rate, and large ones with the rate scaled alike."""

    data: images.Images = "mnist"
    num_train: int = 500
    num_test: int = 2_000
    width: int = 50
    small: int = 20
    large: int = 200
    rate: float = 0.05
    target: float = 0.05  # training loss (nats) at which runs are compared
    num_steps: int = 3_000
    every: int = 50
    factor: float = 20.0  # of Dinh's rescaling
    num_seeds: int = 4
    seed: int = 0


PRESETS = {
    "smoke": Config(data="digits", num_train=200, num_test=1_000, width=20, small=10, large=100),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train to one training loss, and measure both sharpnesses there and after a rescaling."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=config.num_test)
    with jax.enable_x64(True):
        batch = _double(dict(dataset.train))
    models = {name: networks.MLP(10, widths=(config.width,), activation=name) for name in ("relu", "tanh")}
    measures = {name: _measure(model, batch) for name, model in models.items()}

    def compared(name: str, small: list[Any]) -> dict[str, Any]:
        rescaled = [_rescaled(params, config.factor) for params in small]
        outputs = [[models[name].apply({"params": at}, batch["x"]) for at in each] for each in (small, rescaled)]
        return {
            "output": max(
                float(jnp.abs(after - before).max() / jnp.abs(before).max())
                for before, after in zip(*outputs, strict=True)
            ),
            "before": measures[name](small),
            "after": measures[name](rescaled),
        }

    def measured(label: str, size: int, rate: float) -> dict[str, Any]:
        solutions, evaluations = _trained(config, dataset, size, rate)
        with jax.enable_x64(True):
            solutions = [_double(params) for params in solutions]
            rescaled = {name: compared(name, solutions) for name in models} if label == "small batch" else {}
            return {"run": evaluations | measures["relu"](solutions), "rescaled": rescaled}

    found = {label: part(label, partial(measured, label, *run)) for label, run in _runs(config).items()}
    return {
        **{label: each["run"] for label, each in found.items()},
        **found["small batch"]["rescaled"],
        "data_sha256": dataset.sha256,
    }


def _runs(config: Config) -> dict[str, tuple[int, float]]:
    """Return batch size and learning rate by name."""
    scaled = config.rate * config.large / config.small
    return {
        "small batch": (config.small, config.rate),
        "large batch": (config.large, config.rate),
        "large batch, rate scaled": (config.large, scaled),
    }


def _trained(config: Config, dataset: datasets.Dataset, size: int, rate: float) -> tuple[list[Any], dict[str, Any]]:
    """Return the parameters of each seed where the training loss first reaches the target."""
    problem = networks.mlp_classifier(dataset, widths=(config.width,))
    runs = jax.jit(
        jax.vmap(
            lambda key: training.train(
                problem, optimizers.sgd(rate), num_steps=config.num_steps, batch_size=size, key=key,
                evaluate_every=config.every, evaluate_on=("train", "test"), record_params_every=config.every,
            )
        )
    )(jax.random.split(jax.random.key(config.seed), config.num_seeds))  # fmt: skip
    reached = np.asarray(runs.evaluations["train_loss"]) <= config.target
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), reached.shape[1] - 1)
    chosen = np.arange(config.num_seeds), first
    solutions = [
        jax.tree.map(lambda leaf, lane=lane, place=place: leaf[lane, place], runs.snapshots)
        for lane, place in zip(*chosen, strict=True)
    ]
    evaluations = {
        name: np.asarray(runs.evaluations[name])[chosen]
        for name in ("step", "train_loss", "test_loss", "test_accuracy")
    }
    return solutions, evaluations


def _rescaled(params: Any, factor: float) -> Any:
    """Return the network with its hidden layer multiplied by a factor, and the output's weights divided by it."""
    hidden, output = params["dense_0"], params["output"]
    return {
        "dense_0": jax.tree.map(lambda leaf: factor * leaf, hidden),
        "output": {"kernel": output["kernel"] / factor, "bias": output["bias"]},
    }


def _double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if leaf.dtype.kind == "f" else jnp.asarray(leaf), tree)


def _measure(model: networks.MLP, batch: Any) -> Callable[[list[Any]], dict[str, np.ndarray]]:
    """Return a function that measures λmax of the Hessian, and of |θ| H |θ|, at several networks.

    Both are Hessians at u = 0 of the loss at θ + s u, with s = 1 or s = |θ|: one function, so one program.
    """

    def loss(u: Any, data: Any) -> jax.Array:
        params = jax.tree.map(lambda at, scale, x: at + scale * x, data["at"], data["scale"], u)
        return networks.cross_entropy(jnp.asarray(model.apply({"params": params}, batch["x"])), batch["y"])

    def largest(params: Any, scale: Any) -> float:
        op = curvature.hessian(loss, jax.tree.map(jnp.zeros_like, params), {"at": params, "scale": scale})
        bracket = curvature.sharpness(op, key=jax.random.key(0), max_matvecs=100)
        return float(bracket.lower + bracket.upper) / 2

    def measure(solutions: list[Any]) -> dict[str, np.ndarray]:
        return {
            name: np.array([largest(params, jax.tree.map(scale, params)) for params in solutions])
            for name, scale in (("plain", jnp.ones_like), ("invariant", jnp.abs))
        }

    return measure


def claims(record: Record) -> list[Claim]:
    """Judge the batch sizes, and the two measures under a rescaling."""
    results, config = record.results, record.config

    def ratio(label: str, name: str = "plain") -> Measurement:
        """Return a sharpness over that of the small batch, at equal training loss, by seed."""
        return ratio_over_seeds(results[label][name], results["small batch"][name])

    def moved(activation: str, name: str) -> Measurement:
        found = results[activation]
        return ratio_over_seeds(found["after"][name], found["before"][name])

    def change(activation: str) -> Measurement:
        """Return by how much the invariant measure moves, the largest of all seeds."""
        found = results[activation]
        factors = np.asarray(found["after"]["invariant"]) / np.asarray(found["before"]["invariant"])
        return exact(float(np.abs(factors - 1).max()))

    def worse(label: str) -> Measurement:
        accuracy = {name: np.asarray(results[name]["test_accuracy"]) for name in (label, "small batch")}
        return mean_over_seeds(accuracy["small batch"] - accuracy[label])

    factor, scaled = config["factor"], "large batch, rate scaled"
    return [
        Claim(
            f"At one learning rate, batches of {config['large']} end sharper than batches of {config['small']}",
            ratio("large batch"),
            at_least(1.1, f"{KESKAR}; ten percent"),
            Control(f"rate scaled with the batch ({GOYAL})", ratio(scaled)),
            "λmax of the Hessian over that of the small batch, both where the training loss reaches "
            f"{config['target']:g}. In the invariant measure: {ratio('large batch', 'invariant')}. Test accuracy, "
            f"small less large batch: {worse('large batch')}; with the rate scaled: {worse(scaled)}.",
        ),
        Claim(
            f"ReLU layers multiplied by {factor:g} and divided by {factor:g} are the same function",
            exact(results["relu"]["output"]),
            at_most(1e-12, f"{DINH}; rounding in double precision"),
            Control("a tanh network", exact(results["tanh"]["output"])),
            "Largest relative change of an output.",
        ),
        Claim(
            "Yet λmax is a hundred times as large: sharpness alone says nothing about the function",
            moved("relu", "plain"),
            at_least(100.0, f"{DINH}; at most {factor:g}² = {factor**2:g}"),
            Control("λmax of |θ| H |θ|", moved("relu", "invariant")),
        ),
        Claim(
            "λmax of |θ| H |θ|, which measures steps in units of the weights, does not move",
            change("relu"),
            at_most(0.02, f"{KWON}; λmax is bracketed to one percent"),
            Control("a tanh network, which is another function then", change("tanh")),
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw sharpness by batch size, and under the rescaling."""
    results, config = record.results, record.config
    data = images.TITLES[config["data"]]
    small = results["small batch"]
    batches = {
        f"{label}: {words}": (small[name], results[label][name])
        for name, words in (("plain", "λmax(H)"), ("invariant", "λmax(|θ| H |θ|)"))
        for label in ("large batch", "large batch, rate scaled")
    }
    rescaled = {
        words: (results["relu"]["before"][name], results["relu"]["after"][name])
        for name, words in (("plain", "λmax(H)"), ("invariant", "λmax(|θ| H |θ|)"))
    }
    return {
        "batches": pairs(
            batches, settings=("small batch", "large batch"), labels=dict.fromkeys(batches, ("", "")), log=True,
            xlabel=f"sharpness at a training loss of {config['target']:g} nats",
            title=f"{data}: batches of {config['small']} and of {config['large']}",
        ),
        "rescaled": pairs(
            rescaled, settings=("as trained", "rescaled"), labels=dict.fromkeys(rescaled, ("", "")), log=True,
            xlabel="sharpness",
            title=f"{data}: the same ReLU function, its layers × {config['factor']:g} and ÷ {config['factor']:g}",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Do large batches end in sharper minima, and what does sharpness say if a rescaling changes it?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
