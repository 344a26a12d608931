"""Reddi's counterexample: Adam and AMSGrad on a convex problem with rare large gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, exact, near
from experiments.experiment import Experiment
from jaxopt_study.figures import response
from jaxopt_study.records import Record
from jaxopt_study.transforms import (
    Transform,
    chain,
    clip_weights,
    ema,
    identity,
    merge,
    running_max,
    scale_by_learning_rate,
)

REDDI = "Reddi, Kale and Kumar (2018), On the convergence of Adam and beyond, section 3 and figure 1"


@dataclass(frozen=True)
class Config:
    """Reddi's problem: on [−1, 1] the losses Cx, −x, −x in turn, whose sum decreases towards −1."""

    large: float = 4.0  # C
    period: int = 3
    rate: float = 0.5  # α of the step α/√t
    num_steps: int = 1_000_000
    num_starts: int = 9  # evenly spaced in [−1, 1]
    num_drawn: int = 200


PRESETS = {"smoke": Config(num_steps=30_000), "paper": Config()}


def divide_by_root(gradient: Any, second_moment: Any) -> Any:
    """Return g/√v, and 0 for 0/0."""
    return gradient / jnp.sqrt(jnp.where(second_moment > 0, second_moment, 1))


def method(config: Config, decay: float, *, maximum: bool) -> Transform:
    """Return Adam or AMSGrad as in the paper: β₁ = 0, no bias correction, no ε, projected to [−1, 1]."""
    second = [ema(decay, of=jnp.square), *([running_max()] if maximum else [])]
    return chain(
        merge(divide_by_root, identity(), chain(*second)),
        scale_by_learning_rate(lambda count: config.rate / jnp.sqrt(count + 1.0)),
        clip_weights(1.0),
    )


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Follow every method from every start."""
    del data_dir
    counterexample = 1 / (1 + config.large**2)
    with jax.enable_x64(True):
        methods = {
            "Adam": method(config, counterexample, maximum=False),
            "AMSGrad": method(config, counterexample, maximum=True),
            "Adam, β₂ .999": method(config, 0.999, maximum=False),
        }
        starts = jnp.linspace(-1.0, 1.0, config.num_starts)
        drawn = np.unique(np.append(0, np.geomspace(1, config.num_steps, config.num_drawn).round().astype(int)))
        paths = {
            label: np.asarray(jax.jit(jax.vmap(lambda x, tx=tx: _follow(config, tx, x, drawn)))(starts))
            for label, tx in methods.items()
        }
    return {"steps": drawn, "paths": paths, "beta2": counterexample}


def _follow(config: Config, optimizer: Transform, start: Any, drawn: np.ndarray) -> Any:
    """Return the iterates after the given numbers of steps, of which the first is 0."""

    def step(t: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        x, state = carry
        gradient = jnp.where(t % config.period == 0, config.large, -1.0)
        updates, state = optimizer.update(gradient, state, x)
        return x + updates, state

    def section(carry: tuple[Any, Any], ends: Any) -> tuple[tuple[Any, Any], Any]:
        return jax.lax.fori_loop(ends[0], ends[1], step, carry), carry[0]

    sections = jnp.stack([jnp.asarray(drawn[:-1]), jnp.asarray(drawn[1:])], axis=1)
    carry, path = jax.lax.scan(section, (start, optimizer.init(start)), sections)
    return jnp.append(path, carry[0])


def claims(record: Record) -> list[Claim]:
    """Judge where the methods end."""
    paths = {label: np.asarray(path) for label, path in record.results["paths"].items()}

    def worst(label: str, target: float) -> Any:
        """Return the end that is farthest from a target."""
        ends = paths[label][:, -1]
        return exact(float(ends[np.abs(ends - target).argmax()]))

    return [
        Claim(
            "Adam goes to +1, the worst point of the interval",
            worst("Adam", 1.0),
            near(1.0, 0.05, f"{REDDI}, Theorem 1; the last steps have the length α/√T"),
            Control("β₂ = .999, which remembers the whole period", worst("Adam, β₂ .999", 1.0)),
            f"β₂ = 1/(1 + C²) = {record.results['beta2']:.4f}, C = {record.config['large']:g}; of "
            f"{record.config['num_starts']} starts the end that is farthest from +1.",
        ),
        Claim(
            "AMSGrad goes to −1, the minimum",
            worst("AMSGrad", -1.0),
            near(-1.0, 0.05, f"{REDDI}, Theorem 4"),
            Control("Adam with the same β₂", worst("Adam", -1.0)),
        ),
        Claim(
            "With β₂ = .999 Adam goes to −1, too: the counterexample needs a short memory",
            worst("Adam, β₂ .999", -1.0),
            near(-1.0, 0.05, "the effective rate is then nearly constant over a period"),
            Control("β₂ = 1/(1 + C²)", worst("Adam", -1.0)),
            "For every fixed β₂ < 1 there is a longer period that fails (Theorem 2 of the paper); it is not this one.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the iterates."""
    paths = {label: np.asarray(path)[:, 1:] for label, path in record.results["paths"].items()}
    return {
        "iterates": response(
            record.results["steps"][1:], paths, xlabel="step", log_x=True, ylabel="iterate x",
            level=-1.0, level_label="minimum", smallest=-1.1, largest=1.1,
            title="Losses Cx, −x, −x in turn: Adam with a short memory climbs",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does Adam go to the wrong end of a convex problem, and AMSGrad to the right one?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
