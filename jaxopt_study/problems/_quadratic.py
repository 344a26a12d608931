"""Quadratic losses with prescribed Hessian and gradient noise."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, check_key, check_numbers, check_text
from jaxopt_study.problems._problem import CriticalPoint, Kind, Problem
from jaxopt_study.problems._registry import listed
from jaxopt_study.types import Batch, Key, ModelState, Scalar

Values = Sequence[Any] | np.ndarray | jax.Array  # numbers or nested sequences of them


def random_rotation(dim: int, *, key: Key) -> Float[np.ndarray, "{dim} {dim}"]:
    """Draw an orthogonal matrix from the uniform (Haar) distribution.

    Q is the orthogonal factor of the QR decomposition of a Gaussian matrix, with signs that make R's diagonal positive;
    without them the distribution would not be uniform. It is computed in double precision, so that QᵀQ = I to 1e-15.

    Args:
        dim: Size, ≥ 1.
        key: A PRNG key.

    Returns:
        Q of shape (dim, dim). Cost: O(dim³).

    Raises:
        TypeError: If `dim` is not an integer or `key` is not a key.
        ValueError: If `dim` is below 1.

    Example:
        >>> Q = random_rotation(4, key=jax.random.key(0))
        >>> bool(np.allclose(Q.T @ Q, np.eye(4), atol=1e-14))
        True

    References:
        Mezzadri (2007), How to generate random matrices from the classical compact groups, Notices of the AMS 54(5).
    """
    check_integer("random_rotation", "dim", dim, 1)
    key = check_key("random_rotation", key)
    gaussian = np.asarray(jax.random.normal(key, (dim, dim)), dtype=float)
    Q, R = np.linalg.qr(gaussian)
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)


@listed
def quadratic(
    spectrum: Values = (0.1, 2.0),
    *,
    rotation: Values | None = None,
    center: Values | None = None,
    noise_covariance: Values | None = None,
    start: Values | None = None,
    name: str = "quadratic",
) -> Problem:
    """Build ½(θ − c)ᵀH(θ − c) with H = Q diag(λ) Qᵀ, and optionally gradient noise of covariance C.

    The Hessian is constant, so every rate, threshold and expectation has a closed form. Eigenvalues may be negative or
    zero. With `noise_covariance` a training step differentiates, for a fresh ξ ~ N(0, C),

        ½(θ − c)ᵀH(θ − c) + ξᵀ(θ − c),    gradient H(θ − c) + ξ

    which is the noisy quadratic model: the noise does not depend on θ, and `loss` itself is free of noise. C is the
    covariance of one step's gradient; for a mini-batch of B examples, divide the covariance of one example by B.

    Args:
        spectrum: λ, the eigenvalues, shape (dim,), in any order.
        rotation: Q, orthogonal, shape (dim, dim); column i is the eigenvector of spectrum[i]. None means the identity,
            with memory O(dim); see `random_rotation`.
        center: c, the critical point, shape (dim,). None means the origin.
        noise_covariance: C, symmetric positive semidefinite, shape (dim, dim); or its diagonal, shape (dim,).
        start: Initial parameters, shape (dim,). None draws c + N(0, I) from the key.
        name: The problem's name.

    Returns:
        The problem, with parameters of shape (dim,), its spectrum and its critical point. A loss or gradient costs
        O(dim) without rotation and O(dim²) with one; the noise costs O(dim) with a diagonal C and O(dim²) with a full
        C.

    Raises:
        TypeError: If an argument does not consist of real numbers.
        ValueError: If a shape does not match, a number is not finite, Q is not orthogonal or C is not a covariance.

    Example:
        >>> problem = quadratic([1.0, 100.0], rotation=random_rotation(2, key=jax.random.key(1)))
        >>> hessian = jax.hessian(problem.loss)(problem.init(jax.random.key(0)))
        >>> print(jnp.round(jnp.linalg.eigvalsh(hessian), 2))
        [ 1. 100.]

    References:
        Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?, NeurIPS, section 3: the noisy
        quadratic model. The default spectrum is that of x²/20 + y².
    """
    check_text("quadratic", "name", name)
    eigenvalues = check_numbers("quadratic", "spectrum", spectrum, finite=False)
    if eigenvalues.ndim != 1 or eigenvalues.size == 0 or not np.isfinite(eigenvalues).all():
        raise ValueError(f"The spectrum must be one or more finite numbers in one axis; received {spectrum!r}.")
    dim = eigenvalues.size
    Q = None if rotation is None else _orthogonal(rotation, dim)
    origin = np.zeros(dim) if center is None else _vector("center", center, dim)
    first = None if start is None else _vector("start", start, dim)
    root = None if noise_covariance is None else _square_root(noise_covariance, dim)
    H = None if Q is None else (Q * eigenvalues) @ Q.T

    def init(key: Key) -> Float[Array, " dim"]:
        if first is not None:
            return jnp.array(first, dtype=float)
        return jnp.asarray(origin, dtype=float) + jax.random.normal(key, (dim,), dtype=float)

    def loss(params: Float[Array, " dim"], batch: Batch | None = None) -> Scalar:
        del batch
        offset = params - jnp.asarray(origin, dtype=params.dtype)
        if H is None:
            return jnp.sum(jnp.asarray(eigenvalues, dtype=params.dtype) * offset**2) / 2
        return offset @ (jnp.asarray((H + H.T) / 2, dtype=params.dtype) @ offset) / 2

    def noisy_loss(
        params: Float[Array, " dim"], model_state: ModelState, batch: Batch | None, key: Key
    ) -> tuple[Scalar, ModelState]:
        normal = jax.random.normal(key, (dim,), dtype=params.dtype)
        scale = jnp.asarray(root, dtype=params.dtype)
        noise = scale * normal if scale.ndim == 1 else scale @ normal
        return loss(params, batch) + noise @ (params - jnp.asarray(origin, dtype=params.dtype)), model_state

    negative = int(np.sum(eigenvalues < 0))
    return Problem(
        name,
        init,
        loss,
        step_loss=None if root is None else noisy_loss,
        critical_points=(CriticalPoint(origin, 0.0, _kind(eigenvalues), negative),),
        spectrum=np.sort(eigenvalues),
        metadata={"dim": dim, "noise_trace": 0.0 if root is None else float(np.sum(root**2))},
    )


@listed
def noisy_quadratic(dim: int = 100, *, batch_size: int = 1, start: Values | None = None) -> Problem:
    """Build the noisy quadratic model of training, with eigenvalues 1/i and noise covariance H/B.

    H = diag(1, 1/2, …, 1/dim), and the gradient of one example has covariance H, as at the minimum of a well-specified
    log-likelihood, where it is the Fisher information and equals the Hessian. For SGD with step η, each coordinate
    satisfies

        E[θₜ₊₁] = (1 − ηλ) E[θₜ],    E[θ²ₜ₊₁] = (1 − ηλ)² E[θ²ₜ] + η² λ/B

    Args:
        dim: Number of parameters, ≥ 1. The paper uses 10⁴.
        batch_size: B ≥ 1, the divisor of the covariance.
        start: Initial parameters, shape (dim,). None draws N(0, I).

    Returns:
        The problem; see `quadratic`.

    Raises:
        TypeError: If `dim` or `batch_size` is not an integer.
        ValueError: If `dim` or `batch_size` is below 1.

    Example:
        >>> problem = noisy_quadratic(4, batch_size=2)
        >>> print(jnp.round(problem.spectrum, 3), round(problem.metadata["noise_trace"], 3))
        [0.25 0.333 0.5 1. ] 1.042

    References:
        Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?, NeurIPS, section 3.
    """
    check_integer("noisy_quadratic", "dim", dim, 1)
    check_integer("noisy_quadratic", "batch_size", batch_size, 1)
    curvature = 1 / np.arange(1, dim + 1)
    return quadratic(curvature, noise_covariance=curvature / batch_size, start=start, name="noisy_quadratic")


def _vector(name: str, values: Values, dim: int) -> Float[np.ndarray, " {dim}"]:
    vector = check_numbers("quadratic", name, values, finite=False)
    if vector.shape != (dim,) or not np.isfinite(vector).all():
        raise ValueError(
            f"The {name} must be {dim} finite numbers, one per eigenvalue of the spectrum; "
            f"received shape {vector.shape}: {values!r}."
        )
    return vector


def _orthogonal(rotation: Values, dim: int) -> Float[np.ndarray, "{dim} {dim}"]:
    Q = check_numbers("quadratic", "rotation", rotation, finite=False)
    if Q.shape != (dim, dim):
        raise ValueError(f"The rotation must have shape ({dim}, {dim}), for {dim} eigenvalues; received {Q.shape}.")
    error = np.abs(Q.T @ Q - np.eye(dim)).max()
    if not error < 1e-5:  # also catches NaN; a float32 orthogonal matrix passes
        raise ValueError(
            f"The rotation must be orthogonal, but an entry of QᵀQ − I is {error:.2g}. Use the Q of numpy.linalg.qr, "
            "or random_rotation."
        )
    return Q


def _square_root(covariance: Values, dim: int) -> Float[np.ndarray, " {dim}"] | Float[np.ndarray, "{dim} {dim}"]:
    # R with RRᵀ = C, as a diagonal if C is diagonal; not by Cholesky, since C may be singular.
    C = check_numbers("quadratic", "noise_covariance", covariance, finite=False)
    if C.shape not in {(dim,), (dim, dim)} or not np.isfinite(C).all():
        raise ValueError(
            f"The noise covariance must be finite, of shape ({dim}, {dim}) or, for a diagonal, ({dim},); "
            f"received shape {C.shape}."
        )
    scale = np.abs(C).max()
    if C.ndim == 2 and np.abs(C - C.T).max() > 1e-6 * scale:
        raise ValueError("The noise covariance must be symmetric; pass (C + C.T) / 2.")
    values, vectors = (C, None) if C.ndim == 1 else np.linalg.eigh((C + C.T) / 2)
    if values.min() < -1e-6 * scale:  # smaller ones are rounding errors of a singular float32 matrix
        raise ValueError(
            f"The noise covariance must not have negative eigenvalues; the smallest is {values.min():.3g}."
        )
    roots = np.sqrt(np.maximum(values, 0.0))
    return roots if vectors is None else vectors * roots


def _kind(eigenvalues: Float[np.ndarray, " dim"]) -> Kind:
    # Correct also with zero eigenvalues, since a quadratic has no higher-order terms.
    down, up = bool(np.any(eigenvalues < 0)), bool(np.any(eigenvalues > 0))
    kinds: dict[tuple[bool, bool], Kind] = {
        (False, True): "minimum",
        (True, True): "saddle",
        (True, False): "maximum",
        (False, False): "degenerate",
    }
    return kinds[down, up]
