"""Stability limit: the stability threshold in units without a learning rate."""

import math
from typing import Any

import jax

from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.dynamics._scalar_model import companion_matrices, one_coordinate
from jaxopt_study.dynamics._stability_threshold import thresholds
from jaxopt_study.dynamics._step_period import refuse_period
from jaxopt_study.dynamics._updates import as_transformation, check_shapes
from jaxopt_study.transforms import refuse_holder

AT_REST = "For a schedule that warms up from 0, pass the state of a later step, or omit `opt_state` for its end."


@nan_is_an_answer
def stability_limit(optimizer: Any, opt_state: Any = None, params: Any = None) -> float:
    """Find the product of step sensitivity and curvature beyond which the optimizer's step is unstable.

    With the step sensitivity d = |∂θ′/∂g| and the threshold λ* of `stability_threshold`, both with every second-moment
    buffer at 1:

        limit = d λ*

    d contains learning rate and preconditioner, so the limit is a property of the momentum: 2 for gradient descent,
    2 + 2γ for the heavy ball, (2 + 2γ)/(1 + 2γ) · (1 + γ) for reformulated Nesterov momentum, 2 + 2β₁ for Adam. A step
    is stable along positive curvature as long as λmax(D^½ H D^½) is below the limit, with D the diagonal of step
    sensitivities; `training.CurvatureProbe` records that eigenvalue as `gain_sharpness`.

    Args:
        optimizer: Any Optax transformation, or chain of this package, with concrete hyperparameters.
        opt_state: As in `stability_threshold`.
        params: As in `stability_threshold`.

    Returns:
        The limit, dimensionless; ∞ for a step without a threshold. Cost: as `stability_threshold`.

    Raises:
        TypeError: If the optimizer has the wrong type.
        ValueError: As `stability_threshold`; or if the optimizer has a period of several steps, as inside
            `optax.MultiSteps`, or the next step does not move the parameters.

    Example:
        >>> print(round(stability_limit(optax.sgd(0.01, momentum=0.9)), 6))  # 2 + 2γ
        3.8
    """
    name = "stability_limit"
    optimizer = as_transformation(optimizer, name)
    refuse_holder(name, opt_state)
    if params is not None:
        check_shapes(name, params)
    with jax.enable_x64(True):
        refuse_period(name, optimizer, one_coordinate(name, optimizer, params), opt_state)
    blocks = companion_matrices(name, optimizer, opt_state, params, 1)
    if not any(block.moves for block in blocks):
        raise ValueError(
            f"{name}: the next update is zero for every gradient, for example because the learning rate is 0. {AT_REST}"
        )
    limits = thresholds(blocks)
    if any(
        block.sensitivity == 0 and math.isfinite(threshold) for block, threshold in zip(blocks, limits, strict=True)
    ):
        raise ValueError(
            f"{name}: the next update does not depend on the current gradient; only later ones do. Use "
            "`stability_threshold`."
        )
    # A step without a threshold has no limit, although its sensitivity may be 0, as that of a sign is.
    return min(
        abs(block.sensitivity) * threshold if math.isfinite(threshold) else math.inf
        for block, threshold in zip(blocks, limits, strict=True)
    )
