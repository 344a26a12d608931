"""Figure of the curvature along runs: sharpness, distance to the stability limit, and predicted loss changes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxopt_study._checks import check_mapping, check_numbers
from jaxopt_study.figures._checks import check_fields, check_number, check_row, check_style
from jaxopt_study.figures._panels import Panel, panels

_MEASURED = ("step", "limit", "eigenvalues", "gain_sharpness", "linear", "quadratic", "realised")
_WHO = "curvature_along_runs"
ONE = "1: edge of stability; change as predicted"


def curvature_along_runs(measured: Mapping[str, Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw the measurements of `training.CurvatureProbe` along the runs of several optimizers.

    The left axes show the largest eigenvalue of the Hessian; the middle axes, the preconditioned sharpness (the probe's
    gain sharpness) divided by the stability limit, which is 1 at the edge of stability; the right axes, the change of
    the loss in a step divided by that of the quadratic model, which is 1 where the model holds.

    Args:
        measured: By optimizer: "step" (K,), "limit", and of shape (seeds, K) "gain_sharpness", "linear", "quadratic",
            "realised", and (seeds, K, k) "eigenvalues". NaN where nothing was measured. Steps may differ between
            optimizers. An optimizer whose limit is NaN is missing in the middle axes, and the title says so.
        title: Description of the runs.

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

    def of(
        quantity: Callable[[dict[str, Float[np.ndarray, "..."]]], Float[np.ndarray, "seeds steps"]],
    ) -> dict[str, Float[np.ndarray, "seeds all_steps"]]:
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
    note = f"no single stability limit: {', '.join(unlimited)}" if unlimited else ""
    return panels(steps, shown, title="\n".join(line for line in (title, note) if line))


def _checked(name: str, values: Any) -> dict[str, Float[np.ndarray, "..."]]:
    """Return the measurements of one optimizer as arrays; raise ValueError for wrong shapes."""
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


def _at(
    steps: Float[np.ndarray, " all_steps"],
    own: Float[np.ndarray, " steps"],
    lanes: Float[np.ndarray, "seeds steps"],
) -> Float[np.ndarray, "seeds all_steps"]:
    """Return curves (seeds, K) over all steps, with NaN at steps where they were not measured."""
    spread = np.full((len(lanes), len(steps)), np.nan)
    spread[:, np.searchsorted(steps, own)] = lanes
    return spread
