"""Hessian of a loss, as a linear operator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxopt_study._checks import check_bool, check_callable, check_choice
from jaxopt_study.curvature.operators._derivative_modes import MODES, Mode
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.operators._operator_of_data import Precision, operator_of_data
from jaxopt_study.types import Batch, LossFn, Params


def hessian(
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    remat: bool | None = None,
    precision: Precision = "highest",
) -> Operator:
    """Return the Hessian of a loss, as an operator that multiplies vectors like the parameters.

    At parameters θ and over the N examples of `data`, read in batches B:

        H v = d/dε ∇L(θ + ε v) |₀,   L(θ) = (1/N) Σ_B |B| loss(θ, B)

    A Hessian-vector product (HVP) differentiates the gradient forward: exact derivatives, no stored matrix. At kinks,
    such as those of ReLU, the operator is the Hessian of the smooth piece that contains θ. A loss whose kernels have
    a gradient but no forward derivative takes another `mode`, which "auto" finds.

    The loss must be a deterministic mean over the examples of its batch. Close over a fixed dropout key, and over
    running averages as batch statistics; cast parameters to bfloat16 inside the loss. Batch normalisation in training
    mode couples the examples of a batch: with `batch_size=None` the operator is the Hessian of the whole data set as
    one batch; with several batches it is not the Hessian of any loss, so a Linen `BatchNorm` in training mode raises.
    For any other loss, `audit` checks this.

    Args:
        loss: `loss(params, batch)`, a scalar; `batch` is None without data. Compiled programs are cached by the
            identity of the function, so pass the same function again instead of a new lambda.
        params: θ, a pytree of real floating arrays; sharded ones stay sharded.
        data: A pytree of arrays; with `batch_size` they have one common leading axis, the examples. Or anything that
            yields batches, the same ones every time: a loader of torch, tf.data, grain or Hugging Face, a list of
            tuples or dictionaries, or a function that returns an iterator. Such batches are read anew for every
            product, weighted by their examples, and one is on the device at a time.
        batch_size: Examples per batch; the last batch may be smaller. None takes all at once; where a product does not
            fit in the free memory, the error names a size that does. It must not change the loss, which `audit` checks.
            For data sharded over devices choose a multiple of their number.
        mode: "forward_over_reverse"; "reverse_over_reverse", which needs no forward derivative (`jax.custom_vjp`) and
            1.5 to 2 times the time and memory; "finite_difference", central differences of the gradient, which needs
            no second derivative (host callbacks, fused kernels): it costs two gradients, its step is chosen here in
            about 24 gradients of a batch, and its error, usually 1e-4 to 1e-2 in single precision, becomes the noise
            floor. "auto" is the first of these that the loss allows.
        has_aux: Whether the loss returns a pair `(loss, aux)`; aux is ignored.
        remat: True differentiates in every product and stores nothing between products; False linearises once for all
            products of a solve and stores the residuals. None is False, but True with `batch_size`, for a loss with
            `jax.checkpoint`, whose savings a linearisation would undo, and where a product takes more than an eighth of
            the free memory.
        precision: Matmul precision inside the loss, where the loss sets none itself. On GPUs and TPUs "default" means
            products of 8 to 11 significant bits, an error as large as many eigenvalues.

    Returns:
        The operator. Cost of a product on a CPU, in gradients of the loss over all data: 1.2 to 1.5 for dense ReLU
        networks, 1.0 to 1.3 for convolutional ones, about 2 with `remat`; the linearisation costs about one gradient.
        Memory: with `remat`, and for a single `op @ v`, twice that of the gradient of one batch, also with
        `jax.checkpoint` of the layers and a scan over them; without, the intermediate values of all N examples during
        the solve, about 18 bytes per activation in single precision.

    Raises:
        TypeError: If the loss does not take two arguments, does not return a real scalar, or has no derivative in this
            mode; if the parameters are not real floating arrays, or the data neither arrays nor batches that can be
            read again.
        ValueError: If there are no parameters, they are not finite or hold batch statistics, data or loss do not fit
            `batch_size`, or a product does not fit in memory.

    Example:
        >>> loss = lambda params, batch: jnp.mean((batch @ params["w"]) ** 2)
        >>> data = jnp.arange(6.0).reshape(3, 2)
        >>> op = hessian(loss, {"w": jnp.zeros(2)}, data, batch_size=2)  # the last batch has one example
        >>> print(jnp.allclose(op.to_dense(), 2 * data.T @ data / 3))
        True

    References:
        Pearlmutter (1994), Fast Exact Multiplication by the Hessian, Neural Computation 6.
    """
    check_choice("hessian", "mode", mode, tuple(MODES))
    if check_bool("hessian", "has_aux", has_aux):
        loss = _WithoutAux(check_callable("hessian", "loss", loss))
    return operator_of_data(MODES[mode](loss), params, data, batch_size=batch_size, remat=remat, precision=precision)


@dataclass(frozen=True)
class _WithoutAux:
    loss: Callable[..., Any]

    def __call__(self, params: Params, batch: Batch) -> Any:
        result = self.loss(params, batch)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                "loss of hessian must return a pair (loss, aux) with has_aux=True; received "
                f"{type(result).__name__}. Leave has_aux out for a loss alone."
            )
        return result[0]
