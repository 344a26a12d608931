"""Rprop: resilient backpropagation."""

# Arguments that default to None are filled from the table of conventions before this function runs.
# pyright: reportArgumentType=false

from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.optimizers._options import ascent
from jaxopt_study.transforms import ScalarLike, Transform, chain, check_interval, concrete, negate, scale_by_rprop


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
