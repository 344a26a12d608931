"""Eigenvalues that stand apart from the bulk of a spectrum and were resolved one by one."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxopt_study.linalg.gauss_quadrature import Quadrature

_RARE = 10  # one in so many eigenvalues may stand apart; of a handful none does


class Outliers(NamedTuple):
    """Eigenvalues apart from the bulk. Arrays have room for all that were asked for; the rest of it is NaN.

    Attributes:
        values: Descending (k,).
        residuals: ‖H y − θ y‖ plus the disagreement of the probes (k,): an eigenvalue lies within this distance.
        weights: 1/n (k,), what one eigenvalue weighs in the spectrum.
        measured_weights: What the probes say that it weighs (k,); 2/n is an eigenvalue of multiplicity two.
        measured_errors: Standard errors of the measured weights (k,).
        count: How many there are.
    """

    values: Float[Array, " k"]
    residuals: Float[Array, " k"]
    weights: Float[Array, " k"]
    measured_weights: Float[Array, " k"]
    measured_errors: Float[Array, " k"]
    count: Int[Array, ""]


def find_outliers(
    quadrature: Quadrature, size: int, *, tol: float, min_gap: float, max_outliers: int
) -> tuple[Outliers, Array]:
    """Tell resolved eigenvalues outside of the bulk from the nodes that stand for many.

    From either end of the spectrum inwards, the i-th nodes of all probes belong to one eigenvalue if each has a
    residual ≤ tol · max|θ|, they agree as closely, and their mean weight is that of a simple eigenvalue,
    1/n, to three standard errors. Such a run ends at the first node that fails. Of the run, those are outliers that lie
    outside of its last wide gap, one that measures at least `min_gap` times the spectrum on its inner side, of which a
    tenth of the weight at the other end does not count, as it may be outliers too. A
    Krylov space of one vector sees a multiple eigenvalue once.

    Args:
        quadrature: p probes of m nodes, made with reorthogonalisation.
        size: n.
        tol: Relative residual.
        min_gap: Width of the gap, relative to what lies inside it.
        max_outliers: How many at either end, at most; no more than n/10.

    Returns:
        The outliers, at most twice that many, and which nodes (p, m) are theirs.
    """
    p, m = quadrature.nodes.shape
    room = min(max_outliers, m, size // _RARE)
    rank = jnp.arange(m, dtype=jnp.int32)[None, :]
    if room == 0:
        empty = jnp.zeros(0, quadrature.nodes.dtype)
        return Outliers(empty, empty, empty, empty, empty, jnp.int32(0)), jnp.zeros((p, m), dtype=bool)
    last = quadrature.num_nodes[:, None] - 1
    limits = tol, min_gap, 1 + 3 * math.sqrt(2 / p)
    upper, num_upper = _one_end(quadrature, 1.0, last - jnp.arange(room + 1, dtype=jnp.int32)[None, :], limits, size)
    lower, num_lower = _one_end(
        quadrature, -1.0, jnp.arange(room + 1, dtype=jnp.int32)[None, :] + 0 * last, limits, size
    )
    theirs = (rank > last - num_upper) & (rank <= last) | (rank < num_lower)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), upper, lower)
    order = jnp.argsort(-both[0])  # NaN comes last
    values, residuals, measured, errors = (column[order] for column in both)
    weights = jnp.where(jnp.isnan(values), jnp.nan, 1 / size).astype(values.dtype)
    return Outliers(values, residuals, weights, measured, errors, num_upper + num_lower), theirs


def _one_end(
    quadrature: Quadrature, sign: float, index: Array, limits: tuple[float, float, float], size: int
) -> tuple[tuple[Array, Array, Array, Array], Array]:
    """Return values, residuals, weights and their errors of the outliers at one end, and their number."""
    tol, min_gap, most = limits
    exists = (index >= 0) & (index < quadrature.num_nodes[:, None])  # (p, room + 1)
    nodes, weights, residuals = (
        jnp.take_along_axis(x, jnp.clip(index, 0, x.shape[1] - 1), axis=1) for x in quadrature[:3]
    )
    scale = jnp.max(jnp.abs(quadrature.nodes))
    converged = jnp.all(exists & (residuals <= tol * scale), axis=0)
    spread = jnp.max(nodes, axis=0) - jnp.min(nodes, axis=0)
    same = spread <= tol * scale  # rounding of the products makes probes differ by more than their residuals
    measured = jnp.mean(weights, axis=0)
    run = jnp.cumprod((converged & same & (size * measured <= most))[:-1]) > 0
    outer = jnp.min(sign * nodes, axis=0)[:-1]
    inner = jnp.max(jnp.where(exists, sign * nodes, -jnp.inf), axis=0)[1:]
    # The width of the bulk, up to the tenth of the weight at its other end that may be outliers there.
    cumulative = jnp.cumsum(quadrature.weights if sign > 0 else quadrature.weights[:, ::-1], axis=1)
    towards = quadrature.nodes if sign > 0 else -quadrature.nodes[:, ::-1]
    rest = jnp.maximum(inner - jnp.min(jnp.where(cumulative >= 1 / _RARE, towards, jnp.inf)), 0)
    wide = (outer - inner >= min_gap * rest) & (outer - inner > 4 * tol * scale) & jnp.isfinite(inner)
    rank = jnp.arange(run.shape[0], dtype=jnp.int32)
    number = jnp.max(jnp.where(run & wide, rank + 1, 0))
    best = jnp.argmin(residuals, axis=0)[None]
    errors = jnp.std(weights, axis=0, ddof=1) / math.sqrt(weights.shape[0])
    value = jnp.take_along_axis(nodes, best, axis=0)[0]
    residual = jnp.take_along_axis(residuals, best, axis=0)[0] + spread
    columns = (value, residual, measured, errors)
    values, residuals, measured, errors = (jnp.where(rank < number, column[:-1], jnp.nan) for column in columns)
    return (values, residuals, measured, errors), number
