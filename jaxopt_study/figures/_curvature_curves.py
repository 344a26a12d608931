"""Curvature along runs: how sharp, how near to the optimizer's limit, and whether steps did what they should."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxopt_study._checks import check_mapping, check_numbers
from jaxopt_study.figures._checks import check_fields, check_number, check_row, check_style
from jaxopt_study.figures._panels import Panel, panels

_MEASURED = ("step", "limit", "eigenvalues", "gain_sharpness", "linear", "quadratic", "realised")
_WHO = "curvature_along_runs"
ONE = "1: edge of stability; change as predicted"


def curvature_along_runs(measured: Mapping[str, Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw what `training.CurvatureProbe` measured along the runs of several optimizers.

    Left the largest eigenvalue of the Hessian, in the middle the preconditioned sharpness (the probe's gain sharpness)
    over the stability limit, 1 at the edge of stability, right the change of the loss in a step over what the quadratic
    model predicts, 1 where it holds.

    Args:
        measured: By optimizer: "step" (K,), "limit", and of shape (seeds, K) "gain_sharpness", "linear", "quadratic",
            "realised", and (seeds, K, k) "eigenvalues". NaN where nothing was measured. Steps may differ between
            optimizers. Whoever's limit is NaN is not in the middle, and the title says so.
        title: What the runs were.

    Returns:
        A figure with three axes and one legend; lines and bands are those of `panels`.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
        >>> probed = {"step": [0, 5], "limit": 2.0, "eigenvalues": [[[3.0], [4.0]]], "gain_sharpness": [[1.5, 2.0]]}
        >>> probed |= {"linear": [[-1.0, -0.5]], "quadratic": [[0.5, 0.0]], "realised": [[-0.5, -0.5]]}
        >>> figure = curvature_along_runs({"sgd": probed})
        >>> [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
        [[3.0, 4.0], [0.75, 1.0], [1.0, 1.0]]
    """
    check_style(_WHO, title=title)
    runs = {name: _checked(name, values) for name, values in check_mapping(_WHO, "measured", measured).items()}
    if not runs:
        raise ValueError(f"{_WHO} needs the measurements of at least one optimizer; received none.")
    steps = np.unique(np.concatenate([run["step"] for run in runs.values()]))

    def of(quantity: Callable[[dict[str, np.ndarray]], np.ndarray]) -> dict[str, np.ndarray]:
        return {name: _at(steps, run["step"], quantity(run)) for name, run in runs.items()}

    shown = [
        Panel("sharpness (largest eigenvalue)", of(lambda v: v["eigenvalues"][..., 0]), log=True),
        Panel(
            "preconditioned sharpness / limit",
            of(lambda v: v["gain_sharpness"] / v["limit"]),
            level=1.0,
            level_label=ONE,
            log=True,
        ),
        Panel(
            "realised / predicted change of the loss",
            of(lambda v: v["realised"] / (v["linear"] + v["quadratic"])),
            level=1.0,
            level_label=ONE,
            smallest=-1.0,
            largest=3.0,
        ),
    ]
    unlimited = [name for name, lanes in shown[1].curves.items() if not np.isfinite(lanes).any()]
    told = f"no single stability limit: {', '.join(unlimited)}" if unlimited else ""
    return panels(steps, shown, title="\n".join(line for line in (title, told) if line))


def _checked(name: str, values: Any) -> dict[str, np.ndarray]:
    """Return the measurements of one optimizer as arrays, if they have their shapes."""
    where = f"measured[{name!r}]"
    check_fields(_WHO, where, values, _MEASURED)
    run = {field: check_numbers(_WHO, f"{where}[{field!r}]", values[field], finite=False) for field in _MEASURED}
    check_number(_WHO, f"{where}['limit']", values["limit"])
    if not np.isfinite(check_row(_WHO, f"{where}['step']", values["step"])).all():
        raise ValueError(f"{_WHO} needs {where}['step'] to be finite; received {run['step'].tolist()}.")
    lanes = run["gain_sharpness"].shape
    if len(lanes) != 2 or lanes[1] != len(run["step"]):
        raise ValueError(
            f"{_WHO} needs {where}['gain_sharpness'] of shape (seeds, {len(run['step'])}); received {lanes}."
        )
    for field in ("eigenvalues", "linear", "quadratic", "realised"):
        shape = run[field].shape
        expected = f"{lanes} and one for the eigenvalues" if field == "eigenvalues" else f"{lanes}"
        if shape[:2] != lanes or len(shape) != 2 + (field == "eigenvalues") or not run[field].size:
            raise ValueError(f"{_WHO} needs {where}[{field!r}] of shape {expected}; received {shape}.")
    return run


def _at(steps: np.ndarray, own: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """Return lanes (seeds, K) over all steps, NaN at those that are not their own."""
    spread = np.full((len(lanes), len(steps)), np.nan)
    spread[:, np.searchsorted(steps, own)] = lanes
    return spread
