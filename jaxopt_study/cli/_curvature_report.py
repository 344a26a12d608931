"""Table, figure and printed report of `jaxopt-study curvature`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from jaxopt_study import figures, records
from jaxopt_study.cli._network import described as network
from jaxopt_study.cli._runner import Job
from jaxopt_study.cli._target import Target
from jaxopt_study.figures import count_range, digits_apart, resolved

COLUMNS = ("source", "end", "rank", "value", "residual", "converged", "resolved")
SHOWN = 3  # eigenvalues of each end in the printed table
Row = tuple[str, str, str, str]


def eigenvalue_rows(results: Mapping[str, Any]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return one row per individually computed eigenvalue.

    Args:
        results: Results by stage; stages may be missing.

    Returns:
        The rows and their columns. "source" is "eigenpairs" or "outliers" (of the spectral density); "rank" counts
        from the end of the spectrum, 1 for the outermost; an eigenvalue of the Hessian lies within "residual" of
        "value". "converged" is whether the residual is within the tolerance, relative to the largest magnitude;
        "resolved" whether the interval value ± residual contains neither 0 nor another of the eigenvalues.
    """
    rows = []
    if "eigenpairs" in results:
        found = results["eigenpairs"]
        values, count = found["values"], len(found["values"])
        apart = resolved(values, found["residuals"]).tolist()
        for i, value in enumerate(values):  # the smaller half comes first, all in ascending order
            end, rank = ("smallest", i + 1) if i < count // 2 else ("largest", count - i)
            rows.append(("eigenpairs", end, rank, value, found["residuals"][i], found["converged"][i], apart[i]))
    if "spectral_density" in results:
        found = results["spectral_density"]
        values, residuals = found["outliers"]["values"], found["outliers"]["residuals"]
        above = [value > found["grid"][-1] for value in values]
        apart = resolved(values, residuals).tolist()
        for i, value in enumerate(values):  # in descending order
            end, rank = ("largest", i + 1) if above[i] else ("smallest", len(above) - i)
            rows.append(("outliers", end, rank, value, residuals[i], True, apart[i]))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS


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
    title, edge, rate, label = described(target), None, None, ""
    if "preconditioned" in results:
        found = results["preconditioned"]
        if is_plain(found):
            edge, rate = found["threshold"], results["threshold"]["limit"] / found["threshold"]
            label = f"edge of {shortened(target.described['optimizer'])}: {edge:.4g}"
        else:
            title += f"\npreconditioned sharpness / threshold: {interval(*found['ratio'])}"
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


def table_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of the printed table.

    Args:
        results: Results by stage; stages may be missing.

    Yields:
        Quantity, value, error and number of products, as text.
    """
    for name, rows in _ROWS.items():
        if name in results:
            yield from rows(results[name])


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


def is_plain(found: Mapping[str, Any]) -> bool:
    """Return whether a preconditioner is the identity, so that the threshold applies to the Hessian itself."""
    return all(abs(found["preconditioner"][name] - 1) < 1e-4 for name in ("min", "max"))


def with_error(value: float, error: float) -> str:
    """Return a number ± its error, to the digits that the error allows."""
    if not (np.isfinite(value) and np.isfinite(error)) or error <= 0:
        return f"{value:.5g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}" if digits <= 8 else f"{value:.6g} ± {error:.1e}"


def interval(low: float, high: float) -> str:
    """Return two bounds, with enough digits to tell them apart."""
    digits = digits_apart(low, high, 4)
    return f"{low:.4g}" if low == high else f"{low:.{digits}g} to {high:.{digits}g}"


def _of_audit(found: Mapping[str, Any]) -> Iterator[Row]:
    yield "audit of the Hessian", found["verdict"], f"noise floor {found['noise_floor']:.1e}", str(found["num_matvecs"])


def _of_eigenpairs(found: Mapping[str, Any]) -> Iterator[Row]:
    half = len(found["values"]) // 2
    ends = {"largest": slice(None, half - 1 if half else None, -1), "smallest": slice(0, half)}
    for end, of in ends.items():
        values, residuals = found["values"][of], found["residuals"][of]
        if values:
            listed = " ".join(f"{value:.3g}" for value in values[:SHOWN]) + (" …" if len(values) > SHOWN else "")
            error = f"residuals ≤ {max(residuals):.1e}"
            for quality in ("converged", "resolved"):
                lost = len(values) - sum(found[quality][of])
                error += f", {lost} not {quality}" if lost else ""
            yield f"{end} eigenvalues", listed, error, str(found["num_matvecs"]) if end == "largest" else ""


def _of_sharpness(found: Mapping[str, Any]) -> Iterator[Row]:
    sure = f"{100 * found['confidence']:.3g}% confidence"
    yield "λmax, the sharpness", interval(found["lower"], found["upper"]), sure, str(found["num_matvecs"])
    yield "2/λmax, critical rate", interval(*found["critical_learning_rate"]), sure, ""


def _of_density(found: Mapping[str, Any]) -> Iterator[Row]:
    above = sum(value > found["grid"][-1] for value in found["outliers"]["values"])
    width = found["kernel_width"]
    bulk = f"{found['grid'][0] + 5 * width:.3g} to {found['grid'][-1] - 5 * width:.3g}"
    yield "bulk of the spectrum", bulk, f"resolved to {width:.1e}", str(found["num_matvecs"])
    yield "outliers", f"{above} above, {len(found['outliers']['values']) - above} below", "", ""


def _of_trace(found: Mapping[str, Any]) -> Iterator[Row]:
    yield "trace", with_error(found["value"], found["standard_error"]), "standard error", str(found["num_matvecs"])


def _of_gradient(found: Mapping[str, Any]) -> Iterator[Row]:
    gg = found["gg"]
    yield "loss, ‖gradient‖", f"{found['loss']:.4g}, {found['gradient_norm']:.4g}", "", ""
    error = found["ghg_error"] / gg if gg else np.nan
    yield "curvature along it", f"{found['curvature']:.5g}", f"± {error:.1e}", str(found["num_matvecs"])
    beyond = found["largest_step"]
    falls = f"rises beyond {beyond:.4g}" if np.isfinite(beyond) else ""
    yield "Cauchy step", f"{found['cauchy_step']:.4g}", falls, ""
    share, count = found["top_share"], len(found["top_values"])
    error = f"± {100 * found['top_share_error']:.2g}% of ‖g‖²"
    yield f"gradient in the top {count}", f"{100 * share:.3g}%", error, ""


def _of_classification(found: Mapping[str, Any]) -> Iterator[Row]:
    sign = "≤" if found["gradient_norm"] <= found["gradient_tol"] else ">"
    error = f"‖g‖ {found['gradient_norm']:.2g} {sign} {found['gradient_tol']:.2g}"
    yield "kind of point", found["verdict"], error, str(found["num_matvecs"])
    index = found["index"]
    sure, proved = "", ""
    if index["confidence"] is not None:
        sure, proved = f" ({100 * index['confidence']:.3g}%)", f", ≥ {index['lower_bound']:,} proved"
    yield "negative eigenvalues", count_range(*index["interval"]), f"λ < −{index['tau']:.1e}{sure}{proved}", ""
    yield "flat eigenvalues", count_range(*index["flat_interval"]), f"|λ| ≤ {index['tau']:.1e}{sure}", ""
    if found["escape"]["seen"]:
        yield "  way down", f"loss falls by {found['escape']['fall']:.3g}", f"± {found['escape']['rounding']:.1e}", ""


def _of_threshold(found: Mapping[str, Any]) -> Iterator[Row]:
    yield "stability threshold", f"{found['threshold']:.6g}", "of the optimizer", ""


def _of_preconditioned(found: Mapping[str, Any]) -> Iterator[Row]:
    if not is_plain(found):
        sure = f"{100 * found['confidence']:.3g}% confidence"
        yield "preconditioned λmax", interval(found["lower"], found["upper"]), sure, ""
    yield "  / threshold", interval(*found["ratio"]), "1 is the edge", str(found["num_matvecs"])


def _of_stability(found: Mapping[str, Any]) -> Iterator[Row]:
    verdict = found["kind"] + ("" if found["converged"] else ", not converged")
    yield "next step", verdict, _LEADS.get(found["kind"], ""), str(found["num_matvecs"])
    yield "  spectral radius", with_error(found["radius"], found["error"]), "residual × condition", ""


_LEADS = {
    "escape": "negative curvature",
    "oscillation": "overshoots",
    "marginal": "flat directions",
}
_ROWS = {
    "audit": _of_audit,
    "eigenpairs": _of_eigenpairs,
    "sharpness": _of_sharpness,
    "spectral_density": _of_density,
    "trace": _of_trace,
    "gradient": _of_gradient,
    "classification": _of_classification,
    "threshold": _of_threshold,
    "preconditioned": _of_preconditioned,
    "stability": _of_stability,
}
