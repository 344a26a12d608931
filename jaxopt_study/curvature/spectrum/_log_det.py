"""Log-determinant of a positive definite operator, or of one made so by a shift."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from jaxopt_study._checks import check_integer, check_key, check_real
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import GROWTH
from jaxopt_study.curvature._noise_floor import noise_floor as expected_noise
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.curvature.spectrum._estimate import TWO_PROBES, mean_of_function, root_mean_square
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.gauss_quadrature import Quadrature, check_divisor, lanczos_quadrature
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key


class LogDet(NamedTuple):
    """An estimate of log det(H + s).

    Attributes:
        value: The estimate; NaN unless `positive`.
        standard_error: Standard deviation over the choice of probes, from the variance of the logarithms; at least the
            rounding error, which is all of it where all eigenvalues are known.
        truncation: Decrease of the estimate over the last quarter of the Lanczos steps. Further steps decrease it
            further, typically by less: Gauss quadrature of a logarithm converges from above.
        smallest: Smallest Ritz value of H + s. A negative one beyond rounding proves that H + s is not positive
            definite; a positive one proves nothing.
        positive: Whether the smallest Ritz value is above the noise floor, and all products were finite.
        resolved: Whether the smallest Ritz value is larger than its residual. If not, an eigenvalue ≤ 0 is possible and
            the truncation may be too small; more steps or a larger shift help.
        num_matvecs: Number of products.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    truncation: Float[Array, ""]
    smallest: Float[Array, ""]
    positive: Bool[Array, ""]
    resolved: Bool[Array, ""]
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.log_det)


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
    """Compute log det(H + s) = tr log(H + s), or estimate it by stochastic Lanczos quadrature.

    If n ≤ m, the result is the sum of the logarithms of the eigenvalues of the n × n matrix, with the error of their
    rounding, noise_floor · ‖H + s‖ for each. Else, for p vectors v uniform on the unit sphere, with nodes θ and weights
    w of m steps of Lanczos each,

        log det(H + s) ≈ n · mean of Σᵢ wᵢ log(θᵢ + s)

    The Hessian of a network is indefinite and singular, so its log-determinant is undefined; with s > −λmin, such as
    the precision of a prior in a Laplace approximation, it exists. Convergence takes about √κ steps for the condition
    number κ of H + s.

    Args:
        op: H, symmetric, such that H + s is positive definite.
        shift: s, added to every eigenvalue. May be traced.
        num_probes: p ≥ 2.
        num_steps: m ≥ 1, products for each probe, at most n.
        key: Key of the random vectors.
        noise_floor: Relative error of a product, `audit(op).noise_floor`; None takes 16 ε. With a Ritz
            value of H + s below noise_floor · ‖H + s‖, whose logarithm is only rounding, the estimate is NaN.
        probes_at_once: As in `spectral_density`.

    Returns:
        The estimate, its standard error and the truncation of the quadrature. Cost: p·m products after one
        linearisation, memory of m + 4 vectors for each concurrent probe; or n products and 3n² numbers.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is too small, or the shift or the noise floor out of range.

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
    num_probes = check_integer("log_det", "num_probes", num_probes, 2, remedy=TWO_PROBES)
    num_steps = check_integer("log_det", "num_steps", num_steps, 1)
    probes_at_once = check_divisor("log_det", probes_at_once, num_probes)
    shift = check_real("log_det", "shift", shift)
    if noise_floor is not None:
        check_real("log_det", "noise_floor", noise_floor, 0.0, 1.0, closed="[)")
    floor = expected_noise(op) if noise_floor is None else noise_floor
    if op.size <= num_steps:
        return _exact(op.to_dense(max_size=op.size), shift, floor)
    keys = jax.random.split(key, num_probes)
    quadrature = lanczos_quadrature(op, keys, num_steps=num_steps, probes_at_once=probes_at_once)
    return _log_det(quadrature, shift, floor, op.size)


@jax.jit
def _exact(matrix: Float[Array, "n n"], shift: ScalarLike, noise_floor: ScalarLike) -> LogDet:
    finite = jnp.all(jnp.isfinite(matrix))
    scaled, unit = vectors.unscaled(jnp.where(finite, (matrix + matrix.T) / 2, 0))
    eigenvalues = unit * jnp.linalg.eigvalsh(scaled) + jnp.where(finite, 0, jnp.nan)
    values = eigenvalues + jnp.asarray(shift, eigenvalues.dtype)
    smallest = jnp.min(values)
    largest = jnp.maximum(jnp.max(jnp.abs(values)), jnp.max(jnp.abs(eigenvalues)))
    positive = jnp.isfinite(smallest) & (smallest > noise_floor * largest)
    nan = jnp.where(positive, 0.0, jnp.nan).astype(values.dtype)
    num_matvecs = jnp.asarray(matrix.shape[0], dtype=jnp.int32)
    error = _rounding(jnp.full((1, len(values)), 1 / len(values), values.dtype), values[None], noise_floor, largest)
    return LogDet(
        jnp.sum(_log(values)) + nan, len(values) * error + nan, nan, smallest, positive, positive, num_matvecs
    )


@partial(jax.jit, static_argnums=3)
def _log_det(quadrature: Quadrature, shift: ScalarLike, noise_floor: ScalarLike, size: int) -> LogDet:
    nodes = quadrature.nodes + jnp.asarray(shift, quadrature.nodes.dtype)
    smallest = jnp.min(nodes)
    largest = jnp.maximum(jnp.max(jnp.abs(nodes)), jnp.max(jnp.abs(quadrature.nodes)))
    positive = jnp.isfinite(smallest) & (smallest > noise_floor * largest)
    mean, error = mean_of_function(quadrature.weights, _log(nodes), size)
    error = jnp.maximum(error, _rounding(quadrature.weights, nodes, noise_floor, largest))
    earlier = quadrature.leading(max(1, 3 * nodes.shape[1] // 4))
    before, _ = mean_of_function(earlier.weights, _log(earlier.nodes + shift), size)
    resolved = jnp.all(jnp.where(nodes == smallest, quadrature.residuals < smallest, True)) & positive
    nan = jnp.where(positive, 0.0, jnp.nan).astype(nodes.dtype)
    return LogDet(
        size * mean + nan, size * error + nan, size * (before - mean) + nan, smallest, positive, resolved,
        quadrature.num_matvecs,
    )  # fmt: skip


def _rounding(
    weights: Float[Array, "p m"], values: Float[Array, "p m"], noise_floor: ScalarLike, largest: Float[Array, ""]
) -> Float[Array, ""]:
    """Return the rounding error of the mean logarithm, from errors of noise_floor · ‖H‖ of the values and its own."""
    relative = jnp.where(values > 0, largest / jnp.where(values > 0, values, 1), 0)
    of_logarithms = GROWTH * jnp.finfo(values.dtype).eps * root_mean_square(weights, _log(values))
    return jnp.asarray(noise_floor, values.dtype) * root_mean_square(weights, relative) + of_logarithms


def _log(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.log(jnp.where(x > 0, x, 1))
