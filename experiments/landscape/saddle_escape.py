"""Number of steps in which an optimizer leaves a saddle point, and its dependence on the eigenvalue."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
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
    ratio_over_seeds,
    share_of_trials,
)
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, dynamics, optimizers, problems, training
from jaxopt_study.figures import SETTINGS, appearances, new_figure
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform, add_gradient_noise, chain

METHODS = ("GD", "Heavy ball", "Nesterov", "Adam")
PLANAR, BOWL = "x² − y²", "x² + y²"


@dataclass(frozen=True)
class Config:
    """From where and how long the optimizers run."""

    decay: float = 0.9  # of heavy ball and Nesterov
    adam_rate: float = 0.01
    nudge: float = 1e-10  # along the escape direction, for the rates
    read_at: float = 1e-6  # the distance at which a rate is read: rounding is 1e-10 of it, curvature 1e-6
    perturbation: float = 1e-6  # of random starts, for the numbers of steps
    noise: float = 1e-3  # standard deviation of the gradient's
    num_seeds: int = 100
    num_steps: int = 400
    num_searches: int = 10
    planar_only: bool = False  # leaves most of Rastrigin's function and of the linear network out
    tolerance: float = 1e-5  # of a growth factor, relative
    seed: int = 0


PRESETS = {"smoke": Config(num_seeds=12, num_searches=2, planar_only=True), "paper": Config()}


class Place(NamedTuple):
    """A critical point of a loss of a flat vector, and how it is left."""

    problem: problems.Problem
    point: Any
    value: float
    learning_rate: float
    drop: float  # of the loss, by which it counts as left


def saddles() -> dict[str, Place]:
    """Return the saddles to be left."""
    planar, network = problems.planar.rastrigin(), problems.linear_network()
    origin = next(p for p in problems.planar.saddle().critical_points)
    nearest = min(planar.saddles, key=lambda p: float(np.linalg.norm(p.params)))
    stuck = next(p for p in network.saddles if p.label == "modes {1, 2}")
    return {
        PLANAR: _place(problems.planar.saddle(), origin, 0.05, 0.01),
        "Rastrigin, by the global minimum": _place(planar, nearest, 5e-4, 1.0),
        "linear network, modes {1, 2}": _place(network, stuck, 0.02, 0.1),
    }


def minima() -> dict[str, Place]:
    """Return the minima of the same losses, for x² − y² that of x² + y², which are not to be left."""
    planar, network = problems.planar.rastrigin(), problems.linear_network()
    bowl = problems.quadratic([2.0, 2.0])
    return {
        BOWL: _place(bowl, bowl.minima[0], 0.05, 0.01),
        "Rastrigin, by the global minimum": _place(planar, planar.minima[0], 5e-4, 1.0),
        "linear network, modes {1, 2}": _place(network, network.minima[0], 0.02, 0.1),
    }


def _place(problem: problems.Problem, point: Any, learning_rate: float, drop: float) -> Place:
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, point.params))
    flattened = problem.replace(
        init=lambda key: flat, loss=lambda params, batch=None: problem.loss(unravel(params)), critical_points=()
    )
    return Place(flattened, flat, point.value, learning_rate, drop)


def methods(config: Config, learning_rate: float) -> dict[str, Transform]:
    """Return the optimizers at a learning rate; Adam has its own."""
    return {
        "GD": optimizers.sgd(learning_rate),
        "Heavy ball": optimizers.momentum(learning_rate, config.decay),
        "Nesterov": optimizers.nesterov_lookahead(learning_rate, config.decay),
        "Adam": optimizers.adam(config.adam_rate, eps=1e-12),
    }


def growth(method: str, product: float, decay: float) -> float:
    """Return the factor per step along a direction of negative curvature, product = η|λ|.

    GD multiplies by 1 + η|λ|. Heavy ball: the larger root of r² − (1 + γ + η|λ|) r + γ. Nesterov, gradient at the
    look-ahead point: of r² − (1 + η|λ|)((1 + γ) r − γ).
    """
    if method == "GD":
        return 1 + product
    linear, constant = 1 + decay + product, decay
    if method == "Nesterov":
        linear, constant = (1 + product) * (1 + decay), (1 + product) * decay
    return (linear + math.sqrt(linear**2 - 4 * constant)) / 2


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Read growth factors, count steps, add noise, and search for the saddles again."""
    del data_dir
    with jax.enable_x64(True):
        places = saddles()
        results: dict[str, Any] = {"saddles": {}, "minima": {}}
        for name, place in places.items():
            if name == PLANAR or not config.planar_only:
                results["saddles"][name] = part(f"saddle, {name}", partial(_at_saddle, name, place, config))
        for name, place in minima().items():
            if name != BOWL and config.planar_only:
                continue
            results["minima"][name] = part(f"minimum, {name}", partial(_at_minimum, place, config))
        planar, noises = places[PLANAR], (config.noise, config.noise / 100, 100 * config.noise)
        results["at_rest"] = part("at rest", partial(_at_rest, planar, config))
        results["noise"] = part("noise", partial(_noisy, planar, config, noises))
        results["scaled"] = part("scaled", partial(_scaled, planar, config))
        results["search"] = part("search", partial(_search, places["Rastrigin, by the global minimum"], config))
        return results


def _at_minimum(place: Place, config: Config) -> dict[str, Any]:
    chains = methods(config, place.learning_rate)
    return {
        "verdicts": {m: _stability(chains[m], place).kind for m in METHODS[: 1 if config.planar_only else 3]},
        "noisy": _noisy(place, config, (config.noise,))[str(config.noise)],
    }


def _at_rest(place: Place, config: Config) -> dict[str, Any]:
    chains = methods(config, place.learning_rate)
    return {m: _distances(tx, place, np.eye(2)[1], config, nudge=0.0).max() for m, tx in chains.items()}


def _at_saddle(name: str, place: Place, config: Config) -> dict[str, Any]:
    values, columns = np.linalg.eigh(np.asarray(jax.jit(jax.hessian(place.problem.loss))(place.point)))
    escape = columns[:, 0]
    chains = methods(config, place.learning_rate)
    steps = _steps_to_leave(place, chains, config)
    found: dict[str, Any] = {
        "curvature": values[0],
        "rates": {},
        "theory": {m: growth(m, place.learning_rate * -values[0], config.decay) for m in METHODS[:3]},
        "steps": steps,
        "stability": {},
    }
    distances = {m: _distances(chains[m], place, escape, config, nudge=config.nudge) for m in METHODS}
    for m in METHODS[:3]:
        at = int(np.argmax(distances[m] > config.read_at))
        found["rates"][m] = distances[m][at] / distances[m][at - 1]
        stability = _stability(chains[m], place)
        found["stability"][m] = {"radius": stability.radius, "error": stability.error, "kind": stability.kind}
    if name == PLANAR:
        found["distances"] = {m: path[:140] for m, path in distances.items()}
    return found


def _stability(optimizer: Transform, place: Place) -> dynamics.Stability:
    loss = place.problem.loss
    return dynamics.stability(
        optimizer, optimizer.init(place.point), loss, place.point, key=jax.random.key(1), tol=1e-9, k=2
    )


def _distances(
    optimizer: Transform, place: Place, escape: Any, config: Config, *, nudge: float
) -> Float[np.ndarray, " points"]:
    """Return the distances from the saddle along its escape direction, from a start at distance `nudge`."""
    run = training.train(
        place.problem, optimizer, num_steps=config.num_steps, key=jax.random.key(0),
        params=place.point + nudge * escape, record_params_every=1, progress=False,
    )  # fmt: skip
    return np.abs((np.asarray(run.snapshots) - np.asarray(place.point)) @ escape)


def _steps_to_leave(place: Place, chains: Mapping[str, Transform], config: Config) -> dict[str, Any]:
    """Return the numbers of steps from random starts on a small sphere, the same for every method."""
    directions = jax.random.normal(jax.random.key(config.seed), (config.num_seeds, place.point.size))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    starts = place.point + config.perturbation * directions
    losses_of = _losses(place, config.num_steps)
    return {m: _leave(losses_of, place, tx, starts) for m, tx in chains.items()}


def _losses(place: Place, num_steps: int) -> Callable[..., Any]:
    """Return (optimizer, starts, keys) ↦ the losses of a run from every start, compiled."""

    def one(optimizer: Transform, start: Any, key: Any) -> Any:
        return training.train(place.problem, optimizer, num_steps=num_steps, key=key, params=start).losses

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))


def _leave(
    losses_of: Callable[..., Any], place: Place, optimizer: Transform, starts: Any
) -> Float[np.ndarray, " starts"]:
    """Return the first step with a loss below the saddle's by `drop`; the number of all steps if there is none."""
    losses = np.asarray(losses_of(optimizer, starts, jax.random.split(jax.random.key(2), len(starts))))
    below = losses < place.value - place.drop
    return np.where(below.any(axis=1), below.argmax(axis=1), losses.shape[1]).astype(float)


def _noisy(place: Place, config: Config, noises: Sequence[float]) -> dict[str, Any]:
    """Return the steps of GD with gradient noise, started exactly at the saddle, by noise."""
    losses_of = _losses(place, config.num_steps)
    starts = jnp.broadcast_to(place.point, (config.num_seeds, place.point.size))
    found = {}
    for noise in noises:
        noisy = chain(add_gradient_noise(noise**2, 0.0, jax.random.key(3)), optimizers.sgd(place.learning_rate))
        found[str(noise)] = _leave(losses_of, place, noisy, starts)
    return found


def _scaled(place: Place, config: Config) -> dict[str, Any]:
    """Return the steps of GD and Adam on a tenth of the loss."""
    problem = place.problem.replace(loss=lambda params, batch=None: place.problem.loss(params) / 10)
    tenth = Place(problem, place.point, place.value / 10, place.learning_rate, place.drop / 10)
    chains = {m: tx for m, tx in methods(config, place.learning_rate).items() if m in {"GD", "Adam"}}
    return _steps_to_leave(tenth, chains, replace(config, num_steps=4000))


def _search(place: Place, config: Config) -> dict[str, Any]:
    """Return the end points, and their kinds, of searches for critical points that start near the saddle."""
    keys = jax.random.split(jax.random.key(5), config.num_searches)
    ends: dict[str, Any] = {method: {"distance": [], "index": []} for method in ("newton-mr", "saddle-free-newton")}
    for key in keys:
        start = place.point + 0.05 * jax.random.normal(key, place.point.shape)
        for method, found in ends.items():
            end = curvature.find_critical_point(place.problem.loss, start, method=method, key=key, tol=1e-12)
            kind = curvature.classify_point(place.problem.loss, end.params, key=key)
            found["distance"].append(float(jnp.linalg.norm(end.params - place.point)))
            found["index"].append(float(kind.index.estimate))
    return ends


def claims(record: Record) -> list[Claim]:
    """Judge growth factors, numbers of steps, and the effects of noise and of a start at rest."""
    results, config = record.results, record.config
    saddle, planar = results["saddles"], results["saddles"][PLANAR]
    judged = []
    for name, found in saddle.items():
        for m in METHODS[:3]:
            theory = found["theory"][m]
            other = "Heavy ball" if m != "Heavy ball" else "Nesterov"
            judged.append(
                Claim(
                    f"{m} leaves {name} (λ = {found['curvature']:.4g}) by this factor per step",
                    exact(found["rates"][m]),
                    near(theory, config["tolerance"] * theory, SOURCES[m]),
                    Control(other, exact(found["rates"][other])),
                )
            )
    radii = [
        abs(found["stability"][m]["radius"] - found["theory"][m]) for found in saddle.values() for m in METHODS[:3]
    ]
    crossed = [
        abs(found["stability"][m]["radius"] - found["theory"]["GD"]) for found in saddle.values() for m in METHODS[1:3]
    ]
    escapes = [found["stability"][m]["kind"] == "escape" for found in saddle.values() for m in METHODS[:3]]
    staying = [kind == "escape" for found in results["minima"].values() for kind in found["verdicts"].values()]
    steps = planar["steps"]
    expected = math.log(planar["theory"]["GD"]) / math.log(planar["theory"]["Heavy ball"])
    noise, factor = config["noise"], planar["theory"]["GD"]
    freed = [count < config["num_steps"] for count in results["noise"][str(noise)]]
    left = [count < config["num_steps"] for found in results["minima"].values() for count in found["noisy"]]
    judged += [
        Claim(
            "`stability` finds these factors in the linearised step, before any step: largest deviation",
            exact(max(radii)),
            at_most(1e-6, "Arnoldi on the jvp of the step, residual 1e-9"),
            Control("1 + η|λ| taken for the momentum methods too", exact(min(crossed))),
        ),
        Claim(
            "`stability` gives the verdict escape at every pair of a saddle and a method",
            exact(float(np.mean(escapes))),
            near(1.0, 0.0, "a real eigenvalue beyond 1"),
            Control("at minima of the same losses", exact(float(np.mean(staying)))),
        ),
        Claim(
            "Heavy ball leaves x² − y² in this share of GD's steps",
            ratio_over_seeds(steps["Heavy ball"], steps["GD"]),
            near(
                expected,
                0.1 * expected,
                "ln of GD's factor over ln of heavy ball's; 10 % for the steps to gather speed",
            ),
            Control("Nesterov's steps over heavy ball's", ratio_over_seeds(steps["Nesterov"], steps["Heavy ball"])),
        ),
        Claim(
            "Adam leaves a tenth of x² − y² in as many steps as x² − y²",
            ratio_over_seeds(results["scaled"]["Adam"], steps["Adam"]),
            near(1.0, 0.05, "its step does not depend on the size of the gradient"),
            Control("GD", ratio_over_seeds(results["scaled"]["GD"], steps["GD"])),
            f"Adam at rate {config['adam_rate']:g} needs {np.mean(steps['Adam']):.1f}, GD {np.mean(steps['GD']):.0f}: "
            "where the gradient is as small as the saddle is near, Adam steps as far as anywhere.",
        ),
        Claim(
            f"Exactly at the saddle of x² − y² nothing moves in {config['num_steps']} steps: largest distance",
            exact(max(results["at_rest"].values())),
            at_most(0.0, "the gradient is zero"),
            Control("1e-10 beside it, GD, 139 steps", exact(planar["distances"]["GD"][-1])),
        ),
        Claim(
            f"Noise of {noise:g} in the gradient frees GD from exactly the saddle of x² − y²: share of runs",
            share_of_trials(sum(freed), len(freed)),
            at_least(0.7, f"within {config['num_steps']} steps; Ge et al. (2015), Jin et al. (2017)"),
            Control("at minima", share_of_trials(sum(left), len(left))),
        ),
        Claim(
            "Mean number of those steps on x² − y²",
            mean_over_seeds(results["noise"][str(noise)]),
            near(_noisy_steps(factor, noise, 0.05, 0.1), 0.1 * _noisy_steps(factor, noise, 0.05, 0.1), PASSAGE),
            Control("noise a hundredth as large", mean_over_seeds(results["noise"][str(noise / 100)])),
        ),
        Claim(
            "A hundredth of the noise costs so many more steps, and not a hundred times as many",
            mean_over_seeds(np.subtract(results["noise"][str(noise / 100)], results["noise"][str(noise)])),
            near(math.log(100) / math.log(factor), 1.0, "ln 100/ln(1 + η|λ|)"),
            Control(
                "a ten-thousandth",
                mean_over_seeds(np.subtract(results["noise"][str(noise / 100)], results["noise"][str(100 * noise)])),
            ),
        ),
        Claim(
            "From beside Rastrigin's saddle Newton-MR finds it again: largest distance",
            _largest(results["search"]["newton-mr"]["distance"]),
            at_most(1e-8, "it goes to critical points of any index"),
            Control(
                "saddle-free Newton",
                _smallest(results["search"]["saddle-free-newton"]["distance"]),
            ),
        ),
        Claim(
            "and `classify_point` says what it is: index",
            _largest(results["search"]["newton-mr"]["index"]),
            near(1.0, 0.0, "one of two curvatures is negative"),
            Control("where saddle-free Newton ends", _largest(results["search"]["saddle-free-newton"]["index"])),
        ),
    ]
    return judged


SOURCES = {
    "GD": "1 + η|λ|",
    "Heavy ball": "larger root of r² − (1 + γ + η|λ|) r + γ (Polyak 1964)",
    "Nesterov": "larger root of r² − (1 + η|λ|)((1 + γ) r − γ)",
}
PASSAGE = "first passage of rᵗ N(0, s²), s = ησ/√(r² − 1): (ln(δ/s) + (γ + ln 2)/2)/ln r, γ Euler's; 10 %"


def _noisy_steps(factor: float, noise: float, learning_rate: float, distance: float) -> float:
    spread = learning_rate * noise / math.sqrt(factor**2 - 1)
    return (math.log(distance / spread) + (np.euler_gamma + math.log(2)) / 2) / math.log(factor)


def _largest(values: Any) -> Measurement:
    return Measurement(max(values), max(values), max(values), len(values), "largest")


def _smallest(values: Any) -> Measurement:
    return Measurement(min(values), min(values), min(values), len(values), "smallest")


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the distance from the saddle step by step, and the numbers of steps to leave each."""
    results, config = record.results, record.config
    planar, looks = results["saddles"][PLANAR], appearances(METHODS)
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(9.5, 4.2)
        along, counts = figure.subplots(1, 2, width_ratios=(1.15, 1))
        for m, path in planar["distances"].items():
            look, far = looks[m], int(np.argmax(np.append(path, np.inf) > 1.0))
            along.plot(path[:far], label=m, **look.line(marker="", linewidth=3.2))
            if m in planar["theory"]:
                middle = far // 2
                slope = path[middle] * planar["theory"][m] ** (np.arange(far) - middle)
                along.plot(slope, color="black", linewidth=0.8, label="theory" if m == "Nesterov" else None)
                left = m == "Nesterov"
                along.annotate(
                    f"×{planar['theory'][m]:.3f}", (0.62 * far, slope[int(0.62 * far)]),
                    xytext=(-8, 6) if left else (8, -6), textcoords="offset points", color=look.color, fontsize=9,
                    ha="right" if left else "left", va="center",
                )  # fmt: skip
        along.set_yscale("log")
        along.set(xlabel="step", ylabel="distance along the escape direction", xlim=(0, 140), ylim=(3e-11, 3))
        along.set_title("x² − y², started 1e-10 beside: factor per step", loc="left")
        for row, found in enumerate(results["saddles"].values()):
            for place, m in enumerate(METHODS):
                low, middle, high = np.quantile(found["steps"][m], [0.05, 0.5, 0.95])
                counts.errorbar(
                    middle, row + 0.18 * (place - 1.5), xerr=[[middle - low], [high - middle]], fmt=looks[m].marker,
                    color=looks[m].color, markersize=6, capsize=3,
                )  # fmt: skip
        names = [f"{name.split(',')[0]}\nλ = {found['curvature']:.3g}" for name, found in results["saddles"].items()]
        counts.set_yticks(range(len(names)), names)
        counts.invert_yaxis()
        counts.grid(axis="y", visible=False)
        counts.set_xscale("log")
        counts.set(xlabel=f"steps to leave, from {config['perturbation']:g} away")
        counts.set_title("median, 5 to 95 % of random starts", loc="left")
        figure.legend(*along.get_legend_handles_labels(), loc="outside lower center", ncols=5, handlelength=3.2)
    return {"escape": figure}


EXPERIMENT = Experiment(
    question="How many steps does an optimizer need to leave a saddle point, and what decides it?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
