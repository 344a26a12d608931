"""The curvature at which an optimizer goes unstable, from the optimizer itself."""

from functools import reduce
from typing import Any

import numpy as np

from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.dynamics._scalar_model import Recursion, recursions

_PASSED = 1e-10  # a radius this far beyond 1 is not rounding of a small matrix in double precision
_GROWTH = 1.05


@nan_is_an_answer
def stability_threshold(
    optimizer: Any, opt_state: Any = None, params: Any = None, *, num_steps: int | None = None
) -> float:
    """Find the curvature beyond which the optimizer's step is unstable.

    On one coordinate of curvature λ the gradient is λ times the gradient point, and one step of the optimizer is linear
    in the coordinate θ and its memories m:

        (θ′, m′) = (M₀ + λ M₁)(θ, m),  threshold = inf{λ > 0 : ρ(M₀ + λ M₁) > 1}

    The matrices are derived from the optimizer by differentiating its update, in double precision; nothing is known of
    its name. Statistics of the gradient's size are frozen at 1 (`state_roles` says which leaves those are), so the
    threshold of an adaptive method is in units in which its preconditioner P is 1 where every statistic is 1: for Adam
    P = (√v̂ + ε)/(1 + ε), with the bias correction of v left to the clock. `preconditioned_sharpness` uses the same P,
    and their ratio is 1 at the edge. Some values, with learning rate η, decay γ or β₁, and decoupled weight decay ω:

        gradient descent     2/η                    Nesterov      (2 + 2γ)/(η(1 + 2γ))
        with weight decay    2/η − ω                Adam          (2 + 2β₁)/((1 − β₁)η)
        heavy ball           (2 + 2γ)/η             sign methods  ∞, as a sign has no derivative

    Where the optimizer starts anew after p steps, as inside `optax.MultiSteps`, `apply_every` and `lookahead`, it is
    the map of p steps whose radius counts, the product of their matrices.

    Args:
        optimizer: Any Optax transformation, or chain of this package, with concrete hyperparameters.
        opt_state: A state of it, of which the step counters and injected hyperparameters are used: the threshold is
            that of the coming step, with its learning rate and bias corrections. None for the limit of many steps,
            where corrections are 1 and a schedule has ended.
        params: The parameters the state was made with, if masks or groups make some of them follow another rule; then
            the smallest of their thresholds is returned. None for a rule that is the same for all.
        num_steps: p, if it is more than the state's counters show: for a rule that alternates by a counter that goes on
            counting. None to find it by running the optimizer.

    Returns:
        λ, to 1e-9 relative; 0 if every positive curvature is unstable, as without the minus sign; ∞ if none is. Cost:
        some updates of a single coordinate, and compiling them, about a second.

    Raises:
        TypeError: If the optimizer is none, or `num_steps` no integer.
        ValueError: If the update mixes coordinates or depends on a leaf's shape, as trust ratios, orthogonalised or
            factored gradients do; if the state does not belong to the optimizer, parameters are needed and not given,
            or `num_steps` is no multiple of the period.

    Example:
        >>> print(round(stability_threshold(optax.sgd(0.01, momentum=0.9)), 6))  # (2 + 2γ)/η
        380.0

    References:
        Polyak (1964), Some methods of speeding up the convergence of iteration methods (heavy ball); Cohen et al.
        (2021), Gradient descent on neural networks typically occurs at the edge of stability, appendix B; Cohen et al.
        (2022), Adaptive gradient methods at the edge of stability, table 1 and proposition 1.
    """
    return min(thresholds(recursions("stability_threshold", optimizer, opt_state, params, num_steps)))


def thresholds(blocks: list[Recursion]) -> list[float]:
    """Return the threshold of every recursion; equal ones are solved once."""
    solved: dict[bytes, float] = {}
    found = []
    for block in blocks:
        name = block.constants.tobytes() + block.slopes.tobytes()
        if name not in solved:
            solved[name] = _threshold(block)
        found.append(solved[name])
    return found


def _threshold(block: Recursion) -> float:
    """Return the first λ at which the spectral radius passes 1."""

    def unstable(curvature: float) -> bool:
        matrix = reduce(lambda before, step: step @ before, block.constants + curvature * block.slopes)
        values = np.linalg.eigvals(matrix)
        return bool(np.abs(values).max() > 1.0 + _PASSED)

    size = np.abs(block.slopes).max(initial=0.0)
    if size == 0.0:
        return np.inf
    # The recursion changes by order 1 at λ ~ 1/slope; a method that fails from the start fails far below. A memory's
    # slope may be 1 and the step's, the learning rate, anything.
    low, end = 1e-6 / size, 1e12 / np.abs(block.slopes)[block.slopes != 0].min()
    if unstable(low):
        return 0.0
    high = low * _GROWTH
    while not unstable(high):
        low, high = high, high * _GROWTH
        if low > end:
            return np.inf
    while high - low > 1e-13 * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return 0.5 * (low + high)
