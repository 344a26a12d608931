"""Preconditioned sharpness: the largest eigenvalue in the optimizer's metric, beside its stability threshold."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from jaxopt_study._checks import check_key
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import jit_for_few_calls, nan_is_an_answer
from jaxopt_study.curvature import Bracket, sharpness
from jaxopt_study.dynamics import _cards
from jaxopt_study.dynamics._linearised_step import LinearStep, linear_step
from jaxopt_study.dynamics._scalar_model import companion_matrices
from jaxopt_study.dynamics._stability_limit import AT_REST
from jaxopt_study.dynamics._stability_threshold import thresholds
from jaxopt_study.dynamics._state_roles import leaf_paths
from jaxopt_study.dynamics._step_derivatives import preconditioner_diagonal
from jaxopt_study.dynamics._step_period import refuse_period
from jaxopt_study.dynamics._updates import check_optimizer
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, Key, LossFn, Params


class Preconditioner(NamedTuple):
    """The diagonal by which an optimizer divides the gradient, and the stability threshold in that metric.

    Attributes:
        diagonal: P, positive, like the parameters.
        threshold: Eigenvalue of P⁻¹H beyond which the step is unstable, from `stability_threshold`.
    """

    diagonal: Params
    threshold: float

    __repr__, _repr_html_ = displayed(_cards.preconditioner)


@partial(register_dataclass, data_fields=("bracket", "threshold"), meta_fields=())
@dataclass(frozen=True)
class PreconditionedSharpness:
    """Bounds on the largest eigenvalue of P^-½ H P^-½, with the stability threshold.

    Attributes:
        bracket: Bounds, residual and number of products, as from `curvature.sharpness`.
        threshold: Eigenvalue beyond which the step is unstable.
    """

    bracket: Bracket
    threshold: float

    __repr__, _repr_html_ = displayed(_cards.preconditioned_sharpness)
    plot = plotted

    @property
    def lower(self) -> float:
        """Lower bound on the largest eigenvalue."""
        return float(self.bracket.lower)

    @property
    def upper(self) -> float:
        """Upper bound, at the bracket's confidence."""
        return float(self.bracket.upper)

    @property
    def ratio(self) -> tuple[float, float]:
        """Bounds on sharpness / threshold: the step is stable below 1 and at the edge of stability at 1."""
        return self.lower / self.threshold, self.upper / self.threshold


@nan_is_an_answer
def preconditioned_sharpness(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    key: Key | None = None,
    batch_size: int | None = None,
    confidence: float = 0.99,
    tol: float = 0.01,
    max_matvecs: int = 64,
) -> PreconditionedSharpness:
    """Enclose the largest eigenvalue of the Hessian in the optimizer's metric, and compute the threshold.

    With the diagonal P of `preconditioner`, at the point where the optimizer takes its gradient:

        λmax(P^-½ H P^-½) / threshold = 1 at the edge of stability

    The bracket is about P as the step computes it, in the parameters' precision. A relative error δ of P changes the
    eigenvalue by at most a factor between 1 − δ and 1 + δ (Ostrowski).

    For gradient descent and momentum P = 1. The eigenvalue is not the growth rate of an unstable direction; `stability`
    computes that. Only positive curvature counts: an escape along negative curvature has no threshold.

    Args:
        optimizer: Any Optax transformation, or chain of this package, whose update is elementwise.
        opt_state: Its state after the last step.
        loss: loss(params, data) → scalar, without randomness.
        params: θ.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        key: Key of the random start; None for a fixed one.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        confidence: Probability that the upper bound holds.
        tol: Requested relative width of the bracket.
        max_matvecs: Largest number of products.

    Returns:
        Bracket and threshold. Cost: that of `curvature.sharpness`, and two gradients.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: As `preconditioner`, and `curvature.sharpness`.

    Example:
        >>> loss = lambda p, _: 0.5 * jnp.sum(jnp.array([50.0, 1.0]) * p**2)
        >>> tx, params = optax.sgd(0.05), jnp.ones(2)
        >>> result = preconditioned_sharpness(tx, tx.init(params), loss, params, key=jax.random.key(0))
        >>> print(f"{result.lower:.1f} {result.threshold:.1f} {result.ratio[0]:.2f}")
        50.0 40.0 1.25

    References:
        Cohen et al. (2022), Adaptive gradient methods at the edge of stability, section 3.
    """
    key = check_key("preconditioned_sharpness", jax.random.key(0) if key is None else key)
    with mesh_context(params):
        step, diagonal, threshold = preconditioned_step(
            "preconditioned_sharpness", optimizer, opt_state, loss, params, data, batch_size
        )
        op = step.curvature.precondition(diagonal)
        bracket = sharpness(op, key=key, confidence=confidence, tol=tol, max_matvecs=max_matvecs)
    return PreconditionedSharpness(bracket, threshold)


@nan_is_an_answer
def preconditioner(
    optimizer: Any,
    opt_state: Any,
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
) -> Preconditioner:
    """Compute the diagonal by which an optimizer divides the gradient.

    With second-moment buffers frozen at their values after the next step, an elementwise update has the step
    sensitivity dᵢ = ∂θᵢ′/∂gᵢ. With the sensitivity d⁰ of the same update where every second-moment buffer is 1:

        Pᵢ = d⁰ / dᵢ

    So P = 1 for gradient descent and every kind of momentum. For Adam Pᵢ = (√vᵢ + ε)/(1 + ε) once corrections are 1,
    for RMSprop and AdaGrad the same with their v and sum S. For groups of parameters with different thresholds (with
    different learning rates), P also contains the ratio of their threshold to the smallest. That is exact for groups
    that differ by a factor; for groups with different rules the smallest threshold is the conservative choice.

    Args:
        optimizer: Any Optax transformation, or chain of this package, whose update is elementwise.
        opt_state: Its state after the last step.
        loss: loss(params, data) → scalar; the next gradient updates the second-moment buffers and decides about clips.
        params: θ.
        data: Data of the loss: arrays, or batches that can be read again, as in `curvature.hessian`.
        batch_size: Examples per batch, or None.

    Returns:
        P and the threshold. For a coordinate that the optimizer does not move, P is a thousandth of the largest number.
        Cost: one gradient and a few updates.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: If the optimizer has a period of several steps, as inside `optax.MultiSteps`; if the update mixes
            coordinates, as an active clip by norm or a trust ratio does; if it is locally constant in the
            gradient, as a sign is; if it points along +gradient; or if the next update is zero for every gradient.

    Example:
        >>> tx, params = optax.rmsprop(0.1, decay=0.5, eps=0.0), jnp.array([3.0, 0.5])
        >>> result = preconditioner(tx, tx.init(params), lambda p, _: jnp.sum(p**2) / 2, params)
        >>> print(result.diagonal.round(4))  # √(½ g²)
        [2.1213 0.3536]
    """
    with mesh_context(params):
        _, diagonal, threshold = preconditioned_step(
            "preconditioner", optimizer, opt_state, loss, params, data, batch_size
        )
        return Preconditioner(diagonal, threshold)


def _step(
    name: str, optimizer: Any, opt_state: Any, loss: LossFn, params: Params, data: Any, batch_size: int | None
) -> LinearStep:
    check_concrete(name, opt_state, params, data)
    optimizer, opt_state, params = check_optimizer(name, optimizer, opt_state, params)
    refuse_period(name, optimizer, params, opt_state)
    return linear_step(optimizer, opt_state, loss, params, data, "statistics", batch_size, 1)


@nan_is_an_answer
def preconditioned_step(
    name: str, optimizer: Any, opt_state: Any, loss: LossFn, params: Params, data: Any, batch_size: int | None
) -> tuple[LinearStep, Params, float]:
    """Return the linearised step, the diagonal P and the threshold of `preconditioner`, for the function `name`."""
    step = _step(name, optimizer, opt_state, loss, params, data, batch_size)
    return step, *_preconditioner(name, step)


def _preconditioner(name: str, step: LinearStep) -> tuple[Params, float]:
    blocks = companion_matrices(name, step.optimizer, step.opt_state, step.params, 1)
    if not any(block.moves for block in blocks):
        raise ValueError(
            f"{name}: the next update is zero for every gradient, for example because the learning rate is 0. {AT_REST}"
        )
    group_thresholds = thresholds(blocks)
    threshold = min(group_thresholds)
    found = _sensitivities(step)
    leaves, structure = jax.tree.flatten(found.sensitivities)
    paths = leaf_paths(found.sensitivities)
    if not all(map(bool, found.finite)):
        raise ValueError(
            f"{name}: the derivative of the update with respect to the gradient is not finite at these parameters, as "
            "for a second-moment buffer of 0 with ε = 0, or for a gradient that is not finite. Use a positive ε, or "
            "parameters from before the run diverged."
        )
    if not bool(found.elementwise):
        raise ValueError(
            f"{name}: the update must be elementwise; received one that mixes coordinates here, as an active clip by a "
            "norm, a trust ratio or a matrix does. Use `stability`, or remove the clip from the chain."
        )
    factors = []
    groups = zip(paths, leaves, found.constant, found.ascending, blocks, group_thresholds, strict=True)
    for path, leaf, constant, ascending, block, own in groups:
        if not block.moves or not leaf.size:  # a frozen group, without a threshold
            factors.append((np.inf, 1.0))
            continue
        at = f" of params{path}" if path else ""
        if block.sensitivity == 0:
            raise ValueError(
                f"{name}: the update{at} is locally constant in the gradient, as a sign update or a delayed one is, so "
                "no preconditioner exists. Use `account_step` to examine single steps."
            )
        if bool(constant):
            raise ValueError(
                f"{name}: the update{at} is locally constant in the gradient at these parameters: a clip by value is "
                "active in every coordinate, or the gradient and its second-moment buffers are 0. Use a positive ε, "
                "remove the clip from the chain, or use `stability`."
            )
        if block.sensitivity > 0:
            raise ValueError(
                f"{name}: the update{at} points along +gradient (ascent). Change its sign, as scale_by_learning_rate "
                "does, or use `stability`."
            )
        if int(ascending):
            raise ValueError(
                f"{name}: the update{at} points along +gradient (ascent) in {int(ascending)} of {leaf.size} "
                "coordinates and along −gradient in others, so it has no positive preconditioner. Use `stability`."
            )
        factors.append((block.sensitivity, 1.0 if own == threshold else own / threshold))
    return structure.unflatten(_bounded(leaves, factors)), threshold


class _Sensitivities(NamedTuple):
    """Sensitivities of the step to the gradient, and what is to be known of each leaf."""

    sensitivities: Params  # ∂θ′ᵢ/∂gᵢ
    elementwise: Bool[Array, ""]  # whether ∂θ′/∂g is diagonal
    finite: list[Bool[Array, ""]]
    constant: list[Bool[Array, ""]]  # whether all are 0
    ascending: list[Int[Array, ""]]  # number of positive ones


@jit_for_few_calls
def _sensitivities(step: LinearStep) -> _Sensitivities:
    found, elementwise = preconditioner_diagonal(step.at_point(), step.like)
    leaves = jax.tree.leaves(found)
    return _Sensitivities(
        found,
        elementwise,
        [jnp.isfinite(leaf).all() for leaf in leaves],
        [~jnp.any(leaf != 0) for leaf in leaves],
        [jnp.sum(leaf > 0) for leaf in leaves],
    )


@jax.jit
def _bounded(leaves: list[Float[Array, "..."]], factors: list[tuple[ScalarLike, ScalarLike]]) -> list[Any]:
    """Return weight · sensitivity / leaf for pairs of sensitivity and weight, bounded where a coordinate is at rest."""

    def of_leaf(leaf: Float[Array, "*shape"], sensitivity: ScalarLike, weight: ScalarLike) -> Float[Array, "*shape"]:
        wide = leaf.astype(vectors.accumulator(leaf.dtype))  # half precision has no reciprocal of a small one
        largest = 1e-3 * float(jnp.finfo(wide.dtype).max)
        relative = wide / sensitivity
        inverse = jnp.where(relative > 0, weight / jnp.where(relative > 0, relative, 1), largest)
        return jnp.clip(inverse, float(jnp.finfo(wide.dtype).tiny), largest)

    return [of_leaf(leaf, *factor) for leaf, factor in zip(leaves, factors, strict=True)]
