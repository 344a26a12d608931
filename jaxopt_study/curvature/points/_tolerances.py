"""Tolerances of critical and of gradient-flat points, for classification and search."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._checks import check_real
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg.checks import check_tolerance
from jaxopt_study.linalg.layout import layout_of

FLATNESS = 1e-3  # relative change of the gradient over a step as long as the parameters


class Tolerances(NamedTuple):
    """Tolerances of a critical point and of a gradient-flat one."""

    tol: Any
    gradient_tol: Any  # None, or a number that replaces tol ‖H‖ (1 + ‖θ‖)
    flatness: Any

    def limit(self, scale: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
        """Return the largest ‖g‖ of a critical point, from ‖H‖ and 1 + ‖θ‖."""
        return jnp.asarray(self.tol * scale * length if self.gradient_tol is None else self.gradient_tol, length.dtype)


class Residual(NamedTuple):
    """The gradient that is left at a point, within the tolerances."""

    norm: Float[Array, ""]  # ‖g‖
    length: Float[Array, ""]  # 1 + ‖θ‖
    tolerances: Tolerances

    def least_tau(self, scale: Float[Array, ""]) -> Float[Array, ""]:
        """Return the size of an eigenvalue that the rest of the gradient may stand for; 0 where θ is not critical.

        The critical point nearby is up to about ‖g‖/‖H‖ away, and on the way there the Hessian changes: by as much as
        itself over a distance of a tenth of 1 + ‖θ‖, at most, as losses of networks do.

        Args:
            scale: ‖H‖.

        Returns:
            10 ‖g‖/(1 + ‖θ‖).
        """
        critical = self.norm <= self.tolerances.limit(scale.astype(self.norm.dtype), self.length)
        return jnp.where(critical, 10 * self.norm / self.length, 0).astype(scale.dtype)


def check_tolerances(
    name: str, op: Operator, noise_floor: float, tol: Any, gradient_tol: Any, flatness: Any
) -> Tolerances:
    """Return the tolerances; raise unless they can be met. The default of tol is max(√ε, noise floor).

    Args:
        name: The function that was called, for the messages.
        op: The Hessian.
        noise_floor: Relative error of a product, below which a gradient is rounding.
        tol: Tolerance of ‖g‖ relative to ‖H‖ (1 + ‖θ‖); None for the default. Not compared with the noise floor if
            `gradient_tol` replaces it.
        gradient_tol: Tolerance of ‖g‖, or None.
        flatness: Tolerance of a gradient-flat point.

    Returns:
        The three tolerances.

    Raises:
        TypeError: If a tolerance is not a number.
        ValueError: If a tolerance is not positive and finite, or `tol` is below the noise floor or not below 1.
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
