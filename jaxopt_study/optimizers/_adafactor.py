"""Adafactor: adaptive steps with sublinear memory."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study._checks import check_integer
from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent, decayed
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    clip_by_leaf_rms,
    ema,
    negate,
    relative_step,
    scale_by_factored_rms,
    scale_by_learning_rate,
    scale_by_param_rms,
    schedule_product,
)


@optimizer(
    {
        "paper": {"learning_rate": 1e-2, "eps": 1e-30, "min_dim_size_to_factor": 1},
        "torch": {"learning_rate": 1e-2, "min_dim_size_to_factor": 1},
        "optax": {"eps": 1e-30, "min_dim_size_to_factor": 128},
    },
    aliases={"weight_decay_rate": "weight_decay", "weight_decay_mask": "mask", "dtype_momentum": "momentum_dtype"},
)
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    *,
    decay_rate: ScalarLike = 0.8,
    eps: ScalarLike | None = None,
    min_rms: ScalarLike = 1e-3,
    clipping_threshold: ScalarLike | None = 1.0,
    multiply_by_parameter_scale: bool = True,
    momentum: ScalarLike | None = None,
    momentum_dtype: Any = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Any = None,
    factored: bool = True,
    min_dim_size_to_factor: int | None = None,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by the gradient over the root of a factored second moment, relative to the size of the parameters.

    θ ← θ − ρₜ max(ε₂, RMS(θ)) u / max(1, RMS(u)/d), u = g/√V̂, β₂ₜ = 1 − t^−c; paper, torch: ρₜ = min(η, 1/√t).
    optax: ρₜ = η.

    A matrix's moment V is kept as the means of its rows and columns.

    Args:
        learning_rate: η ≥ 0, or a schedule. paper and torch 1e-2; None in optax: 1.
        decay_rate: c ≥ 0, the power in β₂ₜ; torch's `beta2_decay` is −c.
        eps: ε₁ ≥ 0. paper, optax: 1e-30, added to the squares. torch: a lower bound, the machine epsilon of the dtype
            for mean(R) and its square for V̂.
        min_rms: ε₂ > 0, the lower bound of the parameters' root mean square.
        clipping_threshold: d ≥ 0, the largest root mean square of u; None for no clipping.
        multiply_by_parameter_scale: False omits max(ε₂, RMS(θ)), which makes the steps absolute.
        momentum: β₁ in [0, 1) of an `ema` of the steps; None for none.
        momentum_dtype: dtype of that average, and then of the updates; None keeps the parameters'. Optax's default is
            float32.
        weight_decay: λ ≥ 0, or a schedule; None for none. paper, optax: θ ← θ − … − λθ; torch: − ηλθ.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        factored: False keeps the full moment of every leaf.
        min_dim_size_to_factor: The least length of both axes of a factored leaf. optax 128, else 1.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.
        convention: Selects the defaults, the rate, the role of ε₁ and the decay. For leaves with more than two axes,
            optax factors the largest two and torch the last two, as does "paper" here, since the paper covers only
            matrices.

    Returns:
        A chain of `scale_by_factored_rms`, `clip_by_leaf_rms`, `scale_by_param_rms` and `scale_by_learning_rate`.

    Example:
        >>> tx, params = adafactor(), {"kernel": jnp.ones((30, 20)), "bias": jnp.ones(20)}
        >>> sum(leaf.size for leaf in jax.tree.leaves(tx.init(params)[0].second))  # Adam's has 620
        70

    References:
        Shazeer and Stern (2018), Adafactor: adaptive learning rates with sublinear memory cost, Algorithms 4 to 6, all
        defaults from Algorithm 6. `torch.optim.Adafactor`, `optax.adafactor`.
    """
    if min_dim_size_to_factor is not None:
        check_integer("adafactor", "min_dim_size_to_factor", min_dim_size_to_factor, 1)
    as_optax, as_torch = convention == "optax", convention == "torch"
    parts = [
        *ascent(maximize),
        scale_by_factored_rms(
            decay_rate,
            eps=eps,
            eps_is_floor=as_torch,
            factored=factored,
            axes="largest" if as_optax else "last",
            min_dim_size_to_factor=min_dim_size_to_factor,
        ),
    ]
    if clipping_threshold is not None:
        parts.append(clip_by_leaf_rms(clipping_threshold))
    if learning_rate is not None:
        rate = learning_rate if as_optax else relative_step(learning_rate)
        parts.append(scale_by_learning_rate(rate, flip_sign=False))
    if multiply_by_parameter_scale:
        parts.append(scale_by_param_rms(min_rms))
    if momentum is not None:
        parts.append(ema(momentum, dtype=momentum_dtype))
    if as_torch and weight_decay is not None:
        parts.append(add_decayed_weights(schedule_product(weight_decay, learning_rate), mask=mask))
    else:
        parts += decayed("adafactor", weight_decay, mask)
    return chain(*parts, negate())
