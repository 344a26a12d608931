"""Averages of the iterates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._gradient_point import over_lanes, over_seen
from jaxopt_study.transforms._leaves import Leaf
from jaxopt_study.transforms._scalars import ScalarLike, check_dtype, check_non_negative, increment


class AverageIteratesState(NamedTuple):
    """Mean of the iterates so far."""

    average: optax.Params  # θ̄ₜ, structure of the parameters; zeros before the first step
    count: Int[Array, "*batch"]  # steps taken

    def evaluation_params(self, params: PyTree, learning_rate: ScalarLike | None = None) -> PyTree:
        """Return the average, in the parameters' dtypes, or the parameters themselves before the first step.

        Args:
            params: The parameters as trained.
            learning_rate: Not used.

        Returns:
            Parameters of the same structure.
        """
        return over_seen(
            lambda a, p: jnp.where(over_lanes(self.count > 0, a), a.astype(p.dtype), p), self.average, params
        )


@atom(state=AverageIteratesState, params=True)
def average_iterates(start: ScalarLike = 0.0, *, dtype: Any = None) -> Transform:
    """Average the iterates without changing any step.

    With the iterate θₜ = θₜ₋₁ + uₜ:

        θ̄ₜ = θ̄ₜ₋₁ + (θₜ − θ̄ₜ₋₁) / max(1, t − start)

    So θ̄ₜ is the mean of the iterates after step `start`, and θₜ itself until then. Put it last: a later transformation
    would change the iterate after it was averaged. The trained parameters stay θ; `evaluation_params(params, state)`
    returns the average, which is the point at which to evaluate the loss.

    Args:
        start: Number of steps before averaging begins, ≥ 0.
        dtype: dtype of the average; None keeps the parameters'.

    Returns:
        A transformation that passes its input on. Cost: one read of the parameters, one read and one write of θ̄.

    Raises:
        ValueError: If `start` is negative, or the update is called without parameters.

    Example:
        >>> tx = chain(negate(), average_iterates())
        >>> params = jnp.array([0.0])
        >>> state = tx.init(params)
        >>> for g in [-1.0, -2.0]:  # from 0 to 1, and to 3
        ...     updates, state = tx.update(jnp.array([g]), state, params)
        ...     params = params + updates
        >>> print(params, evaluation_params(params, state))
        [3.] [2.]

    References:
        Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging; Ruppert (1988). The form with
        a start is Bottou's (2012), Stochastic gradient descent tricks, section 5.3.
    """
    check_non_negative("average_iterates", "start", start)
    check_dtype("average_iterates", dtype)

    def init(params: PyTree) -> AverageIteratesState:
        return AverageIteratesState(
            jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params), jnp.zeros((), dtype=jnp.int32)
        )

    def update(
        updates: PyTree, state: AverageIteratesState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AverageIteratesState]:
        count = increment(state.count)
        past = jnp.asarray(count, dtype=jnp.result_type(float)) - jnp.asarray(start)
        weight = 1 / jnp.maximum(past, 1)

        def move(u: Leaf, p: Leaf, a: Leaf) -> Leaf:
            end = (p + u.astype(p.dtype)).astype(a.dtype)
            return jnp.where(past > 1, a + weight.astype(a.dtype) * (end - a), end)

        return updates, AverageIteratesState(jax.tree.map(move, updates, params, state.average), count)

    return Transform(init, update)
