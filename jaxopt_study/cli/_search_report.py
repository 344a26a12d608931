"""Record, tables, figures and printed report of `jaxopt-study search`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxopt_study import figures, records
from jaxopt_study.cli._axes import UNITS, accuracy_floor
from jaxopt_study.cli._runner import Job
from jaxopt_study.cli._spaces import at_end, ends_of, options_of
from jaxopt_study.cli._tables import interval, number, write_table
from jaxopt_study.sweeps import (
    Conditional,
    Dimension,
    Integers,
    Interval,
    LogUniform,
    Search,
    mean_interval,
    penalised,
    wilson,
)

TOP = 20


def summary(search: Search, num_examples: int | None) -> dict[str, Any]:
    """Return the results of a search as plain values; "best" is None if all trials diverged.

    Args:
        search: The search.
        num_examples: Number of examples behind each score, if the metric is a proportion; otherwise None.
    """
    run = np.atleast_1d(search.finished.all(axis=1))
    some = bool(np.isfinite(search.scores).any())
    maybe = search.indistinguishable(num_examples=num_examples) if some else np.zeros(len(run), bool)
    best = None
    if some:
        choice, (low, high) = search.best, _ends(_intervals(search, num_examples), search.best.trial)
        best = {
            "trial": choice.trial, "config": dict(choice.config), "score": choice.score, "interval": [low, high],
            "scores": choice.scores, "boundary": dict(choice.boundary),
        }  # fmt: skip
    return records.plain({
        "metric": search.metric, "mode": search.mode, "best": best, "num_finished": run.sum(),
        "num_diverged": search.diverged.any(axis=1).sum(), "num_stalled": search.stalled.any(axis=1).sum(),
        "may_be_best": np.flatnonzero(maybe), "level": 0.95,
        "layout": search.layout, "compile_seconds": search.compile_seconds, "run_seconds": search.run_seconds,
    })  # fmt: skip


def write(record: records.Record, search: Search, folder: Path) -> list[str]:
    """Write the record and the tables.

    Returns:
        The names of the files.
    """
    write_table(search.to_pandas(), folder / "trials.csv")
    write_table(search.curves_to_pandas(), folder / "curves.csv")
    records.save(record, folder / "record.json")
    return ["trials.csv", "curves.csv", "record.json"]


def draw(search: Search, folder: Path, num_examples: int | None, *, title: str) -> list[str]:
    """Draw and write every figure.

    Args:
        search: The complete search.
        folder: Results folder.
        num_examples: As in `summary`.
        title: Optimizer and problem.

    Returns:
        The names of the files; none if no trial has a score.
    """
    if not np.isfinite(search.scores).any():
        return []
    score = search.metric.replace("_", " ")
    label = " ".join((score.split()[0], UNITS[score.split()[1]]))
    log = search.mode == "min"
    best_of = search.best_of_k()
    pictures = {
        "best-of-k.png": figures.budget_curves(
            np.arange(1, len(np.atleast_1d(best_of.estimate)) + 1),
            {"median": (best_of.estimate, best_of.lower, best_of.upper)},
            ylabel=f"best {label}",
            log=log,
            title=f"{title}: expected best of k trials",
        )
    }
    choice = search.best
    values = {name: [config.get(name) for config in search.configs] for name in search.space}
    shared: dict[str, Any] = {
        "chosen": choice.trial, "maybe_best": search.indistinguishable(num_examples=num_examples),
        "log": [name for name, dimension in search.space.items() if _logarithmic(dimension)],
        "ranges": {name: ends for name, dimension in search.space.items() if (ends := ends_of(dimension)) is not None},
        "choices": {name: options for name, dimension in search.space.items() if (options := options_of(dimension))},
        "edges": choice.boundary, "log_score": log, "title": f"{title}: {len(search.configs)} trials",
    }  # fmt: skip
    each = _intervals(search, num_examples)
    pictures["hyperparameters.png"] = figures.hyperparameter_scatter(
        values, search.scores, ylabel=label, intervals=None if each is None else (each.lower, each.upper), **shared
    )
    if len(values) > 1:
        pictures["parallel.png"] = figures.parallel_coordinates(values, search.scores, score_label=score, **shared)
    pictures |= _top(search, title)
    for file, figure in pictures.items():
        records.write_atomically(folder / file, figures.render(figure))
    return list(pictures)


def show(job: Job, record: records.Record, search: Search, files: Sequence[str], folder: Path, *, share: bool) -> None:
    """Print the best trial with its interval, warnings, and the names of the files.

    Args:
        job: The command.
        record: Its record.
        search: The search.
        files: Names of the written files.
        folder: Results folder.
        share: Whether the metric is a proportion.
    """
    results, trials = record.results, len(search.configs)
    seeds, metric = search.finished.shape[1], search.metric.replace("_", " ")
    best = results["best"]
    if best is None:
        job.say(f"All {trials} trials diverged. Search smaller learning rates.", style="red")
    else:
        settings = ", ".join(f"{name} {_shown(value)}" for name, value in best["config"].items())
        worth = interval(best["score"], *best["interval"], share=share)
        if np.isinf(best["interval"]).all():
            worth = f"{best['score']:.4g} (one seed: its error is unknown)"
        job.say(f"Best of {trials} trials: {settings}")
        average = f"mean of {seeds} seed{'s' * (seeds > 1)}, 95% interval"
        job.say(f"{metric} {worth}, {average}; it was selected for this score, which is therefore optimistic.")
        others = len(results["may_be_best"]) - 1
        sentence = "1 other is" if others == 1 else f"{others} others are"
        sentence = f"{sentence} statistically indistinguishable from it" if others else "All others are worse"
        job.say(f"{sentence} (at 95% together); hyperparameters.png shows them.")
        for name, side in best["boundary"].items():
            job.say(at_end(name, search.space[name], side), style="yellow")
    if results["num_diverged"] and best is not None:
        job.say(f"{results['num_diverged']} of {trials} trials diverged.")
    if results["num_stalled"]:
        sentence = f"{results['num_stalled']} of {trials} trials stalled although their gradient was not 0"
        job.say(f"{sentence}: their steps were 0, or below the resolution of the parameters.", style="yellow")
    if best is not None and (search.num_steps < search.steps[-1]).any():
        stopped = int(((search.num_steps < search.steps[-1]) & ~search.diverged).any(axis=1).sum())
        if stopped:
            job.say(f"{stopped} were stopped early by halving.")
    seconds = f"{results['seconds']:.0f} s in all ({results['compile_seconds']:.0f} s compiling)"
    job.close(seconds, folder, files)


def _intervals(search: Search, num_examples: int | None) -> Interval | None:
    # With one seed a proportion has the interval of its examples, which does not include the noise of training.
    scores = penalised(search.final, search.mode)
    if scores.shape[1] > 1:
        return mean_interval(scores)
    if num_examples is None:
        return None
    alive = np.isfinite(scores[:, 0])
    share = wilson(np.rint(np.where(alive, scores[:, 0], 0.0) * num_examples), num_examples)
    return Interval(
        share.estimate, np.where(alive, share.lower, np.nan), np.where(alive, share.upper, np.nan), share.level
    )


def _ends(intervals: Interval | None, trial: int) -> tuple[float, float]:
    return (-np.inf, np.inf) if intervals is None else (float(intervals.lower[trial]), float(intervals.upper[trial]))


def _top(search: Search, title: str) -> dict[str, Figure]:
    order = [int(trial) for trial in search.ranking if np.isfinite(search.scores[trial])][:TOP]
    titles = [f"{i}: {_short(search.configs[trial])}" for i, trial in enumerate(order, 1)]
    about = f"{title}: the {len(order)} best of {len(search.configs)} trials"
    accuracy = search.curves["validation_accuracy"][order]
    return {
        "top-loss.png": figures.top_curves(
            search.steps, search.curves["batch_loss"][order], search.curves["validation_loss"][order], titles=titles,
            ylabel=UNITS["loss"], title=about, log=True,
        ),
        "top-accuracy.png": figures.top_curves(
            search.steps, None, accuracy, titles=titles, ylabel=f"validation {UNITS['accuracy']}", title=about,
            smallest=accuracy_floor(list(accuracy)), largest=1.0,
        ),
    }  # fmt: skip


def _short(config: Mapping[str, Any]) -> str:
    if len(config) == 1:
        return f"{next(iter(config)).rpartition('.')[2]} {_shown(next(iter(config.values())))}"
    return ", ".join(_shown(value) for value in config.values())


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _logarithmic(dimension: Dimension) -> bool:
    inner = dimension.dimension if isinstance(dimension, Conditional) else dimension
    return isinstance(inner, LogUniform) or (isinstance(inner, Integers) and inner.log)
