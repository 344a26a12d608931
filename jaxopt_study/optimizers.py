"""Named optimizers: each a chain of atoms, under the convention of the paper, PyTorch, Optax or the notes' book.

`optimizers.adam(1e-3).expand()` shows the atoms; `explain_difference` says where two of them part.
"""

# Arguments that default to None are filled in from the table of conventions before these functions run.
# pyright: reportArgumentType=false

from typing import Any, Literal

import jax.numpy as jnp

from jaxopt_study.transforms import (
    Transform,
    add_decayed_weights,
    bias_correction,
    chain,
    composite,
    decay_proximally,
    divide_by_root,
    ema,
    heavy_ball,
    merge,
    negate,
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_adam,
    scale_by_adamax,
    scale_by_adan,
    scale_by_amsgrad,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_nadam,
    scale_by_radam,
    scale_by_rms,
)
from jaxopt_study.transforms import nesterov as nesterov_sum
from jaxopt_study.transforms import nesterov_lookahead as lookahead_step
from jaxopt_study.transforms.differences import Difference, explain_difference
from jaxopt_study.transforms.scalars import ScalarLike, ScalarOrSchedule, complement

Convention = Literal["paper", "torch", "optax", "book"]


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


@composite(
    {
        "paper": {"eps": 1e-8, "eps_root": 0.0, "initial": 0.0},
        "torch": {"eps": 1e-10, "eps_root": 0.0, "initial": 0.0},
        "optax": {"eps": 0.0, "eps_root": 1e-7, "initial": 0.1},
        "book": {"eps": 1e-7, "eps_root": 0.0, "initial": 0.0},
    }
)
def adagrad(
    learning_rate: ScalarOrSchedule,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike | None = None,
    initial: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Divide each coordinate's step by the length of all its gradients.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        eps: ε outside the root. paper 1e-8, torch 1e-10, book 1e-7, optax 0.
        eps_root: ε inside the root. optax 1e-7, else 0.
        initial: Start of the accumulator. optax .1, else 0.
        convention: Whose defaults.

    Returns:
        A chain of `scale_by_adagrad` and `scale_by_learning_rate`.

    Example:
        >>> adagrad(0.01, convention="optax").hyperparams["initial"]
        0.1

    References:
        Duchi, Hazan and Singer (2011), figure 1, where δ is left to the user; `torch.optim.Adagrad`, `optax.adagrad`.
    """
    return chain(scale_by_adagrad(eps=eps, eps_root=eps_root, initial=initial), scale_by_learning_rate(learning_rate))


@composite(
    {
        "paper": {"decay": 0.95, "eps": 1e-6},
        "torch": {"decay": 0.9, "eps": 1e-6, "learning_rate": 1.0},
        "optax": {"decay": 0.9, "eps": 1e-6, "learning_rate": 1.0},
    }
)
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    *,
    decay: ScalarLike | None = None,
    eps: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step in the units of the parameters, without a learning rate.

    Args:
        learning_rate: A factor on the step; none in the paper, 1 in torch and optax.
        decay: ρ of both accumulators. paper .95, torch and optax .9.
        eps: ε inside both roots, 1e-6.
        convention: Whose defaults.

    Returns:
        `scale_by_adadelta` with the sign turned.

    Raises:
        ValueError: If a learning rate is given under the paper's convention, which has none.

    Example:
        >>> "learning_rate" in str(adadelta().expand())
        False

    References:
        Zeiler (2012), ADADELTA, Algorithm 1 and section 4.1; `torch.optim.Adadelta`, `optax.adadelta`.
    """
    if convention == "paper":
        if learning_rate is not None:
            raise ValueError(
                f"adadelta: the paper's method has no learning rate, received {learning_rate!r}; leave it out, or use "
                "convention='torch' for a factor on the step."
            )
        return chain(scale_by_adadelta(decay, eps=eps), negate())
    return chain(scale_by_adadelta(decay, eps=eps), scale_by_learning_rate(learning_rate))


@composite(
    {
        "paper": {"decay": 0.9, "eps": 1e-8, "eps_root": 0.0},
        "torch": {"decay": 0.99, "eps": 1e-8, "eps_root": 0.0},
        "optax": {"decay": 0.9, "eps": 0.0, "eps_root": 1e-8},
        "book": {"decay": 0.99, "eps": 1e-7, "eps_root": 0.0},
    }
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
    convention: Convention = "paper",
) -> Transform:
    """Divide each coordinate's step by the root mean square of its recent gradients.

    With momentum, torch's memory holds scaled gradients and optax's holds steps; they part under a schedule.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        decay: ρ. paper and optax .9, torch and book .99.
        eps: ε outside the root. paper and torch 1e-8, book 1e-7, optax 0.
        eps_root: ε inside the root. optax 1e-8, else 0.
        initial: Start of the accumulator.
        centered: Divide by a standard deviation instead.
        momentum: γ in [0, 1) of a `heavy_ball` behind, or a schedule; None for none.
        convention: Whose defaults, and whose order with momentum: paper and optax scale by the learning rate first.

    Returns:
        A chain of `scale_by_rms`, `scale_by_learning_rate` and perhaps `heavy_ball`.

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
    scale = scale_by_rms(decay, eps=eps, eps_root=eps_root, initial=initial, centered=centered)
    step = scale_by_learning_rate(learning_rate)
    if momentum is None:
        return chain(scale, step)
    return (
        chain(scale, heavy_ball(momentum), step) if convention == "torch" else chain(scale, step, heavy_ball(momentum))
    )


@composite({"paper": {"eps": 1e-8}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}, "book": {"eps": 1e-7}})
def adam(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike = 0.0,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over the root of the mean of its square, both corrected for their start.

    paper, torch, optax: θ ← θ − η m̂/(√(v̂ + ε_root) + ε). book: θ ← θ − η √(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε), in which ε
    weighs 1/√(1 − β₂ᵗ) times more: 32 times at the first step.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's α = .001.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root. book 1e-7, else 1e-8.
        eps_root: ε inside the root.
        convention: Whose defaults and place of ε.

    Returns:
        A chain of `scale_by_adam` and `scale_by_learning_rate`, or the book's.

    Example:
        >>> adam(0.3, convention="book").expand()
        chain(
            merge(divide_by_root(eps=1e-07), ema(0.9), ema(0.999, of=jnp.square)),
            bias_correction(0.9),
            bias_correction(0.999, power=-0.5),
            scale_by_learning_rate(0.3),
        )

    References:
        Kingma and Ba (2015), Adam, Algorithm 1; the book's is the form at the end of its section 2. `torch.optim.Adam`,
        `optax.adam`. Saito, Deep Learning from Scratch, chapter 6.
    """
    if convention == "book":
        ratio = merge(divide_by_root(eps=eps, eps_root=eps_root), ema(b1), ema(b2, of=jnp.square))
        corrections = bias_correction(b1), bias_correction(b2, power=-0.5)
        return chain(ratio, *corrections, scale_by_learning_rate(learning_rate))
    return chain(scale_by_adam(b1, b2, eps=eps, eps_root=eps_root), scale_by_learning_rate(learning_rate))


@composite({"paper": {}, "torch": {}, "optax": {}})
def amsgrad(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, by the largest mean square so far.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        convention: The paper corrects no bias, torch corrects the maximum, optax takes the maximum of the corrected.

    Returns:
        A chain of `scale_by_amsgrad` and `scale_by_learning_rate`.

    Example:
        >>> explain_difference(amsgrad(convention="torch"), amsgrad(convention="optax")).equal
        False

    References:
        Reddi, Kale and Kumar (2018), Algorithm 2; `torch.optim.Adam(amsgrad=True)`, `optax.amsgrad`.
    """
    correction: Any = {"paper": "none", "torch": "after", "optax": "before"}[convention]
    scale = scale_by_amsgrad(b1, b2, eps=eps, eps_root=eps_root, correction=correction)
    return chain(scale, scale_by_learning_rate(learning_rate))


@composite({"paper": {"eps": 0.0}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}})
def adamax(
    learning_rate: ScalarOrSchedule = 2e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over its decaying largest magnitude.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's .002.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε added to the magnitude. paper 0, torch and optax 1e-8.
        convention: Whose ε.

    Returns:
        A chain of `scale_by_adamax` and `scale_by_learning_rate`.

    Example:
        >>> adamax(convention="torch").hyperparams["eps"]
        1e-08

    References:
        Kingma and Ba (2015), Algorithm 2; `torch.optim.Adamax`, `optax.adamax`.
    """
    return chain(scale_by_adamax(b1, b2, eps=eps), scale_by_learning_rate(learning_rate))


@composite({"paper": {"momentum_decay": 0.004}, "torch": {"momentum_decay": 0.004}, "optax": {}})
def nadam(
    learning_rate: ScalarOrSchedule = 2e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    momentum_decay: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, with the coming momentum step already in the numerator.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's .002.
        b1: β₁ in [0, 1), the limit of the momentum.
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        momentum_decay: ψ of the momentum's warm-up. paper and torch .004; None in optax: constant momentum.
        convention: The paper averages with the warming momentum, torch with the constant.

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
    )
    return chain(scale, scale_by_learning_rate(learning_rate))


@composite(
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
    threshold: ScalarLike | None = None,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, once the second moment has seen enough; by the mean gradient until then.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε. paper 0, torch (beside √v) and optax (beside √v̂) 1e-8.
        threshold: The memory above which v is trusted. paper > 4, torch > 5, optax ≥ 5.
        convention: Whose defaults, place of ε and comparison.

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
        threshold=threshold,
        inclusive=convention == "optax",
        eps_corrected=convention != "torch",
    )
    return chain(scale, scale_by_learning_rate(learning_rate))


@composite({"paper": {"weight_decay": 1e-4}, "torch": {"weight_decay": 1e-2}, "optax": {"weight_decay": 1e-4}})
def adamw(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike = 1e-8,
    eps_root: ScalarLike = 0.0,
    weight_decay: ScalarLike | None = None,
    schedule: ScalarOrSchedule | None = None,
    mask: Any = None,
    convention: Convention = "paper",
) -> Transform:
    """Step as Adam, and let the parameters decay beside it.

    paper: θ ← θ − sₜ(α m̂/(√v̂ + ε) + λθ). torch, optax: θ ← θ − sₜηₜ(m̂/(√v̂ + ε) + λθ).

    In the paper the decay does not depend on the learning rate, so its λ is of the order of the others' ηλ.

    Args:
        learning_rate: α or η ≥ 0, or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root.
        eps_root: ε inside the root.
        weight_decay: λ ≥ 0. paper and optax 1e-4, torch .01.
        schedule: s, the multiplier of the whole step, or a schedule of it; None for 1.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        convention: Whether the decay is multiplied by the learning rate.

    Returns:
        A chain of `scale_by_adam`, `add_decayed_weights` and `scale_by_learning_rate`.

    Example:
        >>> adamw(0.1, convention="torch").expand()
        chain(
            merge(
                divide_by_root(),
                chain(ema(0.9), bias_correction(0.9)),
                chain(ema(0.999, of=jnp.square), bias_correction(0.999)),
            ),
            add_decayed_weights(0.01),
            scale_by_learning_rate(0.1),
        )

    References:
        Loshchilov and Hutter (2019), Algorithm 2, line 12; `torch.optim.AdamW`, `optax.adamw`.
    """
    scale, decayed = scale_by_adam(b1, b2, eps=eps, eps_root=eps_root), add_decayed_weights(weight_decay, mask=mask)
    if convention == "paper":
        descend = negate() if schedule is None else scale_by_learning_rate(schedule)
        return chain(scale, scale_by_learning_rate(learning_rate, flip_sign=False), decayed, descend)
    step = chain(scale, decayed, scale_by_learning_rate(learning_rate))
    return step if schedule is None else chain(step, scale_by_learning_rate(schedule, flip_sign=False))


@composite()
def lion(
    learning_rate: ScalarOrSchedule = 1e-4,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.99,
    *,
    weight_decay: ScalarLike = 0.0,
    mask: Any = None,
) -> Transform:
    """Step by the sign of an interpolation between the gradient and its mean.

    θ ← θ − η (sign(β₁m + (1 − β₁)g) + λθ), then m ← β₂m + (1 − β₂)g.

    Args:
        learning_rate: η ≥ 0, or a schedule; 3 to 10 times smaller than Adam's.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        weight_decay: λ ≥ 0; 3 to 10 times larger than AdamW's.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.

    Returns:
        A chain of Optax's `scale_by_lion`, `add_decayed_weights` and `scale_by_learning_rate`.

    Example:
        >>> tx = lion(0.1)
        >>> params = jnp.array([1.0, 1.0])
        >>> print(tx.update(jnp.array([5.0, -1e-3]), tx.init(params), params)[0])
        [-0.1  0.1]

    References:
        Chen et al. (2023), Symbolic discovery of optimization algorithms, Algorithm 2.
    """
    return chain(
        scale_by_lion(b1, b2), add_decayed_weights(weight_decay, mask=mask), scale_by_learning_rate(learning_rate)
    )


@composite({"paper": {}, "optax": {}})
def adan(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.98,
    b2: ScalarLike = 0.92,
    b3: ScalarLike = 0.99,
    *,
    eps: ScalarLike = 1e-8,
    weight_decay: ScalarLike = 0.0,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean gradient and its mean change, over the root of their mean square.

    θ ← (θ − η (m̂ + w d̂)/(√n̂ + ε)) / (1 + λη), with the change's weight w = b2 in the paper, 1 − b2 in optax.

    Args:
        learning_rate: η ≥ 0, or a schedule.
        b1: Decay of the gradient's mean, the paper's 1 − β₁.
        b2: Decay of the change's mean, the paper's 1 − β₂.
        b3: Decay of the square's mean, the paper's 1 − β₃.
        eps: ε outside the root.
        weight_decay: λ ≥ 0; proximal in the paper, decoupled in optax.
        convention: Whose weight of the change, and whose decay.

    Returns:
        A chain of `scale_by_adan`, `scale_by_learning_rate` and `decay_proximally`.

    Example:
        >>> "difference_weight=0.07999999999999996" in str(adan(convention="optax").spec.call())
        True

    References:
        Xie, Zhou, Li, Lin and Yan (2022), Algorithm 1; `optax.adan`.
    """
    if convention == "optax":
        scale = scale_by_adan(b1, b2, b3, eps=eps, difference_weight=complement(b2))
        return chain(scale, add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate))
    scale = scale_by_adan(b1, b2, b3, eps=eps)
    return chain(scale, scale_by_learning_rate(learning_rate), decay_proximally(weight_decay, learning_rate))


def named() -> dict[str, Any]:
    """Return every named optimizer's constructor, by name.

    Returns:
        Constructors in the order of this module.

    Example:
        >>> list(named())[:4]
        ['sgd', 'momentum', 'nesterov', 'nesterov_lookahead']
    """
    constructors = (value for value in globals().values() if hasattr(value, "constructor"))
    own = (c for c in constructors if c.constructor.path.startswith(f"{__name__}:"))
    return {c.constructor.name: c for c in own}


__all__ = ["Convention", "Difference", "explain_difference", "named"]
__all__ += list(named())
