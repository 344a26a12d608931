"""Claims: a measured interval, an expected region, and a control that must miss it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Real
from rich.table import Table
from rich.text import Text
from scipy import stats

from jaxopt_study.figures import digits_apart
from jaxopt_study.sweeps import wilson

Verdict = Literal["PASS", "FAIL", "NOT RESOLVED"]
COLOURS: Mapping[Verdict, str] = {"PASS": "green", "FAIL": "red", "NOT RESOLVED": "yellow"}


@dataclass(frozen=True)
class Measurement:
    """A measured number with its interval.

    Attributes:
        value: The number; infinite for a run that diverged.
        lower: Lower end of the interval.
        upper: Upper end of the interval.
        num_seeds: Number of independent repetitions; 0 for a deterministic computation.
        method: Method of the interval.
    """

    value: float
    lower: float
    upper: float
    num_seeds: int
    method: str

    def __post_init__(self):
        if math.isnan(self.value) or not self.lower <= self.value <= self.upper:
            raise ValueError(
                f"A measurement must lie in its interval; received {self.value} in [{self.lower}, {self.upper}]."
                " Report a run that diverged as infinite."
            )

    def __str__(self) -> str:
        if self.lower == self.upper:
            return f"{self.value:.7g}"
        digits = digits_apart(self.lower, self.upper, 4)
        low, high = f"{self.lower:.{digits}g}", f"{self.upper:.{digits}g}"
        if low == high:  # equal in all printed digits
            return f"{self.value:.7g} ± {max(self.upper - self.value, self.value - self.lower):.1e}"
        return f"{self.value:.{digits}g} [{low}, {high}]"


def exact(value: float, *, error: float = 0.0) -> Measurement:
    """Return the measurement of a deterministic computation.

    Args:
        value: The number.
        error: Bound on its numerical error, ≥ 0.

    Returns:
        The measurement value ± error, of no seeds.

    Example:
        >>> exact(0.5, error=0.25).upper
        0.75
    """
    return Measurement(float(value), float(value - error), float(value + error), 0, "exact")


def mean_over_seeds(samples: Sequence[float] | Real[np.ndarray, " seeds"], *, confidence: float = 0.95) -> Measurement:
    """Return the mean of independent repetitions with Student's interval.

    Args:
        samples: One finite number per seed, at least two.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The measurement.

    Raises:
        ValueError: If there are fewer than two samples, or one is not finite.

    Example:
        >>> mean_over_seeds([1.0, 2.0, 3.0]).value
        2.0
    """
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 1 or samples.size < 2 or not np.isfinite(samples).all():
        raise ValueError(
            f"An interval over seeds needs two or more finite numbers; received {samples}. Run more seeds, or report a "
            "diverged run with Measurement(inf, …)."
        )
    mean, error = float(samples.mean()), float(samples.std(ddof=1) / math.sqrt(samples.size))
    half = float(stats.t.ppf((1 + confidence) / 2, samples.size - 1)) * error
    return Measurement(mean, mean - half, mean + half, samples.size, f"t, {confidence:.0%}")


def ratio_over_seeds(
    numerators: Sequence[float] | Real[np.ndarray, " seeds"],
    denominators: Sequence[float] | Real[np.ndarray, " seeds"],
    *,
    confidence: float = 0.95,
) -> Measurement:
    """Return the geometric mean of ratios paired by seed, with Student's interval of the logarithm.

    Args:
        numerators: One positive number per seed.
        denominators: The same seeds' positive numbers: a pair shares its start and its batches.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The measurement.

    Example:
        >>> round(ratio_over_seeds([2.0, 8.0], [1.0, 1.0]).value, 6)
        4.0
    """
    logs = mean_over_seeds(np.log(numerators) - np.log(denominators), confidence=confidence)
    value, lower, upper = (math.exp(x) for x in (logs.value, logs.lower, logs.upper))
    return Measurement(value, lower, upper, logs.num_seeds, f"t on log, {confidence:.0%}")


def share_of_trials(successes: int, num_trials: int, *, confidence: float = 0.95) -> Measurement:
    """Return the success rate of independent trials with Wilson's interval.

    Args:
        successes: Number of successes.
        num_trials: Number of trials.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The measurement.

    Example:
        >>> share_of_trials(0, 10).upper < 0.3
        True
    """
    rate = wilson(successes, num_trials, level=confidence)
    return Measurement(rate.estimate, rate.lower, rate.upper, int(num_trials), f"Wilson, {confidence:.0%}")


@dataclass(frozen=True)
class Expectation:
    """The region in which a claim holds.

    Attributes:
        lower: Its lower end; −∞ for none.
        upper: Its upper end; ∞ for none.
        source: Reference, or reason for the tolerance.
    """

    lower: float
    upper: float
    source: str

    def __str__(self) -> str:
        if math.isinf(self.lower):
            return f"≤ {self.upper:.7g}"
        if math.isinf(self.upper):
            return f"≥ {self.lower:.7g}"
        middle, half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        return f"{middle:.7g} ± {half:.2g}" if half < 0.1 * abs(middle) else f"{self.lower:.4g} to {self.upper:.4g}"

    def judge(self, measured: Measurement) -> Verdict:
        """Return PASS if the whole interval lies in the region, FAIL if none of it does, else NOT RESOLVED."""
        if self.lower <= measured.lower and measured.upper <= self.upper:
            return "PASS"
        if measured.upper < self.lower or measured.lower > self.upper:
            return "FAIL"
        return "NOT RESOLVED"


def near(value: float, tolerance: float, source: str) -> Expectation:
    """Expect a value within a tolerance."""
    return Expectation(value - tolerance, value + tolerance, source)


def at_most(bound: float, source: str) -> Expectation:
    """Expect a value not above a bound."""
    return Expectation(-math.inf, bound, source)


def at_least(bound: float, source: str) -> Expectation:
    """Expect a value not below a bound."""
    return Expectation(bound, math.inf, source)


@dataclass(frozen=True)
class Control:
    """A variation for which the same check must fail, since a check that cannot fail shows nothing.

    Attributes:
        variation: The difference, in words.
        measured: Its measurement.
    """

    variation: str
    measured: Measurement


@dataclass(frozen=True)
class Claim:
    """A statement with a measured value, an expected region and a negative control.

    Attributes:
        statement: The claim, in one sentence.
        measured: The value that decides it.
        expected: The region in which it must lie.
        control: The variation that must miss that region.
        remark: Further information, such as a contradiction to a source.
    """

    statement: str
    measured: Measurement
    expected: Expectation
    control: Control
    remark: str = ""

    # Derived, but fields, so that a record contains them.
    control_verdict: Verdict = field(init=False)
    verdict: Verdict = field(init=False)

    def __post_init__(self):
        control = self.expected.judge(self.control.measured)
        verdict = self.expected.judge(self.measured)
        if verdict == "PASS" and control != "FAIL":
            verdict = "NOT RESOLVED"
        object.__setattr__(self, "control_verdict", control)
        object.__setattr__(self, "verdict", verdict)


def table(claims: Sequence[Claim], *, title: str = "") -> Table:
    """Return a table of claims for the terminal.

    Args:
        claims: The claims.
        title: Title of the table.

    Returns:
        A rich table, one row per claim.
    """
    grid = Table(title=title, show_lines=True, title_justify="left")
    for heading in ("verdict", "claim", "measured", "expected", "seeds", "control, which must fail"):
        grid.add_column(heading, justify="right" if heading == "seeds" else "left")
    for claim in claims:
        statement = Text(claim.statement)
        if claim.remark:
            statement.append(f"\n{claim.remark}", style="italic")
        grid.add_row(
            Text(claim.verdict, style=COLOURS[claim.verdict]),
            statement,
            f"{claim.measured}\n({claim.measured.method})",
            Text(f"{claim.expected}\n{claim.expected.source}"),
            str(claim.measured.num_seeds or "–"),
            Text(f"{claim.control.variation}: {claim.control.measured}, {_control(claim.control_verdict)}"),
        )
    return grid


def summary(claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the number of claims with each verdict."""
    return {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in COLOURS}


def _control(verdict: Verdict) -> str:
    return "fails, as it must" if verdict == "FAIL" else f"does NOT fail ({verdict}), so nothing is shown"
