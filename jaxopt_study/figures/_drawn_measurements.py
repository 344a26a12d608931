"""Pictures of measurements and runs in one axes, for `plot`."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxopt_study._display import around
from jaxopt_study.curvature import (
    Blocks,
    Classification,
    CriticalPointSearch,
    Eigenpairs,
    IllConditioning,
    Path,
    Plane,
    PrincipalAxes,
    SpectralDensity,
    Split,
)
from jaxopt_study.dynamics import (
    Accounting,
    BatchSharpness,
    DirectionalSharpness,
    LearningRateRange,
    PreconditionedDensity,
    PreconditionedSharpness,
    Stability,
)
from jaxopt_study.figures._drawn import FIRST, GREY, SECOND, draw_rows, drawn, numbers, scale_of_numbers
from jaxopt_study.figures._landscape import draw_level_lines, draw_line
from jaxopt_study.figures._quadratic_model import draw_parabola
from jaxopt_study.figures._spectrum import draw_spectral_density
from jaxopt_study.figures._style import COLOURS
from jaxopt_study.training import Trajectory

EDGE = COLOURS[3]
MOST_RUNS = 50  # lines of a trajectory of many runs


@drawn.register
def _(result: Eigenpairs, ax: Axes) -> None:
    values, residuals = numbers(result, "values", 1), numbers(result, "residuals", 1)
    order = np.argsort(-values)
    rows = [(f"λ$_{{{rank}}}$", *around(values[i], residuals[i])) for rank, i in enumerate(order, 1)]
    draw_rows(ax, rows, xlabel="eigenvalue ± residual", mark=0.0)
    ax.set_title("eigenvalues", loc="left")


@drawn.register
def _(result: SpectralDensity, ax: Axes, *, edge: float | None = None) -> None:
    numbers(result, "grid", 1)
    draw_spectral_density(ax, result, edge=edge)
    ax.set_title("spectral density", loc="left")


@drawn.register
def _(result: PreconditionedDensity, ax: Axes) -> None:
    numbers(result.density, "grid", 1)
    draw_spectral_density(ax, result.density, edge=float(result.threshold), edge_label="stability threshold")
    ax.set_xlabel("eigenvalue of $P^{-1/2} H P^{-1/2}$")
    ax.set_title("spectral density in the optimizer's metric", loc="left")


@drawn.register
def _(result: Blocks, ax: Axes) -> None:
    tops, residuals = numbers(result, "eigenvalues", 2)[:, 0], numbers(result, "residuals", 2)[:, 0]
    order = np.argsort(-np.nan_to_num(tops, nan=-np.inf))
    rows = [(result.names[i], *around(tops[i], residuals[i])) for i in order]
    draw_rows(ax, rows, xlabel="largest eigenvalue of each block ± residual", mark=0.0)


@drawn.register
def _(result: Split, ax: Axes) -> None:
    parts = {"H": result.hessian, "Gauss–Newton": result.ggn, "rest": result.rest}
    rows = []
    for name, part in parts.items():
        for side, sign in (("positive", 1), ("negative", -1)):
            found = getattr(part, side)
            value, error = float(numbers(found, "value", 0)), float(numbers(found, "standard_error", 0))
            rows.append((f"{name}, {side}", *around(sign * value, 2 * error)))
    draw_rows(
        ax, rows, xlabel="sum of the eigenvalues of each sign ± 2 standard errors", mark=0.0,
        colour=lambda place: (FIRST, SECOND)[place % 2],
    )  # fmt: skip


@drawn.register
def _(result: IllConditioning, ax: Axes, *, rate: float | None = None) -> None:
    terms = {name: float(numbers(result, name, 0)) for name in ("gg", "ghg", "ghg_error")}
    draw_parabola(ax, terms, rate=rate)


@drawn.register
def _(result: Classification, ax: Axes) -> None:
    residuals = numbers(result, "residuals", 1)
    rows = [(name, *around(numbers(result, name, 0), residuals[i])) for i, name in enumerate(("smallest", "largest"))]
    draw_rows(ax, rows, xlabel="eigenvalue ± residual", mark=0.0)
    ax.set_title(result.verdict, loc="left")


@drawn.register
def _(result: CriticalPointSearch, ax: Axes) -> None:
    norms = numbers(result, "gradient_norms", 1)
    seen = np.flatnonzero(np.isfinite(norms))
    ax.plot(seen, norms[seen], "o-", color=FIRST, markersize=4, label="‖g‖")
    tolerance = float(numbers(result, "gradient_tol", 0))
    ax.axhline(tolerance, color="black", linewidth=1.0, label="tolerance of a critical point")
    ax.set(xlabel="step", ylabel="norm of the gradient")
    ax.set_yscale(scale_of_numbers([*norms[seen], tolerance]))
    ax.set_title(result.verdict, loc="left")
    ax.legend()


@drawn.register
def _(result: Path, ax: Axes) -> None:
    losses = numbers(result, "losses", 1)
    if not np.isfinite(losses).any():
        raise ValueError("plot needs a path with a loss that is finite somewhere; received none.")
    draw_line(ax, result, losses)


@drawn.register
def _(result: Plane, ax: Axes) -> None:
    losses = numbers(result, "losses", 2)
    if min(losses.shape) < 2 or not np.isfinite(losses).any():
        raise ValueError(f"plot needs a plane of at least 2 × 2 points with a finite loss; received {losses.shape}.")
    draw_level_lines(ax, result, losses)


@drawn.register
def _(result: PrincipalAxes, ax: Axes) -> None:
    places, explained = numbers(result, "coordinates", 2), numbers(result, "explained", 1)
    if places.shape[1] < 2:
        ax.plot(places[:, 0], "o-", color=FIRST, markersize=4)
        ax.set(xlabel="snapshot", ylabel=f"axis 1 ({explained[0]:.0%} of the squared distances)")
        return
    ax.plot(*places[:, :2].T, "o-", color=FIRST, markersize=3)
    ax.plot(*places[0, :2], "s", color=SECOND, markersize=7, label="first")
    ax.plot(*places[-1, :2], "o", color="black", markersize=7, label="last")
    ax.set(xlabel=f"axis 1 ({explained[0]:.0%} of the squared distances)", ylabel=f"axis 2 ({explained[1]:.0%})")
    ax.legend()


@drawn.register
def _(result: Accounting, ax: Axes) -> None:
    names = {"linear": "gᵀu", "quadratic": "½uᵀHu", "predicted": "predicted", "realised": "realised"}
    rows = [
        (text, *around(numbers(result, name, 0), numbers(result, f"{name}_error", 0))) for name, text in names.items()
    ]
    draw_rows(ax, rows, xlabel="change of the loss ± rounding", mark=0.0)


@drawn.register
def _(result: BatchSharpness, ax: Axes) -> None:
    full = float(numbers(result, "full_batch", 0))
    rows = [
        ("ratio of means", *around(numbers(result, "value", 0), 2 * numbers(result, "error", 0))),
        (
            "mean of ratios",
            *around(numbers(result, "mean_quotient", 0), 2 * numbers(result, "mean_quotient_error", 0)),
        ),
        ("full batch", full, full, full),
    ]
    draw_rows(ax, rows, xlabel="curvature along the gradient ± 2 standard errors")


@drawn.register
def _(result: DirectionalSharpness, ax: Axes) -> None:
    table = numbers(result, "interactions", 2)
    reach_of = np.abs(table[np.isfinite(table)]).max(initial=0.0) or 1.0
    image = ax.imshow(table, cmap="PuOr", vmin=-reach_of, vmax=reach_of)
    ax.set_xticks(range(len(table)), result.names, rotation=45, ha="right")
    ax.set_yticks(range(len(table)), result.names)
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="$u_l^T H_{lk} u_k$ / ‖u‖²")
    ax.set_title(f"uᵀHu/‖u‖² = {float(result.value):.4g}, the sum of all", loc="left")


@drawn.register
def _(result: LearningRateRange, ax: Axes) -> None:
    rates, losses = numbers(result, "rates", 1), numbers(result, "losses", 1)
    start = float(numbers(result, "initial_loss", 0))
    if len(rates):
        ax.set_xscale(scale_of_numbers(rates))
        seen = np.isfinite(losses) & (losses < 1e3 * max(abs(start), 1e-30))
        ax.plot(rates[seen], losses[seen], "o-", color=FIRST, markersize=4, label="loss after a short run")
        high = max([start, *losses[seen]])
        lost = rates[~seen]
        if len(lost):
            ax.plot(lost, np.full(len(lost), high), "x", color=SECOND, markersize=8, label="diverged")
        ax.axhline(start, color=GREY, linewidth=1.0, label="loss at the start")
        ax.set_yscale(scale_of_numbers([start, *losses[seen]]))
    ends = [end for end in (result.lower, result.upper) if 0 < end < np.inf]
    if len(ends) == 2:
        ax.axvspan(*ends, color=EDGE, alpha=0.5, linewidth=1.5, label="edge of stability")
    elif ends:
        ax.axvline(ends[0], color=EDGE, linewidth=1.5, label="stable up to here, at least")
    ax.set(xlabel="learning rate", ylabel="loss")
    ax.set_title(result.kind, loc="left")
    ax.legend()


@drawn.register
def _(result: PreconditionedSharpness, ax: Axes) -> None:
    low, high = result.ratio
    draw_rows(
        ax, [("λmax / threshold", (low + high) / 2, low, high)], mark=1.0, mark_label="1: edge of stability",
        xlabel=f"preconditioned sharpness / threshold ({float(result.bracket.confidence):.0%} bracket)",
    )  # fmt: skip


@drawn.register
def _(result: Stability, ax: Axes) -> None:
    values, errors = numbers(result, "eigenvalues", 1).astype(complex), numbers(result, "errors", 1)
    turn = 2 * np.pi * np.linspace(0, 1, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="black", linewidth=1.0, label="unit circle: stable inside")
    beyond = np.abs(values) > 1
    for of, colour, label in ((~beyond, FIRST, "|μ| ≤ 1"), (beyond, SECOND, "|μ| > 1")):
        if of.any():
            ax.errorbar(
                np.real(values[of]), np.imag(values[of]), errors[of], errors[of],
                fmt="o", color=colour, markersize=5, elinewidth=1.2, label=label,
            )  # fmt: skip
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="Re μ", ylabel="Im μ")
    ax.set_title(f"{result.kind}: radius {result.radius:.5g} ± {result.error:.1g}", loc="left")
    ax.legend(loc="upper left", fontsize=8, handlelength=1.2)


@drawn.register
def _(result: Trajectory, ax: Axes, *, quantity: str | None = None) -> None:
    if quantity is not None and quantity not in result.evaluations:
        raise ValueError(f"plot needs quantity to be one of {list(result.evaluations)}; received {quantity!r}.")
    runs = np.asarray(result.losses if quantity is None else result.evaluations[quantity], float)
    steps = np.arange(runs.shape[-1]) if quantity is None else np.asarray(result.evaluations["step"])
    runs, steps = runs.reshape(-1, runs.shape[-1]), steps.reshape(-1, runs.shape[-1])[0]
    look: dict[str, Any] = {"linewidth": 1.2} if len(runs) == 1 else {"linewidth": 0.8, "alpha": 0.4}
    for lane in runs[:MOST_RUNS]:
        ax.plot(steps, lane, color=FIRST, **look)
    ax.set(xlabel="step", ylabel="training loss" if quantity is None else quantity.replace("_", " "))
    ax.set_yscale(scale_of_numbers(runs))
    if len(runs) > 1:
        ax.set_title(f"{min(len(runs), MOST_RUNS)} of {len(runs)} runs", loc="left")
