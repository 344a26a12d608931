"""Condition number of an operator, and ill-conditioning of a gradient step."""

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from jaxopt_study._checks import check_integer, is_finite
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import GROWTH, check_noise_floor
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.curvature.spectrum._eigenpairs import Eigenpairs, eigenpairs
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_tolerance, check_vector, key_or_fixed
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key, Vector


class Conditioning(IntEnum):
    """Status of a condition number."""

    DETERMINED = 0  # both ends are resolved, and the smallest eigenvalue is positive beyond its error
    UNDETERMINED = 1  # the smallest eigenvalue is within its error, or the noise of products, of zero
    INDEFINITE = 2  # the smallest eigenvalue is negative, and the ratio of the ends has no meaning
    NOT_FINITE = 3  # a product was NaN or infinite


class ConditionNumber(NamedTuple):
    """Condition number κ = λmax/λmin of a positive definite operator, with bounds.

    Attributes:
        value: κ; NaN unless the status is `DETERMINED`.
        lower: Lower bound on max|λ|/min|λ| for every status; 1 if unknown.
        upper: Upper bound on κ, provided that no smaller eigenvalue was missed; infinite unless determined.
        largest: Largest Ritz value.
        smallest: Smallest Ritz value.
        residuals: Residuals of these two; an eigenvalue lies within this distance of each, up to the noise of products.
        status: A `Conditioning`, as an integer.
        num_matvecs: Number of products.
    """

    value: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    largest: Float[Array, ""]
    smallest: Float[Array, ""]
    residuals: Float[Array, "2"]
    status: Int[Array, ""]
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.condition_number)

    @property
    def verdict(self) -> str:
        """Status as a word, outside of a trace."""
        return Conditioning(int(self.status)).name.lower().replace("_", " ")


class IllConditioning(NamedTuple):
    """Quadratic model f(θ − εg) ≈ f − ε gᵀg + ½ ε² gᵀHg of a step along the gradient g.

    Attributes:
        gradient_norm: ‖g‖.
        gg: gᵀg, the linear term.
        ghg: gᵀHg, twice the quadratic term.
        ghg_error: Error of gᵀHg from the noise of the product: noise_floor · ‖g‖ · max(‖Hg‖, |λ|max ‖g‖); at least the
            smallest normal number, below which gᵀHg is 0, and infinite where gᵀHg is.
        hg_norm: ‖Hg‖.
        curvature: gᵀHg/gᵀg, the curvature along the gradient; between λmin and λmax.
        cauchy_step: ε = gᵀg/gᵀHg, the minimiser of the quadratic model; infinite if gᵀHg ≤ 0.
        largest_step: 2 gᵀg/gᵀHg; the model decreases for smaller ε > 0; infinite if gᵀHg ≤ 0.
        cosine: gᵀHg/(‖g‖ ‖Hg‖): ±1 for an eigenvector.
        negative: Whether gᵀHg < 0 beyond its error: the model decreases for every step.
        top_share: ‖Vᵀg‖²/‖g‖² for the eigenvectors V of the k largest eigenvalues; NaN for k = 0.
        top_share_error: Bound on the error of the share from that of V: 2 s + s² with s = √k · max residual/gap, gap
            from λₖ to the next eigenvalue (Davis and Kahan), at most 1.
        top_values: The k largest eigenvalues.
        num_matvecs: Number of products.

    At a critical point, g = 0, all ratios are NaN.
    """

    gradient_norm: Float[Array, ""]
    gg: Float[Array, ""]
    ghg: Float[Array, ""]
    ghg_error: Float[Array, ""]
    hg_norm: Float[Array, ""]
    curvature: Float[Array, ""]
    cauchy_step: Float[Array, ""]
    largest_step: Float[Array, ""]
    cosine: Float[Array, ""]
    negative: Bool[Array, ""]
    top_share: Float[Array, ""]
    top_share_error: Float[Array, ""]
    top_values: Float[Array, " k"]
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.ill_conditioning)
    plot = plotted


@nan_is_an_answer
def condition_number(
    op: Operator,
    *,
    key: Key | None = None,
    tol: float | None = None,
    noise_floor: float | None = None,
    num_basis: int | None = None,
    max_matvecs: int = 500,
) -> ConditionNumber:
    """Compute the condition number κ = λmax/λmin of a positive definite operator, or why it is undetermined.

    Both ends of the spectrum come from one run of Lanczos, with recomputed residuals ρ. With the noise
    η = noise_floor · max|θ| of a product, λmin lies in θmin ± (ρ + η):

        θmin < −η                 indefinite: proved by a Rayleigh quotient below zero
        θmin ≤ ρ + η              undetermined: zero is not excluded
        else                      κ = θmax/θmin, between (θmax − ρ − η)/(θmin + ρ + η) and (θmax + ρ + η)/(θmin − ρ − η)

    The Hessian of a network is nearly always indefinite or undetermined, because many of its eigenvalues are below
    rounding. In single precision every κ above about 10⁶ is undetermined. The upper bound assumes that Lanczos has
    found the smallest eigenvalue.

    Args:
        op: H, symmetric.
        key: Key of the random start; None for a fixed one.
        tol: Tolerance of a residual, relative to max|θ|; None takes twice the noise floor, so only rounding limits κ.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; None takes 16 ε, see `noise_floor`.
        num_basis: Rows of the basis, as in `eigenpairs`; None takes 40, at most n.
        max_matvecs: Largest number of products; too few leave a larger residual.

    Returns:
        Value, bounds and status. Cost: up to `max_matvecs` products; memory as in `eigenpairs`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If n = 1, `tol` is below the noise floor, or an argument is out of range.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.linspace(0.5, 10.0, 100)
        >>> result = condition_number(from_matvec(lambda v: spectrum * v, spectrum), key=jax.random.key(0))
        >>> print(result.verdict, result.value.round(3), bool(result.lower <= 20.0 <= result.upper))
        determined 20.0 True
        >>> shifted = from_matvec(lambda v: (spectrum - 1.0) * v, spectrum)
        >>> print(condition_number(shifted, key=jax.random.key(0)).verdict)
        indefinite

    References:
        Parlett (1998), The Symmetric Eigenvalue Problem, theorem 4.5.1. Goodfellow, Bengio and Courville (2016), Deep
        Learning, equation (4.2).
    """
    name = "condition_number"
    if check_operator(name, op).size < 2:
        raise ValueError("condition_number needs an operator of size n ≥ 2; received n = 1, with a single eigenvalue.")
    key = key_or_fixed(key, name)
    floor: Any = check_noise_floor(name, op, noise_floor, below=0.5)
    usual: Any = 2 * floor if isinstance(floor, Tracer) or floor > 0 else 2 * vectors.epsilon(op.like)
    tol = usual if tol is None else tol
    check_tolerance(name, tol, floor, usual=usual)
    max_matvecs = check_integer(name, "max_matvecs", max_matvecs, 4, remedy="Two eigenvalues are computed and checked.")
    if num_basis is not None:
        num_basis = check_integer(name, "num_basis", num_basis, min(op.size, 3))
    pairs = eigenpairs(
        op, 2, which="BE", tol=cast(Any, tol), key=key,
        num_basis=min(op.size, 40) if num_basis is None else num_basis,
        max_matvecs=max_matvecs, noise_floor=cast(Any, floor),
    )  # fmt: skip
    return _ratio(pairs.values, pairs.residuals, pairs.num_matvecs, floor)


@jax.jit
def _ratio(
    values: Float[Array, "2"], residuals: Float[Array, "2"], num_matvecs: Int[Array, ""], noise_floor: ScalarLike
) -> ConditionNumber:
    (values, residuals), unit = vectors.unscaled((values, residuals))  # below 1e-32 the noise would underflow
    smallest, largest = jnp.min(values), jnp.max(values)
    order = jnp.argsort(-values)
    scale = jnp.max(jnp.abs(values))
    noise = (noise_floor * scale).astype(values.dtype)
    high, low = residuals[order[0]] + noise, residuals[order[-1]] + noise
    finite = jnp.all(jnp.isfinite(values) & jnp.isfinite(residuals))
    status = jnp.where(smallest <= low, Conditioning.UNDETERMINED, Conditioning.DETERMINED)
    status = jnp.where(smallest < -noise, Conditioning.INDEFINITE, status)
    status = jnp.where(finite, status, Conditioning.NOT_FINITE).astype(jnp.int32)
    determined = status == Conditioning.DETERMINED
    nearest = jnp.min(jnp.abs(values) + residuals) + noise  # an upper bound on min|λ|
    lower = jnp.where(finite & (scale > 0), jnp.maximum((scale - noise) / jnp.where(scale > 0, nearest, 1), 1), 1)
    above_zero = jnp.where(determined, smallest - low, 1)
    upper = jnp.where(determined, (largest + high) / above_zero, jnp.inf)
    value = jnp.where(determined, largest / jnp.where(determined, smallest, 1), jnp.nan)
    ends = unit * jnp.stack([residuals[order[0]], residuals[order[-1]]])
    return ConditionNumber(value, lower, upper, unit * largest, unit * smallest, ends, status, num_matvecs)


@nan_is_an_answer
def ill_conditioning(
    op: Operator,
    grads: Vector,
    *,
    k: int = 0,
    key: Key | None = None,
    tol: float = 1e-3,
    noise_floor: float | None = None,
) -> IllConditioning:
    """Compare the linear and the quadratic term of a gradient step's quadratic model.

    A step −εg changes the loss by −ε gᵀg + ½ ε² gᵀHg to second order. Where the quadratic term is large, learning is
    slow although the gradient is large: ε must stay below 2 gᵀg/gᵀHg, which is 2/λmax for a gradient along the sharpest
    direction. The result is about one point and one direction, without an optimizer; see `dynamics` for that.

    Args:
        op: H, the Hessian.
        grads: g, the gradient at the same point, like a vector of H.
        k: Dimension of the top eigenspace; 0 omits it and takes a single product.
        key: Key of the eigensolver; None for a fixed one.
        tol: Tolerance of the eigenpairs' residuals, relative to the largest |λ|.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; None takes 16 ε, see `noise_floor`.

    Returns:
        Terms, steps and share. Cost: one product, and those of `eigenpairs(op, k + 1)`.

    Raises:
        ValueError: If k is out of range, `tol` below the noise floor, or the gradient does not fit or is not finite.
        TypeError: If an argument has the wrong type.

    Example:
        >>> from jaxopt_study.curvature import from_matrix
        >>> op = from_matrix(jnp.diag(jnp.array([10.0, 1.0])))
        >>> result = ill_conditioning(op, jnp.array([1.0, 1.0]), k=1, key=jax.random.key(0))
        >>> print(result.gg.round(4), result.ghg.round(4), result.largest_step.round(4), result.top_share.round(4))
        2.0 11.0 0.3636 0.5

    References:
        Goodfellow, Bengio and Courville (2016), Deep Learning, section 8.2.1. Davis and Kahan (1970), SIAM J. Numer.
        Anal. 7. Gur-Ari, Roberts and Dyer (2018), Gradient descent happens in a tiny subspace, for the share.
    """
    name = "ill_conditioning"
    check_operator(name, op)
    k = check_integer(name, "k", k, 0, op.size)
    grads = check_vector(op.like, grads, what="gradient")
    if not all(map(is_finite, jax.tree.leaves(grads))):
        raise ValueError(f"{name} needs a finite gradient; received NaN or infinity.")
    key, floor = key_or_fixed(key, name), check_noise_floor(name, op, noise_floor)
    check_tolerance(name, tol, floor if k else 0)
    direction, norm = _direction(grads)
    image = op @ direction
    if k == 0:
        return _terms(direction, norm, image, None, floor, 0)
    pairs = eigenpairs(op, min(k + 1, op.size), which="LA", tol=tol, key=key, noise_floor=floor)
    return _terms(direction, norm, image, pairs, floor, k)


_direction = jax.jit(vectors.normalize)


@partial(jax.jit, static_argnums=5)
def _terms(
    direction: Vector, norm: Float[Array, ""], image: Vector, pairs: Eigenpairs | None, noise_floor: ScalarLike, k: int
) -> IllConditioning:
    """Return the terms from g/‖g‖, ‖g‖ and H g/‖g‖, which avoids overflow and underflow."""
    some, curvature, length = norm > 0, vectors.inner(direction, image), vectors.norm(image)
    nan = jnp.full((), jnp.nan, norm.dtype)
    if pairs is None:
        share, share_error, values, spread = nan, nan, jnp.zeros(0, norm.dtype), length
        num_matvecs = jnp.int32(1)
    else:
        values = pairs.values[:k]
        inside = vectors.project(jax.tree.map(lambda leaf: leaf[:k], pairs.vectors), direction)
        share = jnp.where(some, jnp.sum(inside**2), nan)
        sine = jnp.zeros((), norm.dtype)  # for the whole space
        if pairs.values.shape[0] > k:
            residuals = pairs.residuals + (noise_floor * pairs.scale).astype(norm.dtype)
            gap = jnp.maximum(pairs.values[k - 1] - pairs.values[k] - residuals[k], 0)
            worst = jnp.sqrt(float(k)) * jnp.max(residuals[:k])
            sine = jnp.where(worst < gap, worst / jnp.where(gap > 0, gap, 1), 1)
        rounding = GROWTH * jnp.finfo(norm.dtype).eps * share
        share_error = jnp.where(some, jnp.minimum(2 * sine + sine**2 + rounding, 1), nan).astype(norm.dtype)
        spread = jnp.maximum(length, pairs.scale)
        num_matvecs = jnp.asarray(pairs.num_matvecs + 1, jnp.int32)
    error = (noise_floor * spread).astype(norm.dtype)
    downhill = curvature > 0
    infinite = jnp.where(jnp.isfinite(curvature) & some, jnp.inf, jnp.nan)
    cauchy = jnp.where(downhill & some, 1 / jnp.where(downhill, curvature, 1), infinite)
    cosine = jnp.where(length > 0, curvature / jnp.where(length > 0, length, 1), nan)
    ghg, tiny = norm * curvature * norm, jnp.finfo(norm.dtype).tiny
    # gᵀHg may underflow to 0, with an error of the smallest number, or overflow, with an infinite error.
    ghg_error = jnp.where(jnp.isfinite(ghg), jnp.maximum(norm * error * norm, jnp.where(some, tiny, 0)), jnp.inf)
    return IllConditioning(
        norm, norm**2, ghg, ghg_error, norm * length, jnp.where(some, curvature, nan),
        cauchy, 2 * cauchy, cosine, curvature < -error, share, share_error, values, num_matvecs,
    )  # fmt: skip
