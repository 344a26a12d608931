"""Figures 6-3 to 6-8 of Saito (2016): optimizers on x²/20 + y², also with all other learning rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Expectation, at_most, exact, near, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import figures, optimizers, problems, training
from jaxopt_study.figures import response
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform

NOTES = "1 is a tie; the notes rank SGD last of the four"
BOOK = "Saito (2016), Deep Learning from Scratch, figures 6-3 to 6-8"


@dataclass(frozen=True)
class Config:
    """Settings of figure 6-8, and of the search of all learning rates."""

    start: tuple[float, float] = (-7.0, 2.0)
    num_points: int = 30  # plotted, the start among them
    sgd_rate: float = 0.95
    momentum_rate: float = 0.1
    adagrad_rate: float = 1.5
    adam_rate: float = 0.3
    num_starts: int = 1000  # further starts, as far from the minimum as the notes'
    num_rates: int = 241  # learning rates per optimizer from .01 to 10
    num_steps_of_rate: int = 1000  # steps over which a convergence rate is observed
    seed: int = 0


PRESETS = {"smoke": Config(num_starts=100, num_rates=61), "paper": Config()}


def the_notes(config: Config) -> dict[str, Transform]:
    """Return the four optimizers of Saito (2016), with ε = 1e-7 outside the root."""
    return {
        "SGD": optimizers.sgd(config.sgd_rate),
        "Momentum": optimizers.momentum(config.momentum_rate, 0.9, convention="saito2016"),
        "AdaGrad": optimizers.adagrad(config.adagrad_rate, convention="saito2016"),
        "Adam": optimizers.adam(config.adam_rate, convention="saito2016"),
    }


def heavy_ball(spectrum: Float[np.ndarray, " eigenvalues"]) -> Transform:
    """Return Polyak's best heavy ball for a spectrum: α = 4/(√L + √μ)², β = ((√L − √μ)/(√L + √μ))²."""
    low, high = np.sqrt(spectrum.min()), np.sqrt(spectrum.max())
    return optimizers.momentum(float(4 / (high + low) ** 2), float(((high - low) / (high + low)) ** 2))


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Draw the trajectories, sweep every learning rate, and start from elsewhere."""
    del data_dir
    problem = problems.planar.bowl(start=config.start)
    spectrum = np.asarray(problem.spectrum)
    chains = the_notes(config) | {"Heavy ball, optimal": heavy_ball(spectrum)}
    key, key_starts = jax.random.split(jax.random.key(config.seed))
    num_steps = config.num_points - 1
    with jax.enable_x64(True):

        @jax.jit
        def last_losses(chain: Transform, starts: Any) -> Any:
            def last_loss(start: Any) -> Any:
                return problem.loss(training.train(problem, chain, num_steps=num_steps, key=key, params=start).params)

            return jax.vmap(last_loss)(starts)

        @jax.jit
        def over_rates(chain: Transform, rates: Any) -> Any:
            def last_loss(rate: Any) -> Any:
                tuned = chain.replace(learning_rate=rate)
                return problem.loss(training.train(problem, tuned, num_steps=num_steps, key=key).params)

            losses = jax.vmap(last_loss)(rates)
            return jnp.where(jnp.isfinite(losses), losses, jnp.inf)

        def points(chain: Transform) -> Any:
            return training.train(problem, chain, num_steps=num_steps, key=key, record_params_every=1).snapshots

        angles = 2 * jnp.pi * jax.random.uniform(key_starts, (config.num_starts,))
        starts = jnp.linalg.norm(jnp.array(config.start)) * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
        rates = jnp.logspace(-2, 1, config.num_rates)
        variations = {
            "SGD .5": optimizers.sgd(0.5),
            "SGD .05": optimizers.sgd(0.05),
            "AdaGrad .3": optimizers.adagrad(0.3, convention="saito2016"),
            "Heavy ball, β .9": heavy_ball(spectrum).replace(decay=0.9),
        }

        def paths() -> dict[str, Any]:
            drawn = {label: points(chain) for label, chain in chains.items()}
            losses = {label: jax.vmap(problem.loss)(path) for label, path in drawn.items()}
            ends = {label: problem.loss(points(chain)[-1]) for label, chain in variations.items()}
            return {"points": drawn, "losses": losses, "final": {name: x[-1] for name, x in losses.items()} | ends}

        rounder = problems.quadratic([0.2, 2.0])
        return {
            "problem": "bowl",
            "optimizers": {label: repr(chain) for label, chain in (chains | variations).items()},
            **part("paths", paths),
            "from_other_starts": {
                label: part(f"{label} from other starts", partial(last_losses, (chains | variations)[label], starts))
                for label in ("SGD", "SGD .05", "Momentum", "Adam")
            },
            "sweep": {
                "learning_rate": rates,
                "loss": {
                    label: part(f"{label} at every rate", partial(over_rates, chain, rates))
                    for label, chain in chains.items()
                },
            },
            "fixed_steps": part("fixed steps", partial(_best_fixed_step, problem, config, key)),
            "fixed_steps_rounder": part("fixed steps, rounder", partial(_best_fixed_step, rounder, config, key)),
        }


def _best_fixed_step(problem: problems.Problem, config: Config, key: Any) -> dict[str, Any]:
    """Observe gradient descent's convergence rate at steps 1/1000 apart; return the fastest and some others."""
    steps = jnp.arange(850, 1000) / 1000
    half = config.num_steps_of_rate // 2

    def observed(step: Any) -> Any:
        start = jnp.ones(2)  # both eigenvectors take part
        run = training.train(
            problem, optimizers.sgd(step), num_steps=2 * half, key=key, params=start, record_params_every=half
        )
        _, middle, end = jnp.abs(run.snapshots).sum(axis=1)  # squares would underflow
        return (end / middle) ** (1 / half)

    convergence = jax.jit(jax.vmap(observed))(steps)
    best = int(jnp.argmin(convergence))
    at = {f"{step:.3f}": convergence[round(step * 1000) - 850] for step in (0.9, 0.95)}
    return {"best": steps[best], "resolution": 1e-3, "rate_of_best": convergence[best], "rate_at": at}


def claims(record: Record) -> list[Claim]:
    """Judge the settings of the figure."""
    results = record.results
    fixed, rounder, final = results["fixed_steps"], results["fixed_steps_rounder"], results["final"]
    starts, losses = results["from_other_starts"], results["losses"]
    ahead = sum(
        sgd < min(others) for sgd, *others in zip(losses["SGD"], losses["Momentum"], losses["Adam"], strict=True)
    )

    def ratio(a: str, *others: str) -> Any:
        return exact(final[a] / min(final[other] for other in others))

    return [
        Claim(
            "The fixed step with the best convergence rate is 2/(μ + L) = .9524",
            exact(fixed["best"], error=fixed["resolution"]),
            near(2 / 2.1, 2e-3, "Polyak (1987), Introduction to Optimization, section 1.4; searched in steps of .001"),
            Control("spectrum (.2, 2) for (.1, 2)", exact(rounder["best"], error=rounder["resolution"])),
        ),
        Claim(
            "SGD at .95 converges at that best rate",
            exact(fixed["rate_at"]["0.950"] / fixed["rate_of_best"]),
            at_most(1.001, "max(|1 − ημ|, |1 − ηL|) is .9050 at .95 and .9048 at its minimum"),
            Control("step .9", exact(fixed["rate_at"]["0.900"] / fixed["rate_of_best"])),
            "So the notes' figure shows gradient descent at its best, and its zigzag is what the best step looks like.",
        ),
        Claim(
            "At the last plotted point SGD is lower than the notes' Momentum and Adam",
            ratio("SGD", "Momentum", "Adam"),
            at_most(1.0, NOTES),
            Control("SGD at .5", exact(final["SGD .5"] / min(final["Momentum"], final["Adam"]))),
            "f of SGD over the lower of the two. Contradicts the notes, at their own settings and start; but Momentum "
            f"and Adam oscillate, and SGD is below both at {ahead} of the {len(losses['SGD'])} points.",
        ),
        Claim(
            "From other starts, too, SGD ends lower than the notes' Momentum",
            ratio_over_seeds(starts["SGD"], starts["Momentum"]),
            at_most(1.0, NOTES),
            Control("SGD at .05", ratio_over_seeds(starts["SGD .05"], starts["Momentum"])),
            "Starts drawn on the circle through (−7, 2), geometric mean of ratios. Contradicts the notes.",
        ),
        Claim(
            "From other starts SGD and the notes' Adam end level, within a factor of two",
            ratio_over_seeds(starts["SGD"], starts["Adam"]),
            Expectation(0.5, 2.0, "neither is ahead if the start (−7, 2) is not singled out"),
            Control("SGD at .05", ratio_over_seeds(starts["SGD .05"], starts["Adam"])),
            "Tempers the claim above: at (−7, 2) SGD is ahead of Adam by a factor of six.",
        ),
        Claim(
            "AdaGrad ends lowest of the notes' four",
            ratio("AdaGrad", "SGD", "Momentum", "Adam"),
            at_most(1.0, BOOK),
            Control("AdaGrad at .3", ratio("AdaGrad .3", "SGD", "Momentum", "Adam")),
            "Agrees with the notes.",
        ),
        Claim(
            "Momentum is far better than SGD once its step and decay fit the spectrum",
            ratio("Heavy ball, optimal", "SGD"),
            at_most(1e-3, "Polyak (1964): rate (√κ − 1)/(√κ + 1) = .634 against (κ − 1)/(κ + 1) = .905"),
            Control("the same step with β = .9", ratio("Heavy ball, β .9", "SGD")),
            "The notes' decay .9 is too large for 30 steps on κ = 20, where the best is .40.",
        ),
    ]


def _point(start: Any) -> str:
    return f"({', '.join(f'{x:g}' for x in start)})".replace("-", "−")


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the trajectories, and the final value for every learning rate."""
    results, config = record.results, record.config
    problem = problems.planar.bowl(start=config["start"])
    rates = {
        "SGD": config["sgd_rate"],
        "Momentum": config["momentum_rate"],
        "AdaGrad": config["adagrad_rate"],
        "Adam": config["adam_rate"],
    }
    return {
        "trajectories": figures.trajectories(
            problem,
            results["points"],
            title=f"x²/20 + y²: {config['num_points'] - 1} steps from {_point(config['start'])}, after each name its "
            "learning rate",
            rates=rates
            | {"Heavy ball, optimal": heavy_ball(np.asarray(problem.spectrum)).hyperparams["learning_rate"]},
        ),
        "learning_rates": response(
            results["sweep"]["learning_rate"],
            results["sweep"]["loss"],
            marks={label: (rate, results["final"][label]) for label, rate in rates.items()},
            mark_label="setting of Saito (2016)",
            xlabel="learning rate",
            ylabel=f"f after {config['num_points'] - 1} steps",
            title="x²/20 + y²: every optimizer at every learning rate",
            log_x=True,
            log_y=True,
            smallest=1e-9,
            largest=1e2,
        ),
    }


EXPERIMENT = Experiment(
    question="Is SGD the poor one on x²/20 + y², as the notes' figure suggests?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
