"""Options shared by many optimizers: ascent and weight decay."""

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
    """Return the atom that negates the gradient at the start of the chain, or nothing for descent.

    Args:
        maximize: Whether to ascend.

    Returns:
        One atom or none.
    """
    return (negate(),) if maximize else ()


def decayed(who: str, weight_decay: ScalarOrSchedule | None, mask: Any) -> tuple[Transform, ...]:
    """Return the atom that adds λθ: before an optimizer's statistics L2 regularisation, after them decoupled decay.

    Args:
        who: The optimizer, for the message.
        weight_decay: λ ≥ 0, or a schedule; None for none.
        mask: Which parameters decay.

    Returns:
        One atom or none.

    Raises:
        ValueError: If a mask is given without weight decay.
    """
    if weight_decay is None:
        if mask is not None:
            raise ValueError(
                f"{who}: mask needs weight_decay; received weight_decay=None. Give weight_decay, or leave out mask."
            )
        return ()
    return (add_decayed_weights(weight_decay, mask=mask),)


def joined(*parts: Transform) -> Transform:
    """Return the only part, or a chain of several."""
    return parts[0] if len(parts) == 1 else chain(*parts)


def adaptive_step(
    learning_rate: ScalarOrSchedule, *scale: Transform, decay: tuple[Transform, ...], decoupled: bool, maximize: bool
) -> Transform:
    """Return an adaptive step with weight decay before or after its statistics.

    Args:
        learning_rate: η, or a schedule.
        *scale: The parts that turn the gradient into a direction.
        decay: The result of `decayed`.
        decoupled: Whether the decay comes after the statistics.
        maximize: Whether to ascend.

    Returns:
        A chain.
    """
    parts = (*scale, *decay) if decoupled else (*decay, *scale)
    return chain(*ascent(maximize), *parts, scale_by_learning_rate(learning_rate))
