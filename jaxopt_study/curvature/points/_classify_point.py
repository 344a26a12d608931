"""Classification of a point of a loss by its gradient, its eigenvalues and verified descent."""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxopt_study._checks import check_integer, check_real, check_static_real
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._noise_floor import check_noise_floor
from jaxopt_study.curvature.operators._hessian import hessian
from jaxopt_study.curvature.operators._streamed_operator import LossOperator
from jaxopt_study.curvature.points import _cards
from jaxopt_study.curvature.points._descent_direction import Escape, escape_along
from jaxopt_study.curvature.points._index_counts import MorseIndex
from jaxopt_study.curvature.points._loss_and_gradient import slope
from jaxopt_study.curvature.points._morse_index import check_tau, index_of, morse_index
from jaxopt_study.curvature.points._point_kind import ExtremeEigenvalues, PointKind, decide
from jaxopt_study.curvature.points._tolerances import FLATNESS, Residual, check_tolerances
from jaxopt_study.curvature.spectrum._eigenpairs import Eigenpairs, eigenpairs
from jaxopt_study.curvature.spectrum._eigenvalue_counts import dense_compression
from jaxopt_study.curvature.spectrum._sharpness import Bracket, sharpness
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import key_or_fixed
from jaxopt_study.linalg.dense import unravel
from jaxopt_study.types import Batch, Key, LossFn, Params, Vector

_PAIR_TOL = 1e-3
_CONFIDENCE = 0.99
_WIDTH = 0.25  # relative width of a bracket; an eigenvalue nearer to ±τ calls for another τ, not for more digits
_FEW = 64  # products for the first brackets


class Classification(NamedTuple):
    """Kind of a point, with the evidence for it.

    Attributes:
        kind: A `PointKind`, as an integer; `verdict` is its name.
        value: The loss.
        gradient_norm: ‖g‖.
        gradient_tol: Largest ‖g‖ of a critical point.
        flatness: ‖Hg‖ (1 + ‖θ‖)/‖g‖²; infinite for g = 0.
        smallest: The smallest eigenvalue.
        largest: The largest eigenvalue.
        residuals: ‖H v − λ v‖ of these two, recomputed.
        bounds: Bounds on all eigenvalues: up to δ, or each with 99 % confidence if n > `max_dense`.
        index: Numbers of eigenvalues below −τ and within ±τ, with their errors.
        escape: A verified descent, if `escape.seen`.
        num_matvecs: Number of products.
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

    __repr__, _repr_html_ = displayed(_cards.classification)
    plot = plotted

    @property
    def verdict(self) -> str:
        """Name of the kind: "minimum", "saddle", "unresolved", …; outside of a trace, for a single point."""
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
    """Classify a point as minimum, saddle, maximum, degenerate, or not critical.

    A point is critical if ‖g‖ ≤ tol ‖H‖ (1 + ‖θ‖): in the direction of largest curvature the gradient then vanishes
    within a distance of tol (1 + ‖θ‖). With all n eigenvalues λ, or for n > `max_dense` with bounds on the extreme
    ones:

        minimum     all λ > τ                saddle      some λ < −τ and some λ > τ
        maximum     all λ < −τ               degenerate  some |λ| ≤ τ, and those beyond it on one side at most

    each beyond the error of an eigenvalue. The kind is unresolved if more than one remains possible: no flat eigenvalue
    was found, but `bounds` does not exclude one, or flat ones were found, but a saddle is not excluded. More products,
    double precision or another τ may resolve it.

    **A minimum that is not isolated is degenerate here**: the Hessian is zero along its valley, and does not
    distinguish a valley from a monkey saddle, or from the origin of a deep linear network, where H = 0 without a
    minimum. Verified descent does: from saddles, degenerate and unresolved points the loss is evaluated along straight
    walks, along the eigenvector of the smallest eigenvalue and along random directions, flat ones for n ≤ `max_dense`.
    A degenerate or unresolved point with `escape.seen` is not a minimum; one without may be. `index.flat` counts the
    flat directions, also of a saddle.

    Where g ≠ 0 but Hg ≈ 0, ‖Hg‖ (1 + ‖θ‖) ≤ flatness · ‖g‖², Newton's method has no useful step: methods that minimise
    ‖g‖² stop at such gradient-flat points, which are not critical.

    Args:
        loss: `loss(params, batch)`, as in `hessian`.
        params: θ.
        data: As in `hessian`.
        key: Key of random directions; None for a fixed one.
        batch_size: As in `hessian`.
        tol: Relative tolerance of a critical point, at or above the noise floor; None takes max(√ε, noise floor).
        gradient_tol: Absolute tolerance of ‖g‖, instead of tol ‖H‖ (1 + ‖θ‖).
        tau: τ, as in `morse_index`. None takes, at a critical point, at least 10 ‖g‖/(1 + ‖θ‖): flat directions of the
            critical point nearby have eigenvalues of about this size here, of either sign.
        flatness: Tolerance of a gradient-flat point; the term 1 + ‖θ‖ assumes parameters of order 1.
        num_directions: Number of random directions besides the eigenvector, ≥ 1.
        noise_floor: Relative error of a product, as in `morse_index`.
        max_dense: Largest n for which the Hessian is computed. Beyond it "minimum" and "maximum" hold with 99 %
            confidence, from the brackets of `sharpness`; "saddle" is proved as in the dense case.
        max_matvecs: Products, and vectors of memory, for each of two brackets, ≥ 2. Outside of a trace, more than 64
            are used only if the kind is unresolved without them. About log(100 √n)/√(2λ/(λmax − λmin)) resolve an
            eigenvalue λ at the edge: 256 for a condition number of 1e3, 512 for 1e4.

    Returns:
        The classification. Cost: n + 3 products for n ≤ `max_dense`, else about 800, and up to 2 `max_matvecs` more if
        the kind is unresolved; 24 (num_directions + 1) + 8 losses. It may be used under `jit` and `vmap`, for many
        small problems at once.

    Raises:
        TypeError: If an argument has the wrong type.
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
    max_dense = check_integer(name, "max_dense", max_dense, 0)
    max_matvecs = check_integer(name, "max_matvecs", max_matvecs, 2)
    tau = None if tau is None else check_real(name, "tau", tau, 0.0)
    op = cast(LossOperator, hessian(loss, params, data, batch_size=batch_size))
    # With a larger noise floor a bracket would be wider than the spectrum.
    floor = check_static_real(name, "noise_floor", check_noise_floor(name, op, noise_floor, below=0.25))
    tolerances = check_tolerances(name, op, floor, tol, gradient_tol, flatness)
    value, g, image = slope(op)
    key_index, key_pairs, key_low, key_high, key_flat, key_walk = jax.random.split(key, 6)
    here = op.params, value, g, image
    if tau is None:
        tau = Residual(vectors.norm(g), 1 + vectors.norm(op.params), tolerances)
    if op.size <= max_dense:
        compression = dense_compression(op)
        index = index_of(compression, tau, noise_floor=floor)
        limit = check_tau(tau, compression, floor)
        pair, flat = _of_matrix(compression.matrix, limit, op.like, num_directions, key_flat)
        values, residuals = _rayleigh(pair, op.matmat(pair))
        smallest, largest = (jnp.stack([x - index.error, x + index.error]) for x in values)
        ends = ExtremeEigenvalues(values, residuals, smallest, largest, jax.tree.map(lambda leaf: leaf[:1], pair))
        verdict = decide(here, tolerances, ends, index)
        spent = index.num_matvecs + 3
    else:
        index = morse_index(op, tau, key=key_index, noise_floor=floor, max_dense=max_dense)
        pairs = eigenpairs(op, 2, which="BE", tol=max(_PAIR_TOL, 4 * floor), key=key_pairs, noise_floor=floor)
        flat = jax.vmap(lambda k: vectors.random_like(op.like, key=k))(jax.random.split(key_flat, num_directions))
        traced = isinstance(index.tau, Tracer)
        brackets = _brackets(op, (key_low, key_high), floor, max_matvecs if traced else min(_FEW, max_matvecs))
        spent = index.num_matvecs + pairs.num_matvecs + brackets.num_matvecs.sum() + 1
        ends = _ends(pairs, brackets, floor * index.scale)
        verdict = decide(here, tolerances, ends, index)
        if not traced and max_matvecs > _FEW and int(verdict.kind) == PointKind.UNRESOLVED:
            # The same starts as before, so that the confidence of the brackets is that of a single run.
            brackets = _brackets(op, (key_low, key_high), floor, max_matvecs)
            spent += brackets.num_matvecs.sum()
            ends = _ends(pairs, brackets, floor * index.scale)
            verdict = decide(here, tolerances, ends, index)
    directions = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ends.down, flat)
    rest = tau.least_tau(index.scale) if isinstance(tau, Residual) else jnp.zeros_like(index.scale)
    escape = escape_along(op, value, g, directions, rest, key=key_walk)
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


def _brackets(op: LossOperator, keys: tuple[Key, Key], floor: float, max_matvecs: int) -> Bracket:
    """Return stacked brackets of the largest eigenvalues of −H and of H."""
    options = {"confidence": _CONFIDENCE, "tol": max(_WIDTH, 4 * floor), "noise_floor": floor}
    low, high = (
        sharpness(signed, key=key, max_matvecs=max_matvecs, **options)
        for signed, key in zip((-op, op), keys, strict=True)
    )
    return jax.tree.map(lambda a, b: jnp.stack([a, b]), low, high)


@jax.jit
def _ends(pairs: Eigenpairs, brackets: Bracket, margin: Float[Array, ""]) -> ExtremeEigenvalues:
    """Return the more extreme Rayleigh quotients of pairs and brackets, with the bounds of the brackets."""
    signs = jnp.array([-1, 1], pairs.values.dtype)
    quotients = signs * (brackets.lower + margin)
    better = signs * (quotients - pairs.values) > 0
    values = jnp.where(better, quotients, pairs.values)
    return ExtremeEigenvalues(
        values=values,
        residuals=jnp.where(better, brackets.residual, pairs.residuals),
        smallest=jnp.stack([-brackets.upper[0], values[0] + margin]),
        largest=jnp.stack([values[1] - margin, brackets.upper[1]]),
        down=jax.tree.map(lambda a, b: jnp.where(better[0], a[:1], b[:1]), brackets.vector, pairs.vectors),
    )


@partial(jax.jit, static_argnums=(3,))
def _directions(
    matrix: Float[Array, "n n"], tau: Float[Array, ""], key: Key, number: int
) -> tuple[Float[Array, "2 n"], Float[Array, "{number} n"]]:
    matrix, unit = vectors.unscaled(matrix)
    values, columns = jnp.linalg.eigh((matrix + matrix.T) / 2)
    ends = columns[:, jnp.array([0, -1])].T
    # Random flat directions: along others a quadratic increase would hide higher orders.
    flat = jnp.abs(unit * values) <= tau
    random = jax.random.normal(key, (number, values.shape[0]), matrix.dtype) * flat[None, :].astype(matrix.dtype)
    return ends, jnp.matmul(random, columns.T, precision="highest")


def _of_matrix(
    matrix: Float[Array, "n n"], tau: Float[Array, ""], like: Any, number: int, key: Key
) -> tuple[Vector, Vector]:
    """Return the eigenvectors of the smallest and the largest eigenvalue, and random flat directions, as blocks."""
    ends, flat = _directions(matrix, tau, key, number)
    return unravel(like, ends), unravel(like, flat)


@jax.jit
def _rayleigh(pair: Vector, images: Vector) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    def one(v: Vector, image: Vector) -> tuple[Float[Array, ""], Float[Array, ""]]:
        value = vectors.inner(v, image) / vectors.inner(v, v)
        return value, vectors.norm(vectors.axpy(-value, v, image)) / vectors.norm(v)

    return jax.vmap(one)(pair, images)
