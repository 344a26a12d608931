"""Table, figure and printed report of `jaxopt-study curvature`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from jaxopt_study import figures, records
from jaxopt_study.cli._network import described as network
from jaxopt_study.cli._runner import Job
from jaxopt_study.cli._target import Target
from jaxopt_study.examination import edge_and_rate, interval, table_rows


def draw(results: Mapping[str, Any], target: Target, folder: Path) -> list[str]:
    """Draw and write the spectrum.

    Args:
        results: Results by stage.
        target: The diagnosed point.
        folder: Results folder.

    Returns:
        The names of the files; none without a spectrum.
    """
    if not {"eigenpairs", "spectral_density"} & set(results):
        return []
    (edge, rate), title, label = edge_and_rate(results), described(target), ""
    if edge is not None:
        label = f"edge of {shortened(target.described['optimizer'])}: {edge:.4g}"
    elif "preconditioned" in results:
        title += f"\npreconditioned sharpness / threshold: {interval(*results['preconditioned']['ratio'])}"
    figure = figures.spectrum(results, title=title, edge=edge, edge_label=label, rate=rate)
    records.write_atomically(folder / "spectrum.png", figures.render(figure))
    return ["spectrum.png"]


def show(job: Job, record: records.Record, target: Target, files: Sequence[str], folder: Path) -> None:
    """Print the table of results and the names of the files."""
    results = record.results
    title = f"{described(target)}: {results['size']:,} parameters"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("quantity")
    table.add_column("value", no_wrap=True)
    table.add_column("error")
    table.add_column("products", justify="right", no_wrap=True)
    for row in table_rows(results):
        table.add_row(*row)
    job.console.print(table, highlight=False, markup=False)
    if "eigenpairs" in results and not all(results["eigenpairs"]["resolved"]):
        job.say("Not resolved: the interval value ± residual contains 0 or another eigenvalue.")
    job.close(f"{sum(results['seconds'].values()):.0f} s in all", folder, files)


def described(target: Target) -> str:
    """Return a description of the diagnosed point, for titles."""
    run = target.described.get("compare")
    if run is None:
        return target.name + (f" with {shortened(target.expression)}" if target.expression else "")
    name = target.described["optimizer"] + (", tuned" if target.described["settings"] == "tuned" else "")
    ended = "where it diverged" if target.described["diverged"] else f"after {run['steps']} steps"
    return f"{network(run)}, {name}, start {target.described['start']} {ended}"


def shortened(expression: str | None) -> str:
    """Return an expression, cut to the length of a line."""
    text = expression or "the optimizer"
    return text if len(text) <= 32 else f"{text[:31]}…"
