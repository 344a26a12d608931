"""Early stopping: the restored point, its gain on few and on many images, and the L2 penalty that it resembles."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import Panel, panels, response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

NOTES = "the notes (000): stop when validation gets worse"
GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §7.8, equations 7.44 and 7.45: λ ≈ 1/(ητ)"


@dataclass(frozen=True)
class Config:
    """A quadratic, where stopping and penalty are compared mode by mode, and a network on few and on many images."""

    dim: int = 200
    spread: float = 1e4  # largest over smallest eigenvalue
    rate: float = 0.1  # times the largest eigenvalue
    stopped_at: tuple[int, ...] = (10, 100, 1_000)  # τ
    data: images.Images = "mnist"
    few: int = 300
    many: int = 10_000
    widths: tuple[int, ...] = (100, 100)
    batch_size: int = 50
    learning_rate: float = 0.1
    num_steps: int = 6_000
    num_evaluations: int = 60
    patience: int = 5
    num_seeds: int = 10
    seed: int = 0


PRESETS = {
    "smoke": Config(
        dim=50, data="digits", few=100, many=1_000, widths=(40,), learning_rate=0.3, num_steps=1_200, batch_size=20,
        num_evaluations=40, num_seeds=6,
    ),
    "paper": Config(),
}  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Compare shrinkage on a quadratic; train with and without stopping on few and on many images."""
    found: dict[str, Any] = {"quadratic": _quadratic(config)}
    for label, count in (("few", config.few), ("many", config.many)):
        dataset = images.load(config.data, data_dir, num_train=count, seed=config.seed)
        found[label] = _train(config, networks.mlp_classifier(dataset, widths=config.widths), label)
        found[f"{label}_sha256"] = dataset.sha256
    found["data_sha256"] = found["few_sha256"]
    return found


def _quadratic(config: Config) -> dict[str, Any]:
    """Return the share of each mode that is learned: 1 − (1 − ηλ)^τ, measured, against λ/(λ + α) with α = 1/(ητ)."""
    curvature = np.geomspace(1.0, 1 / config.spread, config.dim)
    with jax.enable_x64(True):
        problem = problems.quadratic(curvature, center=np.ones(config.dim), start=np.zeros(config.dim))
        steps = max(config.stopped_at)
        run = training.train(
            problem, optimizers.sgd(config.rate), num_steps=steps, key=jax.random.key(0), record_params_every=1
        )
        stopped = np.asarray(run.snapshots)[np.array(config.stopped_at)]
    ridge = {
        factor: curvature / (curvature + factor / (config.rate * np.array(config.stopped_at)[:, None]))
        for factor in (1.0, 10.0)
    }
    return {"curvature": curvature, "stopped": stopped, "penalised": ridge[1.0], "penalised_tenfold": ridge[10.0]}


def _train(config: Config, problem: problems.Problem, label: str) -> dict[str, Any]:
    every = config.num_steps // config.num_evaluations
    stopping = training.EarlyStopping("validation_loss", patience=config.patience)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    def one(rule: training.EarlyStopping | None, key: jax.Array) -> dict[str, Any]:
        run = training.train(
            problem, optimizers.sgd(config.learning_rate), num_steps=config.num_steps, key=key,
            batch_size=config.batch_size, evaluate_every=every, evaluate_on=("train", "validation"),
            early_stopping=rule,
        )  # fmt: skip
        end = training.evaluate(problem, run.params, on="test")
        kept = {"test_loss": end["loss"], "test_accuracy": end["accuracy"]}
        if rule is None:
            return kept | {name: run.evaluations[name] for name in ("train_loss", "validation_loss", "step")}
        return kept | {
            "best_step": run.best_step,
            "validation_loss": training.evaluate(problem, run.params, on="validation")["loss"],
        }

    return {
        kind: part(f"{label}, {kind}", partial(jax.jit(jax.vmap(partial(one, rule))), keys))
        for kind, rule in (("whole", None), ("stopped", stopping))
    }


def claims(record: Record) -> list[Claim]:
    """Judge the restored point, the gain on few and on many images, and the penalty."""
    results = record.results
    quadratic = {name: np.asarray(values) for name, values in results["quadratic"].items()}

    def mismatch(against: str) -> Measurement:
        """Return the largest difference of a mode's share over modes and stopping times."""
        return exact(float(np.abs(quadratic["stopped"] - quadratic[against]).max()))

    def gain(label: str) -> Measurement:
        whole, stopped = (np.asarray(results[label][which]["test_loss"]) for which in ("whole", "stopped"))
        return mean_over_seeds(np.log(whole / stopped))

    def restored(label: str) -> Measurement:
        """Return how far the restored validation loss is above the lowest seen before the run ended."""
        kept = np.asarray(results[label]["stopped"]["validation_loss"])
        curves = np.asarray(results[label]["whole"]["validation_loss"])
        steps = np.asarray(results[label]["whole"]["step"])
        best = np.array(
            [lane[row == at][0] for lane, row, at in zip(curves, steps, _best(results[label]), strict=True)]
        )
        return exact(float(np.abs(kept - best).max()))

    rise = np.asarray(results["few"]["whole"]["validation_loss"])
    last = float(np.abs(rise[:, -1] - rise.min(axis=1)).min())
    return [
        Claim(
            "Early stopping returns the parameters of the lowest validation loss it saw",
            restored("few"),
            at_most(1e-4, f"{NOTES}; the validation loss of another compilation, single precision"),
            Control("the last parameters", exact(last)),
            "Largest difference of validation losses over the seeds, in nats.",
        ),
        Claim(
            "On few images it lowers the test loss",
            gain("few"),
            at_least(0.1, f"{NOTES}; a tenth of the loss"),
            Control("as many images as wanted", gain("many")),
            "Mean logarithm of the ratio of the test losses, without over with stopping.",
        ),
        Claim(
            "On a quadratic, stopping at τ shrinks each mode as an L2 penalty of 1/(ητ) does",
            mismatch("penalised"),
            at_most(
                0.21, f"{GOODFELLOW}; |1 − e⁻ˣ − x/(1 + x)| is at most .204, at x = 2.5; finite steps add a little"
            ),
            Control("a penalty ten times as large", mismatch("penalised_tenfold")),
            "Largest difference of the learned share of a mode, in [0, 1]. They agree for small and large ητλ; between "
            "them early stopping learns up to a fifth more.",
        ),
    ]


def _best(found: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(found["stopped"]["best_step"])


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw losses along the runs, and the shares of the modes."""
    results, config = record.results, record.config
    quadratic = results["quadratic"]
    curves = {}
    for row, steps in enumerate(config["stopped_at"]):
        curves[f"stopped at τ = {steps}"] = quadratic["stopped"][row]
        curves[f"penalty 1/(ητ), τ = {steps}"] = quadratic["penalised"][row]
    order = slice(None, None, -1)
    sizes = {"few": config["few"], "many": config["many"]}
    return {
        "curves": panels(
            np.asarray(results["few"]["whole"]["step"])[0],
            [
                Panel(
                    f"{sizes[label]:,} images: loss (nats)",
                    {
                        "training": results[label]["whole"]["train_loss"],
                        "validation": results[label]["whole"]["validation_loss"],
                    },
                    log=True,
                )
                for label in ("few", "many")
            ],
            columns=2,
            title=f"{images.TITLES[config['data']]}: the validation loss turns only where examples are few",
        ),
        "penalty": response(
            np.asarray(quadratic["curvature"])[order],
            {label: np.asarray(values)[order] for label, values in curves.items()},
            xlabel="curvature λ of the mode, relative to the largest", log_x=True, ylabel="learned share of the mode",
            title="Quadratic: stopping at τ acts as an L2 penalty of 1/(ητ)",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Is the best point restored when the validation loss turns, and is stopping early an L2 penalty?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
