"""Mean-square stability of a training step on random batches."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxopt_study._checks import check_bool, check_integer, check_key
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import GROWTH, check_examples, in_memory
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._linearised_step import LinearStep, linear_step
from jaxopt_study.dynamics._step_period import refuse_period
from jaxopt_study.dynamics._updates import check_optimizer
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.linalg.dense import ravel, unravel
from jaxopt_study.linalg.hvp import linearized_gradient
from jaxopt_study.linalg.sharding import mesh_context, rows
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector

Kind = Literal["stable", "marginal", "unstable", "unknown"]

_DENSE = 24  # coordinates up to which the map of second moments is a matrix
_WORK = 1_000_000_000  # multiplications up to which it is formed


@dataclass(frozen=True)
class StochasticStability:
    """Growth of the mean square of a deviation in steps on random batches.

    Attributes:
        radius: Asymptotic growth factor of the root mean square of a deviation in one step.
        error: Its standard error over independent populations, at least the drift within them; for an exact result the
            rounding error.
        kind: "stable" if the radius is below 1 by two errors, "unstable" if it is above by two, "marginal" if neither,
            as with any flat direction; "unknown" if it is not finite.
        exact: Whether the radius is an eigenvalue of the matrix of the map, not an estimate.
        num_matvecs: Number of products with the Hessian of a batch.
    """

    radius: float
    error: float
    kind: Kind
    exact: bool
    num_matvecs: int

    __repr__, _repr_html_ = displayed(_cards.stochastic_stability)


@nan_is_an_answer
def stochastic_stability(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch,
    *,
    batch_size: int,
    key: Key,
    replace: bool = False,
    exact: bool | None = None,
    num_populations: int = 6,
    num_particles: int = 64,
    num_steps: int = 100,
) -> StochasticStability:
    """Find the growth of the mean square of a deviation in linearised steps on random batches.

    As in `stability` one step maps a deviation δ of parameters and momentum buffers linearly, with the Hessian H_B of
    a random batch B in place of that of all data:

        δₜ₊₁ = A_B δₜ,  E[δₜ₊₁ δₜ₊₁ᵀ] = E_B[A_B E[δₜ δₜᵀ] A_Bᵀ],  radius² = ρ(E_B[A_B ⊗ A_B])

    Beyond radius 1 the mean square of a deviation grows even where the step on all data is stable, because the noise of
    the Hessians adds to its growth; SGD then leaves the point. For gradient descent on N examples with Hessians Hᵢ and
    batches of b different ones,

        E[A ⊗ A] = (I − ηH) ⊗ (I − ηH) + η² c (mean of Hᵢ ⊗ Hᵢ − H ⊗ H),  c = (N − b) / (b (N − 1)),

    and c = 1/b with replacement. Batches of successive steps are independent; an epoch of a shuffled order has a little
    less noise. The gradient of all data determines where the update is linearised, and second-moment buffers are
    frozen at the values it gives them. The noise of the gradients themselves, which a point that is no minimum of every
    example has, makes δ fluctuate but has no effect on the radius.

    For up to 24 coordinates in parameters and momentum buffers, the matrix of the map of second moments is formed from
    the steps of single examples, and its eigenvalues are computed. For more, populations of particles δ carry the
    second moments: each particle takes a step on a batch of its own, particles are drawn again with probabilities
    proportional to ‖δ‖², and the mean of ‖δ‖² over particles of norm 1 estimates radius². The estimate has a bias of
    order 1/`num_particles`.

    Args:
        optimizer: Any Optax transformation, or chain of this package.
        opt_state: Its state after the last step.
        loss: loss(params, batch) → scalar, a mean over the examples of the batch, without randomness.
        params: θ after the last step.
        data: Arrays with a common leading axis, the examples; or batches of them, as in `curvature.hessian`, which are
            all held in memory, because each particle draws a batch of its own.
        batch_size: b, from 1 to N.
        key: Key of batches and particles.
        replace: Whether the examples of a batch are drawn with replacement.
        exact: Whether to form the matrix; None does for few coordinates.
        num_populations: Independent populations, ≥ 2.
        num_particles: Particles of each population, ≥ 2.
        num_steps: Steps of each population, ≥ 4; the first half is not counted.

    Returns:
        Radius and verdict. Cost: a product with the Hessian of a batch for each particle and step; memory of
        `num_particles` products, and as many vectors. Exact: N products for each of d coordinates, and N d⁴
        multiplications.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: If the state belongs to another optimizer, the optimizer has a period of several steps, a count is
            out of range, or `exact` is True and the matrix too large.

    Example:
        >>> data = jnp.array([1.0, 3.0])  # the curvatures of the examples, 2 on average
        >>> loss = lambda p, x: jnp.mean(x * p**2) / 2
        >>> tx, params = optax.sgd(0.9), jnp.array(0.0)
        >>> found = stochastic_stability(
        ...     tx, tx.init(params), loss, params, data, batch_size=1, key=jax.random.key(0)
        ... )
        >>> print(round(found.radius**2, 4), found.kind)  # the mean of .1² and 1.7²; 1 − .9 · 2 = −.8 is stable
        1.45 unstable

    References:
        Ma and Ying (2021), On Linear Stability of SGD and Input-Smoothness of Neural Networks. Mulayoff and Michaeli
        (2024), Exact Mean Square Linear Stability Analysis for SGD, theorem 1: the condition for batches without
        replacement. Del Moral (2004), Feynman–Kac Formulae: populations that are drawn again in proportion to weights.
    """
    name = "stochastic_stability"
    key = check_key(name, key)
    replace = check_bool(name, "replace", replace)
    num_populations = check_integer(name, "num_populations", num_populations, 2, remedy="An error takes two.")
    num_particles = check_integer(name, "num_particles", num_particles, 2)
    num_steps = check_integer(name, "num_steps", num_steps, 4)
    exact = None if exact is None else check_bool(name, "exact", exact)
    check_examples(name, data)
    data = in_memory(name, data)
    check_concrete(name, opt_state, params, data)
    optimizer, opt_state, params = check_optimizer(name, optimizer, opt_state, params)
    refuse_period(name, optimizer, params, opt_state)
    with mesh_context(params):
        step = linear_step(
            optimizer, opt_state, loss, params, data, "statistics", check_integer(name, "batch_size", batch_size, 1)
        )
        leaves = jax.tree.leaves(step.curvature.data)
        count, size = leaves[0].shape[0], sum(leaf.size for leaf in jax.tree.leaves(step.like))
        batch_size = check_integer(name, "batch_size", batch_size, 1, count, remedy="There are no more examples.")
        fits = size <= _DENSE and count * size**4 <= _WORK
        if exact and not fits:
            raise ValueError(
                f"{name} forms the matrix of at most {_DENSE} coordinates, and N d⁴ ≤ {_WORK:.0e}; received d = {size} "
                f"and N = {count}. Leave out exact."
            )
        step = step.balanced()
        if fits and exact is not False:
            return _exact(step, batch_size, count, size, replace)
        sampling = _Sampling(batch_size, num_particles, num_steps, replace)
        growth = np.asarray(_populations(step, sampling, jax.random.split(key, num_populations)), np.float64)
    halves = growth[:, num_steps // 2 :].mean(axis=1), growth[:, num_steps // 2 : 3 * num_steps // 4].mean(axis=1)
    square, error = halves[0].mean(), halves[0].std(ddof=1) / math.sqrt(num_populations)
    error = max(error, abs(halves[1].mean() - square))  # the drift of the counted steps
    return _result(square, error, False, num_populations * num_particles * num_steps)


class _Sampling(NamedTuple):
    batch_size: int
    num_particles: int
    num_steps: int
    replace: bool


def _result(square: float, error: float, exact: bool, num_matvecs: int) -> StochasticStability:
    radius = math.sqrt(square) if square >= 0 else math.nan
    error = error / (2 * radius) if radius > 0 else math.sqrt(error)
    if not math.isfinite(radius + error):
        kind = "unknown"
    elif radius - 2 * error > 1:
        kind = "unstable"
    else:
        kind = "stable" if radius + 2 * error < 1 else "marginal"
    return StochasticStability(radius, error, kind, exact, num_matvecs)


def _exact(step: LinearStep, batch_size: int, count: int, size: int, replace: bool) -> StochasticStability:
    matrices = np.asarray(_matrices(step, count, size), np.float64)
    if not np.isfinite(matrices).all():
        return _result(math.nan, math.nan, True, count * size)
    mean = matrices.mean(axis=0)
    both = np.einsum("nij,nkl->ikjl", matrices, matrices, optimize=True) / count - np.einsum("ij,kl->ikjl", mean, mean)
    share = 1 / batch_size if replace else (count - batch_size) / (batch_size * max(count - 1, 1))
    moments = np.kron(mean, mean) + share * both.reshape(size**2, size**2)
    square = float(np.abs(np.linalg.eigvals(moments)).max())
    rounding = GROWTH * vectors.epsilon(step.like) * float(np.linalg.norm(moments, 2))
    return _result(square, rounding, True, count * size)


@partial(jax.jit, static_argnums=(1, 2))
def _matrices(step: LinearStep, count: int, size: int) -> Float[Array, "n d d"]:
    """Return the matrix of the step on every single example."""
    product = _on_batch(step)
    basis = unravel(step.like, jnp.eye(size, dtype=vectors.accumulator(step.curvature.dtype)))

    def of_example(index: Int[Array, ""]) -> Float[Array, "d d"]:
        images = jax.vmap(lambda v: product(index[None], v))(basis)
        return ravel(images, leading=1).T

    return lax.map(of_example, jnp.arange(count))


def _on_batch(step: LinearStep) -> Any:
    """Return (indices, δ) ↦ A_B δ for a batch of examples, for use in the same trace."""
    here, point, data = step.at_point(), step.curvature.params, step.curvature.data

    def product(chosen: Int[Array, " b"], v: Any) -> Any:
        batch = jax.tree.map(lambda x: rows(x, chosen), data)
        params, memory = v if step.scales is None else jax.tree.map(lambda x, s: x * s, v, step.scales)
        moved = here.to_point(params, memory)
        with jax.default_matmul_precision("highest"):
            curved = linearized_gradient(lambda p: step.loss(p, batch), point)[1](moved)
        slope = vectors.inner(here.grads, moved).astype(here.value.dtype)
        new = here.through_update(curved, params, memory, slope)
        return new if step.scales is None else jax.tree.map(lambda x, s: x / s, new, step.scales)

    return product


@partial(jax.jit, static_argnums=1)
def _populations(step: LinearStep, sampling: _Sampling, keys: Key) -> Float[Array, "populations steps"]:
    """Return the mean of ‖δ‖² over the particles after each step from particles of norm 1."""
    product = _on_batch(step)
    count = jax.tree.leaves(step.curvature.data)[0].shape[0]
    number = sampling.num_particles

    def move(key: Key, v: Vector) -> tuple[Vector, Float[Array, ""]]:
        chosen = jax.random.choice(key, count, (sampling.batch_size,), replace=sampling.replace)
        return vectors.normalize(product(chosen, v))

    def advance(particles: Vector, key: Key) -> tuple[Vector, Float[Array, ""]]:
        batch_key, draw_key = jax.random.split(key)
        particles, lengths = jax.vmap(move)(jax.random.split(batch_key, number), particles)
        weights = lengths**2
        # Systematic draws: one random offset, evenly spaced, which adds the least noise.
        places = (jnp.arange(number, dtype=weights.dtype) + jax.random.uniform(draw_key, dtype=weights.dtype)) / number
        below = jnp.cumsum(weights) / jnp.sum(weights)
        chosen = jnp.clip(jnp.searchsorted(below, places), 0, number - 1)
        return jax.tree.map(lambda x: x[chosen], particles), jnp.mean(weights)

    def population(key: Key) -> Float[Array, " steps"]:
        start_key, key = jax.random.split(key)
        draw = lambda k: vectors.random_like(step.like, key=k, distribution="sphere")
        particles = jax.vmap(draw)(jax.random.split(start_key, number))
        return lax.scan(advance, particles, jax.random.split(key, sampling.num_steps))[1]

    return lax.map(population, keys)
