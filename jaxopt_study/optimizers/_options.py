"""Options that many optimizers share: which way to go, and how parameters decay."""

from typing import Any

from jaxopt_study.transforms import (
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    negate,
    scale_by_learning_rate,
)


def ascent(maximize: bool) -> tuple[Transform, ...]:
    """Return the atom that turns the gradient's sign, first in the chain; none for descent.

    Args:
        maximize: Whether to climb.

    Returns:
        One atom or none.
    """
    return (negate(),) if maximize else ()


def decayed(who: str, weight_decay: ScalarOrSchedule | None, mask: Any) -> tuple[Transform, ...]:
    """Return the atom that adds λθ: before an optimizer's statistics L2 regularisation, behind them decoupled decay.

    Args:
        who: The optimizer, for the message.
        weight_decay: λ ≥ 0, or a schedule; None for none.
        mask: Which parameters decay.

    Returns:
        One atom or none.

    Raises:
        ValueError: If there is a mask and nothing to mask.
    """
    if weight_decay is None:
        if mask is not None:
            raise ValueError(f"{who}: mask says which parameters decay, but there is no weight_decay; give it, too.")
        return ()
    return (add_decayed_weights(weight_decay, mask=mask),)


def joined(*parts: Transform) -> Transform:
    """Return a chain of several parts, or the only one."""
    return parts[0] if len(parts) == 1 else chain(*parts)


def adaptive_step(
    learning_rate: ScalarOrSchedule, *scale: Transform, decay: tuple[Transform, ...], decoupled: bool, maximize: bool
) -> Transform:
    """Return an adaptive step with weight decay before its statistics, or behind them.

    Args:
        learning_rate: η, or a schedule.
        *scale: The parts that make a direction of the gradient.
        decay: What `decayed` returned.
        decoupled: Whether it stands behind the statistics.
        maximize: Whether to climb.

    Returns:
        A chain.
    """
    parts = (*scale, *decay) if decoupled else (*decay, *scale)
    return chain(*ascent(maximize), *parts, scale_by_learning_rate(learning_rate))
