"""Outliers of a spectrum: resolved eigenvalues apart from the bulk."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study._display import displayed, tabulated
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.linalg.gauss_quadrature import Quadrature

_RARE = 10  # at most one eigenvalue in this number is an outlier


class Outliers(NamedTuple):
    """Eigenvalues apart from the bulk; unused entries of the arrays are NaN.

    Attributes:
        values: θ, descending.
        residuals: ‖H y − θ y‖ plus the spread over the probes: an eigenvalue lies within this distance of θ.
        weights: 1/n, the weight of one eigenvalue in the spectrum.
        measured_weights: Weights measured by the probes; 2/n indicates multiplicity two.
        measured_errors: Standard errors of the measured weights.
        count: Number of outliers.
    """

    values: Float[Array, " k"]
    residuals: Float[Array, " k"]
    weights: Float[Array, " k"]
    measured_weights: Float[Array, " k"]
    measured_errors: Float[Array, " k"]
    count: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.outliers)
    to_pandas = tabulated(_cards.columns_of_outliers)


def find_outliers(
    quadrature: Quadrature, size: int, *, tol: float, min_gap: float, max_outliers: int
) -> tuple[Outliers, Bool[Array, "p m"]]:
    """Separate resolved eigenvalues outside of the bulk from nodes that represent many eigenvalues.

    From either end of the spectrum inwards, the i-th nodes of all probes belong to one eigenvalue if each residual is
    ≤ tol · max|θ|, the nodes agree as closely, and their mean weight is that of a simple eigenvalue, 1/n, within three
    standard errors. The run ends at the first node that fails. Its members outside of its last wide gap are the
    outliers; a gap is wide if it measures at least `min_gap` times the width of the spectrum on its inner side, without
    a tenth of the weight at the other end, which may be outliers, too. A Krylov space of one vector contains a multiple
    eigenvalue once.

    Args:
        quadrature: p probes of m nodes, made with reorthogonalisation.
        size: n.
        tol: Relative residual.
        min_gap: Width of the gap, relative to what lies inside it.
        max_outliers: Largest number at either end; at most n/10.

    Returns:
        The outliers, at most twice that number, and the mask of their nodes.
    """
    p, m = quadrature.nodes.shape
    capacity = min(max_outliers, m, size // _RARE)
    rank = jnp.arange(m, dtype=jnp.int32)[None, :]
    if capacity == 0:
        empty = jnp.zeros(0, quadrature.nodes.dtype)
        return Outliers(empty, empty, empty, empty, empty, jnp.int32(0)), jnp.zeros((p, m), dtype=bool)
    last = quadrature.num_nodes[:, None] - 1
    limits = tol, min_gap, 1 + 3 * math.sqrt(2 / p)
    inwards = jnp.arange(capacity + 1, dtype=jnp.int32)[None, :]
    upper, num_upper = _one_end(quadrature, 1.0, last - inwards, limits, size)
    lower, num_lower = _one_end(quadrature, -1.0, inwards + 0 * last, limits, size)
    theirs = (rank > last - num_upper) & (rank <= last) | (rank < num_lower)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), upper, lower)
    order = jnp.argsort(-both[0])  # NaN comes last
    values, residuals, measured, errors = (column[order] for column in both)
    weights = jnp.where(jnp.isnan(values), jnp.nan, 1 / size).astype(values.dtype)
    return Outliers(values, residuals, weights, measured, errors, num_upper + num_lower), theirs


def _one_end(
    quadrature: Quadrature, sign: float, index: Int[Array, "p _"], limits: tuple[float, float, float], size: int
) -> tuple[tuple[Float[Array, " k"], Float[Array, " k"], Float[Array, " k"], Float[Array, " k"]], Int[Array, ""]]:
    """Return values, residuals, weights and their errors of the outliers at one end, and their number."""
    tol, min_gap, most = limits
    exists = (index >= 0) & (index < quadrature.num_nodes[:, None])  # (p, capacity + 1)
    nodes, weights, residuals = (
        jnp.take_along_axis(x, jnp.clip(index, 0, x.shape[1] - 1), axis=1) for x in quadrature[:3]
    )
    scale = jnp.max(jnp.abs(quadrature.nodes))
    converged = jnp.all(exists & (residuals <= tol * scale), axis=0)
    spread = jnp.max(nodes, axis=0) - jnp.min(nodes, axis=0)
    same = spread <= tol * scale  # rounding makes probes differ by more than their residuals
    measured = jnp.mean(weights, axis=0)
    run = jnp.cumprod((converged & same & (size * measured <= most))[:-1]) > 0
    outer = jnp.min(sign * nodes, axis=0)[:-1]
    inner = jnp.max(jnp.where(exists, sign * nodes, -jnp.inf), axis=0)[1:]
    # The width of the bulk, without a tenth of the weight at its other end, where outliers may be.
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
