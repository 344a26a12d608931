"""Adafactor's atoms: a factored second moment, and scaling and clipping by root mean squares."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxopt_study._checks import check_bool, check_choice, check_integer
from jaxopt_study._programs import wider
from jaxopt_study.transforms._clipping import Length, norm, shorten
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import RealLeaf
from jaxopt_study.transforms._scalars import (
    ScalarLike,
    cast,
    check_dtype,
    check_interval,
    check_limit,
    check_non_negative,
    increment,
)


class FactoredMoment(NamedTuple):
    """The second moment of one matrix."""

    row: Float[Array, "*row"]  # mean over the columns: the matrix's shape without its long axis
    column: Float[Array, "*column"]  # mean over the rows: the matrix's shape without its other axis


class FactoredRmsState(NamedTuple):
    """Second moments: a `FactoredMoment` for each factored leaf, an array of the leaf's shape for the others."""

    second: Any
    count: Int[Array, "*batch"]  # steps taken


@atom(state=FactoredRmsState, neutral={"eps": 0.0})
def scale_by_factored_rms(
    decay_rate: ScalarLike = 0.8,
    *,
    eps: ScalarLike | None = 1e-30,
    eps_is_floor: bool = False,
    factored: bool = True,
    axes: Literal["last", "largest"] = "last",
    min_dim_size_to_factor: int = 1,
    dtype: Any = None,
) -> Transform:
    """Divide by the root of a second moment stored as its row and column means.

    With βₜ = 1 − t^−c, and for a matrix the row means R and the column means C:

        Rₜ = βₜ Rₜ₋₁ + (1 − βₜ) mean_columns(gₜ² + ε),  Cₜ = βₜ Cₜ₋₁ + (1 − βₜ) mean_rows(gₜ² + ε)
        Vₜ = Rₜ Cₜᵀ / mean(Rₜ),  uₜ = gₜ / √Vₜ

    R and C are the row and column means of the moving average M of gₜ² + ε, and V, in n + m numbers instead of nm, is
    the rank-one matrix that minimises the generalised Kullback–Leibler divergence Σ (M log(M/V) − M + V); a floor on
    mean(R) or V can change that. A vector keeps its full moment V. The decay βₜ starts at 0, so no bias correction is
    needed. Squares saturate at a quarter of the largest number of their dtype, so that a huge gradient gives a small
    step, never NaN.

    Args:
        decay_rate: c ≥ 0; 0 forgets everything at each step, 1 averages all squares.
        eps: ε ≥ 0, added to the squares. With `eps_is_floor`, ε is the lower bound of mean(R) and ε² that of V; None
            then takes the machine epsilon of the dtype.
        eps_is_floor: Whether ε bounds the moments from below, as in PyTorch, instead of being added.
        factored: False keeps the full moment of every leaf.
        axes: The axes used as rows and columns where a leaf has more than two: the last two, or the largest two.
        min_dim_size_to_factor: A leaf is factored if both of these axes are at least this long.
        dtype: dtype of the moments; None keeps the parameters'.

    Returns:
        A transformation whose output has the parameters' structure. Cost: two reads of the gradient; memory n + m for a
        matrix of n rows and m columns.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> tx = scale_by_factored_rms()
        >>> grads = jnp.outer(jnp.array([1.0, 10.0]), jnp.array([2.0, -3.0, 0.1]))  # its square has rank one
        >>> print(tx.update(grads, tx.init(grads))[0].round(5))
        [[ 1. -1.  1.]
         [ 1. -1.  1.]]

    References:
        Shazeer and Stern (2018), Adafactor: adaptive learning rates with sublinear memory cost, Algorithms 4 and 5;
        section 3 for the divergence, section 5.1 for c = .8 (βₜ of section 7.2), 1e-30 from section 9.
        `optax.scale_by_factored_rms` factors the largest two axes from 128 on; `torch.optim.Adafactor` the last two.
    """
    check_non_negative("scale_by_factored_rms", "decay_rate", decay_rate)
    if eps is not None:
        check_non_negative("scale_by_factored_rms", "eps", eps)
    elif not eps_is_floor:
        raise ValueError("scale_by_factored_rms needs eps to be a number, unless eps_is_floor is True; received None.")
    for name, value in (("eps_is_floor", eps_is_floor), ("factored", factored)):
        check_bool("scale_by_factored_rms", name, value)
    check_choice("scale_by_factored_rms", "axes", axes, ("last", "largest"))
    check_integer("scale_by_factored_rms", "min_dim_size_to_factor", min_dim_size_to_factor, 1)
    check_dtype("scale_by_factored_rms", dtype)

    def sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Return the axes of the rows and of the columns, or None if this leaf is not factored."""
        if not factored or len(shape) < 2:
            return None
        order = np.argsort(shape, kind="stable") if axes == "largest" else np.arange(len(shape))
        rows, columns = int(order[-2]), int(order[-1])
        return (rows, columns) if min(shape[rows], shape[columns]) >= min_dim_size_to_factor else None

    def start(p: Any) -> Any:
        kept, chosen = dtype or jnp.finfo(p.dtype).dtype, sides(p.shape)
        if chosen is None:
            return jnp.zeros_like(p, dtype=kept)
        without = lambda axis: jnp.zeros(tuple(np.delete(p.shape, axis).tolist()), dtype=kept)
        return FactoredMoment(without(chosen[1]), without(chosen[0]))

    def init(params: PyTree) -> FactoredRmsState:
        return FactoredRmsState(jax.tree.map(start, params), jnp.zeros((), dtype=jnp.int32))

    def scale(g: RealLeaf, moment: Any, fresh: Float[Array, ""]) -> tuple[RealLeaf, Any]:
        chosen, kept = sides(g.shape), jax.tree.leaves(moment)[0].dtype
        tiny = float(jnp.finfo(g.dtype).eps) if eps is None else cast(eps, kept)
        floor = jnp.asarray(tiny if eps_is_floor else 0, dtype=kept)
        square = jnp.square(g.astype(wider(g.dtype, kept)))
        # A square may overflow its dtype; it saturates, and the coordinate takes a small step.
        square = jnp.minimum(square, float(jnp.finfo(kept).max) / 4).astype(kept)
        square = square if eps_is_floor else square + tiny
        new = fresh.astype(kept)
        move = lambda old, x: (1 - new) * old + new * x
        if chosen is None:
            second = move(moment, square)
            factors = (_inverse_root(jnp.maximum(second, floor * floor)),)
        else:
            rows, columns = chosen
            left = rows - (columns < rows)  # the position of the rows' axis once the columns' axis is reduced
            second = FactoredMoment(move(moment.row, _mean(square, columns)), move(moment.column, _mean(square, rows)))
            middle = jnp.maximum(jnp.expand_dims(_mean(second.row, left), left), floor)
            relative = jnp.expand_dims(second.row / jnp.where(middle == 0, 1, middle), columns)
            column = jnp.expand_dims(second.column, rows)
            if eps_is_floor:
                factors = (_inverse_root(jnp.maximum(relative * column, floor * floor)),)
            else:  # their product may overflow where its root does not
                factors = (_inverse_root(relative), _inverse_root(column))
        out = g.astype(wider(g.dtype, kept))
        for factor in factors:
            out = out * factor.astype(out.dtype)
        return out.astype(g.dtype), second

    def update(
        updates: PyTree, state: FactoredRmsState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, FactoredRmsState]:
        count = increment(state.count)
        real = jnp.result_type(float)
        fresh = jnp.asarray(count, dtype=real) ** -jnp.asarray(decay_rate, dtype=real)
        leaves, structure = jax.tree.flatten(updates)
        scaled = [scale(g, m, fresh) for g, m in zip(leaves, structure.flatten_up_to(state.second), strict=True)]
        new, second = (jax.tree.unflatten(structure, [pair[i] for pair in scaled]) for i in (0, 1))
        return new, FactoredRmsState(second, count)

    return Transform(init, update)


@atom()
def clip_by_leaf_rms(max_rms: ScalarLike = 1.0) -> Transform:
    """Scale each leaf down to a given root mean square if its own is larger.

    u_l = g_l · min(1, d / RMS(g_l)),  RMS(g) = ‖g‖/√n for the n coordinates of a leaf

    Args:
        max_rms: d ≥ 0; infinity clips nothing.

    Returns:
        A stateless transformation. Cost: two more reads of the gradient.

    Raises:
        ValueError: If `max_rms` is negative.

    Example:
        >>> print(clip_by_leaf_rms(1.0).update(jnp.array([2.0, -2.0]), optax.EmptyState())[0])
        [ 1. -1.]

    References:
        Shazeer and Stern (2018), Adafactor, section 6 and Algorithm 4, line 10 (d = 1); `optax.clip_by_block_rms`.
    """
    check_limit("clip_by_leaf_rms", "max_rms", max_rms)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda g: shorten(g, _rms(g), max_rms), updates), state

    return Transform(optax.init_empty_state, update)


@atom(params=True)
def scale_by_param_rms(min_rms: ScalarLike = 1e-3) -> Transform:
    """Multiply each leaf by the root mean square of its parameters, so that steps are relative to them.

    u_l = g_l · max(ε, RMS(θ_l)),  RMS(θ) = ‖θ‖/√n for the n coordinates of a leaf

    Args:
        min_rms: ε > 0; without it, parameters that start at zero would never move.

    Returns:
        A stateless transformation. Cost: one read of the parameters.

    Raises:
        ValueError: If `min_rms` is not positive, or the update is called without parameters.

    Example:
        >>> print(scale_by_param_rms().update(jnp.ones(2), optax.EmptyState(), jnp.array([0.5, -0.5]))[0])
        [0.5 0.5]

    References:
        Shazeer and Stern (2018), Adafactor, section 8 and Algorithm 4, line 3 (ε₂ = 1e-3);
        `optax.scale_by_param_block_rms`.
    """
    check_interval("scale_by_param_rms", "min_rms", min_rms, 0.0, float("inf"), closed="()")

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        def scale(g: RealLeaf, p: RealLeaf) -> RealLeaf:
            size = _rms(p).value
            return jnp.maximum(size, cast(min_rms, size.dtype)).astype(g.dtype) * g

        return jax.tree.map(scale, updates, params), state

    return Transform(optax.init_empty_state, update)


def _rms(x: RealLeaf) -> Length:
    length = norm([x])
    return length._replace(relative=length.relative / float(np.sqrt(max(x.size, 1))))


def _mean(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    return jnp.sum(x / max(x.shape[axis], 1), axis=axis)  # divided first, so that it cannot overflow


def _inverse_root(x: RealLeaf) -> RealLeaf:
    """Return 1/√x, and 0 where x is 0: a coordinate without gradients takes no step."""
    nothing = x == 0
    return jnp.where(nothing, 0, 1 / jnp.sqrt(jnp.where(nothing, 1, x)))
