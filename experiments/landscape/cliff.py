"""A cliff: steps with the gradient clipped, with the weights clipped, and without clipping."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, share_of_trials
from experiments.experiment import Experiment
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import trajectories
from jaxopt_study.problems import planar
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform, chain, clip_by_global_norm, clip_weights

PASCANU = "Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, section 3.2"
GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.2.4 and figure 8.3"


@dataclass(frozen=True)
class Config:
    """The cliff of a recurrent network with one unit, and starts behind its wall."""

    rate: float = 1.0
    threshold: float = 1.0  # of the gradient's norm
    loose: float = 1e3  # a threshold that clips nothing
    weight_limit: float = 6.0  # of clipped weights; the minima in front of the wall are within it
    num_steps: int = 300
    num_starts: int = 200
    solved: float = 1e-3  # loss; half of the plain's height is .045
    seed: int = 0


PRESETS = {"smoke": Config(num_starts=100), "paper": Config(num_starts=2_000)}


def methods(config: Config) -> dict[str, Transform]:
    """Return gradient descent without and with clipping."""
    descent = optimizers.sgd(config.rate)
    return {
        "no clipping": descent,
        "gradient clipped": chain(clip_by_global_norm(config.threshold), descent),
        "weights clipped": chain(descent, clip_weights(config.weight_limit)),
        "threshold too large": chain(clip_by_global_norm(config.loose), descent),
    }


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Take one step at the wall, then train from starts around it."""
    del data_dir
    with jax.enable_x64(True):
        problem = planar.cliff()
        wall = _wall(problem)
        offsets = jax.random.uniform(jax.random.key(config.seed), (config.num_starts, 2), minval=-0.25, maxval=0.25)
        found: dict[str, Any] = {"wall": wall, "gradient_norm": jnp.linalg.norm(jax.grad(problem.loss)(wall))}
        starts = jnp.concatenate([jnp.array([[5.5, -2.5]]), wall[None], wall + offsets])  # drawn, first step, judged
        # The optimizer is an argument of the program, so that two thresholds share one.
        follow = jax.jit(jax.vmap(partial(_follow, config, problem), in_axes=(None, 0)))
        for label, optimizer in methods(config).items():
            paths, losses = follow(optimizer, starts)
            found[label] = {
                "step": np.linalg.norm(paths[1, 1] - paths[1, 0]),
                "path": paths[0],
                "losses": losses[2:],
                "farthest": np.abs(paths[2:]).max(axis=(1, 2)),
            }
    return jax.tree.map(np.asarray, found)


def _wall(problem: problems.Problem) -> jax.Array:
    """Return the steepest point on the line w = 5.5, to 1e-4."""
    biases = jnp.linspace(-3.0, -2.0, 10_001)
    points = jnp.stack([jnp.full_like(biases, 5.5), biases], axis=1)
    return points[jnp.argmax(jnp.linalg.norm(jax.vmap(jax.grad(problem.loss))(points), axis=1))]


def _follow(config: Config, problem: problems.Problem, optimizer: Transform, start: jax.Array) -> tuple[Any, Any]:
    run = training.train(
        problem, optimizer, num_steps=config.num_steps, key=jax.random.key(0), params=start, record_params_every=1
    )
    return run.snapshots, problem.loss(run.params)


def claims(record: Record) -> list[Claim]:
    """Judge the step, and how many starts are solved."""
    found, config = record.results, record.config

    def solved(label: str) -> Measurement:
        losses = np.asarray(found[label]["losses"])
        return share_of_trials(int((losses < config["solved"]).sum()), len(losses))

    def step(label: str) -> Measurement:
        return exact(float(found[label]["step"]))

    bound = config["rate"] * config["threshold"]
    return [
        Claim(
            "At the wall a step without clipping is thrown out of the region",
            step("no clipping"),
            at_least(10.0, f"{GOODFELLOW}; the drawn region is 7 wide"),
            Control("with the gradient clipped", step("gradient clipped")),
            f"Length of the step; the gradient's norm is {float(found['gradient_norm']):.3g}.",
        ),
        Claim(
            "Clipping the gradient bounds the step by rate times threshold",
            step("gradient clipped"),
            at_most(bound * (1 + 1e-12), PASCANU),
            Control("a threshold that is too large", step("threshold too large")),
        ),
        Claim(
            "With the gradient clipped most starts at the wall are solved",
            solved("gradient clipped"),
            at_least(0.9, f"{PASCANU}; nine in ten"),
            Control("a threshold that is too large", solved("threshold too large")),
            f"Share of the starts within ±.25 of the wall with a loss below {config['solved']:g} after "
            f"{config['num_steps']} steps. Without clipping: {solved('no clipping')}.",
        ),
        Claim(
            "Clipping the weights, the notes' word, does not solve them",
            solved("weights clipped"),
            at_most(0.9, "the step is cut to a corner of the box, whatever the gradient says"),
            Control("clipping the gradient", solved("gradient clipped")),
            f"Weights in ±{config['weight_limit']:g}. The notes (004) say weight clipping and mean gradient clipping.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the paths from one start behind the wall."""
    shown = ("no clipping", "gradient clipped", "weights clipped", "threshold too large")
    return {
        "cliff": trajectories(
            planar.cliff(),
            {label: np.asarray(record.results[label]["path"])[:60] for label in shown},
            columns=2,
            title="A recurrent unit's cliff: clipping the gradient keeps the step at the wall short",
        )
    }


EXPERIMENT = Experiment(
    question="At a cliff, does clipping the gradient save a step, and does clipping the weights do so, too?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
