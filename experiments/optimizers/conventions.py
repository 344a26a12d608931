"""Two forms of one optimizer, as the notes and libraries write them: where they agree, and where they do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_most, exact
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, problems, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform

SUTSKEVER = "Sutskever et al. (2013), On the importance of initialization and momentum, equations (1) to (4)"
BENGIO = "Bengio, Boulanger-Lewandowski and Pascanu (2013), Advances in optimizing recurrent networks, equation (7)"
DUCHI = "Duchi, Hazan and Singer (2011), Adaptive subgradient methods: ε only keeps the division finite"
KINGMA = "Kingma and Ba (2015), Adam, §2: the order of the corrections may be changed"
ZEILER = "Zeiler (2012), ADADELTA, §3.2: the units of the loss cancel"


@dataclass(frozen=True)
class Config:
    """The planar quadratic of the notes (001), x²/20 + y², and optimizers in two forms each."""

    start: tuple[float, float] = (-7.0, 2.0)
    rate: float = 0.1
    decay: float = 0.9
    eps: float = 1e-7
    large_eps: float = 0.1
    large_scale: float = 100.0  # of the loss
    small_scale: float = 1e-6
    num_steps: int = 60


PRESETS = {"smoke": Config(num_steps=30), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Follow both forms of each optimizer in double precision, for the claim and for its control."""
    del data_dir
    with jax.enable_x64(True):
        pairs = _pairs(config).items()
        return {"difference": {name: part(name, partial(_differences, config, name, *both)) for name, both in pairs}}


def _pairs(config: Config) -> dict[str, tuple[Any, Any]]:
    """Return by comparison the two pairs of claim and control: an optimizer and the scale of its loss, twice."""
    rate, decay, one = config.rate, config.decay, 1.0

    def halved(step: Any) -> Any:
        return rate * 0.5 ** (step // (config.num_steps // 3))

    def momentum(rate: Any) -> list[tuple[Transform, float]]:
        return [(optimizers.momentum(rate, decay, convention=form), one) for form in ("paper", "torch")]

    def adagrad(scale: float) -> list[tuple[Transform, float]]:
        inside = optimizers.adagrad(rate, eps=0.0, eps_root=config.eps)
        return [(optimizers.adagrad(rate, eps=config.eps), scale), (inside, scale)]

    def adam(eps: float) -> list[tuple[Transform, float]]:
        return [(optimizers.adam(rate, eps=eps, convention=form), one) for form in ("paper", "saito2016")]

    lookahead = (optimizers.nesterov_lookahead(rate, decay), one)
    sgd = optimizers.sgd(rate / config.large_scale)
    return {
        "momentum": (momentum(rate), momentum(halved)),
        "Nesterov": (
            [lookahead, (optimizers.nesterov(rate, decay), one)],
            [lookahead, (optimizers.momentum(rate, decay), one)],
        ),
        "AdaGrad": (adagrad(one), adagrad(config.small_scale)),
        "Adam": (adam(config.eps), adam(config.large_eps)),
        "AdaDelta": (
            [(optimizers.adadelta(), one), (optimizers.adadelta(), config.large_scale)],
            [(sgd, one), (sgd, config.large_scale)],
        ),
    }


def _differences(config: Config, name: str, claimed: Any, control: Any) -> dict[str, np.ndarray]:
    """Return the distance of the two paths after each step, over the length of the first one's way so far."""

    def difference(both: Any) -> np.ndarray:
        first, second = (_path(config, optimizer, scale) for optimizer, scale in both)
        if name == "Nesterov":  # the other form's parameters are the points θ − γv, where v is the last step
            first = first + config.decay * np.diff(first, axis=0, prepend=first[:1])
        way = np.cumsum(np.linalg.norm(np.diff(first, axis=0), axis=1))
        return np.linalg.norm(second - first, axis=1)[1:] / way

    return {"claimed": difference(claimed), "control": difference(control)}


@cache
def scaled_bowl() -> problems.Problem:
    """Return the notes' quadratic, times a number that takes the place of the data."""
    bowl = problems.planar.bowl()
    return bowl.replace(loss=lambda params, scale: scale[0] * bowl.loss(params, None))


def _path(config: Config, optimizer: Transform, scale: float) -> np.ndarray:
    """Return the parameters before the first step and after each."""
    problem = scaled_bowl().replace(data=np.array([scale]))  # data, so that no other scale compiles anything again
    start = np.array(config.start)
    run = training.train(
        problem, optimizer, num_steps=config.num_steps, key=jax.random.key(0), params=start, record_params_every=1
    )
    return np.asarray(run.snapshots)


def claims(record: Record) -> list[Claim]:
    """Judge where the two forms agree; the control says where they do not."""
    config, found = record.config, record.results["difference"]

    def largest(name: str, which: str = "claimed") -> Measurement:
        return exact(float(np.max(found[name][which])))

    return [
        Claim(
            "Momentum with the learning rate inside, v ← γv + η∇J, and outside, a ← βa + g, is the same at constant η",
            largest("momentum"),
            at_most(1e-10, f"{SUTSKEVER}; rounding"),
            Control("a rate that is halved on the way", largest("momentum", "control")),
            "Largest distance of the two paths, relative to their length so far. The notes 001 and 002 have η inside, "
            "003 outside, as PyTorch and Optax.",
        ),
        Claim(
            "Nesterov's gradient at the look-ahead point θ − γv is the form without look-ahead, in other coordinates",
            largest("Nesterov"),
            at_most(1e-10, f"{BENGIO}; rounding"),
            Control("momentum, with its gradient at θ", largest("Nesterov", "control")),
        ),
        Claim(
            "AdaGrad with ε inside the root (notes 002) and outside (001) is the same",
            largest("AdaGrad"),
            at_most(1e-6, f"{DUCHI}; ten times ε"),
            Control(f"a loss of {config['small_scale']:g} times the size", largest("AdaGrad", "control")),
            "Inside the root ε counts as its own root: gradients below 3e-4 no longer move.",
        ),
        Claim(
            "Adam with its rate corrected by √(1 − β₂ᵗ)/(1 − β₁ᵗ), as in the notes, is Adam with corrected averages",
            largest("Adam"),
            at_most(1e-4, f"{KINGMA}; ε over √(1 − β₂) is 3e-6 at the first step"),
            Control(f"ε = {config['large_eps']:g}", largest("Adam", "control")),
            "In the notes' form ε is larger by 1/√(1 − β₂ᵗ) in effect; it matters to those who raise ε.",
        ),
        Claim(
            "AdaDelta needs no learning rate: it takes the same steps on a hundred times the loss",
            largest("AdaDelta"),
            at_most(1e-3, f"{ZEILER}; its ε of 1e-6 does not cancel"),
            Control("SGD", largest("AdaDelta", "control")),
            "The size of its first steps is set by ε, in place of a learning rate.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the difference of the two forms along the path."""
    controls = {
        "momentum": "halved rate", "Nesterov": "momentum", "AdaGrad": "tiny gradients", "Adam": "large ε",
        "AdaDelta": "SGD",
    }  # fmt: skip
    found = record.results["difference"]
    steps = np.arange(1, record.config["num_steps"] + 1)
    return {
        "conventions": panels(
            steps,
            [
                Panel(
                    f"{name} (control: {controls[name]})",
                    {
                        label: np.maximum(np.asarray(each[which], float), 1e-17)[None]
                        for label, which in (("two forms", "claimed"), ("control", "control"))
                    },
                    log=True,
                )
                for name, each in found.items()
            ],
            columns=3, ylabel="distance, relative to the path",
            title="Two forms of one optimizer take the same path, and the control does not",
        )
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Are the two forms in which optimizers are written the same, and when not?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
