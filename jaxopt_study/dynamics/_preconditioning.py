"""Sharpness as the optimizer sees it, in the unit of its threshold."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from jaxopt_study._checks import check_key
from jaxopt_study._programs import nan_is_an_answer
from jaxopt_study.curvature import Bracket, sharpness
from jaxopt_study.dynamics._linearised_step import LinearStep, linear_step, preconditioner_diagonal
from jaxopt_study.dynamics._scalar_model import recursions
from jaxopt_study.dynamics._stability_limit import AT_REST
from jaxopt_study.dynamics._stability_threshold import thresholds
from jaxopt_study.dynamics._state_roles import leaf_paths
from jaxopt_study.dynamics._step_period import refuse_period
from jaxopt_study.dynamics._updates import check_optimizer
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.linalg.sharding import mesh_context
from jaxopt_study.types import Batch, Key, LossFn, Params


class Preconditioner(NamedTuple):
    """The diagonal by which an optimizer divides, and the curvature it bears in that metric.

    Attributes:
        diagonal: P, positive, like the parameters.
        threshold: λ of P⁻¹H beyond which the step is unstable, from `stability_threshold`.
    """

    diagonal: Params
    threshold: float


@partial(register_dataclass, data_fields=("bracket", "threshold"), meta_fields=())
@dataclass(frozen=True)
class PreconditionedSharpness:
    """The largest eigenvalue of P^-½ H P^-½ between two bounds, beside the threshold.

    Attributes:
        bracket: Both bounds, the residual and the number of products, as from `curvature.sharpness`.
        threshold: The eigenvalue beyond which the step is unstable.
    """

    bracket: Bracket
    threshold: float

    @property
    def lower(self) -> float:
        """The lower bound on the largest eigenvalue."""
        return float(self.bracket.lower)

    @property
    def upper(self) -> float:
        """The upper bound, at the bracket's confidence."""
        return float(self.bracket.upper)

    @property
    def ratio(self) -> tuple[float, float]:
        """Bounds on sharpness / threshold: below 1 the step is stable, at 1 it is at the edge."""
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
    """Enclose the largest eigenvalue of the Hessian in the optimizer's own metric, beside the threshold.

    With the diagonal P of `preconditioner`, at the point where the optimizer takes its gradient:

        λmax(P^-½ H P^-½) / threshold = 1 at the edge of stability

    The bracket is about P as the step computes it, in the parameters' precision. In double precision P may be another:
    where a change by a factor between 1 − δ and 1 + δ is possible, so is such a change of the eigenvalue (Ostrowski).

    For gradient descent and momentum P = 1. Where P is not constant, the eigenvalue does not say how fast an unstable
    direction grows; `stability` does. It counts positive curvature only: an escape along a negative one has no
    threshold.

    Args:
        optimizer: Any Optax transformation, or chain of this package, whose update is elementwise.
        opt_state: Its state, as the last step left it.
        loss: loss(params, data) → scalar, without randomness.
        params: θ.
        data: What the loss is taken over.
        key: For the start vector; None for the same one every time.
        batch_size: Examples per batch, if the loss, a mean over examples, shall be read in batches; None for all.
        confidence: Probability of the upper bound.
        tol: Width of the bracket asked for, relative.
        max_matvecs: Products allowed.

    Returns:
        Bracket and threshold. Cost: that of `curvature.sharpness`, and two gradients.

    Raises:
        TypeError: If the optimizer, the parameters or the loss are of the wrong kind, or arrays are traced.
        ValueError: As `preconditioner`, and `curvature.sharpness`.

    Example:
        >>> loss = lambda p, _: 0.5 * jnp.sum(jnp.array([50.0, 1.0]) * p**2)
        >>> tx, params = optax.sgd(0.05), jnp.ones(2)
        >>> found = preconditioned_sharpness(tx, tx.init(params), loss, params, key=jax.random.key(0))
        >>> print(f"{found.lower:.1f} {found.threshold:.1f} {found.ratio[0]:.2f}")
        50.0 40.0 1.25

    References:
        Cohen et al. (2022), Adaptive gradient methods at the edge of stability, section 3.
    """
    key = check_key("preconditioned_sharpness", jax.random.key(0) if key is None else key)
    with mesh_context(params):
        step = _step("preconditioned_sharpness", optimizer, opt_state, loss, params, data, batch_size)
        diagonal, threshold = _preconditioner("preconditioned_sharpness", step)
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
    """Read from an optimizer the diagonal by which it divides the gradient.

    With its statistics frozen at what the coming step makes of them, an elementwise update answers a small change of
    the gradient coordinate by coordinate, with gain dᵢ = ∂θᵢ′/∂gᵢ, whatever its atoms are called. With the gain d⁰ of
    the same update where every statistic is 1:

        Pᵢ = d⁰ / dᵢ

    So P = 1 for gradient descent and every kind of momentum. For Adam Pᵢ = (√vᵢ + ε)/(1 + ε) once corrections are 1,
    for RMSprop and AdaGrad the same with their v and sum S. Where parameters have thresholds of their own (groups with
    different learning rates), P also carries the ratio of their threshold to the smallest. That is exact where groups
    differ by a factor; where they follow different recursions, the smallest threshold is the cautious choice.

    Args:
        optimizer: Any Optax transformation, or chain of this package, whose update is elementwise.
        opt_state: Its state, as the last step left it.
        loss: loss(params, data) → scalar: the coming gradient moves the statistics once more, and decides what a clip
            does.
        params: θ.
        data: What the loss is taken over.
        batch_size: Examples per batch, or None.

    Returns:
        P and the threshold. A coordinate that the optimizer does not move has the largest P that leaves squares finite.
        Cost: one gradient and a few updates.

    Raises:
        TypeError: If the optimizer, the parameters or the loss are of the wrong kind, or arrays are traced.
        ValueError: If the optimizer does not do the same in every step, as inside `optax.MultiSteps`; if the update
            mixes coordinates, as an active clip by norm or a trust ratio does; if it does not answer to small changes
            of the gradient, as a sign does not; if it goes up the gradient; or if the coming step does not move the
            parameters at all.

    Example:
        >>> tx, params = optax.rmsprop(0.1, decay=0.5, eps=0.0), jnp.array([3.0, 0.5])
        >>> found = preconditioner(tx, tx.init(params), lambda p, _: jnp.sum(p**2) / 2, params)
        >>> print(found.diagonal.round(4))  # √(½ g²)
        [2.1213 0.3536]
    """
    with mesh_context(params):
        step = _step("preconditioner", optimizer, opt_state, loss, params, data, batch_size)
        return Preconditioner(*_preconditioner("preconditioner", step))


def _step(
    name: str, optimizer: Any, opt_state: Any, loss: LossFn, params: Params, data: Any, batch_size: int | None
) -> LinearStep:
    check_concrete(name, opt_state, params, data)
    optimizer, opt_state, params = check_optimizer(name, optimizer, opt_state, params)
    refuse_period(name, optimizer, params, opt_state)
    return linear_step(optimizer, opt_state, loss, params, data, "statistics", batch_size, 1)


def _preconditioner(name: str, step: LinearStep) -> tuple[Params, float]:
    blocks = recursions(name, step.optimizer, step.opt_state, step.params, 1)
    if not any(block.moves for block in blocks):
        raise ValueError(
            f"{name}: the coming step does not move the parameters, whatever the gradient, as at a learning rate of 0, "
            f"so every curvature is stable and nothing is divided. {AT_REST}"
        )
    borne = thresholds(blocks)
    threshold = min(borne)
    gains, diagonal = _gains(step)
    leaves, structure = jax.tree.flatten(gains)
    paths = leaf_paths(gains)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in leaves):
        raise ValueError(
            f"{name}: the update's response to the gradient is not finite at these parameters, as where it divides by "
            "a statistic of 0 with ε = 0, or the gradient is not finite. Use a positive ε, or parameters from before "
            "the run diverged."
        )
    if not bool(diagonal):
        raise ValueError(
            f"{name}: the update mixes coordinates here, as an active clip by a norm, a trust ratio or a matrix does, "
            "so it is no diagonal preconditioner. Use `stability`, which needs none, or take the clip out of the chain."
        )
    parts = []
    for path, leaf, block, own in zip(paths, leaves, blocks, borne, strict=True):
        if not block.moves or not leaf.size:  # a frozen group: no curvature of its own is too large
            parts.append(_bounded(jnp.zeros_like(leaf), 1.0))
            continue
        at = f" of params{path}" if path else ""
        if block.preconditioner == 0:
            raise ValueError(
                f"{name}: the update{at} does not answer to small changes of the gradient, as where only the "
                "gradient's sign counts or it acts later, so there is nothing that it divides by. Use `account_step` "
                "to see what its steps do."
            )
        if not bool(jnp.any(leaf != 0)):
            raise ValueError(
                f"{name}: the update{at} does not answer to small changes of the gradient here, though it does "
                "elsewhere: a clip by value is active in every coordinate, or the gradient and its statistics are 0. "
                "Use a positive ε, take the clip out of the chain, or use `stability`."
            )
        if block.preconditioner > 0:
            raise ValueError(
                f"{name}: the update{at} goes up the gradient. Turn its sign, as scale_by_learning_rate does, or use "
                "`stability`."
            )
        relative = leaf / block.preconditioner
        if bool(jnp.any(relative < 0)):
            raise ValueError(
                f"{name}: the update{at} goes up the gradient in {int(jnp.sum(relative < 0))} of {leaf.size} "
                "coordinates here, and down in others, so it is no preconditioner. Use `stability`, which needs none."
            )
        weight = 1.0 if own == threshold else own / threshold
        parts.append(_bounded(relative, weight))
    return structure.unflatten(parts), threshold


@jax.jit
def _gains(step: LinearStep) -> tuple[Any, Any]:
    return preconditioner_diagonal(step.at_point(), step.like)


def _bounded(relative: Any, weight: float) -> Any:
    """Return weight / relative, finite where an unmoved coordinate divides by 0."""
    largest = 1e-3 * float(jnp.finfo(relative.dtype).max)
    inverse = jnp.where(relative > 0, weight / jnp.where(relative > 0, relative, 1), largest)
    return jnp.clip(inverse, float(jnp.finfo(relative.dtype).tiny), largest).astype(relative.dtype)
