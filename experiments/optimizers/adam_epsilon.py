"""Effect of a larger ε on an unstable Adam, and the limit of large ε."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import (
    Claim,
    Control,
    Measurement,
    at_least,
    at_most,
    exact,
    mean_over_seeds,
    near,
    ratio_over_seeds,
)
from experiments.experiment import Experiment
from experiments.parts import journal, part
from jaxopt_study import optimizers, problems, sweeps, training
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform, bias_correction, chain, ema, scale_by_learning_rate

CHOI = "Choi et al. (2019), On empirical comparisons of optimizers for deep learning, section 3: ε → ∞ is momentum"
NOTES = "the notes: with Adam, raise ε a little when training is unstable"
GUESSING = float(np.log(10))


@dataclass(frozen=True)
class Config:
    """A quadratic, where the limit can be followed exactly, and a network at many rates and ε."""

    rate: float = 0.1  # of the quadratic's momentum; Adam's is ε times as much
    exponents: tuple[int, ...] = tuple(range(-8, 9))  # of ε there, as powers of ten
    quadratic_steps: int = 200
    data: images.Images = "mnist"
    num_train: int | None = None
    widths: tuple[int, ...] = (100,) * 4
    batch_size: int | None = 128
    order: Literal["with_replacement", "reshuffle"] = "with_replacement"
    num_steps: int = 500
    eps: tuple[float, ...] = (1e-8, 1e-6, 1e-4, 1e-2, 1.0, 100.0)
    rates: tuple[float, float] = (1e-4, 1e3)
    num_rates: int = 15  # two in a decade
    num_seeds: int = 10
    unstable: float = 0.1  # a rate at which Adam with the smallest ε does not train
    good: float = 0.001  # the rate of the paper
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=200, widths=(20, 20), batch_size=None, order="reshuffle", num_steps=100,
        eps=(1e-8, 1e-6, 1e-2, 1.0, 100.0), unstable=1.0, good=0.01, num_seeds=8,
    ),
    "paper": Config(),
}  # fmt: skip


def momentum(learning_rate: Any) -> Transform:
    """Return Adam's step without its division: the mean of the gradients, corrected for its start."""
    return chain(ema(0.9), bias_correction(0.9), scale_by_learning_rate(learning_rate))


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Follow the limit on a quadratic; train a network at every rate and ε, and with momentum alone."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0)
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    search = partial(
        sweeps.search, problem=problem, sampler="grid", num_seeds=config.num_seeds, num_steps=config.num_steps,
        batch_size=config.batch_size, order=config.order, key=jax.random.key(config.seed), evaluate_on="test",
        metric="test_loss",
    )  # fmt: skip
    rates = sweeps.log_uniform(*config.rates)
    adam = search(
        optimizers.adam(), {"learning_rate": rates, "eps": sweeps.choices(*config.eps)},
        num_trials=config.num_rates * len(config.eps), journal=journal("Adam"),
    )  # fmt: skip
    mean = search(momentum, {"learning_rate": rates}, num_trials=config.num_rates, journal=journal("momentum"))
    return {
        "quadratic": part("quadratic", partial(_follow, config)),
        "adam": _rows(adam),
        "momentum": _rows(mean),
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _follow(config: Config) -> dict[str, Any]:
    """Return how far Adam at rate ηε strays from momentum at rate η, relative to momentum's largest distance from 0."""
    with jax.enable_x64(True):
        problem = problems.quadratic([0.1, 2.0])
        key = jax.random.key(config.seed)

        def path(tx: Transform) -> Any:
            run = training.train(problem, tx, num_steps=config.quadratic_steps, key=key, record_params_every=1)
            return run.snapshots

        eps = 10.0 ** np.array(config.exponents, dtype=float)
        limit = path(momentum(config.rate))
        paths = jax.jit(jax.vmap(lambda e: path(optimizers.adam(config.rate * e, eps=e))))(jnp.asarray(eps))
        strayed = jnp.abs(paths - limit).max(axis=(1, 2)) / jnp.abs(limit).max()
    return {"eps": eps, "distance": np.asarray(strayed)}


def _rows(found: sweeps.Search) -> list[dict[str, Any]]:
    """Return the trials; a run that diverged, or is worse than guessing, has the loss of guessing."""
    losses = np.minimum(np.where(np.isnan(found.final), GUESSING, found.final), GUESSING)
    accuracy = np.where(found.diverged, 0.1, found.curves["test_accuracy"][:, :, -1])
    return [{**config, "test_loss": losses[i], "test_accuracy": accuracy[i]} for i, config in enumerate(found.configs)]


def claims(record: Record) -> list[Claim]:
    """Judge the limit of large ε, and the advice to raise ε."""
    results, config = record.results, record.config
    smallest, second, *_ = config["eps"]
    followed = dict(zip(config["exponents"], results["quadratic"]["distance"], strict=True))
    unstable, good = config["unstable"], config["good"]

    def at(rate: float, eps: float, what: str = "test_accuracy") -> Float[np.ndarray, " seeds"]:
        (found,) = [t for t in results["adam"] if t["eps"] == eps and abs(np.log10(t["learning_rate"] / rate)) < 1e-6]
        return np.array(found[what])

    def slope(low: int, high: int) -> Measurement:
        return exact((np.log10(followed[high]) - np.log10(followed[low])) / (high - low))

    def table(eps: float) -> tuple[Float[np.ndarray, " rates"], Float[np.ndarray, "rates seeds"]]:
        rows = [t for t in results["adam"] if t["eps"] == eps]
        return np.array([t["learning_rate"] for t in rows]), np.array([t["test_loss"] for t in rows])

    def best_rate(eps: float) -> Float[np.ndarray, " seeds"]:
        rates, losses = table(eps)
        return np.log10(rates[losses.argmin(axis=0)])

    def beside_momentum(eps: float) -> Measurement:
        """Compare the loss at rate ηε with momentum's at η, a decade below its best, where training is stable."""
        best = min(results["momentum"], key=lambda t: np.median(t["test_loss"]))["learning_rate"]
        limit = min(results["momentum"], key=lambda t: abs(np.log10(10 * t["learning_rate"] / best)))
        return ratio_over_seeds(at(limit["learning_rate"] * eps, eps, "test_loss"), np.array(limit["test_loss"]))

    return [
        Claim(
            "Adam at rate ηε and momentum at rate η differ by an amount that falls as 1/ε",
            slope(3, 8),
            near(-1.0, 0.01, f"{CHOI}; first order in √v/ε"),
            Control("small ε, which Adam does not notice", slope(-8, -5)),
            "Slope of log₁₀ of the largest distance of the two paths on x²/20 + y², ε from 10³ to 10⁸, double "
            "precision.",
        ),
        Claim(
            "A network at ε = 100 ends where momentum does",
            beside_momentum(100.0),
            near(1.0, 0.02, f"{CHOI}; two percent of the loss"),
            Control("ε = .01", beside_momentum(0.01)),
            "Ratio of the test losses, a decade below the rate that is best for momentum and at ε times as much.",
        ),
        Claim(
            "For large ε the best rate grows in proportion to it",
            mean_over_seeds(best_rate(100.0) - best_rate(1.0)),
            near(2.0, 0.5, f"{CHOI}; a step of the grid is half a decade"),
            Control(f"from {smallest:g} to {second:g}", mean_over_seeds(best_rate(second) - best_rate(smallest))),
            "Decades from the best rate at ε = 1 to that at ε = 100.",
        ),
        Claim(
            f"At rate {unstable:g}, where Adam does not train, raising ε to 1 makes it train",
            mean_over_seeds(at(unstable, 1.0) - at(unstable, smallest)),
            at_least(0.3, NOTES),
            Control(f"raising it to {second:g}", mean_over_seeds(at(unstable, second) - at(unstable, smallest))),
            "Gain of test accuracy. Agrees with the notes, but 'a little' is not enough: ε must exceed √v.",
        ),
        Claim(
            f"Lowering the rate to {good:g} instead does as well",
            mean_over_seeds(at(unstable, 1.0) - at(good, smallest)),
            at_most(0.01, "a point of test accuracy; the notes advise to do both"),
            Control("lowering nothing", mean_over_seeds(at(unstable, 1.0) - at(unstable, smallest))),
            "Test accuracy with ε raised less that with the rate lowered.",
        ),
        Claim(
            f"With its rate tuned, ε = .01 is worth no more than {smallest:g}",
            ratio_over_seeds(table(smallest)[1].min(axis=0), table(0.01)[1].min(axis=0)),
            near(1.0, 0.15, "ours; Choi et al. find ε worth tuning on larger tasks"),
            Control(
                f"the rate left at {good:g}, ε = 1",
                ratio_over_seeds(at(good, smallest, "test_loss"), at(good, 1.0, "test_loss")),
            ),
            "Ratio of the test losses, each the best of all rates by the same examples.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw how Adam becomes momentum, and the loss over the rate for every ε."""
    results, config = record.results, record.config
    data = images.TITLES[config["data"]]
    rates = sorted({trial["learning_rate"] for trial in results["adam"]})

    def curve(trials: list[Any]) -> list[float]:
        return [float(np.median(t["test_loss"])) for t in sorted(trials, key=lambda t: t["learning_rate"])]

    curves = {f"Adam, ε = {eps:g}": curve([t for t in results["adam"] if t["eps"] == eps]) for eps in config["eps"]}
    return {
        "limit": response(
            results["quadratic"]["eps"], {"Adam at rate ηε": results["quadratic"]["distance"]}, xlabel="ε", log_x=True,
            log_y=True, ylabel="largest distance from momentum's path, relative",
            title="x²/20 + y²: Adam becomes momentum as 1/ε",
        ),
        "rates": response(
            rates, {**curves, "momentum (mean)": curve(results["momentum"])}, xlabel="learning rate", log_x=True,
            log_y=True, ylabel=f"test loss (nats), median of {config['num_seeds']} seeds",
            level=GUESSING, level_label="guessing",
            title=f"{data}, {config['num_steps']} steps: ε moves the best rate",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does a larger ε calm an unstable Adam, and what is left of Adam when it is large?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
