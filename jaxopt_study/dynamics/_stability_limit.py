"""The stability limit in units that no learning rate enters."""

import math
from typing import Any

import jax

from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.dynamics._scalar_model import one_coordinate, recursions
from jaxopt_study.dynamics._stability_threshold import thresholds
from jaxopt_study.dynamics._step_period import refuse_period
from jaxopt_study.dynamics._updates import as_transformation, check_shapes
from jaxopt_study.transforms import refuse_holder

AT_REST = "Where a schedule warms up from 0, pass the state of a later step, or leave `opt_state` out for its end."


@nan_is_an_answer
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
            `optax.MultiSteps`, so that no one gain stands for it, or the coming step does not move the parameters.

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
    blocks = recursions(name, optimizer, opt_state, params, 1)
    if not any(block.moves for block in blocks):
        raise ValueError(
            "stability_limit: the coming step does not move the parameters, whatever the gradient, as at a learning "
            f"rate of 0, so it has no gain. {AT_REST}"
        )
    borne = thresholds(blocks)
    if any(
        block.preconditioner == 0 and math.isfinite(threshold) for block, threshold in zip(blocks, borne, strict=True)
    ):
        raise ValueError(
            "stability_limit: the gradient acts only in later steps, so the coming step has no gain. Use "
            "`stability_threshold`, which needs none."
        )
    # A step without a threshold has no limit, though its gain may be 0, as a sign's is.
    return min(
        abs(block.preconditioner) * threshold if math.isfinite(threshold) else math.inf
        for block, threshold in zip(blocks, borne, strict=True)
    )
