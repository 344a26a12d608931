"""Pictures of the results of sweeps in one axes, for `plot`."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxopt_study._checks import check_choice
from jaxopt_study.figures._ablation import linear_within
from jaxopt_study.figures._comparison import draw_matrix
from jaxopt_study.figures._drawn import FIRST, GREY, SECOND, draw_rows, drawn, scale_of_numbers
from jaxopt_study.figures._style import COLOURS
from jaxopt_study.sweeps import Ablation, Comparison, Differences, Profile, Report, Search


@drawn.register
def _(result: Search, ax: Axes, *, over: str | None = None) -> None:
    numeric = [name for name in result.space if _places(result, name) is not None]
    if over is None:
        over = next(iter(numeric), None)
    if over is None or over not in numeric:
        raise ValueError(f"plot needs over to be a numeric hyperparameter, one of {numeric}; received {over!r}.")
    x, y = _places(result, over), result.scores
    lost = result.diverged.any(axis=1)
    alive = np.isfinite(y)
    tied = result.indistinguishable() & alive
    for of, colour, label in ((alive & ~tied, GREY, "trials"), (tied, FIRST, "cannot be told from the best (95%)")):
        if of.any():
            ax.plot(x[of], y[of], "o", color=colour, markersize=5, alpha=0.8, label=label)
    if alive.any():
        best = result.best.trial
        ax.plot(x[best], y[best], "*", color=SECOND, markersize=13, label="best")
        edge = np.max(y[alive]) if result.mode == "min" else np.min(y[alive])
        if lost.any():
            ax.plot(x[lost], np.full(lost.sum(), edge), "x", color=COLOURS[6], markersize=6, label="diverged")
    ax.set_xscale(scale_of_numbers(x))
    ax.set_yscale(scale_of_numbers(y))
    seeds = result.finished.shape[1]
    mean = f", mean of {seeds} seeds" if seeds > 1 else ""
    ax.set(xlabel=over, ylabel=f"{result.metric.replace('_', ' ')}{mean}")
    ax.legend()


def _places(result: Search, name: str) -> Any:
    """Return the values of a numeric hyperparameter, NaN where a trial has none; None for options."""
    values = [config.get(name) for config in result.configs]
    given = [value for value in values if value is not None]
    numeric = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in given)
    if not given or not numeric:
        return None
    return np.array([np.nan if value is None else float(value) for value in values])


@drawn.register
def _(result: Comparison, ax: Axes, *, problem: str | None = None, settings: Any = "tuned") -> None:
    problem = result.problems[0] if problem is None else problem
    medians, ranks = result.median(problem, settings), result.ranks(problem, settings)
    order = sorted(result.ranking(problem, settings), key=lambda name: ranks[name])
    rows = [
        (f"{ranks[name]}  {name}", *(float(getattr(medians[name], end)) for end in ("estimate", "lower", "upper")))
        for name in order
    ]
    level = next(iter(medians.values())).level
    draw_rows(ax, rows, xlabel=f"{result.metric.replace('_', ' ')}: median with its {level:.0%} interval")
    ax.set_title(f"{problem}, {settings}; rank: 1 + the number shown to be better", loc="left")


@drawn.register
def _(result: Ablation, ax: Axes) -> None:
    parts = result.contributions()
    if not parts:
        raise ValueError("plot needs an ablation with a change; this one has none.")
    colours = {"helps": SECOND, "harms": FIRST, "no detectable difference": GREY}
    losses = [(float(loss), float(low), float(high)) for loss, low, high in (part.loss for part in parts)]
    within = linear_within(losses)
    scale = "" if within is None else f"; axis linear within ±{within:.1g}"
    draw_rows(
        ax, [(textwrap.fill(part.variant.name, 34), *loss) for part, loss in zip(parts, losses, strict=True)], mark=0.0,
        xlabel=f"how much worse {result.comparison.metric.replace('_', ' ')} is with the change\n"
        f"({result.level:.0%} for all together{scale})",
        colour=lambda place: colours[parts[place].verdict],
    )  # fmt: skip
    if within is not None:
        ax.set_xscale("symlog", linthresh=within, linscale=0.8)
        ends = np.array(losses)[np.isfinite(losses)]
        ax.set_xlim(1.5 * min(ends.min(), -within), 1.5 * max(ends.max(), within))


@drawn.register
def _(result: Report, ax: Axes, *, quantity: str | None = None) -> None:
    if quantity is None:
        quantity = next(iter(result.curves))
    check_choice("plot", "quantity", quantity, tuple(result.curves))
    curve = np.asarray(result.curves[quantity], float)
    seen = np.isfinite(curve).all(axis=0)  # no median of survivors
    steps, lanes = result.steps[seen], curve[:, seen]
    ax.fill_between(steps, lanes.min(axis=0), lanes.max(axis=0), color=FIRST, alpha=0.2, linewidth=0)
    ax.plot(steps, np.median(lanes, axis=0), color=FIRST)
    if not seen.all():
        ax.set_title(f"{int(result.diverged.sum())} of {len(curve)} seeds diverged", loc="left")
    ax.set(xlabel=f"step   (line: median, band: range of {len(curve)} seeds)", ylabel=quantity.replace("_", " "))
    ax.set_yscale(scale_of_numbers(lanes))


@drawn.register
def _(result: Differences, ax: Axes) -> None:
    draw_matrix(ax, result.names, result.estimate, result.lower, result.upper, result.better)
    ax.set_xlabel(f"row − column ({result.level:.0%} for all together)")


@drawn.register
def _(result: Profile, ax: Axes) -> None:
    for i, share in enumerate(result.shares):
        ax.step(result.tau, share, where="post", color=COLOURS[i % len(COLOURS)], label=f"solver {i}")
    ax.set(xlabel="cost / least cost", ylabel="share of problems", ylim=(-0.02, 1.02))
    ax.set_xscale(scale_of_numbers(result.tau))
    ax.legend()
