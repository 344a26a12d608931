"""AMSGrad: Adam with the running maximum of the second moment."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, decayed
from jaxopt_study.transforms import ScalarLike, ScalarOrSchedule, Transform, scale_by_amsgrad

CORRECTIONS: Any = {"paper": "none", "torch": "after", "optax": "before"}  # where AMSGrad corrects v


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
        >>> from jaxopt_study.optimizers import explain_difference
        >>> explain_difference(amsgrad(convention="torch"), amsgrad(convention="optax")).equal
        False

    References:
        Reddi, Kale and Kumar (2018), Algorithm 2; `torch.optim.Adam(amsgrad=True)`, `optax.amsgrad`.
    """
    correction = CORRECTIONS[convention]
    scale = scale_by_amsgrad(b1, b2, eps=eps, eps_root=eps_root, correction=correction, mu_dtype=mu_dtype)
    decay = decayed("amsgrad", weight_decay, mask)
    return adaptive_step(learning_rate, scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)
