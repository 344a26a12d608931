"""What kind of point of a loss this is, judged by its gradient, its curvatures and by trying to go down."""

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jaxopt_study.curvature import inertia, vectors
from jaxopt_study.curvature.audit import noise_floor as expected_noise
from jaxopt_study.curvature.checks import key_or_fixed
from jaxopt_study.curvature.eigenpairs import eigenpairs
from jaxopt_study.curvature.escape import Escape, escape_along
from jaxopt_study.curvature.export import unravel
from jaxopt_study.curvature.index import MorseIndex, check_tau, index_of, morse_index
from jaxopt_study.curvature.landscape import slope
from jaxopt_study.curvature.loss_operators import hessian
from jaxopt_study.curvature.mean_operator import MeanOperator
from jaxopt_study.curvature.sharpness import sharpness
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector

FLATNESS = 1e-3  # below it, a walk of the parameters' own length leaves the gradient what it is, to a thousandth
_PAIR_TOL = 1e-3
_CONFIDENCE = 0.99


class PointKind(IntEnum):
    """What kind of point it is."""

    MINIMUM = 0  # every eigenvalue is above τ: a strict, isolated minimum
    SADDLE = 1  # an eigenvalue is below −τ and one above τ; further ones may be flat
    MAXIMUM = 2  # every eigenvalue is below −τ
    DEGENERATE = 3  # none of these, and so not decided by the Hessian: a valley of minima, a monkey saddle, a plateau
    GRADIENT_FLAT = 4  # not critical, but the gradient hardly changes along itself: Hg ≈ 0 and g is not
    NOT_CRITICAL = 5
    NOT_FINITE = 6  # loss, gradient or a product is NaN or infinite


class Classification(NamedTuple):
    """The verdict on a point and what it rests on.

    Attributes:
        kind: A `PointKind`, as an integer; `verdict` is the word.
        value: The loss.
        gradient_norm: ‖g‖.
        gradient_tol: The point counts as critical if ‖g‖ is no larger.
        flatness: ‖Hg‖ (1 + ‖θ‖)/‖g‖²; infinite for g = 0.
        smallest: The smallest eigenvalue.
        largest: The largest eigenvalue.
        residuals: ‖H v − λ v‖ of these two (2,), from products of their own.
        index: Eigenvalues below −τ and within ±τ, with their errors.
        escape: The way down that was found, if `escape.seen`.
        num_matvecs: Products that it took.
    """

    kind: Array
    value: Array
    gradient_norm: Array
    gradient_tol: Array
    flatness: Array
    smallest: Array
    largest: Array
    residuals: Array
    index: MorseIndex
    escape: Escape
    num_matvecs: Array

    @property
    def verdict(self) -> str:
        """The kind as "minimum", "saddle", "gradient-flat", …; outside of a trace, for a single point."""
        name = PointKind(int(self.kind)).name.lower()
        return "gradient-flat" if name == "gradient_flat" else name.replace("_", " ")


def classify_point(
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    key: Key | None = None,
    batch_size: int | None = None,
    tol: float | None = None,
    gradient_tol: Any = None,
    tau: Any = None,
    flatness: float = FLATNESS,
    num_directions: int = 4,
    noise_floor: float | None = None,
    max_dense: int = 500,
) -> Classification:
    """Tell minima, saddles, maxima and degenerate points apart, and all of these from points that are not critical.

    A point is critical if ‖g‖ ≤ tol ‖H‖ (1 + ‖θ‖): in the stiffest direction it is within tol (1 + ‖θ‖) of where the
    gradient vanishes. With all n eigenvalues λ, or, where n > `max_dense`, with bounds on the extreme ones:

        minimum     all λ > τ                saddle      some λ < −τ and some λ > τ
        maximum     all λ < −τ               degenerate  otherwise

    each beyond the error of an eigenvalue. **A minimum that is not isolated is degenerate here**: along its valley the
    Hessian is zero, and it cannot tell a valley from a monkey saddle or from the origin of a deep linear network, where
    H = 0 and which is no minimum. What can be told is whether the loss falls somewhere: from saddles and degenerate
    points straight walks are tried, along the eigenvector of the smallest eigenvalue and along random flat directions.
    A degenerate point with `escape.seen` is no minimum; one without may be. A saddle may have flat directions as well,
    which `index.flat` counts.

    Where g is not zero but Hg nearly is, ‖Hg‖ (1 + ‖θ‖) ≤ flatness · ‖g‖², no step of Newton's method leads anywhere:
    methods that minimise ‖g‖² stop at such gradient-flat points, and take them for critical ones.

    Args:
        loss: `loss(params, batch)`, as in `hessian`.
        params: θ.
        data: As in `hessian`.
        key: For random directions; None for the same ones every time.
        batch_size: As in `hessian`.
        tol: Relative tolerance of a critical point; None takes √ε.
        gradient_tol: The tolerance on ‖g‖ itself, instead of tol ‖H‖ (1 + ‖θ‖).
        tau: τ, as in `morse_index`.
        flatness: Of a gradient-flat point. Without units but for the 1 + ‖θ‖, which takes parameters to be of order 1.
        num_directions: Random directions to try, besides the eigenvector; ≥ 1.
        noise_floor: Relative error of a product, as in `morse_index`.
        max_dense: The largest n for which the Hessian is made. Beyond it "minimum" and "maximum" hold with 99 %
            confidence, from the bracket of `sharpness`, and "saddle" is proved as in the dense case.

    Returns:
        The verdict. Cost: n + 3 products for n ≤ `max_dense`, else about 800; 24 (num_directions + 1) losses. It may be
        used under `jit` and `vmap`, for many small problems at once.

    Raises:
        TypeError: If loss or parameters do not suit a Hessian.
        ValueError: If a tolerance is not positive, or `tau` is below the noise floor.

    Example:
        >>> saddle = lambda p, batch: p["x"] ** 2 - p["y"] ** 2
        >>> result = classify_point(saddle, {"x": 0.0, "y": 0.0}, key=jax.random.key(0))
        >>> print(result.verdict, result.index.estimate, bool(result.escape.seen), result.escape.fall > 0)
        saddle 1.0 True True
        >>> monkey = lambda p, batch: p[0] ** 3 - 3 * p[0] * p[1] ** 2
        >>> result = classify_point(monkey, jnp.zeros(2), key=jax.random.key(0))
        >>> print(result.verdict, bool(result.escape.seen))  # the Hessian is zero, but there is a way down
        degenerate True

    References:
        Frye, Simon, Wadia, Ligeralde, DeWeese and Bouchard (2021), Critical Point-Finding Methods Reveal Gradient-Flat
        Regions of Deep Network Losses, Neural Computation 33. Milnor (1963), Morse Theory, section 2: the index.
    """
    name = "classify_point"
    for argument, number in [("tol", tol), ("gradient_tol", gradient_tol), ("flatness", flatness)]:
        if number is not None and not isinstance(number, Tracer) and not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name} needs {argument} > 0; received {number}.")
    if not isinstance(num_directions, int) or num_directions < 1:
        raise ValueError(f"{name} needs num_directions ≥ 1; received {num_directions!r}.")
    op = cast(MeanOperator, hessian(loss, params, data, batch_size=batch_size))
    floor = expected_noise(op) if noise_floor is None else float(noise_floor)
    value, g, hg = slope(op)
    key_index, key_pairs, key_low, key_high, key_flat, key_walk = jax.random.split(key_or_fixed(key), 6)
    if op.size <= max_dense:
        compression = inertia.of_all(op)
        index = index_of(compression, tau, noise_floor=floor)
        limit = check_tau(tau, compression, floor)
        pair, flat = _of_matrix(compression.matrix, limit, op.like, num_directions, key_flat)
        values, residuals = _rayleigh(pair, op.matmat(pair))
        all_up = index.positive_lower_bound == op.size
        all_down = index.lower_bound == op.size
        spent = index.num_matvecs + 3
    else:
        index = morse_index(op, tau, key=key_index, noise_floor=floor, max_dense=max_dense)
        found = eigenpairs(op, 2, which="BE", tol=max(_PAIR_TOL, 4 * floor), key=key_pairs, noise_floor=floor)
        low = sharpness(-op, key=key_low, confidence=_CONFIDENCE, noise_floor=floor)
        high = sharpness(op, key=key_high, confidence=_CONFIDENCE, noise_floor=floor)
        values, residuals, pair = found.values, found.residuals, found.vectors
        flat = jax.vmap(lambda k: vectors.random_like(op.like, key=k))(jax.random.split(key_flat, num_directions))
        all_up, all_down = -low.upper > index.tau, high.upper < -index.tau
        spent = index.num_matvecs + found.num_matvecs + low.num_matvecs + high.num_matvecs + 1
    down = jax.tree.map(lambda leaf: leaf[:1], pair)
    escape = escape_along(op, value, g, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), down, flat), key=key_walk)
    facts = (value, g, hg, values, index, all_up, all_down)
    kind, norm, limit, flat_by = _judge(op.params, facts, tol, gradient_tol, flatness)
    escape = escape._replace(seen=escape.seen & ((kind == PointKind.SADDLE) | (kind == PointKind.DEGENERATE)))
    return Classification(
        kind, value, norm, limit, flat_by, values[0], values[1], residuals, index, escape, jnp.asarray(spent)
    )


@jax.jit
def _judge(params: Params, facts: Any, tol: Any, gradient_tol: Any, flatness: Any) -> tuple[Array, Array, Array, Array]:
    value, g, hg, values, index, all_up, all_down = facts
    norm, change = vectors.norm(g), vectors.norm(hg)
    length = 1 + vectors.norm(params)
    extent = jnp.max(jnp.abs(values))
    if gradient_tol is None:
        tol = jnp.sqrt(jnp.finfo(norm.dtype).eps) if tol is None else tol
        gradient_tol = tol * extent * length
    limit = jnp.asarray(gradient_tol, norm.dtype)
    flat_by = jnp.where(norm > 0, change * length / jnp.where(norm > 0, norm, 1) ** 2, jnp.inf)
    down, up = index.lower_bound > 0, index.positive_lower_bound > 0
    kind = jnp.where(
        all_up,
        PointKind.MINIMUM,
        jnp.where(all_down, PointKind.MAXIMUM, jnp.where(down & up, PointKind.SADDLE, PointKind.DEGENERATE)),
    )
    away = jnp.where(flat_by <= flatness, PointKind.GRADIENT_FLAT, PointKind.NOT_CRITICAL)
    kind = jnp.where(norm <= limit, kind, away)
    finite = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.isfinite(extent)
    return jnp.where(finite, kind, PointKind.NOT_FINITE).astype(jnp.int32), norm, limit, flat_by


@partial(jax.jit, static_argnums=(3,))
def _directions(matrix: Array, tau: Array, key: Key, number: int) -> tuple[Array, Array]:
    values, columns = jnp.linalg.eigh((matrix + matrix.T) / 2)
    ends = columns[:, jnp.array([0, -1])].T
    # Random directions among the flat ones: along others a quadratic rise would hide what the higher orders do.
    flat = jnp.abs(values) <= tau
    random = jax.random.normal(key, (number, values.shape[0]), matrix.dtype) * flat
    return ends, jnp.matmul(random, columns.T, precision="highest")


def _of_matrix(matrix: Array, tau: Array, like: Any, number: int, key: Key) -> tuple[Vector, Vector]:
    """Return the eigenvectors of the smallest and the largest eigenvalue, and random flat directions, as blocks."""
    ends, flat = _directions(matrix, tau, key, number)
    return unravel(like, ends), unravel(like, flat)


@jax.jit
def _rayleigh(pair: Vector, images: Vector) -> tuple[Array, Array]:
    def one(v: Vector, image: Vector) -> tuple[Array, Array]:
        value = vectors.inner(v, image) / vectors.inner(v, v)
        return value, vectors.norm(vectors.axpy(-value, v, image)) / vectors.norm(v)

    return jax.vmap(one)(pair, images)
