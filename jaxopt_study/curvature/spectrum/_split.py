"""Split of a Hessian into the Gauss–Newton matrix and the rest: shares of the trace and of the negative curvature."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxopt_study._checks import check_integer, check_key
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import noise_floor
from jaxopt_study.curvature.operators._gauss_newton import ggn
from jaxopt_study.curvature.operators._hessian import hessian
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.curvature.spectrum._estimate import (
    TWO_PROBES,
    Estimate,
    mean_of_function,
    ratio_and_error,
    rounding_of_sum,
)
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.gauss_quadrature import Quadrature, lanczos_quadrature
from jaxopt_study.types import Batch, Key, Params

_DENSE = 2_000  # coordinates up to which matrices may be stored


class Part(NamedTuple):
    """Traces of one of the three matrices.

    Attributes:
        trace: Sum of the eigenvalues.
        positive: Sum of the positive eigenvalues.
        negative: Sum of the sizes of the negative eigenvalues, ≥ 0.
        negative_share: negative / (negative + positive), in [0, 1]; NaN for the zero matrix.
    """

    trace: Estimate
    positive: Estimate
    negative: Estimate
    negative_share: Estimate

    __repr__, _repr_html_ = displayed(_cards.part)


class Split(NamedTuple):
    """Shares of the Gauss–Newton matrix G and of the rest R in the Hessian H = G + R.

    Attributes:
        hessian: Traces of H.
        ggn: Traces of G. For a convex output loss its negative part is 0, up to rounding.
        rest: Traces of R. For a convex output loss it holds all the negative curvature there is.
        rest_share: tr R / tr H; that of G is 1 minus it. Not within [0, 1] where the traces have different signs.
        num_matvecs: Number of products, with H and with G.
    """

    hessian: Part
    ggn: Part
    rest: Part
    rest_share: Estimate
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.split)
    to_pandas = tabulated(_cards.columns_of_split)
    plot = plotted


@nan_is_an_answer
def split(
    model: Callable[[Params, Any], Any],
    output_loss: Callable[[Any, Any], Any],
    params: Params,
    data: Batch | None = None,
    *,
    key: Key,
    batch_size: int | None = None,
    num_probes: int = 10,
    num_steps: int = 60,
) -> Split:
    """Split the Hessian H into the Gauss–Newton matrix G and the rest R, and compute their shares.

    For a loss ℓ of a model's outputs f, with the Jacobian J of the outputs,

        H = G + R,  G = Jᵀ ∇²ℓ J,  R = Σᵢ ∂ℓ/∂fᵢ ∇²fᵢ

    G is what remains if the model is linearised; it is positive semidefinite for a convex ℓ. R comes from the curvature
    of the model and decreases with the residuals ∂ℓ/∂f. Negative curvature of H can come from R only. Of each matrix

        trace = Σ λ,  negative = Σ_{λ<0} |λ|,  negative share = Σ_{λ<0} |λ| / Σ |λ|

    If n ≤ p·m, the eigenvalues of the n × n matrices give all of them, with the rounding errors of the products. For
    more coordinates they are estimated by stochastic Lanczos quadrature, with the same p random vectors for all three
    matrices, so that the traces of G and R add up to that of H. The function |λ| has a kink, so m steps of Lanczos
    have an error of their own there, about the weight of the eigenvalues below ‖H‖/m; more steps reduce it. The errors
    of R are relative to H and G: where they are as large as its numbers, as for a model that is linear in its
    parameters, R is not told from 0.

    Args:
        model: `model(params, batch)`, the outputs for a batch: an array, or a pytree of them.
        output_loss: `output_loss(outputs, batch)`, a scalar: the mean over the examples of the batch.
        params: θ, as in `hessian`.
        data: As in `hessian`.
        key: Key of the random vectors.
        batch_size: As in `hessian`.
        num_probes: p ≥ 2.
        num_steps: m ≥ 1, products for each probe and matrix.

    Returns:
        The traces and shares with standard errors over the probes, at least the rounding errors. Cost: p·m products
        with each of H, G and H − G, the memory of m + 4 vectors; or n products with H and with G, and 6n² numbers.

    Raises:
        TypeError: As `hessian` and `ggn`.
        ValueError: As `hessian` and `ggn`; or if `num_probes` < 2 or `num_steps` < 1.

    Example:
        >>> model = lambda params, x: params["a"] * params["b"] * x  # at a = b = 0 its Jacobian is 0
        >>> output_loss = lambda f, x: jnp.mean((f - x) ** 2) / 2
        >>> params = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
        >>> found = split(model, output_loss, params, jnp.array([1.0, -1.0]), key=jax.random.key(0))
        >>> print(found.ggn.trace.value, found.hessian.negative.value, found.rest.negative_share.value)
        0.0 1.0 0.5

    References:
        Schraudolph (2002), Fast Curvature Matrix-Vector Products, Neural Computation 14. Sagun, Evci, Güney, Dauphin
        and Bottou (2017), Empirical Analysis of the Hessian of Over-Parametrized Neural Networks, section 3. Ubaru,
        Chen and Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix Anal. Appl.
        38.
    """
    name = "split"
    key = check_key(name, key)
    num_probes = check_integer(name, "num_probes", num_probes, 2, remedy=TWO_PROBES)
    num_steps = check_integer(name, "num_steps", num_steps, 1)
    curved = ggn(model, output_loss, params, data, batch_size=batch_size)
    whole = hessian(_Composed(model, output_loss), params, data, batch_size=batch_size)
    floors = noise_floor(whole), noise_floor(curved)
    if whole.size <= min(num_probes * num_steps, _DENSE):
        return _exact(whole.to_dense(), curved.to_dense(), floors)
    keys = jax.random.split(key, num_probes)
    found = [lanczos_quadrature(op, keys, num_steps=num_steps) for op in (whole, curved, whole - curved)]
    return _estimated(found, whole.size, floors)


@dataclass(frozen=True)
class _Composed:
    """The loss as a function of the parameters; equal ones compile once."""

    model: Callable[..., Any]
    output_loss: Callable[..., Any]

    def __call__(self, params: Params, batch: Batch) -> Any:
        return self.output_loss(self.model(params, batch), batch)


@partial(jax.jit, static_argnums=2)
def _exact(whole: Float[Array, "n n"], curved: Float[Array, "n n"], floors: tuple[float, float]) -> Split:
    size = whole.shape[0]
    count = jnp.asarray(2 * size, dtype=jnp.int32)
    scales = _norm(whole), _norm(curved)
    errors = [floor * scale for floor, scale in zip(floors, scales, strict=True)]
    rounding = *errors, errors[0] + errors[1]
    matrices = whole, curved, whole - curved
    of_whole, of_ggn, of_rest = (
        _exact_part(matrix, count, error) for matrix, error in zip(matrices, rounding, strict=True)
    )
    share = _ratio(of_rest.trace, of_whole.trace)
    return Split(of_whole, of_ggn, of_rest, Estimate(*share, count), count)


def _norm(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """Return the Frobenius norm; NaN if an entry is not finite."""
    finite = jnp.all(jnp.isfinite(matrix))
    return jnp.where(finite, vectors.norm(jnp.where(finite, matrix, 0)), jnp.nan)


def _exact_part(matrix: Float[Array, "n n"], count: Int[Array, ""], rounding: Float[Array, ""]) -> Part:
    """Return the sums of the eigenvalues of a matrix whose rounding error has a known Frobenius norm."""
    finite = jnp.all(jnp.isfinite(matrix))
    scaled, unit = vectors.unscaled(jnp.where(finite, (matrix + matrix.T) / 2, 0))
    values = jnp.linalg.eigvalsh(scaled)
    nan = jnp.where(finite, 0, jnp.nan).astype(values.dtype)
    positive, negative = (jnp.sum(jnp.maximum(sign * values, 0)) for sign in (1, -1))
    of_sum = jnp.sqrt(float(matrix.shape[0])) * rounding  # Σ |δλ| ≤ √n ‖E‖_F

    def estimate(number: Float[Array, ""], error: Float[Array, ""]) -> Estimate:
        return Estimate(unit * number + nan, error + nan, count)

    share = Estimate(*_share(unit * negative + nan, unit * positive + nan, of_sum), count)
    return Part(estimate(jnp.trace(scaled), rounding), estimate(positive, of_sum), estimate(negative, of_sum), share)


def _share(
    negative: Float[Array, ""], positive: Float[Array, ""], rounding: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return negative/(negative + positive) and a bound on its error, for terms with errors of `rounding` together."""
    size = jnp.maximum(negative, positive)
    total = negative / jnp.where(size > 0, size, 1) + positive / jnp.where(size > 0, size, 1)  # in range
    share = negative / jnp.where(size > 0, size, 1) / total
    relative = jnp.minimum(rounding / jnp.where(size > 0, size, 1) / total, 1)
    return share, relative * jnp.maximum(share, 1 - share)


def _ratio(part: Estimate, whole: Estimate) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return a ratio of two numbers with errors, and a bound on its error; ∞ where the denominator may be 0."""
    ratio = part.value / whole.value
    least = jnp.abs(whole.value) - whole.standard_error
    bound = (part.standard_error + jnp.abs(ratio) * whole.standard_error) / jnp.where(least > 0, least, 1)
    return ratio, jnp.where(jnp.isnan(ratio) | (least > 0), bound + 0 * ratio, jnp.inf)


@partial(jax.jit, static_argnums=(1, 2))
def _estimated(found: list[Quadrature], size: int, floors: tuple[float, float]) -> Split:
    scales = [jnp.max(jnp.abs(quadrature.nodes)) for quadrature in found[:2]]
    errors = [rounding_of_sum(size, floor, scale) for floor, scale in zip(floors, scales, strict=True)]
    rounding = *errors, errors[0] + errors[1]
    of_whole, of_ggn, of_rest = (
        _part(quadrature, size, error) for quadrature, error in zip(found, rounding, strict=True)
    )
    traces = [jnp.sum(quadrature.weights * quadrature.nodes, axis=1) for quadrature in (found[0], found[2])]
    count = found[0].num_matvecs + found[1].num_matvecs + 2 * found[2].num_matvecs
    share, error = ratio_and_error(traces[1], traces[0])
    least = _ratio(
        *(part.trace._replace(standard_error=e) for part, e in ((of_rest, rounding[2]), (of_whole, errors[0])))
    )
    share = Estimate(share, jnp.maximum(error, least[1]), found[0].num_matvecs + found[2].num_matvecs)
    return Split(of_whole, of_ggn, of_rest, share, count)


def _part(quadrature: Quadrature, size: int, rounding: Float[Array, ""]) -> Part:
    nodes, weights, count = quadrature.nodes, quadrature.weights, quadrature.num_matvecs
    up, down = jnp.maximum(nodes, 0), jnp.maximum(-nodes, 0)

    def estimate(values: Float[Array, "p m"]) -> Estimate:
        mean, error = mean_of_function(weights, values, size)
        return Estimate(size * mean, jnp.maximum(size * error, rounding), count)

    positive, negative = (jnp.sum(weights * values, axis=1) for values in (up, down))
    share, error = ratio_and_error(negative, positive + negative)
    parts = estimate(nodes), estimate(up), estimate(down)
    least = _share(parts[2].value, parts[1].value, rounding)
    return Part(*parts, Estimate(share, jnp.maximum(error, least[1]), count))
