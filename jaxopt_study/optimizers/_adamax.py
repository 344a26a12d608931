"""AdaMax: Adam with the infinity norm."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, decayed
from jaxopt_study.transforms import ScalarLike, ScalarOrSchedule, Transform, scale_by_adamax


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
