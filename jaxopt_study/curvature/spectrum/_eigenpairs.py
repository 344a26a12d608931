"""Eigenpairs at the ends of a spectrum by thick-restart Lanczos, with computed residuals."""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study._checks import check_choice, check_integer, check_key, check_params
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import GROWTH, check_noise_floor
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.checks import check_tolerance
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.linalg.thick_restart_lanczos import Limits, State, ThickRestartLanczos, Which
from jaxopt_study.types import Key, Vector

_NAME = "eigenpairs"
_BREAKDOWN = 100  # in units of ε: relative length below which, or below the noise floor, a remainder is rounding
_RANDOM_SHARE = 0.1  # length of the random part of a warm start, relative to a given vector


class Eigenpairs(NamedTuple):
    """Approximate eigenpairs of a symmetric operator with error bounds.

    Attributes:
        values: λ, in the order of `which`. NaN where a product was NaN or infinite.
        vectors: Orthonormal v, a pytree like the parameters with a leading axis k on every leaf.
        residuals: ‖H v − λ v‖, recomputed with k products. H has an eigenvalue within this distance of λ, up to
            the noise of products.
        num_matvecs: Total number of products, the check included.
        converged: Whether residual ≤ tol · scale, for each pair.
        scale: Largest |Ritz value|, the unit of the tolerance.
    """

    values: Float[Array, " k"]
    vectors: Vector
    residuals: Float[Array, " k"]
    num_matvecs: Int[Array, ""]
    converged: Bool[Array, " k"]
    scale: Float[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.eigenpairs)
    to_pandas = tabulated(_cards.columns_of_eigenpairs)
    plot = plotted

    @property
    def relative_residuals(self) -> Float[Array, " k"]:
        """Residuals divided by the scale; 0 for the zero operator."""
        return self.residuals / jnp.where(self.scale == 0, 1, self.scale)


@nan_is_an_answer
def eigenpairs(
    op: Operator,
    k: int,
    *,
    which: Which | str = "LA",
    tol: float = 1e-3,
    key: Key,
    num_basis: int | None = None,
    max_matvecs: int | None = None,
    block_size: int = 1,
    start: Vector | None = None,
    noise_floor: float | None = None,
) -> Eigenpairs:
    """Find k eigenpairs at one or both ends of the spectrum, and check their residuals.

    Thick-restart Lanczos: products with H extend a basis Q of the Krylov space, which repeated block Gram–Schmidt keeps
    orthonormal. With T = QᵀHQ and T s = θ s, T gives the residual ‖H Q s − θ Q s‖ of the pair (θ, Q s). The most wanted
    vectors Q s replace a full basis. Once all k estimated residuals are below tol · max|θ|, and the last step has moved
    no value by more, each residual is recomputed with a product; if one is larger, the iteration continues. An
    invariant space (identity, zero and low-rank operators) is extended from random directions until one of them changes
    no value.

    A small residual proves that an eigenvalue is near, not that none was missed. A random start has a component in
    every eigenspace with probability 1, but a single vector finds only one copy of a multiple eigenvalue, and further
    copies through rounding or an invariant space: choose `block_size` ≥ the expected multiplicity. `sharpness` bounds
    the largest eigenvalue with a stated confidence.

    Args:
        op: H, symmetric, which `audit` checks.
        k: Number of pairs, 1 ≤ k ≤ n.
        which: "LA" for the largest, descending; "SA" for the smallest, ascending; "LM" for the largest magnitudes,
            descending; "BE" for the ⌈k/2⌉ largest and ⌊k/2⌋ smallest, ascending.
        tol: Tolerance of a residual, relative to the largest |Ritz value|. If no eigenvalue was missed, the error of an
            eigenvalue is at most tol · scale, and about (tol · scale)²/gap for an isolated one.
        key: Key of the start and of random directions.
        num_basis: Rows of the basis, from k + `block_size` to n. The default is max(2k + 10, k + 20), and more for
            blocks; a larger basis restarts less.
        max_matvecs: Largest number of products, the check included; default 40 · `num_basis`.
        block_size: b, number of vectors in a block. 1 takes the fewest products; b finds eigenvalues of multiplicity b.
        start: Warm start: a vector, or a block with a leading axis such as the `vectors` of an earlier result. A random
            direction is always added, so that every eigenvector is reachable.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; default `noise_floor(op)`, 16 ε.

    Returns:
        The pairs. Memory: num_basis + b vectors, up to twice that during a restart, and the memory of a product. Time
        of a step: one product and four to eight reads of the basis.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If k, a size, a budget or `noise_floor` is out of range, `which` is unknown, `tol` is below the
            noise floor or not below 1, or `start` does not fit the operator.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.concatenate([jnp.array([10.0, 5.0, -3.0]), jnp.linspace(-1.0, 1.0, 997)])
        >>> op = from_matvec(lambda v: spectrum * v, spectrum)
        >>> pairs = eigenpairs(op, 3, which="LM", key=jax.random.key(0))
        >>> print(bool(pairs.converged.all()), bool(jnp.allclose(pairs.values, spectrum[:3], atol=1e-3)))
        True True
        >>> v = pairs.vectors[0]
        >>> print(bool(jnp.linalg.norm(spectrum * v - pairs.values[0] * v) <= 1.1e-3 * pairs.scale))
        True

    References:
        Wu and Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
        Appl. 22. Daniel, Gragg, Kaufman and Stewart (1976), Math. Comp. 30: repeated Gram–Schmidt. Parlett (1998), The
        Symmetric Eigenvalue Problem, theorem 4.5.1: the residual bounds the error.
    """
    check_operator(_NAME, op)
    key = check_key(_NAME, key)
    solver = make_solver(op, k, which=which, num_basis=num_basis, block_size=block_size)
    floor = check_noise_floor(_NAME, op, noise_floor)
    check_tolerance(_NAME, tol, floor)
    if max_matvecs is not None:
        remedy = f"Half of them compute k = {solver.k} pairs, and half check them."
        max_matvecs = check_integer(_NAME, "max_matvecs", max_matvecs, 2 * solver.check_cost, remedy=remedy)
    limits = limits_for(solver, tol, max_matvecs=max_matvecs, noise_floor=floor)
    if start is not None:
        start = _as_block(solver.layout, start)
    pairs = solver_loop.run(solver, op, limits, key, start)
    return pairs._replace(vectors=solver.layout.deliver(pairs.vectors))


def make_solver(
    op: Operator,
    k: Any,
    *,
    which: Any = "LA",
    num_basis: Any = None,
    block_size: Any = 1,
    every: int | None = None,
) -> "Eigensolver":
    """Check the static arguments of `eigenpairs` and return the solver for `solve`.

    Args:
        op: The operator; only its shapes, dtypes and shardings are used, so call this outside of a trace.
        k: As in `eigenpairs`.
        which: As in `eigenpairs`.
        num_basis: As in `eigenpairs`.
        block_size: As in `eigenpairs`.
        every: Products between two solutions of the projected problem; default one on a CPU, five elsewhere, where a
            small eigenvalue problem costs as much as a product.

    Returns:
        The solver, hashable for use as a static argument.

    Raises:
        TypeError: If a count is not an integer.
        ValueError: If an argument is out of range.
    """
    layout = layout_of(op.like)
    n = layout.size
    k = check_integer(_NAME, "k", k, 1, n, remedy="The operator has as many eigenvalues as coordinates.")
    check_choice(_NAME, "which", which, get_args(Which))
    block_size = check_integer(_NAME, "block_size", block_size, 1, n)
    if num_basis is None:
        num_basis = min(n, max(2 * k + 10, k + 20, k + 8 * block_size))
    else:
        remedy = f"The basis holds k pairs and a block; 2k + 10 = {2 * k + 10} rows converge well."
        num_basis = check_integer(_NAME, "num_basis", num_basis, min(n, k + block_size), remedy=remedy)
    if num_basis + 2 * block_size >= n:
        num_basis = -(-n // block_size) * block_size  # nearly the whole space: no restart
    usual = block_size if jax.default_backend() == "cpu" else max(block_size, 5)
    return Eigensolver(layout, k, cast(Which, which), num_basis, block_size, usual if every is None else every)


@nan_is_an_answer
def solve(op: Operator, solver: "Eigensolver", limits: Limits, *, key: Key, start: Vector | None = None) -> Eigenpairs:
    """Find eigenpairs inside a trace, under `jit`, `scan` or `vmap`, without checks of the arguments.

    Args:
        op: H, linearised once.
        solver: From `make_solver`.
        limits: Tolerances and budget; may be traced.
        key: Key of the start and of random directions.
        start: None, or a block of vectors: a pytree like the parameters with one more leading axis.

    Returns:
        The pairs.
    """
    pairs = solver_loop.trace(solver, op, limits, key, start)
    return pairs._replace(vectors=jax.vmap(solver.layout.unpack)(pairs.vectors))


def limits_for(
    solver: "Eigensolver", tol: Any, *, max_matvecs: int | None = None, noise_floor: float | None = None
) -> Limits:
    """Return tolerances and budget as arrays with the defaults of `eigenpairs`, without checks."""
    dtype = solver.layout.scalar
    floor = GROWTH * jnp.finfo(dtype).eps if noise_floor is None else noise_floor
    breakdown = jnp.minimum(jnp.maximum(_BREAKDOWN * jnp.finfo(dtype).eps, floor), tol).astype(dtype)
    budget = 40 * solver.num_basis if max_matvecs is None else max_matvecs
    return Limits(jnp.asarray(tol, dtype), breakdown, jnp.asarray(max(budget, 2 * solver.check_cost), jnp.int32))


def _as_block(layout: Layout, start: Vector) -> Vector:
    like = layout.treedef.unflatten(layout.leaves)
    start = check_params(_NAME, start, name="start", finite=False)
    remedy = "Give a vector of the parameters' structure and shapes, or a block with one more leading axis."
    if jax.tree.structure(start) != layout.treedef:
        raise ValueError(
            f"start must have the structure {layout.treedef}; received {jax.tree.structure(start)}. {remedy}"
        )
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(start)]
    expected = [leaf.shape for leaf in layout.leaves]
    if shapes == expected:
        start = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], start)
    elif [shape[1:] for shape in shapes] != expected or len({shape[:1] for shape in shapes}) != 1:
        raise ValueError(f"start must have leaves of shapes {expected}; received {shapes}. {remedy}")
    return jax.tree.map(lambda leaf, target: jnp.asarray(leaf, target.dtype), start, like)


@dataclass(frozen=True)
class Eigensolver(ThickRestartLanczos):
    """`eigenpairs` as a `solver_loop.Solver`."""

    def initial(self, seed: UInt32[Array, "2"], start: Vector | None) -> State:
        """Return the state before the first product, from random directions and the given vectors."""
        return self.started(_starting_block(self, seed, start), seed)

    def result(self, limits: Limits, state: State, unit: Float[Array, ""]) -> Eigenpairs:
        """Return the pairs, their vectors in the solver's layout."""
        return _result(self, limits, state, unit)


def _starting_block(solver: Eigensolver, seed: UInt32[Array, "2"], start: Vector | None) -> Vector:
    """Return random directions plus the given vectors, which are distributed over the block."""
    layout, b = solver.layout, solver.block_size
    random = layout.random(seed, 0, b)
    if start is None:
        return random
    given = jax.vmap(layout.pack)(start)
    s = jax.tree.leaves(given)[0].shape[0]
    given, lengths = jax.vmap(vectors.normalize)(given)
    usable = (lengths > 0) & jnp.isfinite(lengths)
    given = jax.tree.map(lambda leaf: jnp.where(usable.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0), given)
    shares = jnp.arange(s)[:, None] % b == jnp.arange(b)[None, :]
    random = jax.vmap(vectors.scale)(_RANDOM_SHARE / jax.vmap(vectors.plain_norm)(random), random)
    return vectors.add(random, vectors.combine(given, shares.astype(layout.scalar)))


def _result(solver: Eigensolver, limits: Limits, state: State, unit: Float[Array, ""]) -> Eigenpairs:
    k = solver.k
    healthy = jnp.isfinite(state.space.scale)
    residuals = jnp.where(healthy, state.residuals[:k], jnp.nan)
    values = jnp.where(healthy, state.values, jnp.nan)
    basis = jax.tree.map(lambda leaf: leaf[:k], state.space.basis)
    if solver.which == "BE":  # the solver's order is from the outside to the inside
        order = np.argsort([i // 2 if i % 2 else k - 1 - i // 2 for i in range(k)])
        values, residuals, basis = jax.tree.map(lambda leaf: leaf[order], (values, residuals, basis))
    return Eigenpairs(
        values=unit * values,
        vectors=basis,
        residuals=unit * residuals,
        num_matvecs=state.num_matvecs,
        converged=residuals <= limits.tol * state.spectral_scale,
        scale=jnp.where(healthy, unit * state.spectral_scale, jnp.nan),
    )
