"""Adam and what grew out of it."""

# Arguments that default to None are filled in from the table of conventions before these functions run.
# pyright: reportArgumentType=false

from typing import Any

import jax.numpy as jnp

from jaxopt_study.optimizers.convention import Convention
from jaxopt_study.transforms import (
    Transform,
    add_decayed_weights,
    bias_correction,
    chain,
    composite,
    decay_proximally,
    divide_by_root,
    ema,
    merge,
    scale_by_adam,
    scale_by_adamax,
    scale_by_adan,
    scale_by_amsgrad,
    scale_by_learning_rate,
    scale_by_nadam,
    scale_by_radam,
)
from jaxopt_study.transforms.scalars import ScalarLike, ScalarOrSchedule, complement


@composite({"paper": {"eps": 1e-8}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}, "book": {"eps": 1e-7}})
def adam(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike = 0.0,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over the root of the mean of its square, both corrected for their start.

    paper, torch, optax: θ ← θ − η m̂/(√(v̂ + ε_root) + ε). book: θ ← θ − η √(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε), in which ε
    weighs 1/√(1 − β₂ᵗ) times more: 32 times at the first step.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's α = .001.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root. book 1e-7, else 1e-8.
        eps_root: ε inside the root.
        convention: Whose defaults and place of ε.

    Returns:
        A chain of `scale_by_adam` and `scale_by_learning_rate`, or the book's.

    Example:
        >>> adam(0.3, convention="book").expand()
        chain(
            merge(divide_by_root(eps=1e-07), ema(0.9), ema(0.999, of=jnp.square)),
            bias_correction(0.9),
            bias_correction(0.999, power=-0.5),
            scale_by_learning_rate(0.3),
        )

    References:
        Kingma and Ba (2015), Adam, Algorithm 1; the book's is the form at the end of its section 2. `torch.optim.Adam`,
        `optax.adam`. Saito, Deep Learning from Scratch, chapter 6.
    """
    if convention == "book":
        ratio = merge(divide_by_root(eps=eps, eps_root=eps_root), ema(b1), ema(b2, of=jnp.square))
        corrections = bias_correction(b1), bias_correction(b2, power=-0.5)
        return chain(ratio, *corrections, scale_by_learning_rate(learning_rate))
    return chain(scale_by_adam(b1, b2, eps=eps, eps_root=eps_root), scale_by_learning_rate(learning_rate))


@composite({"paper": {}, "torch": {}, "optax": {}})
def amsgrad(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, by the largest mean square so far.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        convention: The paper corrects no bias, torch corrects the maximum, optax takes the maximum of the corrected.

    Returns:
        A chain of `scale_by_amsgrad` and `scale_by_learning_rate`.

    Example:
        >>> explain_difference(amsgrad(convention="torch"), amsgrad(convention="optax")).equal
        False

    References:
        Reddi, Kale and Kumar (2018), Algorithm 2; `torch.optim.Adam(amsgrad=True)`, `optax.amsgrad`.
    """
    correction: Any = {"paper": "none", "torch": "after", "optax": "before"}[convention]
    scale = scale_by_amsgrad(b1, b2, eps=eps, eps_root=eps_root, correction=correction)
    return chain(scale, scale_by_learning_rate(learning_rate))


@composite({"paper": {"eps": 0.0}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}})
def adamax(
    learning_rate: ScalarOrSchedule = 2e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over its decaying largest magnitude.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's .002.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε added to the magnitude. paper 0, torch and optax 1e-8.
        convention: Whose ε.

    Returns:
        A chain of `scale_by_adamax` and `scale_by_learning_rate`.

    Example:
        >>> adamax(convention="torch").hyperparams["eps"]
        1e-08

    References:
        Kingma and Ba (2015), Algorithm 2; `torch.optim.Adamax`, `optax.adamax`.
    """
    return chain(scale_by_adamax(b1, b2, eps=eps), scale_by_learning_rate(learning_rate))


@composite({"paper": {"momentum_decay": 0.004}, "torch": {"momentum_decay": 0.004}, "optax": {}})
def nadam(
    learning_rate: ScalarOrSchedule = 2e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    momentum_decay: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, with the coming momentum step already in the numerator.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's .002.
        b1: β₁ in [0, 1), the limit of the momentum.
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        momentum_decay: ψ of the momentum's warm-up. paper and torch .004; None in optax: constant momentum.
        convention: The paper averages with the warming momentum, torch with the constant.

    Returns:
        A chain of `scale_by_nadam` and `scale_by_learning_rate`.

    Example:
        >>> nadam(convention="optax").expand() == nadam(convention="torch").expand()
        False

    References:
        Dozat (2016), Algorithm 2; `torch.optim.NAdam`, `optax.nadam`.
    """
    scale = scale_by_nadam(
        b1,
        b2,
        eps=eps,
        eps_root=eps_root,
        momentum_decay=momentum_decay,
        average_with_schedule=convention == "paper",
    )
    return chain(scale, scale_by_learning_rate(learning_rate))


@composite(
    {
        "paper": {"eps": 0.0, "threshold": 4.0},
        "torch": {"eps": 1e-8, "threshold": 5.0},
        "optax": {"eps": 1e-8, "threshold": 5.0},
    }
)
def radam(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    threshold: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, once the second moment has seen enough; by the mean gradient until then.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε. paper 0, torch (beside √v) and optax (beside √v̂) 1e-8.
        threshold: The memory above which v is trusted. paper > 4, torch > 5, optax ≥ 5.
        convention: Whose defaults, place of ε and comparison.

    Returns:
        A chain of `scale_by_radam` and `scale_by_learning_rate`.

    Example:
        >>> radam().hyperparams["threshold"]
        4.0

    References:
        Liu et al. (2020), Algorithm 2; `torch.optim.RAdam`, `optax.radam`.
    """
    scale = scale_by_radam(
        b1,
        b2,
        eps=eps,
        threshold=threshold,
        inclusive=convention == "optax",
        eps_corrected=convention != "torch",
    )
    return chain(scale, scale_by_learning_rate(learning_rate))


@composite({"paper": {"weight_decay": 1e-4}, "torch": {"weight_decay": 1e-2}, "optax": {"weight_decay": 1e-4}})
def adamw(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    weight_decay: ScalarLike | None = None,
    schedule: ScalarOrSchedule | None = None,
    mask: Any = None,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, and let the parameters decay beside it.

    paper: θ ← θ − sₜ(α m̂/(√v̂ + ε) + λθ). torch, optax: θ ← θ − sₜηₜ(m̂/(√v̂ + ε) + λθ).

    In the paper the decay does not depend on the learning rate, so its λ is of the order of the others' ηλ.

    Args:
        learning_rate: α or η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        weight_decay: λ ≥ 0. paper and optax 1e-4, torch .01.
        schedule: s, the multiplier of the whole step, or a schedule of it; None for 1.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        convention: Whether the decay is multiplied by the learning rate.

    Returns:
        A chain of `scale_by_adam`, `add_decayed_weights` and `scale_by_learning_rate`.

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
        Loshchilov and Hutter (2019), Algorithm 2, line 12; `torch.optim.AdamW`, `optax.adamw`.
    """
    scale, rate = scale_by_adam(b1, b2, eps=eps, eps_root=eps_root), scale_by_learning_rate(learning_rate)
    if convention == "paper":
        step = chain(scale, rate, add_decayed_weights(weight_decay, mask=mask, flip_sign=True))
    else:
        step = chain(scale, add_decayed_weights(weight_decay, mask=mask), rate)
    return step if schedule is None else chain(step, scale_by_learning_rate(schedule, flip_sign=False))


@composite({"paper": {"eps_root": 0.0}, "optax": {"eps_root": 1e-8}})
def adan(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.98,
    b2: ScalarLike = 0.92,
    b3: ScalarLike = 0.99,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike | None = None,
    weight_decay: ScalarLike = 0.0,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean gradient and its mean change, over the root of their mean square.

    θ ← (θ − η (m̂ + w d̂)/(√(n̂ + ε_root) + ε)) / (1 + λη), with the change's weight w = b2 in the paper, 1 − b2 in
    optax.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: Decay of the gradient's mean, the paper's 1 − β₁.
        b2: Decay of the change's mean, the paper's 1 − β₂.
        b3: Decay of the square's mean, the paper's 1 − β₃.
        eps: ε outside the root.
        eps_root: ε inside the root. optax 1e-8, else 0.
        weight_decay: λ ≥ 0; proximal in the paper, decoupled in optax.
        convention: Whose weight of the change, and whose decay.

    Returns:
        A chain of `scale_by_adan`, `scale_by_learning_rate` and `decay_proximally`.

    Example:
        >>> "difference_weight=0.07999999999999996" in str(adan(convention="optax").spec.call())
        True

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Algorithm 1; `optax.adan`.
    """
    if convention == "optax":
        scale = scale_by_adan(b1, b2, b3, eps=eps, eps_root=eps_root, difference_weight=complement(b2))
        return chain(scale, add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate))
    scale = scale_by_adan(b1, b2, b3, eps=eps, eps_root=eps_root)
    return chain(scale, scale_by_learning_rate(learning_rate), decay_proximally(weight_decay, learning_rate))
