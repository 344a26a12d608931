"""Noise added to the gradient: very deep networks from poor starts, and from a good one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, share_of_trials
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training, transforms
from jaxopt_study.figures import Panel, panels
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

NEELAKANTAN = "Neelakantan et al. (2015), Adding gradient noise improves learning for very deep networks, table 1"
STARTS = {"zero": 0.0, "std .1": 0.1, "He": -1.0}  # negative: He's own
LABELS = ("no noise", "gradient noise")


@dataclass(frozen=True)
class Config:
    """Twenty ReLU layers of 50 units as in the paper, and noise of variance η/(1 + t)^γ."""

    data: images.Images = "digits"
    num_train: int = 1_000
    width: int = 50
    num_layers: int = 20
    rate: float = 0.1
    clip: float = 10.0  # largest norm of the gradient
    batch_size: int = 16
    num_steps: int = 1_500
    eta: float = 0.1  # the paper's .01 takes 10⁵ steps to raise the weights to He's scale
    gamma: float = 0.55
    solved: float = 0.3  # test accuracy that counts as success: three times that of a guess
    num_seeds: int = 10
    num_records: int = 10
    seed: int = 0


PRESETS = {"smoke": Config(width=16, num_layers=4, num_steps=400, eta=0.3, solved=0.5, num_seeds=12), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train from each start, without noise and with it."""
    dataset = images.load(config.data, data_dir, num_train=config.num_train, num_validation=0, seed=config.seed)
    problem = networks.mlp_classifier(dataset, widths=(config.width,) * config.num_layers)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    def trained(std: jax.Array, eta: jax.Array, key: jax.Array) -> dict[str, Any]:
        def rescaled(weights: jax.Array) -> jax.Array:
            factor = jnp.where(std < 0, 1.0, std / jnp.sqrt(2 / weights.shape[0]))
            return factor * weights if weights.ndim == 2 else weights

        noisy = transforms.chain(
            transforms.clip_by_global_norm(config.clip),
            transforms.add_gradient_noise(eta, config.gamma, jax.random.fold_in(key, 1)),
            optimizers.sgd(config.rate),
        )
        start = problem.init(key)  # He's: standard deviation √(2/inputs), and biases of 0
        run = training.train(
            problem, noisy, num_steps=config.num_steps, key=key, batch_size=config.batch_size,
            order="with_replacement", params=jax.tree.map(rescaled, start),
            evaluate_every=config.num_steps // config.num_records, evaluate_on="test",
        )  # fmt: skip
        middle: Any = run.params
        return {
            "accuracy": run.evaluations["test_accuracy"],
            "scale": jnp.std(middle[f"dense_{config.num_layers // 2}"]["kernel"]) / jnp.sqrt(2 / config.width),
        }

    every = jax.jit(jax.vmap(trained, (None, None, 0)))
    by_start: dict[str, Any] = {"accuracy": {}, "scale": {}}
    for start, std in STARTS.items():
        for label, eta in zip(LABELS, (0.0, config.eta), strict=True):
            found = part(f"{start}, {label}", partial(every, std, eta, keys))
            for name, values in found.items():
                by_start[name].setdefault(start, {})[label] = values
    return {**by_start, "problem": dict(problem.metadata), "data_sha256": dataset.sha256}


def claims(record: Record) -> list[Claim]:
    """Judge the success rates from poor starts, and the accuracy from a good one."""
    config, results = record.config, record.results
    last = {  # a run that diverged guesses one of ten classes
        start: {label: np.nan_to_num(np.asarray(values)[:, -1], nan=0.1) for label, values in each.items()}
        for start, each in results["accuracy"].items()
    }

    def solved(start: str, label: str) -> Measurement:
        return share_of_trials(int((last[start][label] >= config["solved"]).sum()), len(last[start][label]))

    def gain(start: str) -> Measurement:
        return mean_over_seeds(last[start]["gradient noise"] - last[start]["no noise"])

    def remark(start: str) -> str:
        scale = np.median(results["scale"][start]["gradient noise"])
        means = " and ".join(f"{last[start][label].mean():.2f} with {label}" for label in reversed(LABELS))
        return (
            f"Share of the seeds with a test accuracy of {config['solved']:g} or more; the mean is {means}. With noise "
            f"the weights of the middle layer end at {scale:.2g} of He's scale"
        )

    from_he = np.median(results["scale"]["He"]["gradient noise"])
    return [
        Claim(
            "From weights of 0, noise makes a deep network trainable",
            solved("zero", "gradient noise"),
            at_least(0.3, f"{NEELAKANTAN}: 94.5 % accuracy with noise, 11.4 % without; three in ten seeds"),
            Control("without noise", solved("zero", "no noise")),
            f"{remark('zero')}: the noise is a random walk to a better start, for which the paper's η = .01 would need "
            "10⁵ steps.",
        ),
        Claim(
            "From weights that are too small, noise makes it trainable",
            solved("std .1", "gradient noise"),
            at_least(0.3, f"{NEELAKANTAN}: 52.7 % mean accuracy with noise, 43.1 % without; three in ten seeds"),
            Control("without noise", solved("std .1", "no noise")),
            f"{remark('std .1')}.",
        ),
        Claim(
            "From a good start noise gains nothing",
            gain("He"),
            at_most(0.02, f"{NEELAKANTAN}: 97.2 % with noise, 97.4 % without; two points"),
            Control("from weights of 0", gain("zero")),
            f"Test accuracy with noise less that without, {last['He']['no noise'].mean():.2f}. The noise goes on "
            f"raising the weights, to {from_he:.2g} of He's scale. The notes (000) say that a little noise trains a "
            "little faster.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the accuracy along the runs from each start."""
    config = record.config
    steps = np.linspace(0, config["num_steps"], config["num_records"] + 1)
    titles = {"zero": "start 0", "std .1": "start N(0, .1²)", "He": "He's start"}
    return {
        "accuracy": panels(
            steps,
            [
                Panel(titles[start], {k: np.asarray(v) for k, v in each.items()}, smallest=0, largest=1)
                for start, each in record.results["accuracy"].items()
            ],
            ylabel="test accuracy",
            title=f"{config['num_layers']} ReLU layers: gradient noise rescues poor starts, and only those",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does noise added to the gradient make very deep networks trainable, and does it help a good start?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
