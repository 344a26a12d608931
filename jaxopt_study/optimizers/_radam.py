"""RAdam: Adam with a rectified learning rate."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, decayed
from jaxopt_study.transforms import ScalarLike, ScalarOrSchedule, Transform, scale_by_radam


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
