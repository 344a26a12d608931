"""Gradient descent, heavy-ball momentum and Nesterov's method."""

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed, joined
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    chain,
    dampen,
    heavy_ball,
    scale_by_learning_rate,
)
from jaxopt_study.transforms import nesterov as nesterov_sum
from jaxopt_study.transforms import nesterov_lookahead as lookahead_step

ACCUMULATOR = {"accumulator_dtype": "dtype"}


@optimizer(aliases=ACCUMULATOR)
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    *,
    dampening: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    dtype: Any = None,
) -> Transform:
    """Step against the gradient: θ ← θ − η g.

    With momentum it is `torch.optim.SGD` and `optax.sgd`, whose buffer holds gradients; `momentum` and `nesterov` also
    offer the textbooks' order.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        momentum: γ in [0, 1), or a schedule; None for none.
        nesterov: Whether the momentum is Nesterov's.
        dampening: τ in [0, 1]: new gradients enter the momentum with weight 1 − τ; see `transforms.dampen`.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        dtype: dtype of the momentum buffer, Optax's `accumulator_dtype`; None keeps the parameters'.

    Returns:
        `scale_by_learning_rate`, in a chain if there are more parts.

    Raises:
        ValueError: If `nesterov` or `dampening` is given without momentum, or both are given.

    Example:
        >>> sgd(0.1).expand()
        scale_by_learning_rate(0.1)
        >>> sgd(0.1, momentum=0.9, weight_decay=0.01).expand()
        chain(add_decayed_weights(0.01), heavy_ball(0.9), scale_by_learning_rate(0.1))

    References:
        Robbins and Monro (1951), A stochastic approximation method. `torch.optim.SGD`, `optax.sgd`.
    """
    if momentum is None and (nesterov or dampening is not None):
        raise ValueError("sgd: nesterov and dampening need momentum; received momentum=None. Give momentum.")
    if nesterov and dampening is not None:
        raise ValueError("sgd: nesterov and dampening cannot be combined; leave out one.")
    parts = [*ascent(maximize), *decayed("sgd", weight_decay, mask)]
    if dampening is not None:
        parts.append(dampen(dampening))
    if momentum is not None:
        parts.append((nesterov_sum if nesterov else heavy_ball)(momentum, dtype=dtype))
    return joined(*parts, scale_by_learning_rate(learning_rate))


@optimizer({"paper": {}, "saito2016": {}, "torch": {}, "optax": {}}, aliases=ACCUMULATOR)
def momentum(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    *,
    dampening: ScalarLike | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    maximize: bool = False,
    dtype: Any = None,
    convention: Convention = "paper",
) -> Transform:
    """Step by a decaying sum of gradients.

    paper, saito2016: v ← γv + ηg, θ ← θ − v. torch, optax: a ← γa + g, θ ← θ − ηa.

    The two agree while η is constant. Along a constant gradient the effective learning rate is η/(1 − γ).

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.
        dampening: τ in [0, 1]: every gradient except the first is multiplied by 1 − τ; see `transforms.dampen`. None is
            torch's 0.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        dtype: dtype of the momentum buffer, Optax's `accumulator_dtype`; None keeps the parameters'.
        convention: Selects whether the buffer holds steps or gradients.

    Returns:
        A chain of `heavy_ball` and `scale_by_learning_rate`, in the order of the convention.

    Example:
        >>> momentum(0.1, convention="torch").expand()
        chain(heavy_ball(0.9), scale_by_learning_rate(0.1))

    References:
        Polyak (1964); Sutskever, Martens, Dahl and Hinton (2013), equations (1) and (2); `torch.optim.SGD`,
        `optax.sgd`.
    """
    parts = [*ascent(maximize), *decayed("momentum", weight_decay, mask)]
    if dampening is not None:
        parts.append(dampen(dampening))
    if convention in ("paper", "saito2016"):
        return chain(*parts, scale_by_learning_rate(learning_rate), heavy_ball(decay, dtype=dtype))
    return chain(*parts, heavy_ball(decay, dtype=dtype), scale_by_learning_rate(learning_rate))


@optimizer({"paper": {}, "saito2016": {}, "torch": {}, "optax": {}}, aliases=ACCUMULATOR)
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


@optimizer()
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
