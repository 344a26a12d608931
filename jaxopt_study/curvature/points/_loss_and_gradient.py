"""Loss and gradient at the parameters of a Hessian, over the same data in the same batches."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study.curvature.operators._empirical_risk import EmpiricalRiskOperator
from jaxopt_study.curvature.operators._streamed_operator import LossOperator
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Params, Vector


def loss_at(op: EmpiricalRiskOperator, params: Params) -> Float[Array, ""]:
    """Return the loss of a Hessian at other parameters; for use inside a trace."""
    return op.mean(lambda batch: op.batch_operator.loss(params, batch))


def value_and_gradient(op: LossOperator, params: Params) -> tuple[Float[Array, ""], Vector]:
    """Return the loss of a Hessian and its gradient at other parameters; inside a trace for data in arrays only."""
    return op.mean_over_data(lambda part: _value_and_gradient(part, params))


def slope(op: LossOperator) -> tuple[Float[Array, ""], Vector, Vector]:
    """Return loss, gradient g and Hg/‖g‖ at the operator's parameters (Hg scales as the square of the loss)."""
    if isinstance(op, EmpiricalRiskOperator):
        return _slope(op)
    value, g = value_and_gradient(op, op.params)
    return value, g, op @ vectors.normalize(g)[0]


@jax.jit
def _slope(op: EmpiricalRiskOperator) -> tuple[Float[Array, ""], Vector, Vector]:
    value, g = value_and_gradient(op, op.params)
    return value, g, op.matvec(vectors.normalize(g)[0])


def losses(op: LossOperator, points: Params) -> Float[Array, " b"]:
    """Return the losses at a block of parameters, computed one after another."""
    if op.loop == "host":
        length = jax.tree.leaves(points)[0].shape[0]
        rows = [jax.tree.map(lambda leaf, i=i: leaf[i], points) for i in range(length)]
        return op.mean_over_data(lambda part: jnp.stack([_loss(part, row) for row in rows]))
    return _losses(op, points)


@jax.jit
def _value_and_gradient(op: EmpiricalRiskOperator, params: Params) -> tuple[Float[Array, ""], Vector]:
    return op.mean(lambda batch: jax.value_and_grad(lambda p: op.batch_operator.loss(p, batch))(params))


_loss = jax.jit(loss_at)
_losses = jax.jit(lambda op, points: lax.map(partial(loss_at, op), points))
