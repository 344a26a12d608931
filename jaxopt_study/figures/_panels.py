"""Several quantities along the same runs, in one axes each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from jaxopt_study._checks import check_real, describe_argument
from jaxopt_study.figures._checks import check_arrays, check_axis, check_ends, check_style
from jaxopt_study.figures._curves import SMALL
from jaxopt_study.figures._style import SETTINGS, appearances, new_figure


@dataclass(frozen=True)
class Panel:
    """One quantity along several runs.

    Attributes:
        title: The measured quantity, with its unit.
        curves: By name, shape (seeds, K). A step at which no seed has a finite value counts as not measured and is
            skipped. If only some seeds have a finite value, the curve is interrupted.
        level: Value at which to draw a horizontal line, such as a limit.
        level_label: Label of that line in the legend; an empty one is omitted.
        log: Whether the axis is logarithmic.
        smallest: Lower end of the axis; None fits it.
        largest: Upper end of the axis; None fits it.
    """

    title: str
    curves: Mapping[str, Any]
    level: float | int | None = None
    level_label: str = ""
    log: bool = False
    smallest: float | int | None = None
    largest: float | int | None = None

    def __post_init__(self):
        check_style("Panel", title=self.title, level_label=self.level_label, log=self.log)
        check_ends("Panel", self.smallest, self.largest, log=self.log)
        if self.level is not None:
            check_real("Panel", "level", self.level)
        for name, lanes in check_arrays("Panel", "curves", self.curves).items():
            if lanes.ndim != 2 or not len(lanes):
                raise ValueError(f"The curve {name!r} needs the shape (seeds, K); received {lanes.shape}.")


def panels(
    steps: Any, shown: Sequence[Panel], *, title: str = "", columns: int = 3, xlabel: str = "step", ylabel: str = ""
) -> Figure:
    """Draw quantities side by side over the steps of runs: for each name the median over seeds, with a band.

    The band is the range of up to five seeds, or the quartiles of more, as the axis label says.

    Args:
        steps: Number of steps before each value, or the quantity named by `xlabel`, shape (K,).
        shown: The panels. A name has the same appearance in all of them.
        title: Title of the figure.
        columns: Number of panels in a row.
        xlabel: Quantity on the horizontal axis, if it is not steps.
        ylabel: The quantity of all panels, with its unit, if it is the same.

    Returns:
        A figure with one axes per panel and one legend below.

    Raises:
        ValueError: If there is no panel or no curve, or a curve does not have shape (seeds, K).

    Example:
        >>> figure = panels([0, 1], [Panel("loss", {"a": [[2.0, 1.0]]}), Panel("norm", {"b": [[1.0, 1.0]]})])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['a', 'b']
    """
    check_style("panels", title=title, columns=columns, xlabel=xlabel, ylabel=ylabel)
    steps = check_axis("panels", "steps", steps)
    for panel in shown if isinstance(shown, Sequence) else (shown,):
        if not isinstance(panel, Panel):
            raise TypeError(f"panels needs shown to be a list of Panels; received {describe_argument(panel)} in it.")
    names = list(dict.fromkeys(name for panel in shown for name in panel.curves))
    if not names:
        raise ValueError("panels needs a panel with a curve; received none.")
    looks = appearances(names)
    rows = -(-len(shown) // columns)
    seeds = max(map(len, (values for panel in shown for values in panel.curves.values())))
    share, band = ((0, 0.5, 1), "range") if seeds <= SMALL else ((0.25, 0.5, 0.75), "quartiles")
    with matplotlib.rc_context(dict(SETTINGS)):
        width = (3.6 if columns < 3 else 3.2) * min(columns, len(shown))
        legend = [*names, *dict.fromkeys(panel.level_label for panel in shown if panel.level_label)]
        beside = _columns(legend, width)
        height = (0.5 if seeds == 1 else 0.65) + 2.9 * rows + 0.2 * max(0, -(-len(legend) // beside) - 2)
        figure = new_figure(width, height)
        grid = figure.subplots(rows, min(columns, len(shown)), squeeze=False, sharex=True).ravel()
        for axes, panel in zip(grid, shown, strict=False):
            for number, (name, values) in enumerate(panel.curves.items()):
                lanes = np.asarray(values, dtype=float)
                if lanes.shape[1] != len(steps):
                    raise ValueError(
                        f"The curve {name!r} needs the shape (seeds, {len(steps)}); received {lanes.shape}."
                    )
                seen = np.isfinite(lanes).any(axis=0)
                x, lanes = steps[seen], lanes[:, seen]
                lanes = np.where(np.isfinite(lanes).all(axis=0), lanes, np.nan)  # no median of survivors
                low, middle, high = np.quantile(lanes, share, axis=0)
                axes.fill_between(x, low, high, color=looks[name].color, alpha=0.15, linewidth=0)
                axes.plot(x, middle, label=name, **looks[name].line(markevery=(0.03 * (number % 4), 0.15)))
            if panel.level is not None:
                axes.axhline(panel.level, color="black", linewidth=1.0, zorder=3, label=panel.level_label or None)
            axes.set_yscale("log" if panel.log else "linear")
            axes.set_ylim(*check_ends("Panel", panel.smallest, panel.largest, log=panel.log))
            if panel.log:
                _label_log(axes)
            if len(steps) > 1:
                axes.set_xlim(steps[0], steps[-1])
            axes.set_title(panel.title, loc="left")
        for axes in grid[len(shown) :]:
            axes.remove()
        for axes in grid[: len(shown) : min(columns, len(shown))]:
            axes.set_ylabel(ylabel)
        for axes in grid[max(0, len(shown) - grid.size // rows) : len(shown)]:
            axes.set_xlabel(xlabel if seeds == 1 else f"{xlabel}\n(line: median, band: {band} of {seeds} seeds)")
            axes.tick_params(labelbottom=True)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        handles = {}
        for axes in grid:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(
            [handles[label] for label in legend], legend, loc="outside lower center", handlelength=3.0, ncols=beside
        )
    return figure


def _columns(labels: Sequence[str], width: float) -> int:
    """Return the number of legend columns that fit into a width in inches."""

    def taken(columns: int) -> float:
        return sum(0.75 + 0.09 * max(map(len, column)) for column in np.array_split(labels, columns))

    return next((columns for columns in range(len(labels), 1, -1) if taken(columns) <= width), 1)


def _label_log(axes: Any) -> None:
    """Label 1, 2 and 5 of every decade on an axis with too few powers of ten."""
    low, high = axes.get_ylim()
    if high < 300 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
