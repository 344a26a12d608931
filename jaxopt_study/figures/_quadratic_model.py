"""The quadratic model of the loss along the gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxopt_study.figures._style import COLOURS

MODEL, SLOPE, BEST, RATE = COLOURS[0], COLOURS[7], COLOURS[1], COLOURS[3]


def draw_parabola(axes: Axes, terms: Mapping[str, Any], *, rate: float | int | None = None) -> None:
    """Draw −ε gᵀg + ½ ε² gᵀHg over the step ε, with its minimiser.

    Args:
        axes: The axes to draw in.
        terms: "gg", "ghg" and "ghg_error", as in `curvature.IllConditioning`.
        rate: A step to mark; None marks none.
    """
    gg, ghg, error = (float(terms[name]) for name in ("gg", "ghg", "ghg_error"))
    axes.set_title("quadratic model along −g", loc="left")
    axes.set(xlabel="step ε", ylabel="change of the loss")
    if not (np.isfinite(gg) and np.isfinite(ghg)) or gg == 0:
        axes.text(0.5, 0.5, "no gradient here", transform=axes.transAxes, ha="center", color="#7F7F7F")
        return
    unit = gg / abs(ghg) if ghg != 0 else 1.0  # the Cauchy step, if there is one
    steps = np.linspace(0, 2.4 * unit, 200)
    power = int(np.floor(np.log10(gg * unit)))
    if not -2 <= power <= 3:  # the power goes into the label; above the axis it would shift the title
        axes.set_ylabel(f"change of the loss   ($10^{{{power}}}$)")
        gg, ghg, error = (value / 10.0**power for value in (gg, ghg, error))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    model = -steps * gg + 0.5 * steps**2 * ghg
    axes.axhline(0, color="black", linewidth=0.8)
    axes.plot(steps, -steps * gg, color=SLOPE, linestyle=(0, (5, 1.5)), label="slope")
    axes.fill_between(
        steps, model - 0.5 * steps**2 * error, model + 0.5 * steps**2 * error, color=MODEL, alpha=0.3, linewidth=0
    )
    axes.plot(steps, model, color=MODEL)
    lowest = -0.5 * gg * unit if ghg > 0 else model.min()
    axes.set_xlim(0, steps[-1])
    axes.set_ylim(1.5 * lowest if ghg > 0 else 1.1 * lowest, 0.75 * abs(lowest) if ghg > 0 else 0.15 * abs(lowest))
    if ghg > 0:
        aside = {"xy": (1.32 * -lowest / gg, 1.32 * lowest), "xytext": (5, 0), "ha": "left"}
    else:
        aside = {"xy": (steps[-1], -steps[-1] * gg), "xytext": (-4, 12), "ha": "right"}
    axes.annotate("slope alone", **aside, textcoords="offset points", color="#555555", fontsize=9)
    if rate is not None and 0 < rate < steps[-1]:
        axes.axvline(rate, color=RATE, linestyle=(0, (1.5, 1)), linewidth=1.4)
        axes.annotate(
            f"one step: {rate:.3g}", (rate, 0.92), (4, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=RATE, fontsize=9,
        )  # fmt: skip
    if ghg > 0:
        axes.plot(unit, lowest, "o", color=BEST, markersize=7, zorder=5)
        axes.annotate(
            f"Cauchy step\n{unit:.3g}", (unit, lowest), (0, 9), textcoords="offset points", ha="center", fontsize=9,
            color=BEST,
        )  # fmt: skip
        axes.plot(2 * unit, 0, "o", color="white", markeredgecolor=BEST, markeredgewidth=1.8, markersize=7, zorder=5)
        axes.annotate(
            f"rises beyond {2 * unit:.3g}", (2 * unit, 0), (-7, 7), textcoords="offset points", ha="right", fontsize=9,
            color=BEST,
        )  # fmt: skip
