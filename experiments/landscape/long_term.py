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
from jaxopt_study.figures import response
from jaxopt_study.records import Record

GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.2.5: Wᵗ = V diag(λ)ᵗ V⁻¹"
GELFAND = "Gelfand's formula: ‖Wᵗ‖^(1/t) → ρ(W)"
TREFETHEN = "Trefethen and Embree (2005), Spectra and pseudospectra, §16: transient growth of non-normal matrices"
HOCHREITER = "Hochreiter and Schmidhuber (1997), Long short-term memory; Cho et al. (2014) for the gated unit"
CELLS = ("tanh", "LSTM", "GRU")


@dataclass(frozen=True)
class Config:
    """Random matrices, a non-normal one, and recurrent cells at their start."""

    dim: int = 20
    radii: tuple[float, ...] = (0.9, 1.0, 1.1)  # spectral radii to which a random matrix is scaled
    doublings: int = 26  # t = 2^26
    coupling: float = 5.0  # of the non-normal matrix, off its diagonal of .9
    num_steps: int = 200  # of gradients through the cells
    width: int = 50
    gain: float = 0.9  # spectral norm of the tanh cell's recurrent matrix
    forget_bias: float = 3.0  # of LSTM and GRU: both keep most of their memory at the start
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
        gradients = {
            cell: np.asarray(jax.jit(jax.vmap(partial(_gradient_norms, config, cell)))(keys)) for cell in CELLS
        }
        orthogonal = np.asarray(jax.jit(jax.vmap(partial(_gradient_norms, config, "linear, orthogonal")))(keys))
    return {
        "excess": {radius: np.array(found) for radius, found in slopes.items()},
        "powers": {"non-normal": _power_norms(jordan, 120), "normal": _power_norms(rotation, 120)},
        "gradients": gradients | {"linear, orthogonal": orthogonal},
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


def _gradient_norms(config: Config, cell: str, key: jax.Array) -> jax.Array:
    """Return ‖∂(uᵀh_T)/∂h_t‖ for 0 … T steps between t and T, relative to ‖u‖, u random, inputs random."""
    width = config.width
    key_weights, key_inputs, key_u = jax.random.split(key, 3)
    step, size = _cell(config, cell, key_weights)
    inputs = jax.random.normal(key_inputs, (config.num_steps, width))
    _, states = jax.lax.scan(lambda h, x: (step(h, x), h), jnp.zeros(size), inputs)
    # The output reads the hidden part, not the LSTM's cell.
    u = jnp.zeros(size).at[:width].set(jax.random.normal(key_u, (width,)))

    def back(adjoint: jax.Array, both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h, x = both
        adjoint = jax.vjp(lambda h: step(h, x), h)[1](adjoint)[0]
        return adjoint, jnp.linalg.norm(adjoint)

    _, norms = jax.lax.scan(back, u, (states, inputs), reverse=True)
    return jnp.concatenate([jnp.ones(1), norms[::-1] / jnp.linalg.norm(u)])


def _cell(config: Config, cell: str, key: jax.Array) -> tuple[Any, int]:
    """Return the step h, x ↦ h of a cell, and the size of its state; the LSTM's is (h, c)."""
    width = config.width
    keys = jax.random.split(key, 2)
    draw = jax.nn.initializers.orthogonal()
    if cell == "linear, orthogonal":
        W = draw(keys[0], (width, width))
        return lambda h, x: W @ h + x / math.sqrt(width), width
    num_gates = {"tanh": 1, "LSTM": 4, "GRU": 3}[cell]
    recurrent = [draw(k, (width, width)) for k in jax.random.split(keys[0], num_gates)]
    driving = [jax.random.normal(k, (width, width)) / width for k in jax.random.split(keys[1], num_gates)]
    sigmoid, bias = jax.nn.sigmoid, config.forget_bias
    if cell == "tanh":
        return lambda h, x: jnp.tanh(config.gain * recurrent[0] @ h + driving[0] @ x), width
    if cell == "LSTM":

        def lstm(state: jax.Array, x: jax.Array) -> jax.Array:
            h, c = jnp.split(state, 2)
            i, f, o, g = (U @ h + V @ x for U, V in zip(recurrent, driving, strict=True))
            c = sigmoid(f + bias) * c + sigmoid(i) * jnp.tanh(g)
            return jnp.concatenate([sigmoid(o) * jnp.tanh(c), c])

        return lstm, 2 * width

    def gru(h: jax.Array, x: jax.Array) -> jax.Array:
        z = sigmoid(recurrent[0] @ h + driving[0] @ x + bias)  # how much is kept
        r = sigmoid(recurrent[1] @ h + driving[1] @ x)
        return z * h + (1 - z) * jnp.tanh(recurrent[2] @ (r * h) + driving[2] @ x)

    return gru, width


def claims(record: Record) -> list[Claim]:
    """Judge growth rates, the transient, and how far a gradient reaches."""
    results, config = record.results, record.config
    excess = {radius: np.abs(np.asarray(found)).max() for radius, found in results["excess"].items()}
    powers = {label: np.asarray(norms) for label, norms in results["powers"].items()}

    def reach(cell: str) -> Measurement:
        """Return log₁₀ of the gradient through all steps."""
        return mean_over_seeds(np.log10(np.maximum(np.asarray(results["gradients"][cell])[:, -1], 1e-300)))

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
            reach("tanh"),
            at_most(-8.0, f"{GOODFELLOW}; .9^{steps} = {0.9**steps:.0e}"),
            Control("an orthogonal linear cell", reach("linear, orthogonal")),
            "log₁₀ of the gradient's norm relative to its start.",
        ),
        Claim(
            "The orthogonal linear cell keeps its length",
            reach("linear, orthogonal"),
            near(0.0, 1e-6, "products of orthogonal matrices are orthogonal"),
            Control("tanh", reach("tanh")),
        ),
        Claim(
            "Gates carry a gradient farther than tanh by many orders of magnitude",
            mean_over_seeds(
                np.log10(np.asarray(results["gradients"]["LSTM"])[:, -1])
                - np.log10(np.maximum(np.asarray(results["gradients"]["tanh"])[:, -1], 1e-300))
            ),
            at_least(3.0, f"{HOCHREITER}; three orders"),
            Control(
                "tanh against itself, other seeds",
                mean_over_seeds(np.diff(np.log10(np.asarray(results["gradients"]["tanh"])[:, -1]))),
            ),
            f"LSTM with forget bias {config['forget_bias']:g}. log₁₀ for the GRU: {reach('GRU')}, for the LSTM: "
            f"{reach('LSTM')}.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw powers of two matrices, and gradients through the cells."""
    results = record.results
    gradients = {label: np.maximum(np.asarray(found), 1e-20) for label, found in results["gradients"].items()}
    return {
        "powers": response(
            np.arange(121), results["powers"], xlabel="t", ylabel="‖Wᵗ‖, spectral radius .9", log_y=True,
            title="Powers of W: a non-normal matrix grows before it forgets",
        ),
        "gradients": response(
            np.arange(record.config["num_steps"] + 1), gradients, xlabel="steps between output and state", log_y=True,
            ylabel="norm of the gradient, relative to its start", smallest=1e-18,
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
