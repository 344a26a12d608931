"""Paired tests and intervals for differences between results of the same seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy
from jaxtyping import Float, Integer

from jaxopt_study._checks import check_choice, describe_argument
from jaxopt_study._display import displayed, plotted, tabulated
from jaxopt_study.sweeps import _cards
from jaxopt_study.sweeps._statistics._intervals import check_level
from jaxopt_study.sweeps._statistics._scores import Mode, penalised, rounding_of, sign_of

Test = Literal["signed-rank", "t"]
ROUNDING = 1e-12  # tolerance for comparing levels and p-values, which are equal at powers of two
SINGLE = 2 * float(np.finfo(np.float32).eps)  # relative rounding of single-precision differences
Verdict = Literal["a is better", "b is better", "no detectable difference"]


@dataclass(frozen=True)
class Difference:
    """The paired difference a − b of two sets of scores.

    Attributes:
        estimate: A typical difference, in the units of the scores.
        lower: Lower end of the interval; −∞ if the data do not bound it.
        upper: Upper end of the interval; ∞ if the data do not bound it.
        level: Confidence level of the interval.
        p_value: Probability, if a and b were exchangeable, of a test statistic at least as extreme.
        test: The test and interval used.
        verdict: The better of the two, if the interval excludes 0. "no detectable difference" does not mean equality:
            consider the width of the interval.
    """

    estimate: float
    lower: float
    upper: float
    level: float
    p_value: float
    test: Test
    verdict: Verdict

    __repr__, _repr_html_ = displayed(_cards.difference)


@dataclass(frozen=True, eq=False)
class Differences:
    """All differences within a family of m results, row − column.

    Attributes:
        names: Names of the m results.
        estimate: Shape (m, m), as in `Difference`; 0 on the diagonal.
        lower: Shape (m, m). The intervals hold simultaneously with the level (Bonferroni).
        upper: Shape (m, m).
        p_value: Shape (m, m): times the number of pairs, at most 1; 1 on the diagonal.
        better: Shape (m, m): 1 if the row is better than the column, −1 if it is worse, 0 if undecided because the
            interval contains 0. The probability that any of these is wrong is at most 1 − level.
        level: Simultaneous level of the family.
        test: The test and interval used, by pair of names.
    """

    names: tuple[str, ...]
    estimate: Float[np.ndarray, "m m"]
    lower: Float[np.ndarray, "m m"]
    upper: Float[np.ndarray, "m m"]
    p_value: Float[np.ndarray, "m m"]
    better: Integer[np.ndarray, "m m"]
    level: float
    test: Mapping[tuple[str, str], Test]

    __repr__, _repr_html_ = displayed(_cards.differences)
    to_pandas = tabulated(_cards.columns_of_differences)
    plot = plotted


def paired_difference(
    a: Any, b: Any, *, mode: Mode | str, level: float = 0.95, test: Test | str | None = None
) -> Difference:
    """Compare two sets of scores of the same seeds by Wilcoxon's exact signed-rank test.

    With d = a − b, seed by seed, r the ranks of |d| (ties share the mean of theirs) and signs s = ±1,

        T = Σ sᵢ rᵢ,  p = P(|T| ≥ |T observed|) over all 2ⁿ equally likely signs

    which is the distribution of T if a and b are exchangeable, for any distribution of the scores. The estimate is the
    median of the averages (dᵢ + dⱼ)/2, i ≤ j, and the ends of the interval are two of these averages, such that it
    excludes 0 if p ≤ 1 − level; if some |d| are equal, it may contain 0 nevertheless, and the verdict follows the
    interval. A seed that diverged in one of the two counts as the largest difference, in both as no difference.

    With fewer than six seeds p cannot reach .05, since its smallest value is 2¹⁻ⁿ. `test=None` then uses Student's t of
    the differences, with the mean and its interval, exact for normal differences. If a difference is infinite or all
    are equal up to rounding, their spread is unknown, and the signed-rank test is used. A difference within the
    rounding of the scores counts as none.

    Measured at level .95 with 3 to 10 seeds (3,000 pairs of samples each of the same normal, lognormal, bimodal or
    Cauchy distribution, of accuracies on 100 images, and of runs of which a fifth diverge): a difference is declared in
    .008 to .057 of the cases.

    There is no correction for multiple comparisons; for more than one use `paired_differences`.

    Args:
        a: Scores of shape (seeds,). NaN counts as the worst score.
        b: Scores of the same seeds, shape (seeds,).
        mode: Whether smaller ("min") or larger ("max") scores are better.
        level: Confidence level in (0, 1) of the interval and the verdict.
        test: "signed-rank" or "t"; None chooses by the number of seeds and the level only.

    Returns:
        The difference. Cost: n³ for n seeds, milliseconds up to 100.

    Raises:
        ValueError: If the shapes differ, there are no seeds, or `mode`, `test` or `level` is invalid.

    Example:
        >>> a = np.array([0.31, 0.33, 0.29, 0.35, 0.30, 0.32])
        >>> paired_difference(a, a + 0.01, mode="min").verdict, paired_difference(a, a + 0.01, mode="max").verdict
        ('a is better', 'b is better')

    References:
        Wilcoxon (1945), Biometrics Bulletin 1. Hodges and Lehmann (1963), Annals of Mathematical Statistics 34, for the
        estimate. Hollander, Wolfe and Chicken (2014), Nonparametric Statistical Methods, section 3.3, for the interval.
    """
    check_level("paired_difference", level)
    sign = sign_of(mode)
    first, second = penalised(a, mode), penalised(b, mode)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(
            "paired_difference needs two sets of scores of shape (seeds,), with the same seeds in the same order; "
            f"received {first.shape} and {second.shape}."
        )
    n = len(first)
    check_choice("paired_difference", "test", test, (*get_args(Test), None))
    attainable = 2.0 ** (1 - n) <= 1 - level + ROUNDING
    with np.errstate(invalid="ignore"):
        differences = first - second
    differences = np.where(np.isnan(differences), 0.0, differences)  # ∞ − ∞: both diverged, a tie
    size = np.abs(np.where(np.isfinite([first, second]), [first, second], 0.0)).max(axis=0)
    rounding = rounding_of(first, second)
    differences = np.where(np.abs(differences) <= rounding * size, 0.0, differences)
    spread = differences.std(ddof=1) / np.sqrt(n) if n > 1 and np.isfinite(differences).all() else 0.0
    used: Test
    if (test == "t" or not (test or attainable)) and np.sqrt(n) * spread > rounding * size.max():
        used, estimate = "t", float(differences.mean())
        reach = scipy.stats.t.ppf((1 + level) / 2, n - 1) * spread
        lower, upper = estimate - reach, estimate + reach
        p_value = 2 * scipy.stats.t.sf(abs(estimate) / spread, n - 1)
    else:
        used, p_value = "signed-rank", _signed_rank_p(differences)
        estimate, lower, upper = _signed_rank_interval(differences, size, level)
    better = -sign * _side_of_zero(float(lower), float(upper))
    verdict: Verdict = "a is better" if better > 0 else "b is better" if better < 0 else "no detectable difference"
    return Difference(estimate, float(lower), float(upper), level, float(p_value), used, verdict)


def paired_differences(
    scores: Mapping[str, Any], *, mode: Mode | str, level: float = 0.95, test: Test | str | None = None
) -> Differences:
    """Compare all pairs of several results of the same seeds, with a simultaneous level for all verdicts.

    Each pair is compared as in `paired_difference`, at the level 1 − (1 − level)/(number of pairs), at which all
    intervals and verdicts hold simultaneously under any dependence (Bonferroni). A step-down test such as Holm's would
    declare a few more differences, whose intervals contain 0.

    Signed ranks need 2¹⁻ⁿ ≤ (1 − level)/(number of pairs): at .95, 7 seeds for 3 results, 9 for 5 and 11 for 8. With
    fewer seeds, `test=None` uses Student's t for all pairs.

    Args:
        scores: Scores by name, shape (seeds,), with the same seeds for all. NaN counts as the worst score.
        mode: Whether smaller ("min") or larger ("max") scores are better.
        level: Simultaneous confidence level of the family, in (0, 1).
        test: As in `paired_difference`.

    Returns:
        Matrices of all differences, row − column.

    Raises:
        TypeError: If `scores` is not a mapping of names to numbers.
        ValueError: If there are fewer than two results, or as in `paired_difference`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> result = paired_differences({"a": rng.normal(size=8), "b": 9 + rng.normal(size=8)}, mode="min")
        >>> print(result.better)
        [[ 0  1]
         [-1  0]]
    """
    check_level("paired_differences", level)
    if not isinstance(scores, Mapping):
        raise TypeError(
            f"paired_differences needs scores to be a mapping of names to scores; received {describe_argument(scores)}."
        )
    names = tuple(scores)
    m = len(names)
    if m < 2:
        raise ValueError(f"paired_differences needs at least two results to compare; received {list(names)}.")
    rows, columns = np.triu_indices(m, 1)
    each = 1 - (1 - level) / len(rows)
    pairs = [
        paired_difference(scores[names[i]], scores[names[j]], mode=mode, level=each, test=test)
        for i, j in zip(rows, columns, strict=True)
    ]
    tests: dict[tuple[str, str], Test] = {
        (names[i], names[j]): pair.test for i, j, pair in zip(rows, columns, pairs, strict=True)
    }
    estimate, lower, upper = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    p_value, better = np.ones((m, m)), np.zeros((m, m), dtype=int)
    for i, j, pair in zip(rows, columns, pairs, strict=True):
        estimate[i, j], lower[i, j], upper[i, j] = pair.estimate, pair.lower, pair.upper
        estimate[j, i], lower[j, i], upper[j, i] = -pair.estimate, -pair.upper, -pair.lower
        p_value[i, j] = p_value[j, i] = min(len(pairs) * pair.p_value, 1.0)
        better[i, j] = -sign_of(mode) * _side_of_zero(pair.lower, pair.upper)
        better[j, i] = -better[i, j]
    return Differences(names, estimate, lower, upper, p_value, better, level, tests)


def _side_of_zero(lower: float | int, upper: float | int) -> int:
    """Return 1 for an interval above 0, −1 for one below 0, 0 for one that contains 0."""
    return int(lower > 0) - int(upper < 0)


def _signed_rank_p(differences: Float[np.ndarray, " seeds"]) -> float:
    doubled = np.rint(2 * scipy.stats.rankdata(np.abs(differences))).astype(int)  # mean ranks are halves of integers
    moving = doubled[differences != 0]
    positive, total = doubled[differences > 0].sum(), moving.sum()
    chances = _sums(moving)
    beyond = np.abs(2 * np.arange(total + 1) - total) >= abs(2 * positive - total)
    return float(min(chances[beyond].sum(), 1.0))


def _signed_rank_interval(
    differences: Float[np.ndarray, " seeds"], size: Float[np.ndarray, " seeds"], level: float
) -> tuple[float, float, float]:
    n = len(differences)
    first, second = np.triu_indices(n)
    with np.errstate(invalid="ignore"):
        averages = (differences[first] + differences[second]) / 2
    # Averages of −∞ and ∞, and those that are nonzero only by rounding of single-precision scores.
    smallest = SINGLE * np.maximum(size[first], size[second])
    opposite = np.sign(differences[first]) * np.sign(differences[second]) < 0
    averages = np.sort(np.where(opposite & ~(np.abs(averages) > smallest), 0.0, averages))
    count = len(averages)
    middle = averages[(count - 1) // 2], averages[count // 2]
    estimate = 0.0 if middle[0] == -middle[1] else (middle[0] + middle[1]) / 2
    outside = int(np.searchsorted(np.cumsum(_sums(np.arange(1, n + 1))), (1 - level) / 2 + ROUNDING, side="right"))
    if outside == 0:
        return float(estimate), -np.inf, np.inf
    return float(estimate), averages[outside - 1], averages[count - outside]


def _sums(weights: Integer[np.ndarray, " coins"]) -> Float[np.ndarray, " sums"]:
    """Return the distribution of Σ wᵢ Bᵢ over 0 … Σ wᵢ, with independent fair coins Bᵢ."""
    chances = np.zeros(weights.sum() + 1)
    chances[0] = 1.0
    reach = 0
    for weight in weights:
        shifted = chances[: reach + 1] / 2
        chances[: reach + 1] = shifted
        chances[weight : weight + reach + 1] += shifted
        reach += weight
    return chances


__all__ = ["Difference", "Differences", "Test", "Verdict", "paired_difference", "paired_differences"]
