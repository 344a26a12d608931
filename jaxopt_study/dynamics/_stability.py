"""Stability of a training step: the spectral radius of its linearisation."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Float64, Inexact

from jaxopt_study._checks import check_integer, check_key, check_real
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import GROWTH
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._linearised_step import linear_step
from jaxopt_study.dynamics._multi_step_jacobian import Composition, compose
from jaxopt_study.dynamics._state_roles import Freeze, leaf_paths
from jaxopt_study.dynamics._step_period import period
from jaxopt_study.dynamics._updates import check_optimizer
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.linalg.krylov_schur import krylov_schur
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector

Kind = Literal["stable", "marginal", "oscillation", "escape", "unknown"]

_WIDE = 0.1  # largest error of a radius near 1 with which a verdict is meaningful


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("radius", "error", "eigenvalues", "residuals", "errors", "direction", "num_matvecs"),
    meta_fields=("kind", "converged", "frozen", "num_steps"),
)
@dataclass(frozen=True)
class Stability:
    """Eigenvalues of the linearised training step, with error bounds.

    Attributes:
        radius: Spectral radius: asymptotic growth factor of a deviation in one step.
        error: Half-width of the interval about `radius`, from the residual and the eigenvalue's condition number.
        eigenvalues: μ, the largest modulus first: the outermost ones, and those farthest from 1. They are those of the
            map of `num_steps` steps, so |μ| = radiusᵖ for a period of p.
        residuals: ‖A x − μ x‖ of each, with ‖x‖ = 1, recomputed.
        errors: Condition number of each times residual plus rounding.
        direction: Unit deviation of the parameters that belongs to `radius`.
        num_matvecs: Number of products with the Hessian.
        kind: "escape" if the leading eigenvalue is real and > 1: the loss decreases on both sides. "oscillation" if it
            is < −1 or a complex pair: each step overshoots. "marginal" if the radius is 1 within its error, as with any
            flat direction; "stable" if it is less. "unknown" if it is not finite or its error is more than 0.1.
        converged: Whether all residuals are within the tolerance.
        frozen: Paths of the leaves of the state that were held constant.
        num_steps: p, number of steps of the linearised map: 1, or the optimizer's period.
    """

    radius: float
    error: float
    eigenvalues: Inexact[np.ndarray, " k"]
    residuals: Float64[np.ndarray, " k"]
    errors: Float64[np.ndarray, " k"]
    direction: Params = field(repr=False)
    num_matvecs: int
    kind: Kind
    converged: bool
    frozen: tuple[str, ...]
    num_steps: int = 1

    __repr__, _repr_html_ = displayed(_cards.stability)
    to_pandas = tabulated(_cards.columns_of_stability)
    plot = plotted


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

    With parameters θ, the optimizer's momentum buffers m, and the gradient at `gradient_point(θ, m)`, one step maps
    (θ, m) ↦ (θ′, m′). Near the current point a deviation δ evolves as

        δₜ₊₁ = A δₜ,  A = ∂(θ′, m′)/∂(θ, m),  radius = max |μ|,  A x = μ x

    For gradient descent A = I − ηH, so the radius passes 1 where H has an eigenvalue above 2/η (oscillation, μ < −1) or
    below 0 (escape, μ > 1).

    Second-moment buffers (also sums of squares, maxima and norms in the state) are frozen: their values after the next
    step are constants, because they change slowly, and because the map of an adaptive method is then that of a linear
    method on the preconditioned Hessian. `state_roles` detects them by running the optimizer. Step counters are not
    variables: the step is the next one, with its learning rate and bias correction. Operations without a state, such as
    a clip or a trust ratio, are differentiated.

    For an optimizer with a period of p steps, as inside `optax.MultiSteps`, `apply_every`, `lookahead` and
    `contrib.sam`, the map of p steps along the trajectory is linearised:

        A = A_p ⋯ A₁,  radius = (max |μ|)^(1/p)

    The radius is then the growth per step, averaged over a period, and independent of the phase. The period is detected
    from counters that return to their values. For a rule that alternates by the parity of a counter, give `num_steps`.

    In flat directions μ = 1 exactly for every method without weight decay. A network's radius is therefore hardly ever
    below 1, and a stable run is "marginal", or an "escape" at a radius such as 1.001, over a thousand steps. The
    eigenvalues farthest from 1 are therefore computed, too: they belong to the sharpest directions, which become
    unstable first.

    Args:
        optimizer: Any Optax transformation, or chain of this package.
        opt_state: Its state after the last step.
        loss: loss(params, data) → scalar, without randomness.
        params: θ after the last step; for `optax.lookahead` the `optax.LookaheadParams`, whose fast parameters are
            those of the loss.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        key: Key of the random start; None for a fixed one.
        freeze: "statistics" for second-moment buffers; "nothing" for the derivative of the whole map; or a function of
            a path of the state (as in `state_roles`) that returns whether to freeze that leaf.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        num_steps: p, a multiple of the period; None to detect it.
        k: Number of eigenvalues: half the largest in modulus, half the farthest from 1, plus their conjugates.
        tol: Tolerance of a residual, relative to max(|μ|, 1); at least 64 p ε, which is 8e-6 p where parameters or
            momentum buffers are in single precision.
        basis_size: Number of basis vectors, each of the size of parameters and momentum buffers; None for max(20, 3k).
        max_matvecs: Largest number of products.

    Returns:
        Radius, error, kind and eigenvalues. Cost: usually 20 to 100 Hessian-vector products, p times as many for a
        period of p; memory of `basis_size` + 3 vectors, twice `basis_size` at restarts, and of p linearisations.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: If the state belongs to another optimizer, the parameters are not finite, there is no period, or
            `num_steps`, k, tol or `basis_size` is out of range.

    Example:
        >>> loss = lambda p, _: 0.5 * (50.0 * p[0] ** 2 + p[1] ** 2)
        >>> params, tx = jnp.ones(2), optax.sgd(0.05)
        >>> result = stability(tx, tx.init(params), loss, params, key=jax.random.key(0))
        >>> print(result.kind, round(result.radius, 3))  # |1 − .05 · 50|
        oscillation 1.5

    References:
        Cohen, Kaur, Li, Kolter and Talwalkar (2021), Gradient descent on neural networks typically occurs at the edge
        of stability; Cohen et al. (2022), Adaptive gradient methods at the edge of stability, section 3 (frozen
        preconditioner).
    """
    name = "stability"
    k = check_integer(name, "k", k, 2, remedy="Each end of the spectrum needs an eigenvalue.")
    tol = float(check_real(name, "tol", tol, 0.0, 1.0, closed="()", remedy="1e-3 distinguishes 1 from 1.002."))
    max_matvecs = check_integer(name, "max_matvecs", max_matvecs, 1)
    least = 2 * k + 2
    basis_size = check_integer(
        name,
        "basis_size",
        max(20, 3 * k) if basis_size is None else basis_size,
        least,
        remedy=f"It must be at least 2k + 2 = {least}.",
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
            rounding=2 * num_steps * eps,  # of a residual, a difference of rounded vectors as long as A x
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


def _from_one(values: Inexact[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    return np.abs(values - 1.0)


def _verdict(values: Inexact[np.ndarray, " k"], errors: Float[np.ndarray, " k"]) -> Kind:
    """Return the kind of stability from eigenvalues, the largest modulus first."""
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
    """Return radius and error per step from those of several steps."""
    if num_steps == 1 or not np.isfinite(radius + error):
        return radius, error
    low, middle, high = (max(size, 0.0) ** (1 / num_steps) for size in (radius - error, radius, radius + error))
    return middle, max(high - middle, middle - low)


@jax.jit
def _direction(leading: Vector, scales: Vector) -> Params:
    return vectors.normalize(jax.tree.map(lambda x, s: x * s, leading[0], scales[0]))[0]


def _check_tol(tol: float, num_steps: int, eps: float) -> None:
    floor = 4 * GROWTH * num_steps * eps
    if tol < floor:
        wider = "convert parameters, data and optimizer state to float"
        remedy = f"Ask for {4 * floor:.1e}, or {wider}64."
        if 4 * floor > _WIDE:
            remedy = f"Every tolerance above the noise is too large for a verdict here: {wider}32 or float64."
        raise ValueError(
            f"stability: tol must be at least {floor:.1e}, the rounding error of a residual in this precision; "
            f"received {tol}. {remedy}"
        )
