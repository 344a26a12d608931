"""Initialisers of network weights, named by their scale.

Each constructor returns `init(key, shape, dtype)`, the convention of Flax and JAX, whose initialisers can be used, too.
Scales may be traced: a sweep of initial scales can be one `vmap`. Kernels have shape (…, inputs, outputs); n, a unit's
fan-in, is the product of all axes but the last.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.nn.initializers import variance_scaling
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxopt_study._checks import check_real
from jaxopt_study.types import Key

Initialiser = Callable[..., Float[Array, "..."]]

__all__ = ["glorot", "he", "normal", "orthogonal", "resolve", "xavier"]


def normal(std: Real[ArrayLike, ""] = 0.01) -> Initialiser:
    """Draw weights from N(0, std²), independent of the layer's size.

    Args:
        std: Standard deviation; may be traced. With 1 the activations saturate, with 0.01 they vanish.

    Returns:
        The initialiser.

    Example:
        >>> kernels = jax.vmap(lambda std: normal(std)(jax.random.key(0), (3, 2)))(jnp.array([1.0, 10.0]))
        >>> print(jnp.allclose(10 * kernels[0], kernels[1]))
        True
    """
    check_real("normal", "std", std, 0)

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, "..."]:
        return jax.random.normal(key, shape, dtype) * jnp.asarray(std, dtype)

    return _named(init, "normal", std)


def xavier(gain: Real[ArrayLike, ""] = 1.0) -> Initialiser:
    """Draw weights from N(0, gain²/n), which preserves the variance in a linear layer's forward pass.

    This is "Xavier" in Saito (2016), also known as LeCun's initialisation; the version of Glorot and Bengio, which
    averages fan-in and fan-out, is `glorot`.

    Args:
        gain: Factor on the standard deviation; may be traced.

    Returns:
        The initialiser.

    References:
        Saito (2016), Deep Learning from Scratch, §6.2; LeCun, Bottou, Orr and Müller (1998), Efficient BackProp, §4.6.
    """
    return _scaled(variance_scaling(1.0, "fan_in", "normal"), "xavier", gain)


def he(gain: Real[ArrayLike, ""] = 1.0) -> Initialiser:
    """Draw weights from N(0, 2·gain²/n), which preserves the second moment in a ReLU layer's forward pass.

    The distribution is normal, as in the paper; `jax.nn.initializers.he_normal` truncates it at two standard deviations
    and rescales it.

    Args:
        gain: Factor on the standard deviation; may be traced.

    Returns:
        The initialiser.

    Example:
        >>> kernel = he()(jax.random.key(0), (1000, 500))
        >>> print(jnp.round(jnp.std(kernel) / jnp.sqrt(2 / 1000), 2))
        1.0

    References:
        He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, equation 10.
    """
    return _scaled(variance_scaling(2.0, "fan_in", "normal"), "he", gain)


def glorot(gain: Real[ArrayLike, ""] = 1.0) -> Initialiser:
    """Draw weights uniformly with variance 2·gain²/(fan_in + fan_out), Keras' and PyTorch's "Xavier uniform".

    Args:
        gain: Factor on the scale; may be traced.

    Returns:
        The initialiser.

    References:
        Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward networks, equation 16.
    """
    return _scaled(jax.nn.initializers.glorot_uniform(), "glorot", gain)


def orthogonal(gain: Real[ArrayLike, ""] = 1.0) -> Initialiser:
    """Draw weights uniformly from the matrices with orthonormal rows or columns, times `gain`.

    All singular values equal `gain`, so powers of a recurrent weight neither explode nor vanish at initialisation for
    gain 1.

    Args:
        gain: The singular values; may be traced. √2 suits ReLU.

    Returns:
        The initialiser.

    Example:
        >>> kernel = orthogonal(2.0)(jax.random.key(0), (5, 3))
        >>> print(jnp.round(jnp.linalg.svd(kernel, compute_uv=False), 4))
        [2. 2. 2.]

    References:
        Saxe, McClelland and Ganguli (2014), Exact solutions to the nonlinear dynamics of learning.
    """
    return _scaled(jax.nn.initializers.orthogonal(), "orthogonal", gain)


NAMED: dict[str, Callable[..., Initialiser]] = {
    "xavier": xavier,
    "lecun": xavier,
    "he": he,
    "glorot": glorot,
    "orthogonal": orthogonal,
}


def resolve(initialiser: str | Real[ArrayLike, ""] | Initialiser) -> Initialiser:
    """Return the initialiser for a name, a standard deviation or an initialiser.

    Args:
        initialiser: "xavier" (= "lecun"), "he", "glorot", "orthogonal"; a number, the standard deviation of `normal`,
            which may be traced; or any `init(key, shape, dtype)`, which is returned unchanged.

    Returns:
        The initialiser.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(initialiser, str):
        if initialiser not in NAMED:
            raise ValueError(
                f"Unknown initialiser {initialiser!r}: expected one of {', '.join(NAMED)}, a number (the standard "
                "deviation), or a function init(key, shape, dtype)."
            )
        return NAMED[initialiser]()
    return initialiser if callable(initialiser) else normal(initialiser)


# Multiply the draws of an initialiser by the gain, which may be traced.
def _scaled(base: Initialiser, name: str, gain: Real[ArrayLike, ""]) -> Initialiser:
    check_real(name, "gain", gain)

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, "..."]:
        return base(key, shape, dtype) * jnp.asarray(gain, dtype)

    return _named(init, name, gain)


# Records show a network's settings, so the function's name tells its distribution.
def _named(init: Initialiser, name: str, scale: Real[ArrayLike, ""]) -> Initialiser:
    shown = "traced" if isinstance(scale, Tracer) else str(scale)
    init.__name__ = f"{name}({shown})"
    return init
