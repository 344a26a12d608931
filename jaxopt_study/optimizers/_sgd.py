"""Stochastic gradient descent (SGD), with the momentum of `torch.optim.SGD` and `optax.sgd`."""

from typing import Any

from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed, joined
from jaxopt_study.transforms import ScalarLike, ScalarOrSchedule, Transform, dampen, heavy_ball, scale_by_learning_rate
from jaxopt_study.transforms import nesterov as nesterov_sum


@optimizer(search_range=(1e-4, 10.0))
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    *,
    dampening: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    dtype: Any = None,
) -> Transform:
    """Step against the gradient: θ ← θ − η g.

    With momentum it is `torch.optim.SGD` and `optax.sgd`, whose buffer holds gradients; `momentum` and `nesterov` also
    offer the textbooks' order.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        momentum: γ in [0, 1), or a schedule; None for none.
        nesterov: Whether the momentum is Nesterov's.
        dampening: τ in [0, 1]: new gradients enter the momentum with weight 1 − τ; see `transforms.dampen`.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        dtype: dtype of the momentum buffer, Optax's `accumulator_dtype`; None keeps the parameters'.

    Returns:
        `scale_by_learning_rate`, in a chain if there are more parts.

    Raises:
        ValueError: If `nesterov` or `dampening` is given without momentum, or both are given.

    Example:
        >>> sgd(0.1).expand()
        scale_by_learning_rate(0.1)
        >>> sgd(0.1, momentum=0.9, weight_decay=0.01).expand()
        chain(add_decayed_weights(0.01), heavy_ball(0.9), scale_by_learning_rate(0.1))

    References:
        Robbins and Monro (1951), A stochastic approximation method. `torch.optim.SGD`, `optax.sgd`.
    """
    if momentum is None and (nesterov or dampening is not None):
        raise ValueError("sgd: nesterov and dampening need momentum; received momentum=None. Give momentum.")
    if nesterov and dampening is not None:
        raise ValueError("sgd: nesterov and dampening cannot be combined; leave out one.")
    parts = [*ascent(maximize), *decayed("sgd", weight_decay, mask)]
    if dampening is not None:
        parts.append(dampen(dampening))
    if momentum is not None:
        parts.append((nesterov_sum if nesterov else heavy_ball)(momentum, dtype=dtype))
    return joined(*parts, scale_by_learning_rate(learning_rate))
