"""Diagonal blocks of an operator: eigenvalues, traces and densities of all of them, and how much lies off them."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study._checks import check_bool, check_integer, check_key
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import jit_for_few_calls, nan_is_an_answer
from jaxopt_study.curvature._noise_floor import noise_floor
from jaxopt_study.curvature.operators._block_diagonal import BlockDiagonal, By, blocks_of
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.curvature.spectrum._block_probes import Norms, compiled_probes, probes_from_python
from jaxopt_study.curvature.spectrum._estimate import (
    TWO_PROBES,
    Estimate,
    mean_of_function,
    ratio_and_error,
    rounding_of_sum,
)
from jaxopt_study.curvature.spectrum._jensen_shannon import distances
from jaxopt_study.linalg.chunks import Chunks
from jaxopt_study.linalg.gauss_quadrature import quadrature_of
from jaxopt_study.linalg.lanczos_of_blocks import BlockMatrices, LanczosOfBlocks
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Key

_GRID = 128


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "eigenvalues", "residuals", "trace", "grid", "density", "density_error", "kernel_width", "nodes", "weights",
        "distances", "distance_errors", "off_block_share", "num_matvecs",
    ),
    meta_fields=("names", "sizes", "complete"),
)  # fmt: skip
@dataclass(frozen=True)
class Blocks:
    """Spectra of the diagonal blocks of an operator, in the order of `names`.

    Attributes:
        names: Names of the blocks.
        sizes: Numbers of their coordinates.
        complete: Whether all eigenvalues of a block are known. If so, its trace and density have rounding errors only.
        eigenvalues: The k largest of each block, in descending order: lower bounds on the true ones. NaN beyond the
            size of a block.
        residuals: The block has an eigenvalue within this distance of each; at least the noise floor of the products.
        trace: Trace of each block, with standard errors, at least the rounding errors.
        grid: Points λ for the density of each block.
        density: Density of the eigenvalues of each block, smoothed by a normal kernel; its integral is 1.
        density_error: Standard errors of the density over the probes, at least the rounding errors.
        kernel_width: Standard deviation of the kernel of each block.
        nodes: Quadrature nodes of every block and probe, from which all results are computed.
        weights: Their weights.
        distances: Jensen–Shannon distance of each pair of blocks, in [0, 1].
        distance_errors: Their standard errors over the probes, at least the rounding errors.
        off_block_share: Share of the squared Frobenius norm of H off the blocks.
        num_matvecs: Number of products with H.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    complete: tuple[bool, ...]
    eigenvalues: Float[Array, "blocks k"]
    residuals: Float[Array, "blocks k"]
    trace: Estimate
    grid: Float[Array, "blocks g"]
    density: Float[Array, "blocks g"]
    density_error: Float[Array, "blocks g"]
    kernel_width: Float[Array, " blocks"]
    nodes: Float[Array, "blocks p m"]
    weights: Float[Array, "blocks p m"]
    distances: Float[Array, "blocks blocks"]
    distance_errors: Float[Array, "blocks blocks"]
    off_block_share: Estimate
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.blocks)
    to_pandas = tabulated(_cards.columns_of_blocks)
    plot = plotted

    @property
    def mean_distance(self) -> Float[Array, ""]:
        """Mean distance over all pairs of different blocks; NaN for one block."""
        count = len(self.names)
        return jnp.sum(self.distances) / jnp.where(count > 1, count * (count - 1), jnp.nan)


@nan_is_an_answer
def blocks(
    op: Operator,
    *,
    by: By = "layer",
    key: Key,
    k: int = 1,
    num_probes: int = 4,
    num_steps: int = 32,
    normalize: bool = True,
) -> Blocks:
    """Compute largest eigenvalues, trace and spectral density of every diagonal block, and how much lies off them.

    With the block H_bb = P_b H P_b of each group of parameters, m steps of Lanczos from p random vectors give its
    largest Ritz values, and nodes θ and weights w of its spectral density. All recurrences advance together: a vector
    holds the current Lanczos vector of every block, so one program serves all blocks, in the memory of one recurrence.
    Where the operator is linearised once, the products of all blocks are computed together, each without the layers on
    which its block does not act.
    A block with n_b ≤ m coordinates is solved completely, which gives all its eigenvalues with their multiplicities.

    The Jensen–Shannon distance of two blocks compares their densities. With the probabilities P and Q that the
    densities have on a grid, smoothed by a normal kernel with the standard deviation 1/m of the largest |λ|,

        distance² = ½ Σ P log₂(P/M) + ½ Σ Q log₂(Q/M),  M = (P + Q)/2

    It is 0 for equal spectra and 1 for disjoint ones. With `normalize`, the eigenvalues of each block are first divided
    by the largest |λ| of the block, so that shapes are compared; without, on one axis, also the sizes: blocks much
    smaller than the largest one are then all peaks at 0.

    For vectors x of independent ±1, E ‖Hx‖² = ‖H‖_F². With D = Σ_b P_b H P_b,

        off-block share = Σ_{b≠c} ‖H_bc‖_F² / ‖H‖_F² ≈ mean of ‖(H − D)x‖² / mean of ‖Hx‖²

    Args:
        op: H, symmetric.
        by: "layer" for one block for all leaves whose paths differ in the last key only, such as kernel and bias;
            "leaf" for one for each leaf; or a function from the path of a leaf, its keys joined by "/", to the name of
            its block.
        key: Key of the random vectors.
        k: Number of eigenvalues of each block.
        num_probes: p ≥ 2.
        num_steps: m ≥ k, products for each probe and block.
        normalize: Whether distances compare the spectra divided by their largest |λ|.

    Returns:
        The spectra. A Ritz value with a large residual is not resolved; take more steps. Cost: p B (m + 1)
        products for B blocks after one linearisation. Together, the products of the blocks of a network with B layers
        take B/6 + 1/6 whole products; where that is not possible (with `batch_size` or `remat`, for loops in the loss,
        or where a value for all blocks would take more than 64 MiB), B. Memory: m + 6 vectors, and, together, the
        derivatives of the layers' values for all blocks.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is too small.

    Example:
        >>> from jaxopt_study.curvature import hessian
        >>> loss = lambda p, _: 2 * jnp.sum(p["a"]["w"] ** 2) + p["a"]["b"] ** 2 + 5 * p["c"]["w"] ** 2
        >>> params = {"a": {"w": jnp.ones(3), "b": jnp.array(1.0)}, "c": {"w": jnp.array(1.0)}}
        >>> found = blocks(hessian(loss, params), by="layer", key=jax.random.key(0))
        >>> print(found.names, found.sizes, found.eigenvalues.ravel().round(4), found.trace.value.round(4))
        ('a', 'c') (4, 1) [ 4. 10.] [14. 10.]
        >>> print(found.off_block_share.value)
        0.0

    References:
        Zhang, Chen, Ding, Li, Sun and Luo (2024), Why Transformers Need Adam: A Hessian Perspective, arXiv 2402.16788:
        block spectra by stochastic Lanczos quadrature, and their Jensen–Shannon distances. Lin (1991), Divergence
        Measures Based on the Shannon Entropy, IEEE Trans. Inf. Theory 37. Endres and Schindelin (2003), A New Metric
        for Probability Distributions, IEEE Trans. Inf. Theory 49: the root is a metric.
    """
    name = "blocks"
    check_operator(name, op)
    key = check_key(name, key)
    k = check_integer(name, "k", k, 1)
    num_probes = check_integer(name, "num_probes", num_probes, 2, remedy=TWO_PROBES)
    num_steps = check_integer(name, "num_steps", num_steps, k, remedy="Each eigenvalue needs at least one step.")
    normalize = check_bool(name, "normalize", normalize)
    names, owners, sizes = blocks_of(name, op.like, by)
    num_steps = min(num_steps, max(sizes))
    diagonal = BlockDiagonal(op, owners, len(names))
    leaves, structure = jax.tree.flatten(op.like)
    solver = LanczosOfBlocks(Chunks(tuple(leaves), structure, owners, len(names)), sizes, num_steps)
    solve_key, share_key = jax.random.split(key)
    measure = compiled_probes if op.loop == "compiled" else probes_from_python
    keys = jax.random.split(solve_key, num_probes), jax.random.split(share_key, num_probes)
    with mesh_context(op.like):
        return _summary(*measure(solver, diagonal, *keys), names, sizes, k, normalize, noise_floor(op))


@partial(jit_for_few_calls, static_argnums=(2, 3, 4, 5, 6))
def _summary(
    matrices: BlockMatrices,
    norms: Norms,
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    k: int,
    normalize: bool,
    floor: float,
) -> Blocks:
    p, count, m = matrices.diagonal.shape
    taken = jnp.minimum(jnp.asarray(sizes, jnp.int32), m)
    complete = tuple(size <= m for size in sizes)
    rows = (matrices.diagonal.reshape(p * count, m), matrices.offdiagonal.reshape(p * count, m))
    found = quadrature_of(*rows, jnp.tile(taken, p), jnp.zeros(p * count, rows[0].dtype))
    nodes, weights, residuals = (
        jnp.swapaxes(x.reshape(p, count, m), 0, 1) for x in (found.nodes, found.weights, found.residuals)
    )
    known = jnp.arange(m, dtype=jnp.int32)[None, :] < taken[:, None]
    exact = jnp.asarray(complete)
    equal = jnp.where(known, 1 / taken.astype(weights.dtype)[:, None], 0)
    weights = jnp.where(exact[:, None, None] & jnp.isfinite(weights), equal[:, None, :], weights)
    largest = jnp.max(jnp.abs(nodes), axis=(1, 2))
    values, errors = _largest(nodes, jnp.maximum(residuals, floor * largest[:, None, None]), taken, k)
    number = jnp.asarray(sizes).astype(nodes.dtype)
    mean, error = jax.vmap(mean_of_function)(weights, nodes, number)
    rounding = jnp.stack([rounding_of_sum(size, floor, most) for size, most in zip(sizes, largest, strict=True)])
    error = jnp.maximum(jnp.where(exact, 0, number * error), rounding)
    trace = Estimate(number * mean, error, jnp.int32(p * m * count))
    grid, density, density_error, width = jax.vmap(partial(_density, floor))(nodes, weights, exact)
    scales = largest if normalize else jnp.full_like(largest, jnp.max(largest))
    apart, apart_errors = distances(nodes, weights, scales, 1 / m)
    return Blocks(
        names, sizes, complete, values, errors, trace, grid, density, density_error, width, nodes, weights, apart,
        apart_errors, _share(norms, count, floor), jnp.int32(p * count * (m + 1)),
    )  # fmt: skip


def _largest(
    nodes: Float[Array, "blocks p m"], residuals: Float[Array, "blocks p m"], taken: Int[Array, " blocks"], k: int
) -> tuple[Float[Array, "blocks k"], Float[Array, "blocks k"]]:
    """Return the k largest Ritz values of each block and their residuals.

    The j-th largest Ritz value of every probe is a lower bound on the j-th largest eigenvalue (Cauchy), so the largest
    over the probes is the best.
    """
    places = taken[:, None] - 1 - jnp.arange(k, dtype=jnp.int32)[None, :]
    at = jnp.maximum(places, 0)[:, None, :]
    values = jnp.take_along_axis(nodes, jnp.broadcast_to(at, (*nodes.shape[:2], k)), axis=2)
    errors = jnp.take_along_axis(residuals, jnp.broadcast_to(at, (*nodes.shape[:2], k)), axis=2)
    best = jnp.argmax(values, axis=1)[:, None, :]
    nan = jnp.where(places >= 0, 0, jnp.nan).astype(nodes.dtype)
    return (
        jnp.take_along_axis(values, best, axis=1)[:, 0] + nan,
        jnp.take_along_axis(errors, best, axis=1)[:, 0] + nan,
    )


def _density(
    floor: float, nodes: Float[Array, "p m"], weights: Float[Array, "p m"], exact: Bool[Array, ""]
) -> tuple[Float[Array, " g"], Float[Array, " g"], Float[Array, " g"], Float[Array, ""]]:
    p, m = nodes.shape
    low, high, most = jnp.min(nodes), jnp.max(nodes), jnp.max(jnp.abs(nodes))
    width = jnp.where(high - low > 1e-3 * most, (high - low) / m, 1e-3 * jnp.where(most == 0, 1, most))
    grid = jnp.linspace(low - 5 * width, high + 5 * width, _GRID)

    def of_probe(theta: Float[Array, " m"], w: Float[Array, " m"]) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
        apart = (grid[:, None] - theta[None, :]) / width
        kernel = jnp.exp(-0.5 * apart**2) / jnp.sqrt(2 * jnp.pi)
        times = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
        return times(kernel, w), times(jnp.abs(apart) * kernel, w)

    heights, slopes = jax.vmap(of_probe)(nodes, weights)  # times the width, which may be of any size
    rounding = floor * most / width * jnp.mean(slopes, axis=0)
    error = jnp.maximum(jnp.where(exact, 0, jnp.std(heights, axis=0, ddof=1) / jnp.sqrt(p)), rounding)
    return grid, jnp.mean(heights, axis=0) / width, error / width, width


def _share(norms: Norms, num_blocks: int, floor: float) -> Estimate:
    largest = jnp.max(norms.whole)
    scale = jnp.where(largest > 0, largest, 1)
    share, error = ratio_and_error((norms.off / scale) ** 2, (norms.whole / scale) ** 2)
    rounding = floor * (2 * jnp.sqrt(share) + floor)
    p = norms.whole.shape[0]
    return Estimate(share, jnp.maximum(error, rounding), jnp.int32(p * num_blocks))
