"""Adan: adaptive Nesterov momentum."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    complement,
    decay_proximally,
    scale_by_adan,
    scale_by_learning_rate,
)


@optimizer({"paper": {"eps_root": 0.0}, "optax": {"eps_root": 1e-8}})
def adan(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.98,
    b2: ScalarLike = 0.92,
    b3: ScalarLike = 0.99,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean gradient plus its mean change, over the root of the mean of their square.

    θ ← (θ − η (m̂ + w d̂)/(√(n̂ + ε_root) + ε)) / (1 + λη), with the change's weight w = b2 in the paper, 1 − b2 in
    optax.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: Decay of the gradient's mean, the paper's 1 − β₁.
        b2: Decay of the change's mean, the paper's 1 − β₂.
        b3: Decay of the square's mean, the paper's 1 − β₃.
        eps: ε outside the root.
        eps_root: ε inside the root. optax 1e-8, else 0.
        weight_decay: λ ≥ 0, or a schedule; proximal in the paper, decoupled in optax.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the weight of the change and the form of weight decay.

    Returns:
        A chain of `scale_by_adan`, `scale_by_learning_rate` and `decay_proximally`.

    Example:
        >>> "difference_weight=0.07999999999999996" in str(adan(convention="optax").spec.call())
        True

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Algorithm 1; `optax.adan`.
    """
    front = ascent(maximize)
    if convention == "optax":
        scale = scale_by_adan(b1, b2, b3, eps=eps, eps_root=eps_root, difference_weight=complement(b2))
        return chain(*front, scale, add_decayed_weights(weight_decay, mask=mask), scale_by_learning_rate(learning_rate))
    scale = scale_by_adan(b1, b2, b3, eps=eps, eps_root=eps_root)
    decay = decay_proximally(weight_decay, learning_rate, mask=mask)
    return chain(*front, scale, scale_by_learning_rate(learning_rate), decay)
