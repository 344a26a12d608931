"""Kind of a point: the decision from its gradient, its extreme eigenvalues and its Morse index."""

from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study.curvature.points._index_counts import MorseIndex
from jaxopt_study.curvature.points._tolerances import Tolerances, flatness_at
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Params, Vector


class PointKind(IntEnum):
    """Kind of a point of a loss."""

    MINIMUM = 0  # every eigenvalue is above τ: a strict, isolated minimum
    SADDLE = 1  # an eigenvalue is below −τ and one above τ; others may be flat
    MAXIMUM = 2  # every eigenvalue is below −τ
    DEGENERATE = 3  # some directions are flat, so the Hessian does not decide: a valley, a monkey saddle or a plateau
    GRADIENT_FLAT = 4  # not critical, but Hg ≈ 0: the gradient hardly changes along itself
    NOT_CRITICAL = 5
    NOT_FINITE = 6  # loss, gradient or a product is NaN or infinite
    UNRESOLVED = 7  # critical, but the errors of the eigenvalues leave the kind open


class ExtremeEigenvalues(NamedTuple):
    """The smallest and the largest eigenvalue, with residuals and bounds."""

    values: Float[Array, "2"]  # Rayleigh quotients
    residuals: Float[Array, "2"]
    smallest: Float[Array, "2"]  # bounds on the smallest eigenvalue
    largest: Float[Array, "2"]  # bounds on the largest eigenvalue
    down: Vector  # vector of the smallest Rayleigh quotient, as a block of one


class Decision(NamedTuple):
    """Kind of a point, with the quantities behind it."""

    kind: Int[Array, ""]
    gradient_norm: Float[Array, ""]
    gradient_tol: Float[Array, ""]
    flatness: Float[Array, ""]
    index: MorseIndex
    open_below: Bool[Array, ""]  # whether a descent direction is expected or not excluded


# θ, the loss, the gradient g, and H g/‖g‖
Evaluation = tuple[Params, Float[Array, ""], Vector, Vector]


@jax.jit
def decide(here: Evaluation, tolerances: Tolerances, ends: ExtremeEigenvalues, index: MorseIndex) -> Decision:
    """Return the kind of a point from loss and gradient, the extreme eigenvalues and the index."""
    params, value, g, image = here
    norm, stretch = vectors.norm(g), vectors.norm(image)
    length = 1 + vectors.norm(params)
    spectral_scale = jnp.max(jnp.abs(ends.values))
    limit, flatness = tolerances.limit(spectral_scale, length), flatness_at(norm, stretch, length)
    kind, index = _of_critical(ends, index)
    critical = norm <= limit
    away = jnp.where(flatness <= tolerances.flatness, PointKind.GRADIENT_FLAT, PointKind.NOT_CRITICAL)
    kind = jnp.where(critical, kind, away)
    finite = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.isfinite(spectral_scale)
    kind = jnp.where(finite, kind, PointKind.NOT_FINITE).astype(jnp.int32)
    open_below = jnp.isin(kind, jnp.array([PointKind.SADDLE, PointKind.DEGENERATE, PointKind.UNRESOLVED], kind.dtype))
    return Decision(kind, norm, limit, flatness, index, open_below)


def _of_critical(ends: ExtremeEigenvalues, index: MorseIndex) -> tuple[Int[Array, ""], MorseIndex]:
    """Return the kind of a critical point, and the index with the counts that the extreme eigenvalues prove."""
    tau = index.tau
    down = (index.lower_bound > 0) | (ends.smallest[1] < -tau)
    up = (index.positive_lower_bound > 0) | (ends.largest[0] > tau)
    none_down, none_up = (ends.smallest[0] >= -tau) & ~down, (ends.largest[1] <= tau) & ~up
    far = jnp.abs(ends.values) + jnp.maximum(ends.residuals, index.error)
    flat = (index.flat_interval[0] > 0) | jnp.any(far <= tau)
    flat |= (none_down & (ends.smallest[1] <= tau)) | (none_up & (ends.largest[0] >= -tau))
    kind = jnp.select(
        [
            down & up,
            (ends.smallest[0] > tau) & ~down & ~flat,
            (ends.largest[1] < -tau) & ~up & ~flat,
            flat & (none_down | none_up),
        ],
        [PointKind.SADDLE, PointKind.MINIMUM, PointKind.MAXIMUM, PointKind.DEGENERATE],
        PointKind.UNRESOLVED,
    )
    lower = jnp.maximum(index.lower_bound, down.astype(index.lower_bound.dtype))
    return kind, index._replace(
        lower_bound=lower,
        estimate=jnp.maximum(index.estimate, lower.astype(index.estimate.dtype)),
        interval=jnp.maximum(index.interval, lower.astype(index.interval.dtype)),
        positive_lower_bound=jnp.maximum(index.positive_lower_bound, up.astype(index.positive_lower_bound.dtype)),
    )
