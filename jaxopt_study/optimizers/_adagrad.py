"""AdaGrad."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    chain,
    inverse_time_decay,
    scale_by_adagrad,
    scale_by_learning_rate,
)


@optimizer(
    {
        "paper": {"eps": 1e-8, "eps_root": 0.0, "initial": 0.0},
        "torch": {"eps": 1e-10, "eps_root": 0.0, "initial": 0.0},
        "optax": {"eps": 0.0, "eps_root": 1e-7, "initial": 0.1},
        "saito2016": {"eps": 1e-7, "eps_root": 0.0, "initial": 0.0},
    },
    aliases={"initial_accumulator_value": "initial"},
    search_range=(1e-4, 10.0),
)
def adagrad(
    learning_rate: ScalarOrSchedule,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike | None = None,
    initial: ScalarLike | None = None,
    lr_decay: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Divide each coordinate's step by the Euclidean norm of its gradient history.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        eps: ε outside the root. paper 1e-8, torch 1e-10, saito2016 1e-7, optax 0.
        eps_root: ε inside the root. optax 1e-7, else 0.
        initial: Initial value of the accumulator, Optax's and torch's `initial_accumulator_value`. optax .1, else 0.
        lr_decay: d ≥ 0, as in torch: the learning rate is divided by 1 + d t after t steps; None for none.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults.

    Returns:
        A chain of `scale_by_adagrad` and `scale_by_learning_rate`.

    Example:
        >>> adagrad(0.01, convention="optax").hyperparams["initial"]
        0.1

    References:
        Duchi, Hazan and Singer (2011), figure 1, where δ is left to the user; `torch.optim.Adagrad`, `optax.adagrad`.
    """
    scale = scale_by_adagrad(eps=eps, eps_root=eps_root, initial=initial)
    rate = learning_rate if lr_decay is None else inverse_time_decay(learning_rate, lr_decay)
    return chain(*ascent(maximize), *decayed("adagrad", weight_decay, mask), scale, scale_by_learning_rate(rate))
