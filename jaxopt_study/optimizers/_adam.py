"""Adam, AMSGrad and AdamW."""

# Arguments that default to None are filled from the table of conventions before these functions run.
# pyright: reportArgumentType=false

from typing import Any

import jax.numpy as jnp

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    bias_correction,
    chain,
    divide_by_root,
    ema,
    merge,
    scale_by_adam,
    scale_by_amsgrad,
    scale_by_learning_rate,
    scale_by_nadam,
)

CORRECTIONS: Any = {"paper": "none", "torch": "after", "optax": "before"}  # where AMSGrad corrects v


@optimizer({"paper": {"eps": 1e-8}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}, "saito2016": {"eps": 1e-7}})
def adam(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over the root of the mean of its square, both bias-corrected.

    paper, torch, optax: θ ← θ − η m̂/(√(v̂ + ε_root) + ε). saito2016: θ ← θ − η √(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε), in which
    ε has 1/√(1 − β₂ᵗ) times the effect: 32 times at the first step.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's α = .001.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root. saito2016 1e-7, else 1e-8.
        eps_root: ε inside the root.
        mu_dtype: dtype of m; None keeps the parameters'.
        nesterov: Whether the mean is taken one momentum step ahead: `nadam` at constant momentum. Not available in
            saito2016.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        decoupled_weight_decay: Whether λθ is added after the statistics, θ ← θ − η(… + λθ), instead of to the gradient.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults and the place of ε.

    Returns:
        A chain of `scale_by_adam` and `scale_by_learning_rate`, or the chain of `saito2016`.

    Raises:
        ValueError: If `nesterov` is given under `saito2016`.

    Example:
        >>> adam(0.3, convention="saito2016").expand()
        chain(
            merge(divide_by_root(eps=1e-07), ema(0.9), ema(0.999, of=jnp.square)),
            bias_correction(0.9),
            bias_correction(0.999, power=-0.5),
            scale_by_learning_rate(0.3),
        )

    References:
        Kingma and Ba (2015), Adam, Algorithm 1; `saito2016` is the form at the end of its section 2.
        `torch.optim.Adam`, `optax.adam`. Saito, Deep Learning from Scratch, chapter 6.
    """
    if convention == "saito2016":
        if nesterov:
            raise ValueError("adam: saito2016's form has no Nesterov momentum; use another convention, or `nadam`.")
        ratio = merge(divide_by_root(eps=eps, eps_root=eps_root), ema(b1, dtype=mu_dtype), ema(b2, of=jnp.square))
        corrections = bias_correction(b1), bias_correction(b2, power=-0.5)
        scale = (ratio, *corrections)
    elif nesterov:
        scale = (scale_by_nadam(b1, b2, eps=eps, eps_root=eps_root, momentum_decay=None, mu_dtype=mu_dtype),)
    else:
        scale = (scale_by_adam(b1, b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype),)
    decay = decayed("adam", weight_decay, mask)
    return adaptive_step(learning_rate, *scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)


@optimizer({"paper": {}, "torch": {}, "optax": {}})
def amsgrad(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, with the running maximum of the mean square in the denominator.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        mu_dtype: dtype of m; None keeps the parameters'.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        decoupled_weight_decay: Whether λθ is added after the statistics, θ ← θ − η(… + λθ), instead of to the gradient.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: The paper corrects no bias, torch corrects the maximum, optax takes the maximum of the corrected.

    Returns:
        A chain of `scale_by_amsgrad` and `scale_by_learning_rate`.

    Example:
        >>> explain_difference(amsgrad(convention="torch"), amsgrad(convention="optax")).equal
        False

    References:
        Reddi, Kale and Kumar (2018), Algorithm 2; `torch.optim.Adam(amsgrad=True)`, `optax.amsgrad`.
    """
    correction = CORRECTIONS[convention]
    scale = scale_by_amsgrad(b1, b2, eps=eps, eps_root=eps_root, correction=correction, mu_dtype=mu_dtype)
    decay = decayed("amsgrad", weight_decay, mask)
    return adaptive_step(learning_rate, scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)


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
