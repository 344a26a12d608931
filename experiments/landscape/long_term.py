"""Long-term dependencies: powers of a matrix, and gradients through many steps of recurrent cells."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, at_most, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study.figures import response
from jaxopt_study.problems import networks
from jaxopt_study.records import Record

GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.2.5: Wᵗ = V diag(λ)ᵗ V⁻¹"
GELFAND = "Gelfand's formula: ‖Wᵗ‖^(1/t) → ρ(W)"
TREFETHEN = "Trefethen and Embree (2005), Spectra and pseudospectra, §16: transient growth of non-normal matrices"
HOCHREITER = "Hochreiter and Schmidhuber (1997), Long short-term memory; Cho et al. (2014) for the gated unit"
TALLEC = "Tallec and Ollivier (2018), Can recurrent neural networks warp time?: a gate with bias b forgets at σ(b)"
TANH, ORTHOGONAL, GRU = "tanh", "linear, orthogonal", "GRU, open gates"
USUAL, LSTM, ALONE = "LSTM, usual start", "LSTM, open gates", "LSTM, open gates, U near 0"


@dataclass(frozen=True)
class Config:
    """Random matrices, a non-normal one, and recurrent cells at their start."""

    dim: int = 20
    radii: tuple[float, ...] = (0.9, 1.0, 1.1)  # spectral radii to which a random matrix is scaled
    doublings: int = 26  # t = 2^26
    coupling: float = 5.0  # of the non-normal matrix, off its diagonal of .9
    num_steps: int = 200  # between an input and the output
    width: int = 50
    gain: float = 0.9  # spectral norm of the tanh cell's recurrent matrix
    open_bias: float = 3.0  # of the gates that keep, in LSTM and GRU; the usual one of an LSTM is 1
    num_seeds: int = 20
    seed: int = 0


PRESETS = {"smoke": Config(num_seeds=6, width=20), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Take matrix powers, and gradients through recurrent cells, in double precision."""
    del data_dir
    rng = np.random.default_rng(config.seed)
    slopes: dict[str, list[float]] = {f"{radius:g}": [] for radius in config.radii}
    for _ in range(config.num_seeds):
        W = rng.standard_normal((config.dim, config.dim)) / math.sqrt(config.dim)
        for radius in config.radii:
            scaled = W * (radius / np.abs(np.linalg.eigvals(W)).max())
            slopes[f"{radius:g}"].append(_log_growth(scaled, config.doublings) - math.log(radius))
    jordan = np.array([[0.9, config.coupling], [0.0, 0.9]])
    rotation = 0.9 * np.linalg.qr(rng.standard_normal((2, 2)))[0]  # normal, of the same spectral radius
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
        norms = partial(_gradient_norms, config)
        gradients = {
            label: part(label, partial(jax.jit(jax.vmap(partial(norms, model))), keys))
            for label, model in _models(config).items()
        }
        settings = {USUAL: (1.0, 1.0), LSTM: (config.open_bias, 1.0), ALONE: (config.open_bias, 0.01)}
        lanes = jax.vmap(lambda setting: jax.vmap(partial(norms, _lstm(config, *setting)))(keys))
        lstm = part("LSTM", partial(jax.jit(lanes), jnp.array(list(settings.values()))))
        gradients |= dict(zip(settings, lstm, strict=True))
    return {
        "excess": {radius: np.array(found) for radius, found in slopes.items()},
        "powers": {"non-normal": _power_norms(jordan, 120), "normal": _power_norms(rotation, 120)},
        "gradients": gradients,
    }


def _log_growth(W: np.ndarray, doublings: int) -> float:
    """Return log‖Wᵗ‖/t at t = 2^doublings, by repeated squaring of the normalised matrix."""
    log, power = 0.0, W
    for _ in range(doublings):
        norm = np.linalg.norm(power, 2)
        log, power = 2 * (log + math.log(norm)), (power / norm) @ (power / norm)
    return (log + math.log(np.linalg.norm(power, 2))) / 2**doublings


def _power_norms(W: np.ndarray, num_steps: int) -> np.ndarray:
    return np.array([np.linalg.norm(np.linalg.matrix_power(W, t), 2) for t in range(num_steps + 1)])


def _models(config: Config) -> dict[str, Any]:
    shape: Any = {"num_outputs": 1, "widths": (config.width,)}
    return {
        TANH: networks.RNN(**shape, recurrent_initialiser=networks.initialisers.orthogonal(config.gain)),
        ORTHOGONAL: networks.RNN(**shape, activation="identity", initialiser="orthogonal"),
        GRU: networks.GRU(**shape, update_bias=config.open_bias),
    }


def _lstm(config: Config, bias: jax.Array, gain: jax.Array) -> networks.LSTM:
    scaled = networks.initialisers.orthogonal(gain)
    return networks.LSTM(1, widths=(config.width,), forget_bias=bias, recurrent_initialiser=scaled)


def _gradient_norms(config: Config, model: Any, key: jax.Array) -> jax.Array:
    """Return ‖∂y/∂x‖ of the input 0 … T steps before the output y, relative to that of the last input."""
    key_weights, key_inputs = jax.random.split(key)
    x = jax.random.normal(key_inputs, (1, config.num_steps + 1, config.width)) / math.sqrt(config.width)
    params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), model.init(key_weights, x)["params"])
    gradient = jax.grad(lambda x: model.apply({"params": params}, x)[0, 0])(x)
    norms = jnp.linalg.norm(gradient[0], axis=-1)[::-1]
    return norms / norms[0]


def claims(record: Record) -> list[Claim]:
    """Judge growth rates, the transient, and how far a gradient reaches."""
    results, config = record.results, record.config
    excess = {radius: np.abs(np.asarray(found)).max() for radius, found in results["excess"].items()}
    powers = {label: np.asarray(norms) for label, norms in results["powers"].items()}

    gradients = {label: np.asarray(found) for label, found in results["gradients"].items()}

    def reach(label: str, *, over: str = "") -> Measurement:
        """Return log₁₀ of the gradient through all steps, or of its ratio to that of another cell."""
        ends = np.log10(np.maximum(gradients[label][:, -1], 1e-300))
        return mean_over_seeds(ends - (np.log10(np.maximum(gradients[over][:, -1], 1e-300)) if over else 0.0))

    def rate(label: str) -> Measurement:
        """Return the logarithm of the factor per step, over the second half of the steps."""
        logs = np.log(gradients[label])
        half = logs.shape[1] // 2
        return mean_over_seeds((logs[:, -1] - logs[:, half]) / (logs.shape[1] - 1 - half))

    steps = config["num_steps"]
    return [
        Claim(
            "The slope of log‖Wᵗ‖ is the logarithm of the spectral radius",
            exact(float(max(excess.values()))),
            at_most(1e-6, f"{GOODFELLOW}; {GELFAND}, here t = 2^{config['doublings']}"),
            Control(
                "log of the norm ‖W‖ instead, of a non-normal W", exact(float(np.log(powers["non-normal"][1] / 0.9)))
            ),
            f"Largest |log‖Wᵗ‖/t − log ρ| over {len(results['excess']['0.9'])} random matrices of each radius.",
        ),
        Claim(
            "A non-normal W of spectral radius .9 first makes a vector much longer",
            exact(float(powers["non-normal"].max())),
            at_least(10.0, TREFETHEN),
            Control("a normal W of the same radius", exact(float(powers["normal"].max()))),
            "max over t of ‖Wᵗ‖. The eigenvalues alone, of which the notes speak, do not show it.",
        ),
        Claim(
            "Both forget in the end",
            exact(float(powers["non-normal"][-1])),
            at_most(0.1, "ρ < 1"),
            Control("at the peak", exact(float(powers["non-normal"].max()))),
            "‖Wᵗ‖ after 120 steps.",
        ),
        Claim(
            f"Through {steps} steps of a tanh cell a gradient vanishes",
            reach(TANH),
            at_most(-8.0, f"{GOODFELLOW}; .9^{steps} = {0.9**steps:.0e}"),
            Control("an orthogonal linear cell", reach(ORTHOGONAL)),
            "log₁₀ of the gradient with respect to the first input, relative to that of the last.",
        ),
        Claim(
            "The orthogonal linear cell keeps its length",
            reach(ORTHOGONAL),
            near(0.0, 1e-4, "products of orthogonal matrices are orthogonal; weights drawn in single precision"),
            Control("tanh", reach(TANH)),
        ),
        Claim(
            "Gates carry a gradient farther than tanh by many orders of magnitude",
            reach(LSTM, over=TANH),
            at_least(3.0, f"{HOCHREITER}; three orders"),
            Control("tanh against itself, other seeds", mean_over_seeds(np.diff(np.log10(gradients[TANH][:, -1])))),
            f"Bias of open gates: {config['open_bias']:g}. log₁₀ through {steps} steps of the LSTM: {reach(LSTM)}, "
            f"of the GRU: {reach(GRU)}, of an LSTM at its usual start, forget bias 1: {reach(USUAL)}.",
        ),
        Claim(
            "Without feedback of h, an LSTM's gradient shrinks in each step by the factor σ(forget bias)",
            rate(ALONE),
            near(_log_sigmoid(config["open_bias"]), 0.02, f"{TALLEC}; {steps} steps"),
            Control("with orthogonal U, as at the start", rate(LSTM)),
            f"Logarithm of the factor per step. With orthogonal U the gates alone do not tell: h feeds back, and the "
            f"gradient shrinks less, or grows. At the usual start: {rate(USUAL)}, log σ(1) = {_log_sigmoid(1.0):.3f}.",
        ),
    ]


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw powers of two matrices, and gradients through the cells."""
    results = record.results
    return {
        "powers": response(
            np.arange(121), results["powers"], xlabel="t", ylabel="‖Wᵗ‖, spectral radius .9", log_y=True,
            title="Powers of W: a non-normal matrix grows before it forgets",
        ),
        "gradients": response(
            np.arange(record.config["num_steps"] + 1), results["gradients"], log_y=True, smallest=1e-18,
            xlabel="steps between input and output", ylabel="norm of the gradient, relative to the last input's",
            title="Gradients through recurrent cells at their start: gates carry them",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="How does a gradient vanish or explode over many steps, and when does it grow before it vanishes?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
