"""Optimizers that step along the gradient or its memory."""

from jaxopt_study.optimizers.convention import Convention
from jaxopt_study.transforms import Transform, chain, composite, heavy_ball, scale_by_learning_rate
from jaxopt_study.transforms import nesterov as nesterov_sum
from jaxopt_study.transforms import nesterov_lookahead as lookahead_step
from jaxopt_study.transforms.scalars import ScalarOrSchedule


@composite()
def sgd(learning_rate: ScalarOrSchedule) -> Transform:
    """Step against the gradient: θ ← θ − η g.

    Args:
        learning_rate: η ≥ 0, or a schedule.

    Returns:
        A chain of one atom.

    Example:
        >>> sgd(0.1).expand()
        scale_by_learning_rate(0.1)

    References:
        Robbins and Monro (1951), A stochastic approximation method.
    """
    return scale_by_learning_rate(learning_rate)


@composite({"paper": {}, "book": {}, "torch": {}, "optax": {}})
def momentum(
    learning_rate: ScalarOrSchedule, decay: ScalarOrSchedule = 0.9, *, convention: Convention = "paper"
) -> Transform:
    """Step by a decaying sum of gradients.

    paper, book: v ← γv + ηg, θ ← θ − v. torch, optax: a ← γa + g, θ ← θ − ηa.

    The two agree while η is constant. A constant gradient is stepped along with η/(1 − γ).

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.
        convention: Whether the memory holds steps or gradients.

    Returns:
        A chain of `heavy_ball` and `scale_by_learning_rate`, in the order of the convention.

    Example:
        >>> momentum(0.1, convention="torch").expand()
        chain(heavy_ball(0.9), scale_by_learning_rate(0.1))

    References:
        Polyak (1964); Sutskever, Martens, Dahl and Hinton (2013), equations (1) and (2); `torch.optim.SGD`,
        `optax.sgd`.
    """
    if convention in ("paper", "book"):
        return chain(scale_by_learning_rate(learning_rate), heavy_ball(decay))
    return chain(heavy_ball(decay), scale_by_learning_rate(learning_rate))


@composite({"paper": {}, "book": {}, "torch": {}, "optax": {}})
def nesterov(
    learning_rate: ScalarOrSchedule, decay: ScalarOrSchedule = 0.9, *, convention: Convention = "paper"
) -> Transform:
    """Step by Nesterov's momentum, reformulated so that the parameters are the look-ahead points.

    The gradient is taken where the parameters are; `transforms.readout` gives the iterates of `nesterov_lookahead`.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.
        convention: Whether the memory holds steps (paper, book) or gradients (torch, optax). They agree while η is
            constant.

    Returns:
        A chain of `transforms.nesterov` and `scale_by_learning_rate`, in the order of the convention.

    Example:
        >>> nesterov(0.1).expand()
        chain(scale_by_learning_rate(0.1), nesterov(0.9))

    References:
        Bengio, Boulanger-Lewandowski and Pascanu (2013), equations (6) and (7); `torch.optim.SGD(nesterov=True)`.
    """
    if convention in ("paper", "book"):
        return chain(scale_by_learning_rate(learning_rate), nesterov_sum(decay))
    return chain(nesterov_sum(decay), scale_by_learning_rate(learning_rate))


@composite()
def nesterov_lookahead(learning_rate: ScalarOrSchedule, decay: ScalarOrSchedule = 0.9) -> Transform:
    """Step by Nesterov's momentum as he wrote it: the gradient is taken at the look-ahead point.

    v ← γv + η∇J(θ − γv), θ ← θ − v. The loop must take the gradient at `transforms.gradient_point(params, state)`;
    `train` does.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: γ in [0, 1), or a schedule.

    Returns:
        The atom `transforms.nesterov_lookahead`.

    Example:
        >>> nesterov_lookahead(0.1).expand()
        nesterov_lookahead(0.1, 0.9)

    References:
        Nesterov (1983); Sutskever, Martens, Dahl and Hinton (2013), equations (3) and (4).
    """
    return lookahead_step(learning_rate, decay)
