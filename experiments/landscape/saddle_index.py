"""Number of negative eigenvalues at critical points, as a function of the loss and of the dimension."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.claims import Claim, Control, Expectation, Measurement, at_least, at_most, exact, near, share_of_trials
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, problems
from jaxopt_study.figures import COLOURS, SETTINGS, new_figure
from jaxopt_study.problems import random_rotation
from jaxopt_study.records import Record

NETWORK = "critical points of ½‖Y − W₂W₁‖²: Baldi and Hornik (1989); the count: `problems.linear_network`"
TIED = (5.0, 4.0, 3.0)  # 5² = 4² + 3²: the network that lacks mode 0 and the one that lacks modes 1 and 2 are level
GAUSSIAN = "Pfaffian of de Bruijn (1955); for n ≤ 3 the closed forms ½, (2 − √2)/4, (π − 2√2)/4π"


@dataclass(frozen=True)
class Config:
    """Numbers of random networks and matrices."""

    singular_values: tuple[float, float, float] = (3.0, 2.0, 1.0)
    hidden: int = 4
    sizes: tuple[int, int] = (5, 6)
    num_seeds: int = 10  # random singular vectors and hidden bases
    num_moved: int = 20  # unbalanced points (W₂G, G⁻¹W₁), and points that are not critical
    num_basis: int = 40  # of the Krylov space behind the proved bound; the network has 44 parameters
    dimensions: tuple[int, ...] = (1, 2, 3, 4, 5)
    num_matrices: int = 20_000_000
    tolerance: float = 0.1  # of a probability, relative; the interval at n = 5 is ± 4 %
    seed: int = 0


PRESETS = {
    "smoke": Config(num_seeds=2, num_moved=2, dimensions=(1, 2), num_matrices=500_000),
    "paper": Config(),
}


def loss(params: Any, target: Any) -> Any:
    """Return ½‖Y − W₂W₁‖²; the target is data, so that no other target compiles anything again."""
    return jnp.sum((target[0] - params[1] @ params[0]) ** 2) / 2


def formula(sigma: Sequence[float], hidden: int, modes: Sequence[int], *, exchanges: bool = True) -> int:
    """Return (h − s)(r − s) + #{i ∈ S, j ∉ S : σⱼ > σᵢ}, or without the exchanges."""
    missing = [j for j in range(len(sigma)) if j not in modes]
    swaps = sum(sigma[j] > sigma[i] for i in modes for j in missing)
    return (hidden - len(modes)) * len(missing) + (swaps if exchanges else 0)


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Measure every index in three ways, and count positive definite matrices among random ones."""
    del data_dir
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(config.seed), config.num_seeds + 1)
        drawn = [part(f"target {i}", partial(_points, config, key)) for i, key in enumerate(keys[1:])]
        return {
            "points": {label: [points[label] for points in drawn] for label in drawn[0]},
            "moved": part("moved", partial(_moved, config, keys[0])),
            "tied": part("tied", partial(_tied, config)),
            "random_matrices": {
                "count": {str(n): part(f"{n} × {n}", partial(_count_positive, config, n)) for n in config.dimensions},
                "expected": {str(n): positive_probability(n) for n in range(1, 9)},
            },
        }


def _points(config: Config, key: Any) -> dict[str, Any]:
    """Return the measurements at all critical points of one random target, in a random hidden basis."""
    key_target, key_basis, key_index = jax.random.split(key, 3)
    problem = problems.linear_network(config.singular_values, hidden=config.hidden, sizes=config.sizes, key=key_target)
    basis = random_rotation(config.hidden, key=key_basis)
    target = _target(problem)
    found = {}
    for point in problem.critical_points:
        params = basis.T @ point.params[0], point.params[1] @ basis
        found[point.label] = _measure(params, target, config, key_index)
    return found


def _target(problem: problems.Problem) -> Float[np.ndarray, "outputs inputs"]:
    """Return Y, as the product of the network that has learned every mode."""
    first, second = problem.critical_points[0].params
    return second @ first


def _measure(params: Any, target: Any, config: Config, key: Any) -> dict[str, Any]:
    params, data = jax.tree.map(jnp.asarray, (tuple(params), target[None]))
    matrix, gradient, value = _second_order(params, data)
    eigenvalues = np.linalg.eigvalsh(np.asarray(matrix))
    op = curvature.hessian(loss, params, data)
    whole = curvature.morse_index(op, key=key)
    space = curvature.morse_index(op, key=key, max_dense=0, num_basis=config.num_basis, num_steps=20)
    return {
        "loss": value,
        "gradient_norm": gradient,
        "index": int((eigenvalues < -1e-8).sum()),
        "below_zero": int((eigenvalues < 0).sum()),
        "morse_index": whole.estimate,
        "lower_bound": space.lower_bound,
        "interval": space.interval,
        "eigenvalues": eigenvalues,
    }


@jax.jit
def _second_order(params: Any, data: Any) -> tuple[Any, Any, Any]:
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    value, gradient = jax.value_and_grad(lambda x: loss(unravel(x), data))(flat)
    return jax.hessian(lambda x: loss(unravel(x), data))(flat), jnp.linalg.norm(gradient), value


def _moved(config: Config, key: Any) -> dict[str, Any]:
    """Return indices along the manifold of {1, 2}, and a hundredth of a length away from it."""
    problem = problems.linear_network(config.singular_values, hidden=config.hidden, sizes=config.sizes)
    target = _target(problem)
    first, second = next(point.params for point in problem.critical_points if point.label == "modes {1, 2}")
    along, away, change = [], [], []
    for k in jax.random.split(key, config.num_moved):
        key_basis, key_away = jax.random.split(k)
        basis = np.eye(config.hidden) + 0.3 * np.asarray(jax.random.normal(key_basis, (config.hidden, config.hidden)))
        moved = np.linalg.solve(basis, first), second @ basis
        noise = [
            np.asarray(jax.random.normal(n, w.shape)) for n, w in zip(jax.random.split(key_away), moved, strict=True)
        ]
        size = math.sqrt(sum((w**2).sum() for w in moved) / sum((w**2).sum() for w in noise))
        beside = [w + 0.01 * size * n for w, n in zip(moved, noise, strict=True)]
        matrices = [np.asarray(_second_order(_arrays(params), target[None])[0]) for params in (moved, beside)]
        values, others = (np.linalg.eigvalsh(matrix) for matrix in matrices)
        along.append(int((values < -1e-8).sum()))
        away.append(int((others < -1e-8).sum()))
        change.append(float(values[-1]))
    return {"along": along, "away": away, "largest_eigenvalue": change}


def _arrays(params: Any) -> Any:
    return tuple(jnp.asarray(leaf) for leaf in params)


def _tied(config: Config) -> dict[str, Any]:
    """Return loss and index of the two points of equal loss of σ = (5, 4, 3)."""
    problem = problems.linear_network(TIED, hidden=config.hidden, sizes=config.sizes)
    target = _target(problem)
    found = {}
    for point in problem.critical_points:
        matrix, _, value = _second_order(_arrays(point.params), target[None])
        found[point.label] = {"loss": value, "index": int((np.linalg.eigvalsh(np.asarray(matrix)) < -1e-8).sum())}
    return found


def _count_positive(config: Config, n: int) -> int:
    """Return how many random symmetric matrices have positive eigenvalues only."""
    chunk = min(config.num_matrices, 500_000)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), n), config.num_matrices // chunk)
    return sum(int(_positive(key, n, chunk)) for key in keys)


@partial(jax.jit, static_argnums=(1, 2))
def _positive(key: Any, n: int, count: int) -> Any:
    """Count by the pivots of Gaussian elimination, which have the signs of the eigenvalues (Sylvester)."""
    square = jax.random.normal(key, (n, n, count), dtype=jnp.float32)
    matrix = square + square.swapaxes(0, 1)  # GOE: the diagonal has twice the variance of the others
    positive = jnp.ones(count, bool)
    for k in range(n):
        pivot = matrix[0, 0]
        positive &= pivot > 0
        matrix = matrix[1:, 1:] - matrix[1:, :1] * matrix[:1, 1:] / pivot if k < n - 1 else matrix
    return jnp.sum(positive)


def positive_probability(n: int) -> float:
    """Return the probability that all eigenvalues of an n × n GOE matrix are positive.

    The density of the eigenvalues is ∏ e^(−x²/2) ∏ |xᵢ − xⱼ|, and the integral of it over a box is the Pfaffian of
    aⱼₖ = ∬ sgn(y − x) xʲ yᵏ w(x) w(y), bordered by ∫ xʲ w for odd n.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def pfaffian(low: float, high: float) -> float:
        half = (high - low) / 2
        x = half * nodes + (high + low) / 2
        values = np.array([x**j * np.exp(-(x**2) / 2) for j in range(n)])
        moments = values @ (half * weights)
        inner = (x - low)[:, None] / 2 * (nodes + 1) + low  # quadrature points of ∫ from low to each x
        below = np.array([(inner**j * np.exp(-(inner**2) / 2)) @ weights for j in range(n)]) * (x - low) / 2
        matrix = (2 * below - moments[:, None]) @ (values * half * weights).T
        if n % 2:
            matrix = np.block([[matrix, moments[:, None]], [-moments[None], np.zeros((1, 1))]])
        return math.sqrt(abs(np.linalg.det(matrix)))

    return pfaffian(0.0, 12.0) / pfaffian(-12.0, 12.0)


def claims(record: Record) -> list[Claim]:
    """Judge the indices, their dependence on the loss, and the random matrices."""
    results, config = record.results, record.config
    points, sigma = results["points"], config["singular_values"]
    by_modes = {_label(modes): modes for modes in _subsets(len(sigma))}

    def indices(label: str, name: str = "index") -> Measurement:
        return _over_seeds([at[name] for at in points[label]])

    def worst(name: str, *, exchanges: bool = True) -> Measurement:
        gaps = [
            max(abs(at[name] - formula(sigma, config["hidden"], modes, exchanges=exchanges)) for at in points[label])
            for label, modes in by_modes.items()
        ]
        return Measurement(max(gaps), max(gaps), max(gaps), config["num_seeds"], "worst of eight points, all seeds")

    judged = []
    for label, modes in by_modes.items():
        other = _label([j for j in range(len(sigma)) if j not in modes])
        judged.append(
            Claim(
                f"{label[0].upper()}{label[1:]} learned: index, at loss {points[label][0]['loss']:.3g}",
                indices(label),
                near(formula(sigma, config["hidden"], modes), 0.0, NETWORK),
                Control(f"{other} instead", indices(other)),
            )
        )
    judged += [
        Claim(
            "The index is (h − s)(r − s) plus the exchanges for a stronger mode: largest deviation from it",
            worst("index"),
            near(0.0, 0.0, f"{NETWORK}; measured by the eigenvalues of dense Hessians"),
            Control("the formula without the exchanges", worst("index", exchanges=False)),
        ),
        Claim(
            "`morse_index` gives the same, from all eigenvalues",
            worst("morse_index"),
            near(0.0, 0.0, NETWORK),
            Control("eigenvalues below 0 counted, without τ", worst("below_zero")),
            "A network of 44 parameters has 20 to 22 flat directions, whose zeros rounding makes negative or positive.",
        ),
        Claim(
            f"Its proved lower bound from a Krylov space of {config['num_basis']} dimensions reaches the index",
            worst("lower_bound"),
            near(0.0, 0.0, NETWORK),
            Control("eigenvalues below 0 counted, without τ", worst("below_zero")),
        ),
        Claim(
            "The loss at a critical point is ½ Σ σⱼ² over the modes not learned: largest deviation",
            _worst_loss(points, sigma, by_modes, 2),
            at_most(1e-12, "double precision"),
            Control("½ Σ σⱼ", _worst_loss(points, sigma, by_modes, 1)),
        ),
        Claim(
            "Reparametrised to (W₂G, G⁻¹W₁), the point {1, 2} keeps its index",
            _over_seeds(results["moved"]["along"]),
            near(formula(sigma, config["hidden"], (1, 2)), 0.0, "Sylvester's law of inertia: G acts linearly"),
            Control("1 % beside it, where the gradient is not zero", _over_seeds(results["moved"]["away"])),
            "The eigenvalues do change: the largest lies between "
            f"{min(results['moved']['largest_eigenvalue']):.2f} and {max(results['moved']['largest_eigenvalue']):.2f}.",
        ),
        Claim(
            "A lower loss does not mean a lower index: pairs of critical points in the wrong order",
            exact(_inversions([(at[0]["loss"], at[0]["index"]) for at in points.values()])),
            at_least(1.0, "{0} has loss 2.5 and index 6, {1, 2} has loss 4.5 and index 4"),
            Control(
                "only the points that have learned the k strongest modes",
                exact(
                    _inversions([(points[k][0]["loss"], points[k][0]["index"]) for k in map(_label, _strongest(sigma))])
                ),
            ),
            "One pair of 28: index and loss do go together, as Dauphin et al. (2014) found, but not strictly.",
        ),
        Claim(
            "Critical points of equal loss may differ in index: for σ = (5, 4, 3), {0} against {1, 2}",
            exact(abs(results["tied"]["modes {0}"]["index"] - results["tied"]["modes {1, 2}"]["index"])),
            Expectation(1.0, math.inf, f"both have loss {results['tied']['modes {0}']['loss']:.3g}: 5² = 4² + 3²"),
            Control("{1, 2} in two hidden bases", exact(np.ptp(results["moved"]["along"]))),
            "So the index is not a function of the loss.",
        ),
    ]
    for n in config["dimensions"]:
        count, number = results["random_matrices"]["count"][str(n)], config["num_matrices"]
        expected = results["random_matrices"]["expected"]
        coin = (0.5**n, "a coin for every eigenvalue") if n > 1 else (expected["2"], "2 × 2")
        judged.append(
            Claim(
                f"A random symmetric {n} × {n} matrix (GOE) has only positive eigenvalues: probability",
                share_of_trials(count, number),
                near(expected[str(n)], config["tolerance"] * expected[str(n)], GAUSSIAN),
                Control(coin[1], exact(coin[0])),
            )
        )
    return judged


def _over_seeds(values: Sequence[float]) -> Measurement:
    return Measurement(float(np.median(values)), min(values), max(values), len(values), "smallest and largest")


def _worst_loss(points: Any, sigma: Any, by_modes: Any, power: int) -> Measurement:
    gap = max(
        abs(at["loss"] - sum(sigma[j] ** power for j in range(len(sigma)) if j not in modes) / 2)
        for label, modes in by_modes.items()
        for at in points[label]
    )
    return Measurement(gap, gap, gap, len(next(iter(points.values()))), "worst of eight points, all seeds")


def _inversions(pairs: Sequence[tuple[float, int]]) -> int:
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(pairs, 2))


def _subsets(rank: int) -> list[tuple[int, ...]]:
    return [modes for size in range(rank + 1) for modes in itertools.combinations(range(rank), size)]


def _strongest(sigma: Sequence[float]) -> list[tuple[int, ...]]:
    order = sorted(range(len(sigma)), key=lambda i: -sigma[i])
    return [tuple(sorted(order[:k])) for k in range(len(sigma) + 1)]


def _label(modes: Sequence[int]) -> str:
    return f"modes {{{', '.join(map(str, modes))}}}"


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw index against loss, and how fast minima become rare with the dimension."""
    return {"index_and_loss": _draw_points(record), "random_matrices": _draw_random(record)}


def _draw_points(record: Record) -> Figure:
    results, sigma = record.results, record.config["singular_values"]
    first = {label: (at[0]["loss"], at[0]["index"]) for label, at in results["points"].items()}
    tied = {label: (at["loss"], at["index"]) for label, at in results["tied"].items()}
    title = "Two-layer linear network, 4 hidden units: the index is not a function of the loss"
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(9.0, 4.2)
        all_axes = figure.subplots(1, 2, sharey=True)
        for axes, places, values in zip(all_axes, (first, tied), (sigma, TIED), strict=True):
            inverted = {
                label
                for label, at in places.items()
                for other in places.values()
                if (at[0] - other[0]) * (at[1] - other[1]) < 0 or (at[0] == other[0] and at[1] != other[1])
            }
            for label, at in places.items():
                odd = label in inverted
                axes.plot(*at, "D" if odd else "o", color=COLOURS[1] if odd else COLOURS[0], markersize=7)
                modes = label.removeprefix("modes ")
                below = odd and at[1] == min(places[name][1] for name in inverted)
                axes.annotate(
                    "∅" if modes == "{}" else modes,
                    at,
                    (7, -12 if below else 5),
                    textcoords="offset points",
                    fontsize=9,
                )
            axes.set(xlabel="loss: ½ Σ σⱼ² of the modes not learned")
            axes.set_title(f"σ = ({', '.join(f'{x:g}' for x in values)})", loc="left")
            axes.set_xlim(-0.06 * max(x for x, _ in places.values()), 1.15 * max(x for x, _ in places.values()))
        all_axes[0].set(ylabel="index: directions that lead down", ylim=(-1, 13.5))
        all_axes[0].plot([], [], "D", color=COLOURS[1], label="out of order")
        all_axes[0].plot([], [], "o", color=COLOURS[0], label="critical point, with the modes it has learned")
        all_axes[0].legend(loc="upper left", fontsize=9)
        all_axes[1].plot([], [], "D", color=COLOURS[1], label="the same loss, another index")
        all_axes[1].legend(loc="upper left", fontsize=9)
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_random(record: Record) -> Figure:
    found, number = record.results["random_matrices"], record.config["num_matrices"]
    theory = {int(n): value for n, value in found["expected"].items()}
    measured = {int(n): share_of_trials(count, number) for n, count in found["count"].items()}
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(6.8, 4.2)
        axes = figure.add_subplot()
        n = np.array(sorted(theory))
        axes.plot(n, 0.5**n, color=COLOURS[7], linestyle=(0, (5, 1.5)), label="2⁻ⁿ, a coin for every eigenvalue")
        axes.plot(n, [theory[k] for k in n], "-", color=COLOURS[0], label="exact (Pfaffian)")
        low = [m.value - m.lower for m in measured.values()]
        high = [m.upper - m.value for m in measured.values()]
        axes.errorbar(
            list(measured), [m.value for m in measured.values()], yerr=[low, high], fmt="o", color=COLOURS[1],
            capsize=4, label=f"{number:,} matrices, 95 % interval",
        )  # fmt: skip
        axes.set_yscale("log")
        axes.set(xlabel="dimension n", ylabel="probability that all n eigenvalues are positive")
        axes.set_title("Random symmetric matrices: a minimum is rarer than coins would have it", loc="left")
        axes.legend(loc="lower left")
    return figure


EXPERIMENT = Experiment(
    question="How many directions lead down from a critical point, and is that a function of the loss?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
