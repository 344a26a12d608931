"""Stages of an examination; each measures one quantity at a point, with its error."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxopt_study import curvature, dynamics, figures
from jaxopt_study.curvature import called_from_python, is_stream, value_and_gradient
from jaxopt_study.dynamics import differentiated, next_update, preconditioned_step
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, Key, LossFn, Params

TRACE_RANK = 20
TOLERANCE = 1e-3
NOISE_BATCH = 16  # examples; small batches cost least for the same accuracy
BRACKET_FLOORS = 4  # least width of the bracket, in noise floors
CAST = "Cast parameters and data to float32, or to float64 with JAX_ENABLE_X64=1."
MAX_DENSE = 500  # largest number of parameters for which all eigenvalues are computed
CONFIDENCE = 0.95  # of estimated counts of eigenvalues, the default of `morse_index`

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Choices:
    """Cost and accuracy of an examination.

    Attributes:
        num_eigenpairs: Number of eigenpairs at both ends together.
        num_probes: Number of random vectors of the spectral density.
        num_steps: Number of Lanczos steps for each of them.
        trace_probes: Number of random vectors of the trace.
        tolerance: Residual of eigenpairs and outliers, relative to the largest |eigenvalue|; None for `TOLERANCE`, or
            for two noise floors of the products where that is more.
        batch_size: Number of examples evaluated at a time; None for all at once, or for as many as need an eighth of
            the free memory, if those are fewer.
        seed: Seed of start vectors and probes.
        bracket: Relative width of the brackets of the sharpness.
    """

    num_eigenpairs: int = 10
    num_probes: int = 10
    num_steps: int = 100
    trace_probes: int = 60
    tolerance: float | None = None
    batch_size: int | None = None
    seed: int = 0
    bracket: float = 0.01


class Subject:
    """A point under examination, perhaps with an optimizer.

    Args:
        loss: loss(params, data), a scalar.
        params: The parameters.
        data: All examples, or None.
        optimizer: An Optax transformation, or None.
        opt_state: Its state at the point.
        choices: Cost and accuracy; the subject's own name the batch size that is chosen.

    Raises:
        TypeError: If loss or parameters are of the wrong kind.
        ValueError: If parameters are not finite, the data do not suit the batch size, or a product does not fit in
            memory.
    """

    def __init__(
        self, loss: LossFn, params: Params, data: Batch | None, optimizer: Any, opt_state: Any, choices: Choices
    ):
        self.loss, self.params, self.data = loss, params, data
        self.optimizer, self.opt_state = optimizer, opt_state
        self.compiled: Any = curvature.operator_of_data(
            curvature.Hessian(loss), differentiated(params), data,
            batch_size=choices.batch_size, remat=None, precision="highest", chooses=True,
        )  # fmt: skip
        self.choices = replace(choices, batch_size=getattr(self.compiled, "batch_size", None))
        self.op = called_from_python(self.compiled)  # one compiled product for all stages

    def key(self, stage: str) -> Key:
        """Return the random key of a stage, which is the same whichever other stages run."""
        return jax.random.fold_in(jax.random.key(self.choices.seed), _KEYS.index(stage))

    @property
    def step(self) -> tuple[Any, ...]:
        """The common arguments of functions of `dynamics`."""
        return self.optimizer, self.opt_state, self.loss, self.params, self.data


def audit(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return an audit of the Hessian's products; later stages use its noise floor."""
    del so_far
    return asdict(curvature.audit(subject.op, key=subject.key("audit")))


def eigenpairs(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return eigenvalues at both ends of the spectrum."""
    pairs = curvature.eigenpairs(
        subject.op,
        min(subject.choices.num_eigenpairs, subject.op.size),
        which="BE",
        tol=_tolerance(subject, so_far),
        key=subject.key("eigenpairs"),
        noise_floor=_floor(so_far),
    )
    return _plain(pairs._replace(vectors=None)) | {"resolved": figures.resolved(pairs.values, pairs.residuals)}


def sharpness(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return bounds on the largest eigenvalue, and so on the critical learning rate of gradient descent."""
    floor = _floor(so_far)
    if BRACKET_FLOORS * floor >= 1:
        raise ValueError(f"The products' noise floor, {floor:.1e}, is too high to bound the largest eigenvalue. {CAST}")
    bracket = curvature.sharpness(
        subject.op,
        key=subject.key("sharpness"),
        tol=max(subject.choices.bracket, BRACKET_FLOORS * floor),
        noise_floor=floor,
    )
    return _plain(bracket._replace(vector=None)) | {"critical_learning_rate": bracket.learning_rate}


def spectral_density(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the distribution of all eigenvalues."""
    density = curvature.spectral_density(
        subject.op,
        num_probes=subject.choices.num_probes,
        num_steps=min(subject.choices.num_steps, subject.op.size),
        tol=_tolerance(subject, so_far),
        noise_floor=_floor(so_far),
        key=subject.key("spectral_density"),
    )
    plain = _plain(density._replace(quadrature=None, keys=None, outliers=None))
    return plain | {"outliers": _plain(density.outliers), "num_matvecs": density.num_matvecs}


def trace(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the sum of the eigenvalues."""
    del so_far
    rank = min(TRACE_RANK, subject.op.size)
    return _plain(
        curvature.trace(subject.op, num_probes=subject.choices.trace_probes, rank=rank, key=subject.key("trace"))
    )


def gradient(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return slope and curvature along the gradient."""
    choices = subject.choices
    op: Any = subject.op  # of a loss
    value, grads = value_and_gradient(op, op.params)
    result = curvature.ill_conditioning(
        subject.op,
        grads,
        k=min(-(-choices.num_eigenpairs // 2), subject.op.size),
        key=subject.key("gradient"),
        tol=_tolerance(subject, so_far),
        noise_floor=_floor(so_far),
    )
    return _plain(result) | {"loss": value}


def classification(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the kind of the point, and its numbers of negative and flat eigenvalues."""
    result = curvature.classify_point(
        subject.loss,
        differentiated(subject.params),
        subject.data,
        key=subject.key("classification"),
        batch_size=subject.choices.batch_size,
        noise_floor=_floor(so_far),
        max_dense=MAX_DENSE,
    )
    plain = _plain(result._replace(index=None, escape=None)) | {"verdict": result.verdict}
    sampled = subject.op.size > MAX_DENSE and not result.index.exact
    index = _plain(result.index) | {"exact": result.index.exact, "confidence": CONFIDENCE if sampled else None}
    return plain | {"index": index, "escape": _plain(result.escape._replace(direction=None))}


def threshold(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the curvature above which the optimizer's next step is unstable."""
    del so_far
    arguments = subject.optimizer, subject.opt_state, subject.params
    return {
        "threshold": dynamics.stability_threshold(*arguments),
        "limit": dynamics.stability_limit(*arguments),
        "num_matvecs": 0,
    }


def preconditioned(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return bounds on the preconditioned sharpness, also in units of the optimizer's threshold."""
    del so_far
    with mesh_context(subject.params):
        step, diagonal, limit = preconditioned_step(
            "preconditioned_sharpness", *subject.step, batch_size=subject.choices.batch_size
        )
        op = called_from_python(step.curvature).precondition(diagonal)
        bracket = curvature.sharpness(op, key=subject.key("preconditioned"))
    result = dynamics.PreconditionedSharpness(bracket, limit)
    entries = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(diagonal)])
    return _plain(bracket._replace(vector=None)) | {
        "threshold": limit,
        "ratio": result.ratio,
        "preconditioner": dict(zip(("min", "median", "max"), np.quantile(entries, [0, 0.5, 1]), strict=True)),
    }


def stability(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the spectral radius of the linearised training step."""
    del so_far
    result = dynamics.stability(*subject.step, key=subject.key("stability"), batch_size=subject.choices.batch_size)
    values: Any = result.eigenvalues
    plain = {name: getattr(result, name) for name in ("radius", "error", "kind", "converged", "frozen", "num_matvecs")}
    return plain | {
        "eigenvalues": {"real": values.real, "imaginary": values.imag},
        "residuals": result.residuals,
        "errors": result.errors,
    }


def accounting(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the predicted and the actual change of the loss in the optimizer's next step."""
    del so_far
    batch_size = subject.choices.batch_size
    updates = next_update("account_step", *subject.step, batch_size=batch_size).updates
    account = dynamics.account_step(
        subject.loss, differentiated(subject.params), updates, subject.data, batch_size=batch_size, num_samples=2
    )
    return _plain(account) | {"ratio": account.ratio, "ratio_error": account.ratio_error, "num_matvecs": 2}


def blocks(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the largest eigenvalue and the trace of every layer's block, and what the blocks leave out."""
    del so_far
    spectra = curvature.blocks(subject.compiled, key=subject.key("blocks"))
    return {
        "names": spectra.names,
        "sizes": spectra.sizes,
        "eigenvalues": spectra.eigenvalues[:, 0],
        "residuals": spectra.residuals[:, 0],
        "trace": spectra.trace.value,
        "trace_error": spectra.trace.standard_error,
        "off_block_share": spectra.off_block_share.value,
        "off_block_share_error": spectra.off_block_share.standard_error,
        "num_matvecs": spectra.num_matvecs,
    }


def noise(subject: Subject, so_far: Results) -> dict[str, Any]:
    """Return the noise of the gradient over batches, and the batch size at which it is as large as the gradient."""
    del so_far
    counts = (np.shape(leaf)[0] for leaf in jax.tree.leaves(subject.data) if np.ndim(leaf))
    batch_size = None if is_stream(subject.data) else min((NOISE_BATCH, *counts))  # a loader has batches of its own
    estimate = dynamics.gradient_noise(
        subject.loss,
        differentiated(subject.params),
        subject.data,
        batch_size=batch_size,
        key=subject.key("noise"),
    )
    parts = {"trace": estimate.trace, "squared_norm": estimate.squared_norm, "noise_scale": estimate.noise_scale}
    values = {name: part.value for name, part in parts.items()}
    errors = {f"{name}_error": part.standard_error for name, part in parts.items()}
    return values | errors | {"lower": estimate.lower, "upper": estimate.upper, "num_matvecs": 0}


@dataclass(frozen=True)
class Stage:
    """One measurement.

    Attributes:
        title: Name in messages.
        run: A function of the subject and the results so far that returns its own results, with "num_matvecs".
        of_optimizer: Whether it needs an optimizer.
        of_data: Whether it needs data.
    """

    title: str
    run: Callable[[Subject, Results], dict[str, Any]]
    of_optimizer: bool = False
    of_data: bool = False

    def applies(self, subject: Subject) -> bool:
        """Return whether a point has what the measurement needs."""
        return not ((self.of_optimizer and subject.optimizer is None) or (self.of_data and subject.data is None))


STAGES: dict[str, Stage] = {
    "audit": Stage("audit", audit),
    "eigenpairs": Stage("eigenpairs at both ends", eigenpairs),
    "sharpness": Stage("bracket of the sharpness", sharpness),
    "spectral_density": Stage("spectral density", spectral_density),
    "trace": Stage("trace", trace),
    "gradient": Stage("curvature along the gradient", gradient),
    "classification": Stage("kind of point", classification),
    "threshold": Stage("stability threshold of the optimizer", threshold, of_optimizer=True),
    "preconditioned": Stage("preconditioned sharpness", preconditioned, of_optimizer=True),
    "stability": Stage("stability of the next step", stability, of_optimizer=True),
    "accounting": Stage("change of the loss in the next step", accounting, of_optimizer=True),
    "noise": Stage("noise of the gradient", noise, of_data=True),
    "blocks": Stage("blocks of the Hessian", blocks),
}
_KEYS = tuple(STAGES)


def _floor(so_far: Results) -> float:
    return float(so_far["audit"]["noise_floor"])


def _tolerance(subject: Subject, so_far: Results) -> float:
    """Return the tolerance of the choices; raise if the noise floor of the products does not allow it."""
    floor, tolerance = _floor(so_far), subject.choices.tolerance
    resolvable = 2 * floor < 0.1
    if tolerance is None:
        if not resolvable:
            raise ValueError(f"The products' noise floor, {floor:.1e}, is too high to resolve eigenvalues. {CAST}")
        return max(TOLERANCE, 2 * floor)
    if tolerance < floor:
        remedy = f"Give --tolerance {2 * floor:.0e}, or cast" if resolvable else "Cast"
        raise ValueError(
            f"--tolerance {tolerance:g} is below the products' noise floor, {floor:.1e}. {CAST.replace('Cast', remedy)}"
        )
    return tolerance


def _plain(result: Any) -> dict[str, Any]:
    """Return the fields of a result that are not None."""
    return {name: value for name, value in result._asdict().items() if value is not None}
