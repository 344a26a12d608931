"""Performance over many problems: how often a solver is within a factor of the best."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxopt_study._checks import check_integer
from jaxopt_study.sweeps._statistics._scores import numbers


@dataclass(frozen=True, eq=False)
class Profile:
    """Shares of problems on which each of s solvers is within a factor of the best.

    Attributes:
        tau: Shape (T,): the factors, from 1 on, at which a share changes, or those that were asked for.
        shares: Shape (s, T): ρ(τ); right-continuous steps.
        ratios: Shape (problems, s): cost over the least cost on that problem; ∞ where a solver failed.
    """

    tau: np.ndarray
    shares: np.ndarray
    ratios: np.ndarray


def performance_profile(costs: Any, tau: Any = None) -> Profile:
    """Return, for every solver, the share of problems on which it costs at most τ times what the best solver costs.

    With cost c of problem p and solver s, and P problems:

        r = cₚₛ / minₛ cₚₛ,  ρₛ(τ) = #{p : rₚₛ ≤ τ} / P

    ρₛ(1) is the share of problems on which s is the best, and for large τ ρₛ is the share it solves at all. A problem
    that nobody solves stays in P. It ranks the best solver against the field; which of two others is better it does not
    say, because removing the best one can reverse them: make the profile of those two.

    Costs are ratios' numerators, so they must have a meaningful 0: steps or seconds to a target, a loss above its
    minimum, not a loss that may be negative. For accuracies take `error_cost`. Paired repetitions, such as seeds, may
    be rows of their own, and then problems are weighted by how many they have.

    Args:
        costs: Shape (problems, solvers), positive; ∞ or NaN for a failure.
        tau: Shape (T,), factors ≥ 1; None takes all at which a share changes.

    Returns:
        The profile.

    Raises:
        ValueError: If the shape is another, a cost is zero or negative, or a factor is below 1.

    Example:
        >>> profile = performance_profile([[10.0, 20.0], [30.0, 30.0], [np.inf, 50.0]])
        >>> print(profile.tau, profile.shares.round(2).tolist())
        [1. 2.] [[0.67, 0.67], [0.67, 1.0]]

    References:
        Dolan and Moré (2002), Benchmarking optimization software with performance profiles, Mathematical Programming
        91. Gould and Scott (2016), A Note on Performance Profiles, ACM TOMS 43, for what they do not say.
    """
    table = numbers("performance_profile", "costs", costs)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"performance_profile needs costs of shape (problems, solvers); received {table.shape}.")
    table[np.isnan(table)] = np.inf
    if (table <= 0).any():
        raise ValueError(
            f"performance_profile divides by the least cost, which must be positive; received {table.min()}. Subtract "
            "the minimum from losses and add a tolerance, or take error_cost of accuracies."
        )
    least = table.min(axis=1, keepdims=True)
    ratios = np.where(np.isfinite(table), table / np.where(np.isfinite(least), least, 1.0), np.inf)
    factors = (
        np.unique(np.append(ratios[np.isfinite(ratios)], 1.0))
        if tau is None
        else numbers("performance_profile", "tau", tau)
    )
    if factors.ndim != 1 or not (factors >= 1).all():
        raise ValueError(f"performance_profile needs factors tau of shape (T,), at least 1; received {tau}.")
    return Profile(factors, (ratios[:, :, None] <= factors).mean(axis=0), ratios)


def error_cost(accuracies: Any, num_examples: int) -> np.ndarray:
    """Turn accuracies into costs that `performance_profile` can divide: error rates with half a mistake added.

        cost = ((1 − accuracy) N + ½) / (N + 1)

    So a ratio of 2 is about twice the mistakes, and a solver without a mistake is better by a finite factor.

    Args:
        accuracies: Any shape, in [0, 1]. NaN is kept, as a failure.
        num_examples: N, on which they were measured.

    Returns:
        Costs in (0, 1), of the same shape.

    Raises:
        ValueError: If an accuracy is outside [0, 1] or N is not positive.

    Example:
        >>> print(error_cost([1.0, 0.9], 99).round(3))
        [0.005 0.104]
    """
    values = numbers("error_cost", "accuracies", accuracies)
    num_examples = check_integer("error_cost", "num_examples", num_examples, 1)
    if np.any((values < 0) | (values > 1)):
        raise ValueError(
            f"error_cost needs accuracies in [0, 1] on at least one example; received {accuracies} on {num_examples}."
        )
    return np.asarray(((1 - values) * num_examples + 0.5) / (num_examples + 1))


__all__ = ["Profile", "error_cost", "performance_profile"]
