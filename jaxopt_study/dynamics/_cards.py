"""Cards of the results of dynamics: what each shows in a terminal and in a notebook."""

from typing import Any

import jax
import numpy as np

from jaxopt_study._display import (
    Card,
    around,
    array,
    bounds,
    complex_plane,
    count,
    curves,
    density,
    heat,
    intervals,
    number,
    percent,
    products,
    scalar,
    with_error,
    work,
)

SHOWN = 6  # eigenvalues of a table
LEADS = {
    "escape": "negative curvature lets the deviation grow",
    "oscillation": "each step overshoots",
    "marginal": "flat directions neither grow nor decay",
}


def accounting(found: Any) -> Card:
    """Return the card of an `Accounting`."""
    parts = ("linear", "quadratic", "realised")
    linear, quadratic, realised = (scalar(getattr(found, name)) for name in parts)
    errors = [scalar(getattr(found, f"{name}_error")) for name in parts]
    predicted, error = linear + quadratic, float(np.hypot(errors[0], errors[1]))
    rows = [
        ("gᵀu", with_error(linear, errors[0]), "linear part"),
        ("½uᵀHu", with_error(quadratic, errors[1]), "quadratic part"),
        ("predicted", with_error(predicted, error), "by the quadratic model"),
        ("realised", with_error(realised, errors[2]), "f(θ + u) − f(θ)"),
    ]
    if predicted:
        ratio = realised / predicted
        of_ratio = float(np.hypot(errors[2], ratio * error)) / abs(predicted)
        rows.append(("realised / predicted", with_error(ratio, of_ratio), "1 where the quadratic model holds"))
    picture = lambda: intervals(
        [
            ("gᵀu", *around(linear, errors[0])),
            ("½uᵀHu", *around(quadratic, errors[1])),
            ("predicted", *around(predicted, error)),
            ("realised", *around(realised, errors[2])),
        ],
        label="parts of the change of the loss",
        marks=[0.0],
    )
    return Card("Accounting: change of the loss in one step", rows, picture=picture)


def batch_sharpness(found: Any) -> Card:
    """Return the card of a `BatchSharpness`."""
    value, error = scalar(found.value), scalar(found.error)
    quotient, its_error = scalar(found.mean_quotient), scalar(found.mean_quotient_error)
    full = scalar(found.full_batch)
    rows = [
        ("E[gᵀHg] / E[‖g‖²]", with_error(value, error), "standard error over batches"),
        ("E[gᵀHg / ‖g‖²]", with_error(quotient, its_error), "mean of the quotients"),
        ("full batch", number(full), "along the gradient of all data"),
        ("batches", count(scalar(found.num_batches)), ""),
    ]
    picture = lambda: intervals(
        [
            ("ratio of means", *around(value, 2 * error)),
            ("mean of ratios", *around(quotient, 2 * its_error)),
            ("full batch", full, full, full),
        ],
        label="curvature along the gradients of batches, with two standard errors",
    )
    return Card("BatchSharpness: curvature of batches along their own gradients", rows, picture=picture)


def critical_sharpness(found: Any) -> Card:
    """Return the card of a `CriticalSharpness`."""
    rows = [
        ("λ_c", with_error(scalar(found.value), scalar(found.error)), "critical sharpness"),
        ("crossing", number(scalar(found.step)), "updates; the next step increases the loss if below 1"),
        ("between", bounds(scalar(found.step_lower), scalar(found.step_upper)), "updates, for certain"),
        ("learning rate", number(scalar(found.learning_rate)), ""),
        ("losses", count(scalar(found.num_losses)), "evaluations"),
    ]
    return Card(f"CriticalSharpness: {found.kind}", rows)


def directional_sharpness(found: Any) -> Card:
    """Return the card of a `DirectionalSharpness`."""
    interactions, shares = array(found.interactions, 2), array(found.shares)
    own = np.diag(interactions)
    order = np.argsort(-np.nan_to_num(np.abs(own), nan=-1.0))
    rows = [
        (
            found.names[i],
            number(own[i].item(), 3),
            number((interactions[i].sum() - own[i]).item(), 3),
            percent(shares[i].item()),
        )
        for i in order
    ]
    value = with_error(scalar(found.value), scalar(found.error))
    notes = [
        f"uᵀHu/‖u‖² = {value}: {number(scalar(found.within))} within layers, {number(scalar(found.across))} across "
        f"them; ‖u‖ = {number(scalar(found.norm))}."
    ]
    picture = lambda: heat(interactions, label="interactions of layers; the second colour is negative")
    head = ("layer", "with itself", "with others", "share of ‖u‖²")
    title = f"DirectionalSharpness: curvature along the next update, {work(found)}"
    return Card(title, rows, head, notes, picture)


def gradient_noise(found: Any) -> Card:
    """Return the card of a `GradientNoise`."""
    estimates = {
        name: (scalar(part.value), scalar(part.standard_error))
        for name, part in (("tr Σ", found.trace), ("|G|²", found.squared_norm), ("scale", found.noise_scale))
    }
    low, high = scalar(found.lower), scalar(found.upper)
    rows = [
        ("tr Σ", with_error(*estimates["tr Σ"]), "variance of the gradient of one example"),
        ("|G|²", with_error(*estimates["|G|²"]), "squared norm of the gradient of all data"),
        ("tr Σ/|G|²", f"{number(estimates['scale'][0], 3)} examples", f"{bounds(low, high, 3)} (Fieller's interval)"),
    ]
    return Card("GradientNoise: noise of the mini-batch gradient", rows)


def learning_rate_range(found: Any) -> Card:
    """Return the card of a `LearningRateRange`."""
    low, high = scalar(found.lower), scalar(found.upper)
    rates, losses = array(found.rates), array(found.losses)
    rows = [
        ("edge of stability", bounds(low, high), "learning rate, of the linearised step"),
        ("eigenvalue beyond", number(scalar(found.eigenvalue)), f"± {number(scalar(found.eigenvalue_error), 2)}"),
        products(found),
    ]
    if len(rates):
        last, first = found.measured
        rows.insert(1, ("first divergence", bounds(last, first), f"learning rate, of {len(rates)} short runs"))
    start = scalar(found.initial_loss)
    picture = lambda: curves(
        rates,
        [np.where(losses < 1e3 * max(start, 1e-30), losses, np.nan), np.full(len(rates), start)],
        label="loss after short runs by learning rate; dashed, the loss at the start and the edge of stability",
        marks=[end for end in (low, high) if 0 < end < np.inf],
        log_x=True,
        log_y=bool((losses > 0).any() and start > 0),
        xlabel="learning rate",
    )
    return Card(f"LearningRateRange: {found.kind}", rows, picture=picture if len(rates) else None)


def preconditioned_density(found: Any) -> Card:
    """Return the card of a `PreconditionedDensity`."""
    spectrum = found.density
    apart = array(spectrum.outliers.values)[: scalar(spectrum.outliers.count)]
    grid, width, limit = array(spectrum.grid), scalar(spectrum.kernel_width), scalar(found.threshold)
    listed = ", ".join(number(value, 4) for value in apart[:5].tolist()) + (", …" if len(apart) > 5 else "")
    rows = [
        ("threshold", number(limit), "an eigenvalue beyond it is unstable"),
        ("beyond it", percent(scalar(found.unstable_share), scalar(found.unstable_share_error)), "of the eigenvalues"),
        ("bulk", f"{number(float(grid[0]) + 5 * width, 3)} to {number(float(grid[-1]) - 5 * width, 3)}", ""),
        ("outliers", listed or "none", ""),
        ("eigenvalues", count(scalar(spectrum.size)), ""),
        ("products", count(scalar(spectrum.num_matvecs)), ""),
    ]
    picture = lambda: density(
        found.density,
        label="density of the eigenvalues of P^-½ H P^-½; dashed lines are outliers and the threshold",
        marks=[limit],
        xlabel="λ of P^-½ H P^-½",
    )
    return Card("PreconditionedDensity: spectrum that the optimizer sees", rows, picture=picture)


def preconditioned_sharpness(found: Any) -> Card:
    """Return the card of a `PreconditionedSharpness`."""
    bracket, limit = found.bracket, scalar(found.threshold)
    low, high = scalar(bracket.lower), scalar(bracket.upper)
    ratio = bounds(low / limit, high / limit)
    rows = [
        ("λmax of P^-½ H P^-½", bounds(low, high), f"{percent(scalar(bracket.confidence))} confidence"),
        ("threshold", number(limit), "of the optimizer's next step"),
        ("λmax / threshold", ratio, "1 is the edge of stability"),
        products(bracket),
    ]
    side = "stable" if high < limit else "unstable" if low > limit else "at the edge of stability"
    picture = lambda: intervals(
        [("λmax / threshold", (low + high) / (2 * limit), low / limit, high / limit)],
        label="preconditioned sharpness in units of the threshold",
        marks=[1.0],
    )
    return Card(f"PreconditionedSharpness: {side}", rows, picture=picture if np.isfinite(low * high / limit) else None)


def preconditioner(found: Any) -> Card:
    """Return the card of a `Preconditioner`."""
    leaves = jax.tree.leaves(found.diagonal)
    entries = np.concatenate([array(leaf, np.ndim(leaf)).ravel() for leaf in leaves]) if leaves else np.zeros(0)
    ends = zip(("smallest", "median", "largest"), np.quantile(entries, (0, 0.5, 1)).tolist(), strict=True)
    rows = [*((f"{name} entry", number(value), "") for name, value in ends)]
    rows.append(("threshold", number(scalar(found.threshold)), "an eigenvalue of P⁻¹H beyond it is unstable"))
    return Card(f"Preconditioner: diagonal of {count(entries.size)} entries", rows)


def stability(found: Any) -> Card:
    """Return the card of a `Stability`."""
    values, errors = array(found.eigenvalues).astype(complex), array(found.errors)
    radius = with_error(scalar(found.radius), scalar(found.error))
    rows = [("spectral radius", radius, LEADS.get(found.kind, "growth of a deviation in one step"))]
    rows += [
        (f"μ{i + 1}", number(value, 5), f"± {number(errors[i].item(), 2)}, |μ| = {number(abs(value), 5)}")
        for i, value in enumerate(values[:SHOWN].tolist())
    ]
    if len(values) > SHOWN:
        rows.append(("…", f"{len(values) - SHOWN} more", ""))
    rows.append(products(found))
    if found.num_steps > 1:
        rows.append(("steps", str(found.num_steps), "of the linearised map"))
    notes = [f"Held constant: {', '.join(found.frozen)}."] if found.frozen else []
    late = "" if found.converged else ", not converged"
    picture = lambda: complex_plane(values, label="eigenvalues of the linearised step around the unit circle")
    return Card(f"Stability: {found.kind}{late}", rows, notes=notes, picture=picture)


def stochastic_stability(found: Any) -> Card:
    """Return the card of a `StochasticStability`."""
    source = "exact" if found.exact else "estimated from random batches"
    rows = [
        ("radius", with_error(scalar(found.radius), scalar(found.error)), "growth of the root mean square in one step"),
        products(found),
    ]
    return Card(f"StochasticStability: {found.kind}, {source}", rows)


def columns_of_stability(found: Any) -> dict[str, Any]:
    """Return the columns of the table of a `Stability`."""
    values = np.asarray(found.eigenvalues)
    return {
        "real": values.real, "imaginary": values.imag, "modulus": np.abs(values), "residual": found.residuals,
        "error": found.errors,
    }  # fmt: skip


def columns_of_range(found: Any) -> dict[str, Any]:
    """Return the columns of the table of a `LearningRateRange`."""
    columns = {"learning_rate": found.rates, "loss": found.losses, "diverged": found.diverged}
    return {name: np.asarray(column) for name, column in columns.items()}


def columns_of_directions(found: Any) -> dict[str, Any]:
    """Return the columns of the table of a `DirectionalSharpness`: a row for each layer."""
    interactions = np.asarray(found.interactions)
    own = np.diag(interactions)
    return {
        "layer": found.names, "within": own, "across": interactions.sum(axis=1) - own,
        "share": np.asarray(found.shares),
    }  # fmt: skip
