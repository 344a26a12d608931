"""Bounds on the largest eigenvalue at a stated confidence."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study._checks import check_integer, check_key, check_static_real
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import GROWTH, check_noise_floor
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.linalg import block_lanczos as lanczos
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.block_lanczos import Space
from jaxopt_study.linalg.checks import check_tolerance
from jaxopt_study.linalg.lanczos_upper_bound import overshoot
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key, Vector


class Bracket(NamedTuple):
    """Two bounds on the largest eigenvalue.

    Attributes:
        lower: A Rayleigh quotient: λmax ≥ lower for every start, up to the noise floor.
        upper: λmax ≤ upper with probability `confidence` over the random start.
        residual: ‖H v − λ v‖ for the unit vector v and Rayleigh quotient λ of `lower`, recomputed with a product.
        num_matvecs: Total number of products.
        confidence: Probability that `upper` holds.
        converged: Whether the bracket is as narrow as requested.
        vector: v, a pytree like the parameters.
    """

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    residual: Float[Array, ""]
    num_matvecs: Int[Array, ""]
    confidence: Float[Array, ""]
    converged: Bool[Array, ""]
    vector: Vector

    __repr__, _repr_html_ = displayed(_cards.bracket)

    @property
    def learning_rate(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Bounds on 2/λmax, above which gradient descent diverges on the quadratic; ∞ where a bound on λmax is ≤ 0."""
        return _reciprocal(self.upper), _reciprocal(self.lower)


class BracketLimits(NamedTuple):
    """Numbers that may change without compiling again."""

    tol: Float[Array, ""]
    noise_floor: Float[Array, ""]


class _State(NamedTuple):
    space: Space
    checking: Bool[Array, ""]
    vector: Vector  # Ritz vector under check, and the result
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    residual: Float[Array, ""]
    num_matvecs: Int[Array, ""]
    done: Bool[Array, ""]


@dataclass(frozen=True)
class BracketSolver:
    """`sharpness` as a `solver_loop.Solver`; the fields are fixed at compile time."""

    layout: Layout
    num_steps: int
    confidence: float
    every: int  # products between two evaluations of the bounds
    block_size: int = 1
    scaled: bool = True

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from a random direction."""
        space = lanczos.begin(self.layout, self.layout.random(seed, 0, 1), self.num_steps + 1, seed)
        nan = jnp.full((), jnp.nan, self.layout.scalar)
        return _State(
            space=space,
            checking=jnp.bool(False),
            vector=lanczos.rows(space.basis, 0, 1),
            lower=nan,
            upper=nan,
            residual=nan,
            num_matvecs=jnp.int32(0),
            done=jnp.bool(False),
        )

    def next_block(self, state: _State) -> Vector:
        """Return the Ritz vector under check, or the last vector of the Krylov space."""
        pending = lanczos.pending(state.space, 1)
        return jax.tree.map(lambda v, q: jnp.where(state.checking, v, q), state.vector, pending)

    def update(self, limits: BracketLimits, seed: UInt32[Array, "2"], state: _State, products: Vector) -> _State:
        """Return the state with an extended Krylov space and new bounds, or with a checked Ritz vector."""
        return _updated(self, limits, seed, state, products)

    def result(self, limits: BracketLimits, state: _State, unit: Float[Array, ""]) -> Bracket:
        """Return the bracket, its vector in the solver's layout."""
        return Bracket(
            lower=unit * state.lower,
            upper=unit * state.upper,
            residual=unit * state.residual,
            num_matvecs=state.num_matvecs,
            confidence=jnp.asarray(self.confidence, self.layout.scalar),
            converged=state.upper - state.lower <= 1.01 * limits.tol * jnp.abs(state.upper),
            vector=vectors.row(state.vector, 0),
        )


@nan_is_an_answer
def sharpness(
    op: Operator,
    *,
    key: Key,
    confidence: float = 0.99,
    tol: float = 0.01,
    max_matvecs: int = 64,
    noise_floor: float | None = None,
) -> Bracket:
    """Enclose the largest eigenvalue between a Rayleigh quotient and a bound that holds with a stated confidence.

    m Lanczos steps from a start q₁ give polynomials φ₀ = 1, φ₁, …, φₘ with qᵢ₊₁ = φᵢ(H) q₁ orthonormal. For the unit
    eigenvector u of λmax and γ = ⟨u, q₁⟩, the coordinates of u in the basis are γ φᵢ(λmax), so

        γ² Σᵢ φᵢ(λmax)² ≤ 1,  i = 0 … m.

    The sum increases beyond the largest Ritz value. For q₁ uniform on the sphere, γ² has the distribution
    Beta(½, (n−1)/2), or is larger for a multiple eigenvalue, so γ² ≥ δ² has a known probability. With at least that
    probability λmax is below the x where the sum reaches 1/δ²; half of 1 − `confidence` is reserved for this event. It
    is the same event for all m, so early stopping costs no confidence. A start that depends on H would void the bound
    and is not accepted.

    The bound is about the operator as computed: the bracket is widened on both sides by `noise_floor` · max‖Hq‖ for
    rounding; asymmetry is not covered. If the space is exhausted because H has few distinct eigenvalues, the remainder
    counts as ε · max‖Hq‖, which increases the upper bound by up to ε/δ of that scale.

    Args:
        op: H, symmetric.
        key: Key of the random start.
        confidence: In (0, 1).
        tol: Requested width of the bracket, relative to |upper|.
        max_matvecs: Largest number of products, ≥ 2; the last one checks. About log(√n/(1 − confidence))/(2√tol)
            suffice for every spectrum, fewer for an isolated λmax.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; default `noise_floor(op)`, 16 ε.

    Returns:
        The bracket. Memory: max_matvecs vectors. Time of a step: one product and four to eight reads of the basis.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or `tol` is below four noise floors.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.linspace(-1.0, 2.0, 1000)
        >>> op = from_matvec(lambda v: spectrum * v, spectrum)
        >>> bracket = sharpness(op, key=jax.random.key(0))
        >>> print(bool(bracket.lower <= 2.0 <= bracket.upper), bool(bracket.upper <= 1.01 * bracket.lower))
        True True

    References:
        Kuczyński and Woźniakowski (1992), SIAM J. Matrix Anal. Appl. 13: a priori bounds. Van Dorsselaer,
        Hochstenbach and Van der Vorst (2000), Computing probabilistic bounds for extreme eigenvalues of symmetric
        matrices with the Lanczos method, SIAM J. Matrix Anal. Appl. 22: a posteriori bounds from φₘ; the sum
        over all φᵢ used here is at least as tight.
    """
    name = "sharpness"
    layout = layout_of(check_operator(name, op).like)
    key, floor = check_key(name, key), check_noise_floor(name, op, noise_floor)
    confidence = check_static_real(name, "confidence", confidence, 0.0, 1.0, closed="()", remedy="Take 0.99.")
    check_tolerance(name, tol, floor, times=4, usual=0.01)  # which widens the bracket on both sides
    max_matvecs = check_integer(name, "max_matvecs", max_matvecs, 2, remedy="One product computes, and one checks.")
    solver = bracket_solver(op, confidence=confidence, max_matvecs=max_matvecs)
    bracket = solver_loop.run(solver, op, bracket_limits(layout, tol, floor), key)
    return bracket._replace(vector=layout.deliver(bracket.vector))


def bracket_solver(op: Operator, *, confidence: float = 0.99, max_matvecs: int = 64) -> BracketSolver:
    """Return the solver for `sharpness_bounds` from the static arguments of `sharpness`, outside of a trace.

    Args:
        op: The operator; only its shapes, dtypes and shardings are used.
        confidence: As in `sharpness`.
        max_matvecs: As in `sharpness`.

    Returns:
        The solver, hashable for use as a static argument.
    """
    layout = layout_of(op.like)
    num_steps = min(max_matvecs - 1, layout.size)
    # The cost of the bounds is cubic in the number of steps.
    every = max(2 if jax.default_backend() == "cpu" else 5, num_steps // 32)
    return BracketSolver(layout, num_steps, float(confidence), every)


def bracket_limits(layout: Layout, tol: Any, noise_floor: float | None = None) -> BracketLimits:
    """Return the tolerances of `sharpness` as arrays, without checks.

    Args:
        layout: The solver's layout.
        tol: As in `sharpness`; may be traced.
        noise_floor: As in `sharpness`; may be traced.

    Returns:
        The limits.
    """
    floor = GROWTH * float(jnp.finfo(layout.scalar).eps) if noise_floor is None else noise_floor
    return BracketLimits(jnp.asarray(tol, layout.scalar), jnp.asarray(floor, layout.scalar))


@nan_is_an_answer
def sharpness_bounds(op: Operator, solver: BracketSolver, limits: BracketLimits, *, key: Key) -> Bracket:
    """Run `sharpness` inside a trace, under `jit`, `scan` or `vmap`, without checks of the arguments.

    Args:
        op: H, linearised once.
        solver: From `bracket_solver`.
        limits: From `bracket_limits`.
        key: Key of the random start.

    Returns:
        The bracket.
    """
    bracket = solver_loop.trace(solver, op, limits, key)
    return bracket._replace(vector=solver.layout.unpack(bracket.vector))


def _updated(
    solver: BracketSolver, limits: BracketLimits, seed: UInt32[Array, "2"], state: _State, products: Vector
) -> _State:
    v, image = vectors.row(state.vector, 0), vectors.row(products, 0)
    square = vectors.inner(v, v)
    lower = vectors.inner(v, image) / square
    residual = vectors.plain_norm(vectors.axpy(-lower, v, image)) / jnp.sqrt(square)
    # A remainder above ε does not end the space: it may be the only component along the eigenvector of λmax.
    breakdown = jnp.asarray(jnp.finfo(solver.layout.scalar).eps, solver.layout.scalar)
    space, invariant = lanczos.extend(solver.layout, state.space, products, seed, breakdown, ~state.checking)
    checked = state.checking
    broken = ~jnp.isfinite(space.scale)
    complete = (space.count >= solver.layout.size) | (invariant & (space.scale == 0))
    last = complete | (space.count >= solver.num_steps) | broken
    due = ~checked & (last | invariant | (space.count % solver.every == 0))

    def bounds() -> tuple[Float[Array, ""], Float[Array, " m"], Bool[Array, ""]]:
        values, coefficients, residuals = lanczos.ritz(space, 1)
        top = space.count - 1
        margin = limits.noise_floor * space.scale
        above = overshoot(space, values, residuals, solver.layout.size, solver.confidence)
        upper = values[top] + margin + jnp.where(complete, 0, above)
        narrow = upper - values[top] + margin <= limits.tol * jnp.abs(upper)
        return upper, jnp.take(coefficients, top, axis=1), last | narrow

    def no_bounds() -> tuple[Float[Array, ""], Float[Array, " m"], Bool[Array, ""]]:
        return state.upper, jnp.zeros_like(space.projected[0]), jnp.bool(False)

    upper, coefficients, check = lax.cond(due, bounds, no_bounds)
    vector = lax.cond(
        check,
        lambda: jax.tree.map(lambda x: x[None], vectors.combine(space.basis, coefficients)),
        lambda: state.vector,
    )
    return _State(
        space=space,
        checking=check,
        vector=vector,
        lower=jnp.where(checked, lower - limits.noise_floor * space.scale, state.lower),
        upper=jnp.where(broken, jnp.nan, upper),
        residual=jnp.where(checked, residual, state.residual),
        num_matvecs=state.num_matvecs + 1,
        done=checked | broken,
    )


def _reciprocal(value: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(value > 0, 2 / jnp.where(value > 0, value, 1), jnp.where(jnp.isnan(value), value, jnp.inf))
