"""Newton's method on Hessian-vector products: truncated Newton and saddle-free Newton."""

from jaxopt_study.optimizers._definition import optimizer
from jaxopt_study.transforms import (
    ScalarLike,
    ScalarOrSchedule,
    Transform,
    chain,
    scale_by_learning_rate,
    scale_by_newton,
    scale_by_saddle_free_newton,
)


@optimizer(search_range=(1e-2, 1.0))
def newton(
    learning_rate: ScalarOrSchedule = 1.0,
    damping: ScalarLike = 0.0,
    tolerance: ScalarLike = 0.5,
    *,
    max_matvecs: int = 50,
    stop_at_negative_curvature: bool = True,
) -> Transform:
    """Step by a truncated Newton direction: (H + λI)⁻¹g by conjugate gradients.

    A step on a quadratic loss, with a small tolerance, is the way to its minimum. The Hessians of networks are nearly
    singular: give a damping there. `update` needs the loss as `value_fn`, which `training.train` gives.

    Args:
        learning_rate: η ≥ 0, or a schedule; 1 is Newton's step.
        damping: λ ≥ 0.
        tolerance: Largest relative residual of the direction, in [0, 1).
        max_matvecs: Largest number of Hessian-vector products of a step.
        stop_at_negative_curvature: Whether negative curvature ends a solve. If False, the step on an indefinite
            quadratic goes to its saddle.

    Returns:
        A chain of `scale_by_newton` and `scale_by_learning_rate`. Cost: see `transforms.scale_by_newton`.

    Example:
        >>> loss = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 100.0]) * (x - 1) ** 2)
        >>> tx, x = newton(tolerance=1e-6), jnp.zeros(2)
        >>> print((x + tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)[0]).round(5))
        [1. 1.]

    References:
        Dembo and Steihaug (1983), Truncated-Newton algorithms for large-scale unconstrained optimization.
    """
    scale = scale_by_newton(
        damping, tolerance, max_matvecs=max_matvecs, stop_at_negative_curvature=stop_at_negative_curvature
    )
    return chain(scale, scale_by_learning_rate(learning_rate))


@optimizer(search_range=(1e-2, 1.0))
def saddle_free_newton(
    learning_rate: ScalarOrSchedule = 1.0, damping: ScalarLike = 0.0, *, max_matvecs: int = 20
) -> Transform:
    """Step by the saddle-free Newton direction: (|H| + λI)⁻¹g in a Krylov space of the gradient.

    It leaves the saddle points to which Newton's method goes. The Hessians of networks are nearly singular: give a
    damping there. `update` needs the loss as `value_fn`, which `training.train` gives.

    Args:
        learning_rate: η ≥ 0, or a schedule; 1 is Newton's step where the curvature is positive.
        damping: λ ≥ 0.
        max_matvecs: Dimension of the Krylov space, the number of Hessian-vector products of a step.

    Returns:
        A chain of `scale_by_saddle_free_newton` and `scale_by_learning_rate`. Cost: see
        `transforms.scale_by_saddle_free_newton`.

    Example:
        >>> loss = lambda x: x[0] ** 2 - x[1] ** 2
        >>> tx, x = saddle_free_newton(), jnp.array([3.0, 1.0])
        >>> print(abs(x + tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)[0]).round(5))
        [0. 2.]

    References:
        Dauphin et al. (2014), Identifying and attacking the saddle point problem in high-dimensional non-convex
        optimization.
    """
    scale = scale_by_saddle_free_newton(damping, max_matvecs=max_matvecs)
    return chain(scale, scale_by_learning_rate(learning_rate))
