"""When a point counts as critical, and when as gradient-flat: what a classification and a search share."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._checks import check_real
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg.checks import check_tolerance
from jaxopt_study.linalg.layout import layout_of

FLATNESS = 1e-3  # below it, a walk of the parameters' own length leaves the gradient what it is, to a thousandth


class Tolerances(NamedTuple):
    """The tolerances of a critical point and of a gradient-flat one."""

    tol: Any
    gradient_tol: Any  # None, or a number that replaces tol ‖H‖ (1 + ‖θ‖)
    flatness: Any

    def limit(self, scale: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
        """Return the largest ‖g‖ of a critical point, from ‖H‖ and 1 + ‖θ‖."""
        return jnp.asarray(self.tol * scale * length if self.gradient_tol is None else self.gradient_tol, length.dtype)


def check_tolerances(
    name: str, op: Operator, noise_floor: float, tol: Any, gradient_tol: Any, flatness: Any
) -> Tolerances:
    """Return the tolerances, if they can be met; tol is √ε by default, or the noise floor if that is larger.

    Args:
        name: Who asks, for the messages.
        op: The Hessian.
        noise_floor: Relative error of a product. Below it a gradient is rounding.
        tol: Relative to ‖H‖ (1 + ‖θ‖); None for the default. Not compared with the noise if `gradient_tol` replaces it.
        gradient_tol: On ‖g‖ itself, or None.
        flatness: Of a gradient-flat point.

    Returns:
        All three.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is not positive and finite, or `tol` is below the noise floor or not below 1.
    """
    flatness = check_real(name, "flatness", flatness, 0.0, closed="()")
    if gradient_tol is not None:
        gradient_tol = check_real(name, "gradient_tol", gradient_tol, 0.0, closed="()")
    if tol is None:
        tol = max(float(jnp.finfo(layout_of(op.like).scalar).eps) ** 0.5, noise_floor)
    check_tolerance(name, tol, noise_floor if gradient_tol is None else 0.0)
    return Tolerances(tol, gradient_tol, flatness)


def flatness_at(norm: Float[Array, ""], stretch: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
    """Return ‖Hg‖ (1 + ‖θ‖)/‖g‖², from ‖g‖, ‖Hg‖/‖g‖ and 1 + ‖θ‖; ∞ where the gradient is zero."""
    return jnp.where(norm > 0, stretch / jnp.where(norm > 0, norm, 1) * length, jnp.inf).astype(norm.dtype)
