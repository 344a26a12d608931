"""AdaDelta."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import POSITIVE, optimizer
from jaxopt_study.optimizers._options import ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    chain,
    negate,
    scale_by_adadelta,
    scale_by_learning_rate,
)


@optimizer(
    {
        "paper": {"decay": 0.95, "eps": 1e-6},
        "torch": {"decay": 0.9, "eps": 1e-6, "learning_rate": 1.0},
        "optax": {"decay": 0.9, "eps": 1e-6, "learning_rate": 1.0},
    },
    aliases={"rho": "decay", "weight_decay_mask": "mask"},
    ranges={"eps": POSITIVE},
    search_range=(1e-2, 1e3),  # of a factor on the step, which the paper does not have
)
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    *,
    decay: ScalarLike | None = None,
    eps: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by the ratio of the root mean squares of past updates and gradients, without a learning rate.

    Args:
        learning_rate: A factor on the step; 1 in torch and optax; the paper has none.
        decay: ρ of both accumulators, Optax's and torch's `rho`. paper .95, torch and optax .9.
        eps: ε > 0 inside both roots, 1e-6.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults.

    Returns:
        `scale_by_adadelta` with the opposite sign.

    Raises:
        ValueError: If a learning rate is given under the paper's convention, which has none.

    Example:
        >>> "learning_rate" in str(adadelta().expand())
        False

    References:
        Zeiler (2012), ADADELTA, Algorithm 1 and section 4.1; `torch.optim.Adadelta`, `optax.adadelta`
        (which ascends if called without a learning rate).
    """
    front = (*ascent(maximize), *decayed("adadelta", weight_decay, mask))
    if convention == "paper":
        if learning_rate is not None:
            raise ValueError(
                f"adadelta: the paper's method has no learning rate; received {learning_rate!r}. Leave it out, or use "
                "convention='torch' for a factor on the step."
            )
        return chain(*front, scale_by_adadelta(decay, eps=eps), negate())
    return chain(*front, scale_by_adadelta(decay, eps=eps), scale_by_learning_rate(learning_rate))
