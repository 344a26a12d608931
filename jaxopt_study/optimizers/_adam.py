"""Adam."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

import jax.numpy as jnp

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import adaptive_step, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    bias_correction,
    divide_by_root,
    ema,
    merge,
    scale_by_adam,
    scale_by_nadam,
)


@optimizer(
    {"paper": {"eps": 1e-8}, "torch": {"eps": 1e-8}, "optax": {"eps": 1e-8}, "saito2016": {"eps": 1e-7}},
    search_range=(1e-5, 1.0),
)
def adam(
    learning_rate: ScalarOrSchedule = 1e-3,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    *,
    eps: ScalarLike | None = None,
    eps_root: ScalarLike = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by the mean of the gradient over the root of the mean of its square, both bias-corrected.

    paper, torch, optax: θ ← θ − η m̂/(√(v̂ + ε_root) + ε). saito2016: θ ← θ − η √(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + ε), in which
    ε has 1/√(1 − β₂ᵗ) times the effect: 32 times at the first step.

    Args:
        learning_rate: η ≥ 0, or a schedule; the paper's α = .001.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε outside the root. saito2016 1e-7, else 1e-8.
        eps_root: ε inside the root.
        mu_dtype: dtype of m; None keeps the parameters'.
        nesterov: Whether the mean is taken one momentum step ahead: `nadam` at constant momentum. Not available in
            saito2016.
        weight_decay: λ ≥ 0 of ½λ‖θ‖² in the loss, or a schedule; None for none.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        decoupled_weight_decay: Whether λθ is added after the statistics, θ ← θ − η(… + λθ), instead of to the gradient.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults and the place of ε.

    Returns:
        A chain of `scale_by_adam` and `scale_by_learning_rate`, or the chain of `saito2016`.

    Raises:
        ValueError: If `nesterov` is given under `saito2016`.

    Example:
        >>> adam(0.3).expand()
        chain(
            merge(
                divide_by_root(),
                chain(ema(0.9), bias_correction(0.9)),
                chain(ema(0.999, of=jnp.square), bias_correction(0.999)),
            ),
            scale_by_learning_rate(0.3),
        )
        >>> adam(0.3, convention="saito2016").expand()
        chain(
            merge(divide_by_root(eps=1e-07), ema(0.9), ema(0.999, of=jnp.square)),
            bias_correction(0.9),
            bias_correction(0.999, power=-0.5),
            scale_by_learning_rate(0.3),
        )

    References:
        Kingma and Ba (2015), Adam, Algorithm 1; `saito2016` is the form at the end of its section 2.
        `torch.optim.Adam`, `optax.adam`. Saito, Deep Learning from Scratch, chapter 6.
    """
    if convention == "saito2016":
        if nesterov:
            raise ValueError("adam: saito2016's form has no Nesterov momentum; use another convention, or `nadam`.")
        ratio = merge(divide_by_root(eps=eps, eps_root=eps_root), ema(b1, dtype=mu_dtype), ema(b2, of=jnp.square))
        corrections = bias_correction(b1), bias_correction(b2, power=-0.5)
        scale = (ratio, *corrections)
    elif nesterov:
        scale = (scale_by_nadam(b1, b2, eps=eps, eps_root=eps_root, momentum_decay=None, mu_dtype=mu_dtype),)
    else:
        scale = (scale_by_adam(b1, b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype),)
    decay = decayed("adam", weight_decay, mask)
    return adaptive_step(learning_rate, *scale, decay=decay, decoupled=decoupled_weight_decay, maximize=maximize)
