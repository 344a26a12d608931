"""The stability limit in units that no learning rate enters."""

from typing import Any

import jax

from jaxopt_study.dynamics.periods import refuse_period
from jaxopt_study.dynamics.scalar_problem import one_coordinate, recursions
from jaxopt_study.dynamics.threshold import thresholds
from jaxopt_study.dynamics.updates import as_transformation


def stability_limit(optimizer: Any, opt_state: Any = None, params: Any = None) -> float:
    """Find the product of gain and curvature beyond which the optimizer's step is unstable.

    With gain d = |∂θ′/∂g|, what one step makes of a change of the gradient, and the threshold λ* of
    `stability_threshold`, both with every statistic at 1:

        limit = d λ*

    Learning rate and preconditioner are in d, so the limit is a property of the momentum: 2 for gradient descent,
    2 + 2γ for the heavy ball, (2 + 2γ)/(1 + 2γ) · (1 + γ) for Nesterov's in its reformulated form, 2 + 2β₁ for Adam. A
    step is stable along the positive curvature of H as long as λmax(D^½ H D^½) stays below it, D the diagonal of gains:
    what `training.CurvatureProbe` records as `gain_sharpness`.

    Args:
        optimizer: Any Optax transformation, or chain of this package, with concrete hyperparameters.
        opt_state: As in `stability_threshold`.
        params: As in `stability_threshold`.

    Returns:
        The limit, dimensionless; ∞ for a step that has no threshold. Cost: as `stability_threshold`.

    Raises:
        TypeError: If the optimizer is none.
        ValueError: As `stability_threshold`; or if the optimizer does not do the same in every step, as inside
            `optax.MultiSteps`, so that no one gain stands for it.

    Example:
        >>> print(round(stability_limit(optax.sgd(0.01, momentum=0.9)), 6))  # 2 + 2γ
        3.8
    """
    optimizer = as_transformation(optimizer)
    with jax.enable_x64(True):
        refuse_period("stability_limit", optimizer, one_coordinate(optimizer, params), opt_state)
    blocks = recursions(optimizer, opt_state, params, 1)
    return min(abs(block.gain) * threshold for block, threshold in zip(blocks, thresholds(blocks), strict=True))
