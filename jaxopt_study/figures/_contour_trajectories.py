"""Optimizer trajectories over the contours of a planar problem."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxopt_study._checks import check_real, describe_argument
from jaxopt_study.figures._checks import check_arrays, check_style
from jaxopt_study.figures._style import SETTINGS, Appearance, appearances, new_figure
from jaxopt_study.problems import Problem

_START = {"marker": "o", "color": "white", "markeredgecolor": "black", "markersize": 7, "linestyle": "none"}
_MINIMUM = {"marker": "+", "color": "black", "markersize": 13, "markeredgewidth": 1.2, "linestyle": "none"}


def trajectories(
    problem: Problem,
    paths: Mapping[str, Any],
    *,
    together: bool = False,
    title: str = "",
    columns: int | None = None,
    rates: Mapping[str, float | int] | None = None,
) -> Figure:
    """Draw the paths of optimizers over the contours of a planar problem.

    Contours are spaced evenly in the logarithm of the height above the lowest known minimum. Paths are cut off outside
    the problem's domain, and a shared plane shows only the part of the domain that the paths reach.

    Args:
        problem: A problem with a `domain`, whose loss broadcasts over parameters of shape (2, …).
        paths: The paths by name, shape (points, 2), from the start; NaN after a divergence.
        together: Whether all paths share one plane; otherwise each path has its own.
        title: Title of the figure.
        columns: Number of planes in a row; None takes three, or four for more than six paths.
        rates: By name, learning rates to write above the planes.

    Returns:
        A figure with one axes per path, or one for all. Each title gives the loss at the last point.

    Raises:
        ValueError: If there are no paths, the problem has no domain, or a path is not a list of points in the plane.

    Example:
        >>> from jaxopt_study import problems
        >>> figure = trajectories(problems.planar.bowl(), {"a": [[-7, 2], [0, 0]], "b": [[-7, 2], [1, 1]]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['a   f = 0', 'b   f = 1.05']
    """
    check_style("trajectories", together=together, title=title, rates=rates)
    if columns is not None:
        check_style("trajectories", columns=columns)
    for name, rate in (rates or {}).items():
        check_real("trajectories", f"rates[{name!r}]", rate)
    points = checked_paths("trajectories", problem, paths)
    looks = appearances(points)
    columns = 1 if together else columns or (3 if len(points) <= 6 else 4)
    rows = 1 if together else -(-len(points) // columns)
    columns = min(columns, len(points))
    with matplotlib.rc_context({**SETTINGS, "axes.titlesize": 9}):
        figure = new_figure(8.0, 3.6 if together else 0.75 + 1.75 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        planes = list(grid.flat)
        for axes in planes[: 1 if together else len(points)]:
            draw_contours(axes, problem)
        for number, (name, path) in enumerate(points.items()):
            axes = planes[0 if together else number]
            # Of paths that coincide, the first stays visible on both sides of the later, thinner ones.
            draw_path(axes, path, looks[name], name, width=1.3 + 0.8 * (len(points) - 1 - number) * together)
            if not together:
                rate = f" {rates[name]:.3g}" if rates and name in rates else ""
                axes.set_title(f"{name}{rate}   f = {end_value(problem, path):.3g}", loc="left")
        for axes in planes[: 1 if together else len(points)]:
            draw_landmarks(axes, problem, next(iter(points.values()))[0])
        free = [] if together else planes[len(points) :]
        for axes in free:
            axes.set_axis_off()
        if not together:
            _label_outside(grid, len(points))
        else:
            planes[0].set(xlabel="x", ylabel="y")
            crop(planes[0], problem, points)
        handles = [Line2D([], [], **_START, label="start")]
        if problem.minima:
            handles.append(Line2D([], [], **_MINIMUM, label="minimum"))
        if together:
            handles += [Line2D([], [], **looks[name].line(linestyle="-"), label=name) for name in points]
        if free:
            free[0].legend(handles=handles, loc="center left")
        else:
            place = "outside right center" if together else "outside lower center"
            figure.legend(handles=handles, loc=place, ncols=1 if together else 2, handlelength=3.0 if together else 1.5)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def checked_paths(who: str, problem: Problem, paths: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "_ 2"]]:
    """Return paths as arrays; raise if one cannot be drawn."""
    if not isinstance(problem, Problem):
        raise TypeError(f"{who} needs problem to be a Problem; received {describe_argument(problem)}.")
    if problem.domain is None:
        raise ValueError(f"Problem {problem.name!r} has no domain to draw; set one with problem.replace(domain=…).")
    points = check_arrays(who, "paths", paths)
    if not points:
        raise ValueError("A figure of trajectories needs at least one path; received none.")
    for name, path in points.items():
        if path.ndim != 2 or path.shape[1] != 2 or not len(path):
            raise ValueError(f"The path {name!r} needs the shape (points, 2); received {path.shape}.")
        if not np.isfinite(path[0]).all():
            raise ValueError(f"The path {name!r} needs a finite start; received {path[0].tolist()}.")
    return points


def draw_contours(axes: Axes, problem: Problem) -> None:
    """Draw contours spaced evenly in the logarithm of the height above the lowest known minimum."""
    (left, bottom), (right, top) = problem.domain or ((-1.0, -1.0), (1.0, 1.0))
    x, y = np.meshgrid(np.linspace(left, right, 161), np.linspace(bottom, top, 161))
    height = np.asarray(problem.loss(jnp.asarray(np.stack([x, y])), None), dtype=float)
    lowest = min((point.value for point in problem.minima), default=float(np.nanmin(height)))
    above = np.maximum(height - lowest, 0.0)
    positive = above[np.isfinite(above) & (above > 0)]
    if not positive.size:
        raise ValueError(f"Problem {problem.name!r} has no contours: its loss is nowhere above its lowest value.")
    levels = np.geomspace(max(np.quantile(positive, 0.003), 1e-6 * positive.max()), positive.max(), 14)
    shades = matplotlib.colormaps["Greys"](np.linspace(0.55, 0.22, len(levels)))
    axes.contour(x, y, above, levels=levels, colors=[tuple(shade) for shade in shades], linewidths=0.7)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.grid(False)


def crop(axes: Axes, problem: Problem, points: Mapping[str, Float[np.ndarray, "_ 2"]]) -> None:
    """Restrict the axes to the part of the domain with paths and minima, with a margin of a tenth on each side."""
    low, high = (np.asarray(corner, dtype=float) for corner in problem.domain or ((-1.0, -1.0), (1.0, 1.0)))
    seen = np.concatenate([*points.values(), *(np.asarray([minimum.params], float) for minimum in problem.minima)])
    seen = np.clip(seen[np.isfinite(seen).all(axis=1)], low, high)
    least, most = seen.min(axis=0), seen.max(axis=0)
    margin = np.maximum(0.1 * (most - least), 0.03 * (high - low))
    (left, bottom), (right, top) = np.maximum(least - margin, low), np.minimum(most + margin, high)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def draw_path(
    axes: Axes, path: Float[np.ndarray, "points 2"], look: Appearance, name: str, *, width: float = 1.3
) -> Line2D:
    """Draw one path.

    Args:
        axes: The axes to draw in.
        path: Shape (points, 2).
        look: Appearance of the line.
        name: Label in the legend.
        width: Width of the line, in points.

    Returns:
        Its line.
    """
    (line,) = axes.plot(*path.T, **look.line(linestyle="-", linewidth=width, markersize=3.2), label=name)
    return line


def draw_landmarks(axes: Axes, problem: Problem, start: Float[np.ndarray, "2"]) -> None:
    """Mark the start and the known minima."""
    for minimum in problem.minima:
        axes.plot(*np.asarray(minimum.params, dtype=float), **_MINIMUM, zorder=5)
    axes.plot(*start, **_START, zorder=6)


def end_value(problem: Problem, path: Float[np.ndarray, "points 2"]) -> float:
    """Return the loss at the last finite point."""
    finite = path[np.isfinite(path).all(axis=1)]
    return float(problem.loss(jnp.asarray(finite[-1]), None)) if len(finite) else float("nan")


def _label_outside(grid: Shaped[np.ndarray, "rows columns"], count: int) -> None:
    columns = grid.shape[1]
    for number, axes in enumerate(grid.flat):
        if number + columns >= count:  # nothing below it
            axes.set_xlabel("x")
            axes.tick_params(labelbottom=True)
            axes.xaxis.set_in_layout(number + columns >= grid.size)  # so it takes no space from a free plane
        if number % columns == 0:
            axes.set_ylabel("y")
        axes.xaxis.set_major_locator(MaxNLocator(5, prune="both"))  # no label reaches into the next plane
