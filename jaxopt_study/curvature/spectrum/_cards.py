"""Cards of the results on spectra: what each shows in a terminal and in a notebook."""

from typing import Any

import numpy as np

from jaxopt_study._display import (
    Card,
    around,
    array,
    bounds,
    count,
    curves,
    intervals,
    number,
    percent,
    products,
    scalar,
    several,
    with_error,
    work,
)
from jaxopt_study._display import density as picture_of_density

SHOWN = 8  # eigenvalues of a table


def estimate(found: Any) -> Card:
    """Return the card of an `Estimate`: one line."""
    return Card(f"Estimate({pair(found)}, {work(found)})")


def pair(found: Any) -> str:
    """Return an `Estimate` as value ± standard error."""
    return with_error(scalar(found.value), scalar(found.standard_error))


def bracket(found: Any) -> Card:
    """Return the card of a `Bracket`."""
    low, high = scalar(found.lower), scalar(found.upper)
    sure = f"{percent(scalar(found.confidence))} confidence"
    slow, fast = (2 / end if end > 0 else np.inf for end in (high, low))
    rows = [
        ("λmax", bounds(low, high), sure),
        ("2/λmax", bounds(slow, fast), "critical learning rate of gradient descent"),
        ("residual", number(scalar(found.residual), 2), "‖Hv − λv‖"),
        products(found),
    ]
    wide = "" if scalar(found.converged) else ", wider than requested"
    return Card(f"Bracket: bounds on the largest eigenvalue{wide}", rows)


def eigenpairs(found: Any) -> Card:
    """Return the card of `Eigenpairs`."""
    values, residuals = array(found.values), array(found.residuals)
    converged = array(found.converged)
    order = np.argsort(-values)
    shown = order if len(order) <= SHOWN else np.concatenate([order[: SHOWN // 2], order[-SHOWN // 2 :]])
    ranks = [f"λ{_sub(np.flatnonzero(order == i)[0] + 1)}" for i in shown]
    rows = [
        (rank, number(values[i].item(), 6), number(residuals[i].item(), 2), "yes" if converged[i] else "no")
        for rank, i in zip(ranks, shown, strict=True)
    ]
    if len(order) > SHOWN:
        rows.insert(SHOWN // 2, ("…", f"{len(order) - SHOWN} more", "", ""))
    picture = lambda: intervals(
        [
            (row[0], *around(values[i], residuals[i]))
            for row, i in zip([r for r in rows if r[0] != "…"], shown, strict=True)
        ],
        label="eigenvalues with their residuals",
        marks=[0.0],
    )
    title = f"Eigenpairs: {several(len(values), 'eigenvalue')}, {int(converged.sum())} converged, {work(found)}"
    return Card(title, rows, ("", "eigenvalue", "residual", "converged"), picture=picture)


def density(found: Any) -> Card:
    """Return the card of a `SpectralDensity`."""
    grid, width, size = array(found.grid), scalar(found.kernel_width), scalar(found.size)
    apart = array(found.outliers.values)[: scalar(found.outliers.count)]
    errors_apart = array(found.outliers.residuals)[: len(apart)]
    worst = float(np.max(errors_apart, initial=0.0))
    listed = ", ".join(number(value, 4) for value in apart[:5].tolist()) + (", …" if len(apart) > 5 else "")
    rows = [
        ("eigenvalues", count(size), ""),
        ("bulk", f"{number(float(grid[0]) + 5 * width, 3)} to {number(float(grid[-1]) - 5 * width, 3)}", ""),
        ("resolution", number(width, 2), "width of the kernel"),
        ("outliers", listed or "none", f"each ± {number(worst, 2)} at most" if len(apart) else ""),
        products(found),
    ]
    notes = () if scalar(found.finite) else ("A product was NaN or infinite, and so is every number.",)
    picture = lambda: picture_of_density(
        found, label="density of the bulk with a band of two standard errors; dashed lines are outliers", xlabel="λ"
    )
    return Card("SpectralDensity: distribution of the eigenvalues", rows, notes=notes, picture=picture)


def outliers(found: Any) -> Card:
    """Return the card of `Outliers`."""
    number_of = scalar(found.count)
    values, residuals = array(found.values)[:number_of], array(found.residuals)[:number_of]
    measured, errors = array(found.measured_weights), array(found.measured_errors)
    weights = array(found.weights)
    rows = [
        (
            number(values[i].item(), 6),
            number(residuals[i].item(), 2),
            with_error((measured[i] / weights[i]).item(), (errors[i] / weights[i]).item()),
        )
        for i in range(number_of)
    ]
    title = f"Outliers: {number_of} eigenvalues apart from the bulk"
    return Card(title, rows, ("eigenvalue", "residual", "measured multiplicity"))


def condition_number(found: Any) -> Card:
    """Return the card of a `ConditionNumber`."""
    residuals = array(found.residuals).tolist()
    value, low, high = scalar(found.value), scalar(found.lower), scalar(found.upper)
    if np.isfinite(value):
        ratio = ("κ", number(value, 5), f"{bounds(low, high)}, if no smaller eigenvalue was missed")
    else:
        ratio = ("max|λ|/min|λ|", f"≥ {number(low)}", "")
    rows = [
        ratio,
        ("λmax", with_error(scalar(found.largest), residuals[0]), ""),
        ("λmin", with_error(scalar(found.smallest), residuals[1]), ""),
        products(found),
    ]
    scalar(found.status)
    return Card(f"ConditionNumber: {found.verdict}", rows)


def ill_conditioning(found: Any) -> Card:
    """Return the card of an `IllConditioning`."""
    gg, ghg = scalar(found.gg), scalar(found.ghg)
    error = scalar(found.ghg_error)
    k = len(array(found.top_values))
    rows = [
        ("‖g‖", number(scalar(found.gradient_norm)), ""),
        ("curvature along g", with_error(scalar(found.curvature), error / gg if gg else np.nan), "gᵀHg/gᵀg"),
        ("Cauchy step", number(scalar(found.cauchy_step)), "minimiser of the quadratic model"),
        ("largest step", number(scalar(found.largest_step)), "the model rises beyond it"),
        ("cosine of g and Hg", number(scalar(found.cosine)), "±1 for an eigenvector"),
    ]
    if k:
        share = percent(scalar(found.top_share), scalar(found.top_share_error))
        rows.append((f"g in the top {k}", share, "of ‖g‖²"))
    rows.append(products(found))
    steps = np.linspace(0.0, 1.1 * scalar(found.largest_step) if ghg > 0 else 1.0, 60)
    picture = lambda: curves(
        steps, [-steps * gg + 0.5 * steps**2 * ghg], label="quadratic model along the gradient", xlabel="step along −g"
    )
    kind = "negative curvature along the gradient" if scalar(found.negative) else "quadratic model along the gradient"
    return Card(f"IllConditioning: {kind}", rows, picture=picture if np.isfinite(gg * ghg) else None)


def log_det(found: Any) -> Card:
    """Return the card of a `LogDet`."""
    rows = [
        ("log det", with_error(scalar(found.value), scalar(found.standard_error)), "standard error"),
        ("truncation", number(scalar(found.truncation), 2), "further Lanczos steps lower it, typically by less"),
        ("smallest Ritz value", number(scalar(found.smallest)), "" if scalar(found.resolved) else "not resolved"),
        products(found),
    ]
    definite = "positive definite as far as seen" if scalar(found.positive) else "not positive definite"
    return Card(f"LogDet: {definite}", rows)


def cross_check(found: Any) -> Card:
    """Return the card of a `CrossCheck`."""
    rows = [
        ("moments", number(scalar(found.difference), 2), "largest difference"),
        ("cumulative shares", number(scalar(found.cdf_difference), 2), "largest difference"),
        ("tolerance", number(scalar(found.tolerance), 2), "explained by rounding"),
        products(found),
    ]
    agrees = "agree" if scalar(found.agrees) else "do not agree"
    return Card(f"CrossCheck: Lanczos and Chebyshev moments {agrees}", rows)


def blocks(found: Any) -> Card:
    """Return the card of `Blocks`."""
    tops, residuals = array(found.eigenvalues, 2)[:, 0], array(found.residuals, 2)[:, 0]
    traces, errors = array(found.trace.value), array(found.trace.standard_error)
    order = np.argsort(-np.nan_to_num(tops, nan=-np.inf))
    rows = [
        (
            found.names[i],
            count(found.sizes[i]),
            with_error(tops[i].item(), residuals[i].item()),
            with_error(traces[i].item(), errors[i].item()),
        )
        for i in order
    ]
    share = percent(scalar(found.off_block_share.value), scalar(found.off_block_share.standard_error))
    picture = lambda: intervals(
        [(found.names[i], *around(tops[i], residuals[i])) for i in order], label="λmax of each block", marks=[0.0]
    )
    return Card(
        f"Blocks: spectra of {several(len(found.names), 'diagonal block')}, {work(found)}",
        rows,
        ("block", "coordinates", "λmax ± residual", "trace ± standard error"),
        [f"Off the blocks: {share} of ‖H‖² (Frobenius)."],
        picture,
    )


def part(found: Any) -> Card:
    """Return the card of a `Part`: one line."""
    return Card(f"Part(trace {pair(found.trace)}, negative share {pair(found.negative_share)})")


def split(found: Any) -> Card:
    """Return the card of a `Split`."""
    parts = {"H, the Hessian": found.hessian, "G, Gauss–Newton": found.ggn, "R, the rest": found.rest}
    rows = [(name, pair(p.trace), pair(p.positive), pair(p.negative)) for name, p in parts.items()]
    note = f"tr R / tr H: {pair(found.rest_share)}. Each with its standard error over the probes."
    picture = lambda: intervals(
        [(name.partition(",")[0], *around(*_ends(p.trace))) for name, p in parts.items()],
        label="traces of the Hessian and its two parts", marks=[0.0],
    )  # fmt: skip
    head = ("", "trace", "positive part", "negative part")
    return Card(
        f"Split: Hessian = Gauss–Newton + rest, {work(found)}",
        rows,
        head,
        [note],
        picture,
    )


def columns_of_eigenpairs(found: Any) -> dict[str, Any]:
    """Return the columns of the table of `Eigenpairs`."""
    columns = {"eigenvalue": found.values, "residual": found.residuals, "converged": found.converged}
    return {name: np.asarray(column) for name, column in columns.items()}


def columns_of_outliers(found: Any) -> dict[str, Any]:
    """Return the columns of the table of `Outliers`."""
    names = ("values", "residuals", "weights", "measured_weights", "measured_errors")
    return {name: np.asarray(getattr(found, name))[: int(found.count)] for name in names}


def columns_of_blocks(found: Any) -> dict[str, Any]:
    """Return the columns of the table of `Blocks`."""
    return {
        "block": found.names, "size": found.sizes, "eigenvalue": np.asarray(found.eigenvalues)[:, 0],
        "residual": np.asarray(found.residuals)[:, 0], "trace": np.asarray(found.trace.value),
        "trace_error": np.asarray(found.trace.standard_error),
    }  # fmt: skip


def columns_of_split(found: Any) -> dict[str, Any]:
    """Return the columns of the table of `Split`."""
    parts = {"hessian": found.hessian, "ggn": found.ggn, "rest": found.rest}
    columns: dict[str, Any] = {"part": list(parts)}
    for name in ("trace", "positive", "negative", "negative_share"):
        columns[name] = [float(getattr(part, name).value) for part in parts.values()]
        columns[f"{name}_error"] = [float(getattr(part, name).standard_error) for part in parts.values()]
    return columns


def _sub(rank: Any) -> str:
    return str(rank).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _ends(found: Any) -> tuple[float, float]:
    return scalar(found.value), 2 * scalar(found.standard_error)
