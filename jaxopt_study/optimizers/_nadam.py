"""NAdam: Adam with Nesterov momentum."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, decayed
from jaxopt_study.transforms import ScalarLike, ScalarOrSchedule, Transform, scale_by_nadam


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
