"""Loss along a line and in a plane through a point, with the quadratic model beside it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._checks import check_numbers
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import noise_floor
from jaxopt_study.curvature.operators._hessian import hessian
from jaxopt_study.curvature.points import _cards
from jaxopt_study.curvature.points._directions import Normalize, check_direction
from jaxopt_study.curvature.points._loss_and_gradient import loss_at, value_and_gradient
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.types import Batch, LossFn, Params, Vector

_POINTS = 41
_SIDE = 21


class Path(NamedTuple):
    """The loss along a line, and its quadratic model.

    Attributes:
        steps: Multiples s of the direction.
        losses: L(θ + s d).
        errors: Rounding error of each: half the difference of two evaluations at points that differ by one rounding of
            each parameter, at least the rounding of the loss.
        model: L(θ) + s gᵀd + ½ s² dᵀHd.
        slope: gᵀd.
        slope_error: Bound on its rounding error, from gradient and parameters that differ by 16 roundings each.
        curvature: dᵀHd.
        curvature_error: Bound on its rounding error.
        norm: ‖d‖, the length of a unit of s.
    """

    steps: Float[Array, " steps"]
    losses: Float[Array, " steps"]
    errors: Float[Array, " steps"]
    model: Float[Array, " steps"]
    slope: Float[Array, ""]
    slope_error: Float[Array, ""]
    curvature: Float[Array, ""]
    curvature_error: Float[Array, ""]
    norm: Float[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.path)
    to_pandas = tabulated(_cards.columns_of_path)
    plot = plotted


class Plane(NamedTuple):
    """The loss in a plane, and its quadratic model.

    Attributes:
        x: Multiples of the first direction u.
        y: Multiples of the second direction v.
        losses: L(θ + x u + y v), a row for each y.
        errors: Their rounding errors, as in `Path`.
        model: L(θ) + gᵀw + ½ wᵀHw with w = x u + y v.
        slopes: gᵀu and gᵀv.
        curvatures: The matrix of uᵀHu, uᵀHv and vᵀHv.
        curvature_error: Bound on the rounding error of its entries.
        norms: ‖u‖ and ‖v‖.
        cosine: Cosine of the angle between the directions; 0 if they are orthogonal.
    """

    x: Float[Array, " columns"]
    y: Float[Array, " rows"]
    losses: Float[Array, "rows columns"]
    errors: Float[Array, "rows columns"]
    model: Float[Array, "rows columns"]
    slopes: Float[Array, "2"]
    curvatures: Float[Array, "2 2"]
    curvature_error: Float[Array, ""]
    norms: Float[Array, "2"]
    cosine: Float[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.plane)
    plot = plotted


@nan_is_an_answer
def path(
    loss: LossFn,
    params: Params,
    direction: Vector,
    data: Batch | None = None,
    *,
    steps: Any = None,
    normalize: Normalize = "none",
    batch_size: int | None = None,
) -> Path:
    """Compute the loss along a line through the parameters, and its quadratic model.

    For direction d, gradient g and Hessian H at θ:

        L(θ + s d) beside L(θ) + s gᵀd + ½ s² dᵀHd

    The direction can be an eigenvector, the update of an optimizer, a difference θ₁ − θ of two solutions, with steps
    from 0 to 1, or a random one from `random_direction`.

    Args:
        loss: loss(params, batch) → scalar, without randomness.
        params: θ.
        direction: d, like the parameters.
        data: As in `hessian`.
        steps: The multiples s; None takes 41 from −1 to 1.
        normalize: "none" for d as given; "unit" for norm 1; "filter" for the norm of every filter of the parameters, as
            in `random_direction`.
        batch_size: As in `hessian`.

    Returns:
        Losses with errors, model, slope and curvature. Cost: two losses for each step, one gradient, and one
        Hessian-vector product.

    Raises:
        TypeError: If parameters, direction or data are not arrays, or the loss is no real scalar.
        ValueError: If the direction does not fit the parameters or is not finite, or the steps are not a list of
            numbers.

    Example:
        >>> loss = lambda p, _: p[0] ** 4 + p[1] ** 2
        >>> found = path(loss, jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]), steps=[-1.0, 0.0, 1.0])
        >>> print(found.losses.round(4), found.model.round(4), found.curvature)
        [ 0.  1. 16.] [ 3.  1. 11.] 12.0

    References:
        Goodfellow, Vinyals and Saxe (2015), Qualitatively Characterizing Neural Network Optimization Problems, section
        3: lines between two points. Li, Xu, Taylor, Studer and Goldstein (2018), Visualizing the Loss Landscape of
        Neural Nets.
    """
    name = "path"
    op: Any = hessian(loss, params, data, batch_size=batch_size)
    d = check_direction(name, op.params, direction, normalize)
    s = _line(name, "steps", steps, _POINTS, op)
    start, slopes, sizes, curved = _derivatives(op, [d])
    losses, errors = _evaluated(op, [d], s[:, None])
    terms = slopes[0], curved[0, 0]
    model = start + s * terms[0] + 0.5 * s**2 * terms[1]
    return Path(
        s, losses, errors, model, terms[0], noise_floor(op) * sizes.slopes[0], terms[1],
        noise_floor(op) * sizes.curvature, sizes.norms[0],
    )  # fmt: skip


@nan_is_an_answer
def plane(
    loss: LossFn,
    params: Params,
    directions: tuple[Vector, Vector],
    data: Batch | None = None,
    *,
    x: Any = None,
    y: Any = None,
    normalize: Normalize = "none",
    batch_size: int | None = None,
) -> Plane:
    """Compute the loss in a plane through the parameters, and its quadratic model.

    For directions u and v, w = x u + y v, gradient g and Hessian H at θ:

        L(θ + w) beside L(θ) + gᵀw + ½ wᵀHw

    The directions can be eigenvectors, random ones from `random_direction`, or the axes of a trajectory from
    `principal_axes`; they need not be orthogonal.

    Args:
        loss: loss(params, batch) → scalar, without randomness.
        params: θ.
        directions: u and v, each like the parameters.
        data: As in `hessian`.
        x: Multiples of u; None takes 21 from −1 to 1.
        y: Multiples of v; None takes 21 from −1 to 1.
        normalize: As in `path`.
        batch_size: As in `hessian`.

    Returns:
        Losses with errors, model, slopes and curvatures. Cost: two losses for each point, one gradient, and two
        Hessian-vector products.

    Raises:
        TypeError: As `path`; or if `directions` is not a pair.
        ValueError: As `path`.

    Example:
        >>> loss = lambda p, _: p[0] ** 2 + p[0] * p[1] + jnp.sin(p[2])
        >>> u, v = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
        >>> found = plane(loss, jnp.zeros(3), (u, v), x=[0.0, 1.0], y=[0.0, 2.0])
        >>> print(found.losses, found.curvatures, bool(jnp.allclose(found.model, found.losses)))
        [[0. 1.]
         [0. 3.]] [[2. 1.]
         [1. 0.]] True

    References:
        Li, Xu, Taylor, Studer and Goldstein (2018), Visualizing the Loss Landscape of Neural Nets.
    """
    name = "plane"
    op: Any = hessian(loss, params, data, batch_size=batch_size)
    if not isinstance(directions, tuple | list) or len(directions) != 2:
        raise TypeError(
            f"{name} needs directions to be a pair of vectors like the parameters; received "
            f"{type(directions).__name__}{f' of {len(directions)}' if isinstance(directions, tuple | list) else ''}. "
            "Give (u, v)."
        )
    both = [check_direction(name, op.params, d, normalize, name=f"directions[{i}]") for i, d in enumerate(directions)]
    columns, rows = _line(name, "x", x, _SIDE, op), _line(name, "y", y, _SIDE, op)
    across, up = jnp.meshgrid(columns, rows)
    at = jnp.stack([across.ravel(), up.ravel()], axis=1)
    start, slopes, sizes, curved = _derivatives(op, both)
    losses, errors = (values.reshape(across.shape) for values in _evaluated(op, both, at))
    linear = across * slopes[0] + up * slopes[1]
    quadratic = across**2 * curved[0, 0] + across * up * (curved[0, 1] + curved[1, 0]) + up**2 * curved[1, 1]
    return Plane(
        columns, rows, losses, errors, start + linear + 0.5 * quadratic, slopes, (curved + curved.T) / 2,
        noise_floor(op) * sizes.curvature, sizes.norms, sizes.cosine,
    )  # fmt: skip


class _Sizes(NamedTuple):
    slopes: Float[Array, " k"]  # Σ |gᵢ dᵢ| + |(Hd)ᵢ θᵢ|
    curvature: Float[Array, ""]  # largest ‖Hd‖ ‖d‖
    norms: Float[Array, " k"]
    cosine: Float[Array, ""]  # of the first and the last direction


def _line(who: str, name: str, values: Any, count: int, op: Any) -> Float[Array, " steps"]:
    """Return the multiples of a direction in the dtype of the loss's sums."""
    points = np.linspace(-1.0, 1.0, count) if values is None else check_numbers(who, name, values)
    if points.ndim != 1 or not len(points):
        raise ValueError(f"{who} needs {name} to be a list of numbers; received an array of shape {points.shape}.")
    return jnp.asarray(points, vectors.accumulator(op.dtype))


def _derivatives(
    op: Any, directions: list[Vector]
) -> tuple[Float[Array, ""], Float[Array, " k"], _Sizes, Float[Array, "k k"]]:
    """Return loss, slopes, sizes of the terms and the matrix of curvatures at the operator's parameters."""
    basis = vectors.stack(directions)
    units, lengths = jax.vmap(vectors.normalize)(basis)  # squares of the directions stay in range
    return _terms(*value_and_gradient(op, op.params), op.params, units, lengths, op.matmat(units))


@jax.jit
def _terms(
    start: Float[Array, ""],
    grads: Vector,
    params: Params,
    units: Vector,
    lengths: Float[Array, " k"],
    images: Vector,
) -> tuple[Float[Array, ""], Float[Array, " k"], _Sizes, Float[Array, "k k"]]:
    slopes = lengths * vectors.project(units, grads)
    directions, changes, at, slopes_at = (jax.tree.map(jnp.abs, x) for x in (units, images, params, grads))
    sizes = lengths * (vectors.project(directions, slopes_at) + vectors.project(changes, at))
    scale = lengths[:, None] * lengths[None, :]
    largest = jnp.max(jax.vmap(vectors.norm)(images) * lengths) * jnp.max(lengths)
    cosine = vectors.inner(vectors.row(units, 0), vectors.row(units, len(lengths) - 1))
    return (
        start.astype(slopes.dtype),
        slopes,
        _Sizes(sizes, largest, lengths, cosine),
        scale * vectors.gram(units, images),
    )


def _evaluated(
    op: Any, directions: list[Vector], multiples: Float[Array, "points k"]
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """Return the losses at multiples of the directions, and their rounding errors."""
    if op.loop == "host":
        at = lambda part: jax.tree.map(lambda *x: jnp.stack(x), *[_at(part, directions, one) for one in multiples])
        found = op.mean_over_data(at)
    else:
        found = _mapped(op, directions, multiples)
    return _mean_and_error(*found)


@jax.jit
def _mapped(
    op: Any, directions: list[Vector], multiples: Float[Array, "points k"]
) -> tuple[Float[Array, "points 2"], Float[Array, " points"]]:
    return lax.map(partial(_pair, op, directions), multiples)


def _pair(
    op: Any, directions: list[Vector], multiple: Float[Array, " k"]
) -> tuple[Float[Array, "2"], Float[Array, ""]]:
    """Return the losses at two points that differ by one rounding of each parameter, and the loss's ε."""
    signs = jax.tree.map(jnp.sign, draw_like(op.like, 0))
    values = []
    for shift in (1, -1):
        point = jax.tree.map(
            lambda p, r, shift=shift: p * (1 + shift * jnp.finfo(p.dtype).eps * r).astype(p.dtype), op.params, signs
        )
        for i, direction in enumerate(directions):
            point = vectors.axpy(multiple[i], direction, point)
        values.append(loss_at(op, point))
    eps = jnp.finfo(values[0].dtype).eps
    return jnp.stack(values).astype(multiple.dtype), jnp.asarray(eps, multiple.dtype)


@jax.jit
def _mean_and_error(
    values: Float[Array, "points 2"], rounding: Float[Array, " points"]
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    mean = (values[:, 0] + values[:, 1]) / 2
    spread = jnp.abs(values[:, 0] - values[:, 1]) / 2
    return mean, jnp.maximum(spread, rounding * jnp.abs(mean))


_at = jax.jit(_pair)
