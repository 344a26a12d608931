"""Parts of the pictures that `plot` draws: the registry, and estimates with their intervals in rows."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from matplotlib.axes import Axes

from jaxopt_study._checks import describe_argument
from jaxopt_study.figures._bars import draw_interval, reach
from jaxopt_study.figures._style import COLOURS

FIRST, SECOND, GREY = COLOURS[0], COLOURS[1], COLOURS[7]
WIDE = 20  # largest over smallest positive number from which an axis is logarithmic


@singledispatch
def drawn(result: Any, ax: Axes) -> None:
    """Draw a result in axes; the functions registered with it draw one kind each."""
    raise TypeError(describe_argument(result))


def numbers(result: Any, name: str, ndim: int) -> np.ndarray:
    """Return a field of a result as an array; raise ValueError for a traced one, or another number of axes."""
    value = getattr(result, name)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)) or np.ndim(value) != ndim:
        raise ValueError(
            f"plot draws one {type(result).__name__}; its {name} is {describe_argument(value)}. Draw the results of "
            "jit after it has returned, and those of vmap one by one: jax.tree.map(lambda x: x[i], results)."
        )
    return np.asarray(value, complex if np.iscomplexobj(value) else float)


def draw_rows(
    ax: Axes,
    rows: Sequence[tuple[Any, ...]],
    *,
    xlabel: str,
    mark: float | None = None,
    mark_label: str = "",
    colour: Callable[[int], str] = lambda place: FIRST,
) -> None:
    """Draw estimates with their intervals, one in each row.

    Args:
        ax: The axes.
        rows: Name, estimate, lower and upper end, from the top.
        xlabel: The quantity, and what the bars are.
        mark: Position of a vertical line.
        mark_label: Its name.
        colour: Colour of each row.
    """
    limits = reach(np.array([row[1:] for row in rows]), *([] if mark is None else [mark]))
    ax.set_xlim(limits)
    if mark is not None:
        ax.axvline(mark, color="black", linewidth=1.0, zorder=1, label=mark_label or None)
    for place, (_, *row) in enumerate(rows):
        draw_interval(ax, place, row, limits, color=colour(place), markersize=6)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, pad=8)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)
    if mark_label:
        ax.legend(loc="best")


def scale_of_numbers(values: Any) -> str:
    """Return "log" for positive numbers that differ much, otherwise "linear"."""
    seen = np.ravel(values)[np.isfinite(np.ravel(values))]
    return "log" if seen.size and seen.min() > 0 and seen.max() > WIDE * seen.min() else "linear"
