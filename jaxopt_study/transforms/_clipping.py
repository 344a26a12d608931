"""Gradient clipping: by value, norm, unit and percentile. Limits on the parameters are in `_projections`."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxopt_study._checks import check_integer
from jaxopt_study._programs import wider
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import RealLeaf
from jaxopt_study.transforms._scalars import ScalarLike, cast, check_interval, check_limit, increment


@atom()
def clip_by_value(max_value: ScalarLike) -> Transform:
    """Clip every coordinate of the gradient to [−c, c].

    uᵢ = min(max(gᵢ, −c), c)

    It changes the direction of the gradient; `clip_by_global_norm` does not.

    Args:
        max_value: c ≥ 0; infinity clips nothing.

    Returns:
        A stateless transformation. Cost: fused with its neighbours, none.

    Raises:
        ValueError: If `max_value` is negative.
        TypeError: If `max_value` is not one real number, or the gradient complex.

    Example:
        >>> print(clip_by_value(1.0).update(jnp.array([0.5, -3.0]), optax.EmptyState())[0])
        [ 0.5 -1. ]

    References:
        Mikolov (2012), Statistical language models based on neural networks, section 3.2.2.
    """
    check_limit("clip_by_value", "max_value", max_value)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda g: jnp.clip(g, -cast(max_value, g.dtype), cast(max_value, g.dtype)), updates), state

    return Transform(optax.init_empty_state, update)


@atom()
def clip_by_global_norm(max_norm: ScalarLike) -> Transform:
    """Scale the gradient down to a given norm if its norm is larger.

    u = g · min(1, c / ‖g‖), with the Euclidean norm over all leaves together.

    The direction is kept.

    Args:
        max_norm: c ≥ 0; infinity clips nothing.

    Returns:
        A stateless transformation. Cost: two more reads of the gradient.

    Raises:
        ValueError: If `max_norm` is negative.
        TypeError: If `max_norm` is not one real number, or the gradient complex.

    Example:
        >>> print(clip_by_global_norm(1.0).update(jnp.array([3.0, 4.0]), optax.EmptyState())[0])
        [0.6 0.8]

    References:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, Algorithm 1.
        Optax's version is NaN for a zero gradient and max_norm 0.
    """
    check_limit("clip_by_global_norm", "max_norm", max_norm)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        length = norm(jax.tree.leaves(updates))
        return jax.tree.map(lambda g: shorten(g, length, max_norm), updates), state

    return Transform(optax.init_empty_state, update)


@atom()
def clip_by_leaf_norm(max_norm: ScalarLike) -> Transform:
    """Scale each leaf of the gradient down to a given norm if its norm is larger.

    u_l = g_l · min(1, c / ‖g_l‖) for every leaf l.

    Args:
        max_norm: c ≥ 0; infinity clips nothing.

    Returns:
        A stateless transformation. Cost: two more reads of the gradient.

    Raises:
        ValueError: If `max_norm` is negative.
        TypeError: If `max_norm` is not one real number, or the gradient complex.

    Example:
        >>> grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}
        >>> clipped, _ = clip_by_leaf_norm(1.0).update(grads, optax.EmptyState())
        >>> print(clipped["a"], clipped["b"])
        [0.6 0.8] [0.5]

    References:
        Optax's `clip_by_block_rms` limits the root mean square instead, which depends on the size of the leaf.
    """
    check_limit("clip_by_leaf_norm", "max_norm", max_norm)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda g: shorten(g, norm([g]), max_norm), updates), state

    return Transform(optax.init_empty_state, update)


@atom(params=True)
def clip_by_unit_norm(clipping: ScalarLike = 0.01, *, eps: ScalarLike = 1e-3) -> Transform:
    """Limit the norm of each unit's gradient relative to the norm of its weights: adaptive gradient clipping.

    For every unit i, a column of a dense kernel or one output channel of a convolution:

        uᵢ = gᵢ · min(1, λ max(‖θᵢ‖, ε) / ‖gᵢ‖)

    Leaves of at most one dimension are one unit each.

    Args:
        clipping: λ ≥ 0.
        eps: ε > 0, so that units starting at zero can move.

    Returns:
        A stateless transformation. Cost: two more reads of the gradient, one of the parameters.

    Raises:
        ValueError: If `clipping` is negative, `eps` is not positive, or the update is called without parameters.

    Example:
        >>> params, grads = jnp.ones((4, 2)), jnp.array([[1.0, 0.0]] * 4)
        >>> clipped, _ = clip_by_unit_norm(0.5).update(grads, optax.EmptyState(), params)
        >>> print(jnp.linalg.norm(clipped, axis=0))  # half the weights' norm; the zero unit stays zero
        [1. 0.]

    References:
        Brock, De, Smith and Simonyan (2021), High-performance large-scale image recognition without normalization,
        section 4.1, equation (3). Optax's `adaptive_grad_clip` agrees, except that it takes a leaf of three dimensions
        for a dense layer with several heads.
    """
    check_limit("clip_by_unit_norm", "clipping", clipping)
    check_interval("clip_by_unit_norm", "eps", eps, 0.0, float("inf"), closed="()")

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        def clip(g: RealLeaf, p: RealLeaf) -> RealLeaf:
            weight = unit_norm(p).value
            return shorten(g, unit_norm(g), cast(clipping, weight.dtype) * jnp.maximum(weight, cast(eps, weight.dtype)))

        return jax.tree.map(clip, updates, params), state

    return Transform(optax.init_empty_state, update)


class PercentileClipState(NamedTuple):
    """The norms of past gradients."""

    norms: Float[Array, "*batch window"]  # a ring buffer; unfilled entries hold the largest number
    count: Int[Array, "*batch"]  # steps taken


@atom(state=PercentileClipState)
def clip_by_percentile(percentile: ScalarLike = 10.0, *, window: int = 1000) -> Transform:
    """Scale the gradient down to a percentile of its recent norms.

    With the norms ‖g₁‖ … ‖gₜ‖ of the last `window` steps, the present one included:

        uₜ = gₜ · min(1, cₜ / ‖gₜ‖),  cₜ = percentile p of the norms

    The threshold adapts to the scale of the problem and needs no tuning. Percentiles are interpolated linearly.

    Args:
        percentile: p in [0, 100]; 100 never clips.
        window: Number of norms remembered, at least 1.

    Returns:
        A transformation whose state holds `window` numbers. Cost: two more reads of the gradient, and sorting the
        window.

    Raises:
        ValueError: If `percentile` is outside [0, 100] or `window` is below 1.

    Example:
        >>> tx = clip_by_percentile(50.0)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in [1.0, 1.0, 100.0]:
        ...     clipped, state = tx.update(jnp.array([g]), state)
        >>> print(clipped)  # the median of 1, 1, 100
        [1.]

    References:
        Seetharaman, Wichern, Pardo and Le Roux (2020), AutoClip: Adaptive gradient clipping for source separation
        networks, Algorithm 1 (p = 10), there with an unbounded memory.
    """
    check_interval("clip_by_percentile", "percentile", percentile, 0.0, 100.0, closed="[]")
    window = check_integer("clip_by_percentile", "window", window, 1)

    def init(params: PyTree) -> PercentileClipState:
        del params
        real = jnp.result_type(float)
        norms = jnp.full((window,), jnp.finfo(real).max, dtype=real)  # sorts after every observed norm
        return PercentileClipState(norms, jnp.zeros((), dtype=jnp.int32))

    def update(
        updates: PyTree, state: PercentileClipState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PercentileClipState]:
        length = norm(jax.tree.leaves(updates))
        # A non-finite norm would stay in the window and stop all clipping, so 0 is stored instead; the step itself is
        # not hidden. A norm too large for the dtype is stored as the largest number.
        known = jnp.minimum(length.value.astype(state.norms.dtype), jnp.finfo(state.norms.dtype).max)
        seen = jnp.where(jnp.isfinite(length.relative), known, 0)
        norms = jnp.asarray(state.norms).at[state.count % window].set(seen)  # NumPy's, if read from a file
        count = increment(state.count)
        filled = jnp.minimum(count, window)
        position = jnp.asarray(percentile, dtype=norms.dtype) / 100 * (filled - 1).astype(norms.dtype)
        low = jnp.floor(position).astype(jnp.int32)
        ordered = jnp.sort(norms)
        below, above = ordered[low], ordered[jnp.minimum(low + 1, filled - 1)]
        threshold = below + (position - low.astype(norms.dtype)) * (above - below)
        return jax.tree.map(lambda g: shorten(g, length, threshold), updates), PercentileClipState(norms, count)

    return Transform(init, update)


class Length(NamedTuple):
    """A Euclidean norm as a product of two factors, since the norm of finite numbers may overflow their dtype."""

    scale: Float[Array, "*lengths"]  # approximately the largest magnitude; 1 if that is zero or not finite
    relative: Float[Array, "*lengths"]  # the norm divided by `scale`

    @property
    def value(self) -> Float[Array, "*lengths"]:
        """The norm itself; infinite if it overflows the dtype."""
        return self.scale * self.relative


def norm(leaves: Sequence[Any], axis: Any = None) -> Length:
    """Return the joint Euclidean norm of several arrays, without overflow or underflow for finite values.

    Squares of values above 1e19 overflow in single precision, and those of values below 1e-19 underflow: clipping by
    the plain norm of a finite gradient would silently return zeros, or not clip. Dividing by the largest magnitude
    first avoids both.
    """
    keep = axis is not None
    # Summed in single precision at least: a sum of 65,505 ones is infinite in half.
    precise = wider(*(x.dtype for x in leaves), jnp.dtype(jnp.float32))
    largest = [jnp.max(jnp.abs(x), axis=axis, keepdims=keep, initial=0).astype(precise) for x in leaves]
    top = functools.reduce(jnp.maximum, largest, jnp.zeros((), dtype=precise))
    # A compiler may divide by multiplying with the reciprocal, which must not vanish either.
    top = jnp.where((top > 0) & jnp.isfinite(top), jnp.minimum(top, 1 / jnp.finfo(precise).tiny), 1)
    scale = jax.lax.stop_gradient(top)  # its value cancels
    squares = [jnp.sum(jnp.square(x.astype(precise) / scale), axis=axis, keepdims=keep) for x in leaves]
    total = functools.reduce(jnp.add, squares, jnp.zeros((), dtype=precise))
    return Length(scale, jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), total))  # differentiable at 0


def shorten(x: RealLeaf, length: Length, limit: Any) -> RealLeaf:
    """Return x · min(1, limit / norm), which is x for a zero norm and NaN only for a norm that is NaN.

    The factor alone may vanish where the product does not: 1 / 3e38 is 0 in single precision.
    """
    scale, relative = length
    limit = cast(limit, relative.dtype)
    short = (x.astype(relative.dtype) / scale) * (limit / jnp.where(relative > 0, relative, 1))
    is_long, unknown = length.value > limit, jnp.isnan(relative)
    return jnp.where(is_long, short.astype(x.dtype), jnp.where(unknown, relative.astype(x.dtype), x))


def unit_norm(x: RealLeaf) -> Length:
    """Return the norm of each unit of a leaf, in a shape that broadcasts against it."""
    return norm([x], axis=tuple(range(x.ndim - 1)) if x.ndim > 1 else tuple(range(x.ndim)))
