"""Generalised Gauss–Newton matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jax.tree_util import Partial

from jaxopt_study.curvature.operators._empirical_risk import BatchOperator
from jaxopt_study.curvature.operators._function_checks import check_scalar
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.operators._operator_of_data import Precision, operator_of_data
from jaxopt_study.curvature.operators._softmax import KnownHessian, SoftmaxCrossEntropy
from jaxopt_study.linalg.hvp import linearized, linearized_gradient
from jaxopt_study.types import Batch, Matvec, Params, Vector


def ggn(
    model: Callable[[Params, Any], Any],
    output_loss: Callable[[Any, Any], Any],
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    remat: bool | None = None,
    precision: Precision = "highest",
) -> Operator:
    """Return the generalised Gauss–Newton matrix of a convex loss of a model's outputs.

    With the Jacobian J of the model's outputs f and the Hessian of the output loss ℓ with respect to them, over the N
    examples of `data`, read in batches B:

        G v = (1/N) Σ_B |B| J_Bᵀ ∇²ℓ(f_B) J_B v

    G is the Hessian of the loss with the model replaced by its linearisation. If ℓ is convex, G has no negative
    eigenvalue and cannot show a saddle. For cross-entropy on logits and for squared error G is the Fisher matrix. The
    convexity of ℓ is not checked.

    ∇²ℓ is a product of automatic differentiation, or the closed form of an output loss that has one, such as
    `SoftmaxCrossEntropy`: a product then holds two arrays of the size of the logits instead of three, as a gradient.
    With `batch_size` they are those of a batch. Between the products of a solve the logits of all examples are kept,
    unless `remat` is True.

    Args:
        model: `model(params, batch)`, the outputs for a batch: an array, or a pytree of them.
        output_loss: `output_loss(outputs, batch)`, a scalar: the mean over the examples of the batch; for logits of
            many classes or tokens a `SoftmaxCrossEntropy`.
        params: θ, as in `hessian`.
        data: As in `hessian`.
        batch_size: As in `hessian`.
        remat: As in `hessian`.
        precision: As in `hessian`.

    Returns:
        The operator. Cost of a product: about 1.2 gradients, after a linearisation of less than one; memory as in
        `hessian`.

    Raises:
        TypeError: If a function does not take two arguments, the output loss is not a real scalar, the parameters are
            not real floating arrays, or the data no arrays.
        ValueError: If there are no parameters, they are not finite, or the data do not suit `batch_size`.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxopt_study.curvature import hessian
        >>> model = lambda params, batch: batch["x"] @ params
        >>> def output_loss(logits, batch):
        ...     return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()
        >>> batch = {"x": jnp.eye(3), "y": jnp.array([0, 1, 1])}
        >>> params = jnp.ones((3, 2))
        >>> full = hessian(lambda p, b: output_loss(model(p, b), b), params, batch)
        >>> print(jnp.allclose(ggn(model, output_loss, params, batch).to_dense(), full.to_dense()))  # a linear model
        True

    References:
        Schraudolph (2002), Fast Curvature Matrix-Vector Products, Neural Computation 14. Martens (2020), New Insights
        and Perspectives on the Natural Gradient Method, JMLR 21, sections 8 and 9.
    """
    return operator_of_data(
        _Ggn(model, output_loss), params, data, batch_size=batch_size, remat=remat, precision=precision
    )


@dataclass(frozen=True)
class _Ggn(BatchOperator):
    name: ClassVar[str] = "ggn"
    model: Callable[..., Any]
    output_loss: Callable[..., Any]

    @property
    def forward(self) -> Callable[..., Any]:
        return lambda params, batch: self.output_loss(self.model(params, batch), batch)

    def check(self, result: Any) -> None:
        check_scalar(self.name, "output_loss", result)

    @property
    def is_semidefinite(self) -> bool:
        return isinstance(self.output_loss, SoftmaxCrossEntropy)

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        outputs, forward = linearized(lambda p: self.model(combined(p), batch), params)
        if isinstance(self.output_loss, KnownHessian):
            curve = self.output_loss.hessian(outputs, batch)
        else:
            _, curve = linearized_gradient(lambda f: self.output_loss(f, batch), outputs)
        return Partial(_gauss_newton, forward, curve)


def _gauss_newton(forward: Matvec, curve: Matvec, v: Vector) -> Vector:
    return jax.linear_transpose(forward, v)(curve(forward(v)))[0]
