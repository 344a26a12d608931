"""Gradient clipping in a recurrent network: runs that survive on the temporal-order problem."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, mean_over_seeds, share_of_trials
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import Panel, panels, response
from jaxopt_study.problems import datasets, networks
from jaxopt_study.records import Record
from jaxopt_study.transforms import chain, clip_by_global_norm, tap

PASCANU = "Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, §3.2 and §4.1"
METHODS = ("no clipping", "clipped")


@dataclass(frozen=True)
class Config:
    """Sequences of several lengths; the shortest is the control."""

    lengths: tuple[int, ...] = (10, 20, 50)
    width: int = 20
    input_std: float = 0.1  # small inputs start the units in their linear range, as in the paper
    rates: tuple[float, ...] = (0.03, 0.1)
    judged: float = 0.1  # the rate of the claims
    threshold: float = 1.0  # of the gradient's norm, as in the paper
    batch_size: int = 20
    num_steps: int = 1_500
    num_evaluations: int = 15
    num_test: int = 400
    alive: float = 0.35  # test accuracy; chance is .25, with a standard error of .02
    solved: float = 0.95
    num_seeds: int = 10
    seed: int = 0


PRESETS = {
    "smoke": Config(
        lengths=(10, 20),
        width=10,
        rates=(0.2,),
        judged=0.2,
        num_steps=300,
        num_evaluations=3,
        num_test=200,
        num_seeds=12,
    ),
    "paper": Config(),
}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train from every start at every rate, with clipping and without."""
    del data_dir
    return {f"T = {length}": part(f"T = {length}", partial(_train, config, length)) for length in config.lengths}


def _train(config: Config, length: int) -> dict[str, Any]:
    """Return accuracies, shape (rates, seeds, evaluations), and tails of the gradient's norm, by method."""
    dataset = datasets.temporal_order(num_steps=length, num_train=2_000, num_validation=0, num_test=config.num_test)
    problem = networks.rnn_classifier(dataset, widths=(config.width,), initialiser=config.input_std)
    norms = 10.0 ** jnp.arange(-2.0, 4.0, 0.25)

    def one(threshold: jax.Array, rate: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        clipped = tap("clip", clip_by_global_norm(threshold))
        run = training.train(
            problem, chain(clipped, optimizers.sgd(rate)), num_steps=config.num_steps, key=key,
            batch_size=config.batch_size, order="with_replacement", evaluate_on="test",
            evaluate_every=config.num_steps // config.num_evaluations,
        )  # fmt: skip
        length = run.taps["clip"].norm_in
        return {
            "accuracy": run.evaluations["test_accuracy"],
            "step": run.evaluations["step"],
            "above": (length[:, None] > norms).mean(axis=0),
            "quantile": jnp.quantile(length, 0.999),
        }

    num_rates, num_seeds = len(config.rates), config.num_seeds
    thresholds = jnp.array([1e9, config.threshold])  # the first clips nothing; one program serves both
    keys = jax.random.split(jax.random.key(config.seed), num_seeds)
    lanes = jax.jit(jax.vmap(one))(
        jnp.repeat(thresholds, num_rates * num_seeds),
        jnp.tile(jnp.repeat(jnp.array(config.rates), num_seeds), 2),
        keys[jnp.tile(jnp.arange(num_seeds), 2 * num_rates)],
    )
    found = jax.tree.map(lambda x: np.asarray(x).reshape(2, num_rates, num_seeds, *x.shape[1:]), lanes)
    steps = found.pop("step")[0, 0, 0]
    by_method = {method: {name: values[i] for name, values in found.items()} for i, method in enumerate(METHODS)}
    return by_method | {"step": steps, "norm": norms}


def claims(record: Record) -> list[Claim]:
    """Judge survival with and without clipping, and the tails of the gradient's norm."""
    results, config = record.results, record.config
    at = list(config["rates"]).index(config["judged"])
    shortest, *longer = config["lengths"]

    def ends(length: int, method: str, rate: int = at) -> np.ndarray:
        return np.asarray(results[f"T = {length}"][method]["accuracy"])[rate, :, -1]

    def survival(length: int, method: str) -> Measurement:
        alive = ends(length, method) >= config["alive"]
        return share_of_trials(int(alive.sum()), len(alive))

    def tail(length: int) -> Measurement:
        return mean_over_seeds(np.log10(np.asarray(results[f"T = {length}"]["clipped"]["quantile"])[at]))

    def told(length: int) -> str:
        shares = [
            f"{method} at rate {rate:g}: {(ends(length, method, i) >= config['alive']).mean():.0%} survive, "
            f"{(ends(length, method, i) >= config['solved']).mean():.0%} solve it"
            for method in METHODS
            for i, rate in enumerate(config["rates"])
        ]
        return "; ".join(shares)

    source = f"{PASCANU}; more than half of the starts"
    judged = [
        Claim(
            f"T = {length}: with clipping most runs survive at rate {config['judged']:g}",
            survival(length, "clipped"),
            at_least(0.5, source),
            Control("no clipping, the same starts and batches", survival(length, "no clipping")),
            f"Share with a test accuracy of {config['alive']:g} or more at the end; chance is .25. {told(length)}.",
        )
        for length in longer
    ]
    judged.append(
        Claim(
            f"T = {shortest}: without clipping, too, most runs survive",
            survival(shortest, "no clipping"),
            at_least(0.5, source),
            Control(f"T = {longer[0]} without clipping", survival(longer[0], "no clipping")),
            f"The shortest sequence that the problem allows is 10. {told(shortest)}.",
        )
    )
    judged.append(
        Claim(
            f"T = {longer[0]}: one gradient in a thousand is ten times as long as the threshold",
            tail(longer[0]),
            at_least(1.0, f"{PASCANU}; gradients explode at walls of the loss, a tenfold threshold is ours"),
            Control(f"T = {shortest}", tail(shortest)),
            "log₁₀ of the .999 quantile of the norm before clipping, over the steps of runs with clipping.",
        )
    )
    return judged


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw survival along the runs, and the tails of the gradient's norm."""
    results, config = record.results, record.config
    at = list(config["rates"]).index(config["judged"])
    names = [f"T = {length}" for length in config["lengths"]]

    def alive(name: str, method: str, rate: int) -> np.ndarray:
        return (np.asarray(results[name][method]["accuracy"])[rate] >= config["alive"]).mean(axis=0)[None]

    survival = [
        Panel(
            name,
            {
                f"{method}, rate {rate:g}": alive(name, method, i)
                for method in METHODS
                for i, rate in enumerate(config["rates"])
            },
            smallest=-0.02,
            largest=1.02,
        )
        for name in names
    ]
    tails = {
        f"{name}, {method}": np.asarray(results[name][method]["above"])[at].mean(axis=0)
        for name in names
        for method in METHODS
    }
    return {
        "survival": panels(
            results[names[0]]["step"], survival, ylabel="share of runs above chance",
            title=f"Temporal order, {config['num_seeds']} starts: clipping keeps runs alive on longer sequences",
        ),
        "tails": response(
            np.asarray(results[names[0]]["norm"]), tails, xlabel="norm of the gradient before clipping", log_x=True,
            ylabel="share of steps with a longer gradient", log_y=True, smallest=1e-5,
            title=f"Rate {config['judged']:g}: tails of the gradient's norm",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Do runs of a recurrent network survive without gradient clipping, and how long are its gradients?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
