"""What `jaxopt-study compare` writes and prints."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxopt_study import figures, records
from jaxopt_study.problems import Problem

COLUMNS = ("problem", "optimizer", "seed", "step", "metric", "value")
Entries = Sequence[Mapping[str, Any]]


def tidy_rows(entries: Entries) -> Iterator[dict[str, Any]]:
    """Yield one row per problem, optimizer, seed, step and metric.

    Args:
        entries: Results of the runs; those that failed have no rows.

    Yields:
        Rows of `COLUMNS`. "train_loss" is the mean over the steps since the row before; "test_*" belong to the result.
    """
    for entry in entries:
        if "error" in entry:
            continue
        steps = entry["curves"]["step"]
        start = {"problem": entry["problem"], "optimizer": entry["optimizer"]}
        for seed in range(entry["seeds"]):
            for metric, lanes in entry["curves"].items():
                if metric == "step":
                    continue
                for step, value in zip(steps, lanes[seed], strict=True):
                    named = zip(("x", "y"), value, strict=True) if metric == "path" else [(metric, value)]
                    for name, number in named:
                        yield {**start, "seed": seed, "step": step, "metric": name, "value": number}
            for metric, step, value in curvature_values(entry, seed):
                yield {**start, "seed": seed, "step": step, "metric": metric, "value": value}
            for metric, values in entry["finals"].items():
                if metric not in entry["curves"]:
                    yield {**start, "seed": seed, "step": steps[-1], "metric": metric, "value": values[seed]}


def curvature_values(entry: Mapping[str, Any], seed: int) -> Iterator[tuple[str, int, Any]]:
    """Yield (metric, step, value) of what a curvature probe measured on one seed."""
    measured = dict(entry.get("curvature", {}))
    steps, limit = measured.pop("step", []), measured.pop("limit", None)
    for metric, lanes in measured.items():
        for step, value in zip(steps, lanes[seed], strict=True):
            if isinstance(value, Sequence):  # one per eigenvalue
                yield from ((f"{metric}[{i}]", step, number) for i, number in enumerate(value))
            else:
                yield metric, step, value
    if limit is not None:
        yield "stability_limit", steps[-1], limit


def write_results(record: records.Record, rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write the record and the table."""
    records.write_csv(folder / "curves.csv", rows, COLUMNS)
    records.save(record, folder / "record.json")


def draw(entries: Entries, plane: Problem, folder: Path, *, title: str) -> list[str]:
    """Draw and write every figure.

    Args:
        entries: Results of the runs that did not fail.
        plane: The planar problem among theirs.
        folder: Where the files go.
        title: What was trained.

    Returns:
        The names of the files.
    """
    on_network = [entry for entry in entries if entry["problem"] != plane.name]
    paths = {entry["optimizer"]: entry["curves"]["path"][0] for entry in entries if entry["problem"] == plane.name}
    pictures: dict[str, bytes] = {}
    if on_network:
        steps = on_network[0]["curves"]["step"]

        def curves(metric: str) -> dict[str, Any]:
            return {entry["optimizer"]: entry["curves"][metric] for entry in on_network}

        pictures["loss.png"] = figures.render(
            figures.learning_curves(
                steps,
                curves("train_loss"),
                ylabel="training loss (nats per example)",
                title=f"{title}: training loss, mean over the steps between points",
                log=True,
            )
        )
        accuracy = curves("validation_accuracy")
        pictures["accuracy.png"] = figures.render(
            figures.learning_curves(
                steps,
                accuracy,
                ylabel="validation accuracy (fraction)",
                title=f"{title}: validation accuracy",
                larger_is_better=True,
                smallest=accuracy_floor(accuracy),
                largest=1.0,
            )
        )
    probed = {entry["optimizer"]: entry["curvature"] for entry in on_network if "curvature" in entry}
    if probed:
        pictures["curvature.png"] = figures.render(
            figures.curvature_along_runs(probed, title=f"{title}: curvature of the training loss along the runs")
        )
    if paths:
        name = "x²/20 + y²" if plane.name == "bowl" else plane.name
        steps = max(map(len, paths.values())) - 1
        about = f"{name}: {steps} steps from (−7, 2)" if plane.name == "bowl" else f"{name}: {steps} steps"
        pictures["trajectories.png"] = figures.render(figures.trajectories(plane, paths, title=about))
        together = figures.trajectories(plane, paths, together=True, title=about)
        pictures["trajectories-together.png"] = figures.render(together)
        pictures["race.gif"] = figures.race_animation(plane, paths, title=name)
    for file, content in pictures.items():
        records.write_atomically(folder / file, content)
    return list(pictures)


def accuracy_floor(curves: Mapping[str, Any]) -> float:
    """Return where the axis of accuracies begins, so that the ends can be told apart.

    Two and a half times as far below 1 as the worst final median.
    """
    ends = [np.nanmedian(np.asarray(values, dtype=float)[:, -1]) for values in curves.values()]
    finite = [end for end in ends if np.isfinite(end)]
    return max(0.0, 1 - 2.5 * (1 - min(finite))) if finite else 0.0


def show(console: Console, record: records.Record, files: Sequence[str], folder: Path) -> None:
    """Print the table of results and where they are."""
    entries = [entry for entry in record.results["entries"] if "error" not in entry]
    on_plane = [entry for entry in entries if entry["problem"] == "bowl"]
    on_network = [entry for entry in entries if entry["problem"] != "bowl"]
    seeds = record.config["seeds"]
    table = Table(
        title=f"{record.name}, {record.config['steps']} steps: median over {seeds} seeds (lowest–highest)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("optimizer")
    for column in (
        "test\naccuracy",
        "validation\naccuracy",
        "test\nloss",
        "training\nloss",
        "\ndiverged",
        "s per\nrun",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in sorted(on_network, key=lambda entry: -float(np.median(entry["finals"]["test_accuracy"]))):
        last = [lane[-1] for lane in entry["curves"]["train_loss"]]
        table.add_row(
            entry["optimizer"],
            spread(entry["finals"]["test_accuracy"]),
            spread(entry["finals"]["validation_accuracy"]),
            f"{np.median(entry['finals']['test_loss']):.3g}",
            f"{np.median(last):.2g}",
            f"{sum(entry['diverged'])} of {entry['seeds']}",
            f"{entry['run_seconds'] / entry['seeds']:.2f}",
        )
    if on_network:
        console.print(table)
        console.print(
            "\nSettings are the notes', untuned: another learning rate gives another ranking. s per run leaves out "
            f"{sum(entry['compile_seconds'] for entry in entries):.0f} s of compiling.",
            highlight=False,
        )
    if on_plane:
        steps = on_plane[0]["curves"]["step"][-1]
        ends = sorted((entry["finals"]["train_loss"][0], entry["optimizer"]) for entry in on_plane)
        listed = ", ".join(f"{name} {value:.2e}" for value, name in ends)
        console.print(f"\nx²/20 + y² after {steps} steps: {listed}.", highlight=False, markup=False)
    console.print(
        f"\n{record.results['seconds']:.0f} s in all. In {folder}: {', '.join(files)}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def spread(values: Sequence[float]) -> str:
    """Return the median with the range, in three decimals without the zero before them."""
    median, low, high = (
        f"{number:.3f}".removeprefix("0") for number in (np.median(values), np.min(values), np.max(values))
    )
    return f"{median} ({low}–{high})"
