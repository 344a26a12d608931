"""Lion: sign of an interpolated momentum."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from typing import Any

from jaxopt_study.optimizers._definition import Range, optimizer
from jaxopt_study.optimizers._options import ascent
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    add_decayed_weights,
    chain,
    scale_by_learning_rate,
    scale_by_lion,
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
