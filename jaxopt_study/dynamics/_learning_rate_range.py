"""Range of learning rates: the rate at which the next step becomes unstable, between two bounds, and short runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Inexact

from jaxopt_study._checks import check_callable, check_integer, check_key, check_params, check_static_real
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study._programs import nan_is_an_answer, strongly_typed
from jaxopt_study.curvature import hessian
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._linearised_step import LinearStep
from jaxopt_study.dynamics._short_runs import short_runs
from jaxopt_study.dynamics._state_roles import frozen_leaves
from jaxopt_study.dynamics._step_of_rate import StepOfRate
from jaxopt_study.dynamics._step_period import refuse_period
from jaxopt_study.dynamics._updates import as_transformation, check_optimizer, differentiated
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.linalg.krylov_schur import krylov_schur
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.transforms import gradient_point
from jaxopt_study.types import Batch, Key, LossFn, Params

Kind = Literal["oscillation", "unbounded", "unresolved"]

_TRIAL = 1e-3  # rate of the optimizer whose state and sensitivity are examined
_MOST = 40  # rates at which the step is linearised


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "lower", "upper", "eigenvalue", "eigenvalue_error", "num_matvecs", "rates", "losses", "initial_loss", "diverged"
    ),
    meta_fields=("kind",),
)  # fmt: skip
@dataclass(frozen=True)
class LearningRateRange:
    """Bounds on the learning rate at which the step becomes unstable, and losses of short runs.

    Attributes:
        lower: Largest rate at which every eigenvalue found was stable, beyond its error.
        upper: Smallest rate at which an eigenvalue is certainly unstable; ∞ for none.
        eigenvalue: μ of the linearised step at `upper`: |μ| > 1, and not a real number > 1.
        eigenvalue_error: Bound on its error, less than |μ| − 1.
        num_matvecs: Number of products with the Hessian.
        rates: Learning rates of the short runs, ascending.
        losses: Losses after each short run; NaN or ∞ where it diverged so far.
        initial_loss: The loss at the start.
        diverged: Whether the loss of each run has increased.
        kind: "oscillation" if both bounds were found; "unbounded" if the next update does not depend on the gradient or
            no rate is unstable; "unresolved" if no rate could be decided.
    """

    lower: float
    upper: float
    eigenvalue: complex
    eigenvalue_error: float
    num_matvecs: int
    rates: Float[Array, " runs"]
    losses: Float[Array, " runs"]
    initial_loss: Float[Array, ""]
    diverged: Any
    kind: Kind

    __repr__, _repr_html_ = displayed(_cards.learning_rate_range)
    to_pandas = tabulated(_cards.columns_of_range)
    plot = plotted

    @property
    def measured(self) -> tuple[float, float]:
        """Neighbouring rates of the short runs: the last before, and the first with, a divergence; ∞ for none."""
        diverged, rates = np.asarray(self.diverged), np.asarray(self.rates, float)
        first = int(np.argmax(diverged)) if diverged.any() else len(rates)
        return (float(rates[first - 1]) if first else 0.0), (float(rates[first]) if first < len(rates) else math.inf)


@nan_is_an_answer
def learning_rate_range(
    make_optimizer: Callable[[Any], Any],
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    key: Key,
    opt_state: Any = None,
    batch_size: int | None = None,
    tol: float = 0.02,
    max_matvecs: int = 200,
    num_rates: int = 24,
    num_steps: int = 40,
) -> LearningRateRange:
    """Enclose the learning rate at which the optimizer's next step becomes unstable here, and run short runs beside it.

    With the linearised step A(η) of `stability`, of parameters and momentum buffers, for the optimizer with rate η,

        η* = inf{η > 0 : A(η) has an eigenvalue μ with |μ| > 1 that is not a positive real number}

    Beyond η* the step overshoots along some direction, and the overshoot grows; for gradient descent η* = 2/λmax, for
    the heavy ball (2 + 2γ)/λmax. An eigenvalue that is real and > 1 belongs to negative curvature and makes every rate
    unstable: it does not count here. Any chain will do, also one that mixes coordinates, because A is a derivative of
    its update.

    `upper` is certain: the residual of an eigenpair and the condition number of its eigenvalue prove that A(upper) has
    an unstable eigenvalue. `lower` is as certain as the Krylov method from a random start: all eigenvalues farthest out
    that it found are stable. Second-moment buffers are frozen, as in `stability`; in a run of an adaptive method they
    change with the gradient and move the limit.

    The short runs start at θ with the same state, one for each rate, all in one vectorised program. They show the whole
    loss, which may bend back where the linearised step diverges.

    Args:
        make_optimizer: η ↦ optimizer; η may be traced.
        loss: loss(params, data) → scalar, without randomness.
        params: θ.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        key: Key of the random start.
        opt_state: State before the step, without the learning rate in it; None for that of `init`. For Adam a state
            after some steps is better, because the bias correction of the first step makes it that of plain momentum.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        tol: Requested relative width of the range.
        max_matvecs: Largest number of products for each rate.
        num_rates: Number of short runs, at rates evenly spaced in logarithm from a tenth of the range to ten times it.
        num_steps: Steps of each short run.

    Returns:
        Bounds, certificate and losses. Cost: 20 to 50 Hessian-vector products at each of about 10 rates, and
        `num_rates` · `num_steps` gradients; memory of `num_rates` runs. A loader is read once for each product and each
        of the `num_steps` steps.

    Raises:
        TypeError: If an argument has the wrong type, arrays are traced, or `make_optimizer` takes no traced rate.
        ValueError: If the state belongs to another optimizer, the optimizer has a period of several steps, as inside
            `optax.MultiSteps`, or an argument is out of range.

    Example:
        >>> loss = lambda p, _: 0.5 * jnp.sum(jnp.array([50.0, 1.0]) * p**2)
        >>> found = learning_rate_range(optax.sgd, loss, jnp.ones(2), key=jax.random.key(0))
        >>> print(found.lower < 2 / 50 < found.upper, round(found.upper, 3), found.kind)
        True 0.04 oscillation
        >>> print(found.measured[0] < 2 / 50 < found.measured[1])
        True

    References:
        Cohen, Kaur, Li, Kolter and Talwalkar (2021), Gradient descent on neural networks typically occurs at the edge
        of stability. Smith (2017), Cyclical Learning Rates for Training Neural Networks, section 3.3: the test by short
        runs.
    """
    name = "learning_rate_range"
    key = check_key(name, key)
    tol = check_static_real(name, "tol", tol, 1e-3, 1.0, closed="[)", remedy="Take 0.02.")
    max_matvecs = check_integer(name, "max_matvecs", max_matvecs, 1)
    num_rates = check_integer(name, "num_rates", num_rates, 2)
    num_steps = check_integer(name, "num_steps", num_steps, 1)
    check_callable(name, "make_optimizer", make_optimizer, expected="a function from a learning rate to an optimizer")
    check_concrete(name, opt_state, params, data)
    with mesh_context(params):
        step, params, trial = _step(name, make_optimizer, opt_state, loss, params, data, batch_size)
        rate = _first_guess(trial, key)
        if any(step.moving) and math.isfinite(rate):  # in units of the momentum buffers that suit the rate
            near = replace(trial, optimizer=as_transformation(make_optimizer(rate)))
            step = replace(step, scales=near.balanced().scales)
        search = _Search(step, key, max_matvecs)
        kind = search.run(rate, tol)
        middle = next((rate for rate in (search.high, search.low) if 0 < rate < math.inf), _TRIAL)
        dtype = vectors.accumulator(step.curvature.dtype)
        rates = jnp.asarray(np.geomspace(middle / 10, middle * 10, num_rates), dtype)
        initial, losses = short_runs(make_optimizer, step.curvature, num_steps, rates, params, opt_state)
    return LearningRateRange(
        search.low, search.high, search.found[0], search.found[1], search.num_matvecs, rates, losses, initial,
        ~(losses <= initial), kind,
    )  # fmt: skip


def _step(
    name: str, make_optimizer: Any, opt_state: Any, loss: LossFn, params: Params, data: Any, batch_size: int | None
) -> tuple[StepOfRate, Params, LinearStep]:
    """Return the step as a function of the rate, the parameters, and the step of a trial rate."""
    optimizer = as_transformation(make_optimizer(_TRIAL), name)
    given = opt_state
    if opt_state is None:
        params = check_params(name, params)
        opt_state = strongly_typed(optimizer.init(params))
    optimizer, opt_state, params = check_optimizer(name, optimizer, opt_state, params)
    try:
        jax.eval_shape(lambda rate: as_transformation(make_optimizer(rate)).init(params), jnp.float32(_TRIAL))
    except Exception as error:
        raise TypeError(
            f"{name} needs make_optimizer to take a traced learning rate, as optax.sgd does, so that one program "
            f"serves all rates; it raised {type(error).__name__}. Do not convert or compare the rate in it."
        ) from error
    refuse_period(name, optimizer, params, opt_state)
    params = jax.tree.map(jnp.asarray, params)
    curvature = hessian(loss, gradient_point(differentiated(params), opt_state), data, batch_size=batch_size)
    moving, held = frozen_leaves(optimizer, params, "statistics", 1)
    trial = LinearStep(params, opt_state, curvature, optimizer, loss, moving, held).informed()
    leaves, treedef = jax.tree.flatten(trial.like)
    step = StepOfRate(
        jnp.asarray(_TRIAL), params, None if given is None else opt_state, curvature, make_optimizer, loss,
        moving, held, (tuple(leaves), treedef), average=trial.average,
    )  # fmt: skip
    return step, params, trial


def _first_guess(trial: LinearStep, key: Key) -> float:
    """Return a rate at which the step changes a random direction by its own length."""
    v = vectors.random_like(trial.curvature.like, key=key, distribution="sphere")
    curvature = float(vectors.norm(trial.curvature @ v))
    sensitivity = trial.step_sensitivity() / _TRIAL / math.sqrt(trial.curvature.size)
    product = curvature * sensitivity
    return 1 / product if math.isfinite(product) and product > 0 else math.nan


class _Search:
    """Bracket of the rate: stable at `low`, certainly unstable at `high`."""

    def __init__(self, step: StepOfRate, key: Key, max_matvecs: int) -> None:
        self.step, self.key, self.max_matvecs = step, key, max_matvecs
        self.low, self.high, self.num_matvecs, self.count = 0.0, math.inf, 0, 0
        self.found: tuple[complex, float] = (complex(math.nan), math.nan)

    def run(self, rate: float, tol: float) -> Kind:
        """Find the bracket.

        Args:
            rate: A rate to begin with; NaN if the next update does not depend on the gradient.
            tol: The bracket's relative width.

        Returns:
            What was found.
        """
        if math.isnan(rate):
            self.low = math.inf
            return "unbounded"
        for _ in range(4):  # to the rate at which the farthest eigenvalue would be −1 if it were linear in the rate
            _, far = self.sign(rate)
            if not 0 < far < math.inf or abs(2 / far - 1) < tol / 4:
                break
            rate *= min(max(2 / far, 1e-6), 1e6)
        for factor in (1 - 0.4 * tol, 1 + 0.4 * tol):
            if self.low < rate * factor < self.high:
                self.sign(rate * factor)
        while math.isinf(self.high) and self.count < _MOST:
            rate *= 1.5
            self.sign(rate)
        while self.low == 0 and math.isfinite(self.high) and self.count < _MOST:
            if self.sign(self.high / 1.5)[0] == 0:
                break
        while self.low > 0 and self.high > (1 + tol) * self.low and self.count < _MOST:
            if self.sign(math.sqrt(self.low * self.high))[0] == 0:
                break  # the step there is within the error of the limit
        if math.isinf(self.high):
            return "unbounded" if self.low > 0 else "unresolved"
        return "oscillation" if self.low > 0 else "unresolved"

    def sign(self, rate: float) -> tuple[int, float]:
        """Return 1 or −1 if the step is unstable or stable, else 0, and the largest 1 − Re μ; move that end."""
        step = replace(self.step, rate=jnp.asarray(rate, vectors.accumulator(self.step.curvature.dtype)))
        eps = vectors.epsilon(step.like)
        ritz = krylov_schur(
            step,
            4,
            key=self.key,
            tol=max(1e-3, 64 * eps),
            rounding=2 * eps,
            basis_size=20,
            max_matvecs=self.max_matvecs,
            rankings=(np.abs, _leftmost),
        )
        self.num_matvecs, self.count = self.num_matvecs + ritz.num_matvecs, self.count + 1
        values, errors = ritz.values, ritz.errors
        if not np.isfinite(values).all():
            return 0, math.nan
        overshoots = (np.real(values) <= 0) | (np.abs(np.imag(values)) > errors)
        beyond = overshoots & (np.abs(values) > 1 + errors)
        if beyond.any():
            if rate < self.high:
                first = int(np.argmax(beyond))
                self.high, self.found = rate, (complex(values[first]), float(errors[first]))
            sign = 1
        elif not (overshoots & (np.abs(values) + errors >= 1)).any():
            self.low, sign = max(self.low, rate) if rate < self.high else self.low, -1
        else:
            sign = 0
        return sign, float((1 - np.real(values)).max())


def _leftmost(values: Inexact[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    return -np.real(values).astype(np.float64)
