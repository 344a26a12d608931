"""Conjugate gradients for a symmetric operator that need not be positive definite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxopt_study.linalg import vectors
from jaxopt_study.types import Matvec, Vector


class CGReport(NamedTuple):
    """How a solve ended.

    Attributes:
        residual: ‖b − A x‖/‖b‖, by the recursion; 0 for b = 0.
        num_matvecs: Number of products.
        negative_curvature: Whether a direction with ⟨p, A p⟩ ≤ 0 was met.
    """

    residual: Float[Array, ""]
    num_matvecs: Int[Array, ""]
    negative_curvature: Bool[Array, ""]


class _State(NamedTuple):
    x: Vector
    r: Vector  # b − A x
    p: Vector  # the next direction, divided by ‖r‖: ⟨p, A p⟩ then has the size of A, whatever has been solved
    square: Float[Array, ""]  # ‖r‖²
    count: Int[Array, ""]
    negative: Bool[Array, ""]
    ended: Bool[Array, ""]


def conjugate_gradients(
    product: Matvec, b: Vector, *, tolerance: Float[Array, ""], max_matvecs: int, stop_at_negative_curvature: bool
) -> tuple[Vector, CGReport]:
    """Solve A x = b from x = 0 until ‖b − A x‖ ≤ tolerance · ‖b‖; for use inside a trace.

    A direction with ⟨p, A p⟩ ≤ 0 ends the solve with the x reached before, which is a descent direction of ½⟨x, A x⟩ −
    ⟨b, x⟩ at 0; if it is the first direction, which is b, x = b. Without this rule only ⟨p, A p⟩ = 0 ends it, and x
    tends to the saddle of an indefinite quadratic.

    Derivatives are those of the solution of A x = b, by another solve with the same rules, so the loop can be
    differentiated in reverse, too.

    Args:
        product: v ↦ A v, linear and symmetric.
        b: The right-hand side.
        tolerance: Relative residual at which the solve ends.
        max_matvecs: Largest number of products, at least 1.
        stop_at_negative_curvature: Whether a direction of negative curvature ends the solve.

    Returns:
        x, and how the solve ended. Cost: a product and nine reads of a vector for each iteration; memory of four
        vectors.

    References:
        Hestenes and Stiefel (1952); the rule for negative curvature is that of Dembo and Steihaug (1983), Truncated-
        Newton algorithms for large-scale unconstrained optimization, as in Nocedal and Wright (2006), algorithm 7.1.
    """
    limit = lax.stop_gradient(tolerance)

    def solve(product: Matvec, b: Vector) -> tuple[Vector, CGReport]:
        b, length = vectors.normalize(b)  # squares stay in range
        square = vectors.inner(b, b)
        no = jnp.bool_(False)
        begin = _State(vectors.scale(0, b), b, b, square, jnp.int32(0), no, no)

        def unfinished(state: _State) -> Bool[Array, ""]:
            return ~state.ended & (state.square > limit**2) & (state.count < max_matvecs)

        def iterate(state: _State) -> _State:
            image = product(state.p)
            bend = vectors.inner(state.p, image)
            negative = bend <= 0
            ended = negative if stop_at_negative_curvature else bend == 0
            size = jnp.sqrt(state.square)
            step = size / jnp.where(ended, 1, bend)
            r = vectors.axpy(-step, image, state.r)
            square = vectors.inner(r, r)
            new = jnp.sqrt(square)
            p = vectors.axpy(new / size, state.p, vectors.scale(1 / jnp.where(new > 0, new, 1), r))
            further = _State(vectors.axpy(step, state.p, state.x), r, p, square, state.count, state.negative, ended)
            instead = state._replace(x=_where(state.count == 0, b, state.x), ended=ended)
            after = _where(ended, instead, further)
            return after._replace(count=state.count + 1, negative=state.negative | negative)

        last = lax.while_loop(unfinished, iterate, begin)
        return vectors.scale(length, last.x), CGReport(jnp.sqrt(last.square), last.count, last.negative)

    return lax.custom_linear_solve(product, b, solve, symmetric=True, has_aux=True)


def _where(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)
