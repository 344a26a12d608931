"""Can an operator's products be believed, and to how many digits?"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxopt_study._checks import check_bool, check_real
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature._float64_interpreter import in_double_precision
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete, key_or_fixed
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Key, Matvec, Vector

GROWTH = 16  # roundings of one product, in units of the smallest: see `noise_floor`
_NOISY = 64  # the same unit; more than this is not rounding
_BROKEN = 1e-2  # a gap that no precision explains
_POWER_STEPS = 6
_MATMUL_UNITS = {"default": 2.0**-8, "high": 2.0**-11}  # bfloat16 on TPUs, TF32 on GPUs

_REMEDIES = {
    "finite": "Not finite: a product holds NaN or infinity. The loss has no second derivative here, or it overflows.",
    "repeatability": "Not repeatable: the same product twice differs by {gap:.1e} of the norm. The loss draws random "
    "numbers or calls the host: fix its key, and turn off what is not deterministic.",
    "linearity": "Not linear: H(v + u) or H(c v) is off by {gap:.1e} of the norm, where rounding explains "
    "{expected:.1e}. Give products of a fixed matrix; an inner solver must run to a tight tolerance.",
    "symmetry": "Not symmetric: (H − Hᵀ) v is {gap:.1e} of the norm, where rounding explains {expected:.1e}. A "
    "function given to from_matvec must be a symmetric matrix; a loss must not stop or replace gradients (custom "
    "derivatives).",
    "partition": "Depends on the batches: others change the product by {gap:.1e} of the norm. The loss must be the "
    "mean over the examples of its batch: not a sum, no batch normalisation in training mode (freeze its statistics), "
    "no randomness per batch.",
    "coupled": "The loss is not a mean over examples: in other batches the product differs by {gap:.1e} of the norm. "
    "What is multiplied here is the operator of all data as one batch; keep batch_size=None.",
    "rounding": "Rounding costs {gap:.1e} of the norm against double precision, where {expected:.1e} is usual. Convert "
    "parameters and data to float64, or ask only for what is larger than that.",
}

Verdict = Literal["sound", "noisy", "unsound"]


@dataclass(frozen=True)
class Audit:
    """What an operator's products are worth. Every gap is relative to ‖H‖, for vectors of length one.

    Attributes:
        noise_floor: The largest gap: an eigenvalue or residual relative to ‖H‖ cannot be known better.
        verdict: "sound": the gaps are rounding errors; "noisy": larger, and `messages` say where; "unsound": it is not
            a deterministic, symmetric, linear operator that its data define.
        norm: ‖H‖ from below, by power iteration.
        symmetry: ‖(H − Hᵀ) v‖, estimated with random vectors u as |⟨u, H v⟩ − ⟨H u, v⟩|.
        linearity: ‖H(v + u) − H v − H u‖ and ‖H(c v)/c − H v‖.
        repeatability: ‖H v − H v‖ for the same product twice, and for the same product compiled another way.
        partition: The difference that other batches make; None without data or with a single example.
        rounding: The difference that double precision makes; None if it was not tried or not possible.
        precision: Matmul precision inside.
        dtype: Name of the dtype of the products.
        size: Number of coordinates.
        num_matvecs: Products this cost, those in double precision included.
        messages: What is wrong and what to do about it, and what could not be checked.
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

    def __str__(self) -> str:
        def show(gap: float | None) -> str:
            return "not checked" if gap is None else f"{gap:.1e}"

        rows = {
            "norm, at least": f"{self.norm:.4g}",
            "symmetry gap": show(self.symmetry),
            "linearity gap": show(self.linearity),
            "repeatability gap": show(self.repeatability),
            "other batches": show(self.partition),
            "against float64": show(self.rounding),
            "noise floor": show(self.noise_floor),
            "products": str(self.num_matvecs),
            "verdict": self.verdict,
        }
        title = f"{self.size:,} coordinates, {self.dtype}, matmul precision {self.precision}"
        return "\n".join([title, *(f"  {name:<18} {value}" for name, value in rows.items()), *self.messages])


@nan_is_an_answer
def audit(op: Operator, *, key: Key | None = None, double_precision: bool = True) -> Audit:
    """Measure how far an operator is from a deterministic, symmetric, linear one.

    It multiplies a random vector, and one that power iteration has turned towards the largest eigenvalues, where the
    errors are largest. What it finds is a lower bound by sampling, not a proof: an asymmetry confined to a few of many
    coordinates can go unseen. What it looks for:

    - the same product twice, and compiled in two ways: a loss that draws random numbers, or reads a clock or a file;
    - symmetry and linearity: a function that is no Hessian;
    - other batches: a loss that is not a mean over the examples, such as a sum, or batch normalisation in training
      mode, or a mask that is redrawn for every batch;
    - double precision, for every number of the program and with the same random draws: what rounding does to the
      derivatives themselves, that of dtypes which the loss fixes included.

    Args:
        op: The operator.
        key: For the vectors it multiplies; None for the same ones every time.
        double_precision: Whether to compare with double precision, where the operator is not already in it.

    Returns:
        The audit; print it. Cost: about 15 products, 2 more in double precision with its memory, and compiling each
        kind of product once.

    Raises:
        TypeError: If `op` is no operator, `key` no key or `double_precision` no bool, or inside a trace.
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
        nothing = {"symmetry": math.nan, "linearity": math.nan, "repeatability": math.nan}
        return _audit(op, math.inf, "unsound", norm, product.count, [_REMEDIES["finite"]], nothing)
    images = [product(v) for v in probes]
    scale = norm if norm > 0 else 1.0
    again, anew = [product(v) for v in probes], [op @ v for v in probes]
    gaps: dict[str, float] = {
        "repeatability": max(_gap(again, images), _gap(anew, images)) / scale,
        "symmetry": _symmetry(product, probes, images, op.like, keys[:2]) / scale,
        "linearity": _linearity(product, probes, images, op.like, keys[2]) / scale,
    }
    messages, count = [], len(probes)
    if (other := op.other_batches()) is not None:
        try:
            gaps["partition"] = _gap([other @ v for v in probes], images) / scale
            count += len(probes)
        except Exception as error:  # whatever a loss raises that takes batches of one size only
            messages.append(f"Other batches were not tried, because the loss cannot be applied to them: {error}")
    if double_precision and jnp.finfo(op.dtype).bits < 64:
        try:
            gaps["rounding"] = _rounding(op, probes, images) / scale
            count += len(probes)
        except (TypeError, ValueError, NotImplementedError) as error:
            messages.append(f"Double precision was not tried, because the operator cannot be multiplied in it: {error}")
    verdict, found = _judge(op, gaps)
    counted = [gap for name, gap in gaps.items() if name != "partition" or op.is_batched]
    floor = max(float(jnp.finfo(op.dtype).eps), *counted)
    return _audit(op, floor, verdict, norm, product.count + count, found + messages, gaps)


def noise_floor(op: Operator) -> float:
    """Return what rounding is expected to do to a product, relative to ‖H‖, without multiplying anything.

    It is 16 units of rounding: the ε of the dtype, or that of the matmul units where a precision below "highest" lets
    an accelerator use them. The losses of ordinary networks stay below it; those of very deep ones (20 layers of tanh
    and more) and of ill-conditioned ones may not, which only `audit` can tell.

    Args:
        op: The operator.

    Returns:
        The floor. Cost: nothing.

    Raises:
        TypeError: If `op` is no operator.
        ValueError: If it has no coordinates.

    Example:
        >>> from jaxopt_study.curvature import from_matrix
        >>> bool(noise_floor(from_matrix(jnp.eye(2, dtype=jnp.float32))) == 16 * jnp.finfo(jnp.float32).eps)
        True
    """
    return GROWTH * _unit(check_operator("noise_floor", op))


def check_noise_floor(name: str, op: Operator, value: Any, *, below: float = 1.0) -> Any:
    """Return the noise floor that a function was given, or the one that rounding leads to expect.

    Args:
        name: Who asks, for the messages.
        op: The operator.
        value: The argument; None for the default.
        below: What it has to be smaller than, for the function to make sense of a product.

    Returns:
        The floor; a Python float unless it is traced.

    Raises:
        TypeError: If it is no real number.
        ValueError: If it is not in [0, below), or the default is not, as for parameters of eight bits.
    """
    remedy = "It is the error of a product relative to the norm: pass audit(op).noise_floor, or leave it out."
    if value is not None:
        value = check_real(name, "noise_floor", value, 0.0, below, closed="[)", remedy=remedy)
        return value if isinstance(value, Tracer) else float(value)
    floor = noise_floor(op)
    if not floor < below:
        raise ValueError(
            f"{name} needs products that are right to a share below {below:g} of the norm; those in {op.dtype} are "
            f"taken to be wrong by {floor:.1e}. Convert the parameters to float32, or pass what was measured: "
            "noise_floor=audit(op).noise_floor."
        )
    return floor


def _unit(op: Operator) -> float:
    eps = vectors.epsilon(op.like)
    if op.precision in _MATMUL_UNITS and jax.default_backend() != "cpu":
        return max(eps, _MATMUL_UNITS[op.precision])
    return eps


class _Counted:
    def __init__(self, product: Matvec):
        self.product = product
        self.count = 0

    def __call__(self, v: Vector) -> Vector:
        self.count += 1
        return self.product(v)


def _probes(product: Matvec, v: Vector) -> tuple[list[Vector], float]:
    """Return the start and where power iteration takes it, both of length one, and the largest ‖H v‖ seen."""
    start, norm = v, 0.0
    for _ in range(_POWER_STEPS):
        v, length = vectors.normalize(product(v))
        if not float(length) > 0 or not math.isfinite(float(length)):
            return [start], 0.0 if float(length) == 0 else math.nan
        norm = max(norm, float(length))
    return [start, v], norm


def _symmetry(product: Matvec, probes: list[Vector], images: list[Vector], like: Any, keys: list[Any]) -> float:
    worst = 0.0
    for key in keys:
        u = vectors.random_like(like, key=key)  # normal, so that the gap estimates the length of (H − Hᵀ) v
        hu = product(u)
        gaps = [float(vectors.inner(u, h) - vectors.inner(hu, v)) for v, h in zip(probes, images, strict=True)]
        worst = max(worst, *map(abs, gaps))
    return worst


def _linearity(product: Matvec, probes: list[Vector], images: list[Vector], like: Any, key: Any) -> float:
    factor = -1000 / 7  # not a power of two, which would round in the same way
    u = vectors.random_like(like, key=key, distribution="sphere")
    hu = product(u)
    worst = 0.0
    for v, h in zip(probes, images, strict=True):
        both = vectors.subtract(product(vectors.add(v, u)), vectors.add(h, hu))
        scaled = vectors.subtract(vectors.scale(1 / factor, product(vectors.scale(factor, v))), h)
        worst = max(worst, float(vectors.norm(both)), float(vectors.norm(scaled)))
    return worst


def _gap(one: list[Vector], other: list[Vector]) -> float:
    return max(float(vectors.norm(vectors.subtract(a, b))) for a, b in zip(one, other, strict=True))


def _rounding(op: Operator, probes: list[Vector], images: list[Vector]) -> float:
    exact = in_double_precision(lambda op, block: op.linearize_block()(block), op, vectors.stack(probes))
    with jax.enable_x64(True):
        return _gap([vectors.row(exact, i) for i in range(len(probes))], images)


def _judge(op: Operator, gaps: dict[str, float]) -> tuple[Verdict, list[str]]:
    noisy = _NOISY * _unit(op)
    broken = max(_BROKEN, noisy)
    if gaps["repeatability"] > noisy:
        # What is not even repeatable cannot pass the other tests either; they would only distract.
        verdict: Verdict = "unsound" if gaps["repeatability"] > broken else "noisy"
        return verdict, [_REMEDIES["repeatability"].format(gap=gaps["repeatability"])]
    suspects = [name for name in ("linearity", "symmetry", "partition", "rounding") if gaps.get(name, 0.0) > noisy]
    notes = []
    if "partition" in suspects and not op.is_batched:
        suspects.remove("partition")
        notes.append(_REMEDIES["coupled"].format(gap=gaps["partition"]))
    # Rounding alone, however bad, does not make it another operator.
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
