"""Diagnosis of learning rates from loss curves: a confusion matrix over runs whose truth is the rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, at_least, at_most, mean_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import figures, optimizers, problems, training
from jaxopt_study.figures import response
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record

NOTES = "the notes (000), last figure: high rate, low rate, good rate, a curve that jumps"
TRUTHS = ("too low", "good", "too high")
RIGHT = {"rate too low": "too low", "good": "good", "rate too high": "too high", "spiking": "too high"}
FINDINGS = (*RIGHT, "plateau", "undecided")


@dataclass(frozen=True)
class Config:
    """Rates a factor 2 apart on several problems; truth by the distance to the best rate and the stability limit."""

    tasks: tuple[str, ...] | None = None  # None for all
    calibration: bool = True  # whether the problems on which the thresholds were chosen are run, too
    num_rates: int = 14
    num_steps: int = 400
    batch_size: int = 32
    num_reference: int = 4  # seeds that find the best rate and the stability limit
    num_seeds: int = 8  # seeds whose curves are judged
    low: float = 1 / 16  # of the best rate, and lower: too low
    good: tuple[float, float] = (1 / 4, 2.0)  # of the best rate, below the stability limit
    high: float = 8.0  # of the best rate, or the stability limit, and higher: too high
    seed: int = 0


Task = tuple[Callable[[], problems.Problem], Callable[[Any], Any], float]  # problem, optimizer of a rate, least rate


def _mlp(**options: Any) -> Callable[[], problems.Problem]:
    return lambda: networks.mlp_classifier(datasets.digits(), **options)


def _order() -> problems.Problem:
    data = datasets.temporal_order(num_steps=10, num_train=1_000, num_validation=0, num_test=0)
    return networks.rnn_classifier(data, widths=(10,))


def _bowl(condition: float, dim: int) -> Callable[[], problems.Problem]:
    return lambda: problems.quadratic(np.geomspace(1.0, 1 / condition, dim)).replace(
        init=lambda key: jax.random.normal(key, (dim,))
    )


TASKS: Mapping[str, Task] = {
    "quadratic, gradient descent": (_bowl(100.0, 20), optimizers.sgd, 2.0**-9),
    "digits, ReLU, SGD": (_mlp(widths=(20, 20)), optimizers.sgd, 2.0**-11),
    "digits, ReLU, momentum": (_mlp(widths=(20, 20)), lambda rate: optimizers.momentum(rate, 0.9), 2.0**-14),
    "digits, ReLU, Adam": (_mlp(widths=(20, 20)), optimizers.adam, 2.0**-15),
    "digits, batch norm, SGD": (_mlp(widths=(20, 20), normalisation="batch"), optimizers.sgd, 2.0**-11),
    "temporal order, RNN, SGD": (_order, optimizers.sgd, 2.0**-10),
}
CALIBRATION: Mapping[str, Task] = {
    "quadratic of another spectrum, gradient descent": (_bowl(1000.0, 30), optimizers.sgd, 2.0**-9),
    "digits, one layer of sigmoids, SGD": (
        _mlp(widths=(30,), activation="sigmoid", initialiser="xavier"),
        optimizers.sgd,
        2.0**-9,
    ),
    "digits, linear, AdaGrad": (_mlp(widths=()), optimizers.adagrad, 2.0**-11),
}
DRAWN = "digits, ReLU, SGD"
PRESETS = {
    "smoke": Config(tasks=("quadratic, gradient descent", DRAWN), calibration=False, num_reference=2, num_seeds=6),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train at every rate, find best rate and limit on reference seeds, and judge the other seeds' curves."""
    del data_dir
    tasks = {name: task for name, task in TASKS.items() if config.tasks is None or name in config.tasks}

    def judge(task: Task, seed: int) -> Any:
        return _judge(config, *curves(config, task, seed))

    judged = {name: part(name, partial(judge, task, config.seed)) for name, task in tasks.items()}
    calibrated = {
        name: part(f"calibration, {name}", partial(judge, task, config.seed + 1_000))
        for name, task in (CALIBRATION if config.calibration else {}).items()
    }
    return {
        "judged": {name: found for name, (found, _) in judged.items()},
        "calibration": {name: found for name, (found, _) in calibrated.items()},
        "curves": judged[DRAWN][1],
    }


def curves(config: Config, task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rates and losses, shape (rates, seeds, steps), the reference seeds first."""
    make, optimizer, least = task
    problem = make()
    rates = least * 2.0 ** np.arange(config.num_rates)
    batch = None if problem.data is None else config.batch_size

    def one(rate: jax.Array, key: jax.Array) -> jax.Array:
        run = training.train(problem, optimizer(rate), num_steps=config.num_steps, key=key, batch_size=batch)
        ended = run.diverged & (jnp.arange(config.num_steps) >= run.diverged_at)
        return jnp.where(ended, jnp.inf, run.losses)

    keys = jax.random.split(jax.random.key(seed), config.num_reference + config.num_seeds)
    losses = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None)))(jnp.asarray(rates), keys)
    return rates, np.asarray(losses)


def _judge(config: Config, rates: np.ndarray, losses: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return truth and findings, and the first judged seed's curves at four rates."""
    reference, judged = losses[:, : config.num_reference], losses[:, config.num_reference :]
    ends = np.median(reference[:, :, -20:], axis=2).mean(axis=1)  # infinite if a run diverged
    best = int(np.argmin(ends))
    # The stability limit: the first rate above the best at which the mean run ends above its start.
    unstable = [i for i in range(best, len(rates)) if not ends[i] < reference[:, :, 0].mean()]
    limit = float(rates[unstable[0]]) if unstable else np.inf

    def truth(rate: float) -> str:
        relative = rate / rates[best]
        if rate >= limit or relative >= config.high:
            return "too high"
        if relative <= config.low:
            return "too low"
        return "good" if config.good[0] <= relative <= config.good[1] else "between"

    at = {"η*/64: too low": best - 6, "η*, the best": best, "4η*": best + 2, "8η*: too high": best + 3}
    return {
        "rates": rates,
        "best": float(rates[best]),
        "limit": limit,
        "truth": [truth(rate) for rate in rates],
        "findings": [[training.diagnose(curve).finding for curve in lanes] for lanes in judged],
        "short": [[training.diagnose(curve[:15]).finding for curve in lanes] for lanes in judged],
    }, {label: judged[i, 0] for label, i in at.items() if 0 <= i < len(rates)}


def _flat(found: Mapping[str, Any], findings: str = "findings") -> tuple[np.ndarray, np.ndarray]:
    """Return truth and findings with a row per seed and a column per rate of any problem, those between left out."""
    truth = np.concatenate([np.asarray(one["truth"]) for one in found.values()])
    named = np.concatenate([np.asarray(one[findings]) for one in found.values()]).T
    clear = truth != "between"
    return np.broadcast_to(truth[clear], named[:, clear].shape), named[:, clear]


def _means(truth: np.ndarray, findings: np.ndarray) -> np.ndarray:
    """Return for each seed the share of right findings among those that name the rate, and of opposite ones."""
    named = np.array([[RIGHT.get(finding, "") for finding in lane] for lane in findings])
    right = ((named == truth) & (named != "")).sum(axis=1) / np.maximum(1, (named != "").sum(axis=1))
    opposite = (truth == "too low") & (named == "too high") | (truth == "too high") & (named == "too low")
    return np.stack([right, opposite.mean(axis=1), (named != "").mean(axis=1)])


def claims(record: Record) -> list[Claim]:
    """Judge how often a finding is right, the opposite of the truth, or none."""
    results = record.results
    truth, findings = _flat(results["judged"])
    rng = np.random.default_rng(0)
    right, opposite, named = _means(truth, findings)
    by_chance = np.mean([_means(rng.permuted(truth, axis=1), findings) for _ in range(100)], axis=0)
    calibrated = ""
    if results["calibration"]:
        share = _means(*_flat(results["calibration"]))[0].mean()
        calibrated = f" On the problems of the calibration {share:.0%} are right."

    by_task = {name: _means(*_flat({name: found}))[0].mean() for name, found in results["judged"].items()}
    return [
        Claim(
            "A finding that names the rate as too low, good or too high is right",
            mean_over_seeds(right),
            at_least(0.8, f"{NOTES}; four out of five, set before the run"),
            Control("truths shuffled among the runs, mean of 100", mean_over_seeds(by_chance[0])),
            f"Share of right ones, over {truth.size} runs; spiking counts as too high. By problem: "
            + ", ".join(f"{name} {share:.0%}" for name, share in by_task.items())
            + f".{calibrated}",
        ),
        Claim(
            "The opposite of the truth is hardly ever found",
            mean_over_seeds(opposite),
            at_most(0.02, "two percent, set before the run"),
            Control("truths shuffled among the runs, mean of 100", mean_over_seeds(by_chance[1])),
            "Share of all runs: too high where the rate is too low, or the reverse.",
        ),
        Claim(
            "At least half of the runs get a finding that names the rate",
            mean_over_seeds(named),
            at_least(0.5, "half, set before the run"),
            Control("their first 15 losses", mean_over_seeds(_means(*_flat(results["judged"], "short"))[2])),
            "The others are called undecided or a plateau.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the notes' figure from real runs, and the confusion matrix."""
    results, config = record.results, record.config
    truth, findings = (values.ravel() for values in _flat(results["judged"]))
    counts = np.array([[(findings[truth == row] == name).sum() for name in FINDINGS] for row in TRUTHS])
    return {
        "curves": response(
            np.arange(config["num_steps"]), results["curves"], xlabel="step", ylabel="training loss (nats)",
            smallest=0.0, largest=6.0, title=f"The notes' last figure from real runs: {DRAWN}",
        ),
        "confusion": _matrix(counts),
    }  # fmt: skip


def _matrix(counts: np.ndarray) -> Figure:
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = figures.new_figure(8.0, 3.4)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column, row, f"{share:.0%}\n{counts[row, column]}", ha="center", va="center",
            color="white" if share > 0.5 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(FINDINGS)), FINDINGS)
    axes.set_yticks(range(len(TRUTHS)), TRUTHS)
    axes.set(xlabel="finding of training.diagnose", ylabel="the rate is")
    axes.set_title(f"{counts.sum()} runs: what one loss curve tells of its learning rate", loc="left")
    figure.colorbar(image, ax=axes, label="share of the row")
    return figure


EXPERIMENT = Experiment(
    question="Does one loss curve show whether its learning rate is too low, good or too high?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
