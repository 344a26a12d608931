"""Lion and Rprop, whose steps use only signs."""

# Arguments that default to None are filled from the table of conventions before these functions run.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import Range, optimizer
from jaxopt_study.optimizers._options import ascent
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    check_interval,
    concrete,
    negate,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_rprop,
)


@optimizer(ranges={"b1": Range(0.0, 1.0, "[]")})
def lion(
    learning_rate: ScalarOrSchedule = 1e-4,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.99,
    *,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
    maximize: bool = False,
) -> Transform:
    """Step by the sign of an interpolation between the gradient and its mean.

    θ ← θ − η (sign(β₁m + (1 − β₁)g) + λθ), then m ← β₂m + (1 − β₂)g.

    Args:
        learning_rate: η ≥ 0, or a schedule; 3 to 10 times smaller than Adam's.
        b1: β₁ in [0, 1].
        b2: β₂ in [0, 1).
        mu_dtype: dtype of m; None keeps the parameters'.
        weight_decay: λ ≥ 0, or a schedule; 3 to 10 times larger than AdamW's.
        mask: Which parameters decay; see `transforms.add_decayed_weights`.
        maximize: If True, ascend by negating the gradient first. Weight decay still shrinks the parameters.

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
    scale, decay = scale_by_lion(b1, b2, mu_dtype=mu_dtype), add_decayed_weights(weight_decay, mask=mask)
    return chain(*ascent(maximize), scale, decay, scale_by_learning_rate(learning_rate))


@optimizer({"paper": {"learning_rate": 0.1}, "torch": {"learning_rate": 1e-2}, "optax": {"learning_rate": 0.1}})
def rprop(
    learning_rate: ScalarLike | None = None,
    eta_minus: ScalarLike = 0.5,
    eta_plus: ScalarLike = 1.2,
    *,
    min_step_size: ScalarLike = 1e-6,
    max_step_size: ScalarLike = 50.0,
    maximize: bool = False,
    convention: Convention = "paper",
) -> Transform:
    """Step by each coordinate's sign, with a size that grows while the sign persists and shrinks when it flips.

    Use it with full-batch gradients: the signs of small batches flip by chance, and the sizes shrink to nothing.

    Args:
        learning_rate: Δ₀ ≥ 0, the initial size. paper .1, torch .01; optax has no default, .1 is used here.
        eta_minus: η₋ in (0, 1), the factor on the size when the sign flips.
        eta_plus: η₊ > 1, the factor while the sign persists.
        min_step_size: The smallest size.
        max_step_size: The largest size.
        maximize: If True, ascend by negating the gradient first.
        convention: Selects the step when a sign flips. The paper takes the last step back; torch makes no step. optax
            makes no step either, and otherwise takes the step of the previous update.

    Returns:
        A chain of `scale_by_rprop` and `negate`.

    Example:
        >>> tx = rprop(0.1)
        >>> params = jnp.array([1.0, 1.0])
        >>> print(tx.update(jnp.array([1e20, -1e-30]), tx.init(params), params)[0])
        [-0.1  0.1]

    References:
        Riedmiller and Braun (1993), A direct adaptive method for faster backpropagation learning: the RPROP algorithm,
        section III; Igel and Hüsken (2003) for the form that rests. `torch.optim.Rprop`, `optax.rprop`.
    """
    least = concrete(min_step_size) or 0.0
    remedy = "It is at least min_step_size."
    check_interval("rprop", "max_step_size", max_step_size, least, float("inf"), remedy=remedy)
    scale = scale_by_rprop(
        learning_rate,
        eta_minus=eta_minus,
        eta_plus=eta_plus,
        min_size=min_step_size,
        max_size=max_step_size,
        on_reversal="undo" if convention == "paper" else "rest",
        lagged=convention == "optax",
    )
    return chain(*ascent(maximize), scale, negate())
