"""RMSprop."""

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
    heavy_ball,
    scale_by_learning_rate,
    scale_by_rms,
)
from jaxopt_study.transforms import nesterov as nesterov_sum


@optimizer(
    {
        "paper": {"decay": 0.9, "eps": 1e-8, "eps_root": 0.0},
        "torch": {"decay": 0.99, "eps": 1e-8, "eps_root": 0.0},
        "optax": {"decay": 0.9, "eps": 0.0, "eps_root": 1e-8},
        "saito2016": {"decay": 0.99, "eps": 1e-7, "eps_root": 0.0},
    },
    aliases={"initial_scale": "initial"},
    search_range=(1e-5, 1.0),
)
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: ScalarLike | None = None,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike | None = None,
    initial: ScalarLike = 0.0,
    centered: bool = False,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Divide each coordinate's step by the root mean square of its recent gradients.

    With momentum, torch's buffer holds scaled gradients and optax's holds steps; the two differ under a schedule.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: ρ. paper and optax .9, torch and saito2016 .99.
        eps: ε outside the root. paper and torch 1e-8, saito2016 1e-7, optax 0.
        eps_root: ε inside the root. optax 1e-8, else 0.
        initial: Initial value of the accumulator, Optax's `initial_scale`.
        centered: Divide by a standard deviation instead.
        momentum: γ in [0, 1) of a `heavy_ball` after the scaling, or a schedule; None for none.
        nesterov: Whether that momentum is Nesterov's, as in Optax.
        bias_correction: Whether the averages are bias-corrected, as in Optax.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults and the order with momentum: paper and optax scale by the learning rate first.

    Returns:
        A chain of `scale_by_rms`, `scale_by_learning_rate` and, with momentum, `heavy_ball`.

    Raises:
        ValueError: If `nesterov` is given without momentum.

    Example:
        >>> rmsprop(0.01, momentum=0.9, convention="torch").expand()
        chain(
            merge(divide_by_root(), identity(), ema(0.99, of=jnp.square)),
            heavy_ball(0.9),
            scale_by_learning_rate(0.01),
        )

    References:
        Tieleman and Hinton (2012), Lecture 6.5, slide 29; Graves (2013); `torch.optim.RMSprop`, `optax.rmsprop`.
    """
    if momentum is None and nesterov:
        raise ValueError("rmsprop: nesterov needs momentum; received momentum=None. Give momentum, or nesterov=False.")
    scale = scale_by_rms(
        decay, eps=eps, eps_root=eps_root, initial=initial, centered=centered, corrected=bias_correction
    )
    front, step = (*ascent(maximize), *decayed("rmsprop", weight_decay, mask)), scale_by_learning_rate(learning_rate)
    if momentum is None:
        return chain(*front, scale, step)
    memory = (nesterov_sum if nesterov else heavy_ball)(momentum)
    return chain(*front, scale, memory, step) if convention == "torch" else chain(*front, scale, step, memory)
