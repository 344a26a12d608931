"""Figure of the loss along a line or in a plane, with the quadratic model beside it."""

from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxopt_study._checks import describe_argument
from jaxopt_study.curvature import Path, Plane
from jaxopt_study.figures._checks import check_style
from jaxopt_study.figures._style import COLOURS, SETTINGS, new_figure

_LEVELS = 15


def loss_landscape(measured: Path | Plane, *, title: str = "") -> Figure:
    """Draw the loss along a line or in a plane, and its quadratic model.

    Of a line, one pair of axes shows the loss with the band of its rounding errors, and the model dashed. Of a plane,
    the left axes show level lines of the loss, the right ones those of the model at the same levels. A dot marks the
    point at which the model was made.

    Args:
        measured: From `curvature.path` or `curvature.plane`.
        title: Description of the loss.

    Returns:
        A figure with one or two axes. Numbers that are not finite are left out.

    Raises:
        TypeError: If `measured` is neither.
        ValueError: If no loss is finite, or a plane has less than two points on a side.

    Example:
        >>> from jaxopt_study import curvature
        >>> line = curvature.path(lambda p, _: jnp.cos(p), jnp.array(0.0), jnp.array(1.0))
        >>> figure = loss_landscape(line)
        >>> print([drawn.get_label() for drawn in figure.axes[0].lines])
        ['loss', 'quadratic model', 'here']
    """
    who = "loss_landscape"
    check_style(who, title=title)
    if not isinstance(measured, Path | Plane):
        raise TypeError(
            f"{who} needs the result of curvature.path or curvature.plane; received {describe_argument(measured)}."
        )
    losses = np.asarray(measured.losses, np.float64)
    if not np.isfinite(losses).any():
        raise ValueError(f"{who} needs a loss that is finite somewhere; received none.")
    if isinstance(measured, Plane) and min(losses.shape) < 2:
        raise ValueError(f"{who} needs a plane of at least 2 × 2 points; received {losses.shape}.")
    with matplotlib.rc_context(SETTINGS):
        if isinstance(measured, Path):
            figure = new_figure(6.4, 4.0)
            draw_line(figure.subplots(), measured, losses)
        else:
            figure = new_figure(9.0, 4.2)
            draw_planes(figure.subplots(1, 2, sharex=True, sharey=True), measured, losses)
        if title:
            figure.suptitle(title)
    return figure


def draw_line(axes: Axes, measured: Path, losses: Float64[np.ndarray, " steps"]) -> None:
    """Draw the loss along a line with the band of its rounding errors, and its quadratic model dashed."""
    steps, errors, model = (np.asarray(x, np.float64) for x in (measured.steps, measured.errors, measured.model))
    order = np.argsort(steps)
    steps, losses, errors, model = steps[order], losses[order], errors[order], model[order]
    axes.fill_between(steps, losses - errors, losses + errors, color=COLOURS[0], alpha=0.3, linewidth=0)
    axes.plot(steps, losses, color=COLOURS[0], label="loss")
    axes.plot(steps, model, color=COLOURS[1], linestyle=(0, (5, 1.5)), label="quadratic model")
    shown = losses[np.isfinite(losses)]
    margin = 0.1 * (shown.max() - shown.min()) or 1.0
    axes.set_ylim(shown.min() - margin, shown.max() + margin)  # the model may leave far from the point
    here = float(np.interp(0.0, steps, losses)) if steps[0] <= 0 <= steps[-1] else np.nan
    axes.plot([0.0], [here], "o", color="black", markersize=5, label="here")
    axes.set(xlabel="step along the direction", ylabel="loss")
    axes.legend()


def draw_planes(both: Any, measured: Plane, losses: Float64[np.ndarray, "rows columns"]) -> None:
    """Draw level lines of the loss, and those of its quadratic model at the same levels."""
    drawn = draw_level_lines(both[0], measured, losses, bar=False)
    draw_level_lines(both[1], measured, np.asarray(measured.model, np.float64), levels=drawn.levels, bar=False)
    for axes, name in zip(both, ("loss", "quadratic model"), strict=True):
        axes.set_title(name, loc="left")
    both[0].figure.colorbar(drawn, ax=list(both), label="loss")


def draw_level_lines(
    axes: Axes, measured: Plane, values: Float64[np.ndarray, "rows columns"], *, levels: Any = None, bar: bool = True
) -> Any:
    """Draw level lines in a plane, and a dot at the point itself.

    Args:
        axes: The axes to draw in.
        measured: The plane, for its two axes.
        values: The loss or its model at every point.
        levels: The levels; None spaces them evenly.
        bar: Whether to draw a bar with the levels.

    Returns:
        The level lines.
    """
    x, y = (np.asarray(steps, np.float64) for steps in (measured.x, measured.y))
    columns, rows = np.argsort(x), np.argsort(y)
    if levels is None:
        shown = values[np.isfinite(values)]
        spread = shown.max() - shown.min() or 1.0
        levels = np.linspace(shown.min() - 1e-3 * spread, shown.max() + 1e-3 * spread, _LEVELS)
    table = np.ma.masked_invalid(values[np.ix_(rows, columns)])
    lines = axes.contour(x[columns], y[rows], table, levels=levels, cmap="viridis")
    axes.plot([0.0], [0.0], "o", color="black", markersize=5)
    axes.set(xlabel="step along u", ylabel="step along v")
    if bar:
        axes.figure.colorbar(lines, ax=axes, label="loss")
    return lines
