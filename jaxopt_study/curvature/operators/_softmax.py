"""Softmax cross-entropy of logits, with its Hessian in closed form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Integer

from jaxopt_study._checks import check_callable, describe_argument
from jaxopt_study.types import Batch, Matvec


@runtime_checkable
class KnownHessian(Protocol):
    """An output loss that knows its Hessian."""

    def __call__(self, outputs: Any, batch: Batch) -> Float[Array, ""]:
        """Return the loss."""
        ...

    def hessian(self, outputs: Any, batch: Batch) -> Matvec:
        """Return the product with the Hessian of the loss with respect to the outputs."""
        ...


def _targets_of(batch: Batch) -> Any:
    return batch["y"] if isinstance(batch, Mapping) else batch[-1]


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Mean cross-entropy of the softmax of logits, an output loss for `ggn` with its Hessian in closed form.

    With the logits z, p = softmax(z), and the weight w of an example or token,

        ℓ = Σ w (log Σ exp z − z_target),    ∇²ℓ u = w (p ∘ u − p (pᵀu))

    The Hessian does not depend on the targets, and is the same with label smoothing. Its product needs the logits and
    one more array of their size, while automatic differentiation stores a third. For logits of one axis of classes, w =
    1/N for N examples; with an axis of positions before it, each example has the mean of its targets that count, those
    that are not negative, as in `problems.networks.token_cross_entropy`.

    Attributes:
        targets: From a batch to its targets, integers; the default takes `batch["y"]`, or the last part of a tuple.

    Example:
        >>> from jaxopt_study.curvature import ggn
        >>> model = lambda params, batch: batch[0] @ params
        >>> data = (jnp.eye(2), jnp.array([0, 1]))
        >>> op = ggn(model, SoftmaxCrossEntropy(), jnp.zeros((2, 2)), data)
        >>> print(op.to_dense()[:2, :2])  # (diag p − p pᵀ)/2 with p = (½, ½)
        [[ 0.125 -0.125]
         [-0.125  0.125]]

    References:
        Schraudolph (2002), Fast Curvature Matrix-Vector Products, Neural Computation 14, section 3: the matching loss.
    """

    targets: Callable[[Any], Any] = _targets_of

    def __post_init__(self):
        check_callable("SoftmaxCrossEntropy", "targets", self.targets, expected="a function of a batch")

    def __call__(self, logits: Float[Array, "*shape classes"], batch: Batch) -> Float[Array, ""]:
        """Return the loss.

        Args:
            logits: Unnormalised scores, shape (examples, classes) or (examples, positions, tokens).
            batch: The batch with the targets.

        Returns:
            The mean in nats; NaN for a target that is none of the classes, as are negative ones of shape (examples,).

        Raises:
            TypeError: If the targets are not integers.
            ValueError: If their shape is not that of the logits without the last axis.
        """
        targets = self._checked(logits, batch)
        classes = logits.shape[-1]  # a target beyond them gives NaN
        places = jnp.where(targets < 0, classes if targets.ndim == 1 else 0, targets.astype(jnp.int32))
        chosen = jnp.take_along_axis(logits, places[..., None], axis=-1)[..., 0]
        return jnp.sum(_weights(targets, logits.dtype) * (jax.nn.logsumexp(logits, axis=-1) - chosen))

    def hessian(self, logits: Float[Array, "*shape classes"], batch: Batch) -> Matvec:
        """Return the product with the Hessian of the loss with respect to the logits.

        Args:
            logits: As in a call.
            batch: The batch with the targets, of which only the signs matter.

        Returns:
            u ↦ ∇²ℓ u, linear. Cost: two reads of the logits and of u.
        """
        weights = _weights(self._checked(logits, batch), logits.dtype)[..., None]
        return Partial(_curved, logits, jax.nn.logsumexp(logits, axis=-1, keepdims=True), weights)

    def _checked(self, logits: Any, batch: Batch) -> Integer[Array, "*shape"]:
        targets = self.targets(batch)
        try:
            targets = jnp.asarray(targets)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"SoftmaxCrossEntropy needs targets to be integers; received {describe_argument(targets)}."
            ) from error
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise TypeError(f"SoftmaxCrossEntropy needs targets to be integers; received {targets.dtype}.")
        if targets.ndim not in (1, 2) or targets.shape != jnp.shape(logits)[:-1]:
            raise ValueError(
                "SoftmaxCrossEntropy needs logits of shape (examples, classes) or (examples, positions, tokens), and "
                f"targets of the same shape without the last axis; received {jnp.shape(logits)} and {targets.shape}."
            )
        return targets


def _weights(targets: Integer[Array, "*shape"], dtype: Any) -> Float[Array, "*shape"]:
    if targets.ndim == 1:
        return jnp.full(targets.shape, 1 / max(targets.shape[0], 1), dtype)
    counted = (targets >= 0).astype(dtype)
    return counted / (jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1) * max(targets.shape[0], 1))


def _curved(
    logits: Float[Array, "*shape classes"],
    normaliser: Float[Array, "*shape 1"],
    weights: Float[Array, "*shape 1"],
    u: Float[Array, "*shape classes"],
) -> Float[Array, "*shape classes"]:
    p = jnp.exp(logits - normaliser)
    return weights * p * (u - jnp.sum(p * u, axis=-1, keepdims=True))
