"""Taps: norms, angles and clipping recorded inside a chain while it runs."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study._programs import wider
from jaxopt_study.transforms._clipping import Length, norm
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform, with_any_extra


class TapMetrics(NamedTuple):
    """Measurements of a tap at the last step. All are float scalars."""

    norm_in: Any  # Euclidean norm of the input
    norm_out: Any  # Euclidean norm of the output
    cosine: Any  # cosine of the angle between output and raw gradient; 0 if either vanishes or shapes differ
    clipped_fraction: Any  # share of coordinates whose magnitude decreased; 0 if shapes differ


@flax.struct.dataclass
class TapState:
    """The last measurements of a tap, and the state of the watched transformation."""

    metrics: TapMetrics
    inner_state: Any
    name: str = flax.struct.field(pytree_node=False)


@atom(state=object, contains=True)  # the watched transformation's own state when not enabled
def tap(name: str, inner: optax.GradientTransformation | None = None, *, enabled: bool = True) -> Transform:
    """Record the effect of a transformation on the gradient, without changing it.

    With g the raw gradient of the outermost chain, x the input and y the output of `inner`:

        ‖x‖,  ‖y‖,  ⟨y, g⟩ / (‖y‖ ‖g‖),  share of coordinates with |yᵢ| < |xᵢ|

    The measurements are part of the state, so a tap works in `jit`, `scan` and `vmap`, and `train` records them at
    every step. The tap itself keeps no history: `read_taps` returns the last measurements.

    Args:
        name: The tap's name, unique within a chain.
        inner: The transformation to watch. None measures at the tap's position in the chain, with x = y.
        enabled: False removes the tap from the computation: the compiled program is the same as without it.
            `tx.replace({"*enabled": False})` turns all taps of a chain off.

    Returns:
        A transformation with the output of `inner`. Cost: about eight reads of the gradient, two for each norm, which
        no finite gradient overflows; none if not enabled.

    Raises:
        ValueError: If the name is empty.
        TypeError: If the name is not a string, or `inner` is not a transformation.

    Example:
        >>> tx = chain(tap("clip", clip_by_global_norm(1.0)), scale_by_learning_rate(0.1))
        >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
        >>> metrics = read_taps(state)["clip"]
        >>> print(metrics.norm_in, metrics.norm_out, metrics.cosine, metrics.clipped_fraction)
        5.0 1.0 1.0 1.0

    References:
        Optax's `monitor` also measures, but does not run inside `scan`.
    """
    if not isinstance(name, str):
        raise TypeError(f"tap needs name to be text; received {describe_argument(name)}.")
    check_bool("tap", "enabled", enabled)
    if inner is not None and not isinstance(inner, optax.GradientTransformation):
        hint = " Call it: it is a constructor." if callable(inner) else ""
        raise TypeError(f"tap needs inner to be an Optax transformation; received {describe_argument(inner)}.{hint}")
    if not name:
        raise ValueError("tap: expected a non-empty name for the measurements, received an empty one.")
    watched = optax.identity() if inner is None else inner
    watched = with_any_extra(watched)
    if not enabled:
        return Transform(watched.init, watched.update)

    def init(params: PyTree) -> TapState:
        # Separate arrays: a state that held the same array four times could not be donated.
        nothing = (jnp.zeros((), dtype=jnp.result_type(float)) for _ in TapMetrics._fields)
        return TapState(TapMetrics(*nothing), watched.init(params), name)

    def update(updates: PyTree, state: TapState, params: PyTree = None, **extra: Any) -> tuple[PyTree, TapState]:
        new, inner_state = watched.update(updates, state.inner_state, params, **extra)
        metrics = _measure(updates, new, extra.get("raw_gradient", updates))
        return new, TapState(metrics, inner_state, name)

    return Transform(init, update)


def read_taps(state: Any) -> dict[str, TapMetrics]:
    """Return the last measurements of every tap in an optimizer state.

    Args:
        state: The state of any transformation.

    Returns:
        Metrics by the tap's name, in the order of the chain; empty if there are no taps.

    Raises:
        ValueError: If two taps have the same name.

    Example:
        >>> print(read_taps(tap("here").init(jnp.zeros(2)))["here"].norm_in)
        0.0
    """
    readings: dict[str, TapMetrics] = {}

    def collect(node: Any) -> None:
        for tap_state in jax.tree.leaves(node, is_leaf=lambda x: isinstance(x, TapState)):
            if isinstance(tap_state, TapState):
                if tap_state.name in readings:
                    raise ValueError(f"Two taps are called {tap_state.name!r}; give each tap of a chain its own name.")
                readings[tap_state.name] = tap_state.metrics
                collect(tap_state.inner_state)

    collect(state)
    return readings


def _measure(before: Any, after: Any, raw: Any) -> TapMetrics:
    # Inside optax.masked a tap sees a part of the tree, and the angle is measured to that part of the raw gradient.
    masked = lambda x: isinstance(x, optax.MaskedNode)
    raw = jax.tree.map(lambda y, g: y if masked(y) else g, after, raw, is_leaf=masked)
    entered, left, taken = (_reals(tree) for tree in (before, after, raw))
    length, start = norm(left), norm(taken)
    pairs = list(zip(entered, left, strict=True))
    same_shapes = all(x.shape == y.shape for x, y in pairs)
    smaller = sum(jnp.sum(jnp.abs(y) < jnp.abs(x)) for x, y in pairs) if same_shapes else 0
    metrics = (
        norm(entered).value,
        length.value,
        _cosine(left, length, taken, start),
        smaller / max(1, sum(x.size for x, _ in pairs)),
    )
    return TapMetrics(*(jnp.asarray(value).astype(jnp.result_type(float)) for value in metrics))


def _reals(tree: Any) -> list[Float[Array, "..."]]:
    """Return the leaves as real arrays; a complex leaf becomes its real and its imaginary part."""
    leaves = jax.tree.leaves(tree)
    return [part for x in leaves for part in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))]


def _cosine(
    left: list[Float[Array, "..."]], length: Length, raw: list[Float[Array, "..."]], start: Length
) -> Float[Array, ""]:
    """Return the cosine of the angle between two lists of arrays with the given norms, scaled to avoid overflow."""
    if [x.shape for x in left] != [x.shape for x in raw]:  # per-example gradients have no single angle
        return jnp.zeros(())
    precise = wider(length.relative.dtype, start.relative.dtype)
    unit = lambda x, scale: x.astype(precise) / scale.astype(precise)
    products = [jnp.sum(unit(y, length.scale) * unit(g, start.scale)) for y, g in zip(left, raw, strict=True)]
    both = length.relative.astype(precise) * start.relative.astype(precise)
    total = sum(products, jnp.zeros((), dtype=precise))
    return jnp.where(both == 0, 0, total / jnp.where(both == 0, 1, both))
