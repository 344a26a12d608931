"""AdamW: Adam with decoupled weight decay."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._amsgrad import CORRECTIONS
from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    scale_by_adam,
    scale_by_amsgrad,
    scale_by_learning_rate,
    scale_by_nadam,
)


@optimizer({"paper": {"weight_decay": 1e-4}, "torch": {"weight_decay": 1e-2}, "optax": {"weight_decay": 1e-4}})
def adamw(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    weight_decay: ScalarOrSchedule | None = None,
    schedule: ScalarOrSchedule | None = None,
    mask: Any = None,
    amsgrad: bool = False,
    nesterov: bool = False,
    mu_dtype: Any = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, with decoupled weight decay.

    paper: θ ← θ − sₜ(α m̂/(√v̂ + ε) + λθ). torch, optax: θ ← θ − sₜηₜ(m̂/(√v̂ + ε) + λθ).

    In the paper the decay does not depend on the learning rate, so its λ corresponds to ηλ of the others.

    Args:
        learning_rate: α or η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        weight_decay: λ ≥ 0, or a schedule. paper and optax 1e-4, torch .01.
        schedule: s, a factor on the whole step, or a schedule of it; None for 1.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        amsgrad: Whether to divide by the largest mean square so far, as `amsgrad` does under the same convention.
        nesterov: Whether the mean is taken one momentum step ahead: Optax's `nadamw`. Excludes `amsgrad`.
        mu_dtype: dtype of m; None keeps the parameters'.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Whether the decay is multiplied by the learning rate.

    Returns:
        A chain of `scale_by_adam`, `add_decayed_weights` and `scale_by_learning_rate`.

    Raises:
        ValueError: If both `amsgrad` and `nesterov` are given.

    Example:
        >>> adamw(0.1, convention="torch").expand()
        chain(
            merge(
                divide_by_root(),
                chain(ema(0.9), bias_correction(0.9)),
                chain(ema(0.999, of=jnp.square), bias_correction(0.999)),
            ),
            add_decayed_weights(0.01),
            scale_by_learning_rate(0.1),
        )

    References:
        Loshchilov and Hutter (2019), Algorithm 2, line 12; `torch.optim.AdamW`, `optax.adamw`,
        `optax.nadamw`.
    """
    if amsgrad and nesterov:
        raise ValueError("adamw: amsgrad and nesterov cannot be combined; leave out one.")
    if amsgrad:
        correction = CORRECTIONS[convention]
        scale = scale_by_amsgrad(b1, b2, eps=eps, eps_root=eps_root, correction=correction, mu_dtype=mu_dtype)
    elif nesterov:
        scale = scale_by_nadam(b1, b2, eps=eps, eps_root=eps_root, momentum_decay=None, mu_dtype=mu_dtype)
    else:
        scale = scale_by_adam(b1, b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype)
    front, rate = ascent(maximize), scale_by_learning_rate(learning_rate)
    if convention == "paper":
        step = chain(*front, scale, rate, add_decayed_weights(weight_decay, mask=mask, flip_sign=True))
    else:
        step = chain(*front, scale, add_decayed_weights(weight_decay, mask=mask), rate)
    return step if schedule is None else chain(step, scale_by_learning_rate(schedule, flip_sign=False))
