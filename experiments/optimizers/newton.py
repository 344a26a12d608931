"""Newton's method: on quadratics, at saddle points, and truncated on a network, counted in products."""

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
from experiments.claims import (
    Claim,
    Control,
    Measurement,
    at_least,
    at_most,
    exact,
    ratio_over_seeds,
    share_of_trials,
)
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, optimizers, problems, training
from jaxopt_study.figures import response, trajectories
from jaxopt_study.problems import networks, planar
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform, chain, from_optax

NOTES = "the notes (000): Newton's method jumps to the minimum of a second-order model"
DAUPHIN = "Dauphin et al. (2014), Identifying and attacking the saddle point problem, section 4"
MARTENS = "Martens (2010), Deep learning via Hessian-free optimization: the truncated method beats gradient descent"
BOTTOU = "Bottou, Curtis and Nocedal (2018), Optimization methods for large-scale machine learning, §3.3"
BUDGET = "at the same number of gradients of the whole set; a product is counted as two"
SADDLE = (0.5, 1e-3, -0.3)  # starts beside the saddle of x² − y²


@dataclass(frozen=True)
class Config:
    """A quadratic, planar surfaces, and a network."""

    dim: int = 20
    condition: float = 100.0
    num_starts: int = 500  # on the plane
    plane_steps: int = 60
    num_train: int = 200
    width: int = 16
    num_seeds: int = 6
    newton_steps: int = 40
    max_matvecs: int = 20
    budget: int = 400  # in gradients of the whole set
    batch_size: int = 20
    num_tried: int = 7  # dampings from 1e-5 to 1, and rates from 1e-2 to 10
    seed: int = 0


PRESETS = {
    "smoke": Config(
        num_starts=100, num_train=100, width=8, num_seeds=6, newton_steps=30, budget=300, batch_size=20, num_tried=4
    ),
    "paper": Config(),
}


def exactly(**options: Any) -> Transform:
    """Return Newton's method itself: directions to rounding, whatever the sign of the curvature."""
    return optimizers.newton(tolerance=1e-13, stop_at_negative_curvature=False, **options)


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Step on quadratics, follow methods on a surface with saddles, and train a network."""
    del data_dir
    with jax.enable_x64(True):
        found = {
            "quadratic": part("quadratic", partial(_quadratic, config)),
            "saddle": part("saddle", _saddle),
            "plane": part("plane", partial(_plane, config)),
        }
    return {**found, **_network(config)}


def _quadratic(config: Config) -> dict[str, Any]:
    """Return the distance from the minimum after one step, of Newton and of gradient descent at its best rate."""
    spectrum = np.geomspace(1.0, config.condition, config.dim)
    rotation = problems.random_rotation(config.dim, key=jax.random.key(config.seed))
    problem = problems.quadratic(spectrum, rotation=rotation, center=np.ones(config.dim))
    steps = {"Newton": exactly(), "gradient descent": optimizers.sgd(2 / (1 + config.condition))}
    keys = jax.random.split(jax.random.key(config.seed), 20)
    starts = jax.vmap(problem.init)(keys)
    return {
        label: jnp.linalg.norm(_step(problem, optimizer, starts) - 1, axis=1).max()
        for label, optimizer in steps.items()
    }


def _step(problem: problems.Problem, optimizer: Transform, starts: jax.Array) -> jax.Array:
    """Return the points after one step from each start."""

    def one(start: jax.Array) -> jax.Array:
        gradient = jax.grad(problem.loss)(start)
        updates, _ = optimizer.update(gradient, optimizer.init(start), start, value_fn=problem.loss)
        return start + jnp.asarray(updates)

    return jax.jit(jax.vmap(one))(starts)


def _saddle() -> dict[str, Any]:
    """Return where one step from each start on x² − y² leads, shape (starts, 2)."""
    problem = planar.saddle()
    steps = {"Newton": exactly(), "saddle-free Newton": optimizers.saddle_free_newton()}
    starts = jnp.stack([jnp.array([1.0, y]) for y in SADDLE])
    search = jax.vmap(lambda start: curvature.find_critical_point(problem.loss, start).params)
    return {label: _step(problem, tx, starts) for label, tx in steps.items()} | {"Newton-MR": jax.jit(search)(starts)}


def _plane(config: Config) -> dict[str, Any]:
    """Return from random starts the kind of point at which each method ends, by its index; −1 for none."""
    problem = planar.styblinski_tang()
    starts = jax.random.uniform(jax.random.key(config.seed), (config.num_starts, 2), minval=-4.5, maxval=4.5)
    places = jnp.stack([jnp.asarray(point.params) for point in problem.critical_points])
    index = jnp.array([point.index for point in problem.critical_points])

    def kind(ends: jax.Array) -> jax.Array:
        distances = jnp.linalg.norm(ends[:, None] - places, axis=2)
        return jnp.where(distances.min(axis=1) < 1e-3, index[distances.argmin(axis=1)], -1)

    methods = {"Newton": exactly(), "saddle-free Newton": optimizers.saddle_free_newton(1.0, 1.0)}
    found: dict[str, Any] = {"kind": {}, "path": {}}
    for label, optimizer in methods.items():

        def follow(start: jax.Array, tx: Transform = optimizer) -> jax.Array:
            return training.train(
                problem, tx, num_steps=config.plane_steps, key=jax.random.key(0), params=start, record_params_every=1
            ).snapshots

        paths = jax.jit(jax.vmap(follow))(jnp.concatenate([jnp.array([[0.6, -0.9]]), starts]))
        found["kind"][label], found["path"][label] = kind(paths[1:, -1]), paths[0]
    return found


def _network(config: Config) -> dict[str, Any]:
    """Return losses over the number of gradients: (tried, seeds, points)."""
    dataset = images.load("digits", None, num_train=config.num_train, num_validation=0)
    problem = networks.mlp_classifier(dataset, widths=(config.width,), activation="tanh")
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    dampings = jnp.geomspace(1e-5, 1.0, config.num_tried)
    rates = jnp.geomspace(1e-2, 10.0, config.num_tried)
    search = from_optax(optax.scale_by_backtracking_linesearch)(10, decrease_factor=0.5, increase_factor=float("inf"))

    def measure(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Any]:
        return problem.loss(params, batch), state[0][0].num_matvecs, state[1].info.num_linesearch_steps

    def newton(optimizer: Transform, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        run = training.train(
            problem, chain(optimizer, search), num_steps=config.newton_steps, key=key, probe=training.Probe(measure)
        )
        losses, products, trials = run.probes  # a trial of the line search is counted as a gradient, which is more
        return losses, 2 * run.probe_steps + 2 * products + jnp.cumsum(trials)

    def descent(optimizer: Transform, key: jax.Array, batch_size: int | None) -> jax.Array:
        each = 1 if batch_size is None else config.num_train // batch_size
        run = training.train(
            problem, optimizer, num_steps=config.budget * each, key=key, batch_size=batch_size,
            evaluate_every=10 * each, evaluate_on="train",
        )  # fmt: skip
        return run.evaluations["train_loss"]

    def every(name: str, function: Any, numbers: jax.Array) -> Any:
        """Map over numbers and seeds; the seeds share starts."""
        mapped = jax.jit(jax.vmap(jax.vmap(function, in_axes=(None, 0)), in_axes=(0, None)))
        return part(name, lambda: mapped(numbers, keys))

    truncated = every(
        "truncated Newton",
        lambda d, key: newton(optimizers.newton(1.0, d, max_matvecs=config.max_matvecs), key),
        dampings,
    )
    plain = every(
        "Newton without damping",
        lambda d, key: newton(exactly(damping=d, max_matvecs=config.max_matvecs), key),
        jnp.zeros(1),
    )
    full = every("gradient descent", lambda rate, key: descent(optimizers.sgd(rate), key, None), rates)
    small = every("SGD", lambda rate, key: descent(optimizers.sgd(rate), key, config.batch_size), rates)
    return {
        "dampings": dampings,
        "rates": rates,
        "points": np.arange(0, config.budget + 1, 10),
        "truncated Newton": {"losses": truncated[0], "gradients": truncated[1]},
        "Newton without damping": {"losses": plain[0], "gradients": plain[1]},
        "gradient descent": {"losses": full},
        "SGD": {"losses": small},
        "data_sha256": dataset.sha256,
    }


def at_points(found: Mapping[str, Any], points: np.ndarray) -> np.ndarray:
    """Return losses at numbers of gradients, shape (tried, seeds, points): those of the last finished step."""
    losses = np.asarray(found["losses"], float)
    losses = np.where(np.isfinite(losses), losses, 1e3)
    if "gradients" not in found:
        return losses
    spent = np.asarray(found["gradients"])
    place = [np.searchsorted(lane, points, side="right") - 1 for lane in spent.reshape(-1, spent.shape[-1])]
    lanes = losses.reshape(-1, losses.shape[-1])
    return np.stack([lane[i] for lane, i in zip(lanes, place, strict=True)]).reshape(*losses.shape[:2], -1)


def tuned(results: Mapping[str, Any], label: str) -> np.ndarray:
    """Return the losses, shape (seeds, points), at the number with the lowest geometric mean at the end."""
    losses = at_points(results[label], np.asarray(results["points"]))
    return losses[np.log(losses[:, :, -1]).mean(axis=1).argmin()]


def claims(record: Record) -> list[Claim]:
    """Judge distances, kinds of end points, and losses at a budget."""
    results = record.results
    plane = {label: np.asarray(kinds) for label, kinds in results["plane"]["kind"].items()}

    def away(label: str) -> Measurement:
        return exact(float(np.linalg.norm(np.asarray(results["saddle"][label]), axis=1).max()))

    def lowest(label: str) -> Measurement:
        """Return the largest ratio of |y| after the step to |y| before."""
        return exact(float(np.abs(np.asarray(results["saddle"][label])[:, 1] / np.array(SADDLE)).min()))

    def share(label: str, *, minima: bool) -> Measurement:
        wanted = plane[label] == 0 if minima else plane[label] > 0
        return share_of_trials(int(wanted.sum()), wanted.size)

    def trained(label: str) -> Measurement:
        losses = tuned(results, label)
        return share_of_trials(int((losses[:, -1] < 0.1 * losses[:, 0]).sum()), len(losses))

    def ratio(a: str, b: str, part: float = 1.0) -> Measurement:
        """Return the ratio of the losses after a part of the budget, each tuned for the end."""
        place = round(part * record.config["budget"] / 10)
        return ratio_over_seeds(tuned(results, a)[:, place], tuned(results, b)[:, place])

    quadratic = results["quadratic"]
    starts = f"Share of {record.config['num_starts']} starts on the Styblinski–Tang surface."
    return [
        Claim(
            "One Newton step solves a quadratic",
            exact(float(quadratic["Newton"])),
            at_most(1e-10, f"{NOTES}; rounding in double precision"),
            Control("gradient descent at its best rate", exact(float(quadratic["gradient descent"]))),
            f"Largest distance from the minimum, from 20 starts, condition number {record.config['condition']:g}.",
        ),
        Claim(
            "On x² − y² a Newton step goes to the saddle",
            away("Newton"),
            at_most(1e-10, DAUPHIN),
            Control("saddle-free Newton", away("saddle-free Newton")),
            "Largest distance from it, from three starts.",
        ),
        Claim(
            "A saddle-free Newton step doubles the distance from the saddle along the descending direction",
            lowest("saddle-free Newton"),
            at_least(2 - 1e-10, DAUPHIN),
            Control("Newton", lowest("Newton")),
        ),
        Claim(
            "Newton-MR goes to the saddle as well",
            away("Newton-MR"),
            at_most(1e-6, "it minimises ‖g + Hp‖: where H is regular, p is Newton's; the tolerance of the search"),
            Control("saddle-free Newton", away("saddle-free Newton")),
            "It finds critical points of every index, and does not leave saddle points.",
        ),
        Claim(
            "Newton's method ends at saddle points or maxima from many starts",
            share("Newton", minima=False),
            at_least(0.2, f"{DAUPHIN}; a third of each axis has negative curvature"),
            Control("saddle-free Newton", share("saddle-free Newton", minima=False)),
            starts,
        ),
        Claim(
            "Saddle-free Newton ends at minima",
            share("saddle-free Newton", minima=True),
            at_least(0.9, DAUPHIN),
            Control("Newton", share("Newton", minima=True)),
            starts,
        ),
        Claim(
            "Truncated Newton with damping and a line search trains a network",
            trained("truncated Newton"),
            at_least(0.5, "most seeds; the loss falls to a tenth"),
            Control("without damping, and with directions of negative curvature", trained("Newton without damping")),
        ),
        Claim(
            "It reaches a lower loss than gradient descent, both tuned",
            ratio("truncated Newton", "gradient descent"),
            at_most(0.5, f"{MARTENS}; half, {BUDGET}"),
            Control("Newton without damping", ratio("Newton without damping", "gradient descent")),
            f"Ratio of the training losses after {record.config['budget']} gradients, each method at its best of "
            f"{record.config['num_tried']} dampings or rates.",
        ),
        Claim(
            "With a tenth of the gradients SGD with small batches has the lower loss",
            ratio("SGD", "truncated Newton", 0.1),
            at_most(0.5, f"{BOTTOU}; half, {BUDGET}"),
            Control("Newton without damping", ratio("Newton without damping", "truncated Newton", 0.1)),
            f"Ratio of the training losses. With all {record.config['budget']} gradients it is "
            f"{ratio('SGD', 'truncated Newton')}; batches of {record.config['batch_size']} of "
            f"{record.config['num_train']}.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw paths beside saddle points, and losses over the number of gradients."""
    results = record.results
    shown = {
        "SGD, small batches": "SGD",
        "SGD, whole set": "gradient descent",
        "truncated Newton": "truncated Newton",
        "Newton, no damping": "Newton without damping",
    }
    curves = {label: np.clip(tuned(results, name), 1e-8, 20) for label, name in shown.items()}
    return {
        "saddles": trajectories(
            planar.styblinski_tang(),
            {label: np.asarray(path) for label, path in results["plane"]["path"].items()},
            columns=2,
            title="From negative curvature Newton climbs to the maximum, saddle-free Newton descends",
        ),
        "network": response(
            results["points"], curves, log_y=True, ylabel="training loss (nats)",
            xlabel="gradients (a product: two)",
            title="One hidden layer on digits, each method tuned: SGD starts fast, Newton ends fast",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="What does Newton's method do on a quadratic, at a saddle, and truncated on a network, at which cost?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
