"""Search for critical points of any index, with a separate status for gradient-flat points."""

from dataclasses import replace
from enum import IntEnum
from functools import partial
from typing import Any, Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxopt_study._checks import check_choice, check_integer, check_static_real
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import jit_solver, nan_is_an_answer
from jaxopt_study.curvature._noise_floor import check_noise_floor
from jaxopt_study.curvature.operators._empirical_risk import EmpiricalRiskOperator
from jaxopt_study.curvature.operators._hessian import hessian
from jaxopt_study.curvature.operators._streams import refuse_stream
from jaxopt_study.curvature.points import _cards
from jaxopt_study.curvature.points import _newton_steps as newton_steps
from jaxopt_study.curvature.points._loss_and_gradient import value_and_gradient
from jaxopt_study.curvature.points._tolerances import FLATNESS, Tolerances, check_tolerances, flatness_at
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import key_or_fixed
from jaxopt_study.linalg.layout import seed_words
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector

CriticalPointMethod = Literal["newton-mr", "gradient-norm", "saddle-free-newton"]

_HALVINGS = 30
_ARMIJO = 1e-4
_NUM_BASIS = 20


class SearchStatus(IntEnum):
    """Status of a search."""

    CONVERGED = 0  # ‖g‖ is within the tolerance
    GRADIENT_FLAT = 1  # Hg ≈ 0 but g ≠ 0: not a critical point
    STALLED = 2  # no step along the direction makes progress beyond rounding
    OUT_OF_STEPS = 3
    NOT_FINITE = 4  # loss, gradient or a product is NaN or infinite


class CriticalPointSearch(NamedTuple):
    """Result of a search for a critical point.

    Attributes:
        params: θ; a critical point only if the status is `CONVERGED`.
        status: A `SearchStatus`, as an integer; `verdict` is its name.
        value: The loss.
        gradient_norm: ‖g‖.
        gradient_tol: Tolerance of ‖g‖.
        flatness: ‖Hg‖ (1 + ‖θ‖)/‖g‖², small at a gradient-flat point; infinite for g = 0.
        gradient_norms: ‖g‖ before the first step and after each (max_steps + 1,), then NaN.
        num_steps: Number of steps.
        num_matvecs: Number of products.
        num_gradients: Number of gradients, those of the line search included.
    """

    params: Params
    status: Int[Array, ""]
    value: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    gradient_tol: Float[Array, ""]
    flatness: Float[Array, ""]
    gradient_norms: Float[Array, " steps"]
    num_steps: Int[Array, ""]
    num_matvecs: Int[Array, ""]
    num_gradients: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.critical_point_search)
    plot = plotted

    @property
    def success(self) -> Bool[Array, "..."]:
        """Whether the search ended at a critical point."""
        return self.status == SearchStatus.CONVERGED

    @property
    def verdict(self) -> str:
        """Status in words, outside of a trace, for a single search."""
        name = SearchStatus(int(self.status)).name.lower()
        return "gradient-flat" if name == "gradient_flat" else name.replace("_", " ")


class _State(NamedTuple):
    params: Params
    value: Float[Array, ""]
    g: Vector
    norm: Float[Array, ""]
    gradient_tol: Float[Array, ""]
    flatness: Float[Array, ""]
    norms: Float[Array, " steps"]
    num_steps: Int[Array, ""]
    num_matvecs: Int[Array, ""]
    num_gradients: Int[Array, ""]
    radius: Float[Array, ""]  # largest length of the next step, which 1 + ‖θ‖ also limits
    status: Int[Array, ""]  # −1 while the search runs


class _Settings(NamedTuple):
    """Static, hashable settings of a search."""

    method: CriticalPointMethod
    num_basis: int
    max_steps: int
    cutoff: float


@nan_is_an_answer
def find_critical_point(
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    method: CriticalPointMethod | str = "newton-mr",
    key: Key | None = None,
    batch_size: int | None = None,
    tol: float | None = None,
    gradient_tol: Any = None,
    max_steps: int = 100,
    num_basis: int = _NUM_BASIS,
    flatness: Any = FLATNESS,
    noise_floor: float | None = None,
) -> CriticalPointSearch:
    """Search for a critical point near the parameters, of any index, or with one method for a minimum.

    With gradient g and Hessian H at θ, and K the Krylov space span{g, Hg, …} of at most `num_basis` dimensions, a step
    along p is halved until it makes progress:

        "newton-mr"           p = argmin_{p ∈ K} ‖Hp + g‖, the shortest       ‖g‖² must fall
        "gradient-norm"       p = −α Hg, α = ‖Hg‖²/‖HHg‖²                     ‖g‖² must fall
        "saddle-free-newton"  p = −|QᵀHQ|⁻¹ g in the orthonormal basis Q of K  the loss must fall

    The first two converge to a nearby critical point of any index; Newton-MR converges quadratically, gradient descent
    on ½‖g‖² linearly with the square of the condition number. Saddle-free Newton is repelled by saddles and converges
    to minima. A step longer than 1 + ‖θ‖ is damped. "newton-mr" excludes directions in which H is zero up to rounding,
    as MINRES-QLP does, and therefore also finds points of a valley.

    Every local minimum of ‖g‖² is a critical point or a gradient-flat point, Hg = 0 with g ≠ 0; on losses of neural
    networks most are gradient-flat. There, if ‖Hg‖ (1 + ‖θ‖) ≤ flatness · ‖g‖², the search ends with the status
    `GRADIENT_FLAT`. `classify_point` computes the index of a point.

    Args:
        loss: `loss(params, batch)`, as in `hessian`.
        params: θ₀, the start.
        data: As in `hessian`.
        method: See above.
        key: Key of directions that continue an invariant Krylov space; None for a fixed one.
        batch_size: As in `hessian`.
        tol: Converged if ‖g‖ ≤ tol ‖H‖ (1 + ‖θ‖), with ‖H‖ estimated in the Krylov space; None takes √ε, or the noise
            floor if larger, below which a gradient is rounding.
        gradient_tol: Absolute tolerance of ‖g‖ instead; it may be below the noise floor, where a search stalls.
        max_steps: Largest number of steps, ≥ 1.
        num_basis: Largest dimension of the Krylov space, ≥ 1.
        flatness: As in `classify_point`.
        noise_floor: Relative error of a product; default `noise_floor` of the Hessian, 16 ε. Singular values of the
            projected Hessian below ten times that, relative to the largest, count as zero.

    Returns:
        The last point and the status. Cost of a step: `num_basis` products (two for "gradient-norm") after one
        linearisation, and a gradient for every trial of the line search; one compiled program, also under `jit` and
        `vmap`. Memory: num_basis + 1 vectors.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the method is unknown, a count too small, a tolerance not positive, or `tol` below the noise
            floor.

    Example:
        >>> def loss(p, batch):
        ...     return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2  # Himmelblau
        >>> result = find_critical_point(loss, jnp.array([3.2, 0.3]), key=jax.random.key(0))
        >>> print(result.verdict, jnp.round(100 * result.params))  # the saddle nearby
        converged [339.   7.]
        >>> result = find_critical_point(lambda p, batch: p**3 / 3 + p, 0.5, key=jax.random.key(0))
        >>> print(result.verdict)  # the gradient p² + 1 is smallest at 0, and 1 there
        gradient-flat

    References:
        Roosta, Liu, Xu and Mahoney (2022), Newton-MR, EURO J. Comput. Optim. 10. Choi, Paige and Saunders (2011),
        MINRES-QLP, SIAM J. Sci. Comput. 33. Dauphin et al. (2014), Identifying and attacking the saddle point problem,
        NeurIPS. Frye et al. (2021), Critical Point-Finding Methods Reveal Gradient-Flat Regions of Deep Network Losses,
        Neural Computation 33.
    """
    name = "find_critical_point"
    check_choice(name, "method", method, get_args(CriticalPointMethod))
    max_steps = check_integer(name, "max_steps", max_steps, 1)
    num_basis = check_integer(name, "num_basis", num_basis, 1)
    key = key_or_fixed(key, name)
    refuse_stream(name, data)
    op = cast(EmpiricalRiskOperator, hessian(loss, params, data, batch_size=batch_size))
    floor = check_static_real(name, "noise_floor", check_noise_floor(name, op, noise_floor))
    settings = _Settings(
        cast(CriticalPointMethod, method), min(num_basis, op.size), max_steps, newton_steps.CUTOFF * floor
    )
    return _search(op, key, check_tolerances(name, op, floor, tol, gradient_tol, flatness), settings)


@partial(jit_solver, static_argnums=3)
def _search(op: EmpiricalRiskOperator, key: Key, tolerances: Tolerances, settings: _Settings) -> CriticalPointSearch:
    seed = seed_words(key)
    last = lax.while_loop(
        lambda state: state.status < 0,
        lambda state: _advance(op, seed, tolerances, settings, state),
        _begin(op, settings),
    )
    return CriticalPointSearch(
        last.params, last.status, last.value, last.norm, last.gradient_tol, last.flatness, last.norms, last.num_steps,
        last.num_matvecs, last.num_gradients,
    )  # fmt: skip


def _begin(op: EmpiricalRiskOperator, settings: _Settings) -> _State:
    value, g = value_and_gradient(op, op.params)
    norm = vectors.norm(g)
    nan = jnp.full((), jnp.nan, norm.dtype)
    norms = jnp.full(settings.max_steps + 1, jnp.nan, norm.dtype).at[0].set(norm)
    zero = jnp.int32(0)
    return _State(
        op.params, value, g, norm, nan, nan, norms, zero, zero, zero + 1, jnp.full_like(norm, jnp.inf), zero - 1
    )


def _advance(
    op: EmpiricalRiskOperator, seed: UInt32[Array, "2"], tolerances: Tolerances, settings: _Settings, state: _State
) -> _State:
    # Determines the status of the current point and, if the search continues, takes a step.
    here = replace(op, params=state.params)
    length = 1 + vectors.norm(state.params)
    radius = jnp.minimum(state.radius, length)
    proposal = newton_steps.propose(
        settings.method, here, state.g, radius, seed, num_basis=settings.num_basis, cutoff=settings.cutoff
    )
    limit, flatness = tolerances.limit(proposal.scale, length), flatness_at(state.norm, proposal.stretch, length)
    finite = jnp.isfinite(state.value) & jnp.isfinite(state.norm) & jnp.isfinite(proposal.scale)
    status = jnp.where(state.num_steps >= settings.max_steps, SearchStatus.OUT_OF_STEPS, -1)
    status = jnp.where(flatness <= tolerances.flatness, SearchStatus.GRADIENT_FLAT, status)
    status = jnp.where(state.norm <= limit, SearchStatus.CONVERGED, status)
    status = jnp.where(finite, status, SearchStatus.NOT_FINITE).astype(jnp.int32)
    size = vectors.norm(proposal.direction)
    start = jnp.where(size > length, length / jnp.where(size > 0, size, 1), 1).astype(state.norm.dtype)
    params, value, g, norm, tried, accepted = _line_search(op, settings, state, proposal, start, status < 0)
    steps = state.num_steps + accepted.astype(state.num_steps.dtype)
    went = vectors.norm(vectors.subtract(params, state.params))
    return _State(
        params=params,
        value=value,
        g=g,
        norm=norm,
        gradient_tol=limit,
        flatness=flatness,
        norms=jnp.where(accepted, state.norms.at[steps].set(norm), state.norms),
        num_steps=steps,
        num_matvecs=state.num_matvecs + proposal.num_matvecs,
        num_gradients=state.num_gradients + tried,
        # The next radius is twice the accepted length: if one direction allows only short steps, damping keeps others.
        radius=jnp.where(accepted, 2 * jnp.maximum(went, jnp.where(tried == 1, radius, 0)), radius),
        status=jnp.where((status < 0) & ~accepted, SearchStatus.STALLED, status).astype(jnp.int32),
    )


def _line_search(
    op: EmpiricalRiskOperator,
    settings: _Settings,
    state: _State,
    proposal: newton_steps.Proposal,
    start: Float[Array, ""],
    active: Bool[Array, ""],
) -> tuple[Params, Float[Array, ""], Vector, Float[Array, ""], Int[Array, ""], Bool[Array, ""]]:
    # Halves the step until it makes progress; returns the point, its loss, gradient and norm, trials and success.
    noise = 8 * jnp.finfo(state.value.dtype).eps * jnp.abs(state.value)

    def enough(t: Float[Array, ""], value: Float[Array, ""], norm: Float[Array, ""]) -> Bool[Array, ""]:
        if settings.method == "saddle-free-newton":
            # Near a minimum, where the loss is constant up to rounding, the gradient decides.
            falls = value <= state.value + _ARMIJO * t * proposal.slope
            return jnp.where(jnp.abs(value - state.value) <= noise, norm < state.norm, falls)
        # The norm must also decrease strictly: within rounding of the required decrease there may be no progress.
        left = norm / jnp.where(state.norm > 0, state.norm, 1)
        return (norm < state.norm) & (left**2 <= 1 + 2 * _ARMIJO * t * proposal.slope)

    def trial(carry: Any) -> Any:
        t, tried, *_ = carry
        params = vectors.axpy(t, proposal.direction, state.params)
        value, g = value_and_gradient(op, params)
        norm = vectors.norm(g)
        return t / 2, tried + 1, params, value, g, norm, enough(t, value, norm)

    def unfinished(carry: Any) -> Bool[Array, ""]:
        return active & ~carry[-1] & (carry[1] < _HALVINGS)

    first = (start, jnp.int32(0), state.params, state.value, state.g, state.norm, jnp.bool(False))
    _, tried, params, value, g, norm, accepted = lax.while_loop(unfinished, trial, first)
    params, value, g, norm = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old),
        (params, value, g, norm),
        (state.params, state.value, state.g, state.norm),
    )
    return params, value, g, norm, tried, accepted
