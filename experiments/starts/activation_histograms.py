"""Histograms of activations and gradients, layer by layer, under the initial scales of Saito (2016)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, near
from experiments.experiment import Experiment
from jaxopt_study.figures import SETTINGS, new_figure
from jaxopt_study.records import Record

SAITO = "Saito (2016), Deep Learning from Scratch, §6.2 and figures 6-10 to 6-14"
HE = "He et al. (2015), Delving deep into rectifiers, §2.2: a ReLU halves the second moment"
GLOROT = "Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward networks"
ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "ReLU": jax.nn.relu}
SCALES = ("1", ".01", "Xavier", "He")


@dataclass(frozen=True)
class Config:
    """Saito's network: 1,000 standard normal inputs, layers of 100 units without biases."""

    num_inputs: int = 1_000
    width: int = 100
    num_layers: int = 5
    num_bins: int = 30
    num_seeds: int = 40
    seed: int = 0


PRESETS = {"smoke": Config(num_inputs=50, num_seeds=24), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Pass the inputs forward and a random gradient back, for every activation and scale."""
    del data_dir
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    found: dict[str, Any] = {}
    stds = {"1": 1.0, ".01": 0.01, "Xavier": config.width**-0.5, "He": (2 / config.width) ** 0.5}
    for activation, function in ACTIVATIONS.items():
        both = jax.jit(jax.vmap(partial(_pass, config, function), in_axes=(None, 0)))
        for scale, std in stds.items():
            forward, backward = (np.asarray(x) for x in both(std, keys))  # (seeds, layers, inputs, width)
            edges = {"sigmoid": (0, 1), "tanh": (-1, 1), "ReLU": (0, max(1.0, float(np.quantile(forward[0], 0.999))))}
            saturated = {"sigmoid": np.abs(forward - 0.5) > 0.45, "tanh": np.abs(forward) > 0.9, "ReLU": forward == 0}
            found[f"{activation}, {scale}"] = {
                "second_moment": (forward**2).mean(axis=(2, 3)),
                "deviation": forward.std(axis=(2, 3)),
                "saturated": saturated[activation].mean(axis=(2, 3)),
                "gradient": np.sqrt((backward**2).mean(axis=(2, 3))),
                "histogram": [np.histogram(layer, config.num_bins, edges[activation])[0] for layer in forward[0]],
                "range": np.array(edges[activation], float),
                "gradient_histogram": [_log_histogram(config, layer) for layer in backward[0]],
            }
    return found


def _pass(config: Config, activation: Any, std: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return activations of each layer, and gradients of a random linear function of the last with respect to them."""
    key_x, key_w, key_u = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (config.num_inputs, config.width))
    weights = std * jax.random.normal(key_w, (config.num_layers, config.width, config.width))

    def forward(shifts: jax.Array) -> tuple[jax.Array, jax.Array]:
        def layer(h: jax.Array, both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            h = activation(h @ both[0]) + both[1]
            return h, h

        return jax.lax.scan(layer, x, (weights, shifts))

    shifts = jnp.zeros((config.num_layers, config.num_inputs, config.width))  # a gradient by them is one by activations
    output, pull, hidden = jax.vjp(forward, shifts, has_aux=True)
    return hidden, pull(jax.random.normal(key_u, output.shape))[0]


def _log_histogram(config: Config, values: np.ndarray) -> np.ndarray:
    return np.histogram(np.log10(np.maximum(np.abs(values), 1e-12)), config.num_bins, (-12, 4))[0]


def claims(record: Record) -> list[Claim]:
    """Judge saturation, collapse and the second moments of a ReLU's layers."""
    found = record.results

    def value(label: str, name: str, layer: int = -1) -> Measurement:
        return mean_over_seeds(np.asarray(found[label][name])[:, layer])

    def per_layer(label: str, name: str = "second_moment") -> Measurement:
        """Return the factor from a layer to the next: theory is about the mean over networks, of which it is a root."""
        values = np.asarray(found[label][name])
        whole, steps = mean_over_seeds(values[:, -1] / values[:, 0]), values.shape[1] - 1
        value, lower, upper = (max(x, 0.0) ** (1 / steps) for x in (whole.value, whole.lower, whole.upper))
        return Measurement(value, lower, upper, whole.num_seeds, whole.method)

    def gradient_factor(label: str) -> Measurement:
        """Return the gradient at the first layer over that at the last, in powers of ten."""
        values = np.asarray(found[label]["gradient"])
        return mean_over_seeds(np.log10(values[:, 0] / values[:, -1]))

    return [
        Claim(
            "At std 1 sigmoids saturate: most activations of the last layer are within .05 of 0 or 1",
            value("sigmoid, 1", "saturated"),
            at_least(0.5, SAITO),
            Control("std .01", value("sigmoid, .01", "saturated")),
            "Share of the last layer.",
        ),
        Claim(
            "At std .01 they collapse: all units say the same",
            value("sigmoid, .01", "deviation"),
            at_most(0.05, SAITO),
            Control("std 1", value("sigmoid, 1", "deviation")),
            "Standard deviation of the last layer's activations, in [0, 1].",
        ),
        Claim(
            "Under Xavier the second moment of a ReLU's layers halves from one to the next",
            per_layer("ReLU, Xavier"),
            near(0.5, 0.03, HE),
            Control("He", per_layer("ReLU, He")),
        ),
        Claim(
            "Under He it stays",
            per_layer("ReLU, He"),
            near(1.0, 0.05, HE),
            Control("He with tanh", per_layer("tanh, He")),
            "Factor per layer. With tanh He's scale is not too small but saturates: its activations stay within ±1.",
        ),
        Claim(
            "Under He the gradient reaches the first ReLU layer with its length",
            gradient_factor("ReLU, He"),
            near(0.0, 0.1, f"{HE}: the same factor holds backwards"),
            Control("Xavier with ReLU", gradient_factor("ReLU, Xavier")),
            "log₁₀ of its root mean square at the first layer over that at the last.",
        ),
        Claim(
            "At std .01 it vanishes",
            gradient_factor("tanh, .01"),
            at_most(-3.0, f"{GLOROT}; (.01·√100)⁴ = 10⁻⁴"),
            Control("Xavier", gradient_factor("tanh, Xavier")),
            "tanh. The notes show activations only; the gradients tell why such a network does not train.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw histograms of activations, and of gradients."""
    return {
        "activations": _grid(record, "histogram", "activation", "Activations by layer under four initial scales"),
        "gradients": _grid(
            record, "gradient_histogram", "log₁₀ |gradient|", "Gradients by layer under four initial scales"
        ),
    }


def _grid(record: Record, name: str, xlabel: str, title: str) -> Figure:
    """Draw one axes per activation and scale, one outline per layer."""
    layers = record.config["num_layers"]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, layers))
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(9.0, 6.0)
        axes = figure.subplots(len(ACTIVATIONS), len(SCALES), sharey=True)
        for row, activation in enumerate(ACTIVATIONS):
            for column, scale in enumerate(SCALES):
                found, panel = record.results[f"{activation}, {scale}"], axes[row, column]
                low, high = found["range"] if name == "histogram" else (-12.0, 4.0)
                edges = np.linspace(low, high, record.config["num_bins"] + 1)
                for layer, counts in enumerate(found[name]):
                    share = np.asarray(counts) / record.config["num_inputs"] / record.config["width"]
                    panel.stairs(share, edges, color=colours[layer], label=f"layer {layer + 1}", linewidth=1.2)
                panel.set_title(
                    f"{activation}, {'std ' if scale in ('1', '.01') else ''}{scale}", loc="left", fontsize=9
                )
                panel.set_ylim(0, 0.5)
            axes[row, 0].set_ylabel("share")
        for panel in axes[-1]:
            panel.set_xlabel(xlabel)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=layers)
    return figure


EXPERIMENT = Experiment(
    question="What do activations and gradients look like, layer by layer, under the initial scales of the notes?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
