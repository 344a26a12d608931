"""Figures of `jaxopt-study compare`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxopt_study import figures, records
from jaxopt_study.cli._axes import UNITS, accuracy_floor
from jaxopt_study.cli._spaces import RATE
from jaxopt_study.figures import Panel, panels
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps import Comparison
from jaxopt_study.transforms import from_json

HEADINGS = {"default": "settings of Saito (2016)", "tuned": "tuned"}


def draw(
    entries: Sequence[Mapping[str, Any]],
    comparison: Comparison | None,
    plane: Problem,
    folder: Path,
    *,
    title: str,
    settings: Mapping[str, Any],
    absent: Sequence[str] = (),
) -> list[str]:
    """Draw and write every figure.

    Args:
        entries: Results of the runs; those of failed runs are left out.
        comparison: The comparison on the network; None if it did not begin.
        plane: The contour problem.
        folder: Results folder.
        title: Description of the network and its data.
        settings: Configuration of the command.
        absent: Candidates without settings for the contour problem.

    Returns:
        The names of the files.
    """
    whole = [entry for entry in entries if "error" not in entry]
    pictures: dict[str, bytes] = {}
    if comparison is not None:
        drawn = dict(_of_comparison(comparison, title, settings)) | dict(_curves(comparison, title))
        pictures |= {name: figures.render(figure) for name, figure in drawn.items()}
    probed = {entry["optimizer"]: entry["curvature"] for entry in whole if "curvature" in entry}
    if probed:
        kind = HEADINGS["tuned" if settings["budget"] else "default"]
        about = f"{title}, {kind}: curvature of the training loss along the runs"
        pictures["curvature.png"] = figures.render(figures.curvature_along_runs(probed, title=about))
    paths = {entry["optimizer"]: entry["curves"]["path"][0] for entry in whole if entry["problem"] == plane.name}
    if paths:
        steps = max(map(len, paths.values())) - 1
        without = f"without {', '.join(absent)}" if absent else ""
        about = f"x²/20 + y²: {steps} steps from (−7, 2)"
        reason = f"\n{without} (no default settings)" if absent else ""
        rates = {name: rate for name in paths if (rate := _rate(whole, plane.name, name)) is not None}
        every = "each name" if len(rates) == len(paths) else "a name"
        beside = about + (f"; after {every} its learning rate" if rates else "")
        alone = figures.trajectories(plane, paths, title=beside + reason, rates=rates)
        pictures["trajectories.png"] = figures.render(alone)
        together = figures.trajectories(plane, paths, together=True, title=about + reason)
        pictures["trajectories-together.png"] = figures.render(together)
        short = ", ".join(part for part in ("x²/20 + y²", without) if part)
        pictures["race.gif"] = figures.race_animation(plane, paths, title=short)
    for file, content in pictures.items():
        records.write_atomically(folder / file, content)
    return list(pictures)


def _rate(entries: Sequence[Mapping[str, Any]], problem: str, name: str) -> float | None:
    """Return the learning rate of an optimizer on a problem; None if it has none, or several."""
    (entry,) = [entry for entry in entries if (entry["problem"], entry["optimizer"]) == (problem, name)]
    if entry.get("spec") is None:
        return entry.get("config", {}).get(RATE)
    values = from_json(entry["spec"]).hyperparams.items()
    rates = [value for path, value in values if path.rpartition(".")[2] == RATE]
    return float(rates[0]) if len(rates) == 1 and isinstance(rates[0], int | float) else None


def _of_comparison(comparison: Comparison, title: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of scores: both rankings, paired differences, and the best score by number of trials."""
    metric = comparison.metric.replace("_", " ")
    label = metric.replace(settings["metric"], UNITS[settings["metric"]])
    tuned = comparison.budget > 0
    if tuned:
        yield (
            "comparison.png",
            figures.comparison(
                comparison,
                xlabel=label,
                larger_is_better=comparison.mode == "max",
                headings=(HEADINGS["default"], f"tuned: {comparison.budget} trials each"),
                title=f"{title}, {settings['steps']} steps: medians of {settings['seeds']} seeds",
            ),
        )
    if len(comparison.candidates) > 1:
        shown = "tuned" if tuned else "default"
        yield "differences.png", figures.difference_matrix(
            comparison.differences(None, shown), unit=label,
            title=f"{title}, {HEADINGS[shown]}: differences of {metric}, paired over {settings['seeds']} seeds",
        )  # fmt: skip
    curves = comparison.budget_curves()
    if curves:
        selected = comparison.selected_by.replace("_", " ").replace("loss", UNITS["loss"])
        k = next(iter(curves.values()))[0]
        yield (
            "budget.png",
            figures.budget_curves(
                k,
                {name: (best.estimate, best.lower, best.upper) for name, (_, best) in curves.items()},
                ylabel=f"best {selected}",
                log=True,
                title=f"{title}: expected best of k tuning trials",
            ),
        )


def _curves(comparison: Comparison, about: str) -> Iterator[tuple[str, Figure]]:
    """Yield the learning curves of loss and accuracy, with default and tuned settings side by side on equal axes."""
    shown_settings = ("default", "tuned") if comparison.budget else ("default",)
    names = comparison.candidates
    reports = {settings: comparison.of(None, settings) for settings in shown_settings}
    steps = next(iter(reports["default"].values())).steps
    files = {
        "loss.png": ("batch_loss", "training loss (nats)\nmean over the steps between points"),
        "accuracy.png": ("validation_accuracy", "validation accuracy (fraction)"),
    }
    for file, (metric, label) in files.items():
        log = metric == "batch_loss"
        curves = {
            settings: {name: found[name].curves[metric] for name in names if name in found}
            for settings, found in reports.items()
        }
        every = [values for found in curves.values() for values in found.values()]
        limits = _loss_limits(every) if log else (accuracy_floor(every), 1.0)
        title = f"{about}: {label.partition(' (')[0]}"
        if len(shown_settings) == 1:
            yield file, figures.learning_curves(
                steps, curves["default"], ylabel=label, title=title, log=log, larger_is_better=not log,
                smallest=limits[0], largest=limits[1],
            )  # fmt: skip
            continue
        shown = [
            Panel(HEADINGS[settings], found, log=log, smallest=limits[0], largest=limits[1])
            for settings, found in curves.items()
        ]
        yield file, panels(steps, shown, title=title, columns=2, ylabel=label)


def _loss_limits(curves: Sequence[Float[np.ndarray, "seeds steps"]]) -> tuple[float | None, float | None]:
    """Return the ends of the axis of losses, the upper one at three times the largest initial loss."""
    middles = [np.median(values, axis=0) for values in map(np.asarray, curves)]
    seen = np.concatenate([middle[np.isfinite(middle) & (middle > 0)] for middle in middles])
    starts = [middle[0] for middle in middles if np.isfinite(middle[0]) and middle[0] > 0]
    return (float(seen.min()) / 2, 3 * float(max(starts))) if starts else (None, None)
