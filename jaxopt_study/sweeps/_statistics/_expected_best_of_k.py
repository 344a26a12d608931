"""Expected best score of k trials, estimated from a search of n."""

from typing import Any, Literal, get_args

import numpy as np
import scipy
from jaxtyping import Float, Integer

from jaxopt_study._checks import check_choice, check_integer, describe_argument
from jaxopt_study.sweeps._statistics._intervals import Interval, check_level
from jaxopt_study.sweeps._statistics._scores import Mode, penalised, sign_of

Average = Literal["median", "mean"]
NUM_RESAMPLES = 1000
BELIEVED = {"median": 0.2, "mean": 0.1}  # largest share k/n for which the bootstrap is trusted


def best_of_k(
    scores: Any, k: Any, *, mode: Mode | str, average: Average | str = "median", level: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate the best score of k random trials, for one k or many.

    Of n scores sorted from best to worst, the best of k of them drawn without replacement is the i-th with probability

        wᵢ(k) = C(n − i, k − 1) / C(n, k)

    The estimate is the median of that distribution, or its mean Σ wᵢ s₍ᵢ₎, which is unbiased, but infinite if one of
    the k may have diverged.

    The interval is for new searches of k trials, not for the n trials that were run. The median of their best score is
    the quantile 1 − 2^(−1/k) of a single trial's score, and two order statistics enclose a quantile with at least the
    stated probability for any distribution, separately for each k. From k = n/5.3 on, at level .95, the best of the n
    trials no longer bounds it on the better side, where the interval is then infinite. For the mean the interval is the
    percentile bootstrap, which only resamples the observed scores.

    Measured coverage at level .95 of n = 100 trials (500 searches of each of five distributions): median .95 to 1 at
    every k; mean .91 to .93 for k = 1, .87 to .92 for k = 5, .82 to .91 for k = 10, .74 to .91 for k = 20, and .35 to
    .52 for k = 100. For k > n/10 the mean's interval is therefore the whole line.

    The result describes the given scores: the best validation score of many trials is optimistic for the selected
    trial; use `chosen_of_k` for its score on other data. Trials must be independent draws from one space; those of a
    grid or a scrambled Sobol sequence cover it more evenly, and the intervals are then wider than necessary.

    Args:
        scores: One score per trial, shape (n,). NaN counts as the worst score; leave out trials that were not run.
        k: Numbers of trials, 1 ≤ k ≤ n: an integer or shape (K,).
        mode: Whether smaller ("min") or larger ("max") scores are better.
        average: The average over possible searches, "median" or "mean".
        level: Confidence level in (0, 1).
        seed: Seed of the bootstrap.

    Returns:
        The estimate and its interval, numbers for a single k, otherwise of shape (K,). Cost: a sort and n·K weights,
        and for the mean 1,000 times as much.

    Raises:
        ValueError: If there are no trials, a k is out of range, or `mode`, `average` or `level` is unknown.

    Example:
        >>> result = best_of_k([3.0, 1.0, 2.0], [1, 2, 3], mode="min", average="mean")
        >>> print(result.estimate * 3)  # k = 2: the best is 1 in two of the three pairs, 2 in one
        [6. 4. 3.]

    References:
        Dodge, Gururangan, Card, Schwartz and Smith (2019), Show Your Work, EMNLP. Tang, Lee, Xin, Liu, Yu and Lin
        (2020), Showing Your Work Doesn't Always Work, ACL: drawing without replacement. Lourie, Choi and He (2024),
        Show Your Work with Confidence, NAACL: the median, and why not to bootstrap.
    """
    values, budgets = _checked("best_of_k", scores, k, mode, average, level)
    seed = check_integer("best_of_k", "seed", seed, 0, high=None)
    costs = np.sort(sign_of(mode) * values)
    weights = _weights(len(costs), budgets)
    if average == "mean":
        estimate = _expectation(weights, costs)
        lower, upper = _bootstrap(costs, costs, budgets, average, level, seed)
    else:
        estimate = _median(weights, costs)
        lower, upper = _quantile_bounds(costs, 1 - 0.5 ** (1 / budgets), level)
    return _oriented(estimate, lower, upper, level, mode, np.ndim(k) == 0)


def chosen_of_k(
    selection: Any,
    report: Any,
    k: Any,
    *,
    mode: Mode | str,
    report_mode: Mode | str | None = None,
    average: Average | str = "median",
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Estimate the score, on other data or seeds, of the trial selected as the best of k random trials.

    Sorted by the selecting score from best to worst, trial i is selected with the probability wᵢ(k) of `best_of_k`;
    trials with equal selecting scores are equally likely. The estimate is the median, or the mean Σ wᵢ rᵢ, of the
    reported score rᵢ. It thereby removes the selection bias, for example of a choice made on a hundred validation
    images.

    The interval is the percentile bootstrap over trials. Measured coverage at level .95 of n = 100 trials (400 searches
    of each of four distributions): median .89 to .97 for k from 1 to 20, .58 to .86 for k = 50; mean .82 to .95 for k
    from 1 to 10, .76 to .91 for k = 20. For k > n/5, and for the mean k > n/10, it is therefore the whole line.

    Args:
        selection: The selecting score of each trial, such as the validation loss, shape (n,). NaN counts as the worst
            score.
        report: The reported score of each trial, such as the test loss, shape (n,). NaN counts as the worst score.
        k: Numbers of trials, 1 ≤ k ≤ n: an integer or shape (K,).
        mode: Whether the smallest ("min") or the largest ("max") score is selected.
        report_mode: Whether smaller or larger is better in `report`; None takes `mode`.
        average: The average over possible searches, "median" or "mean".
        level: Confidence level in (0, 1).
        seed: Seed of the bootstrap.

    Returns:
        The estimate and its interval, numbers for a single k, otherwise of shape (K,). Cost: 1,000 sorts of n scores,
        with n·K weights for each.

    Raises:
        ValueError: As in `best_of_k`, or if the shapes differ.

    Example:
        >>> validation, test = [0.1, 0.2, 0.3], [0.5, 0.4, 0.9]
        >>> print(chosen_of_k(validation, test, [1, 3], mode="min", average="mean").estimate)
        [0.6 0.5]

    References:
        As `best_of_k`.
    """
    selecting, budgets = _checked("chosen_of_k", selection, k, mode, average, level)
    seed = check_integer("chosen_of_k", "seed", seed, 0, high=None)
    report_mode = mode if report_mode is None else report_mode
    reported = sign_of(report_mode) * penalised(report, report_mode)
    if reported.shape != selecting.shape:
        raise ValueError(
            f"chosen_of_k needs selection and report of the same shape; received {selecting.shape} and "
            f"{reported.shape}."
        )
    costs = sign_of(mode) * selecting
    order = np.argsort(costs, kind="stable")
    weights, costs, reported = _weights(len(costs), budgets), costs[order], reported[order]
    _, group = np.unique(costs, return_inverse=True)
    sums = np.zeros((group[-1] + 1, len(budgets)))
    np.add.at(sums, group, weights)
    weights = (sums / np.bincount(group)[:, None])[group]  # equal scores have equal probabilities
    estimate = (_expectation if average == "mean" else _median)(weights, reported)
    lower, upper = _bootstrap(costs, reported, budgets, average, level, seed)
    return _oriented(estimate, lower, upper, level, report_mode, np.ndim(k) == 0)


def _weights(n: int, k: Integer[np.ndarray, " budgets"]) -> Float[np.ndarray, "trials budgets"]:
    """Return wᵢ(k), shape (n, K): the probability that the best of k of n is the i-th best."""
    worse = n - np.arange(1, n + 1)[:, None]  # number of trials worse than the i-th, of which k − 1 are drawn
    possible = worse >= k - 1
    gammaln = scipy.special.gammaln
    log = gammaln(worse + 1) - gammaln(np.where(possible, worse - k + 2, 1)) - gammaln(k)
    weights = np.where(possible, np.exp(log - log.max(axis=0, where=possible, initial=-np.inf)), 0.0)
    return weights / weights.sum(axis=0)  # C(n, k) is their sum


def _expectation(
    weights: Float[np.ndarray, "trials budgets"], costs: Float[np.ndarray, " trials"]
) -> Float[np.ndarray, " budgets"]:
    """Return Σ wᵢ cᵢ for each column of weights, where zero weights cancel infinite costs."""
    infinite = np.isinf(costs)
    return np.where(infinite, 0.0, costs) @ weights + np.where(weights[infinite].any(axis=0), np.inf, 0.0)


def _median(
    weights: Float[np.ndarray, "trials budgets"], costs: Float[np.ndarray, " trials"]
) -> Float[np.ndarray, " budgets"]:
    """Return the smallest cost at which half of each column of weights is reached."""
    order = np.argsort(costs, kind="stable")
    reached = np.cumsum(weights[order], axis=0) >= 0.5 - 1e-12
    return costs[order][reached.argmax(axis=0)]


def _quantile_bounds(
    costs: Float[np.ndarray, " trials"], share: Float[np.ndarray, " budgets"], level: float
) -> tuple[Float[np.ndarray, " budgets"], Float[np.ndarray, " budgets"]]:
    """Return the order statistics that enclose the quantile of the costs at each share."""
    n, outside = len(costs), (1 - level) / 2
    padded = np.concatenate(([-np.inf], costs, [np.inf]))
    below = scipy.stats.binom.cdf(np.arange(n + 1)[:, None], n, share)  # P(B ≤ j)
    lower = (below[:n] <= outside).sum(axis=0)  # the largest j with P(B ≤ j − 1) ≤ outside
    upper = (below < 1 - outside).sum(axis=0) + 1  # the smallest j with P(B ≥ j) ≤ outside
    return padded[lower], padded[upper]


def _bootstrap(
    selecting: Float[np.ndarray, " trials"],
    reported: Float[np.ndarray, " trials"],
    k: Integer[np.ndarray, " budgets"],
    average: Average | str,
    level: float,
    seed: int,
) -> tuple[Float[np.ndarray, " budgets"], Float[np.ndarray, " budgets"]]:
    n, rng = len(selecting), np.random.default_rng(seed)
    weights = _weights(n, k)
    settle = _expectation if average == "mean" else _median
    resampled = np.empty((NUM_RESAMPLES, len(k)))
    for row in resampled:
        drawn = rng.integers(n, size=n)
        drawn = drawn[np.argsort(selecting[drawn], kind="stable")]  # random ties: the order is random
        row[:] = settle(weights, reported[drawn])
    lower, upper = np.quantile(resampled, ((1 - level) / 2, (1 + level) / 2), axis=0, method="nearest")
    believed = k <= max(1, BELIEVED[average] * n)
    return np.where(believed, lower, -np.inf), np.where(believed, upper, np.inf)


def _oriented(
    estimate: Float[np.ndarray, " budgets"],
    lower: Float[np.ndarray, " budgets"],
    upper: Float[np.ndarray, " budgets"],
    level: float,
    mode: Mode | str,
    single: bool,
) -> Interval:
    if mode == "max":
        estimate, lower, upper = -estimate, -upper, -lower
    return Interval(*((float(x[0]) if single else x) for x in (estimate, lower, upper)), level=level)


def _checked(
    who: str, scores: Any, k: Any, mode: Mode | str, average: Average | str, level: float
) -> tuple[Float[np.ndarray, " trials"], Integer[np.ndarray, " budgets"]]:
    check_level(who, level)
    check_choice(who, "average", average, get_args(Average))
    values = penalised(scores, mode)
    try:
        budgets = np.atleast_1d(np.asarray(k))
    except (TypeError, ValueError) as error:  # keys of JAX, lists of unequal lengths
        raise TypeError(f"{who} needs k to be integers; received {describe_argument(k)}.") from error
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"{who} needs one score per trial, shape (n,), n ≥ 1; received {values.shape}. Average over seeds first."
        )
    whole = np.issubdtype(budgets.dtype, np.integer) and budgets.ndim == 1
    if not whole or not ((budgets >= 1) & (budgets <= len(values))).all():
        raise ValueError(f"{who} needs k to be integers from 1 to {len(values)}; received {k}.")
    return values, budgets


__all__ = ["Average", "best_of_k", "chosen_of_k"]
