"""Curvature along runs: how sharp, how near to the optimizer's limit, and whether steps did what they should."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from jaxopt_study.figures.style import SETTINGS, appearances, new_figure


def curvature_along_runs(measured: Mapping[str, Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw what `training.CurvatureProbe` measured along the runs of several optimizers.

    Left the largest eigenvalue of the Hessian, in the middle the gain sharpness over the stability limit, 1 at the edge
    of stability, right the change of the loss in a step over what the quadratic model predicts, 1 where it holds.

    Args:
        measured: By optimizer: "step" (K,), "limit", and of shape (seeds, K) "gain_sharpness", "linear", "quadratic",
            "realised", and (seeds, K, k) "eigenvalues". NaN where nothing was measured.
        title: What the runs were.

    Returns:
        A figure with three axes and one legend; lines are medians over seeds, bands their range.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not measured:
        raise ValueError("curvature_along_runs needs the measurements of at least one optimizer; received none.")
    looks = appearances(measured)
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(11.0, 4.0)
        sharp, edge, account = figure.subplots(1, 3)
        for name, values in measured.items():
            steps = np.asarray(values["step"], dtype=float)
            arrays = {key: np.asarray(values[key], dtype=float) for key in ("gain_sharpness", "linear", "quadratic")}
            realised = np.asarray(values["realised"], dtype=float)
            drawn = {
                sharp: np.asarray(values["eigenvalues"], dtype=float)[..., 0],
                edge: arrays["gain_sharpness"] / float(values["limit"]),
                account: realised / (arrays["linear"] + arrays["quadratic"]),
            }
            for axes, lanes in drawn.items():
                seen = np.isfinite(lanes).all(axis=0)
                low, middle, high = np.quantile(lanes[:, seen], (0, 0.5, 1), axis=0)
                axes.fill_between(steps[seen], low, high, color=looks[name].color, alpha=0.12, linewidth=0)
                axes.plot(steps[seen], middle, label=name, **looks[name].line())
        for axes in (edge, account):
            axes.axhline(1.0, color="black", linewidth=1.0, linestyle=(0, (2, 2)))
        for axes in (sharp, edge):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        account.set_ylim(-1.0, 3.0)
        sharp.set_ylabel("largest Hessian eigenvalue")
        edge.set_ylabel("gain sharpness / stability limit")
        account.set_ylabel("realised / predicted change of the loss")
        sharp.set_title("sharpness", loc="left")
        edge.set_title("1 = edge of stability", loc="left")
        account.set_title("1 = the quadratic model holds", loc="left")
        seeds = len(next(iter(measured.values()))["realised"])
        for axes in (sharp, edge, account):
            axes.set_xlabel("step" if seeds == 1 else f"step   (median and range of {seeds} seeds)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        handles, names = sharp.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 8), handlelength=3.0)
    return figure
