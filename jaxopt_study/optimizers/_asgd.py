"""Averaged stochastic gradient descent (ASGD)."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false, reportOptionalOperand=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    average_iterates,
    chain,
    regularised_decay,
    scale_by_learning_rate,
)


@optimizer({"paper": {"t0": 0.0}, "torch": {"t0": 1e6}})
def asgd(
    learning_rate: ScalarOrSchedule,
    *,
    lambd: ScalarLike = 1e-4,
    alpha: ScalarLike = 0.75,
    t0: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step against the regularised gradient with a decaying learning rate, and average the iterates.

    With t steps taken, θ ← θ − ηₜ (g + λθ), ηₜ = η/(1 + ληt)^α; then θ̄ ← θ̄ + (θ − θ̄)/max(1, t + 1 − t₀).

    The trained parameters are not the average: evaluate the loss at `transforms.evaluation_params(params, state)`.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        lambd: λ ≥ 0, the weight of ½‖θ‖² in the loss; 1e-4 in torch.
        alpha: α ≥ 0, the power of the rate's decay; ¾ in Bottou and torch.
        t0: Number of steps before averaging begins. paper 0, torch 1e6: practically never.
        weight_decay: A further weight of ½‖θ‖², or a schedule, which does not affect the learning rate; None for none.
        mask: Which parameters `weight_decay` shrinks; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Both decays still shrink the parameters.
        convention: torch begins to average one step later than documented, and computes a step's rate from the learning
            rate of the previous step.

    Returns:
        A chain of `add_decayed_weights`, `scale_by_learning_rate` and `average_iterates`.

    Example:
        >>> from jaxopt_study.transforms import evaluation_params
        >>> tx, params = asgd(0.1, lambd=0.0), jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for g in [-1.0, 1.0, -1.0, 1.0]:  # θ alternates between 0 and .1
        ...     updates, state = tx.update(jnp.array([g]), state, params)
        ...     params = params + updates
        >>> print(params, evaluation_params(params, state))
        [0.] [0.05]

    References:
        Polyak and Juditsky (1992); Bottou (2012), Stochastic gradient descent tricks, sections 5.2 and 5.3; Xu (2011),
        Towards optimal one pass large scale learning with averaged SGD, section 5. `torch.optim.ASGD`.
    """
    as_torch = convention == "torch"
    first: Any = t0  # filled in by the convention
    start = first + 1 if as_torch else first
    return chain(
        *ascent(maximize),
        *decayed("asgd", weight_decay, mask),
        add_decayed_weights(lambd),
        scale_by_learning_rate(regularised_decay(learning_rate, lambd, power=alpha, lagged=as_torch)),
        average_iterates(start),
    )
