"""Empirical Fisher matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxopt_study.curvature.operators._empirical_risk import BatchOperator
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.operators._operator_of_data import Precision, operator_of_data
from jaxopt_study.linalg.hvp import linearized
from jaxopt_study.types import Batch, Matvec, Params, Vector


def empirical_fisher(
    losses: Callable[[Params, Any], Any],
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    remat: bool | None = None,
    precision: Precision = "highest",
) -> Operator:
    """Return the empirical Fisher matrix: the second moment of the gradients of the examples.

    With gᵢ the gradient of the loss of example i:

        F v = (1/N) Σᵢ gᵢ (gᵢᵀ v)

    F is not centred: at a minimum it is the covariance of the gradient noise, elsewhere it also contains ∇L ∇Lᵀ. It
    differs from the Fisher matrix and the Gauss–Newton matrix, which average over labels drawn from the model.

    Args:
        losses: `losses(params, batch)`, the losses of the examples, an array (n,) for a batch of n; not their mean.
        params: θ, as in `hessian`.
        data: As in `hessian`.
        batch_size: As in `hessian`.
        remat: As in `hessian`.
        precision: As in `hessian`.

    Returns:
        The operator. Cost of a product: about 1.2 gradients, after a linearisation of less than one; memory as in
        `hessian`. Gradients of examples are never stored.

    Raises:
        TypeError: If `losses` does not take two arguments or does not return one real number per example, the
            parameters are not real floating arrays, or the data no arrays.
        ValueError: If there are no parameters, they are not finite, or the data do not suit `batch_size`.

    Example:
        >>> losses = lambda params, batch: batch @ params  # the gradients are the rows of the batch
        >>> data = jnp.array([[1.0, 0.0], [1.0, 2.0]])
        >>> print(empirical_fisher(losses, jnp.zeros(2), data).to_dense())
        [[1. 1.]
         [1. 2.]]

    References:
        Kunstner, Balles and Hennig (2019), Limitations of the Empirical Fisher Approximation for Natural Gradient
        Descent, section 2.
    """
    return operator_of_data(_Fisher(losses), params, data, batch_size=batch_size, remat=remat, precision=precision)


@dataclass(frozen=True)
class _Fisher(BatchOperator):
    name: ClassVar[str] = "empirical_fisher"
    losses: Callable[..., Any]

    @property
    def forward(self) -> Callable[..., Any]:
        return self.losses

    def check(self, result: Any) -> None:
        leaves = jax.tree.leaves(result)
        if len(leaves) != 1 or leaves[0].ndim != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
            raise TypeError(
                "losses of empirical_fisher must return one real number per example, an array (n,); received "
                f"{[f'{leaf.dtype}{list(leaf.shape)}' for leaf in leaves]}. Remove the mean over the examples; make "
                "the losses of a batch from a loss of one example with jax.vmap(loss, in_axes=(None, 0))."
            )

    @property
    def is_semidefinite(self) -> bool:
        return True

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        _, forward = linearized(lambda p: self.losses(combined(p), batch), params)
        return Partial(_second_moment, forward)


def _second_moment(forward: Matvec, v: Vector) -> Vector:
    slopes = forward(v)
    return jax.linear_transpose(forward, v)(slopes / slopes.shape[0])[0]
