"""Critical points of random smooth functions: minima against saddle points in 1 to 8 dimensions, and their heights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from experiments.claims import (
    Claim,
    Control,
    Measurement,
    at_least,
    at_most,
    exact,
    mean_over_seeds,
    near,
    share_of_trials,
)
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature
from jaxopt_study.figures import response
from jaxopt_study.records import Record

BRAY = "Bray and Dean (2007), Statistics of critical points of Gaussian fields on large-dimensional spaces"
LONGUET = "Longuet-Higgins (1957): in the plane half of all critical points are saddles, by symmetry a quarter minima"
GOODFELLOW = "Goodfellow, Bengio and Courville (2016), Deep Learning, §8.2.3"
KAC_RICE = "the formula of Kac and Rice, in which H = G − f I for a GOE matrix G"


@dataclass(frozen=True)
class Config:
    """Random functions, searches from their origin, and random matrices of the prediction."""

    dimensions: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    num_functions: int = 16_000  # of each dimension
    num_waves: int = 48
    radius: float = 0.6  # correlation lengths: only a critical point this near the start of its search counts
    max_steps: int = 10
    num_matrices: int = 100_000
    seed: int = 0


PRESETS = {
    "smoke": Config(dimensions=(1, 2, 3, 6), num_functions=5_000, num_waves=32, num_matrices=10_000),
    "paper": Config(),
}


def loss(x: Float[Array, " n"], waves: Mapping[str, Any]) -> Float[Array, ""]:
    """Return √(2/M) Σ cos(wᵢᵀx + φᵢ), or of log cosh, which is convex; plus ½x² of the dimensions that are not used."""
    phase = waves["frequency"] @ x + waves["phase"]
    value = jnp.where(waves["convex"], jnp.logaddexp(phase, -phase), jnp.cos(phase))
    return math.sqrt(2 / len(phase)) * jnp.sum(value) + jnp.sum(waves["unused"] @ x**2) / 2


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Search from the origin of many functions, and predict what is found."""
    del data_dir
    # One compiled program for all dimensions, and for convex functions, too.
    search = jax.jit(jax.vmap(partial(_critical_point, config, max(config.dimensions)), in_axes=(0, None, None)))
    found = {
        label: {
            str(n): part(f"{label}, {n} dimensions", partial(_found, config, search, n, convex=convex))
            for n in config.dimensions
        }
        for label, convex in (("random", False), ("convex", True))
    }
    return {**found, "predicted": {str(n): _predicted(config, n) for n in config.dimensions}}


def _found(config: Config, search: Any, n: int, *, convex: bool) -> dict[str, Any]:
    """Return height and index of the critical points near the start of their search, in ten groups of functions."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), n), config.num_functions).reshape(10, -1)
    points = [jax.tree.map(np.asarray, search(group, n, convex)) for group in (keys[:2] if convex else keys)]
    return {
        "height": [point["height"][point["found"]] for point in points],
        "index": [point["index"][point["found"]] for point in points],
    }


def _critical_point(config: Config, size: int, key: Any, n: Any, convex: Any) -> dict[str, Array]:
    """Return the critical point that a search from the origin of a new function finds.

    The field is stationary, so that the origin is as good as any point.
    """
    for_frequency, for_phase = jax.random.split(key)
    used = jnp.arange(size) < n
    waves = {
        "frequency": jnp.where(used, jax.random.normal(for_frequency, (config.num_waves, size)), 0),
        "phase": jax.random.uniform(for_phase, (config.num_waves,), minval=-jnp.pi, maxval=jnp.pi),
        "unused": jnp.broadcast_to(jnp.where(used, 0, 1 / config.num_waves), (config.num_waves, size)),
        "convex": jnp.broadcast_to(convex, config.num_waves),
    }
    end = curvature.find_critical_point(
        loss, jnp.zeros(size), waves, max_steps=config.max_steps, num_basis=size, method="newton-mr"
    )
    values = jnp.linalg.eigvalsh(jax.hessian(loss)(end.params, waves))
    near_start = jnp.linalg.norm(end.params) <= config.radius
    return {"found": end.success & near_start, "height": end.value, "index": jnp.sum(values < 0)}


def _predicted(config: Config, n: int) -> dict[str, Any]:
    """Return the Kac–Rice predictions, from random matrices H = G − f I weighted by |det H|.

    For the covariance exp(−r²/2) the Hessian at height f has independent entries of variance 1 and 2 around −f I.
    """
    rng = np.random.default_rng([config.seed, n])
    height = rng.standard_normal(config.num_matrices)
    entries = rng.standard_normal((config.num_matrices, n, n))
    values = np.linalg.eigvalsh((entries + entries.transpose(0, 2, 1)) / math.sqrt(2)) - height[:, None]
    weight = np.abs(values).prod(axis=1)
    index = (values < 0).sum(axis=1)
    ball = math.pi ** (n / 2) / math.gamma(n / 2 + 1) * config.radius**n
    edges = np.linspace(-3, 3, 13)
    return {
        "minima": float(weight[index == 0].sum() / weight.sum()),
        "share": float(weight.mean() * ball / (2 * math.pi) ** (n / 2)),
        "index": [
            float((weight * index)[inside].sum() / (n * weight[inside].sum()))
            for inside in (np.abs(height - middle) < 0.25 for middle in (edges[1:] + edges[:-1]) / 2)
        ],
    }


def of(results: Mapping[str, Any], kind: str, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return heights and indices of critical points in n dimensions, a list of groups each."""
    found = results[kind][str(n)]
    return [np.asarray(group, float) for group in found["height"]], [np.asarray(group) for group in found["index"]]


def claims(record: Record) -> list[Claim]:
    """Judge shares of minima, and the relation of index and height."""
    results, dimensions = record.results, record.config["dimensions"]
    last = max(dimensions)
    predicted = {int(n): found for n, found in results["predicted"].items()}

    def minima(kind: str, n: int) -> Measurement:
        index = np.concatenate(of(results, kind, n)[1])
        return share_of_trials(int((index == 0).sum()), index.size)

    def slope(kind: str) -> Measurement:
        groups = zip(*of(results, kind, last), strict=True)
        return mean_over_seeds([np.polyfit(height, index / last, 1)[0] for height, index in groups])

    def drop(below: int, above: int) -> Measurement:
        groups = zip(*of(results, "random", 2), strict=True)
        return mean_over_seeds(
            [height[index == above].mean() - height[index == below].mean() for height, index in groups]
        )

    def farthest(kind: str) -> Measurement:
        return exact(max(abs(minima(kind, n).value - predicted[n]["minima"]) for n in dimensions))

    counts = [sum(map(len, of(results, "random", n)[0])) for n in dimensions]
    shares = [count / record.config["num_functions"] for count in counts]
    missed = ", ".join(f"{share / predicted[n]['share']:.2f}" for n, share in zip(dimensions, shares, strict=True))
    convex = Control("convex functions", minima("convex", 2))
    return [
        Claim(
            "In the plane a quarter of the critical points are minima",
            minima("random", 2),
            near(0.25, 0.05, LONGUET),
            convex,
            f"Critical points within {record.config['radius']:g} correlation lengths of the start of a search.",
        ),
        Claim(
            f"In {last} dimensions hardly any is a minimum",
            minima("random", last),
            at_most(0.1, f"{BRAY}; one in ten; {KAC_RICE}, gives {predicted[last]['minima']:.2g}"),
            Control("convex functions", minima("convex", last)),
            f"In one dimension: {minima('random', 1)}. There, too, minima are no more frequent than the others.",
        ),
        Claim(
            "The share of minima is that of the Kac–Rice formula in every dimension",
            farthest("random"),
            at_most(0.05, KAC_RICE),
            Control("convex functions", farthest("convex")),
            f"Largest difference. For {', '.join(map(str, dimensions))} dimensions "
            f"{', '.join(f'{count:,}' for count in counts)} points were found, {missed} of the expected number.",
        ),
        Claim(
            f"In {last} dimensions the index grows with the height",
            slope("random"),
            at_least(0.05, f"{BRAY}; for many dimensions (π√n)⁻¹ = {1 / (math.pi * math.sqrt(last)):.2g}"),
            Control("convex functions", slope("convex")),
            "Slope of index over dimension against height, in standard deviations of the function.",
        ),
        Claim(
            "In the plane minima lie lower than saddle points",
            drop(0, 1),
            at_least(0.5, f"{GOODFELLOW}; half a standard deviation of the function"),
            Control("maxima", drop(2, 1)),
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the share of minima over the dimension, and the index over the height."""
    results, dimensions = record.results, record.config["dimensions"]
    last = max(dimensions)
    predicted = {int(n): found for n, found in results["predicted"].items()}
    middles = np.linspace(-3, 3, 13)[1:] - 0.25
    height, index = (np.concatenate(part) for part in of(results, "random", last))
    inside = [np.abs(height - middle) < 0.25 for middle in middles]
    binned = [index[mask].mean() / last if mask.sum() >= 5 else np.nan for mask in inside]

    def minima(kind: str) -> list[float]:
        return [float(np.mean(np.concatenate(of(results, kind, n)[1]) == 0)) or np.nan for n in dimensions]

    return {
        "minima": response(
            dimensions,
            {
                "found": minima("random"),
                "Kac–Rice": [predicted[n]["minima"] or np.nan for n in dimensions],
                "convex functions": minima("convex"),
            },
            xlabel="dimension", ylabel="minima among the critical points", log_y=True,
            title="Random smooth functions: the more dimensions, the rarer are minima",
        ),
        "height": response(
            middles,
            {"found": binned, "Kac–Rice": predicted[last]["index"]},
            xlabel="height of the critical point (standard deviations)", ylabel="index over dimension",
            title=f"{last} dimensions: the higher a critical point, the more directions lead down",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Are minima rare among the critical points of random functions of many variables, and do they lie low?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
