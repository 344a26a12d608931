"""`pairs`: figure of paired results of optimizers at two settings."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from jaxopt_study._checks import check_mapping, describe_argument
from jaxopt_study.figures._checks import check_names, check_row, check_style
from jaxopt_study.figures._style import SETTINGS, appearances, new_figure


def pairs(
    samples: Mapping[str, tuple[Any, Any]],
    *,
    settings: tuple[str, str],
    labels: Mapping[str, tuple[str, str]],
    xlabel: str,
    title: str = "",
    log: bool = False,
) -> Figure:
    """Draw each optimizer's results at two settings in one row, with a dot per seed and an arrow between the means.

    Args:
        samples: By optimizer, the results at the first and the second setting, one number per seed.
        settings: Names of the two settings; the first is drawn with open dots, the second with filled ones.
        labels: By optimizer, labels for the two means, such as learning rates.
        xlabel: The measured quantity, with its unit.
        title: Title of the figure.
        log: Whether the axis is logarithmic; results must be positive.

    Returns:
        A figure with one axes, with the first optimizer at the top.

    Raises:
        ValueError: If there are no optimizers.

    Example:
        >>> figure = pairs({"sgd": ([2.0, 2.2], [1.0])}, settings=("before", "after"), labels={"sgd": (".1", ".3")},
        ...                xlabel="loss")
        >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        ['sgd']
    """
    check_style("pairs", xlabel=xlabel, title=title, log=log)
    if set(check_mapping("pairs", "labels", labels)) != set(check_mapping("pairs", "samples", samples)):
        raise ValueError(f"pairs needs labels for {list(samples)}; received labels for {list(labels)}.")
    check_names("pairs", "settings", settings, count=2)
    for name, both in samples.items():
        check_names("pairs", f"labels[{name!r}]", labels[name], count=2)
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise ValueError(
                f"pairs needs two samples of {name!r}, one for each setting; received {describe_argument(both)}."
            )
    if not samples:
        raise ValueError("pairs needs at least one optimizer; received none.")
    looks = appearances(samples)
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = new_figure(8.0, 1.3 + 0.62 * len(samples))
        axes = figure.add_subplot()
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        for row, (name, both) in enumerate(samples.items()):
            color = looks[name].color
            means = [float(check_row("pairs", name, values).mean()) for values in both]
            arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 6, "shrinkB": 6}
            axes.annotate("", xy=(means[1], row), xytext=(means[0], row), arrowprops=arrow)
            sides = ("right", "left") if means[0] < means[1] else ("left", "right")  # away from the other label
            for values, mean, text, face, side in zip(both, means, labels[name], ("white", color), sides, strict=True):
                axes.plot(values, np.full(len(values), row), ".", color=color, markersize=4, alpha=0.5)
                axes.plot(
                    mean, row, "o", color=face, markeredgecolor=color, markeredgewidth=1.8, markersize=9, zorder=5
                )
                shift = -1 if side == "right" else 1
                axes.annotate(text, (mean, row), (shift, 9), textcoords="offset points", ha=side, fontsize=9)
        axes.set_yticks(range(len(samples)), list(samples))
        axes.set_ylim(len(samples) - 0.5, -0.7)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(xlabel)
        axes.set_title(title, loc="left")
        for setting, face in zip(settings, ("white", "#555555"), strict=True):
            axes.plot(
                [], [], "o", color=face, markeredgecolor="#555555", markeredgewidth=1.8, markersize=9, label=setting
            )
        figure.legend(loc="outside lower center", ncols=2)
    return figure
