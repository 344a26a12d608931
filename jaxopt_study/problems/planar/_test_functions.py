"""Planar test functions: `rosenbrock`, `beale`, `himmelblau`, `styblinski_tang`, `rastrigin` and `ackley`.

Each lists all critical points inside its domain.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxopt_study.problems._problem import CriticalPoint, Problem
from jaxopt_study.problems._registry import listed
from jaxopt_study.problems.planar._surface import Pair, point, separable_points, surface


@listed
def rosenbrock(*, start: Pair = (-1.2, 1.0)) -> Problem:
    """Build Rosenbrock's banana valley (1 − x)² + 100(y − x²)².

    The only critical point is the minimum (1, 1), at the end of a curved valley; the condition number there is 2508.

    Args:
        start: Initial point (x, y). The default is Rosenbrock's.

    Returns:
        The problem.

    Example:
        >>> problem = rosenbrock()
        >>> print(problem.loss(jnp.array([1.0, 1.0])))
        0.0

    References:
        Rosenbrock (1960), The Computer Journal 3(3); Moré, Garbow and Hillstrom (1981), ACM TOMS 7(1), problem 1.
    """
    return surface(
        "rosenbrock",
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        start=start,
        domain=((-2.0, -1.0), (2.0, 3.0)),
        points=(point(1.0, 1.0, value=0.0, index=0),),
    )


@listed
def beale(*, start: Pair = (1.0, 1.0)) -> Problem:
    """Build Beale's function Σₖ (cₖ − x + xyᵏ)², k = 1, 2, 3, with two saddles.

    With c = (1.5, 2.25, 2.625) the minimum is (3, 1/2), value 0. The loss is steep at the corners of the domain and
    almost flat along the axes between them, where the saddles (0, 1) and (.101, −2.645) lie.

    Args:
        start: Initial point (x, y). The default is that of Moré, Garbow and Hillstrom.

    Returns:
        The problem.

    Example:
        >>> problem = beale()
        >>> print(problem.minima[0].params, [saddle.value for saddle in problem.saddles][0])
        [3.  0.5] 14.203125

    References:
        Beale (1958); Moré, Garbow and Hillstrom (1981), ACM TOMS 7(1), problem 5.
    """

    def formula(x, y):
        return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2

    lower = (0.10053793732415835, -2.644513585023125)
    return surface(
        "beale",
        formula,
        start=start,
        domain=((-4.5, -4.5), (4.5, 4.5)),
        points=(
            point(3.0, 0.5, value=0.0, index=0),
            point(0.0, 1.0, value=14.203125, index=1),
            point(*lower, value=formula(*lower), index=1),
        ),
    )


@listed
def himmelblau(*, start: Pair = (0.0, 0.0)) -> Problem:
    """Build Himmelblau's function (x² + y − 11)² + (x + y² − 7)²: four minima of equal value.

    It has nine critical points: four minima, all of value 0, four saddles between them and one maximum in the middle.
    Which minimum is reached shows the direction of the first steps, not the quality of the optimizer.

    Args:
        start: Initial point (x, y).

    Returns:
        The problem.

    Example:
        >>> problem = himmelblau()
        >>> len(problem.minima), len(problem.saddles), max(p.value for p in problem.minima)
        (4, 4, 0.0)

    References:
        Himmelblau (1972), Applied Nonlinear Programming.
    """

    def formula(x, y):
        return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2

    minima = (
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.2831859912861696),
        (3.5844283403304917, -1.8481265269644036),
    )
    saddles = (
        (3.3851541836070207, 0.07385187983774928),
        (0.08667750455539634, 2.884254701174776),
        (-3.0730257507643897, -0.08135304428796751),
        (-0.12796134673068005, -1.9537149802445766),
    )
    top = (-0.2708445906673476, -0.9230385564799815)
    return surface(
        "himmelblau",
        formula,
        start=start,
        domain=((-6.0, -6.0), (6.0, 6.0)),
        points=(
            *(point(*place, value=0.0, index=0) for place in minima),
            *(point(*place, value=formula(*place), index=1) for place in saddles),
            point(*top, value=formula(*top), index=2),
        ),
    )


@listed
def styblinski_tang(*, start: Pair = (4.0, 1.0)) -> Problem:
    """Build the Styblinski–Tang function ½ Σ (z⁴ − 16z² + 5z) over z = x, y: one global and three local minima.

    Each coordinate is a tilted double well, so the critical points are the pairs of the three roots of 4z³ − 32z + 5.
    The global minimum is x = y = −2.9035, value −78.332.

    Args:
        start: Initial point (x, y); the default lies in the basin of the worst minimum.

    Returns:
        The problem, minima sorted by value.

    Example:
        >>> print([round(minimum.value, 2) for minimum in styblinski_tang().minima])
        [-78.33, -64.2, -64.2, -50.06]

    References:
        Styblinski and Tang (1990), Neural Networks 3(4).
    """

    def well(z):
        return (z**4 - 16 * z**2 + 5 * z) / 2

    roots = np.sort(np.roots([4.0, 0.0, -32.0, 5.0]).real)
    roots = roots - (4 * roots**3 - 32 * roots + 5) / (12 * roots**2 - 32)  # one Newton step refines the last digits
    return surface(
        "styblinski_tang",
        lambda x, y: well(x) + well(y),
        start=start,
        domain=((-5.0, -5.0), (5.0, 5.0)),
        points=separable_points((z, well(z), 6 * z**2 - 16 < 0) for z in roots.tolist()),
    )


@listed
def rastrigin(*, start: Pair = (-4.2, 3.3)) -> Problem:
    """Build Rastrigin's function 20 + Σ (z² − 10 cos 2πz) over z = x, y: 121 minima in a bowl.

    Its critical points are the pairs of the 21 roots of z + 10π sin 2πz in the domain: 121 minima, 220 saddles and
    100 maxima. The global minimum is the origin, value 0.

    Args:
        start: Initial point (x, y).

    Returns:
        The problem, critical points sorted by value.

    Example:
        >>> problem = rastrigin()
        >>> len(problem.minima), len(problem.saddles), round(problem.minima[1].value, 4)
        (121, 220, 0.995)

    References:
        Rastrigin (1974), Systems of Extremal Control; Mühlenbein, Schomisch and Born (1991), Parallel Computing 17,
        for the form and domain.
    """
    roots = np.arange(-10, 11) / 2
    for _ in range(8):  # Newton's method; the roots are simple, close to the half integers
        slope = 1 + 20 * math.pi**2 * np.cos(2 * math.pi * roots)
        roots = roots - (roots + 10 * math.pi * np.sin(2 * math.pi * roots)) / slope
    values = roots**2 + 10 - 10 * np.cos(2 * math.pi * roots)
    tops = 2 + 40 * math.pi**2 * np.cos(2 * math.pi * roots) < 0
    return surface(
        "rastrigin",
        lambda x, y: 20 + x**2 + y**2 - 10 * (jnp.cos(2 * jnp.pi * x) + jnp.cos(2 * jnp.pi * y)),
        start=start,
        domain=((-5.12, -5.12), (5.12, 5.12)),
        points=separable_points(zip(roots.tolist(), values.tolist(), tops.tolist(), strict=True)),
    )


@listed
def ackley(*, start: Pair = (-3.3, 2.6)) -> Problem:
    """Build Ackley's function: an almost flat rim, 121 minima, and a cusp at the global one.

    With r² = (x² + y²)/2:

        f(x, y) = 20 + e − 20 exp(−r/5) − exp(½ cos 2πx + ½ cos 2πy)

    **There is no gradient at the global minimum.** Near the origin f ≈ 4r is a cone: f rises in every direction with
    slope 2√2, and no fixed step size converges. At the origin `jax.grad` returns 0, the only subgradient with the
    symmetry of f, and `jax.hessian` returns the curvature of the cosines alone, which is not a second derivative of f.
    The origin is therefore listed as a minimum with index `None`. At the other 440 critical points of the domain f is
    smooth.

    Args:
        start: Initial point (x, y).

    Returns:
        The problem, critical points sorted by value.

    Example:
        >>> problem = ackley()
        >>> best = problem.minima[0]
        >>> print(best.params, best.value, best.index)
        [0. 0.] 0.0 None
        >>> slope = problem.loss(jnp.array([1e-3, 0.0])) / 1e-3  # the slope does not vanish at the minimum
        >>> bool(slope > 2.8)
        True

    References:
        Ackley (1987), A Connectionist Machine for Genetic Hillclimbing.
    """

    def formula(x, y):
        squared = (x**2 + y**2) / 2
        # √ has an infinite slope at 0, and ∞·0 is NaN, so the inner `where` keeps 0 out of the differentiated branch.
        radius = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
        waves = (jnp.cos(2 * jnp.pi * x) + jnp.cos(2 * jnp.pi * y)) / 2
        # Both differences vanish at the minimum; expm1 computes them without cancellation.
        return -20 * jnp.expm1(-radius / 5) - jnp.e * jnp.expm1(waves - 1)

    return surface("ackley", formula, start=start, domain=((-5.0, -5.0), (5.0, 5.0)), points=_ackley_points())


@functools.cache
def _ackley_points() -> tuple[CriticalPoint, ...]:
    # The cusp and, by Newton's method from the half-integer lattice around it, the 440 smooth points.
    lattice = np.stack(np.meshgrid(np.arange(-10, 11) / 2, np.arange(-10, 11) / 2), axis=-1).reshape(-1, 2)
    places = lattice[np.any(lattice != 0, axis=1)]
    for _ in range(30):
        gradient, hessian, _ = _ackley_derivatives(places)
        places = places - np.linalg.solve(hessian, gradient[..., None])[..., 0]
    _, hessian, values = _ackley_derivatives(places)
    indices = np.sum(np.linalg.eigvalsh(hessian) < 0, axis=1)
    cusp = CriticalPoint(np.zeros(2), 0.0, "minimum", None, "cusp: no gradient")
    smooth = [
        point(x, y, value=v, index=i)
        for (x, y), v, i in zip(places.tolist(), values.tolist(), indices.tolist(), strict=True)
    ]
    return tuple(sorted([cusp, *smooth], key=lambda critical: critical.value))


def _ackley_derivatives(
    places: Float[np.ndarray, "points 2"],
) -> tuple[Float[np.ndarray, "points 2"], Float[np.ndarray, "points 2 2"], Float[np.ndarray, " points"]]:
    radius = np.sqrt(np.mean(places**2, axis=1))[:, None]
    direction = places / (2 * radius)  # ∇r
    cone = 4 * np.exp(-radius / 5)  # d(−20 e^{−r/5})/dr
    sines, cosines = np.sin(2 * np.pi * places), np.cos(2 * np.pi * places)
    waves = np.exp(np.mean(cosines, axis=1))[:, None]
    gradient = cone * direction + np.pi * sines * waves
    outer = direction[:, :, None] * direction[:, None, :]
    bent = np.eye(2) / (2 * radius[..., None]) - outer / radius[..., None]  # ∇²r
    hessian = cone[..., None] * (bent - outer / 5)
    hessian = hessian + np.pi**2 * waves[..., None] * (
        2 * cosines[:, :, None] * np.eye(2) - sines[:, :, None] * sines[:, None, :]
    )
    return gradient, hessian, (20 + np.e - 5 * cone - waves)[:, 0]
