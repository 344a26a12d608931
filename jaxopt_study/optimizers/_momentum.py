"""Heavy-ball momentum (Polyak)."""

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    chain,
    dampen,
    heavy_ball,
    scale_by_learning_rate,
)


@optimizer({"paper": {}, "saito2016": {}, "torch": {}, "optax": {}}, search_range=(1e-4, 10.0))
def momentum(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    *,
    dampening: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    dtype: Any = None,
    convention: Convention = "paper",
) -> Transform:
    """Step by a decaying sum of gradients.

    paper, saito2016: v ← γv + ηg, θ ← θ − v. torch, optax: a ← γa + g, θ ← θ − ηa.

    The two agree while η is constant. Along a constant gradient the effective learning rate is η/(1 − γ).

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.
        dampening: τ in [0, 1]: every gradient except the first is multiplied by 1 − τ; see `transforms.dampen`. None is
            torch's 0.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        dtype: dtype of the momentum buffer, Optax's `accumulator_dtype`; None keeps the parameters'.
        convention: Selects whether the buffer holds steps or gradients.

    Returns:
        A chain of `heavy_ball` and `scale_by_learning_rate`, in the order of the convention.

    Example:
        >>> momentum(0.1, convention="torch").expand()
        chain(heavy_ball(0.9), scale_by_learning_rate(0.1))

    References:
        Polyak (1964); Sutskever, Martens, Dahl and Hinton (2013), equations (1) and (2); `torch.optim.SGD`,
        `optax.sgd`.
    """
    parts = [*ascent(maximize), *decayed("momentum", weight_decay, mask)]
    if dampening is not None:
        parts.append(dampen(dampening))
    if convention in ("paper", "saito2016"):
        return chain(*parts, scale_by_learning_rate(learning_rate), heavy_ball(decay, dtype=dtype))
    return chain(*parts, heavy_ball(decay, dtype=dtype), scale_by_learning_rate(learning_rate))
