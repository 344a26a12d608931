"""Edge of stability of full-batch gradient descent: twenty points, one hidden layer, three learning rates."""

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

from experiments.claims import Claim, Control, Expectation, Measurement, at_least, at_most, mean_over_seeds
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import optimizers, training
from jaxopt_study.figures import Panel, panels
from jaxopt_study.problems import Problem
from jaxopt_study.records import Record

COHEN = "Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability"


@dataclass(frozen=True)
class Config:
    """The regression, and how long it is watched."""

    degree: int = 4  # of the Chebyshev polynomial that is learned
    num_points: int = 20
    width: int = 100
    start_std: float = 0.4  # of the first layer: flat enough that every rate starts below its limit
    rates: tuple[float, ...] = (0.3, 0.22, 0.17)
    flow_rate: float = 0.06  # so small that the run never meets its own limit, and follows the gradient flow
    num_steps: int = 15_100
    every: int = 151  # odd: the iterates at the edge alternate from step to step
    num_seeds: int = 5
    seed: int = 0


PRESETS = {"smoke": Config(rates=(0.3, 0.17)), "paper": Config()}


def regression(degree: int, num_points: int, width: int, start_std: float) -> Problem:
    """Pose the fit of a Chebyshev polynomial on evenly spaced points: 1 → width tanh → 1, half the mean squared error.

    Args:
        degree: Degree of the polynomial.
        num_points: Points in [−1, 1].
        width: Hidden units.
        start_std: Standard deviation of the first layer's weights at the start; the second's is 1/√width.

    Returns:
        The problem.
    """
    x = np.linspace(-1, 1, num_points, dtype=np.float32)[:, None]
    y = np.polynomial.chebyshev.chebval(x, [0] * degree + [1]).astype(np.float32)

    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        return {
            "hidden": {"w": start_std * jax.random.normal(first, (1, width)), "b": jnp.zeros(width)},
            "output": {"w": jax.random.normal(second, (width, 1)) / np.sqrt(width), "b": jnp.zeros(1)},
        }

    def loss(params: Any, batch: Any) -> Any:
        hidden = jnp.tanh(batch["x"] @ params["hidden"]["w"] + params["hidden"]["b"])
        return jnp.mean((hidden @ params["output"]["w"] + params["output"]["b"] - batch["y"]) ** 2) / 2

    return Problem(f"chebyshev_{degree}", init=init, loss=loss, data={"x": x, "y": y})


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train at every rate from the same starts, measuring sharpness and step accounts along the way."""
    del data_dir
    problem = regression(config.degree, config.num_points, config.width, config.start_std)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    probe = training.CurvatureProbe(every=config.every, gains=False, max_matvecs=60)

    def lane(rate: float) -> dict[str, Any]:
        runs = [
            training.train(
                problem, optimizers.sgd(rate), num_steps=config.num_steps, key=key, probe=probe, progress=False
            )
            for key in keys
        ]
        probes = [found.probes for found in runs]
        sharpness = np.stack([found["eigenvalues"][:, 0] for found in probes])
        at = np.asarray(runs[0].probe_steps)
        losses = np.stack([found.losses for found in runs])
        rises = np.diff(losses, axis=1) > 0
        return {
            "steps": at,
            "sharpness": shortened(sharpness),
            "relative_residual": max(float(np.max(found["residuals"] / found["eigenvalues"])) for found in probes),
            "loss": shortened(losses[:, np.minimum(at, config.num_steps - 1)]),
            "rises": [[float(np.mean(part)) for part in np.split(row, at[1:-1])] for row in rises],
            "taken_back": shortened(np.stack([found["quadratic"] / -found["linear"] for found in probes])),
            "account": shortened(
                np.stack([found["realised"] / (found["linear"] + found["quadratic"]) for found in probes])
            ),
        }

    rates = (*config.rates, config.flow_rate)
    lanes = {f"{rate:g}": part(f"rate {rate:g}", partial(lane, rate)) for rate in rates}
    steps = [found.pop("steps") for found in lanes.values()]
    return {"steps": steps[0], "lanes": lanes}


def shortened(values: Any) -> list[Any]:
    """Return numbers with five digits, as lists: enough to judge and to draw."""
    return [[float(f"{value:.5g}") for value in row] for row in np.asarray(values)]


def crossing(ratio: Float[np.ndarray, " measurements"]) -> int:
    """Return the first index at which a ratio reaches 1; three quarters of the length if it never does."""
    above = ratio >= 1
    return int(np.argmax(above)) if above.any() else 3 * len(ratio) // 4


def claims(record: Record) -> list[Claim]:
    """Judge the final sharpness, the sharpening before it, and the steps at the edge."""
    config, lanes = record.config, record.results["lanes"]
    flow = lanes[f"{config['flow_rate']:g}"]
    judged = []

    def after(rate: float, values: Any) -> list[Float[np.ndarray, " _"]]:
        found = np.array(lanes[f"{rate:g}"]["sharpness"]) * rate / 2
        return [np.array(row)[crossing(ratio) :] for row, ratio in zip(values, found, strict=True)]

    def middle(rows: list[Float[np.ndarray, " _"]]) -> Measurement:
        return mean_over_seeds([np.median(row) for row in rows])

    flow_name = f"the flow (rate {config['flow_rate']:g}, as many steps), its last quarter"
    quarter = len(record.results["steps"]) // 4
    for rate in config["rates"]:
        lane = lanes[f"{rate:g}"]
        judged.append(
            Claim(
                f"Rate {rate:g}: once the sharpness λ has reached 2/η = {2 / rate:.3g}, it stays there",
                middle([values * rate / 2 for values in after(rate, lane["sharpness"])]),
                Expectation(0.95, 1.10, f"{COHEN}: hovers at, or just above, 2/η"),
                Control(flow_name, middle([np.array(row)[-quarter:] * rate / 2 for row in flow["sharpness"]])),
                "Median of λη/2 after the crossing.",
            )
        )
    fast, slow = max(config["rates"]), min(config["rates"])
    ratios = np.array(lanes[f"{slow:g}"]["sharpness"]) * slow / 2

    def rising(rows: list[Float[np.ndarray, " _"]]) -> Measurement:
        return mean_over_seeds([float(np.mean(np.diff(row) > 0)) for row in rows])

    def before(rows: Any) -> list[Float[np.ndarray, " _"]]:
        return [np.array(row)[: crossing(ratio)] for row, ratio in zip(rows, ratios, strict=True)]

    def misfit(rows: list[Float[np.ndarray, " _"]]) -> Measurement:
        return mean_over_seeds([np.median(np.abs(row - 1)) for row in rows])

    losses = after(fast, lanes[f"{fast:g}"]["loss"])
    rises = [[*row, 0.0] for row in lanes[f"{fast:g}"]["rises"]]  # as many as there are measurements
    judged += [
        Claim(
            f"Progressive sharpening: at rate {slow:g} the sharpness rises all the way to the crossing",
            rising([row[: crossing(row) + 1] for row in ratios]),
            at_least(0.95, f"{COHEN}, section 3.1; a twentieth is left to the solver's error"),
            Control("the same runs after the crossing", rising([row[crossing(row) :] for row in ratios])),
            f"Share of the intervals of {config['every']} steps in which λ rises.",
        ),
        Claim(
            f"At the edge the loss is not monotone: at rate {fast:g} it rises in many of the steps",
            mean_over_seeds([float(row[:-1].mean()) for row in after(fast, rises)]),
            at_least(0.2, f"{COHEN}, section 3.3: non-monotone over short times; here, a fifth of the steps"),
            Control("the flow", mean_over_seeds([np.mean(row) for row in flow["rises"]])),
            "Share of steps after the crossing in which the loss rises.",
        ),
        Claim(
            f"Yet over long times it falls: at rate {fast:g}, the last quarter against the quarter after the crossing",
            mean_over_seeds([np.log2(np.median(row[-quarter:]) / np.median(row[:quarter])) for row in losses]),
            at_most(-0.5, f"{COHEN}, section 3.3: consistently over long times"),
            Control(
                "from one measurement to the next",
                mean_over_seeds([np.median(np.log2(row[1:] / row[:-1])) for row in losses]),
            ),
            "log₂ of the ratio of losses: −1 is half the loss.",
        ),
        Claim(
            f"At the edge the quadratic term takes back what the linear one promises (rate {fast:g})",
            middle(after(fast, lanes[f"{fast:g}"]["taken_back"])),
            Expectation(0.95, 1.05, "½uᵀHu/(−gᵀu) = ½η gᵀHg/gᵀg, which is ηλ/2 for g along the sharpest direction"),
            Control("the flow", mean_over_seeds([np.median(row) for row in flow["taken_back"]])),
            "Median after the crossing. At lower rates it comes in bursts: the oscillation dies and starts again.",
        ),
        Claim(
            f"Before the crossing the quadratic model predicts a step's change of the loss (rate {slow:g})",
            misfit(before(lanes[f"{slow:g}"]["account"])),
            at_most(0.01, "third order: small for steps that change the loss little"),
            Control(f"at the edge, rate {fast:g}", misfit(after(fast, lanes[f"{fast:g}"]["account"]))),
            "Median of |realised/predicted − 1|, predicted by gᵀu + ½uᵀHu.",
        ),
    ]
    return judged


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw λη/2, the sharpness of the flow beside the others', the loss, and the step accounts."""
    config, lanes = record.config, record.results["lanes"]
    flow = f"{config['flow_rate']:g}"

    def label(rate: float) -> str:
        return f"η = {rate:g}:  2/η = {2 / rate:.3g}"

    rates = {label(rate): rate for rate in config["rates"]}
    names = rates | {f"flow, η = {flow}:  2/η = {2 / config['flow_rate']:.3g}": config["flow_rate"]}

    def of(key: str) -> dict[str, Float[np.ndarray, "seeds measurements"]]:
        return {name: np.array(lanes[f"{rate:g}"][key]) for name, rate in names.items()}

    losses = {name: np.exp([smooth(np.log(row)) for row in values]) for name, values in of("loss").items()}
    rises = {name: [smooth([*row, row[-1]]) for row in values] for name, values in of("rises").items()}
    return {
        "edge_of_stability": panels(
            record.results["steps"],
            [
                Panel(
                    "sharpness · η/2;  1 = edge of stability",
                    {name: values * names[name] / 2 for name, values in of("sharpness").items()},
                    level=1.0,
                    smallest=0.0,
                ),
                Panel("sharpness λ (largest eigenvalue)", of("sharpness"), smallest=0.0),
                Panel("½ mean squared error, moving mean", losses, log=True),
                Panel("share of steps in which the loss rises", rises, smallest=0.0, largest=0.6),
            ],
            columns=2,
            title=f"Gradient descent on {config['num_points']} points: three rates, three edges of stability",
        )
    }  # fmt: skip


def smooth(row: Any) -> Float[np.ndarray, " measurements"]:
    """Return the means over nine neighbours, fewer at the ends."""
    window = np.ones(9)
    return np.convolve(row, window, "same") / np.convolve(np.ones(len(row)), window, "same")


EXPERIMENT = Experiment(
    question="Does full-batch gradient descent sharpen up to 2/η, and stay there?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
