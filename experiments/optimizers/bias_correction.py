"""Adam's bias correction: its effect on the first steps, and the settings in which training needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
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
    share_of_trials,
)
from experiments.experiment import Experiment
from experiments.parts import journal, part
from jaxopt_study import figures, optimizers, sweeps
from jaxopt_study.figures import Panel, panels, response
from jaxopt_study.problems import Problem, networks
from jaxopt_study.records import Record
from jaxopt_study.sweeps import variants_of
from jaxopt_study.transforms import Transform, chain, divide_by_root, ema, merge, scale_by_learning_rate

KINGMA = "Kingma and Ba (2015), section 3: (1 − β₁ᵗ)/√(1 − β₂ᵗ) under a constant gradient"
EARLIER = "measured once before; the tolerance is ours"
B1, B2 = 0.9, 0.999


@dataclass(frozen=True)
class Config:
    """A constant gradient, and a network at a harmless and at a fatal setting."""

    num_constant: int = 5_000  # steps under a constant gradient
    tolerance: float = 1e-6
    data: images.Images = "mnist"
    num_train: int | None = None
    widths: tuple[int, ...] = (100,) * 4
    batch_size: int | None = 128
    order: Literal["with_replacement", "reshuffle"] = "with_replacement"
    num_steps: int = 1_000
    window: int = 50  # a loss is the mean over so many steps
    rates: tuple[float, float] = (0.001, 0.01)  # harmless, fatal
    decays: tuple[float, ...] = (0.99, 0.999, 0.9999)  # β₂; the middle one is harmless, the last one fatal
    num_seeds: int = 10
    dead: float = 1.0  # nats: a training loss above is that of a network that does not learn
    seed: int = 0


PRESETS = {
    "smoke": Config(
        data="digits", num_train=200, widths=(20, 20), batch_size=None, order="reshuffle", num_steps=100, window=10,
        rates=(0.01, 0.1), num_seeds=6,
    ),
    "paper": Config(),
}  # fmt: skip


def with_correction(learning_rate: Any, b2: Any) -> Transform:
    """Return Adam."""
    return optimizers.adam(learning_rate, b2=b2)


def without_correction(learning_rate: Any, b2: Any) -> Transform:
    """Return Adam without its bias corrections."""
    return chain(merge(divide_by_root(), ema(B1), ema(b2, of=jnp.square)), scale_by_learning_rate(learning_rate))


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Step under a constant gradient, train with and without, and take Adam apart at the fatal setting."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0)
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    train_key, ablate_key = jax.random.split(jax.random.key(config.seed))
    settings: dict[str, Any] = {
        "num_steps": config.num_steps, "num_seeds": config.num_seeds, "batch_size": config.batch_size,
        "order": config.order, "evaluate_every": config.window,
    }  # fmt: skip
    return {
        "constant": part("constant gradient", lambda: _under_constant_gradient(config)),
        "trained": _train(config, problem, settings, train_key),
        "ablation": _ablate(config, problem, settings, ablate_key),
        "problem": dict(problem.metadata),
        "data_sha256": dataset.sha256,
    }


def _under_constant_gradient(config: Config) -> dict[str, Any]:
    """Return how much longer steps are without corrections than with all of them, from the chains themselves."""
    with jax.enable_x64(True):
        gradient = jnp.ones(())

        def lengths(tx: Transform) -> Float[np.ndarray, " steps"]:
            def step(state: Any, _: None) -> tuple[Any, Any]:
                update, state = tx.update(gradient, state)
                return state, jnp.abs(jax.tree.leaves(update)[0])

            return np.asarray(jax.lax.scan(step, tx.init(gradient), length=config.num_constant)[1])

        found = {}
        for b2 in (B2, 0.99):
            variants = {v.name: v.optimizer for v in variants_of(optimizers.adam(1.0, b2=b2, eps=0.0))}
            full = lengths(variants["full"])
            left_out = {
                "both": "without every bias_correction",
                "that of the mean": f"without bias_correction({B1})",
                "that of the mean square": f"without bias_correction({b2})",
            }
            found[f"{b2:g}"] = {name: lengths(variants[variant]) / full for name, variant in left_out.items()}
    shown = np.unique(np.geomspace(1, config.num_constant, 150).astype(int))
    return {
        "steps": shown,
        "shown": {name: ratios[shown - 1] for name, ratios in found[f"{B2:g}"].items()},
        "first": {b2: {name: ratios[0] for name, ratios in rows.items()} for b2, rows in found.items()},
        "largest": {b2: rows["both"].max() for b2, rows in found.items()},
        "largest_at": {b2: rows["both"].argmax() + 1 for b2, rows in found.items()},
    }


def _train(config: Config, problem: Problem, settings: dict[str, Any], key: Any) -> list[dict[str, Any]]:
    """Train at every rate and decay from the same starts on the same batches: a program with, and one without."""
    trials = []
    for name, make in (("with", with_correction), ("without", without_correction)):
        found = sweeps.search(
            make,
            {"learning_rate": sweeps.choices(*config.rates), "b2": sweeps.choices(*config.decays)},
            problem, sampler="grid", num_trials=len(config.rates) * len(config.decays), key=key,
            metric="test_accuracy", evaluate_on="test", journal=journal(f"{name} corrections"), **settings,
        )  # fmt: skip
        loss = np.where(found.diverged[:, :, None], np.nan, found.curves["batch_loss"])
        trials += [
            {
                **config_,
                "corrections": name,
                "loss": loss[i, :, -1],
                "test_accuracy": np.where(np.isnan(found.final[i]), 0.1, found.final[i]),  # diverged: guesses
                "curves": [[float(f"{value:.4g}") for value in curve] for curve in loss[i]],
            }
            for i, config_ in enumerate(found.configs)
        ]
    return [{"steps": found.steps}, *trials]


def _ablate(config: Config, problem: Problem, settings: dict[str, Any], key: Any) -> list[dict[str, Any]]:
    """Take Adam apart at the fatal setting."""
    found = sweeps.ablate(
        optimizers.adam(config.rates[-1], b2=config.decays[-1]), problem, key=key, metric="accuracy",
        journal=journal("ablation"), **settings,
    )  # fmt: skip
    return [
        {
            "variant": each.variant.name,
            "kind": each.variant.kind,
            "loss": each.loss,
            "p_value": each.p_value,
            "verdict": each.verdict,
            "diverged": each.diverged,
        }
        for each in found.contributions()
    ]


def claims(record: Record) -> list[Claim]:
    """Judge the steps under a constant gradient, and the training of a network."""
    results, config = record.results, record.config
    constant, tolerance = results["constant"], config["tolerance"]
    times = np.arange(1, config["num_constant"] + 1)
    theory = (1 - B1**times) / np.sqrt(1 - B2**times)
    first = constant["first"][f"{B2:g}"]
    (low, high), (b2, fatal) = config["rates"], config["decays"][-2:]

    def trained(corrections: str, rate: float, decay: float) -> Mapping[str, Any]:
        wanted = corrections, rate, decay
        (found,) = [t for t in results["trained"][1:] if (t["corrections"], t["learning_rate"], t["b2"]) == wanted]
        return found

    def dead(corrections: str) -> Measurement:
        loss = np.array(trained(corrections, high, fatal)["loss"])
        return share_of_trials(int((~(loss < config["dead"])).sum()), len(loss))

    def cost(rate: float, decay: float) -> Measurement:
        accuracy = [np.array(trained(name, rate, decay)["test_accuracy"]) for name in ("with", "without")]
        return mean_over_seeds(accuracy[0] - accuracy[1])

    return [
        Claim(
            "Without corrections Adam's first step under a constant gradient is 3.16 times too long",
            exact(first["both"]),
            near(float(theory[0]), tolerance, KINGMA),
            Control("β₂ = .99", exact(constant["first"]["0.99"]["both"])),
            "(1 − β₁)/√(1 − β₂) at β₁ .9, β₂ .999, in double precision.",
        ),
        Claim(
            "The twelfth is the longest, 6.57 times too long",
            exact(constant["largest"][f"{B2:g}"]),
            near(float(theory.max()), tolerance, KINGMA),
            Control("β₂ = .99", exact(constant["largest"]["0.99"])),
            f"Longest at step {constant['largest_at'][f'{B2:g}']}; by the formula at {int(theory.argmax()) + 1}.",
        ),
        Claim(
            "One correction alone is worse than none: without that of the mean square the first step is 31.6 times too "
            "long",
            exact(first["that of the mean square"]),
            near(float(1 / np.sqrt(1 - B2)), 10 * tolerance, "1/√(1 − β₂)"),
            Control("without both", exact(first["both"])),
        ),
        Claim(
            f"At rate {low:g} and β₂ {b2:g} leaving out both corrections costs a network nothing",
            cost(low, b2),
            at_most(0.005, f"half a point of test accuracy; {EARLIER}"),
            Control(f"rate {high:g} and β₂ {fatal:g}", cost(high, fatal)),
            "Test accuracy with less without, paired by seed. A run that diverges guesses.",
        ),
        Claim(
            f"At rate {high:g} and β₂ {fatal:g} the network dies without them",
            dead("without"),
            at_least(0.5, EARLIER),
            Control("with them", dead("with")),
            f"Share of seeds whose training loss ends above {config['dead']:g} nat.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the steps under a constant gradient, the networks, and the contribution of each atom of Adam."""
    results, config = record.results, record.config
    data = images.TITLES[config["data"]]
    constant = results["constant"]
    steps, trained = results["trained"][0]["steps"], results["trained"][1:]
    parts = results["ablation"]
    return {
        "constant_gradient": response(
            constant["steps"], constant["shown"], xlabel="step", ylabel="length of the step / with all corrections",
            log_x=True, log_y=True, level=1.0, level_label="with all corrections",
            marks={"both": (constant["largest_at"][f"{B2:g}"],
            constant["largest"][f"{B2:g}"])}, mark_label="longest",
            title="Adam under a constant gradient, a bias correction left out",
        ),
        "networks": panels(
            steps,
            [
                Panel(
                    f"rate {rate:g}, β₂ {b2:g}",
                    {f"{t['corrections']} corrections": t["curves"] for t in trained
                     if (t["learning_rate"], t["b2"]) == (rate, b2)},
                    log=True,
                )
                for rate in config["rates"]
                for b2 in config["decays"]
            ],
            columns=3, title=f"{data}: training loss (nats)",
        ),
        "ablation": figures.ablation(
            ["without merge (plain SGD)" if part["variant"] == "without merge" else part["variant"] for part in parts],
            [tuple(part["loss"]) for part in parts],
            xlabel="test accuracy lost", better=("better with the change", "worse with the change"),
            title=f"{data}: Adam at {config['rates'][-1]:g}, β₂ {config['decays'][-1]:g}, taken apart, "
            f"{config['num_seeds']} seeds",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="What does Adam's bias correction do, and where does training need it?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
