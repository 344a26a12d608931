"""Record, tables, figure and printed report of `jaxopt-study ablate`."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxopt_study import figures, records
from jaxopt_study.cli._axes import UNITS
from jaxopt_study.cli._expressions import specification
from jaxopt_study.cli._runner import Job
from jaxopt_study.cli._tables import difference, interval, write_table
from jaxopt_study.figures import linear_within
from jaxopt_study.sweeps import Ablation, Variant


def summary(ablation: Ablation) -> dict[str, Any]:
    """Return the results of an ablation as plain values."""
    contributions = {part.variant.name: part for part in ablation.contributions()}
    rows = []
    for variant in ablation.variants:
        row = {"variant": variant.name, "kind": variant.kind, **specification(variant.optimizer)}
        row["values"] = dict(variant.values)
        if variant.name in contributions:
            part = contributions[variant.name]
            row |= {
                "loss": list(part.loss), "p_value": part.p_value, "verdict": part.verdict, "diverged": part.diverged
            }  # fmt: skip
        rows.append(row)
    configs = {name: dict(report.config) for name, report in ablation.comparison.of().items()}
    return records.plain({
        "metric": ablation.comparison.metric, "mode": ablation.comparison.mode, "level": ablation.level,
        "variants": rows, "chosen": configs,
    })  # fmt: skip


def write(record: records.Record, ablation: Ablation, folder: Path, *, title: str) -> list[str]:
    """Write the record, the tables and the figure.

    Args:
        record: Record of the command.
        ablation: The ablation.
        folder: Results folder.
        title: Title of the figure: optimizer and problem.

    Returns:
        The names of the files.
    """
    parts = ablation.contributions()
    config = record.config
    metric = config["metric"]
    tuned = f", each tuned with {config['budget']} trials" if config["budget"] else ""
    figure = figures.ablation(
        [textwrap.fill(_named(part.variant), 42) for part in parts],
        [part.loss for part in parts],
        xlabel=f"how much worse: test {UNITS[metric]}",
        level=ablation.level,
        better=("better with the change", "worse with the change"),
        linear_within=linear_within([part.loss for part in parts]),
        title=f"{title}{tuned}: {config['seeds']} paired seeds",
    )
    records.write_atomically(folder / "ablation.png", figures.render(figure))
    write_table(ablation.to_pandas(), folder / "contributions.csv")
    write_table(ablation.comparison.to_pandas().rename(columns={"candidate": "variant"}), folder / "scores.csv")
    records.save(record, folder / "record.json")
    return ["ablation.png", "contributions.csv", "scores.csv", "record.json"]


def show(
    job: Job, record: records.Record, ablation: Ablation, files: Sequence[str], folder: Path, *, share: bool
) -> None:
    """Print the table of contributions and the names of the files.

    Args:
        job: The command.
        record: Its record.
        ablation: The ablation.
        files: Names of the written files.
        folder: Results folder.
        share: Whether the metric is a proportion.
    """
    config, results = record.config, record.results
    parts = ablation.contributions()
    seeds = config["seeds"]
    table = Table(box=None, pad_edge=False)
    table.add_column("change", overflow="fold")
    table.add_column("how much worse", justify="right", no_wrap=True)
    table.add_column("effect", no_wrap=True)
    for part in parts:
        lost = f", {part.diverged} of {seeds} diverged" if part.diverged else ""
        effect = {"helps": "worse", "harms": "better"}.get(part.verdict, "not detectable")
        table.add_row(Text(part.variant.name + lost), difference(*part.loss, share=share), effect)
    metric = ablation.comparison.metric.replace("_", " ")
    full = ablation.comparison.median()[ablation.variants[0].name]
    tuned = f"each tuned with {config['budget']} trials" if config["budget"] else "at the given settings"
    heading = (
        f"{config['optimizer']} on {config['data']}, {config['steps']} steps, {seeds} paired seeds, {tuned}.\n"
        f"Median {metric} of the full chain: {interval(full.estimate, full.lower, full.upper, share=share)}. "
        "Intervals hold at 95% together.\n"
    )
    job.say(heading)
    job.console.print(table)
    job.close(f"{results['seconds']:.0f} s in all", folder, files)


def _named(variant: Variant) -> str:
    """Return the name of a variant; one with nothing but the learning rate is also called plain SGD."""
    text = re.sub(r"\s+", "", repr(variant.optimizer))
    alone = re.sub(r"identity\(\),?", "", text.removeprefix("chain(").removesuffix(")") if "chain" in text else text)
    plain = re.fullmatch(r"scale_by_learning_rate\([^()]*\),?", alone)
    return f"{variant.name} (plain SGD)" if plain else variant.name
