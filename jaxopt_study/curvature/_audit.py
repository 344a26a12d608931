"""Audit of an operator: symmetry, linearity, repeatability, batches and rounding of its products."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_study._checks import check_bool
from jaxopt_study._display import displayed
from jaxopt_study._programs import jit_for_few_calls, nan_is_an_answer
from jaxopt_study.curvature import _cards
from jaxopt_study.curvature._float64_interpreter import in_double_precision
from jaxopt_study.curvature._noise_floor import rounding_unit
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete, key_or_fixed
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key, Matvec, Vector

_NOISY = 64  # rounding units; a larger gap is not rounding
_BROKEN = 1e-2  # a gap too large for any precision
_POWER_STEPS = 6

_REMEDIES = {
    "finite": "Not finite: a product contains NaN or infinity. The loss has no second derivative here or overflows.",
    "repeatability": "Not repeatable: the same product twice differs by {gap:.1e} of the norm. The loss draws random "
    "numbers or calls the host: fix its key, and remove calls that are not deterministic.",
    "linearity": "Not linear: H(v + u) or H(c v) is off by {gap:.1e} of the norm, where rounding explains "
    "{expected:.1e}. Use the products of a fixed matrix; give an inner solver a tight tolerance.",
    "symmetry": "Not symmetric: (H − Hᵀ) v is {gap:.1e} of the norm, where rounding explains {expected:.1e}. A "
    "function given to from_matvec must be a symmetric matrix; a loss must not stop or replace gradients (custom "
    "derivatives).",
    "partition": "Depends on the batches: other batches change the product by {gap:.1e} of the norm. The loss must be "
    "a mean over the examples of its batch: not a sum, no batch normalisation in training mode (freeze its "
    "statistics), no randomness per batch (keep noise with the examples, in the data).",
    "coupled": "The loss is not a mean over examples: with other batches the product differs by {gap:.1e} of the norm. "
    "The operator is that of all data as one batch; keep batch_size=None.",
    "rounding": "Rounding costs {gap:.1e} of the norm against double precision, where {expected:.1e} is usual. Convert "
    "parameters and data to float64, or use tolerances above that.",
}

Verdict = Literal["sound", "noisy", "unsound"]


@dataclass(frozen=True)
class Audit:
    """Errors of an operator's products. Every gap is relative to ‖H‖, for vectors of length one.

    Attributes:
        noise_floor: The largest gap, which limits the accuracy of an eigenvalue or residual relative to ‖H‖.
        verdict: "sound" if all gaps are rounding errors; "noisy" if some are larger, as `messages` say; "unsound" if
            the operator is not deterministic, symmetric, linear and defined by its data.
        norm: A lower bound on ‖H‖, by power iteration.
        symmetry: ‖(H − Hᵀ) v‖, estimated as |⟨u, H v⟩ − ⟨H u, v⟩| with random vectors u.
        linearity: ‖H(v + u) − H v − H u‖ and ‖H(c v)/c − H v‖.
        repeatability: ‖H v − H v‖ for the same product twice, and for the same product compiled in two ways.
        partition: Change of the product with other batches; None without data or with a single example.
        rounding: Change of the product in double precision; None if it was not requested or not possible.
        precision: Matmul precision of a product.
        dtype: Name of the dtype of the products.
        size: Number of coordinates.
        num_matvecs: Number of products, those in double precision included.
        messages: Defects with their remedies, and checks that were not possible.
    """

    noise_floor: float
    verdict: Verdict
    norm: float
    symmetry: float
    linearity: float
    repeatability: float
    partition: float | None
    rounding: float | None
    precision: str
    dtype: str
    size: int
    num_matvecs: int
    messages: tuple[str, ...]

    __repr__, _repr_html_ = displayed(_cards.audit)

    __repr__, _repr_html_ = displayed(_cards.audit)


@nan_is_an_answer
def audit(op: Operator, *, key: Key | None = None, double_precision: bool = True) -> Audit:
    """Measure the deviation of an operator from a deterministic, symmetric, linear one.

    The products are those of a random vector, and of one that power iteration has turned towards the largest
    eigenvalues, where errors are largest. Every gap is a lower bound by sampling: an asymmetry in a few of many
    coordinates may remain undetected. The tests are:

    - repeatability, the same product twice and compiled in two ways: detects a loss that draws random numbers or reads
      a clock or a file;
    - symmetry and linearity: detect a function that is not a Hessian;
    - the examples of a loader, read twice: detects augmentation and dropped batches;
    - other batches: detect a loss that is not a mean over examples, such as a sum, batch normalisation in training
      mode, or a mask drawn for every batch;
    - double precision for every operation, with the same random draws: measures the rounding errors of the derivatives,
      also in dtypes that the loss fixes.

    Args:
        op: The operator.
        key: Key of the random vectors; None for a fixed one.
        double_precision: Whether to compare with double precision, for operators in lower precision.

    Returns:
        The audit, with a table when printed. Cost: about 15 products, 2 more in double precision with its memory, and
        one compilation of each kind of product.

    Raises:
        TypeError: If `op`, `key` or `double_precision` has the wrong type, or inside a trace.
        ValueError: If `op` has no coordinates.

    Example:
        >>> from jaxopt_study.curvature import from_matvec, hessian
        >>> op = hessian(lambda p, x: jnp.mean((x @ p) ** 2), jnp.ones(3), jnp.eye(3), batch_size=2)
        >>> audit(op, key=jax.random.key(0)).verdict
        'sound'
        >>> shift = from_matvec(lambda v: jnp.roll(v, 1), jnp.zeros(9))
        >>> print(audit(shift, key=jax.random.key(0)).messages[0])
        Not symmetric: ...
    """
    check_concrete("audit", check_operator("audit", op))
    key, double_precision = key_or_fixed(key, "audit"), check_bool("audit", "double_precision", double_precision)
    product = _Counted(op.product())
    key_v, *keys = jax.random.split(key, 4)
    probes, norm = _probes(product, vectors.random_like(op.like, key=key_v, distribution="sphere"))
    if not math.isfinite(norm):
        gaps = {"symmetry": math.nan, "linearity": math.nan, "repeatability": math.nan}
        return _audit(op, math.inf, "unsound", norm, product.count, [_REMEDIES["finite"]], gaps)
    images = [product(v) for v in probes]
    scale = norm if norm > 0 else 1.0
    repeated, recompiled = [product(v) for v in probes], _recompiled(op, probes)
    gaps = {
        "repeatability": max(_gap(repeated, images), _gap(recompiled, images)) / scale,
        "symmetry": _symmetry(product, probes, images, op.like, keys[:2]) / scale,
        "linearity": _linearity(product, probes, images, op.like, keys[2]) / scale,
    }
    messages, count = [], len(probes)
    if (other := op.other_batches()) is not None:
        try:
            gaps["partition"] = _gap(_recompiled(other, probes), images) / scale
            count += len(probes)
        except Exception as error:  # any error of a loss for batches of one size
            messages.append(f"Other batches were not checked, because the loss cannot be applied to them: {error}")
    if double_precision and jnp.finfo(op.dtype).bits < 64:
        try:
            gaps["rounding"] = _rounding(op, probes, images) / scale
            count += len(probes)
        except (TypeError, ValueError, NotImplementedError) as error:
            messages.append(f"Double precision was not checked, because the product cannot be computed in it: {error}")
    verdict, reasons = _judge(op, gaps)
    if (change := op.unrepeatable()) is not None:
        verdict, reasons = "unsound", [change]
    counted = [gap for name, gap in gaps.items() if name != "partition" or op.is_batched]
    floor = max(float(jnp.finfo(op.dtype).eps), op.product_error, *counted)
    return _audit(op, floor, verdict, norm, product.count + count, reasons + messages, gaps)


def _recompiled(op: Operator, probes: list[Vector]) -> list[Vector]:
    """Return the products from a program of their own, compiled for few calls."""
    if op.is_streamed:
        return [op @ v for v in probes]
    return [_once(op, v) for v in probes]


_once = jit_for_few_calls(lambda op, v: op.matvec(v))


class _Counted:
    def __init__(self, product: Matvec):
        self.product = product
        self.count = 0

    def __call__(self, v: Vector) -> Vector:
        self.count += 1
        return self.product(v)


def _probes(product: Matvec, v: Vector) -> tuple[list[Vector], float]:
    """Return the start and the result of power iteration, both of length one, and the largest ‖H v‖ on the way."""
    start, norm = v, 0.0
    for _ in range(_POWER_STEPS):
        v, length = _normalized(product(v))
        if not float(length) > 0 or not math.isfinite(float(length)):
            return [start], 0.0 if float(length) == 0 else math.nan
        norm = max(norm, float(length))
    return [start, v], norm


def _symmetry(product: Matvec, probes: list[Vector], images: list[Vector], like: Any, keys: list[Key]) -> float:
    worst = 0.0
    for key in keys:
        u = vectors.random_like(like, key=key)  # normal, so that the gap estimates ‖(H − Hᵀ) v‖
        hu = product(u)
        gaps = [float(_asymmetry(u, hu, v, h)) for v, h in zip(probes, images, strict=True)]
        worst = max(worst, *map(abs, gaps))
    return worst


def _linearity(product: Matvec, probes: list[Vector], images: list[Vector], like: Any, key: Key) -> float:
    factor = -1000 / 7  # not a power of two, which would not change the rounding
    u = vectors.random_like(like, key=key, distribution="sphere")
    hu = product(u)
    worst = 0.0
    for v, h in zip(probes, images, strict=True):
        both = _distance(product(_plus(v, u)), _plus(h, hu))
        scaled = _distance(_times(1 / factor, product(_times(factor, v))), h)
        worst = max(worst, float(both), float(scaled))
    return worst


def _gap(one: list[Vector], other: list[Vector]) -> float:
    return max(float(_distance(a, b)) for a, b in zip(one, other, strict=True))


# Compiled as a whole: leaf by leaf, a network would take hundreds of programs.
_normalized, _plus, _times = jax.jit(vectors.normalize), jax.jit(vectors.add), jax.jit(vectors.scale)
_stacked = jax.jit(vectors.stack)
_distance = jax.jit(lambda a, b: vectors.norm(vectors.subtract(a, b)))
_asymmetry = jax.jit(lambda u, hu, v, h: vectors.inner(u, h) - vectors.inner(hu, v))


def _rounding(op: Operator, probes: list[Vector], images: list[Vector]) -> float:
    block = _stacked(probes)

    def products(part: Any) -> Vector:
        wide = in_double_precision(lambda op, block: lax.map(op.linearize(), block), part, block)
        return jax.tree.map(np.asarray, wide)  # sums of them stay in double precision

    exact = op.mean_over_data(products)
    with jax.enable_x64(True):
        return _gap([vectors.row(exact, i) for i in range(len(probes))], images)


def _judge(op: Operator, gaps: dict[str, float]) -> tuple[Verdict, list[str]]:
    noisy = _NOISY * rounding_unit(op)
    broken = max(_BROKEN, noisy)
    if gaps["repeatability"] > noisy:
        # The other tests fail, too, if products are not repeatable; their messages would only distract.
        verdict: Verdict = "unsound" if gaps["repeatability"] > broken else "noisy"
        return verdict, [_REMEDIES["repeatability"].format(gap=gaps["repeatability"])]
    suspects = [name for name in ("linearity", "symmetry", "partition", "rounding") if gaps.get(name, 0.0) > noisy]
    notes = []
    if "partition" in suspects and not op.is_batched:
        suspects.remove("partition")
        notes.append(_REMEDIES["coupled"].format(gap=gaps["partition"]))
    # Rounding alone, however large, is not a wrong operator.
    wrong = any(gaps[name] > broken for name in suspects if name != "rounding")
    verdict = "unsound" if wrong else "noisy" if suspects else "sound"
    return verdict, [_REMEDIES[name].format(gap=gaps[name], expected=noisy) for name in suspects] + notes


def _audit(
    op: Operator,
    floor: float,
    verdict: Verdict,
    norm: float,
    num_matvecs: int,
    messages: list[str],
    gaps: dict[str, float],
) -> Audit:
    return Audit(
        noise_floor=floor,
        verdict=verdict,
        norm=norm,
        symmetry=gaps["symmetry"],
        linearity=gaps["linearity"],
        repeatability=gaps["repeatability"],
        partition=gaps.get("partition"),
        rounding=gaps.get("rounding"),
        precision=op.precision,
        dtype=str(jnp.dtype(op.dtype)),
        size=op.size,
        num_matvecs=num_matvecs,
        messages=tuple(messages),
    )
