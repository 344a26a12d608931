"""Record, tables and printed report of `jaxopt-study compare`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from jaxopt_study import records
from jaxopt_study.cli._candidates import NamedCandidate
from jaxopt_study.cli._expressions import specification
from jaxopt_study.cli._runner import Job
from jaxopt_study.cli._spaces import RATE, at_end
from jaxopt_study.cli._tables import interval, number, write_table
from jaxopt_study.sweeps import Comparison

COLUMNS = ("problem", "optimizer", "settings", "seed", "step", "metric", "value")
SETTINGS = ("default", "tuned")
FLAGS = {"low": "▼", "high": "▲"}
Entries = Sequence[Mapping[str, Any]]


def entries(comparison: Comparison, candidates: Mapping[str, NamedCandidate]) -> list[dict[str, Any]]:
    """Return the reports of a comparison as plain values, one for each candidate and settings."""
    rows = []
    for report in comparison.reports:
        curves = {"step": report.steps, "train_loss": report.curves["batch_loss"]}
        curves |= {name: values for name, values in report.curves.items() if name != "batch_loss"}
        rows.append({
            "problem": report.problem, "optimizer": report.candidate, "settings": report.settings,
            "config": report.config, **specification(candidates[report.candidate].with_settings(report.config)),
            "module": candidates[report.candidate].path, "seeds": len(report.scores), "diverged": report.diverged,
            "stalled": report.stalled, "curves": curves, "finals": dict(report.finals),
            "run_seconds": report.seconds_per_step * report.steps[-1],
        })  # fmt: skip
    return records.plain(rows)


def summary(comparison: Comparison | None) -> dict[str, Any] | None:
    """Return the results of a comparison as plain values: rankings, medians, verdicts, and the selected settings."""
    if comparison is None:
        return None
    results: dict[str, Any] = {
        "metric": comparison.metric, "mode": comparison.mode,
        "selected_by": comparison.selected_by, "budget": comparison.budget, "level": 0.95
    }  # fmt: skip
    for settings in SETTINGS[: 2 if comparison.budget else 1]:
        medians = comparison.median(None, settings)
        results[settings] = {
            "ranking": comparison.ranking(None, settings),
            "medians": {name: [x.estimate, x.lower, x.upper] for name, x in medians.items()},
            "verdict": comparison.verdict(None, settings),
        }
    results["chosen"] = {name: dict(report.config) for name, report in comparison.of().items()}
    results["boundaries"] = boundaries(comparison)
    return records.plain(results)


def boundaries(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Return the tuned values at an end of their range, as "low" or "high", by candidate and hyperparameter."""
    return {row["candidate"]: row["boundary"] for row in comparison.table().to_dict("records") if row["boundary"]}


def write(record: records.Record, comparison: Comparison | None, folder: Path) -> list[str]:
    """Write the record and the tables.

    Returns:
        The names of the files.
    """
    files = ["curves.csv", "record.json"]
    records.write_csv(folder / "curves.csv", _curve_rows(record.results["entries"]), COLUMNS)
    if comparison is not None:
        write_table(comparison.to_pandas().rename(columns={"candidate": "optimizer"}), folder / "scores.csv")
        files.insert(0, "scores.csv")
    if comparison is not None and comparison.searches:
        trials = [
            search.to_pandas().assign(problem=problem, optimizer=name)
            for (problem, name), search in comparison.searches.items()
        ]
        table = pd.concat(trials, ignore_index=True)
        first = ["problem", "optimizer", "trial", "seed"]
        write_table(table.loc[:, first + [name for name in table if name not in first]], folder / "trials.csv")
        files.insert(1, "trials.csv")
    records.save(record, folder / "record.json")
    return files


def _curve_rows(entries: Entries) -> Iterator[dict[str, Any]]:
    """Yield one row per problem, optimizer, settings, seed, step and metric, without failed runs.

    "train_loss" is the mean over the steps since the previous row; "test_*" are of the final parameters.
    """
    for entry in entries:
        if "error" in entry:
            continue
        steps = entry["curves"]["step"]
        start = {name: entry[name] for name in ("problem", "optimizer", "settings")}
        for seed in range(entry["seeds"]):
            for metric, lanes in entry["curves"].items():
                if metric == "step":
                    continue
                for step, value in zip(steps, lanes[seed], strict=True):
                    named = zip(("x", "y"), value, strict=True) if metric == "path" else [(metric, value)]
                    for name, one in named:
                        yield {**start, "seed": seed, "step": step, "metric": name, "value": one}
            for metric, step, value in _curvature_values(entry, seed):
                yield {**start, "seed": seed, "step": step, "metric": metric, "value": value}
            for metric, values in entry["finals"].items():
                if metric not in entry["curves"]:
                    yield {**start, "seed": seed, "step": steps[-1], "metric": metric, "value": values[seed]}


def _curvature_values(entry: Mapping[str, Any], seed: int) -> Iterator[tuple[str, int, Any]]:
    """Yield (metric, step, value) of the curvature probe of one seed."""
    measured = dict(entry.get("curvature", {}))
    steps, limit = measured.pop("step", []), measured.pop("limit", None)
    for metric, lanes in measured.items():
        for step, value in zip(steps, lanes[seed], strict=True):
            if isinstance(value, Sequence):  # one per eigenvalue
                yield from ((f"{metric}[{i}]", step, one) for i, one in enumerate(value))
            else:
                yield metric, step, value
    if limit is not None:
        yield "stability_limit", steps[-1], limit


def show(
    job: Job,
    record: records.Record,
    comparison: Comparison | None,
    files: Sequence[str],
    folder: Path,
    *,
    share: bool,
) -> None:
    """Print both rankings with their verdicts, the ranges that were too narrow, and the names of the files.

    Args:
        job: The command.
        record: Its record.
        comparison: The comparison; None if it did not begin.
        files: Names of the written files.
        folder: Results folder.
        share: Whether the metric is a proportion.
    """
    if comparison is not None:
        config = record.config
        metric, tuned = comparison.metric.replace("_", " "), comparison.budget > 0
        job.say(f"{record.name}, {config['steps']} steps: median {metric} of {config['seeds']} seeds, 95% interval")
        job.console.print(_rankings(comparison, share=share))
        job.say(_footnote(comparison))
        job.say("")
        for settings in SETTINGS[: 1 + tuned]:
            heading = "Settings of Saito (2016)" if settings == "default" else f"Tuned, {_budget(config)}"
            job.say(f"{heading}: {comparison.verdict(None, settings)}.")
        for name, flags in boundaries(comparison).items():
            for parameter, side in flags.items():
                space = comparison.searches[comparison.problems[0], name].space
                warning = at_end(parameter, space[parameter], side, owner=f"{name}.")
                job.say(f"{FLAGS[side]} {name}: {warning}", style="yellow")
        for trouble, word in (("diverged", "Diverged"), ("stalled", "Stalled with a gradient that is not 0")):
            counts = [(report, getattr(report, trouble).sum()) for report in comparison.reports]
            lost = [f"{report.candidate} ({report.settings}) {count}" for report, count in counts if count]
            if lost:
                job.say(f"{word}, of {config['seeds']} seeds: {', '.join(lost)}.", style="yellow")
    on_plane = [entry for entry in record.results["entries"] if entry["problem"] == "bowl" and "error" not in entry]
    if on_plane:
        steps = on_plane[0]["curves"]["step"][-1]
        ends = sorted((entry["finals"]["train_loss"][0], entry["optimizer"]) for entry in on_plane)
        job.say(f"\nx²/20 + y² after {steps} steps: {', '.join(f'{name} {value:.2e}' for value, name in ends)}.")
    if absent := record.results["not_on_plane"]:
        job.say(f"Not run on x²/20 + y², because it has no default settings: {', '.join(absent)}.", style="yellow")
    job.close(f"{record.results['seconds']:.0f} s in all", folder, files)


def _footnote(comparison: Comparison) -> str:
    """Return the explanation of the columns of `_rankings`."""
    missing = len(comparison.of(None, "default")) < len(comparison.candidates)
    note = "In parentheses: interval of the median. Rank: 1 + the number of optimizers shown to be better."
    return f"{note} —: not run." if missing else note


def _rankings(comparison: Comparison, *, share: bool) -> Table:
    """Return both rankings side by side, in the order of the tuned one."""
    tuned = comparison.budget > 0
    table = Table(box=None, pad_edge=False)
    table.add_column("optimizer")
    for heading in ("Saito (2016)", "tuned")[: 1 + tuned]:
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("rank", justify="right")
    if tuned:
        table.add_column("learning rate" if _only_rates(comparison) else "tuned values")
    flags = boundaries(comparison)
    rows = {row["candidate"]: row for row in comparison.table().to_dict("records")}
    for name in comparison.ranking(None, "tuned"):
        row, cells = rows[name], []
        for settings in SETTINGS[: 1 + tuned]:
            if np.isnan(row.get(f"{settings}_rank", np.nan)):
                cells += ["—", ""]
                continue
            ends = row[settings], row[f"{settings}_low"], row[f"{settings}_high"]
            cells += [interval(*ends, share=share), f"{row[f'{settings}_rank']:.0f}"]
        if tuned:
            cells.append(_chosen(row["config"] if isinstance(row["config"], Mapping) else {}, flags.get(name, {})))
        table.add_row(name, *(Text(cell) for cell in cells))
    return table


def _only_rates(comparison: Comparison) -> bool:
    return all(tuple(search.space) == (RATE,) for search in comparison.searches.values())


def _chosen(config: Mapping[str, Any], flags: Mapping[str, str]) -> str:
    shown = []
    for name, value in config.items():
        text = number(value) if isinstance(value, float) else str(value)
        text += f" {FLAGS[flags[name]]}" if name in flags else ""
        shown.append(text if name == RATE else f"{name} {text}")
    return ", ".join(shown)


def _budget(config: Mapping[str, Any]) -> str:
    starts = f" × {config['tune_seeds']} starts" if config["tune_seeds"] > 1 else ""
    return f"{config['budget']} trials{starts} each, selected by validation loss"
