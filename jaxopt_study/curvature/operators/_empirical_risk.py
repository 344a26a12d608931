"""Operators of an empirical risk: the mean over all examples of an operator that a batch defines."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
from jax import lax
from jax.tree_util import Partial

from jaxopt_study.curvature.operators._batches import batch_mean, batches_of, num_examples
from jaxopt_study.curvature.operators._operator import Loop, Operator
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_vector, describe
from jaxopt_study.linalg.partition import combine, partition
from jaxopt_study.types import Batch, Matvec, Params, Vector


@dataclass(frozen=True)
class BatchOperator(ABC):
    """The operator that one batch defines; its fields without defaults are the user's functions.

    Equality is by value, so a second operator of the same functions is not compiled again.
    """

    name: ClassVar[str]  # public name, for messages

    @property
    @abstractmethod
    def forward(self) -> Callable[..., Any]:
        """The function of parameters and a batch that is traced to check the operator."""

    @property
    def is_semidefinite(self) -> bool:
        """Whether no eigenvalue can be negative."""
        return False

    @abstractmethod
    def check(self, result: Any) -> None:
        """Raise unless the abstract result of `forward` is valid."""

    @abstractmethod
    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        """Return v ↦ H v for one batch; `combined(params)` is the tree with all leaves."""

    def once(self, combined: Callable[[Params], Params], params: Params, batch: Batch, v: Vector) -> Vector:
        """Return H v for one batch, with nothing stored for other products."""
        return self(combined, params, batch)(v)

    def settled(self, op: "EmpiricalRiskOperator", program: Any) -> "EmpiricalRiskOperator":
        """Return the finished operator, given the traced program of `forward`."""
        return op


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "frozen", "data"),
    meta_fields=(
        "batch_operator",
        "structure",
        "mask",
        "shardings",
        "batch_size",
        "shard_interleaved",
        "remat",
        "matmul",
        "loop_kind",
        "called_from_python",
    ),
)
@dataclass(frozen=True, eq=False, repr=False)
class EmpiricalRiskOperator(Operator):
    """The mean over all examples of the operator that a batch defines.

    Attributes:
        params: The leaves of θ that belong to a vector; None for the others.
        frozen: The other leaves of θ.
        data: The examples.
        batch_operator: The operator that one batch defines.
        structure: The tree definition of all parameters.
        mask: Mask of the leaves in `params`.
        shardings: Sharding of each leaf of `params`.
        batch_size: Examples per batch; None for all.
        shard_interleaved: Whether batches take examples of all devices.
        remat: Whether each product linearises again.
        matmul: The matmul precision.
        loop_kind: The kind of loop that runs fastest: "host" for XLA's convolutions on a CPU.
        called_from_python: Whether products are called from Python by choice, whatever `loop_kind` is.
    """

    params: Params
    frozen: Params
    data: Batch
    batch_operator: Any  # a `BatchOperator`
    structure: Any
    mask: tuple[bool, ...]
    shardings: tuple[Any, ...]
    batch_size: int | None
    shard_interleaved: bool
    remat: bool
    matmul: str
    loop_kind: Loop
    called_from_python: bool = False

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a vector."""
        return describe(self.params, self.shardings)

    @property
    def loop(self) -> Loop:
        """Kind of loop for many products."""
        return "host" if self.called_from_python else self.loop_kind

    @property
    def precision(self) -> str:
        """Matmul precision of the loss."""
        return self.matmul

    @property
    def loss(self) -> Callable[[Params, Batch], Any]:
        """The loss of a Hessian."""
        return self.batch_operator.loss

    @property
    def product_error(self) -> float:
        """Error of a product relative to ‖H‖, beyond rounding: that of finite differences."""
        return getattr(self.batch_operator, "error", 0.0)

    @property
    def is_semidefinite(self) -> bool:
        """Whether it is known that no eigenvalue is negative."""
        return self.batch_operator.is_semidefinite

    @property
    def is_linearized(self) -> bool:
        """Whether `linearize` returns a program of `jax.linearize`."""
        return not self.remat

    @property
    def is_batched(self) -> bool:
        """Whether a product sums over several batches of data."""
        return self.batch_size is not None and self.batch_size < num_examples(self.data)

    def linearize(self) -> Matvec:
        """Differentiate the loss once, or with `remat` in every product, and return v ↦ H v for the same trace.

        Returns:
            The product.
        """
        if self.remat:
            return Partial(EmpiricalRiskOperator._rematerialised, self)
        if not self.is_batched:
            return self._of_batch(self.params, self.data)
        # A scan that is linear in v is linearised as a whole: residuals of each batch are stacked, and residuals that
        # depend on no batch (the weights) are stored once.
        mean_product = lambda v: self.mean(lambda batch: self._of_batch(self.params, batch)(v))
        return jax.linearize(mean_product, vectors.zeros_like(self.like))[1]

    def matvec(self, v: Vector) -> Vector:
        """Return H v, with nothing stored for other products; for use inside a trace."""
        return self._single(self.params, check_vector(self.like, v))

    def product(self) -> Matvec:
        """Linearise once and return a compiled v ↦ H v, with a Python loop over batches if `loop` is "host".

        Returns:
            A function of a vector, which is not checked.
        """
        if self.loop == "compiled" or self.batch_size is None or not self.is_batched:
            # The program does not depend on who calls it, so it is compiled once for both.
            return super(EmpiricalRiskOperator, replace(self, called_from_python=False)).product()
        parts = [
            (share, replace(self, data=batch, batch_size=None).product())
            for share, batch in batches_of(self.data, self.batch_size)
        ]

        def product(v: Vector) -> Vector:
            total = jax.tree.map(lambda x: x.astype(vectors.accumulator(x.dtype)), vectors.zeros_like(self.like))
            for share, part in parts:
                total = jax.tree.map(lambda s, x, share=share: s + share * x.astype(s.dtype), total, part(v))
            return jax.tree.map(lambda s, x: s.astype(x.dtype), total, self.like)

        return product

    def other_batches(self) -> Operator | None:
        """Return the same operator with smaller batches of the same data; None if that is impossible.

        Returns:
            The operator.
        """
        leaves = jax.tree.leaves(self.data)
        if not leaves or any(x.ndim == 0 or x.shape[0] != leaves[0].shape[0] for x in leaves) or len(leaves[0]) < 2:
            return None
        size = min(self.batch_size or len(leaves[0]), len(leaves[0]))
        # An odd number, about two thirds: examples that a loss couples in pairs are then separated.
        return replace(self, batch_size=2 if size == 1 else (2 * size // 3 - 1) | 1)

    def mean(self, function: Callable[[Batch], Any]) -> Any:
        """Return the mean over all examples of a function that is a mean over a batch; for use inside a trace.

        Args:
            function: From a batch to a pytree of floating arrays.

        Returns:
            The mean, from the batches of a product and at the matmul precision of the loss.
        """
        with jax.default_matmul_precision(self.matmul):
            return batch_mean(function, self.data, self.batch_size, shard_interleaved=self.shard_interleaved)

    def _of_batch(self, params: Params, batch: Batch) -> Matvec:
        with jax.default_matmul_precision(self.matmul):
            return self.batch_operator(self._combined, params, batch)

    def _single(self, params: Params, v: Vector) -> Vector:
        return self.mean(lambda batch: self.batch_operator.once(self._combined, params, batch, v))

    def _rematerialised(self, v: Vector) -> Vector:
        # Without the barrier XLA would move the linearisation, which is the same in every iteration, out of the loop
        # and store its residuals.
        params, v = lax.optimization_barrier((self.params, v))
        return self._single(params, v)

    def _combined(self, params: Params) -> Params:
        return combine(self.structure, self.mask, params, self.frozen)

    def _restrict(self, mask: tuple[bool, ...]) -> Operator:
        remaining = iter(mask)
        now = tuple(was and next(remaining) for was in self.mask)
        params, frozen = partition(self._combined(self.params), now)
        shardings = tuple(s for s, kept in zip(self.shardings, mask, strict=True) if kept)
        return replace(self, params=params, frozen=frozen, mask=now, shardings=shardings)


def called_from_python(op: Operator) -> Operator:
    """Return an operator whose products are called from Python, so that all solvers share one compiled product.

    That compiles fastest. A loop of products inside one program runs a little faster, and is compiled for each solver.

    Args:
        op: The operator.

    Returns:
        The operator with another kind of loop; unchanged if its loop is in Python already or it is of no loss.
    """
    if not isinstance(op, EmpiricalRiskOperator) or op.loop == "host":
        return op
    return replace(op, called_from_python=True)
