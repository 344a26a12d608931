"""Cross-check of a spectral density with Chebyshev moments instead of Lanczos."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, ScalarLike, UInt32

from jaxopt_study._checks import check_integer, check_real, describe_argument
from jaxopt_study._display import displayed
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.spectrum import _cards
from jaxopt_study.curvature.spectrum._spectral_density import SpectralDensity
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.gauss_quadrature import random_unit_vector
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.linalg.operator import check_operator
from jaxopt_study.types import Vector

_MARGIN = 0.01  # margin on either side, relative to the width of the spectrum
_NARROW = 0.1  # smallest margin, relative to max |θ|, for a spectrum of one point
_POINTS = 201

Interval = tuple[Float[Array, ""], Float[Array, ""]]


class CrossCheck(NamedTuple):
    """Comparison of a density with the kernel polynomial method on the same probes.

    Attributes:
        moments: vᵀ Tₖ(H̃) v, k = 0 … 2K, from the Chebyshev recurrence.
        lanczos_moments: The same moments from nodes and weights.
        difference: Largest difference of two moments of one probe.
        cdf_difference: Largest difference, over the spectrum and the probes, of the two cumulative shares with
            Jackson's kernel.
        tolerance: Difference that rounding explains.
        agrees: Whether both differences are within the tolerance; False where a number is not finite.
        num_matvecs: Number of products.
    """

    moments: Float[Array, "p moments"]
    lanczos_moments: Float[Array, "p moments"]
    difference: Float[Array, ""]
    cdf_difference: Float[Array, ""]
    tolerance: Float[Array, ""]
    agrees: Bool[Array, ""]
    num_matvecs: Int[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.cross_check)


@nan_is_an_answer
def cross_check(
    op: Operator, density: SpectralDensity, *, num_steps: int = 50, tolerance: float | None = None
) -> CrossCheck:
    """Compare a spectral density with Chebyshev moments of the same random vectors.

    With H̃ = (2H − (b + a))/(b − a), whose spectrum lies in [−1, 1], and t₀ = v, t₁ = H̃v, tₖ₊₁ = 2H̃tₖ − tₖ₋₁,

        μ₂ₖ = 2 tₖᵀtₖ − μ₀,  μ₂ₖ₊₁ = 2 tₖ₊₁ᵀtₖ − μ₁

    are the moments vᵀ Tₖ(H̃) v. The recurrence needs no orthogonality and is therefore independent of the weakness of
    Lanczos. m nodes give the moments up to 2m − 1 exactly, so both methods must agree up to rounding for every probe,
    not just up to sampling error. An eigenvalue outside of [a, b], which Lanczos has missed, makes the recurrence grow.
    Errors of the products are not detected, because they are the same in both methods.

    Args:
        op: H, the operator of the density.
        density: The result of `spectral_density`.
        num_steps: K ≥ 1, products for each probe. Only moments below 2m are compared, so K ≤ m − 1.
        tolerance: Largest difference allowed; None takes 4K² ε ‖H‖/((b − a)/2) or 4K² ε, the larger one,
            because |Tₖ′| ≤ k² passes on the rounding errors of H̃.

    Returns:
        Moments and comparison. Cost: p·K products, memory of five vectors; one probe after another.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `num_steps` or `tolerance` is not positive, or operator and density have different sizes.

    Example:
        >>> from jaxopt_study.curvature import from_matvec, spectral_density
        >>> spectrum = jnp.linspace(-1.0, 3.0, 200)
        >>> op = from_matvec(lambda v: spectrum * v, spectrum)
        >>> density = spectral_density(op, num_probes=2, num_steps=20, key=jax.random.key(0))
        >>> print(cross_check(op, density, num_steps=15).agrees)
        True
        >>> print(cross_check(1.1 * op, density, num_steps=15).agrees)
        False

    References:
        Weiße, Wellein, Alvermann and Fehske (2006), The kernel polynomial method, Rev. Mod. Phys. 78. Lin,
        Saad and Yang (2016), Approximating spectral densities of large matrices, SIAM Review 58.
    """
    check_operator("cross_check", op)
    if not isinstance(density, SpectralDensity):
        raise TypeError(
            f"cross_check needs density to be a result of spectral_density; received {describe_argument(density)}."
        )
    num_steps = check_integer("cross_check", "num_steps", num_steps, 1)
    if tolerance is not None:
        tolerance = check_real("cross_check", "tolerance", tolerance, 0.0, closed="()")
    if not isinstance(density.size, Tracer) and int(density.size) != op.size:
        raise ValueError(
            f"cross_check needs the operator of the density, of size {int(density.size)}; received one of size "
            f"{op.size}."
        )
    num_steps = max(1, min(num_steps, density.quadrature.nodes.shape[1] - 1))
    nodes = density.quadrature.nodes
    low, high = jnp.min(nodes), jnp.max(nodes)
    scale = jnp.max(jnp.abs(nodes))
    margin = jnp.maximum(_MARGIN * (high - low), _NARROW * jnp.where(scale == 0, 1, scale))
    interval = low - margin, high + margin
    moments = solver_loop.run_each(ChebyshevRecurrence(layout_of(op.like), num_steps), op, interval, density.keys)
    return _compare(moments, density, interval, tolerance)


class _State(NamedTuple):
    step: Int[Array, ""]  # k
    before: Vector  # tₖ₋₁; 0 initially
    now: Vector  # tₖ
    zeroth: Float[Array, ""]  # t₀ᵀt₀
    twos: Float[Array, "steps 2"]  # tₖ₊₁ᵀtₖ and tₖ₊₁ᵀtₖ₊₁, K rows
    done: Bool[Array, ""]


@dataclass(frozen=True)
class ChebyshevRecurrence:
    """The recurrence of `cross_check` for one probe as a `solver_loop.Solver`; its limits are the interval."""

    layout: Layout
    num_steps: int
    block_size: int = 1
    scaled: bool = False  # the interval is in units of H

    def initial(self, seed: UInt32[Array, "2"], start: None) -> _State:
        """Return the state before the first product, from the seed's random unit vector."""
        v = random_unit_vector(self.layout, seed)
        square = vectors.inner(v, v)
        twos = jnp.zeros((self.num_steps, 2), square.dtype)
        return _State(jnp.int32(0), vectors.zeros_like(self.layout.structure), v, square, twos, jnp.bool_(False))

    def next_block(self, state: _State) -> Vector:
        """Return tₖ."""
        return jax.tree.map(lambda leaf: leaf[None], state.now)

    def update(self, interval: Interval, seed: UInt32[Array, "2"], state: _State, products: Vector) -> _State:
        """Return the state with tₖ₊₁."""
        middle, half = (interval[1] + interval[0]) / 2, (interval[1] - interval[0]) / 2
        factor = jnp.where(state.step == 0, 1, 2).astype(half.dtype) / half
        centred = vectors.axpy(-middle, state.now, vectors.row(products, 0))
        new = vectors.axpy(factor, centred, vectors.scale(-1.0, state.before))
        two = jnp.stack([vectors.inner(new, state.now), vectors.inner(new, new)])
        step = state.step + 1
        return _State(step, state.now, new, state.zeroth, state.twos.at[state.step].set(two), step >= self.num_steps)

    def result(self, interval: Interval, state: _State, unit: Float[Array, ""]) -> Float[Array, " moments"]:
        """Return the 2K + 1 moments."""
        return _unfold(state.twos, state.zeroth)


def _unfold(twos: Float[Array, "steps 2"], zeroth: Float[Array, ""]) -> Float[Array, " moments"]:
    """Return the moments μ₀ … μ₂ₖ from the inner products tₖ₊₁ᵀtₖ and tₖ₊₁ᵀtₖ₊₁, which give two each."""
    first = twos[0, 0]
    folded = 2 * twos - jnp.stack([first, zeroth])[None]
    return jnp.concatenate([zeroth[None], folded.reshape(-1).at[0].set(first)])


@jax.jit
def _compare(
    moments: Float[Array, "p moments"],
    density: SpectralDensity,
    interval: Interval,
    tolerance: ScalarLike | None,
) -> CrossCheck:
    low, high = interval
    nodes, weights = density.quadrature.nodes, density.quadrature.weights
    order = jnp.arange(moments.shape[1], dtype=moments.dtype)[None, :]
    scaled = (2 * nodes - (high + low)) / (high - low)
    expected = jnp.einsum("pm,pmk->pk", weights, jnp.cos(order[None] * jnp.arccos(jnp.clip(scaled, -1, 1))[..., None]))
    # Jackson's kernel, and the integrated series in θ = arccos x.
    count = moments.shape[1]
    angle = jnp.pi / (count + 1)
    jackson = ((count - order + 1) * jnp.cos(order * angle) + jnp.sin(order * angle) / jnp.tan(angle)) / (count + 1)
    theta = jnp.linspace(0.0, jnp.pi, _POINTS)[:, None]
    basis = jnp.where(order == 0, 1 - theta / jnp.pi, -2 * jnp.sin(order * theta) / (jnp.pi * jnp.maximum(order, 1)))
    difference = moments - expected
    largest, of_cdf = jnp.max(jnp.abs(difference)), jnp.max(jnp.abs((difference * jackson) @ basis.T))
    steps = (count - 1) // 2
    rounding = 4 * steps**2 * jnp.finfo(moments.dtype).eps * jnp.maximum(1, 2 * jnp.max(jnp.abs(nodes)) / (high - low))
    allowed = rounding if tolerance is None else tolerance
    agrees = (largest <= allowed) & (of_cdf <= allowed)
    matvecs = jnp.asarray(steps * moments.shape[0], dtype=jnp.int32)
    return CrossCheck(moments, expected, largest, of_cdf, jnp.asarray(allowed), agrees, matvecs)
