"""Stochastic Lanczos quadrature: vᵀ f(H) v for random v as a weighted sum of f over a few nodes."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxopt_study._checks import check_integer
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.lanczos_recurrence import LanczosRecurrence, noise_level, random_unit_vector
from jaxopt_study.linalg.layout import layout_of, seed_words
from jaxopt_study.linalg.operator import LinearOperator
from jaxopt_study.types import Key, Vector

_BASIS_BYTES = 2**32  # memory for probes that run at once on an accelerator


class Quadrature(NamedTuple):
    """Gauss quadrature of the spectral measure of each of p random unit vectors, from m steps of Lanczos.

    Attributes:
        nodes: Ritz values θ, ascending; NaN where a product was NaN or infinite. After an exhausted Krylov space the
            largest node is repeated with weight 0.
        weights: w ≥ 0; every row has the sum 1. vᵀ f(H) v = Σᵢ wᵢ f(θᵢ), exactly for polynomials f of degree ≤ 2m − 1.
        residuals: ‖H y − θ y‖ of the Ritz vectors y; H has an eigenvalue within this distance of θ.
        num_nodes: Steps before the Krylov space was exhausted; m if it was not.
        orthogonality: Largest inner product of two normalised Krylov vectors that Gram–Schmidt has removed. As long as
            it is below about √ε, the nodes equal those of an exact recurrence up to rounding; NaN without
            reorthogonalisation.
        diagonal: α of the tridiagonal matrices.
        offdiagonal: β of the tridiagonal matrices; the last is the norm of the remainder after m steps.
        num_matvecs: Total number of products.
    """

    nodes: Float[Array, "p m"]
    weights: Float[Array, "p m"]
    residuals: Float[Array, "p m"]
    num_nodes: Int[Array, " p"]
    orthogonality: Float[Array, " p"]
    diagonal: Float[Array, "p m"]
    offdiagonal: Float[Array, "p m"]
    num_matvecs: Int[Array, ""]

    def leading(self, num_steps: int) -> "Quadrature":
        """Return the quadrature after the first `num_steps` steps; `orthogonality` remains that of all steps."""
        taken = jnp.minimum(self.num_nodes, jnp.int32(num_steps))
        return quadrature_of(self.diagonal[:, :num_steps], self.offdiagonal[:, :num_steps], taken, self.orthogonality)


def probe_vectors(op: LinearOperator, key: Key) -> Vector:
    """Return the random unit vector of a probe's key, uniform on the sphere."""
    layout = layout_of(op.like)
    return layout.unpack(random_unit_vector(layout, seed_words(key)))


def check_divisor(name: str, probes_at_once: Any, num_probes: int) -> int | None:
    """Return the number of probes that run at once, a divisor of `num_probes`; None for the default."""
    if probes_at_once is None:
        return None
    number = check_integer(name, "probes_at_once", probes_at_once, 1)
    if num_probes % number:
        raise ValueError(f"{name}: probes_at_once must divide num_probes = {num_probes}; received {number}.")
    return number


def lanczos_quadrature(
    op: LinearOperator,
    keys: Key,
    *,
    num_steps: int,
    reorthogonalize: bool = True,
    probes_at_once: int | None = None,
) -> Quadrature:
    """Compute the Gauss quadrature of the spectral measure of H for several random unit vectors.

    With q₀ = v, and qⱼ orthonormal,

        βⱼ qⱼ₊₁ = H qⱼ − αⱼ qⱼ − βⱼ₋₁ qⱼ₋₁,

    the eigenvalues θ of the tridiagonal matrix T of α and β are the nodes, and the squares of the first entries of its
    eigenvectors are the weights. In floating point the vectors lose orthogonality in the directions of converged Ritz
    vectors, and T then has copies of their values, called ghosts. One pass of classical Gram–Schmidt therefore precedes
    each step, and removes components of at most about √ε; a second pass follows only if the first has shortened the
    vector. If the recurrence ends early (βⱼ ≤ 10 ε max‖H q‖), the quadrature is exact with fewer nodes.

    Args:
        op: H, symmetric.
        keys: p keys, one for each vector.
        num_steps: m ≥ 1, products for each vector, at most n.
        reorthogonalize: False stores no basis and produces ghosts.
        probes_at_once: Number of recurrences that run at once, a divisor of p. None is one on a CPU, and as many as fit
            into 4 GiB on accelerators.

    Returns:
        Nodes, weights and residuals. Cost: p·m products after one linearisation; memory m + 4 vectors for each of the
        probes that run at once.
    """
    num_steps = min(num_steps, op.size)
    at_once = probes_at_once or _probes_at_once(op, keys.shape[0], num_steps if reorthogonalize else 0)
    axis = solver_loop.LANES if at_once > 1 and op.loop == "compiled" else None
    solver = LanczosRecurrence(layout_of(op.like), num_steps, reorthogonalize, axis)
    return quadrature_of(*solver_loop.run_each(solver, op, None, keys, at_once))


@jax.jit
def quadrature_of(
    diagonal: Float[Array, "p m"],
    offdiagonal: Float[Array, "p m"],
    taken: Int[Array, " p"],
    orthogonality: Float[Array, " p"],
) -> Quadrature:
    """Return the quadratures of p tridiagonal matrices, from their first `taken` rows."""
    nodes, weights, residuals = jax.vmap(_nodes)(diagonal, offdiagonal, taken)
    return Quadrature(
        nodes, weights, residuals, taken, orthogonality, diagonal, offdiagonal, jnp.sum(taken, dtype=jnp.int32)
    )


def _nodes(
    diagonal: Float[Array, " m"], offdiagonal: Float[Array, " m"], taken: Int[Array, ""]
) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, " m"]]:
    """Return nodes, weights and residuals from the first `taken` rows of a tridiagonal matrix."""
    index = jnp.arange(diagonal.shape[0], dtype=jnp.int32)
    exists = index < taken
    finite = jnp.all(jnp.isfinite(jnp.where(exists, diagonal, 0)) & jnp.isfinite(offdiagonal))
    alpha = jnp.where(exists & finite, diagonal, 0)
    beta = jnp.where(exists & finite, offdiagonal, 0)
    (alpha, beta), unit = vectors.unscaled((alpha, beta))
    coupling = jnp.where(index < taken - 1, beta, 0)[:-1]
    bound = jnp.max(jnp.abs(alpha)) + 2 * jnp.max(jnp.abs(beta))
    alpha = jnp.where(exists, alpha, 2 * bound + 1)  # unused rows come last in ascending order
    values, rotations = jnp.linalg.eigh(jnp.diag(alpha) + jnp.diag(coupling, 1) + jnp.diag(coupling, -1))
    last = values[taken - 1]
    values = jnp.where(exists, values, last)
    weights = jnp.where(exists, rotations[0] ** 2, 0)
    residuals = jnp.where(exists, jnp.abs(rotations[taken - 1] * beta[taken - 1]), 0)
    rounding = noise_level(jnp.max(jnp.abs(values)))
    nan = jnp.where(finite, 0.0, jnp.nan).astype(values.dtype)
    return unit * values + nan, weights / jnp.sum(weights) + nan, unit * (residuals + rounding) + nan


def _probes_at_once(op: LinearOperator, num_probes: int, num_rows: int) -> int:
    if jax.default_backend() == "cpu":
        return 1
    vector_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(op.like))
    limit = max(1, _BASIS_BYTES // max(1, vector_bytes * (num_rows + 4)))
    return max(d for d in range(1, num_probes + 1) if num_probes % d == 0 and d <= limit)
