"""Stability threshold: the curvature beyond which an optimizer's step is unstable."""

from functools import reduce
from typing import Any

import numpy as np

from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.dynamics._scalar_model import CompanionMatrices, companion_matrices

_PASSED = 1e-10  # excess of a spectral radius over 1 that is not rounding, in double precision
_GROWTH = 1.05


@nan_is_an_answer
def stability_threshold(
    optimizer: Any, opt_state: Any = None, params: Any = None, *, num_steps: int | None = None
) -> float:
    """Find the curvature beyond which the optimizer's step is unstable.

    On one coordinate of curvature λ the gradient is λ times the gradient point, and one step of the optimizer is linear
    in the coordinate θ and its momentum buffers m:

        (θ′, m′) = (M₀ + λ M₁)(θ, m),  threshold = inf{λ > 0 : ρ(M₀ + λ M₁) > 1}

    The matrices are derivatives of the optimizer's update in double precision, for any optimizer. Second-moment
    buffers, as `state_roles` finds them, are frozen at 1, so the threshold of an adaptive method is in units in which
    its preconditioner P is 1 where these are 1: for Adam P = (√v̂ + ε)/(1 + ε), with the bias correction of the step
    counter. `preconditioned_sharpness` uses the same P, and the ratio of both is 1 at the edge of stability. Some
    values, with learning rate η, decay γ or β₁, and decoupled weight decay ω:

        gradient descent     2/η                    Nesterov      (2 + 2γ)/(η(1 + 2γ))
        with weight decay    2/η − ω                Adam          (2 + 2β₁)/((1 − β₁)η)
        heavy ball           (2 + 2γ)/η             sign methods  ∞, the derivative of a sign is 0

    For an optimizer with a period of p steps, as inside `optax.MultiSteps`, `apply_every` and `lookahead`, the radius
    is that of the product of p matrices.

    Args:
        optimizer: Any Optax transformation, or chain of this package, with concrete hyperparameters.
        opt_state: A state, for its step counters and injected hyperparameters: the threshold is that of the next step,
            with its learning rate and bias corrections. None for the limit of many steps, where corrections are 1 and
            a schedule has ended.
        params: The parameters, required if masks or groups give them different rules; the result is then the smallest
            threshold. None for the same rule everywhere.
        num_steps: p, for a rule with a period that its counters do not show. None to detect it.

    Returns:
        λ, with a relative error of 1e-9; 0 if every positive curvature is unstable, as for steps up the gradient; ∞ if
        none is. Cost: some updates of a single coordinate and their compilation, about a second.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the update mixes coordinates or depends on a leaf's shape, as trust ratios, orthogonalised or
            factored gradients do; if the state belongs to another optimizer, parameters are required but missing, or
            `num_steps` is not a multiple of the period.

    Example:
        >>> print(round(stability_threshold(optax.sgd(0.01, momentum=0.9)), 6))  # (2 + 2γ)/η
        380.0

    References:
        Polyak (1964), Some methods of speeding up the convergence of iteration methods (heavy ball); Cohen et al.
        (2021), Gradient descent on neural networks typically occurs at the edge of stability, appendix B; Cohen et al.
        (2022), Adaptive gradient methods at the edge of stability, table 1 and proposition 1.
    """
    return min(thresholds(companion_matrices("stability_threshold", optimizer, opt_state, params, num_steps)))


def thresholds(blocks: list[CompanionMatrices]) -> list[float]:
    """Return the threshold of every coordinate; equal matrices are solved once."""
    solved: dict[bytes, float] = {}
    results = []
    for block in blocks:
        name = block.constants.tobytes() + block.slopes.tobytes()
        if name not in solved:
            solved[name] = _threshold(block)
        results.append(solved[name])
    return results


def _threshold(block: CompanionMatrices) -> float:
    """Return the first λ at which the spectral radius passes 1."""

    def unstable(curvature: float) -> bool:
        matrix = reduce(lambda before, step: step @ before, block.constants + curvature * block.slopes)
        values = np.linalg.eigvals(matrix)
        return bool(np.abs(values).max() > 1.0 + _PASSED)

    size = np.abs(block.slopes).max(initial=0.0)
    if size == 0.0:
        return np.inf
    # The matrix changes by order 1 at λ ~ 1/slope; a method that is always unstable is so far below. The slope of a
    # momentum buffer may be 1 and that of the step, the learning rate, any number.
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
