"""Spectral density by stochastic Lanczos quadrature, with standard errors, a confidence band and outliers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike, Shaped

from jaxopt_study._checks import (
    check_bool,
    check_callable,
    check_integer,
    check_key,
    check_real,
    describe_argument,
    is_finite,
)
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import noise_floor as expected_noise
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.curvature.spectrum._estimate import (
    TWO_PROBES,
    Estimate,
    band_of_shares,
    mean_and_error,
    mean_of_function,
)
from jaxopt_study.curvature.spectrum._outliers import Outliers, find_outliers
from jaxopt_study.linalg.checks import check_tolerance
from jaxopt_study.linalg.gauss_quadrature import Quadrature, check_divisor, lanczos_quadrature
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key

_GRID = 512
_TOL = 1e-3  # tolerance of an outlier's residual


class SpectralDensity(NamedTuple):
    """Distribution of the n eigenvalues of an operator, each with weight 1/n.

    Attributes:
        grid: Points λ.
        density: Density of the bulk, smoothed by a normal kernel; its integral is 1 minus the weight of the outliers.
        density_error: Standard errors of the density over the probes, at least the rounding errors.
        kernel_width: Standard deviation of the kernel, in units of λ: the resolution of the density.
        cdf: Share of all eigenvalues ≤ λ, outliers included, not smoothed.
        cdf_error: Standard errors of the shares over the probes.
        cdf_lower: Lower end of a band that contains the true share, at each λ with the stated confidence. Eigenvalues
            within the noise floor of λ may be on either side.
        cdf_upper: Upper end of the band.
        outliers: Resolved eigenvalues apart from the bulk.
        quadrature: Nodes and weights of every probe, from which the other results are computed.
        keys: The p keys of the probes, with which a check can use the same vectors.
        size: n.
        finite: Whether all products were finite; if not, all numbers are NaN.
    """

    grid: Float[Array, " g"]
    density: Float[Array, " g"]
    density_error: Float[Array, " g"]
    kernel_width: Float[Array, ""]
    cdf: Float[Array, " g"]
    cdf_error: Float[Array, " g"]
    cdf_lower: Float[Array, " g"]
    cdf_upper: Float[Array, " g"]
    outliers: Outliers
    quadrature: Quadrature
    keys: Shaped[Array, "p ..."]
    size: Int[Array, ""]
    finite: Bool[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.density)
    plot = plotted

    @property
    def num_matvecs(self) -> Int[Array, ""]:
        """Number of products."""
        return self.quadrature.num_matvecs

    def expectation(self, function: Callable[[Array], Array]) -> Estimate:
        """Estimate the mean of a function of the eigenvalues, tr f(H)/n.

        Args:
            function: f, elementwise, defined on all nodes. Polynomials of degree ≤ 2m − 1 are exact for each probe.

        Returns:
            Mean and standard error. Cost: no product.

        Raises:
            TypeError: If `function` is not callable.
        """
        check_callable("expectation", "function", function, expected="a function of an array")
        weights = self.quadrature.weights
        values = jnp.where(weights == 0, 0, function(self.quadrature.nodes))
        value, error = mean_of_function(weights, values, self.size)
        return Estimate(value, error, self.num_matvecs)


@nan_is_an_answer
def spectral_density(
    op: Operator,
    *,
    num_probes: int = 10,
    num_steps: int = 100,
    key: Key,
    grid: ArrayLike | None = None,
    kernel_width: Any = None,
    confidence: float = 0.95,
    tol: float | None = None,
    noise_floor: float | None = None,
    min_gap: float = 0.25,
    max_outliers: int = 32,
    reorthogonalize: bool = True,
    probes_at_once: int | None = None,
) -> SpectralDensity:
    """Estimate the distribution of all eigenvalues by stochastic Lanczos quadrature.

    For v uniform on the unit sphere, E vᵀ f(H) v = tr f(H)/n, and m steps of Lanczos from v give nodes θ and weights w
    with vᵀ f(H) v ≈ Σᵢ wᵢ f(θᵢ). With the normal density φ of standard deviation σ, the mean over the probes of

        ρ(λ) = Σᵢ wᵢ φ((λ − θᵢ)/σ)/σ,  F(λ) = Σ_{θᵢ ≤ λ} wᵢ

    estimates density and cumulative share. The band of F contains two errors. For one probe the share below λ lies
    between the sums without the last node ≤ λ and with the first node > λ (Chebyshev, Markov, Stieltjes), the
    resolution of m steps. The sampling error is added for each λ separately: the share of k of n eigenvalues in one
    probe has the distribution Beta(k/2, (n − k)/2) for any eigenvalues, so its variance 2F(1 − F)/(n + 2) is known, and
    the band contains all F that are compatible with the mean of p such shares (Wilson).

    Nodes at either end that every probe finds with a small residual and the weight of one eigenvalue, beyond a wide
    gap, are listed as outliers and excluded from `density`. The Krylov vectors are kept orthogonal, so that no
    eigenvalue is listed twice. An atom, such as the zeros of a rank-deficient Hessian, appears as a peak of the
    kernel's width.

    Args:
        op: H, symmetric.
        num_probes: p ≥ 2 random vectors. Standard errors decrease as 1/√p.
        num_steps: m ≥ 1, products for each vector, at most n. The resolution of a bulk is about its width · π/2m.
        key: Key of the random vectors.
        grid: Points (g,) for density and shares; None takes 512 over the bulk and five kernel widths on either side.
            Use a finer one around a narrow peak.
        kernel_width: σ > 0; None takes 1/m of the width of the bulk, or 1e-3 max|θ| for a bulk of one point.
        confidence: Confidence of the band at each grid point, in (0, 1).
        tol: Tolerance of an outlier's residual, relative to max|θ|; None takes 1e-3, or the noise floor if larger.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; None takes 16 ε, see `noise_floor`.
        min_gap: Smallest gap between outliers and bulk, relative to the width of the spectrum on its inner side.
        max_outliers: Largest number of outliers at either end; at most n/10.
        reorthogonalize: False takes the memory of four vectors instead of m + 4 for each concurrent probe; eigenvalues
            then occur several times among the nodes, and no outliers are reported.
        probes_at_once: Number of probes that run at once, a divisor of p. None takes one on a CPU, where more are not
            faster, and on accelerators as many as fit into 4 GiB.

    Returns:
        Density, shares and outliers; inside a trace the arrays of outliers are padded with NaN. Cost: p·m products
        after one linearisation, each with one Gram–Schmidt pass that reads m/2 vectors twice on average. Memory: m + 4
        vectors for each concurrent probe.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is too small, a fraction out of range, `tol` below the noise floor, the kernel width not
            positive, or the grid empty or not finite.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.concatenate([jnp.array([-3.0, 5.0, 9.0]), jnp.linspace(0.0, 1.0, 997)])
        >>> op = from_matvec(lambda v: spectrum * v, spectrum)
        >>> result = spectral_density(op, num_steps=30, key=jax.random.key(0), grid=jnp.array([0.25, 0.5]))
        >>> print([round(float(value), 3) for value in result.outliers.values])
        [9.0, 5.0, -3.0]
        >>> truth = jnp.mean(spectrum[:, None] <= result.grid[None, :], axis=0)
        >>> print(bool(jnp.all((result.cdf_lower <= truth) & (truth <= result.cdf_upper))))
        True

    References:
        Golub and Meurant (2010), Matrices, Moments and Quadrature, chapters 6 and 7. Ubaru, Chen and Saad (2017), Fast
        estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix Anal. Appl. 38. Simon (1984), The
        Lanczos algorithm with partial reorthogonalization, Math. Comp. 42: orthogonality to √ε suffices. Chen, Trogdon
        and Ubaru (2021), Analysis of stochastic Lanczos quadrature, ICML. Ghorbani, Krishnan and Xiao (2019), ICML, for
        10 probes of 90 steps, with a kernel, on networks. Wilson (1927), J. Am. Stat. Assoc. 22.
    """
    name = "spectral_density"
    check_operator(name, op)
    key = check_key(name, key)
    num_probes = check_integer(name, "num_probes", num_probes, 2, remedy=TWO_PROBES)
    num_steps = check_integer(name, "num_steps", num_steps, 1)
    max_outliers = check_integer(name, "max_outliers", max_outliers, 0)
    reorthogonalize = check_bool(name, "reorthogonalize", reorthogonalize)
    confidence = _static(name, "confidence", confidence, 1.0)
    floor = expected_noise(op) if noise_floor is None else _static(name, "noise_floor", noise_floor, 1.0, closed="[)")
    tol = max(_TOL, floor) if tol is None else tol
    check_tolerance(name, tol, floor)
    tol = _static(name, "tol", tol, 1.0)
    min_gap = _static(name, "min_gap", min_gap, math.inf, remedy="Outliers are defined by a gap.")
    probes_at_once = check_divisor(name, probes_at_once, num_probes)
    if kernel_width is not None:
        kernel_width = check_real(name, "kernel_width", kernel_width, 0.0, closed="()")
    if grid is not None:
        grid = _as_grid(name, grid)
    keys = jax.random.split(key, num_probes)
    quadrature = lanczos_quadrature(
        op, keys, num_steps=num_steps, reorthogonalize=reorthogonalize, probes_at_once=probes_at_once
    )
    limits = (tol, min_gap, max_outliers if reorthogonalize else 0, floor)
    result = _summary(quadrature, keys, grid, kernel_width, op.size, confidence, limits)
    if isinstance(result.grid, Tracer):
        return result
    count = int(result.outliers.count)
    # Not `column[:count]`: on a mesh with explicit axes JAX raises for an empty slice.
    trimmed = jax.tree.map(
        lambda column: lax.slice_in_dim(column, 0, count) if column.ndim else column, result.outliers
    )
    return result._replace(outliers=trimmed)


def _static(name: str, argument: str, value: Any, high: float, *, closed: str = "()", remedy: str = "") -> float:
    """Return a real number between 0 and `high`; raise for a traced one."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} needs {argument} to be a number known before compiling; received a traced value.")
    return float(check_real(name, argument, value, 0.0, high, closed=closed, remedy=remedy))


def _as_grid(name: str, grid: Any) -> Shaped[Array, " g"]:
    try:
        points = jnp.asarray(grid)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} needs grid to be an array of numbers; received {describe_argument(grid)}.") from error
    if points.ndim != 1 or points.shape[0] == 0:
        raise ValueError(f"{name} needs a grid of shape (g,), g ≥ 1; received shape {points.shape}.")
    if not (jnp.issubdtype(points.dtype, jnp.floating) or jnp.issubdtype(points.dtype, jnp.integer)):
        raise TypeError(f"{name} needs grid to be real numbers; received {describe_argument(points)}.")
    if not is_finite(points):
        raise ValueError(f"{name} needs a grid of finite numbers; received NaN or infinity.")
    return points


@partial(jax.jit, static_argnums=(4, 5, 6))
def _summary(
    quadrature: Quadrature,
    keys: Key,
    grid: Shaped[Array, " g"] | None,
    kernel_width: ScalarLike | None,
    size: int,
    confidence: float,
    limits: tuple[float, float, int, float],
) -> SpectralDensity:
    nodes, weights = quadrature.nodes, quadrature.weights
    p, m = nodes.shape
    tol, min_gap, max_outliers, floor = limits
    outliers, apart = find_outliers(quadrature, size, tol=tol, min_gap=min_gap, max_outliers=max_outliers)
    bulk = ~apart & (jnp.arange(m, dtype=jnp.int32)[None, :] < quadrature.num_nodes[:, None])
    low = jnp.min(jnp.where(bulk, nodes, jnp.inf))
    high = jnp.max(jnp.where(bulk, nodes, -jnp.inf))
    if kernel_width is None:
        scale = jnp.max(jnp.abs(nodes))
        kernel_width = jnp.where(high - low > 1e-3 * scale, (high - low) / m, 1e-3 * jnp.where(scale == 0, 1, scale))
    width = jnp.asarray(kernel_width, nodes.dtype)
    if grid is None:
        grid = jnp.linspace(low - 5 * width, high + 5 * width, _GRID)
    grid = grid.astype(nodes.dtype)
    noise = floor * jnp.max(jnp.abs(nodes))  # of every node

    def of_probe(
        nodes: Float[Array, " m"], weights: Float[Array, " m"], bulk: Bool[Array, " m"], exhausted: Bool[Array, ""]
    ) -> tuple[Float[Array, " g"], Float[Array, " g"], Float[Array, " g"], Float[Array, " g"], Float[Array, " g"]]:
        apart = (grid[:, None] - nodes[None, :]) / width
        kernel = jnp.exp(-0.5 * apart**2) / (width * jnp.sqrt(2 * jnp.pi))
        least, below, most = (jnp.searchsorted(nodes, grid + shift, side="right") for shift in (-noise, 0, noise))
        sums = jnp.concatenate([jnp.zeros(1, weights.dtype), jnp.cumsum(weights)])
        share = sums[below]
        lower = sums[jnp.where(exhausted, least, jnp.maximum(least - 1, 0))]
        upper = sums[jnp.where(exhausted, most, jnp.minimum(most + 1, m))]
        rounding = (jnp.abs(apart) * kernel * (noise / width)) @ weights
        return kernel @ jnp.where(bulk, weights, 0), share, lower, upper, rounding

    exhausted = (quadrature.num_nodes < m) | (m == size)
    density, share, lower, upper, rounding = jax.vmap(of_probe)(nodes, weights, bulk, exhausted)
    (density, density_error), (cdf, cdf_error) = mean_and_error(density), mean_and_error(share)
    density_error = jnp.maximum(density_error, jnp.mean(rounding, axis=0))
    lower, _ = band_of_shares(jnp.mean(lower, axis=0), p, size, confidence)
    _, upper = band_of_shares(jnp.mean(upper, axis=0), p, size, confidence)
    finite = jnp.all(jnp.isfinite(nodes))
    nan = jnp.where(finite, 0.0, jnp.nan).astype(nodes.dtype)
    return SpectralDensity(
        grid + nan, density + nan, density_error + nan, width + nan, cdf + nan, cdf_error + nan,
        lower + nan, upper + nan, outliers, quadrature, keys, jnp.asarray(size, dtype=jnp.int32), finite,
    )  # fmt: skip
