"""Ill-conditioning along the training of a network: the two terms of a gradient step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds
from experiments.curvature.edge_of_stability import shortened
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, dynamics, optimizers, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.linalg import vectors
from jaxopt_study.problems import Problem, datasets, networks
from jaxopt_study.records import Record

BOOK = "Goodfellow, Bengio and Courville (2016), Deep Learning, section 8.2.1"
GUR_ARI = "Gur-Ari, Roberts and Dyer (2018), Gradient descent happens in a tiny subspace"


@dataclass(frozen=True)
class Config:
    """A small network on the digits, trained by SGD at several rates."""

    widths: tuple[int, ...] = (32,)
    rates: tuple[float, ...] = (0.02, 0.1, 0.5)
    batch_size: int = 64
    num_steps: int = 1_500
    every: int = 100
    num_classes: int = 10  # dimensions of the top eigenspace
    num_seeds: int = 4
    seed: int = 0


PRESETS = {"smoke": Config(widths=(10,), rates=(0.02, 0.5), num_steps=600, every=100, num_seeds=3), "paper": Config()}


def terms_probe(problem: Problem, rates: tuple[float, float], num_classes: int, every: int) -> training.Probe:
    """Return a probe of the gradient and the Hessian on all training examples.

    Args:
        problem: The problem.
        rates: Two ε, a small and a large, whose steps −εg are accounted for.
        num_classes: Dimensions of the top eigenspace.
        every: Steps between measurements.
    """

    def measure(params: Any, opt_state: Any, batch: Any) -> dict[str, Any]:
        del opt_state, batch
        grads = jax.grad(problem.loss)(params, problem.data)
        op = curvature.hessian(problem.loss, params, problem.data)
        terms = curvature.ill_conditioning(op, grads)
        pairs = curvature.eigenpairs(op, num_classes, tol=3e-3, key=jax.random.key(0), max_matvecs=300)
        random = vectors.random_like(params, key=jax.random.key(1), distribution="sphere")
        small, large = (
            dynamics.account_step(
                problem.loss, params, jax.tree.map(lambda g, rate=rate: -rate * g, grads), problem.data, num_samples=2
            )
            for rate in rates
        )
        inside = vectors.project(pairs.vectors, grads) / terms.gradient_norm
        return {
            "gg": terms.gg,
            "ghg": terms.ghg,
            "hg_norm": terms.hg_norm,
            "cosine": terms.cosine,
            "largest_step": terms.largest_step,
            "share": (inside**2).sum(),
            "random_share": (vectors.project(pairs.vectors, random) ** 2).sum(),
            "sharpness": pairs.values[0],
            "residual": pairs.residuals.max() / pairs.values[0],
            "small_step": small.realised / small.predicted,
            "small_step_linear": small.realised / small.linear,
            "large_step": large.realised / large.predicted,
            "loss": problem.loss(params, problem.data),
        }

    return training.Probe(measure, every)


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train at every rate from the same starts, measuring on all examples along the way."""
    del data_dir
    dataset = datasets.digits(num_validation=0)
    problem = networks.mlp_classifier(dataset, widths=config.widths, activation="tanh", initialiser="xavier")
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    probe = terms_probe(problem, (config.rates[0], config.rates[-1]), config.num_classes, config.every)
    size = sum(leaf.size for leaf in jax.tree.leaves(problem.init(keys[0])))

    def lane(rate: float) -> dict[str, Any]:
        runs = [
            training.train(
                problem, optimizers.sgd(rate), num_steps=config.num_steps, key=key, batch_size=config.batch_size,
                probe=probe, progress=False,
            )
            for key in keys
        ]  # fmt: skip
        return {"steps": runs[0].probe_steps} | {
            name: shortened(np.stack([np.asarray(found.probes[name]) for found in runs])) for name in runs[0].probes
        }

    lanes = {f"{rate:g}": part(f"rate {rate:g}", partial(lane, rate)) for rate in config.rates}
    steps = [found.pop("steps") for found in lanes.values()]
    return {
        "steps": steps[0],
        "lanes": lanes,
        "num_params": size,
        "data_sha256": dataset.sha256,
    }


def claims(record: Record) -> list[Claim]:
    """Judge the two terms of the step, the statements of the book about them, and the direction of the gradient."""
    config, lanes = record.config, record.results["lanes"]
    low, high = config["rates"][0], config["rates"][-1]
    slow, fast = lanes[f"{low:g}"], lanes[f"{high:g}"]
    half, classes = len(record.results["steps"]) // 2, config["num_classes"]

    def late(values: Any) -> Measurement:
        return mean_over_seeds(np.median(np.array(values)[:, half:], axis=1))

    def growth(values: Any) -> Measurement:
        rows = np.array(values)
        return mean_over_seeds(np.log10(np.median(rows[:, half:], axis=1) / rows[:, 0]))

    def misfit(values: Any) -> Measurement:
        return late(np.abs(np.array(values) - 1))

    def taken_back(scale: float) -> Measurement:
        return late(scale * high / np.array(fast["largest_step"]))

    alignment = np.array(fast["cosine"])
    return [
        Claim(
            f"The two terms predict the change of the loss in a step −εg of ε = {low:g}",
            misfit(fast["small_step"]),
            at_most(1e-3, "third order; a thousandth of the change"),
            Control("the linear term alone", misfit(fast["small_step_linear"])),
            f"Median of |realised/predicted − 1|, along a run at rate {high:g}.",
        ),
        Claim(
            f"The gradient's norm does shrink: gᵀg at rate {high:g}",
            growth(fast["gg"]),
            at_most(-1.0, f"{BOOK}, says that it often does not shrink significantly; a tenth is significant"),
            Control("the curvature along the gradient, gᵀHg/gᵀg", growth(np.array(fast["ghg"]) / np.array(fast["gg"]))),
            "log₁₀ of the median over the second half over the start. Contradicts the book's 'often', on this network.",
        ),
        Claim(
            f"The quadratic term does not grow: gᵀHg at rate {high:g}",
            growth(fast["ghg"]),
            at_most(0.0, f"{BOOK}, says that it often grows by more than an order of magnitude"),
            Control("the cosine of g and Hg, which does grow", growth(alignment)),
            "log₁₀, as above. Contradicts the book's 'often', on this network.",
        ),
        Claim(
            f"The linear term wins: at ε = {high:g} the quadratic one takes back less than half of it",
            taken_back(1.0),
            at_most(0.5, f"{BOOK}: ill-conditioning shows where ½ε²gᵀHg exceeds εgᵀg, that is at 1"),
            Control("steps of five times the length", taken_back(5.0)),
            "Median of ½ε gᵀHg/gᵀg over the second half: no ill-conditioning in the book's sense at these rates.",
        ),
        Claim(
            f"At rate {high:g} the gradient lies in the eigenspace of the {classes} largest eigenvalues, one per class",
            late(fast["share"]),
            at_least(0.8, f"{GUR_ARI}; the tolerance is ours"),
            Control(f"a random direction, {classes}/{record.results['num_params']}", late(fast["random_share"])),
            "‖Vᵀg‖²/‖g‖², g and H on all training examples, over the second half.",
        ),
        Claim(
            f"At rate {low:g} it does not",
            late(slow["share"]),
            at_most(0.2, f"{GUR_ARI} find the share near 1 after a short time"),
            Control(f"rate {high:g}", late(fast["share"])),
            "As above, after as many steps. At equal loss, too, the share grows with the rate: it says as much of the "
            "step as of the landscape.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw both terms, the largest step, and where the gradient lies."""
    lanes, config = record.results["lanes"], record.config
    names = {f"SGD, ε = {rate:g}": lanes[f"{rate:g}"] for rate in config["rates"]}
    high = f"{config['rates'][-1]:g}"

    def of(key: str) -> dict[str, Float[np.ndarray, "seeds measurements"]]:
        return {name: np.array(lane[key]) for name, lane in names.items()}

    share = of("share") | {"random direction": np.array(lanes[high]["random_share"])}
    return {
        "ill_conditioning": panels(
            record.results["steps"],
            [
                Panel("linear term gᵀg", of("gg"), log=True),
                Panel("quadratic term gᵀHg", of("ghg"), log=True),
                Panel("largest ε: 2 gᵀg/gᵀHg", of("largest_step"), log=True),
                Panel("training loss (nats)", of("loss"), log=True),
                Panel("cosine of g and Hg", of("cosine"), smallest=-0.03, largest=1.03),
                Panel(f"share of g in the top {config['num_classes']}", share, smallest=-0.03, largest=1.03),
            ],
            title="A network on the digits: both terms of a gradient step, and where the gradient lies",
        )
    }


EXPERIMENT = Experiment(
    question="Does ill-conditioning hold a network back, and where does its gradient lie?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
