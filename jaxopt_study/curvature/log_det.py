"""log det of a positive definite operator, or one made so by a shift."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxopt_study.curvature.audit import noise_floor as expected_noise
from jaxopt_study.curvature.checks import check_key, check_operator
from jaxopt_study.curvature.estimate import check_count, mean_and_error
from jaxopt_study.curvature.operator import Operator
from jaxopt_study.curvature.quadrature import Quadrature, lanczos_quadrature
from jaxopt_study.programs import nan_is_an_answer
from jaxopt_study.types import Key


class LogDet(NamedTuple):
    """An estimate of log det(H + s).

    Attributes:
        value: The estimate; NaN where it makes no sense.
        standard_error: Its standard deviation over the choice of probes, estimated from their spread.
        truncation: By how much the last quarter of the Lanczos steps has lowered the estimate. Further steps lower it
            further, typically by less: Gauss quadrature of a logarithm comes from above.
        smallest: The smallest Ritz value of H + s. If it is negative beyond rounding, H + s is not positive definite,
            and the estimate is refused; if it is positive, that proves nothing.
        positive: Whether the smallest Ritz value is above the noise floor, and every product was finite.
        resolved: Whether the smallest Ritz value is larger than its residual. If not, an eigenvalue at zero or below is
            not excluded, and the truncation may be understated; more steps or a larger shift help.
        num_matvecs: Products that it took.
    """

    value: Array
    standard_error: Array
    truncation: Array
    smallest: Array
    positive: Array
    resolved: Array
    num_matvecs: Array


@nan_is_an_answer
def log_det(
    op: Operator,
    *,
    shift: ArrayLike = 0.0,
    num_probes: int = 10,
    num_steps: int = 100,
    key: Key,
    noise_floor: float | None = None,
    probes_at_once: int | None = None,
) -> LogDet:
    """Estimate log det(H + s) = tr log(H + s) by stochastic Lanczos quadrature.

    For p vectors v uniform on the unit sphere, with nodes θ and weights w of m steps of Lanczos each,

        log det(H + s) ≈ n · mean of Σᵢ wᵢ log(θᵢ + s)

    The Hessian of a network is indefinite and singular, and its log det means nothing; with s > −λmin, as the precision
    of a prior in a Laplace approximation, it does. The convergence in m depends on the condition number of H + s: about
    √κ steps are needed.

    Args:
        op: H, symmetric, such that H + s is positive definite.
        shift: s, added to every eigenvalue. May be traced.
        num_probes: p ≥ 2.
        num_steps: m ≥ 1, products for each probe, at most n.
        key: For the vectors.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; None takes 16 ε. A Ritz value of H + s below
            noise_floor · ‖H + s‖ has a logarithm of which no digit is right, and the estimate is refused.
        probes_at_once: As for `spectral_density`.

    Returns:
        The estimate and its errors: the standard error of sampling, the truncation of the quadrature. Cost: p·m
        products after one linearisation; memory m + 4 vectors for each probe at work.

    Raises:
        TypeError: If `op` is no operator or `key` no key.
        ValueError: If a count is too small or the shift is not a finite number.

    Example:
        >>> from jaxopt_study.curvature import from_matvec
        >>> spectrum = jnp.linspace(0.0, 3.0, 300)
        >>> op = from_matvec(lambda v: spectrum * v, spectrum)
        >>> estimate = log_det(op, shift=0.5, num_steps=30, key=jax.random.key(0))
        >>> print(bool(abs(estimate.value - jnp.sum(jnp.log(spectrum + 0.5))) < 3 * estimate.standard_error))
        True
        >>> print(log_det(op, shift=-0.5, num_steps=30, key=jax.random.key(0)).value)  # indefinite
        nan

    References:
        Ubaru, Chen and Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix Anal.
        Appl. 38, section 4. Golub and Meurant (2010), Matrices, Moments and Quadrature, theorem 6.4: the sign of the
        remainder.
    """
    check_operator("log_det", op)
    key = check_key("log_det", key)
    check_count("log_det", "num_probes", num_probes, 2)
    check_count("log_det", "num_steps", num_steps, 1)
    if jnp.ndim(shift) != 0 or (not isinstance(shift, Tracer) and not bool(np.isfinite(np.asarray(shift)))):
        raise ValueError(f"log_det needs a finite scalar shift; received {shift!r}.")
    keys = jax.random.split(key, num_probes)
    quadrature = lanczos_quadrature(op, keys, num_steps=num_steps, probes_at_once=probes_at_once)
    floor = expected_noise(op) if noise_floor is None else noise_floor
    return _log_det(quadrature, shift, floor, op.size)


@partial(jax.jit, static_argnums=3)
def _log_det(quadrature: Quadrature, shift: ArrayLike, noise_floor: Any, size: int) -> LogDet:
    nodes = quadrature.nodes + jnp.asarray(shift, quadrature.nodes.dtype)
    smallest = jnp.min(nodes)
    largest = jnp.maximum(jnp.max(jnp.abs(nodes)), jnp.max(jnp.abs(quadrature.nodes)))
    positive = jnp.isfinite(smallest) & (smallest > noise_floor * largest)
    sums = jnp.sum(quadrature.weights * _log(nodes), axis=1)
    value, error = mean_and_error(size * sums)
    earlier = quadrature.leading(max(1, 3 * nodes.shape[1] // 4))
    before = jnp.sum(earlier.weights * _log(earlier.nodes + shift), axis=1)
    truncation = size * jnp.mean(before - sums)
    resolved = jnp.all(jnp.where(nodes == smallest, quadrature.residuals < smallest, True)) & positive
    nothing = jnp.where(positive, 0.0, jnp.nan).astype(nodes.dtype)
    return LogDet(
        value + nothing, error + nothing, truncation + nothing, smallest, positive, resolved, quadrature.num_matvecs
    )


def _log(x: Array) -> Array:
    return jnp.log(jnp.where(x > 0, x, 1))
