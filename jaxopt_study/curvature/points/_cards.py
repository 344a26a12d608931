"""Cards of the results on points: what each shows in a terminal and in a notebook."""

from typing import Any

import numpy as np

from jaxopt_study._display import (
    Card,
    around,
    array,
    count,
    curves,
    extent,
    heat,
    intervals,
    number,
    percent,
    products,
    scalar,
    with_error,
)


def morse_index(found: Any) -> Card:
    """Return the card of a `MorseIndex`."""
    tau = scalar(found.tau)
    exact = scalar(found.resolution) > 0
    sure = "exact" if exact else "estimated"
    rows = [
        ("negative", _counted(found.estimate, found.interval), f"λ < −{tau:.2g}, {sure}"),
        ("flat", _counted(found.flat, found.flat_interval), f"|λ| ≤ {tau:.2g}, {sure}"),
        ("proved negative", f"≥ {count(scalar(found.lower_bound))}", "up to the noise floor"),
        ("proved positive", f"≥ {count(scalar(found.positive_lower_bound))}", ""),
        ("error of an eigenvalue", number(scalar(found.error), 2), ""),
        products(found),
    ]
    return Card("MorseIndex: numbers of negative and flat eigenvalues", rows)


def classification(found: Any) -> Card:
    """Return the card of a `Classification`."""
    norm, tolerance = scalar(found.gradient_norm), scalar(found.gradient_tol)
    residuals = array(found.residuals)
    smallest, largest = scalar(found.smallest), scalar(found.largest)
    rows = [
        ("loss", number(scalar(found.value), 6), ""),
        ("‖g‖", number(norm), f"{'≤' if norm <= tolerance else '>'} {number(tolerance, 2)}, that of a critical point"),
        ("smallest eigenvalue", with_error(smallest, residuals[0].item()), ""),
        ("largest eigenvalue", with_error(largest, residuals[1].item()), ""),
        ("negative eigenvalues", _counted(found.index.estimate, found.index.interval), ""),
        ("flat eigenvalues", _counted(found.index.flat, found.index.flat_interval), ""),
        products(found),
    ]
    if scalar(found.escape.seen):
        fall = with_error(scalar(found.escape.fall), scalar(found.escape.rounding))
        rows.insert(-1, ("way down", f"the loss falls by {fall}", f"in a walk of {number(scalar(found.escape.step))}"))
    picture = lambda: intervals(
        [("smallest λ", *around(smallest, residuals[0])), ("largest λ", *around(largest, residuals[1]))],
        label="smallest and largest eigenvalue", marks=[0.0],
    )  # fmt: skip
    scalar(found.kind)
    return Card(f"Classification: {found.verdict}", rows, picture=picture)


def escape(found: Any) -> Card:
    """Return the card of an `Escape`."""
    rows = [
        ("fall of the loss", with_error(scalar(found.fall), scalar(found.rounding)), "± rounding"),
        ("length of the walk", number(scalar(found.step)), ""),
    ]
    return Card(f"Escape: {'a verified way down' if scalar(found.seen) else 'no way down was seen'}", rows)


def critical_point_search(found: Any) -> Card:
    """Return the card of a `CriticalPointSearch`."""
    norms = array(found.gradient_norms)
    seen = np.isfinite(norms)
    rows = [
        ("loss", number(scalar(found.value), 6), ""),
        ("‖g‖", number(scalar(found.gradient_norm)), f"tolerance {number(scalar(found.gradient_tol), 2)}"),
        ("steps", count(scalar(found.num_steps)), f"{count(scalar(found.num_gradients))} gradients"),
        products(found),
    ]
    picture = lambda: curves(
        np.flatnonzero(seen), [norms[seen]], label="norm of the gradient by step", log_y=True, xlabel="‖g‖ by step"
    )
    scalar(found.status)
    return Card(f"CriticalPointSearch: {found.verdict}", rows, picture=picture if seen.any() else None)


def path(found: Any) -> Card:
    """Return the card of a `Path`."""
    steps, losses, model = array(found.steps), array(found.losses), array(found.model)
    rows = [
        ("steps", f"{number(steps.min().item())} to {number(steps.max().item())}", f"{len(steps)} points"),
        ("losses", extent(losses), f"each ± {number(array(found.errors).max().item(), 2)} at most"),
        ("slope gᵀd", with_error(scalar(found.slope), scalar(found.slope_error)), ""),
        ("curvature dᵀHd", with_error(scalar(found.curvature), scalar(found.curvature_error)), ""),
        ("‖d‖", number(scalar(found.norm)), "one unit of the axis"),
    ]
    picture = lambda: curves(
        steps, [losses, np.clip(model, *_stretched(losses))], label="loss along the line; dashed, its quadratic model"
    )
    return Card("Path: the loss along a line", rows, picture=picture)


def plane(found: Any) -> Card:
    """Return the card of a `Plane`."""
    x, y, losses = array(found.x), array(found.y), array(found.losses, 2)
    curvatures, error = array(found.curvatures, 2), scalar(found.curvature_error)
    rows = [
        ("x", extent(x), f"{len(x)} points, ‖u‖ = {number(array(found.norms)[0].item())}"),
        ("y", extent(y), f"{len(y)} points, ‖v‖ = {number(array(found.norms)[1].item())}"),
        ("losses", extent(losses), f"each ± {number(float(np.max(array(found.errors, 2))), 2)} at most"),
        ("curvature uᵀHu", with_error(curvatures[0, 0].item(), error), ""),
        ("curvature vᵀHv", with_error(curvatures[1, 1].item(), error), ""),
        (
            "curvature uᵀHv",
            with_error(curvatures[0, 1].item(), error),
            f"cosine {number(scalar(found.cosine), 2)}",
        ),
    ]
    picture = lambda: heat((losses - np.nanmin(losses))[::-1], label="loss in the plane, darker where it is larger")
    return Card("Plane: the loss in a plane", rows, picture=picture if np.isfinite(losses).any() else None)


def principal_axes(found: Any) -> Card:
    """Return the card of `PrincipalAxes`."""
    explained = array(found.explained)
    coordinates = array(found.coordinates, 2)
    rows = [
        (f"axis {i + 1}", percent(share.item()), "of the squared distances from the last point")
        for i, share in enumerate(explained)
    ]
    picture = None
    if coordinates.shape[1] > 1:
        picture = lambda: curves(coordinates[:, 0], [coordinates[:, 1]], label="trajectory in the first two axes")
    return Card(f"PrincipalAxes: {len(coordinates)} snapshots", rows, picture=picture)


def columns_of_path(found: Any) -> dict[str, Any]:
    """Return the columns of the table of a `Path`."""
    return {
        "step": np.asarray(found.steps), "loss": np.asarray(found.losses), "error": np.asarray(found.errors),
        "model": np.asarray(found.model),
    }  # fmt: skip


def _counted(estimate: Any, interval: Any) -> str:
    low, high = array(interval).tolist()
    middle = scalar(estimate)
    return count(middle) if low == high else f"{count(middle)} ({count(np.floor(low))} to {count(np.ceil(high))})"


def _stretched(values: Any) -> tuple[float, float]:
    """Return limits that leave a curve beside another one some room, but no more."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        return 0.0, 1.0
    room = 0.3 * float(np.ptp(seen)) or 1.0
    return float(seen.min()) - room, float(seen.max()) + room
