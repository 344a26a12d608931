"""Whether a training step is stable where it stands."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from jaxopt_study._checks import check_integer, check_key, check_real
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import GROWTH
from jaxopt_study.dynamics._linearised_step import linear_step
from jaxopt_study.dynamics._multi_step_jacobian import Composition, compose
from jaxopt_study.dynamics._state_roles import Freeze, leaf_paths
from jaxopt_study.dynamics._step_period import period
from jaxopt_study.dynamics._updates import check_optimizer
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.linalg.krylov_schur import krylov_schur
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, Key, LossFn, Params

Kind = Literal["stable", "marginal", "oscillation", "escape", "unknown"]

_WIDE = 0.1  # an interval of more than this about 1 holds methods that converge at once and that diverge at once


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("radius", "error", "eigenvalues", "residuals", "errors", "direction", "num_matvecs"),
    meta_fields=("kind", "converged", "frozen", "num_steps"),
)
@dataclass(frozen=True)
class Stability:
    """What the linearised training step does to a small deviation.

    Attributes:
        radius: The spectral radius: by what a deviation is multiplied in one step, in the long run.
        error: Half-width of the interval about `radius`, from the residual and the eigenvalue's condition.
        eigenvalues: (k,) complex, the largest modulus first: the outermost ones, and those farthest from 1. They belong
            to the map of `num_steps` steps, so |μ| = radiusᵖ for a period of p.
        residuals: (k,) ‖A x − μ x‖ of each, with ‖x‖ = 1, recomputed.
        errors: (k,) of each, its condition times the residual and what rounding hides in it.
        direction: The deviation that belongs to `radius`, of unit length, in the parameters.
        num_matvecs: Products with the Hessian.
        kind: "escape" if a real eigenvalue beyond 1 leads: the loss falls away on both sides. "oscillation" if one
            beyond −1, or a complex pair, does: each step overshoots. "marginal" if the radius is 1 within its error, as
            with any direction in which the loss is flat; "stable" if it is less. "unknown" if it is not finite, or if
            the error is too large to tell (more than .1).
        converged: Whether every residual reached the tolerance.
        frozen: Paths of the leaves of the state that were held constant.
        num_steps: p, steps of the map that was linearised: 1, or the period of an optimizer that has one.
    """

    radius: float
    error: float
    eigenvalues: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    direction: Params = field(repr=False)
    num_matvecs: int
    kind: Kind
    converged: bool
    frozen: tuple[str, ...]
    num_steps: int = 1


@nan_is_an_answer
def stability(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    key: Key | None = None,
    freeze: Freeze = "statistics",
    batch_size: int | None = None,
    num_steps: int | None = None,
    k: int = 6,
    tol: float = 1e-3,
    basis_size: int | None = None,
    max_matvecs: int = 400,
) -> Stability:
    """Find the spectral radius of the linearised training step.

    With parameters θ, the optimizer's memory m of past gradients, and the gradient taken where the optimizer wants it,
    at `gradient_point(θ, m)`, one step maps (θ, m) ↦ (θ′, m′). Near the present point a deviation δ grows as

        δₜ₊₁ = A δₜ,  A = ∂(θ′, m′)/∂(θ, m),  radius = max |μ|,  A x = μ x

    For gradient descent A = I − ηH, so the radius passes 1 where H has an eigenvalue above 2/η (oscillation, μ < −1) or
    below 0 (escape, μ > 1).

    Statistics of the gradient's size (second moments, sums of squares, maxima, norms kept in the state) are frozen:
    what the present step computes for them counts as a constant, because they change slowly, and because with them
    frozen the map of an adaptive method is that of a linear method on the preconditioned Hessian. `state_roles` says
    which they are, and finds it out by running the optimizer. Counters are not variables: the step is the one that
    comes next, with its learning rate and its bias correction. What has no memory, such as a clip or a trust ratio, is
    differentiated as it is.

    Where the optimizer starts anew after p steps, as inside `optax.MultiSteps`, `apply_every`, `lookahead` and
    `contrib.sam`, single steps say nothing, and the map of p steps is linearised, each step where the one before leads:

        A = A_p ⋯ A₁,  radius = (max |μ|)^(1/p)

    The radius is then still the growth in one step, on average over a period, and the phase does not matter. The period
    is found by running the optimizer and looking which counters return. One that only goes on counting shows none: for
    a rule that alternates by its parity, give `num_steps`.

    Where the loss is flat, μ = 1 exactly for every method without weight decay. So a network's radius is hardly ever
    below 1, and a sound run is "marginal", or an "escape" at a radius such as 1.001, which takes a thousand steps. That
    is why eigenvalues farthest from 1 are sought too: the sharpest directions, which go unstable first.

    Args:
        optimizer: Any Optax transformation, or chain of this package.
        opt_state: Its state, as the last step left it.
        loss: loss(params, data) → scalar, without randomness.
        params: θ, where the last step left them; for `optax.lookahead` the `optax.LookaheadParams`, of which the loss
            is given the fast ones.
        data: What the loss is taken over, passed as it is.
        key: For the start vector; None for the same one every time.
        freeze: "statistics"; "nothing" for the derivative of the whole map, statistics varying; or a function of a path
            of the state (as in `state_roles`) that says which leaves are frozen.
        batch_size: Examples per batch, if the loss, a mean over examples, shall be read in batches; None for all.
        num_steps: p, a multiple of the period; None to find it.
        k: How many eigenvalues: half the largest in modulus, half the farthest from 1. Conjugates come on top.
        tol: Residual that is small enough, relative to max(|μ|, 1); at least 64 p ε, which is 8e-6 p where parameters
            or memory are in single precision.
        basis_size: How many vectors are held, each of the size of parameters and memory; None for max(20, 3k).
        max_matvecs: When to give up.

    Returns:
        Radius, error, verdict and eigenvalues. Cost: usually 20 to 100 Hessian-vector products, p times as many for a
        period of p, reported; memory `basis_size` + 3 times that of parameters and memory, twice `basis_size` at
        restarts, and p linearisations.

    Raises:
        TypeError: If the optimizer, the parameters, the loss or tol are of the wrong kind, or arrays are traced.
        ValueError: If the state belongs to others, the parameters are not finite, the period cannot be told, or
            `num_steps`, k, tol or `basis_size` are out of range.

    Example:
        >>> loss = lambda p, _: 0.5 * (50.0 * p[0] ** 2 + p[1] ** 2)
        >>> params, tx = jnp.ones(2), optax.sgd(0.05)
        >>> found = stability(tx, tx.init(params), loss, params, key=jax.random.key(0))
        >>> print(found.kind, round(found.radius, 3))  # |1 − .05 · 50|
        oscillation 1.5

    References:
        Cohen, Kaur, Li, Kolter and Talwalkar (2021), Gradient descent on neural networks typically occurs at the edge
        of stability; Cohen et al. (2022), Adaptive gradient methods at the edge of stability, section 3 (frozen
        preconditioner).
    """
    name = "stability"
    k = check_integer(name, "k", k, 2, remedy="One eigenvalue for each end of the spectrum is the least.")
    tol = float(check_real(name, "tol", tol, 0.0, 1.0, closed="()", remedy="1e-3 tells 1 from 1.002."))
    max_matvecs = check_integer(name, "max_matvecs", max_matvecs, 1)
    least = 2 * k + 2
    basis_size = check_integer(
        name, "basis_size", max(20, 3 * k) if basis_size is None else basis_size, least, remedy=f"2k + 2 is {least}."
    )
    key = check_key(name, jax.random.key(0) if key is None else key)
    check_concrete(name, opt_state, params, data)
    optimizer, opt_state, params = check_optimizer(name, optimizer, opt_state, params)
    num_steps = period(name, optimizer, params, opt_state, num_steps)
    with mesh_context(params):
        step = linear_step(optimizer, opt_state, loss, params, data, freeze, batch_size, num_steps)
        held, eps = step.held, vectors.epsilon(step.like)
        _check_tol(tol, num_steps, eps)
        step = compose(step, num_steps)
        ritz = krylov_schur(
            step,
            k,
            key=key,
            tol=tol,
            rounding=2 * num_steps * eps,  # the residual is itself a difference of rounded vectors, as long as A x
            basis_size=basis_size,
            max_matvecs=-(-max_matvecs // num_steps),
            rankings=(np.abs, _from_one),
        )
        scales = step.steps[0].scales if isinstance(step, Composition) else step.scales
        direction = _direction(ritz.leading, scales)
        kind = _verdict(ritz.values, ritz.errors)
        if kind == "escape" and isinstance(step, Composition) and step.changes_sign(ritz.leading):
            kind = "oscillation"
    radius, error = _per_step(float(np.abs(ritz.values[0])), float(ritz.errors[0]), num_steps)
    return Stability(
        radius=radius,
        error=error,
        eigenvalues=ritz.values,
        residuals=ritz.residuals,
        errors=ritz.errors,
        direction=direction,
        num_matvecs=num_steps * ritz.num_matvecs,
        kind=kind,
        converged=ritz.converged,
        frozen=tuple(path for path, is_held in zip(leaf_paths(opt_state), held, strict=True) if is_held),
        num_steps=num_steps,
    )


def _from_one(values: np.ndarray) -> np.ndarray:
    return np.abs(values - 1.0)


def _verdict(values: np.ndarray, errors: np.ndarray) -> Kind:
    """Return the verdict of eigenvalues of which the largest comes first."""
    if not np.isfinite(values).all():
        return "unknown"
    sizes = np.abs(values)
    beyond = np.flatnonzero(sizes > 1.0 + errors)
    if len(beyond):
        leading, error = complex(values[beyond[0]]), errors[beyond[0]]
        return "escape" if leading.real > 0 and abs(leading.imag) <= error else "oscillation"
    undecided = sizes + errors >= 1.0
    if not undecided.any():
        return "stable"
    return "unknown" if errors[undecided].max() > _WIDE else "marginal"


def _per_step(radius: float, error: float, num_steps: int) -> tuple[float, float]:
    """Return radius and error of one step from those of several."""
    if num_steps == 1 or not np.isfinite(radius + error):
        return radius, error
    low, middle, high = (max(size, 0.0) ** (1 / num_steps) for size in (radius - error, radius, radius + error))
    return middle, max(high - middle, middle - low)


@jax.jit
def _direction(leading: Any, scales: Any) -> Params:
    return vectors.normalize(jax.tree.map(lambda x, s: x * s, leading[0], scales[0]))[0]


def _check_tol(tol: float, num_steps: int, eps: float) -> None:
    floor = 4 * GROWTH * num_steps * eps
    if tol < floor:
        wider = "convert parameters, data and optimizer's state to float"
        remedy = f"Ask for {4 * floor:.1e}, or {wider}64."
        if 4 * floor > _WIDE:
            remedy = f"No tolerance that could be met tells 1 from others: {wider}32 or float64."
        raise ValueError(
            f"stability: tol must be at least {floor:.1e}, what rounding leaves of a residual in this precision; "
            f"received {tol}. {remedy}"
        )
