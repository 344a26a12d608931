"""AdaMax, NAdam, RAdam and Adan."""

# Arguments that default to None are filled from the table of conventions before these functions run.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    complement,
    decay_proximally,
    scale_by_adamax,
    scale_by_adan,
    scale_by_learning_rate,
    scale_by_nadam,
    scale_by_radam,
)


@optimizer({"paper": {"eps": 0.0}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}})
def adamax(
    learning_rate: ScalarOrSchedule = 2e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over its decaying largest magnitude.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's .002.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε added to the gradient's magnitude. paper 0, torch and optax 1e-8.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        decoupled_weight_decay: Whether λθ is added after the statistics, θ ← θ − η(… + λθ), instead of to the gradient.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects ε.

    Returns:
        A chain of `scale_by_adamax` and `scale_by_learning_rate`.

    Example:
        >>> adamax(convention="torch").hyperparams["eps"]
        1e-08

    References:
        Kingma and Ba (2015), Algorithm 2; `torch.optim.Adamax`, `optax.adamax`, `optax.adamaxw`.
    """
    scale, decay = scale_by_adamax(b1, b2, eps=eps), decayed("adamax", weight_decay, mask)
    return adaptive_step(learning_rate, scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)


@optimizer({"paper": {"momentum_decay": 0.004}, "torch": {"momentum_decay": 0.004}, "optax": {}})
def nadam(
    learning_rate: ScalarOrSchedule = 2e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    momentum_decay: ScalarLike | None = None,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, with the next momentum step included in the numerator.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's .002.
        b1: β₁ in [0, 1), the limit of the momentum.
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        momentum_decay: ψ of the momentum's warm-up. paper and torch .004; None in optax: constant momentum.
        mu_dtype: dtype of the mean under constant momentum; None keeps the parameters'.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        decoupled_weight_decay: Whether λθ is added after the statistics, θ ← θ − η(… + λθ), instead of to the gradient.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: The paper averages with the momentum schedule, torch with the constant.

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
        mu_dtype=mu_dtype,
    )
    decay = decayed("nadam", weight_decay, mask)
    return adaptive_step(learning_rate, scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)


@optimizer(
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
    eps_root: ScalarLike = 0.0,
    threshold: ScalarLike | None = None,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam once the variance of the second moment is tractable, and by the mean gradient until then.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε. paper 0, torch (beside √v) and optax (beside √v̂) 1e-8.
        eps_root: ε inside the root.
        threshold: The memory length above which v is used. paper > 4, torch > 5, optax ≥ 5.
        nesterov: Whether the mean is taken one momentum step ahead, as in Optax.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        decoupled_weight_decay: Whether λθ is added after the statistics, θ ← θ − η(… + λθ), instead of to the gradient.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults, the place of ε and the comparison with the threshold.

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
        eps_root=eps_root,
        threshold=threshold,
        inclusive=convention == "optax",
        eps_corrected=convention != "torch",
        nesterov=nesterov,
    )
    decay = decayed("radam", weight_decay, mask)
    return adaptive_step(learning_rate, scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)


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
