"""Curricula: easy or hard examples first, at a full and a short budget, and with wrong labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds
from experiments.experiment import Experiment
from experiments.orders import Written, written
from experiments.parts import part
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record

WU = "Wu, Dyer and Neyshabur (2021), When do curricula work?: gains only at short budgets and with wrong labels"
FULL, TENTH, HUNDREDTH, WRONG = "full budget", "a tenth of it", "a hundredth of it", "wrong labels"
BUDGETS = {FULL: 1.0, TENTH: 0.1, HUNDREDTH: 0.01, WRONG: 1.0}
DIRECTIONS = ("easy first", "hard first", "random scores")


@dataclass(frozen=True)
class Config:
    """A network, and curricula that admit examples linearly at several paces."""

    data: images.Images = "digits"
    num_train: int = 1_000
    num_test: int = 700
    widths: tuple[int, ...] = (64,)
    rate: float = 0.2
    batch_size: int = 32
    num_steps: int = 1_500  # the full budget
    wrong: float = 0.4  # share of wrong labels
    reference_steps: int = 100  # of the networks whose loss is the difficulty
    num_references: int = 4
    start: float = 0.1  # share admitted at first
    until: tuple[float, ...] = (0.2, 0.8, 1.6)  # share of the steps after which all are; above 1 never all
    num_seeds: int = 32  # half of them choose the pace
    num_records: int = 5
    seed: int = 0


PRESETS = {
    "smoke": Config(num_train=600, widths=(32,), num_steps=1_000, until=(0.2, 1.6), num_seeds=24),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train under each order, pace and condition.

    Clean and corrupted examples are one set of data, of which the orders take either half: runs share a program.
    """
    clean = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=0, num_test=config.num_test, seed=config.seed
    )
    wrong = datasets.corrupt_labels(clean, config.wrong, seed=config.seed)
    count, paces = config.num_train, len(config.until)
    both = {name: jnp.concatenate([clean.train[name], wrong.train[name]]) for name in ("x", "y")}
    problem = networks.mlp_classifier(clean, widths=config.widths).replace(data=both)
    difficulty = _difficulty(config, problem)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    train = partial(jax.jit(_train, static_argnums=(0, 1, 2)), config, problem)
    accuracy: dict[str, dict[str, Any]] = {}
    for condition, budget in BUDGETS.items():
        num_steps, half = round(budget * config.num_steps), int(condition == WRONG)
        first = half * count
        easy = _within_class(difficulty[half], both["y"][first : first + count])
        scores = jnp.stack([easy, -easy, jax.random.uniform(keys[0], (count,))])
        # Every direction at every pace, and last no curriculum: all examples from the first step.
        scores = jnp.concatenate([jnp.repeat(scores, paces, axis=0), scores[:1]])
        until = jnp.array([*config.until * len(DIRECTIONS), 1.0]) * num_steps
        start = jnp.full(len(until), config.start).at[-1].set(1.0)
        found = part(condition, partial(train, num_steps, scores, start, until, keys, first))
        accuracy[condition] = {
            label: found[i * paces : (i + 1) * paces] for i, label in enumerate((*DIRECTIONS, "no curriculum"))
        }
    return {"accuracy": accuracy, "problem": dict(problem.metadata), "data_sha256": clean.sha256}


def _train(
    config: Config, problem: problems.Problem, num_steps: int, scores: Any, starts: Any, untils: Any, keys: Any,
    first: Any,
) -> jax.Array:  # fmt: skip
    """Return the test accuracy along runs, by order and seed, on the examples from number `first` on."""

    def run(score: jax.Array, start: jax.Array, until: jax.Array, key: jax.Array) -> jax.Array:
        order = training.Curriculum(score, lambda step: start + (1 - start) * step / until)
        rows = written(order, key, num_steps, config.batch_size, config.num_train) + first
        return training.train(
            problem, optimizers.sgd(config.rate), num_steps=num_steps, key=key, batch_size=config.batch_size,
            order=Written(rows), evaluate_every=num_steps // config.num_records, evaluate_on="test",
        ).evaluations["test_accuracy"]  # fmt: skip

    return jax.vmap(jax.vmap(run, (None, None, None, 0)), (0, 0, 0, None))(scores, starts, untils, keys)


def _within_class(loss: jax.Array, labels: jax.Array) -> jax.Array:
    """Return each example's rank by loss among those of its label, as a share: classes are admitted alike."""
    same = labels[:, None] == labels[None, :]
    return jnp.sum(same & (loss[None, :] < loss[:, None]), axis=1) / same.sum(axis=1)


def _difficulty(config: Config, problem: problems.Problem) -> tuple[jax.Array, jax.Array]:
    """Return the mean loss of each example under networks that were trained briefly, on clean and on wrong labels."""
    model, count = networks.MLP(10, widths=config.widths), config.num_train
    data: Any = problem.data

    @jax.jit
    @jax.vmap
    def losses(key: jax.Array, rows: jax.Array) -> jax.Array:
        run = training.train(
            problem, optimizers.sgd(config.rate), num_steps=config.reference_steps, key=key,
            batch_size=config.batch_size, order=Written(rows),
        )  # fmt: skip
        logits = jnp.asarray(model.apply({"params": run.params}, data["x"]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(data["y"]))

    keys = jax.random.split(jax.random.key(config.seed + 9), config.num_references)
    shape = (config.num_references, config.reference_steps, config.batch_size)
    rows = jax.random.randint(keys[0], shape, 0, count)
    return losses(keys, rows).mean(axis=0)[:count], losses(keys, rows + count).mean(axis=0)[count:]


def claims(record: Record) -> list[Claim]:
    """Judge what easy examples first gain over no curriculum, in each condition.

    The pace is the best one of half the seeds, and the gain is measured on the other half.
    """
    found, until = record.results["accuracy"], record.config["until"]
    ends = {
        condition: {label: np.asarray(values)[..., -1] for label, values in each.items()}
        for condition, each in found.items()
    }

    def best(label: str, condition: str) -> int:
        return int(ends[condition][label][:, ::2].mean(axis=1).argmax())

    def gain(label: str, condition: str, pace: int | None = None) -> Measurement:
        """Return the final test accuracy less that without a curriculum: by seed, at a pace given or chosen."""
        gains = ends[condition][label] - ends[condition]["no curriculum"]
        return mean_over_seeds(gains[best(label, condition)][1::2] if pace is None else gains[pace])

    def remark(condition: str) -> str:
        plain = ends[condition]["no curriculum"][0].mean()
        return (
            f"Gain in test accuracy over no curriculum ({plain:.3f}) at the best of {len(until)} paces, which admits "
            f"the last example after {until[best('easy first', condition)]:g} times the steps. Hard first: "
            f"{gain('hard first', condition)}."
        )

    def more_steps(condition: str) -> Control:
        plain = ends[condition]["no curriculum"][0] - ends[HUNDREDTH]["no curriculum"][0]
        return Control("no curriculum, over a hundredth of the full budget", mean_over_seeds(plain[1::2]))

    slowest, pace = len(until) - 1, best("easy first", WRONG)
    return [
        Claim(
            "At the full budget easy examples first gain nothing",
            gain("easy first", FULL),
            at_most(0.01, f"{WU}; one point"),
            more_steps(FULL),
            f"{remark(FULL)} The notes (000) recommend easy examples first without a condition.",
        ),
        Claim(
            "At a tenth of it they gain nothing either",
            gain("easy first", TENTH),
            at_most(0.01, "one point; Wu et al. (2021) find a gain at short budgets, on photographs"),
            more_steps(TENTH),
            remark(TENTH),
        ),
        Claim(
            "At a hundredth of it, a few steps, they gain",
            gain("easy first", HUNDREDTH, slowest),
            at_least(0.01, f"{WU}; one point"),
            Control("hard examples first", gain("hard first", HUNDREDTH, slowest)),
            f"At the slowest pace, over no curriculum ({ends[HUNDREDTH]['no curriculum'].mean():.3f}).",
        ),
        Claim(
            f"With {record.config['wrong']:.0%} wrong labels easy examples first gain",
            gain("easy first", WRONG),
            at_least(0.01, f"{WU}; one point"),
            Control("random scores at the same pace", gain("random scores", WRONG, pace)),
            f"{remark(WRONG)} Wrong labels look hard, and come last, or never.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the accuracy along the runs, at the slowest pace."""
    config = record.config
    share = np.linspace(0, 1, config["num_records"] + 1)
    return {
        "accuracy": panels(
            share,
            [
                Panel(condition, {label: np.asarray(values)[-1] for label, values in each.items()}, smallest=0)
                for condition, each in record.results["accuracy"].items()
            ],
            columns=2, ylabel="test accuracy", xlabel="share of the budget",
            title=f"{images.TITLES[config['data']]}, slowest pace: easy examples first help in the first steps, and "
            "with wrong labels",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does it help to begin with easy examples: at a full budget, at a short one, with wrong labels?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
