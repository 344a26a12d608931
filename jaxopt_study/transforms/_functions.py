"""Elementwise functions of one to three arrays for `merge`, `elementwise` and the statistics."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxopt_study.transforms._constructors import named_function
from jaxopt_study.transforms._leaves import Leaf, RealLeaf
from jaxopt_study.transforms._scalars import (
    ScalarLike,
    align,
    cast,
    check_interval,
    check_non_negative,
    complement,
    concrete,
)
from jaxopt_study.transforms._state_checks import refuse_complex

Unary = Callable[[Leaf], Leaf]
Binary = Callable[[Leaf, Leaf], Leaf]


def _protects(eps: Any, kept: Any) -> bool:
    """Return whether ε is known to be positive after rounding to this dtype: 1e-8 is 0 in half precision."""
    value = concrete(eps)
    return value is not None and value >= float(jnp.finfo(kept).tiny)


def _as_kept(eps: Any, kept: Any, dtype: Any) -> Any:
    """Return ε rounded to the dtype of the statistic: an ε that is 0 there must not divide where the statistic is 0."""
    return cast(eps, dtype) if kept == dtype else jnp.asarray(eps).astype(kept).astype(dtype)


def _over_root(numerator: RealLeaf, second: RealLeaf, eps: ScalarLike, eps_root: ScalarLike, kept: Any) -> RealLeaf:
    """Return numerator / (√(second + ε_root) + ε), for a second moment stored in the given dtype."""
    dtype = second.dtype
    inside = second if concrete(eps_root) == 0.0 else second + _as_kept(eps_root, kept, dtype)
    if _protects(eps, kept) or _protects(eps_root, kept):
        return numerator / (jnp.sqrt(inside) + cast(eps, dtype))
    # Valid for any ε, at the cost of two selections. Zeros are found by ==, so that NaN passes; the argument of √ is
    # kept away from 0, where √ has no derivative.
    root_is_zero = inside == 0
    root = jnp.where(root_is_zero, 0, jnp.sqrt(jnp.where(root_is_zero, 1, inside)))
    return _ratio(numerator, root + _as_kept(eps, kept, dtype))


def _ratio(numerator: RealLeaf, bottom: RealLeaf) -> RealLeaf:
    """Return numerator / bottom, and 0 where `bottom` is 0."""
    nothing = bottom == 0
    return jnp.where(nothing, 0, numerator / jnp.where(nothing, 1, bottom))


@named_function(neutral={"eps": 0.0, "eps_root": 0.0})
def divide_by_root(*, eps: ScalarLike = 1e-8, eps_root: ScalarLike = 0.0) -> Binary:
    """Return the function that divides by a square root, with ε outside the root, inside it, or both.

    With numerator m and second moment v:

        m / (√(v + ε_root) + ε)

    The place of ε matters once √v is comparable to it: outside the root, ε is compared with the gradient's size;
    inside, with its square. The result is 0 where the divisor is 0 (both ε are 0 or underflow, and all gradients so far
    were 0 or have a square that underflows: |g| < 1e-19 in single precision), and also where v has overflowed.

    Args:
        eps: ε ≥ 0, outside the root, as in PyTorch and the Adam paper.
        eps_root: ε ≥ 0, inside the root, as in AdaDelta, and in Optax for AdaGrad and RMSprop.

    Returns:
        A function of two arrays for `merge`.

    Raises:
        ValueError: If an ε is negative.

    Example:
        >>> print(divide_by_root(eps=1.0)(jnp.array(6.0), jnp.array(4.0)))
        2.0

    References:
        Kingma and Ba (2015), Algorithm 1 (outside); Zeiler (2012), equation (9) (inside).
    """
    check_non_negative("divide_by_root", "eps", eps)
    check_non_negative("divide_by_root", "eps_root", eps_root)

    def divide(numerator: Leaf, second: Leaf) -> Leaf:
        refuse_complex("divide_by_root", "its arguments", (numerator, second))
        kept = second.dtype
        numerator, second = align(numerator, second)
        return _over_root(numerator, second, eps, eps_root, kept)

    return divide


@named_function(neutral={"eps": 0.0, "eps_root": 0.0})
def divide_by_deviation(*, eps: ScalarLike = 1e-8, eps_root: ScalarLike = 0.0) -> Callable[[Leaf, Leaf, Leaf], Leaf]:
    """Return the function that divides by a standard deviation, formed from the first two moments.

    With numerator g, second moment v and mean m:

        g / (√(max(v − m², 0) + ε_root) + ε)

    Args:
        eps: ε ≥ 0, outside the root.
        eps_root: ε ≥ 0, inside the root.

    Returns:
        A function of three arrays (g, v, m) for `merge`.

    Raises:
        ValueError: If an ε is negative.

    Example:
        >>> print(divide_by_deviation(eps=0.0)(jnp.array(6.0), jnp.array(13.0), jnp.array(2.0)))
        2.0

    References:
        Graves (2013), Generating sequences with recurrent neural networks, equations (38) to (41): centred RMSprop.
    """
    check_non_negative("divide_by_deviation", "eps", eps)
    check_non_negative("divide_by_deviation", "eps_root", eps_root)

    def divide(numerator: Leaf, second: Leaf, mean: Leaf) -> Leaf:
        refuse_complex("divide_by_deviation", "its arguments", (numerator, second, mean))
        kept = second.dtype
        numerator, second, mean = align(numerator, second, mean)
        square = jnp.minimum(mean * mean, jnp.finfo(mean.dtype).max)  # m² overflows only where v has: no ∞ − ∞
        variance = jnp.maximum(second - square, 0)  # rounding may leave it negative
        return _over_root(numerator, variance, eps, eps_root, kept)

    return divide


@named_function(neutral={"eps": 0.0})
def divide_by(*, eps: ScalarLike = 0.0) -> Binary:
    """Return the function that divides by a norm, without a square root.

    With numerator m and norm u, m / (u + ε); 0 where u + ε = 0.

    Args:
        eps: ε ≥ 0.

    Returns:
        A function of two arrays for `merge`.

    Raises:
        ValueError: If `eps` is negative.

    Example:
        >>> print(divide_by()(jnp.array([6.0, 0.0]), jnp.array([2.0, 0.0])))
        [3. 0.]

    References:
        Kingma and Ba (2015), Algorithm 2 (AdaMax).
    """
    check_non_negative("divide_by", "eps", eps)

    def divide(numerator: Leaf, norm: Leaf) -> Leaf:
        kept = norm.dtype
        numerator, norm = align(numerator, norm)
        return _ratio(numerator, norm + _as_kept(eps, kept, norm.dtype))

    return divide


@named_function(neutral={"eps": 0.0, "eps_root": 0.0})
def root(*, eps: ScalarLike = 0.0, eps_root: ScalarLike = 0.0) -> Unary:
    """Return the function √(v + ε_root) + ε.

    Args:
        eps: ε ≥ 0, outside the root.
        eps_root: ε ≥ 0, inside the root.

    Returns:
        A function of one array for `elementwise`.

    Raises:
        ValueError: If an ε is negative.

    Example:
        >>> print(root(eps=1.0)(jnp.array(4.0)))
        3.0
    """
    check_non_negative("root", "eps", eps)
    check_non_negative("root", "eps_root", eps_root)

    def function(v: Leaf) -> Leaf:
        refuse_complex("root", "its argument", v)
        return jnp.sqrt(v + cast(eps_root, v.dtype)) + cast(eps, v.dtype)

    return function


@named_function(neutral={"eps": 0.0})
def magnitude(*, eps: ScalarLike = 0.0) -> Unary:
    """Return the function |g| + ε.

    Args:
        eps: ε ≥ 0.

    Returns:
        A function of one array, a statistic for `running_max`.

    Raises:
        ValueError: If `eps` is negative.

    Example:
        >>> print(magnitude(eps=1.0)(jnp.array(-4.0)))
        5.0
    """
    check_non_negative("magnitude", "eps", eps)

    def function(g: Leaf) -> Leaf:
        refuse_complex("magnitude", "its argument", g)
        return jnp.abs(g) + cast(eps, g.dtype)

    return function


@named_function
def weighted_sum(weight: ScalarLike) -> Binary:
    """Return the function a + w·b.

    Args:
        weight: w, any finite number.

    Returns:
        A function of two arrays for `merge`.

    Raises:
        ValueError: If `weight` is not finite.

    Example:
        >>> print(weighted_sum(0.5)(jnp.array(1.0), jnp.array(4.0)))
        3.0
    """
    check_interval("weighted_sum", "weight", weight, -float("inf"), float("inf"), closed="()")

    def add(a: Leaf, b: Leaf) -> Leaf:
        a, b = align(a, b)
        return a + cast(weight, b.dtype) * b

    return add


@named_function
def interpolate(decay: ScalarLike) -> Binary:
    """Return the function β·a + (1 − β)·b.

    Args:
        decay: β in [0, 1].

    Returns:
        A function of two arrays for `merge`.

    Raises:
        ValueError: If `decay` is outside [0, 1].

    Example:
        >>> print(interpolate(0.25)(jnp.array(4.0), jnp.array(8.0)))
        7.0
    """
    check_interval("interpolate", "decay", decay, 0.0, 1.0, closed="[]")
    rate = complement(decay)

    def mix(a: Leaf, b: Leaf) -> Leaf:
        a, b = align(a, b)
        return cast(decay, a.dtype) * a + cast(rate, b.dtype) * b

    return mix
