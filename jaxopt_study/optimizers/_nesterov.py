"""Nesterov's momentum: reformulated (`nesterov`) and in its original form (`nesterov_lookahead`)."""

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed, joined
from jaxopt_study.transforms import ScalarOrSchedule, Transform, chain, scale_by_learning_rate
from jaxopt_study.transforms import nesterov as nesterov_sum
from jaxopt_study.transforms import nesterov_lookahead as lookahead_step


@optimizer({"paper": {}, "saito2016": {}, "torch": {}, "optax": {}}, search_range=(1e-4, 10.0))
def nesterov(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    dtype: Any = None,
    convention: Convention = "paper",
) -> Transform:
    """Step by Nesterov's momentum, reformulated so that the parameters are the look-ahead points.

    The gradient is taken at the parameters; `transforms.evaluation_params` returns the iterates of
    `nesterov_lookahead`.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        dtype: dtype of the momentum buffer, Optax's `accumulator_dtype`; None keeps the parameters'.
        convention: Selects whether the buffer holds steps (paper, saito2016) or gradients (torch, optax). The two agree
            while η is constant.

    Returns:
        A chain of `transforms.nesterov` and `scale_by_learning_rate`, in the order of the convention.

    Example:
        >>> nesterov(0.1).expand()
        chain(scale_by_learning_rate(0.1), nesterov(0.9))

    References:
        Bengio, Boulanger-Lewandowski and Pascanu (2013), equations (6) and (7); `torch.optim.SGD(nesterov=True)`.
    """
    parts = [*ascent(maximize), *decayed("nesterov", weight_decay, mask)]
    if convention in ("paper", "saito2016"):
        return chain(*parts, scale_by_learning_rate(learning_rate), nesterov_sum(decay, dtype=dtype))
    return chain(*parts, nesterov_sum(decay, dtype=dtype), scale_by_learning_rate(learning_rate))


@optimizer(search_range=(1e-4, 10.0))
def nesterov_lookahead(
    learning_rate: ScalarOrSchedule, decay: ScalarOrSchedule = 0.9, *, maximize: bool = False
) -> Transform:
    """Step by Nesterov's momentum in its original form, with the gradient taken at the look-ahead point.

    v ← γv + η∇J(θ − γv), θ ← θ − v. The loop must take the gradient at `transforms.gradient_point(params, state)`;
    `train` does.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.
        maximize: If True, ascend by negating the gradient first.

    Returns:
        The atom `transforms.nesterov_lookahead`.

    Example:
        >>> nesterov_lookahead(0.1).expand()
        nesterov_lookahead(0.1, 0.9)

    References:
        Nesterov (1983); Sutskever, Martens, Dahl and Hinton (2013), equations (3) and (4).
    """
    return joined(*ascent(maximize), lookahead_step(learning_rate, decay))
