"""Local against global structure: descent from both sides of a mountain without minimum or saddle."""

from collections.abc import Mapping
from dataclasses import dataclass
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
from jaxopt_study.transforms import Transform

GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.2.7 and figure 8.4"


@dataclass(frozen=True)
class Config:
    """A mountain between two plains, the right one lower, and starts on both sides."""

    num_steps: int = 5_000
    distance: float = 2.0  # of all starts from the summit
    num_starts: int = 200  # random directions, where restarts begin
    reached: float = 0.05  # above the infimum
    seed: int = 0


PRESETS = {"smoke": Config(num_steps=1_500, num_starts=50), "paper": Config()}


def methods() -> dict[str, Transform]:
    """Return the optimizers of the notes, at rates that reach the right plain from the right."""
    return {
        "SGD": optimizers.sgd(1.0),
        "momentum": optimizers.momentum(0.3),
        "Nesterov": optimizers.nesterov_lookahead(0.3),
        "AdaGrad": optimizers.adagrad(1.0),
        "AdaDelta": optimizers.adadelta(eps=1e-2),
        "RMSprop": optimizers.rmsprop(0.03),
        "Adam": optimizers.adam(0.03),
    }


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Follow every optimizer from the left, from the right, and from random directions."""
    del data_dir
    with jax.enable_x64(True):
        problem = planar.mountain()
        angles = 2 * jnp.pi * jax.random.uniform(jax.random.key(config.seed), (config.num_starts,))
        around = config.distance * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
        sides = config.distance * jnp.array([[-0.9, 0.436], [0.9, 0.436]])
        found = {}
        for label, optimizer in methods().items():
            follow = jax.jit(jax.vmap(lambda start, tx=optimizer: _follow(config, problem, tx, start)))
            path, losses, norms = follow(jnp.concatenate([sides, around]))
            found[label] = {
                "from_left": losses[0], "from_right": losses[1], "around": losses[2:], "path": path[0, ::10],
                "right_path": path[1, ::10], "gradient_norm": norms[0],
            }  # fmt: skip
        metadata = {**problem.metadata, "gradient_norms_along": _slopes(problem)}
    return {"methods": jax.tree.map(np.asarray, found), "problem": metadata, "angles": np.asarray(angles)}


def _follow(config: Config, problem: problems.Problem, optimizer: Transform, start: jax.Array) -> Any:
    run = training.train(
        problem, optimizer, num_steps=config.num_steps, key=jax.random.key(0), params=start, record_params_every=1
    )
    return run.snapshots[:500], problem.loss(run.params), jnp.linalg.norm(jax.grad(problem.loss)(run.params))


def _slopes(problem: problems.Problem) -> np.ndarray:
    """Return gradient norms on circles of 1 to 50 around the summit, the smallest on each: none is a critical point."""
    angles = jnp.linspace(0, 2 * jnp.pi, 721)
    circle = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    gradient = jax.vmap(jax.grad(problem.loss))
    return np.array([jnp.linalg.norm(gradient(radius * circle), axis=1).min() for radius in (0.5, 1, 2, 5, 10, 50)])


def claims(record: Record) -> list[Claim]:
    """Judge where the optimizers end, from both sides and with restarts."""
    found, config = record.results["methods"], record.config
    infimum, left = record.results["problem"]["infimum"], record.results["problem"]["left_level"]

    def largest(side: str) -> Measurement:
        return exact(max(float(each[side]) for each in found.values()))

    def smallest(side: str) -> Measurement:
        return exact(min(float(each[side]) for each in found.values()))

    reached = np.array([np.asarray(each["around"]) < infimum + config["reached"] for each in found.values()])
    one, five = _share(reached, 1), _share(reached, 5)
    slopes = record.results["problem"]["gradient_norms_along"]
    return [
        Claim(
            "From the left every optimizer of the notes fails",
            smallest("from_left"),
            at_least(left - 0.05, f"{GOODFELLOW}; the left plain is at {left:g}, the infimum at {infimum:g}"),
            Control("from the right", smallest("from_right")),
            f"The lowest of the {len(found)} final losses. There is no critical point but the summit: on circles of "
            f"radius .5 to 50 around it the gradient's norm is at least {min(slopes):.1e}.",
        ),
        Claim(
            "From the right every one of them succeeds",
            largest("from_right"),
            at_most(infimum + config["reached"], f"{GOODFELLOW}; within {config['reached']:g} of the infimum"),
            Control("from the left", largest("from_left")),
            "The highest of the final losses.",
        ),
        Claim(
            "One random start often fails",
            one,
            at_most(0.8, "a little more than half of the directions lead to the right plain"),
            Control("the best of five restarts", five),
        ),
        Claim(
            "The best of five restarts nearly always succeeds",
            five,
            at_least(0.9, "1 − .4⁵ = .99 if two in five starts fail"),
            Control("one start", one),
            "Restarts need no better optimizer: the trouble is in the start, not in the step.",
        ),
    ]


def _share(reached: np.ndarray, together: int) -> Measurement:
    """Return how often the best of some starts reaches the infimum; starts are not shared between groups."""
    groups = reached[:, : reached.shape[1] // together * together].reshape(-1, together)
    return share_of_trials(int(groups.any(axis=1).sum()), len(groups))


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the paths from the left."""
    found = record.results["methods"]
    return {
        "local_vs_global": trajectories(
            planar.mountain(),
            {label: np.asarray(each["path"]) for label, each in found.items()},
            together=True,
            title="A mountain between two plains: from the left every optimizer descends to the wrong one",
        )
    }


EXPERIMENT = Experiment(
    question="Can every optimizer fail where there is no minimum, no saddle and no plateau in its way?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
