"""Diagnosis of a loss curve: a learning rate that is too high, too low or good, with the evidence for it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxopt_study._checks import check_numbers, describe_argument
from jaxopt_study._display import displayed
from jaxopt_study.training import _cards
from jaxopt_study.training._trajectory import Trajectory

Finding = Literal["rate too high", "rate too low", "good", "spiking", "plateau", "overfitting", "undecided"]
FINDINGS: tuple[Finding, ...] = get_args(Finding)
ADVICE: Mapping[Finding, str] = {
    "rate too high": "Lower the learning rate, by a factor of 3 to 10.",
    "rate too low": "Stop, and raise the learning rate by a factor of 3 to 10.",
    "good": "Keep the learning rate; a decay towards the end may gain a little more.",
    "spiking": "Lower the learning rate, or clip the gradient; with Adam, raise eps.",
    "plateau": "Compare several learning rates and starts: one curve does not tell a rate that is too high or too low "
    "from a gradient that vanishes.",
    "overfitting": "Stop early (training.EarlyStopping), or regularise.",
    "undecided": "Train longer, or compare several learning rates.",
}

SHORTEST = 20  # losses; a shorter curve has no shape that could be judged
# The numbers below separate runs of known rates: see `diagnose`.
STRAIGHT = 0.12  # share of the descent in the second half from which the rate is too low; a straight line has .5
FLATTENED = 0.05  # share of the descent in the second half up to which a curve counts as flattened
SOLVED = 0.05  # share of the starting loss up to which a flattened curve is a good one
SIGNIFICANT = 3.0  # standard errors
SPIKE = 8.0  # standard deviations of the noise
EXCURSION = 0.5  # share of the descent that a spike takes back
NOTICEABLE = 0.01  # share of the starting loss


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a run from its loss curve.

    Attributes:
        finding: "rate too high", "rate too low", "good", "spiking", "plateau", "overfitting" or "undecided".
        evidence: The observation that decides, in words and numbers.
        advice: What to try next.
        statistics: The numbers behind it: "start" and "end" of the smoothed loss, "noise" (standard deviation of one
            loss about the smoothed curve), "second_half" (share of the descent that happens in the second half),
            "num_spikes".
    """

    finding: Finding
    evidence: str
    advice: str
    statistics: Mapping[str, float]

    __repr__, _repr_html_ = displayed(_cards.diagnosis)


def diagnose(
    run: Trajectory | ArrayLike | Sequence[Any], *, validation_losses: ArrayLike | Sequence[Any] | None = None
) -> Diagnosis:
    """Judge a run by its loss curve.

    The curve is smoothed by medians of windows. The first of these that applies decides:

        rate too high   a loss is not finite, the curve ends above its start, or 99 % of at least 100 losses of the
                        second half are above the first one
        spiking         at least two excursions above the smoothed curve of more than 8 standard deviations of the noise
                        and half of the descent
        overfitting     the validation loss has risen from its minimum, while the training loss has fallen
        rate too low    at least 12 % of the descent happen in the second half, or a tiny descent is steady
        plateau         no descent, or one that has ended with more than half of the starting loss left
        good            a descent that has ended: at most 5 % of it in the second half, at most 5 % of the start left
        undecided       anything else, differences within 3 standard errors, and curves of fewer than 20 losses

    It looks at one curve alone. Whether another learning rate would have been better is a question for `sweeps.search`.
    "plateau" and "good" take 0 for the smallest possible loss; subtract the infimum from losses that have another one.
    A problem that is solved suddenly after a long plateau has its descent late at good rates, too.

    The thresholds were chosen on runs of 400 steps at 14 rates each of a quadratic of condition 1000 under gradient
    descent, of digits with one layer of sigmoids under SGD, and of a linear model of digits under AdaGrad; so that the
    opposite of the truth was never found. The experiment `learning_rate_diagnosis` judges them on six other problems
    and other seeds, and draws the confusion matrix: there 88 % [85, 91] of the findings that name the rate are right,
    .2 % of the runs get the opposite of the truth, and 56 % get a finding that names the rate.

    Args:
        run: The trajectory of one run, or its training losses, shape (steps,). NaN at its end
            marks steps that were not run.
        validation_losses: Shape (evaluations,), at equal intervals along the run; None takes "validation_loss" from the
            trajectory's evaluations, if it is there.

    Returns:
        The diagnosis.

    Raises:
        TypeError: If the losses are not numbers.
        ValueError: If they do not have one axis: index the lanes of a trajectory under `vmap` one by one.

    Example:
        >>> steps = np.arange(200)
        >>> diagnose(2.3 * np.exp(-steps / 20)).finding
        'good'
        >>> diagnose(2.3 - 0.001 * steps).finding
        'rate too low'
        >>> diagnose([2.3, 3.1, 9.8, np.inf]).finding
        'rate too high'

    References:
        Goodfellow, Bengio and Courville (2016), Deep Learning, §11.4.1: the learning rate shows in the training curve.
    """
    ended = None
    if isinstance(run, Trajectory):
        if np.ndim(run.diverged):
            raise ValueError(
                f"diagnose needs one run; received a trajectory with lanes of shape {np.shape(run.diverged)}. Index "
                "them, for instance by jax.tree.map(lambda x: x[0], trajectory)."
            )
        ended = int(run.diverged_at) if bool(run.diverged) else None
        if validation_losses is None:
            validation_losses = run.evaluations.get("validation_loss")
        run = np.asarray(run.losses)[: int(run.num_steps)]
    losses = _curve("the losses", run)
    validation = None if validation_losses is None else _curve("validation_losses", validation_losses)
    broken = ~np.isfinite(losses)
    if ended is None and (np.isinf(losses).any() or (broken[:-1] & ~broken[1:]).any()):  # NaN is not only at the end
        ended = int(np.argmax(broken))
    losses = losses[: np.argmax(broken) if broken.any() else None]
    return _judge(losses, validation, ended)


def _judge(losses: np.ndarray, validation: np.ndarray | None, ended: int | None) -> Diagnosis:
    if ended is not None:
        return _diagnosis("rate too high", f"The loss or the parameters are not finite after step {ended}.", {})
    if len(losses) < SHORTEST:
        return _diagnosis("undecided", f"There are {len(losses)} losses; a judgement needs {SHORTEST}.", {})
    noise, smooth = _noise(losses), _smoothed(losses)
    error = 1.25 * noise / math.sqrt(len(losses) / len(smooth))  # of one median
    late = losses[len(losses) // 2 :]
    start = float(losses[0] if losses[0] > smooth[0] + SIGNIFICANT * noise else smooth[0])
    middle, end = float(smooth[len(smooth) // 2]), float(smooth[-1])
    descent, scale = start - end, max(abs(start), abs(end))
    spikes = _spikes(losses, noise, max(descent, NOTICEABLE * scale))
    share = (middle - end) / descent if descent > 0 else math.nan
    numbers = {"start": start, "end": end, "noise": noise, "second_half": share, "num_spikes": float(len(spikes))}
    margin = SIGNIFICANT * math.sqrt(2) * error

    if end > start + max(margin, NOTICEABLE * scale):
        return _diagnosis("rate too high", f"The loss ends at {end:.4g}, above its start, {start:.4g}.", numbers)
    if len(late) >= 100 and np.mean(late > losses[0]) >= 0.99 and np.median(late) > losses[0] + NOTICEABLE * scale:
        words = f"The second half, with a median of {np.median(late):.4g}, is above the first loss, {losses[0]:.4g}."
        return _diagnosis("rate too high", words, numbers)
    if len(spikes) >= 2:
        places = ", ".join(str(step) for step in spikes[:5]) + (", …" if len(spikes) > 5 else "")
        return _diagnosis("spiking", f"The loss jumps up at {len(spikes)} places (steps {places}).", numbers)
    if validation is not None and (rise := _overfits(validation, losses)):
        return _diagnosis("overfitting", rise, numbers)
    if descent <= max(margin, NOTICEABLE * scale):  # equal for losses that are 0
        falling = _falls_steadily(losses, noise)
        if falling:
            words = f"The loss falls steadily, but by only {descent:.2g} from {start:.4g}."
            return _diagnosis("rate too low", words, numbers)
        return _diagnosis("plateau", f"The loss stays at {end:.4g} (start {start:.4g}).", numbers)
    doubt = SIGNIFICANT * 1.4 * error / descent
    if share - doubt > STRAIGHT:
        return _diagnosis("rate too low", f"{share:.0%} of the descent happen in the second half of the run.", numbers)
    if share + doubt < FLATTENED:
        if end > 0.5 * start:
            words = f"The descent has ended at {end:.4g}, {end / start:.0%} of the start."
            return _diagnosis("plateau", words, numbers)
        words = f"The loss falls from {start:.4g} to {end:.4g}, and {share:.0%} of that in the second half."
        return _diagnosis("good" if end <= SOLVED * start else "undecided", words, numbers)
    words = f"{share:.0%} ± {doubt:.0%} of the descent happen in the second half: neither straight nor flattened."
    return _diagnosis("undecided", words, numbers)


def _diagnosis(finding: Finding, evidence: str, numbers: Mapping[str, float]) -> Diagnosis:
    return Diagnosis(finding, evidence, ADVICE[finding], numbers)


def _curve(name: str, values: Any) -> Float[np.ndarray, " steps"]:
    curve = check_numbers("diagnose", name, values, finite=False)
    if curve.ndim != 1:
        raise ValueError(
            f"diagnose needs {name} to have one axis; received {describe_argument(values)}. Index the lanes one by one."
        )
    return curve.astype(float)


def _noise(losses: Float[np.ndarray, " steps"]) -> float:
    """Return the standard deviation of one loss about a smooth curve, from second differences, robustly."""
    second = np.diff(losses, 2)  # of independent noise σ they have the standard deviation √6 σ
    return float(np.median(np.abs(second)) / (0.6745 * math.sqrt(6)))


def _smoothed(losses: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " windows"]:
    return np.array([np.median(window) for window in np.array_split(losses, min(20, len(losses) // 5))])


def _spikes(losses: Float[np.ndarray, " steps"], noise: float, descent: float) -> list[int]:
    """Return the first step of every excursion above the running median, in the order of the steps."""
    width = max(2, len(losses) // 50)
    padded = np.pad(losses, width, mode="edge")
    median = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1), axis=1)
    residual = losses - median
    spread = max(noise, 1.4826 * float(np.median(np.abs(residual))))
    above = residual > max(SPIKE * spread, EXCURSION * descent)
    above[: 2 * width] = False  # the steep start is no spike
    return [int(step) for step in np.flatnonzero(above[1:] & ~above[:-1]) + 1]


def _falls_steadily(losses: Float[np.ndarray, " steps"], noise: float) -> bool:
    """Return whether a straight line has a significantly negative slope in both halves, beyond single precision."""
    noise = max(noise, float(np.finfo(np.float32).eps * np.max(np.abs(losses))))

    def slope(part: np.ndarray) -> tuple[float, float]:
        steps = np.arange(len(part)) - (len(part) - 1) / 2
        square = float(steps @ steps)
        return float(steps @ (part - part[0])) / square, noise / math.sqrt(square)  # exactly 0 for equal losses

    halves = [slope(part) for part in np.array_split(losses, 2)]
    return all(value < -SIGNIFICANT * error and value < 0 for value, error in halves)


def _overfits(validation: Float[np.ndarray, " evaluations"], losses: Float[np.ndarray, " steps"]) -> str:
    """Return the evidence, or nothing."""
    validation = validation[np.isfinite(validation)]
    if len(validation) < 6:
        return ""
    best = int(np.argmin(validation))
    after = validation[best + 1 :]
    if len(after) < 3:
        return ""
    rise = float(np.median(after[-3:]) - validation[best])
    error = _noise(validation) / math.sqrt(3)
    low = float(validation[best])
    rounding = float(np.finfo(np.float32).eps * max(np.max(np.abs(validation)), np.max(np.abs(losses))))
    if rise <= max(SIGNIFICANT * error, 0.02 * abs(low), rounding):
        return ""
    then = losses[: max(1, round(len(losses) * (best + 1) / len(validation)))]
    if np.median(losses[-max(5, len(losses) // 20) :]) >= np.median(then[-max(5, len(losses) // 20) :]):
        return ""
    return f"The validation loss has risen by {rise:.2g} from its minimum, {low:.4g}, while the training loss fell."
