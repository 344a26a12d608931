"""Results of the stages as rows of a table."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxopt_study import figures
from jaxopt_study._display import bounds as interval
from jaxopt_study._display import percent, with_error

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
        result = results["eigenpairs"]
        values, count = result["values"], len(result["values"])
        distinct = figures.resolved(values, result["residuals"]).tolist()
        for i, value in enumerate(values):  # the smaller half comes first, all in ascending order
            end, rank = ("smallest", i + 1) if i < count // 2 else ("largest", count - i)
            rows.append(("eigenpairs", end, rank, value, result["residuals"][i], result["converged"][i], distinct[i]))
    if "spectral_density" in results:
        result = results["spectral_density"]
        values, residuals = result["outliers"]["values"], result["outliers"]["residuals"]
        above = [value > result["grid"][-1] for value in values]
        distinct = figures.resolved(values, residuals).tolist()
        for i, value in enumerate(values):  # in descending order
            end, rank = ("largest", i + 1) if above[i] else ("smallest", len(above) - i)
            rows.append(("outliers", end, rank, value, residuals[i], True, distinct[i]))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS


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


def is_plain(result: Mapping[str, Any]) -> bool:
    """Return whether a preconditioner is the identity, so that the threshold applies to the Hessian itself."""
    return all(abs(result["preconditioner"][name] - 1) < 1e-4 for name in ("min", "max"))


def edge_and_rate(results: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Return the eigenvalue of the Hessian beyond which the optimizer is unstable, and its step along the gradient.

    Both are None without an optimizer, and for one that preconditions, whose limit is none of the Hessian itself.
    """
    if "preconditioned" not in results or not is_plain(results["preconditioned"]):
        return None, None
    edge = results["preconditioned"]["threshold"]
    return (edge, results["threshold"]["limit"] / edge) if edge > 0 else (None, None)


def _of_audit(result: Mapping[str, Any]) -> Iterator[Row]:
    yield (
        "audit of the Hessian",
        result["verdict"],
        f"noise floor {result['noise_floor']:.1e}",
        str(result["num_matvecs"]),
    )


def _of_eigenpairs(result: Mapping[str, Any]) -> Iterator[Row]:
    half = len(result["values"]) // 2
    ends = {"largest": slice(None, half - 1 if half else None, -1), "smallest": slice(0, half)}
    for end, of in ends.items():
        values, residuals = result["values"][of], result["residuals"][of]
        if values:
            listed = " ".join(f"{value:.3g}" for value in values[:SHOWN]) + (" …" if len(values) > SHOWN else "")
            error = f"residuals ≤ {max(residuals):.1e}"
            for quality in ("converged", "resolved"):
                lost = len(values) - sum(result[quality][of])
                error += f", {lost} not {quality}" if lost else ""
            yield f"{end} eigenvalues", listed, error, str(result["num_matvecs"]) if end == "largest" else ""


def _of_sharpness(result: Mapping[str, Any]) -> Iterator[Row]:
    sure = f"{100 * result['confidence']:.3g}% confidence"
    yield "λmax, the sharpness", interval(result["lower"], result["upper"]), sure, str(result["num_matvecs"])
    yield "2/λmax, critical rate", interval(*result["critical_learning_rate"]), sure, ""


def _of_density(result: Mapping[str, Any]) -> Iterator[Row]:
    above = sum(value > result["grid"][-1] for value in result["outliers"]["values"])
    width = result["kernel_width"]
    bulk = f"{result['grid'][0] + 5 * width:.3g} to {result['grid'][-1] - 5 * width:.3g}"
    yield "bulk of the spectrum", bulk, f"resolved to {width:.1e}", str(result["num_matvecs"])
    yield "outliers", f"{above} above, {len(result['outliers']['values']) - above} below", "", ""


def _of_trace(result: Mapping[str, Any]) -> Iterator[Row]:
    yield "trace", with_error(result["value"], result["standard_error"]), "standard error", str(result["num_matvecs"])


def _of_gradient(result: Mapping[str, Any]) -> Iterator[Row]:
    gg = result["gg"]
    yield "loss, ‖gradient‖", f"{result['loss']:.4g}, {result['gradient_norm']:.4g}", "", ""
    error = result["ghg_error"] / gg if gg else np.nan
    yield "curvature along it", f"{result['curvature']:.5g}", f"± {error:.1e}", str(result["num_matvecs"])
    beyond = result["largest_step"]
    falls = f"rises beyond {beyond:.4g}" if np.isfinite(beyond) else ""
    yield "Cauchy step", f"{result['cauchy_step']:.4g}", falls, ""
    share, count = result["top_share"], len(result["top_values"])
    error = f"± {percent(result['top_share_error'])} of ‖g‖²"
    yield f"gradient in the top {count}", percent(share), error, ""


def _of_classification(result: Mapping[str, Any]) -> Iterator[Row]:
    sign = "≤" if result["gradient_norm"] <= result["gradient_tol"] else ">"
    error = f"‖g‖ {result['gradient_norm']:.2g} {sign} {result['gradient_tol']:.2g}"
    yield "kind of point", result["verdict"], error, str(result["num_matvecs"])
    index = result["index"]
    sure, proved = "", ""
    if index["confidence"] is not None:
        sure, proved = f" ({100 * index['confidence']:.3g}%)", f", ≥ {index['lower_bound']:,} proved"
    yield "negative eigenvalues", figures.count_range(*index["interval"]), f"λ < −{index['tau']:.1e}{sure}{proved}", ""
    yield "flat eigenvalues", figures.count_range(*index["flat_interval"]), f"|λ| ≤ {index['tau']:.1e}{sure}", ""
    if result["escape"]["seen"]:
        yield "  way down", f"loss falls by {result['escape']['fall']:.3g}", f"± {result['escape']['rounding']:.1e}", ""


def _of_threshold(result: Mapping[str, Any]) -> Iterator[Row]:
    yield "stability threshold", f"{result['threshold']:.6g}", "of the optimizer", ""


def _of_preconditioned(result: Mapping[str, Any]) -> Iterator[Row]:
    if not is_plain(result):
        sure = f"{100 * result['confidence']:.3g}% confidence"
        yield "preconditioned λmax", interval(result["lower"], result["upper"]), sure, ""
    yield "  / threshold", interval(*result["ratio"]), "1 is the edge", str(result["num_matvecs"])


def _of_stability(result: Mapping[str, Any]) -> Iterator[Row]:
    verdict = result["kind"] + ("" if result["converged"] else ", not converged")
    yield "next step", verdict, _LEADS.get(result["kind"], ""), str(result["num_matvecs"])
    yield "  spectral radius", with_error(result["radius"], result["error"]), "residual × condition", ""


def _of_accounting(result: Mapping[str, Any]) -> Iterator[Row]:
    predicted = result["linear"] + result["quadratic"]
    error = float(np.hypot(result["linear_error"], result["quadratic_error"]))
    yield "change of the loss", with_error(result["realised"], result["realised_error"]), "one step", ""
    yield "  by the quadratic model", with_error(predicted, error), "gᵀu + ½uᵀHu", str(result["num_matvecs"])


def _of_noise(result: Mapping[str, Any]) -> Iterator[Row]:
    yield "gradient noise tr Σ", with_error(result["trace"], result["trace_error"]), "of one example", ""
    between = f"{result['lower']:.3g} to {result['upper']:.3g} (95%)"
    yield "  noise scale tr Σ/|G|²", f"{result['noise_scale']:.3g} examples", between, ""


def _of_blocks(result: Mapping[str, Any]) -> Iterator[Row]:
    order = sorted(range(len(result["names"])), key=lambda i: -result["eigenvalues"][i])
    for rank, i in enumerate(order[:SHOWN]):
        count = str(result["num_matvecs"]) if rank == 0 else ""
        yield (
            f"λmax of {result['names'][i]}",
            f"{result['eigenvalues'][i]:.4g}",
            f"± {result['residuals'][i]:.1e}",
            count,
        )
    share, error = percent(result["off_block_share"]), percent(result["off_block_share_error"])
    yield "off the layers' blocks", share, f"± {error} of ‖H‖²", ""


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
    "accounting": _of_accounting,
    "noise": _of_noise,
    "blocks": _of_blocks,
}
