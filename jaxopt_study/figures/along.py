"""Curvature along runs: how sharp, how near to the optimizer's limit, and whether steps did what they should."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxopt_study.checks import check_mapping
from jaxopt_study.figures.checks import check_style
from jaxopt_study.figures.panels import Panel, panels

_MEASURED = {"step", "limit", "eigenvalues", "gain_sharpness", "linear", "quadratic", "realised"}
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
    check_style("curvature_along_runs", title=title)
    for name, values in check_mapping("curvature_along_runs", "measured", measured).items():
        missing = _MEASURED - set(check_mapping("curvature_along_runs", f"measured[{name!r}]", values))
        if missing:
            raise ValueError(
                f"curvature_along_runs needs measured[{name!r}] with {sorted(missing)}; received {list(values)}."
            )
    if not measured:
        raise ValueError("curvature_along_runs needs the measurements of at least one optimizer; received none.")
    steps = np.unique(np.concatenate([np.asarray(values["step"], dtype=float) for values in measured.values()]))

    def of(quantity: Any) -> dict[str, np.ndarray]:
        return {name: _at(steps, values["step"], quantity(values)) for name, values in measured.items()}

    shown = [
        Panel("sharpness (largest eigenvalue)", of(lambda v: _array(v, "eigenvalues")[..., 0]), log=True),
        Panel(
            "preconditioned sharpness / limit",
            of(lambda v: _array(v, "gain_sharpness") / float(v["limit"])),
            level=1.0,
            level_label=ONE,
            log=True,
        ),
        Panel(
            "realised / predicted change of the loss",
            of(lambda v: _array(v, "realised") / (_array(v, "linear") + _array(v, "quadratic"))),
            level=1.0,
            level_label=ONE,
            smallest=-1.0,
            largest=3.0,
        ),
    ]
    unlimited = [name for name, lanes in shown[1].curves.items() if not np.isfinite(lanes).any()]
    told = f"no single stability limit: {', '.join(unlimited)}" if unlimited else ""
    return panels(steps, shown, title="\n".join(line for line in (title, told) if line))


def _array(values: Mapping[str, Any], key: str) -> np.ndarray:
    return np.asarray(values[key], dtype=float)


def _at(steps: np.ndarray, own: Any, lanes: np.ndarray) -> np.ndarray:
    """Return lanes (seeds, K) over all steps, NaN at those that are not their own."""
    spread = np.full((len(lanes), len(steps)), np.nan)
    spread[:, np.searchsorted(steps, np.asarray(own, dtype=float))] = lanes
    return spread
