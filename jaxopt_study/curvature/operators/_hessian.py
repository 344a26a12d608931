"""Operators of a loss: Hessian, generalised Gauss–Newton matrix, empirical Fisher matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxopt_study.curvature.operators._empirical_risk import BatchOperator, check_scalar, empirical_risk_operator
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg.hvp import linearized, linearized_gradient
from jaxopt_study.types import Batch, LossFn, Matvec, Params, Vector

Precision = Literal["highest", "high", "default"]


def hessian(
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    remat: bool | None = None,
    precision: Precision = "highest",
) -> Operator:
    """Return the Hessian of a loss, as an operator that multiplies vectors like the parameters.

    At parameters θ and over the N examples of `data`, read in batches B:

        H v = d/dε ∇L(θ + ε v) |₀,   L(θ) = (1/N) Σ_B |B| loss(θ, B)

    A Hessian-vector product (HVP) differentiates the gradient forward: exact derivatives, no finite differences, no
    stored matrix. A loss with a `jax.custom_vjp`, which has no forward derivative, is differentiated backward twice. At
    kinks, such as those of ReLU, the operator is the Hessian of the smooth piece that contains θ.

    The loss must be a deterministic mean over the examples of its batch. Close over a fixed dropout key, and over
    running averages as batch statistics. Batch normalisation in training mode couples the examples of a batch: with
    `batch_size=None` the operator is the Hessian of the whole data set as one batch; with several batches it is not the
    Hessian of any loss, so a Linen `BatchNorm` in training mode raises. For any other loss, `audit` checks this.

    Args:
        loss: `loss(params, batch)`, a scalar; `batch` is None without data. Compiled programs are cached by the
            identity of the function, so pass the same function again instead of a new lambda.
        params: θ, a pytree of real floating arrays; sharded ones stay sharded.
        data: A pytree of arrays; with `batch_size` they have one common leading axis, the examples.
        batch_size: Examples per batch; the last batch may be smaller. None takes all at once. It must not change the
            loss, which `audit` checks. For data sharded over devices choose a multiple of their number.
        remat: True linearises in every product and stores nothing between products; False linearises once for all
            products of a solve and stores the residuals. None is False without `batch_size`, True with it.
        precision: Matmul precision inside the loss, where the loss sets none itself. On GPUs and TPUs "default" means
            products of 8 to 11 significant bits, an error as large as many eigenvalues.

    Returns:
        The operator. Cost of a product on a CPU, in gradients of the loss over all data: 1.2 to 1.5 for dense ReLU
        networks, 1.0 to 1.3 for convolutional ones, about 2 with `remat`; the linearisation costs about one gradient.
        Memory: with `remat`, twice that of the gradient of one batch; without, the intermediate values of all N
        examples during the solve, about 18 bytes per activation in single precision. `jax.checkpoint` of the layers
        reduces either.

    Raises:
        TypeError: If the loss does not take two arguments or does not return a real scalar, the parameters are not
            real floating arrays, or the data are not arrays.
        ValueError: If there are no parameters, they are not finite or hold batch statistics, or data or loss do not fit
            `batch_size`.

    Example:
        >>> loss = lambda params, batch: jnp.mean((batch @ params["w"]) ** 2)
        >>> data = jnp.arange(6.0).reshape(3, 2)
        >>> op = hessian(loss, {"w": jnp.zeros(2)}, data, batch_size=2)  # the last batch has one example
        >>> print(jnp.allclose(op.to_dense(), 2 * data.T @ data / 3))
        True

    References:
        Pearlmutter (1994), Fast Exact Multiplication by the Hessian, Neural Computation 6.
    """
    return empirical_risk_operator(Hessian(loss), params, data, batch_size=batch_size, remat=remat, precision=precision)


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

    Args:
        model: `model(params, batch)`, the outputs for a batch: an array, or a pytree of them.
        output_loss: `output_loss(outputs, batch)`, a scalar: the mean over the examples of the batch.
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
        >>> import optax
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
    return empirical_risk_operator(
        _Ggn(model, output_loss), params, data, batch_size=batch_size, remat=remat, precision=precision
    )


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
    return empirical_risk_operator(
        _Fisher(losses), params, data, batch_size=batch_size, remat=remat, precision=precision
    )


@dataclass(frozen=True)
class Hessian(BatchOperator):
    """The Hessian of a loss over one batch."""

    name: ClassVar[str] = "hessian"
    loss: Callable[..., Any]

    @property
    def forward(self) -> Callable[..., Any]:
        """The loss itself."""
        return self.loss

    def check(self, result: Any) -> None:
        """Raise unless the result is a real scalar."""
        check_scalar(self.name, "loss", result)

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        """Return the linearised gradient."""
        return linearized_gradient(lambda p: self.loss(combined(p), batch), params)[1]


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

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        outputs, forward = linearized(lambda p: self.model(combined(p), batch), params)
        _, curve = linearized_gradient(lambda f: self.output_loss(f, batch), outputs)
        return Partial(_gauss_newton, forward, curve)


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

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        _, forward = linearized(lambda p: self.losses(combined(p), batch), params)
        return Partial(_second_moment, forward)


def _gauss_newton(forward: Matvec, curve: Matvec, v: Vector) -> Vector:
    return jax.linear_transpose(forward, v)(curve(forward(v)))[0]


def _second_moment(forward: Matvec, v: Vector) -> Vector:
    slopes = forward(v)
    return jax.linear_transpose(forward, v)(slopes / slopes.shape[0])[0]
