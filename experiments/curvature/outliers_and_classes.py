"""Outliers of the Hessian's spectrum against the number of classes, and the gradient's share in their eigenvectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import sklearn.datasets
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.claims import Claim, Control, Expectation, Measurement, at_least, at_most, exact, mean_over_seeds, near
from experiments.experiment import Experiment
from experiments.parts import part
from jaxopt_study import curvature, optimizers, problems, training
from jaxopt_study.figures import COLOURS, SETTINGS, new_figure
from jaxopt_study.linalg import vectors
from jaxopt_study.problems.datasets import from_arrays
from jaxopt_study.records import Record

STATES = ("start", "trained", "shuffled")
PAPYAN = "Sagun et al. (2017), Papyan (2018): about as many outliers as classes"


@dataclass(frozen=True)
class Config:
    """Networks, data and the definition of an outlier."""

    classes: tuple[int, ...] = (2, 4, 6, 10)
    per_class: int = 40
    width: int = 16
    learning_rate: float = 0.2
    num_steps: int = 400
    batch_size: int = 32
    num_seeds: int = 5
    beyond: int = 6  # eigenvalues found beyond the number of classes
    tol: float = 1e-4  # of their residuals; at 1e-2 the smallest of them are not the Hessian's, and fake a gap
    seed: int = 0


PRESETS = {"smoke": Config(classes=(2, 10), num_seeds=4), "paper": Config()}


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Train on digits of some classes, with their labels and with shuffled ones, and find the largest eigenvalues."""
    del data_dir
    return {"spectra": {str(c): part(f"{c} classes", partial(_spectra, config, c)) for c in config.classes}}


def _spectra(config: Config, num_classes: int) -> dict[str, Any]:
    dataset = _digits(config, num_classes)
    problem = problems.networks.mlp_classifier(dataset, widths=(config.width,))
    found: dict[str, Any] = {state: [] for state in STATES}
    for seed in range(config.num_seeds):
        key_start, key_run, key_labels, key_solve = jax.random.split(jax.random.key(config.seed + seed), 4)
        start = problem.init(key_start)
        data: Any = problem.data
        mixed = problem.replace(data=data | {"y": jax.random.permutation(key_labels, jnp.asarray(data["y"]))})
        found["start"].append(_measure(problem, start, num_classes, config, key_solve))
        for state, posed in (("trained", problem), ("shuffled", mixed)):
            trained = training.train(
                posed, optimizers.sgd(config.learning_rate), num_steps=config.num_steps, key=key_run, params=start,
                batch_size=config.batch_size, progress=False,
            ).params  # fmt: skip
            found[state].append(_measure(posed, trained, num_classes, config, key_solve))
    return found


def _digits(config: Config, num_classes: int) -> problems.datasets.Dataset:
    pixels, labels = map(np.asarray, sklearn.datasets.load_digits(return_X_y=True))
    chosen = np.concatenate([np.flatnonzero(labels == c)[: config.per_class] for c in range(num_classes)])
    x, y = np.asarray(pixels[chosen] / 16, np.float32), np.asarray(labels[chosen], np.int32)
    return from_arrays(x, y, name=f"digits below {num_classes}", num_classes=num_classes)


def _measure(problem: problems.Problem, params: Any, num_classes: int, config: Config, key: Any) -> dict[str, Any]:
    op = curvature.hessian(problem.loss, params, problem.data)
    pairs = curvature.eigenpairs(op, num_classes + config.beyond, tol=config.tol, key=key)
    value, gradient = _value_and_grad(problem.loss)(params, problem.data)
    random = vectors.random_like(gradient, key=key)
    top = jax.tree.map(lambda leaf: leaf[:num_classes], pairs.vectors)
    return {
        "loss": value,
        "eigenvalues": pairs.values,
        "converged": bool(pairs.converged.all()),
        "share": _share(top, gradient),
        "random_share": _share(top, random),
        "size": op.size,
    }


def _value_and_grad(loss: Any) -> Any:
    return _COMPILED.setdefault(loss, jax.jit(jax.value_and_grad(loss)))


_COMPILED: dict[Any, Any] = {}


@jax.jit
def _share(basis: Any, vector: Any) -> Any:
    return jnp.sum(vectors.project(basis, vector) ** 2) / vectors.inner(vector, vector)


def outliers(values: Any) -> int:
    """Return how many eigenvalues stand before the largest ratio of two neighbours."""
    values = np.asarray(values)
    values = values[values > 0]
    return int(np.argmax(values[:-1] / values[1:])) + 1


def _counts(record: Record, state: str) -> Int[np.ndarray, "classes seeds"]:
    """Return the numbers of outliers."""
    spectra, classes = record.results["spectra"], record.config["classes"]
    return np.array([[outliers(at["eigenvalues"]) for at in spectra[str(c)][state]] for c in classes])


def _slopes(record: Record, state: str) -> Measurement:
    """Return how many outliers a class adds, by least squares for every seed."""
    return _mean(np.polyfit(record.config["classes"], _counts(record, state), 1)[0])


def _mean(samples: Any) -> Measurement:
    return mean_over_seeds(np.asarray(samples, dtype=float))


def claims(record: Record) -> list[Claim]:
    """Judge the numbers of outliers and the gradient's share."""
    spectra, classes = record.results["spectra"], record.config["classes"]
    most = str(max(classes))

    def shares(state: str, name: str = "share") -> Measurement:
        return _mean([at[name] for at in spectra[most][state]])

    judged = [
        Claim(
            "Every class adds one outlier to the Hessian of the trained network",
            _slopes(record, "trained"),
            near(1.0, 0.35, PAPYAN),
            Control("at the start", _slopes(record, "start")),
            f"Shuffled labels: {_slopes(record, 'shuffled')}.",
        )
    ]
    for at, c in enumerate(classes):
        if c > 2:
            judged.append(
                Claim(
                    f"{c} classes: number of outliers",
                    _mean(_counts(record, "trained")[at]),
                    Expectation(c - 1.5, c + 0.5, f"{PAPYAN}; C − 1 without the direction in which all logits move"),
                    Control("at the start", _mean(_counts(record, "start")[at])),
                    f"Trained on shuffled labels: {_mean(_counts(record, 'shuffled')[at])}.",
                )
            )
    size = spectra[most]["trained"][0]["size"]
    judged.append(
        Claim(
            f"Most of the gradient lies in the top {most} of {size} directions of the trained network",
            shares("trained"),
            at_least(0.5, "Gur-Ari, Roberts and Dyer (2018)"),
            Control("a random vector, k/n on average", shares("trained", "random_share")),
            f"Before the first step the share is {shares('start')} already: training did not make it.",
        )
    )
    few = spectra[str(min(classes))]
    judged.append(
        Claim(
            f"It does not last: with {min(classes)} classes, at loss "
            f"{np.mean([at['loss'] for at in few['trained']]):.4f}, little gradient is left in as many directions",
            _mean([at["share"] for at in few["trained"]]),
            at_most(0.25, "our own observation; steep directions, we think, are descended first"),
            Control("at the start", _mean([at["share"] for at in few["start"]])),
            f"Against Gur-Ari et al., who find the share preserved over long training. {_fading(record)}.",
        )
    )
    judged.append(
        Claim(
            f"A random vector has {most}/{size} of its length squared there",
            shares("trained", "random_share"),
            near(int(most) / size, int(most) / size, "k/n, by symmetry; within a factor of two"),
            Control("the gradient", exact(shares("trained").lower)),
        )
    )
    return judged


def _fading(record: Record) -> str:
    """Return the gradient's share and the loss of all trained networks; those with fewer classes are further on."""
    spectra = record.results["spectra"]
    others = sorted(record.config["classes"])
    found = {
        c: [np.mean([at[name] for at in spectra[str(c)]["trained"]]) for name in ("share", "loss")] for c in others
    }
    return "Share, at loss: " + ", ".join(
        f"{share:.2f}, {loss:.4f} ({c} classes)" for c, (share, loss) in found.items()
    )


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the largest eigenvalues for every number of classes, and the numbers of outliers against it."""
    spectra, classes = record.results["spectra"], record.config["classes"]
    labels = {"start": "at the start", "trained": "trained", "shuffled": "trained on shuffled labels"}
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(10.0, 4.4)
        *panels, last = figure.subplots(1, len(classes) + 1, width_ratios=[1] * len(classes) + [1.5])
        for axes, c in zip(panels, classes, strict=True):
            for colour, marker, state in zip(COLOURS, "so^", STATES, strict=False):
                values = np.array([at["eigenvalues"] for at in spectra[str(c)][state]])
                middle = np.median(values / values[:, :1], axis=0)
                axes.plot(np.arange(1, len(middle) + 1), middle, marker=marker, color=colour, markersize=4, linewidth=1)
            axes.axvline(c - 0.5, color="black", linewidth=0.8, linestyle=(0, (4, 2)))
            axes.set_yscale("log")
            axes.set(xlabel="rank k", title=f"{c} classes", ylim=(7e-3, 1.3))
            axes.tick_params(labelleft=axes is panels[0])
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panels[0].set_ylabel("eigenvalue λₖ/λ₁, median over seeds")
        for colour, marker, state in zip(COLOURS, "so^", STATES, strict=False):
            counts = _counts(record, state)
            aside = 0.12 * (STATES.index(state) - 1)  # so that no bar hides another one
            last.errorbar(
                np.array(classes) + aside, counts.mean(axis=1),
                yerr=[counts.mean(1) - counts.min(1), counts.max(1) - counts.mean(1)],
                marker=marker, color=colour, capsize=3, label=labels[state], linewidth=1.2,
            )  # fmt: skip
        label = "C − 1 (left: after rank C − 1)"
        line = np.array([min(classes), max(classes)])
        last.plot(line, line - 1, color="black", linestyle=(0, (4, 2)), linewidth=0.8, label=label)
        last.set_xticks(classes)
        last.set(xlabel="number of classes C", ylabel="outliers, those before the largest λₖ/λₖ₊₁")
        last.set_title("mean, smallest and largest", loc="left")
        figure.legend(*last.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return {"outliers": figure}


EXPERIMENT = Experiment(
    question="Do as many eigenvalues stand apart as there are classes, and is the gradient among their eigenvectors?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
