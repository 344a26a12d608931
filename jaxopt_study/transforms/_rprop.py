"""Rprop: step sizes adapted by the signs of successive gradients."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import check_bool, check_choice
from jaxopt_study.transforms._constructors import atom
from jaxopt_study.transforms._expression import Transform
from jaxopt_study.transforms._leaves import RealLeaf
from jaxopt_study.transforms._scalars import ScalarLike, cast, check_interval, check_non_negative, concrete


class RpropState(NamedTuple):
    """Each coordinate's step size, and the sign of its last step."""

    size: optax.Updates  # Δₜ > 0, structure and dtypes of the parameters
    direction: (
        optax.Updates
    )  # the sign of the last gradient, 0 after a reversal; structure and dtypes of the parameters


@atom(state=RpropState)
def scale_by_rprop(
    initial: ScalarLike = 0.1,
    *,
    eta_minus: ScalarLike = 0.5,
    eta_plus: ScalarLike = 1.2,
    min_size: ScalarLike = 1e-6,
    max_size: ScalarLike = 50.0,
    on_reversal: Literal["undo", "rest"] = "undo",
    lagged: bool = False,
) -> Transform:
    """Replace each coordinate by its sign times a size that grows while the sign persists and shrinks when it flips.

    With sₜ the sign of gₜ, dₜ the remembered sign, and Δ₀ = initial, elementwise:

        dₜ₋₁ sₜ > 0: Δₜ = min(η₊ Δₜ₋₁, Δ_max),  uₜ = sₜ Δₜ,  dₜ = sₜ
        dₜ₋₁ sₜ < 0: Δₜ = max(η₋ Δₜ₋₁, Δ_min),  uₜ = −dₜ₋₁ Δₜ₋₁ (undo) or 0 (rest),  dₜ = 0
        dₜ₋₁ sₜ = 0: Δₜ = Δₜ₋₁,  uₜ = sₜ Δₜ,  dₜ = sₜ

    Use it with full batches: signs of mini-batch gradients do not average out. Only signs are multiplied, so gradients
    of 1e-30 and of 1e30 have the same effect. Sizes stay between the limits from the first step on.

    Args:
        initial: Δ₀ ≥ 0.
        eta_minus: η₋ in (0, 1).
        eta_plus: η₊ > 1.
        min_size: Δ_min ≥ 0.
        max_size: Δ_max ≥ 0.
        on_reversal: "undo" takes back a step that crossed a minimum (the paper); "rest" makes no step.
        lagged: Return the step of the previous update, and zero on a reversal, as Optax does.

    Returns:
        A transformation whose output has the parameters' structure. Cost: one read and one write of two arrays.

    Raises:
        ValueError: If an argument is out of range, or lagged steps are to be undone.

    Example:
        >>> tx = scale_by_rprop(0.1)
        >>> state = tx.init(jnp.zeros(2))
        >>> for g in [[4.0, 1.0], [1e-3, -1.0]]:
        ...     updates, state = tx.update(jnp.array(g), state)
        >>> print(updates.round(6))  # 1.2 times as far; the step taken back
        [ 0.12 -0.1 ]

    References:
        Riedmiller and Braun (1993), A direct adaptive method for faster backpropagation learning: the RPROP algorithm,
        section III (η₋ = .5, η₊ = 1.2, Δ₀ = .1, Δ_max = 50, Δ_min = 1e-6). Igel and Hüsken (2003), Empirical
        evaluation of the improved Rprop learning algorithms: "rest" is their iRprop⁻, and PyTorch's.
    """
    check_non_negative("scale_by_rprop", "initial", initial)
    check_interval("scale_by_rprop", "eta_minus", eta_minus, 0.0, 1.0, closed="()")
    check_interval("scale_by_rprop", "eta_plus", eta_plus, 1.0, float("inf"), closed="()")
    check_non_negative("scale_by_rprop", "min_size", min_size)
    least = concrete(min_size) or 0.0
    check_interval("scale_by_rprop", "max_size", max_size, least, float("inf"), remedy="It is at least min_size.")
    check_choice("scale_by_rprop", "on_reversal", on_reversal, ("undo", "rest"))
    check_bool("scale_by_rprop", "lagged", lagged)
    if lagged and on_reversal == "undo":
        raise ValueError(
            "scale_by_rprop: lagged=True cannot be combined with on_reversal='undo', because a lagged step has not "
            "been taken yet when it would be undone. Use on_reversal='rest'."
        )

    def init(params: PyTree) -> RpropState:
        return RpropState(
            jax.tree.map(lambda p: jnp.full_like(p, cast(initial, p.dtype)), params),
            jax.tree.map(jnp.zeros_like, params),
        )

    def move(g: RealLeaf, size: RealLeaf, direction: RealLeaf) -> tuple[RealLeaf, RealLeaf, RealLeaf]:
        sign = jnp.sign(g).astype(size.dtype)
        agreement = sign * direction
        factor = jnp.where(
            agreement > 0, cast(eta_plus, g.dtype), jnp.where(agreement < 0, cast(eta_minus, g.dtype), 1)
        )
        new_size = jnp.clip(size * factor, cast(min_size, size.dtype), cast(max_size, size.dtype))
        reverses = agreement < 0
        last = direction * size
        back = -last if on_reversal == "undo" else jnp.zeros_like(last)
        ahead = last if lagged else sign * new_size
        return jnp.where(reverses, back, ahead).astype(g.dtype), new_size, jnp.where(reverses, 0, sign)

    def update(updates: PyTree, state: RpropState, params: PyTree = None, **extra: Any) -> tuple[PyTree, RpropState]:
        leaves, structure = jax.tree.flatten(updates)
        parts = [leaves, *map(structure.flatten_up_to, (state.size, state.direction))]
        moved = [move(*leaf) for leaf in zip(*parts, strict=True)]
        new, size, direction = (jax.tree.unflatten(structure, [leaf[i] for leaf in moved]) for i in range(3))
        return new, RpropState(size, direction)

    return Transform(init, update)
