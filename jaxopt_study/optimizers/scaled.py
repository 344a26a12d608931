"""Optimizers that give every coordinate its own step."""

# Arguments that default to None are filled in from the table of conventions before these functions run.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers.convention import Convention
from jaxopt_study.transforms import (
    Transform,
    add_decayed_weights,
    chain,
    composite,
    heavy_ball,
    negate,
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_rms,
)
from jaxopt_study.transforms.scalars import ScalarLike, ScalarOrSchedule


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
        Zeiler (2012), ADADELTA, Algorithm 1 and section 4.1; `torch.optim.Adadelta`, `optax.adadelta`
        (which ascends if called without a learning rate).
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
        A chain of `scale_by_lion`, `add_decayed_weights` and `scale_by_learning_rate`.

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
