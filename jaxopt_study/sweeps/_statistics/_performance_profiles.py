"""Performance profiles: the share of problems on which a solver is within a factor of the best."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import check_integer
from jaxopt_study._display import displayed, plotted
from jaxopt_study.sweeps import _cards
from jaxopt_study.sweeps._statistics._scores import numbers, rounding_of


@dataclass(frozen=True, eq=False)
class Profile:
    """Shares of problems on which each of s solvers is within a factor of the best.

    Attributes:
        tau: The factors ≥ 1 at which a share changes, or the given ones, shape (T,).
        shares: ρ(τ), right-continuous step functions, shape (s, T).
        ratios: Cost over the least cost on the problem, shape (problems, s); ∞ if a solver failed.
    """

    tau: Float[np.ndarray, " factors"]
    shares: Float[np.ndarray, "solvers factors"]
    ratios: Float[np.ndarray, "problems solvers"]

    __repr__, _repr_html_ = displayed(_cards.profile)
    plot = plotted


def performance_profile(costs: Any, tau: Any = None) -> Profile:
    """Return, for every solver, the share of problems on which its cost is at most τ times the least cost.

    With cost c of problem p and solver s, and P problems:

        r = cₚₛ / minₛ cₚₛ,  ρₛ(τ) = #{p : rₚₛ ≤ τ} / P

    ρₛ(1) is the share of problems on which s is the best, and for large τ ρₛ is the share that it solves. A problem
    that no solver solves still counts in P. A profile compares the best solver with the rest; it does not rank two
    others, because removing the best one can reverse their order: make a profile of the two alone.

    Costs form ratios, so they need a meaningful zero: steps or seconds to a target, or a loss above its minimum, but
    not a loss that may be negative. For accuracies use `error_cost`. Paired repetitions, such as seeds, may be separate
    rows; a problem is then weighted by its number of repetitions.

    Args:
        costs: Positive costs of shape (problems, solvers); ∞ or NaN for a failure.
        tau: Factors ≥ 1, shape (T,); None takes all at which a share changes.

    Returns:
        The profile.

    Raises:
        ValueError: If the shape is wrong, a cost is zero or negative, or a factor is below 1.

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
            f"performance_profile needs positive costs, since it divides by the least; received {table.min()}. "
            "Subtract the minimum from losses and add a tolerance, or use error_cost for accuracies."
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
    within = ratios[:, :, None] <= (1 + rounding_of(table)) * factors  # 1.4 times .3 rounds to less than .42
    return Profile(factors, within.mean(axis=0), ratios)


def error_cost(accuracies: Any, num_examples: int) -> Float[np.ndarray, "*shape"]:
    """Return positive costs for `performance_profile` from accuracies: error rates with half an error added.

        cost = ((1 − accuracy) N + ½) / (N + 1)

    A ratio of 2 then means about twice as many errors, and a solver without errors is better by a finite factor.

    Args:
        accuracies: Any shape, in [0, 1]. NaN is kept, as a failure.
        num_examples: N, the number of examples on which they were measured.

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
