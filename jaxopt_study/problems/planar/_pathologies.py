"""Planar losses with one difficulty each: ill-conditioning, saddles, a cliff, a plateau, a mountain."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study.problems._problem import CriticalPoint, Problem
from jaxopt_study.problems._registry import listed
from jaxopt_study.problems.planar._surface import Coordinate, Pair, point, surface


@listed
def bowl(*, start: Pair = (-7.0, 2.0)) -> Problem:
    """Build the elongated bowl x²/20 + y², condition number 20.

    The Hessian is diag(1/10, 2) everywhere: a step size that suits y is twenty times too small for x.

    Args:
        start: Initial point (x, y). The default is that of figure 6-3 in Saito (2016).

    Returns:
        The problem, with its minimum at the origin and its spectrum.

    Example:
        >>> problem = bowl()
        >>> print(jax.grad(problem.loss)(problem.init(jax.random.key(0))))
        [-0.7  4. ]

    References:
        Saito (2016), Deep Learning from Scratch, section 6.1: formula, start and domain.
    """
    return surface(
        "bowl",
        lambda x, y: x**2 / 20 + y**2,
        start=start,
        domain=((-10.0, -5.0), (10.0, 5.0)),
        points=(point(0.0, 0.0, value=0.0, index=0),),
        spectrum=np.array([0.1, 2.0]),
    )


@listed
def saddle(*, start: Pair = (-1.5, 0.001)) -> Problem:
    """Build the saddle x² − y², with no minimum.

    Gradient descent with step η multiplies x by 1 − 2η and y by 1 + 2η: it approaches the origin and stays near it
    until y has grown. The loss is unbounded below, so every escape ends outside the domain.

    Args:
        start: Initial point (x, y). With y = 0, gradient descent never leaves the line y = 0 through the saddle.

    Returns:
        The problem, with its saddle at the origin and its spectrum.

    Example:
        >>> problem = saddle()
        >>> print(jnp.linalg.eigvalsh(jax.hessian(problem.loss)(problem.init(jax.random.key(0)))))
        [-2. 2.]
    """
    return surface(
        "saddle",
        lambda x, y: x**2 - y**2,
        start=start,
        domain=((-2.0, -2.0), (2.0, 2.0)),
        points=(point(0.0, 0.0, value=0.0, index=1),),
        spectrum=np.array([-2.0, 2.0]),
    )


@listed
def monkey_saddle(*, start: Pair = (1.0, 0.05)) -> Problem:
    """Build the monkey saddle x³ − 3xy², whose Hessian vanishes at the saddle.

    Three valleys (for two legs and a tail) and three ridges meet at the origin. No second-order test finds a descent
    direction there: the Hessian is zero, so the point is listed as degenerate, with index 0. The loss is unbounded
    below.

    Args:
        start: Initial point (x, y); the default lies beside the ridge y = 0.

    Returns:
        The problem, with its degenerate critical point at the origin.

    Example:
        >>> problem = monkey_saddle()
        >>> origin = jnp.zeros(2)
        >>> print(jax.grad(problem.loss)(origin), jnp.abs(jax.hessian(problem.loss)(origin)).max())
        [0. 0.] 0.0
    """
    return surface(
        "monkey_saddle",
        lambda x, y: x**3 - 3 * x * y**2,
        start=start,
        domain=((-1.5, -1.5), (1.5, 1.5)),
        points=(CriticalPoint(np.zeros(2), 0.0, "degenerate", 0, "monkey saddle"),),
    )


@listed
def cliff(*, start: Pair = (5.5, -2.5)) -> Problem:
    """Build the cliff of a recurrent network with one hidden unit.

    With weight w and bias b, logistic σ and h₀ = 1/2:

        hₜ = w σ(hₜ₋₁) + b,    f(w, b) = (σ(h₅₀) − 0.7)²

    For w > 4 the recurrence has two stable states, and f jumps between them at a wall where the gradient exceeds 200,
    while on either side it stays below 1: a single plain gradient step at the wall throws the parameters out of the
    domain, which gradient clipping prevents. In front of the wall, the minima f = 0 form a curve. For w ≤ 2, where the
    recurrence has converged to machine precision, it is the line b = logit 0.7 − 0.7 w. Only two points of the curve
    are listed.

    Args:
        start: Initial point (w, b).

    Returns:
        The problem. A loss or gradient costs 50 steps of the recurrence.

    Example:
        >>> problem = cliff()
        >>> below, above = problem.loss(jnp.array([5.0, -2.65])), problem.loss(jnp.array([5.0, -2.5]))
        >>> bool(below > 10 * above)
        True

    References:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, ICML: the model and
        its error surface. Goodfellow, Bengio and Courville (2016), Deep Learning, figure 8.3.
    """

    def formula(w: Coordinate, b: Coordinate) -> Coordinate:
        hidden = jax.lax.fori_loop(0, 50, lambda _, h: w * jax.nn.sigmoid(h) + b, jnp.full_like(w * b, 0.5))
        return (jax.nn.sigmoid(hidden) - 0.7) ** 2

    target = math.log(0.7 / 0.3)
    floor = tuple(
        CriticalPoint(np.array([w, target - 0.7 * w]), 0.0, "minimum", 0, "one of a curve") for w in (0.0, 2.0)
    )
    return surface("cliff", formula, start=start, domain=((0.0, -4.0), (7.0, 1.5)), points=floor)


@listed
def plateau(*, start: Pair = (-3.0, 2.5)) -> Problem:
    """Build the plateau 1 − exp(−(x² + y²)/2), flat far from its only minimum.

    With r² = x² + y² the gradient's norm is r exp(−r²/2): .61 at most and .002 at the default start, where the negative
    gradient still points exactly at the minimum. The direction is perfect but the norm is uninformative, so optimizers
    differ here only in how they scale the gradient.

    Args:
        start: Initial point (x, y).

    Returns:
        The problem, with its minimum at the origin.

    Example:
        >>> problem = plateau()
        >>> params = problem.init(jax.random.key(0))
        >>> bool(jnp.linalg.norm(jax.grad(problem.loss)(params)) < 0.002)
        True
    """
    return surface(
        "plateau",
        lambda x, y: -jnp.expm1(-(x**2 + y**2) / 2),  # expm1 keeps the bottom accurate in float32
        start=start,
        domain=((-5.0, -5.0), (5.0, 5.0)),
        points=(point(0.0, 0.0, value=0.0, index=0),),
    )


@listed
def mountain(*, start: Pair = (-1.0, 0.5)) -> Problem:
    """Build a mountain between two plains, without any minimum or saddle.

    With r² = x² + y² and a height that grows from left to right:

        f(x, y) = −(3/4 + tanh(x)/4) · r²/(1 + r²)

    The only critical point is the summit. Far to the left f approaches −1/2, far to the right its infimum −1. From a
    start on the left, descent leads away from the lower side for ever: nothing stops it, yet it never approaches the
    infimum.

    Args:
        start: Initial point (x, y); the default is on the left, the wrong side.

    Returns:
        The problem, with its maximum at the origin; `metadata` holds the infimum and the limit on the left.

    Example:
        >>> problem = mountain()
        >>> problem.minima, problem.saddles
        ((), ())
        >>> print(jnp.round(problem.loss(jnp.array([[-100.0, 100.0], [0.0, 0.0]])), 3))
        [-0.5 -1. ]

    References:
        Goodfellow, Bengio and Courville (2016), Deep Learning, figure 8.4, draws such a curve; the formula is ours.
    """

    def formula(x: Coordinate, y: Coordinate) -> Coordinate:
        squared = x**2 + y**2
        return -(0.75 + jnp.tanh(x) / 4) * squared / (1 + squared)

    return surface(
        "mountain",
        formula,
        start=start,
        domain=((-6.0, -6.0), (6.0, 6.0)),
        points=(point(0.0, 0.0, value=0.0, index=2),),
        metadata={"infimum": -1.0, "left_level": -0.5},
    )
