"""Results that the figure of a spectrum draws: checks, and which eigenvalues are resolved."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxopt_study._checks import check_mapping, check_numbers
from jaxopt_study.figures._checks import check_fields, check_flags, check_number, check_row, fields_of


def resolved(values: Any, residuals: Any) -> Bool[np.ndarray, " k"]:
    """Return a mask of the resolved eigenvalues, those distinct from 0 and from each other within their residuals.

    An eigenvalue lies within its residual of each value. If two such intervals overlap, they may contain the same
    eigenvalue; if one contains 0, the sign is undecided, whatever the requested tolerance.

    Args:
        values: Shape (k,).
        residuals: Shape (k,).

    Returns:
        Shape (k,): whether the interval value ± residual contains neither 0 nor a part of another interval.

    Example:
        >>> resolved([-2.0, -1.9, 0.1, 5.0], [0.1, 0.1, 0.2, 0.2]).tolist()
        [False, False, False, True]
    """
    values, residuals = np.asarray(values, dtype=float), np.asarray(residuals, dtype=float)
    low, high = values - residuals, values + residuals
    overlaps = (low[:, None] <= high) & (low <= high[:, None])
    return (overlaps.sum(axis=1) == 1) & ((low > 0) | (high < 0))  # 1: only itself


def count_range(low: float | int, high: float | int) -> str:
    """Return a count as text, as a range if only its two ends are known.

    Example:
        >>> count_range(178.1, 17002.9), count_range(3, 3), count_range(0.2, 0.4)
        ('178 to 17,003', '3', '0 to 1')
    """
    low, high = np.floor(low), np.ceil(high)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def checked_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the drawn results as arrays and numbers; raise if a field is missing or wrong."""
    who, checked = "spectrum", {}
    given = {name: fields_of(result) for name, result in results.items() if result is not None}

    def numbers(name: str, *fields: str) -> dict[str, Any]:
        part = check_fields(who, f"results[{name!r}]", given[name], fields)
        return {field: check_number(who, f"results[{name!r}][{field!r}]", part[field]) for field in fields}

    def rows(name: str, *fields: str) -> dict[str, Any]:
        part = check_fields(who, f"results[{name!r}]", given[name], fields)
        checked = {field: check_row(who, f"results[{name!r}][{field!r}]", part[field]) for field in fields}
        shapes = {field: row.shape for field, row in checked.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"{who} needs numbers of one shape in results[{name!r}]; received {shapes}.")
        return checked

    if "eigenpairs" in given:
        pairs = rows("eigenpairs", "values", "residuals")
        if (pairs["residuals"] < 0).any():
            raise ValueError(f"{who} needs residuals ≥ 0; received {pairs['residuals'].tolist()}.")
        flags = check_fields(who, "results['eigenpairs']", given["eigenpairs"], ["converged"])["converged"]
        pairs["converged"] = check_flags(who, "results['eigenpairs']['converged']", flags, pairs["values"].shape)
        checked["eigenpairs"] = pairs
    if "sharpness" in given:
        checked["sharpness"] = bracket = numbers("sharpness", "lower", "upper", "confidence")
        if bracket["lower"] > bracket["upper"]:
            raise ValueError(f"{who} needs results['sharpness'] with lower ≤ upper; received {bracket}.")
    if "spectral_density" in given:
        density = rows("spectral_density", "grid", "density", "density_error")
        density |= numbers("spectral_density", "kernel_width", "size")
        if not (density["kernel_width"] > 0 and density["size"] > 0):
            received = f"{density['kernel_width']} and {density['size']}"
            raise ValueError(f"{who} needs a density with kernel_width and size > 0; received {received}.")
        apart = check_fields(who, "results['spectral_density']", given["spectral_density"], ["outliers"])["outliers"]
        apart = fields_of(apart)
        check_fields(who, "results['spectral_density']['outliers']", apart, ["values"])
        density["outliers"] = np.ravel(check_numbers(who, "outliers", apart["values"], finite=False))
        checked["spectral_density"] = density
    if "gradient" in given:
        checked["gradient"] = numbers("gradient", "gg", "ghg", "ghg_error")
    index = check_mapping(who, "results['classification']", given.get("classification", {})).get("index")
    if index is not None:
        index = fields_of(index)
        where = "results['classification']['index']"
        check_fields(who, where, index, ["tau", "interval"])
        interval = check_numbers(who, f"{where}['interval']", index["interval"])
        if interval.shape != (2,):
            raise ValueError(f"{who}: {where}['interval'] must be (lower, upper); received {interval.tolist()}.")
        sure = index.get("confidence")
        checked["index"] = {
            "tau": check_number(who, f"{where}['tau']", index["tau"]),
            "interval": interval,
            "confidence": None if sure is None else check_number(who, f"{where}['confidence']", sure),
        }
    return checked
