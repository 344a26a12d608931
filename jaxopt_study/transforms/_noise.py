"""Gradient noise with a decaying variance."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxopt_study._checks import check_key
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._scalars import ScalarLike, cast, check_non_negative, increment
from jaxopt_study.types import Key


class GradientNoiseState(NamedTuple):
    """The key of the next noise, and the number of steps taken."""

    key: Key
    count: Int[Array, "*batch"]


@atom(state=GradientNoiseState, neutral={"eta": 0.0})
def add_gradient_noise(eta: ScalarLike, gamma: ScalarLike, key: Key) -> Transform:
    """Add Gaussian noise of decaying variance to the gradient.

    At step t = 0, 1, …, independently for every coordinate:

        uₜ = gₜ + N(0, σₜ²),  σₜ² = η / (1 + t)^γ

    The key is part of the state: under `vmap`, different keys give different noise, and the same key reproduces the
    same noise. A leaf's noise does not depend on the shapes of other leaves, and it is not scaled by the gradient.

    Args:
        eta: η ≥ 0, the variance at the first step.
        gamma: γ ≥ 0, the exponent of the decay; 0 keeps the variance constant.
        key: The random key, `jax.random.key(seed)`. `train` folds the run's own key into it.

    Returns:
        A transformation with the structure and dtypes of the gradient. Cost: one normal number per coordinate.

    Raises:
        ValueError: If `eta` or `gamma` is negative, or `key` holds several keys.
        TypeError: If `key` is not a random key, another argument is not a number, or the gradient is complex.

    Example:
        >>> tx = add_gradient_noise(0.01, 0.55, jax.random.key(0))
        >>> noise, _ = tx.update(jnp.zeros(10_000), tx.init(jnp.zeros(10_000)))
        >>> print(abs(noise.std() - 0.1) < 0.005)  # √η at the first step
        True

    References:
        Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach and Martens (2015), Adding gradient noise improves learning
        for very deep networks, section 3: η in {.01, .3, 1}, γ = .55. Optax's `add_noise` captures the key, so that all
        elements of a `vmap` share their noise.
    """
    check_non_negative("add_gradient_noise", "eta", eta)
    check_non_negative("add_gradient_noise", "gamma", gamma)
    check_key("add_gradient_noise", key)

    def init(params: PyTree) -> GradientNoiseState:
        del params
        typed = key if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
        return GradientNoiseState(jnp.copy(typed), jnp.zeros((), dtype=jnp.int32))

    def update(
        updates: PyTree, state: GradientNoiseState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, GradientNoiseState]:
        next_key, now = jax.random.split(state.key)
        real = jnp.result_type(float)
        time = 1.0 + state.count.astype(real)
        deviation = jnp.sqrt(jnp.asarray(eta, dtype=real) / time ** jnp.asarray(gamma, dtype=real))
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.random.split(now, max(1, len(leaves)))
        # Drawn as a flat vector, so that a leaf gets the same noise in any shape.
        noisy = [
            g + cast(deviation, g.dtype) * jax.random.normal(k, (g.size,), dtype=g.dtype).reshape(g.shape)
            for g, k in zip(leaves, keys, strict=False)
        ]
        return jax.tree.unflatten(structure, noisy), GradientNoiseState(next_key, increment(state.count))

    return Transform(init, update)
