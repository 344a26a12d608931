"""When a point counts as critical, and when as gradient-flat: what a classification and a search share."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jaxopt_study.curvature.checks import check_number, check_tolerance
from jaxopt_study.curvature.layout import layout_of
from jaxopt_study.curvature.operator import Operator

FLATNESS = 1e-3  # below it, a walk of the parameters' own length leaves the gradient what it is, to a thousandth


class Tolerances(NamedTuple):
    """The tolerances of a critical point and of a gradient-flat one."""

    tol: Any
    gradient_tol: Any  # None, or a number that replaces tol ‖H‖ (1 + ‖θ‖)
    flatness: Any

    def limit(self, scale: Array, length: Array) -> Array:
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
        ValueError: If one is not positive and finite, or `tol` is below the noise floor.
    """
    for argument, number in [("tol", tol), ("gradient_tol", gradient_tol), ("flatness", flatness)]:
        if number is None or isinstance(number, Tracer):
            continue
        check_number(name, argument, number)
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name} needs {argument} > 0; received {number}.")
    if tol is None:
        tol = max(float(jnp.finfo(layout_of(op.like).scalar).eps) ** 0.5, noise_floor)
    if gradient_tol is None:
        check_tolerance(name, tol, noise_floor)
    return Tolerances(tol, gradient_tol, flatness)


def flatness_at(norm: Array, change: Array, length: Array) -> Array:
    """Return ‖Hg‖ (1 + ‖θ‖)/‖g‖², from its three norms; ∞ where the gradient is zero."""
    return jnp.where(norm > 0, change * length / jnp.where(norm > 0, norm, 1) ** 2, jnp.inf).astype(norm.dtype)
