"""What kind of point of a loss this is, judged by its gradient, its curvatures and by trying to go down."""

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study._checks import check_integer, check_real, check_static_real
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._audit import check_noise_floor
from jaxopt_study.curvature.operators._empirical_risk import EmpiricalRiskOperator
from jaxopt_study.curvature.operators._hessian import hessian
from jaxopt_study.curvature.points._descent_direction import Escape, escape_along
from jaxopt_study.curvature.points._loss_and_gradient import slope
from jaxopt_study.curvature.points._morse_index import MorseIndex, check_tau, index_of, morse_index
from jaxopt_study.curvature.points._tolerances import FLATNESS, Tolerances, check_tolerances, flatness_at
from jaxopt_study.curvature.spectrum import _eigenvalue_counts as inertia
from jaxopt_study.curvature.spectrum._eigenpairs import Eigenpairs, eigenpairs
from jaxopt_study.curvature.spectrum._sharpness import Bracket, sharpness
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import key_or_fixed
from jaxopt_study.linalg.dense import unravel
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector

_PAIR_TOL = 1e-3
_CONFIDENCE = 0.99
_WIDTH = 0.25  # of a bracket: what is nearer to ±τ than that needs no more digits, but another τ
_FEW = 64  # products for a bracket at first


class PointKind(IntEnum):
    """What kind of point it is."""

    MINIMUM = 0  # every eigenvalue is above τ: a strict, isolated minimum
    SADDLE = 1  # an eigenvalue is below −τ and one above τ; further ones may be flat
    MAXIMUM = 2  # every eigenvalue is below −τ
    DEGENERATE = 3  # flat directions were found, and the Hessian decides nothing: a valley, a monkey saddle, a plateau
    GRADIENT_FLAT = 4  # not critical, but the gradient hardly changes along itself: Hg ≈ 0 and g is not
    NOT_CRITICAL = 5
    NOT_FINITE = 6  # loss, gradient or a product is NaN or infinite
    UNRESOLVED = 7  # critical, but the curvatures are not known well enough to say more


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
        bounds: All eigenvalues are between these (2,): up to δ, or each with 99 % confidence if n > `max_dense`.
        index: Eigenvalues below −τ and within ±τ, with their errors.
        escape: The way down that was found, if `escape.seen`.
        num_matvecs: Products that it took.
    """

    kind: Int[Array, ""]
    value: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    gradient_tol: Float[Array, ""]
    flatness: Float[Array, ""]
    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    residuals: Float[Array, "2"]
    bounds: Float[Array, "2"]
    index: MorseIndex
    escape: Escape
    num_matvecs: Int[Array, ""]

    @property
    def verdict(self) -> str:
        """The kind as "minimum", "saddle", "unresolved", …; outside of a trace, for a single point."""
        name = PointKind(int(self.kind)).name.lower()
        return "gradient-flat" if name == "gradient_flat" else name.replace("_", " ")


@nan_is_an_answer
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
    max_matvecs: int = 256,
) -> Classification:
    """Tell minima, saddles, maxima and degenerate points apart, and all of these from points that are not critical.

    A point is critical if ‖g‖ ≤ tol ‖H‖ (1 + ‖θ‖): in the stiffest direction it is within tol (1 + ‖θ‖) of where the
    gradient vanishes. With all n eigenvalues λ, or, where n > `max_dense`, with bounds on the extreme ones:

        minimum     all λ > τ                saddle      some λ < −τ and some λ > τ
        maximum     all λ < −τ               degenerate  some |λ| ≤ τ, and those beyond it on one side at most

    each beyond the error of an eigenvalue, and unresolved where more than one of them remains possible: no eigenvalue
    was found to be flat, but `bounds` does not exclude one; or flat ones were found, but a saddle is not excluded. More
    products, double precision or another τ may resolve it.

    **A minimum that is not isolated is degenerate here**: along its valley the Hessian is zero, and it cannot tell a
    valley from a monkey saddle or from the origin of a deep linear network, where H = 0 and which is no minimum. What
    can be told is whether the loss falls somewhere: from saddles, degenerate and unresolved points straight walks are
    tried, along the eigenvector of the smallest eigenvalue and along random directions, flat ones if n ≤ `max_dense`. A
    degenerate or unresolved point with `escape.seen` is no minimum; one without may be. A saddle may have flat
    directions as well, which `index.flat` counts.

    Where g is not zero but Hg nearly is, ‖Hg‖ (1 + ‖θ‖) ≤ flatness · ‖g‖², no step of Newton's method leads anywhere:
    methods that minimise ‖g‖² stop at such gradient-flat points, and take them for critical ones.

    Args:
        loss: `loss(params, batch)`, as in `hessian`.
        params: θ.
        data: As in `hessian`.
        key: For random directions; None for the same ones every time.
        batch_size: As in `hessian`.
        tol: Relative tolerance of a critical point, at or above the noise floor; None takes √ε or, if larger, that.
        gradient_tol: The tolerance on ‖g‖ itself, instead of tol ‖H‖ (1 + ‖θ‖).
        tau: τ, as in `morse_index`.
        flatness: Of a gradient-flat point. Without units but for the 1 + ‖θ‖, which takes parameters to be of order 1.
        num_directions: Random directions to try, besides the eigenvector; ≥ 1.
        noise_floor: Relative error of a product, as in `morse_index`.
        max_dense: The largest n for which the Hessian is made. Beyond it "minimum" and "maximum" hold with 99 %
            confidence, from the brackets of `sharpness`, and "saddle" is proved as in the dense case.
        max_matvecs: Products, and vectors of memory, for each of the two brackets, ≥ 2. Outside of a trace those beyond
            64 are spent only where the verdict is open without them. About log(100 √n)/√(2λ/(λmax − λmin)) resolve an
            eigenvalue λ at the edge: 256 do for a condition number of 1e3, 512 for one of 1e4.

    Returns:
        The verdict. Cost: n + 3 products for n ≤ `max_dense`, else about 800, and up to 2 `max_matvecs` more where
        these leave it open; 24 (num_directions + 1) + 8 losses. It may be used under `jit` and `vmap`, for many small
        problems at once.

    Raises:
        TypeError: If loss or parameters do not suit a Hessian, `key` is no key, a count no integer or a tolerance no
            number.
        ValueError: If a tolerance is not positive, `tol` or `tau` is below the noise floor, or another number is out of
            range.

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
    key = key_or_fixed(key, name)
    num_directions = check_integer(name, "num_directions", num_directions, 1)
    max_dense, max_matvecs = (
        check_integer(name, "max_dense", max_dense, 0),
        check_integer(name, "max_matvecs", max_matvecs, 2),
    )
    tau = None if tau is None else check_real(name, "tau", tau, 0.0)
    op = cast(EmpiricalRiskOperator, hessian(loss, params, data, batch_size=batch_size))
    # Beyond a quarter of the norm no bracket is narrower than what it encloses.
    floor = check_static_real(name, "noise_floor", check_noise_floor(name, op, noise_floor, below=0.25))
    tolerances = check_tolerances(name, op, floor, tol, gradient_tol, flatness)
    value, g, image = slope(op)
    key_index, key_pairs, key_low, key_high, key_flat, key_walk = jax.random.split(key, 6)
    here = op.params, value, g, image
    if op.size <= max_dense:
        compression = inertia.of_all(op)
        index = index_of(compression, tau, noise_floor=floor)
        limit = check_tau(tau, compression, floor)
        pair, flat = _of_matrix(compression.matrix, limit, op.like, num_directions, key_flat)
        values, residuals = _rayleigh(pair, op.matmat(pair))
        smallest, largest = (jnp.stack([x - index.error, x + index.error]) for x in values)
        ends = _Ends(values, residuals, smallest, largest, jax.tree.map(lambda leaf: leaf[:1], pair))
        verdict = _judge(here, tolerances, ends, index)
        spent = index.num_matvecs + 3
    else:
        index = morse_index(op, tau, key=key_index, noise_floor=floor, max_dense=max_dense)
        found = eigenpairs(op, 2, which="BE", tol=max(_PAIR_TOL, 4 * floor), key=key_pairs, noise_floor=floor)
        flat = jax.vmap(lambda k: vectors.random_like(op.like, key=k))(jax.random.split(key_flat, num_directions))
        traced = isinstance(index.tau, Tracer)
        brackets = _brackets(op, (key_low, key_high), floor, max_matvecs if traced else min(_FEW, max_matvecs))
        spent = index.num_matvecs + found.num_matvecs + brackets.num_matvecs.sum() + 1
        ends = _ends(found, brackets, floor * index.scale)
        verdict = _judge(here, tolerances, ends, index)
        if not traced and max_matvecs > _FEW and int(verdict.kind) == PointKind.UNRESOLVED:
            # From the same starts, so that the brackets' confidence is that of one.
            brackets = _brackets(op, (key_low, key_high), floor, max_matvecs)
            spent += brackets.num_matvecs.sum()
            ends = _ends(found, brackets, floor * index.scale)
            verdict = _judge(here, tolerances, ends, index)
    ways = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ends.down, flat)
    escape = escape_along(op, value, g, ways, key=key_walk)
    return Classification(
        kind=verdict.kind,
        value=value,
        gradient_norm=verdict.gradient_norm,
        gradient_tol=verdict.gradient_tol,
        flatness=verdict.flatness,
        smallest=ends.values[0],
        largest=ends.values[1],
        residuals=ends.residuals,
        bounds=jnp.stack([ends.smallest[0], ends.largest[1]]),
        index=verdict.index,
        escape=escape._replace(seen=escape.seen & verdict.open_below),
        num_matvecs=jnp.asarray(spent),
    )


class _Ends(NamedTuple):
    """The extreme eigenvalues: Rayleigh quotients (2,) with residuals (2,), and two bounds (2,) on each."""

    values: Array
    residuals: Array
    smallest: Array
    largest: Array
    down: Vector  # the vector behind the smallest value, as a block of one


class _Verdict(NamedTuple):
    kind: Int[Array, ""]
    gradient_norm: Float[Array, ""]
    gradient_tol: Float[Array, ""]
    flatness: Float[Array, ""]
    index: MorseIndex
    open_below: Bool[Array, ""]  # whether a way down is to be expected or cannot be excluded


def _brackets(op: EmpiricalRiskOperator, keys: tuple[Key, Key], floor: float, max_matvecs: int) -> Bracket:
    """Return brackets of the largest eigenvalues of −H and of H, stacked."""
    options = {"confidence": _CONFIDENCE, "tol": max(_WIDTH, 4 * floor), "noise_floor": floor}
    low, high = (
        sharpness(signed, key=key, max_matvecs=max_matvecs, **options)
        for signed, key in zip((-op, op), keys, strict=True)
    )
    return jax.tree.map(lambda a, b: jnp.stack([a, b]), low, high)


@jax.jit
def _ends(found: Eigenpairs, brackets: Bracket, margin: Array) -> _Ends:
    """Return the more extreme of the Rayleigh quotients found, with the brackets' bounds."""
    signs = jnp.array([-1, 1], found.values.dtype)
    quotients = signs * (brackets.lower + margin)
    better = signs * (quotients - found.values) > 0
    values = jnp.where(better, quotients, found.values)
    return _Ends(
        values=values,
        residuals=jnp.where(better, brackets.residual, found.residuals),
        smallest=jnp.stack([-brackets.upper[0], values[0] + margin]),
        largest=jnp.stack([values[1] - margin, brackets.upper[1]]),
        down=jax.tree.map(lambda a, b: jnp.where(better[0], a[:1], b[:1]), brackets.vector, found.vectors),
    )


@jax.jit
def _judge(here: Any, tolerances: Tolerances, ends: _Ends, index: MorseIndex) -> _Verdict:
    params, value, g, image = here
    norm, stretch = vectors.norm(g), vectors.norm(image)
    length = 1 + vectors.norm(params)
    extent = jnp.max(jnp.abs(ends.values))
    limit, flat_by = tolerances.limit(extent, length), flatness_at(norm, stretch, length)
    kind, index = _of_critical(ends, index)
    critical = norm <= limit
    away = jnp.where(flat_by <= tolerances.flatness, PointKind.GRADIENT_FLAT, PointKind.NOT_CRITICAL)
    kind = jnp.where(critical, kind, away)
    finite = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.isfinite(extent)
    kind = jnp.where(finite, kind, PointKind.NOT_FINITE).astype(jnp.int32)
    open_below = jnp.isin(kind, jnp.array([PointKind.SADDLE, PointKind.DEGENERATE, PointKind.UNRESOLVED], kind.dtype))
    return _Verdict(kind, norm, limit, flat_by, index, open_below)


def _of_critical(ends: _Ends, index: MorseIndex) -> tuple[Array, MorseIndex]:
    """Return the kind of a critical point, and the index with what the extreme eigenvalues prove."""
    tau = index.tau
    down = (index.lower_bound > 0) | (ends.smallest[1] < -tau)
    up = (index.positive_lower_bound > 0) | (ends.largest[0] > tau)
    none_down, none_up = (ends.smallest[0] >= -tau) & ~down, (ends.largest[1] <= tau) & ~up
    far = jnp.abs(ends.values) + jnp.maximum(ends.residuals, index.error)
    flat = (index.flat_interval[0] > 0) | jnp.any(far <= tau)
    flat |= (none_down & (ends.smallest[1] <= tau)) | (none_up & (ends.largest[0] >= -tau))
    kind = jnp.select(
        [
            down & up,
            (ends.smallest[0] > tau) & ~down & ~flat,
            (ends.largest[1] < -tau) & ~up & ~flat,
            flat & (none_down | none_up),
        ],
        [PointKind.SADDLE, PointKind.MINIMUM, PointKind.MAXIMUM, PointKind.DEGENERATE],
        PointKind.UNRESOLVED,
    )
    lower = jnp.maximum(index.lower_bound, down.astype(index.lower_bound.dtype))
    return kind, index._replace(
        lower_bound=lower,
        estimate=jnp.maximum(index.estimate, lower.astype(index.estimate.dtype)),
        interval=jnp.maximum(index.interval, lower.astype(index.interval.dtype)),
        positive_lower_bound=jnp.maximum(index.positive_lower_bound, up.astype(index.positive_lower_bound.dtype)),
    )


@partial(jax.jit, static_argnums=(3,))
def _directions(matrix: Array, tau: Array, key: Key, number: int) -> tuple[Array, Array]:
    matrix, unit = vectors.unscaled(matrix)
    values, columns = jnp.linalg.eigh((matrix + matrix.T) / 2)
    ends = columns[:, jnp.array([0, -1])].T
    # Random directions among the flat ones: along others a quadratic rise would hide what the higher orders do.
    flat = jnp.abs(unit * values) <= tau
    random = jax.random.normal(key, (number, values.shape[0]), matrix.dtype) * flat[None, :].astype(matrix.dtype)
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
