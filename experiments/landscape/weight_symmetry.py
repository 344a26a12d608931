"""Symmetries of the weights: permuted and rescaled units, null directions, and barriers between solutions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, optimizers, training
from jaxopt_study.figures import response
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record

GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.2.2: weight-space symmetry"
ENTEZARI = "Entezari et al. (2022), The role of permutation invariance in linear mode connectivity"
AINSWORTH = "Ainsworth, Hayase and Srinivasa (2023), Git re-basin, section 3.2: matching weights"


@dataclass(frozen=True)
class Config:
    """Networks of one hidden layer, and a small one that is trained until its gradient vanishes."""

    data: images.Images = "mnist"
    num_train: int = 2_000
    width: int = 256
    rate: float = 0.3
    batch_size: int = 100
    num_steps: int = 2_000
    num_points: int = 21  # on a path
    small_examples: int = 8
    small_width: int = 12
    small_steps: int = 40_000
    num_seeds: int = 8
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=500, width=64, batch_size=50, num_steps=600, small_steps=20_000, num_seeds=6
    ),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Change weights along the symmetries, multiply null directions by the Hessian, and walk between solutions."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0)
    found: dict[str, Any] = {"data_sha256": dataset.sha256}
    with jax.enable_x64(True):
        for activation in ("relu", "tanh"):
            problem = networks.mlp_classifier(dataset, widths=(config.width,), activation=activation)
            params = jax.tree.map(lambda x: x.astype(float), problem.init(jax.random.key(config.seed)))
            x = jnp.asarray(dataset.parts["test"]["x"][:200], float)
            model = networks.MLP(10, widths=(config.width,), activation=activation)
            found[f"{activation}_change"] = _changes(model, params, x)
            found[f"{activation}_null"] = part(activation, partial(_null_directions, config, activation, dataset))
    return found | {"paths": part("paths", partial(_paths, config, dataset))}


def _paths(config: Config, dataset: datasets.Dataset) -> dict[str, np.ndarray]:
    """Return losses on paths from a trained network: to another one, to that with its units matched, to itself."""
    problem = networks.mlp_classifier(dataset, widths=(config.width,))
    keys = jax.random.split(jax.random.key(config.seed + 1), 2 * config.num_seeds)
    train = partial(
        training.train, problem, optimizers.sgd(config.rate), num_steps=config.num_steps, batch_size=config.batch_size
    )
    solutions = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: train(key=key).params))(keys))
    along = jax.jit(partial(_along, config, problem.loss))
    paths: dict[str, list[np.ndarray]] = {}
    for seed in range(config.num_seeds):
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], solutions) for i in (2 * seed, 2 * seed + 1))
        order = np.random.default_rng([config.seed, seed]).permutation(config.width)
        ends = {
            "straight": second,
            "units matched": _permuted(second, _matching(first, second)),
            "one network, permuted": _permuted(first, order),
            "one network, matched again": _permuted(_permuted(first, order), _matching(first, _permuted(first, order))),
        }
        for label, end in ends.items():
            paths.setdefault(label, []).append(np.asarray(along(first, end, problem.data)))
    return {label: np.array(losses) for label, losses in paths.items()}


def _permuted(params: Any, order: np.ndarray) -> Any:
    """Return the network whose hidden units stand in another order."""
    hidden, output = params["dense_0"], params["output"]
    return {
        "dense_0": {"kernel": hidden["kernel"][:, order], "bias": hidden["bias"][order]},
        "output": {"kernel": output["kernel"][order], "bias": output["bias"]},
    }


def _rescaled(params: Any, factors: Any) -> Any:
    """Return the network whose hidden units are multiplied by factors, and their outgoing weights divided."""
    hidden, output = params["dense_0"], params["output"]
    return {
        "dense_0": {"kernel": hidden["kernel"] * factors, "bias": hidden["bias"] * factors},
        "output": {"kernel": output["kernel"] / factors[:, None], "bias": output["bias"]},
    }


def _matching(first: Any, second: Any) -> np.ndarray:
    """Return the order of the second network's units that lies closest to the first's, in all weights of a unit."""
    similarity = (
        first["dense_0"]["kernel"].T @ second["dense_0"]["kernel"]
        + np.outer(first["dense_0"]["bias"], second["dense_0"]["bias"])
        + first["output"]["kernel"] @ second["output"]["kernel"].T
    )
    return linear_sum_assignment(similarity, maximize=True)[1]


def _changes(model: networks.MLP, params: Any, x: jax.Array) -> dict[str, float]:
    """Return the largest relative change of an output under a permutation and under a rescaling of the units."""
    rng = np.random.default_rng(0)
    width = params["dense_0"]["bias"].shape[0]

    def outputs(weights: Any) -> jax.Array:
        return jnp.asarray(model.apply({"params": weights}, x))

    before = outputs(params)

    def change(other: Any) -> float:
        return float(jnp.abs(outputs(other) - before).max() / jnp.abs(before).max())

    return {
        "permuted": change(_permuted(params, rng.permutation(width))),
        "rescaled": change(_rescaled(params, jnp.exp(rng.uniform(-2, 2, width)))),
    }


def _null_directions(config: Config, activation: str, dataset: Any) -> dict[str, Any]:
    """Return ‖Hd‖/(‖H‖‖d‖) for the rescaling direction d of every unit, where the gradient has vanished."""
    problem = networks.mlp_regressor(_few(config, dataset), widths=(config.small_width,), activation=activation)
    start = jax.tree.map(lambda x: x.astype(float), problem.init(jax.random.key(config.seed)))
    run = training.train(
        problem, optimizers.sgd(0.05), num_steps=config.small_steps, key=jax.random.key(0), params=start
    )
    params = run.params
    op = curvature.hessian(problem.loss, params, problem.data)
    norm = float(curvature.sharpness(op, key=jax.random.key(1)).upper)
    residuals = []
    for unit in range(config.small_width):
        chosen = jnp.zeros(config.small_width).at[unit].set(1.0)
        direction = jax.jvp(lambda f: _rescaled(params, f), (jnp.ones(config.small_width),), (chosen,))[1]
        size = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(direction)))
        image = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(op @ direction)))
        residuals.append(image / size / norm)
    gradient = jax.grad(problem.loss)(params, problem.data)
    return {
        "residuals": np.array(residuals),
        "gradient_norm": float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))),
        "norm": norm,
    }


def _few(config: Config, dataset: Any) -> Any:
    """Return a few examples with one real target each, which a small network fits exactly."""
    rng = np.random.default_rng(config.seed)
    x = dataset.train["x"][: config.small_examples] @ rng.standard_normal((dataset.train["x"].shape[1], 5))
    x = x / np.abs(x).max()
    return datasets.from_arrays(x, rng.standard_normal((config.small_examples, 1)), name="few", split="first")


def _along(config: Config, loss: Any, first: Any, second: Any, data: Any) -> jax.Array:
    """Return losses on the straight path between two networks."""
    shares = jnp.linspace(0.0, 1.0, config.num_points)
    return jax.lax.map(lambda t: loss(jax.tree.map(lambda a, b: (1 - t) * a + t * b, first, second), data), shares)


def claims(record: Record) -> list[Claim]:
    """Judge invariance, null directions and barriers."""
    results = record.results
    paths = {label: np.asarray(losses) for label, losses in results["paths"].items()}

    def change(activation: str, kind: str) -> Measurement:
        return exact(results[f"{activation}_change"][kind])

    def residual(activation: str, largest: bool) -> Measurement:
        found = np.asarray(results[f"{activation}_null"]["residuals"])
        return exact(float(found.max() if largest else found.min()))

    def barrier(label: str) -> np.ndarray:
        """Return the height of the path above the straight line between its ends."""
        losses = paths[label]
        ends = np.linspace(losses[:, 0], losses[:, -1], losses.shape[1], axis=1)
        return np.maximum((losses - ends).max(axis=1), 1e-6)

    return [
        Claim(
            "Permuting hidden units leaves the outputs unchanged",
            change("relu", "permuted"),
            at_most(1e-12, f"{GOODFELLOW}; rounding in double precision"),
            Control("rescaling a tanh layer", change("tanh", "rescaled")),
            "Largest change of an output, relative to the largest output.",
        ),
        Claim(
            "Rescaling ReLU units leaves them unchanged, too",
            change("relu", "rescaled"),
            at_most(1e-12, f"{GOODFELLOW}; rounding in double precision"),
            Control("rescaling a tanh layer", change("tanh", "rescaled")),
            "Factors from e⁻² to e² on a unit, and their inverses on its outgoing weights.",
        ),
        Claim(
            "Where the gradient vanishes, every ReLU unit gives the Hessian a null direction",
            residual("relu", largest=True),
            at_most(1e-5, "f(θ(α)) = f(θ) differentiated twice: Hd is the gradient with signs, which is 0"),
            Control("tanh units", residual("tanh", largest=False)),
            f"‖Hd‖/(‖H‖‖d‖), the largest of {len(results['relu_null']['residuals'])} units; the gradient's norm is "
            f"{results['relu_null']['gradient_norm']:.0e}. A Hessian with these zeros is never positive definite.",
        ),
        Claim(
            "Between a solution and itself with permuted units lies a barrier, though both are the same function",
            ratio_over_seeds(barrier("one network, permuted"), paths["straight"][:, 0]),
            at_least(3.0, f"{ENTEZARI}; three times the loss at the ends"),
            Control(
                "the same, its units matched again",
                ratio_over_seeds(barrier("one network, matched again"), paths["straight"][:, 0]),
            ),
            "Height above the straight line between the ends, relative to the loss at a solution.",
        ),
        Claim(
            "Matching the units of two solutions lowers the barrier between them",
            ratio_over_seeds(barrier("units matched"), barrier("straight")),
            at_most(0.5, f"{AINSWORTH}; {ENTEZARI}; to a half"),
            Control(
                "a random order of the units", ratio_over_seeds(barrier("one network, permuted"), barrier("straight"))
            ),
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the losses along the paths."""
    return {
        "paths": response(
            np.linspace(0, 1, record.config["num_points"]), record.results["paths"], xlabel="place on the path",
            ylabel="training loss (nats)", log_y=True,
            title=f"{images.TITLES[record.config['data']]}: the barrier between two solutions is mostly the order of "
            "their units",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Which changes of the weights leave a network's function unchanged, and what do they mean?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
