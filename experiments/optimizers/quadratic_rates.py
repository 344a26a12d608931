"""Convergence rates and stability thresholds of optimizers on a quadratic, compared with theory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import response
from jaxopt_study.records import Record
from jaxopt_study.transforms import (
    Transform,
    add_decayed_weights,
    chain,
    ema,
    gradient_point,
    heavy_ball,
    identity,
    merge,
    scale_by_learning_rate,
    weighted_sum,
)
from jaxopt_study.types import Key

LOW, HIGH = 0.1, 2.0  # μ and L of x²/20 + y²
KAPPA = HIGH / LOW
RATE, DECAY = 0.01, 0.9  # η and γ of the stability limits
DRAWN = ("GD", "Heavy ball", "Nesterov", "Nesterov, mis-ordered")


@dataclass(frozen=True)
class Config:
    """Settings of the observed rates."""

    num_starts: int = 50  # random starts behind each observed rate
    num_steps: int = 1000  # the rate is the slope of log‖θ‖ over the second half
    tolerance: float = 1e-6  # of spectral radii, and of limits relative to themselves
    observed_tolerance: float = 5e-3
    seed: int = 0


PRESETS = {"smoke": Config(num_starts=8, num_steps=400), "paper": Config()}


class Rate(NamedTuple):
    """A chain on the spectrum (.1, 2), and its rate in theory."""

    chain: Transform
    theory: float
    source: str
    control: Transform
    variation: str


class Limit(NamedTuple):
    """A chain with η = .01, and the curvature at which it turns unstable in theory."""

    chain: Transform
    theory: float
    source: str
    control: Transform
    variation: str


def misordered_nesterov(learning_rate: float, decay: float) -> Transform:
    """Return Nesterov's step as it is often coded: the velocity is updated before the step uses it.

    v ← γv − ηg, θ ← θ + γ²v − (1 + γ)ηg. The step in look-ahead coordinates wants the old v there.
    """
    step = merge(weighted_sum(decay**2 / (1 + decay)), identity(), heavy_ball(decay))
    return chain(scale_by_learning_rate(learning_rate), step, scale_by_learning_rate(1 + decay, flip_sign=False))


def rates() -> dict[str, Rate]:
    """Return the chains whose rate on κ = 20 is known, each with a variation that has another."""
    low, high = math.sqrt(LOW), math.sqrt(HIGH)
    alpha, beta = 4 / (high + low) ** 2, ((high - low) / (high + low)) ** 2
    tuned_rate = 4 / (3 * HIGH + LOW)
    tuned_root = math.sqrt(tuned_rate * LOW)
    tuned_decay = (1 - tuned_root) / (1 + tuned_root)
    plain_decay = (math.sqrt(KAPPA) - 1) / (math.sqrt(KAPPA) + 1)
    lessard = "Lessard, Recht and Packard (2016), Table 1 and Proposition 1"
    polyak = "Polyak (1964): √β while (1 − √(ηλ))² ≤ β for all λ"
    return {
        "GD, step .95": Rate(
            optimizers.sgd(0.95), 0.905, "max(|1 − ημ|, |1 − ηL|)", optimizers.sgd(0.8), "step .8"
        ),
        "Momentum of the notes": Rate(
            optimizers.momentum(0.1, 0.9), math.sqrt(0.9), polyak, optimizers.momentum(0.1, 0.95), "decay .95"
        ),
        "Heavy ball, optimal": Rate(
            optimizers.momentum(alpha, beta), math.sqrt(beta), polyak, optimizers.momentum(alpha, 0.45), "decay .45"
        ),
        "Nesterov, step 1/L": Rate(
            optimizers.nesterov_lookahead(1 / HIGH, plain_decay), 1 - 1 / math.sqrt(KAPPA), lessard,
            misordered_nesterov(1 / HIGH, plain_decay), "mis-ordered",
        ),
        "Nesterov, tuned": Rate(
            optimizers.nesterov_lookahead(tuned_rate, tuned_decay), 1 - 2 / math.sqrt(3 * KAPPA + 1), lessard,
            misordered_nesterov(tuned_rate, tuned_decay), "mis-ordered",
        ),
    }  # fmt: skip


def limits() -> dict[str, Limit]:
    """Return the chains whose stability limit is known, each with a variation that has another."""
    cohen = "Cohen et al. (2021), appendix B: heavy ball (2 + 2β)/η, Nesterov (2 + 2β)/(η(1 + 2β))"
    adaptive = "Cohen et al. (2022), section 2: EMA momentum (2 + 2β₁)/((1 − β₁)η)"
    gd = optimizers.sgd(RATE)
    lookahead = optimizers.nesterov_lookahead(RATE, DECAY)
    misordered = misordered_nesterov(RATE, DECAY)
    return {
        "GD": Limit(gd, 2 / RATE, "2/η", optimizers.momentum(RATE, DECAY), "with momentum .9"),
        "Heavy ball": Limit(
            optimizers.momentum(RATE, DECAY), (2 + 2 * DECAY) / RATE, cohen, lookahead, "Nesterov's look-ahead"
        ),
        "Nesterov": Limit(
            lookahead, (2 + 2 * DECAY) / (RATE * (1 + 2 * DECAY)), cohen, misordered, "mis-ordered"
        ),
        "Nesterov, reformulated": Limit(
            optimizers.nesterov(RATE, DECAY), (2 + 2 * DECAY) / (RATE * (1 + 2 * DECAY)), cohen, misordered,
            "mis-ordered",
        ),
        "Nesterov, mis-ordered": Limit(
            misordered, 3.8 / 4.42 / RATE, "2 + 2γ = ηλ((1 + γ)(1 + γ + γ²) − γ³), by the Jury criterion", lookahead,
            "true Nesterov",
        ),
        "EMA momentum (Adam's)": Limit(
            chain(ema(DECAY), scale_by_learning_rate(RATE)), (2 + 2 * DECAY) / ((1 - DECAY) * RATE), adaptive,
            optimizers.momentum(RATE, DECAY), "a sum for the mean",
        ),
        "Decoupled weight decay .1": Limit(
            chain(add_decayed_weights(0.1), scale_by_learning_rate(RATE)), 2 / RATE - 0.1, "2/η − λ", gd,
            "no weight decay",
        ),
    }  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Linearise every chain's step, observe its rate from random starts, and search its limit."""
    del data_dir
    with jax.enable_x64(True):
        wanted, bounds = rates(), limits()
        curvatures = np.linspace(1.0, 420.0, 200)
        return {
            "rates": {label: _both(rate, config) for label, rate in wanted.items()},
            "limits": {
                label: {"limit": _threshold(limit.chain), "control": _threshold(limit.control)}
                for label, limit in bounds.items()
            },
            "optimizers": {label: repr(item.chain) for label, item in (wanted | bounds).items()},
            "radii": {
                "curvature": curvatures,
                "radius": {label: _radii(bounds[label].chain, curvatures) for label in DRAWN},
            },
        }


def _both(rate: Rate, config: Config) -> dict[str, Any]:
    spectrum = np.array([LOW, HIGH])
    return {
        "spectral_radius": _radii(rate.chain, spectrum).max(),
        "observed": _observe(rate.chain, config),
        "control": _radii(rate.control, spectrum).max(),
        "control_observed": _observe(rate.control, config),
    }


def _radii(optimizer: Transform, curvatures: Float[np.ndarray, " curvatures"]) -> Float[np.ndarray, " curvatures"]:
    """Return the spectral radius of one training step on ½λθ², for each λ."""
    return np.abs(np.linalg.eigvals(np.asarray(_step_maps(optimizer, curvatures)))).max(axis=1)


@jax.jit
def _step_maps(optimizer: Transform, curvatures: Any) -> Float[Array, "curvatures n n"]:
    """Return the matrices by which one training step on ½λθ² multiplies parameters and optimizer state, for each λ.

    The step is linear in them, so its Jacobian at the minimum is the step itself. Counters are left out.
    """
    start = jnp.zeros(1)
    leaves, structure = jax.tree.flatten(optimizer.init(start))
    moving = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    floats = [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves]
    origin, unravel = ravel_pytree((start, floats))

    def step(flat: Any, curvature: Any) -> Any:
        params, floats = unravel(flat)
        new = iter(floats)
        state = structure.unflatten([next(new) if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)])
        gradient = curvature * gradient_point(params, state)
        updates, state = optimizer.update(gradient, state, params)
        moved = [leaf for leaf, moves in zip(jax.tree.leaves(state), moving, strict=True) if moves]
        return ravel_pytree((optax.apply_updates(params, updates), moved))[0]

    return jax.vmap(jax.jacobian(step), in_axes=(None, 0))(origin, curvatures)


def _observe(optimizer: Transform, config: Config) -> Float[np.ndarray, " starts"]:
    """Return the rates of training runs from random starts."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_starts)
    return np.asarray(_slopes(optimizer, keys, config.num_steps))


@partial(jax.jit, static_argnames="num_steps")
def _slopes(optimizer: Transform, keys: Key, num_steps: int) -> Float[Array, " starts"]:
    def slope(key: Any) -> Any:
        problem = problems.quadratic([LOW, HIGH])
        run = training.train(problem, optimizer, num_steps=num_steps, key=key, record_params_every=1)
        sizes = jnp.log(jnp.abs(run.snapshots).sum(axis=1))[num_steps // 2 :]  # squares would underflow
        return jnp.exp(jnp.polyfit(jnp.arange(sizes.size, dtype=float), sizes, 1)[0])

    return jax.vmap(slope)(keys)


def _threshold(optimizer: Transform) -> float:
    """Return the curvature at which the spectral radius passes 1, between 1 and 10⁴, by repeated subdivision."""
    low, high = 1.0, 1e4
    while high - low > 1e-10 * high:
        grid = np.linspace(low, high, 200)
        first = int(np.argmax(_radii(optimizer, grid) > 1))
        low, high = grid[first - 1], grid[first]
    return float((low + high) / 2)


def claims(record: Record) -> list[Claim]:
    """Judge rates and limits."""
    results, config = record.results, record.config
    judged = []
    for label, rate in rates().items():
        found = results["rates"][label]
        judged += [
            Claim(
                f"{label}: spectral radius",
                exact(found["spectral_radius"]),
                near(rate.theory, config["tolerance"], rate.source),
                Control(rate.variation, exact(found["control"])),
            ),
            Claim(
                f"{label}: observed rate",
                mean_over_seeds(found["observed"]),
                near(rate.theory, config["observed_tolerance"], rate.source),
                Control(rate.variation, mean_over_seeds(found["control_observed"])),
            ),
        ]
    for label, limit in limits().items():
        found = results["limits"][label]
        judged.append(
            Claim(
                f"{label}: largest stable curvature at η = .01",
                exact(found["limit"]),
                near(limit.theory, config["tolerance"] * limit.theory, limit.source),
                Control(limit.variation, exact(found["control"])),
            )
        )
    return judged


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw how the spectral radius of a step grows with the curvature, and where it passes 1."""
    radii, found = record.results["radii"], record.results["limits"]
    return {
        "stability": response(
            radii["curvature"],
            radii["radius"],
            marks={label: (found[label]["limit"], 1.0) for label in radii["radius"]},
            mark_label="stability limit",
            level=1.0,
            level_label="1: stable below",
            xlabel="curvature λ, at learning rate .01",
            ylabel="spectral radius of one step",
            title="Momentum .9: in which order Nesterov's two lines stand decides where it diverges",
            smallest=0.0,
            largest=1.5,
        )
    }


EXPERIMENT = Experiment(
    question="Do the chains converge at the rates, and diverge at the curvatures, that theory gives on a quadratic?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
