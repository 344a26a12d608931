"""Operators of an empirical risk: the mean over all examples of an operator that a batch defines."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxopt_study._checks import check_bool, check_choice, check_params
from jaxopt_study._display import memory
from jaxopt_study._programs import contains, contains_convolution
from jaxopt_study.curvature.operators._batch_norm_checks import check_no_statistics, refusing_batch_norm
from jaxopt_study.curvature.operators._batches import batch_mean, batches_of, check_batches, is_divided, num_examples
from jaxopt_study.curvature.operators._memory import Need, need
from jaxopt_study.curvature.operators._operator import Loop, Operator
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_vector, describe
from jaxopt_study.linalg.partition import combine, partition
from jaxopt_study.linalg.sharding import sharding_of
from jaxopt_study.types import Batch, Matvec, Params, Vector

Precision = Literal["highest", "high", "default"]
_CHECKPOINTS = ("remat", "checkpoint")  # names of the primitive of `jax.checkpoint`


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
        loop_kind: The kind of loop for many products; "called" is "host" by choice, not for convolutions.
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
    loop_kind: Literal["compiled", "host", "called"]

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a vector."""
        return describe(self.params, self.shardings)

    @property
    def loop(self) -> Loop:
        """Kind of loop for many products: "host" for XLA's convolutions on a CPU."""
        return "compiled" if self.loop_kind == "compiled" else "host"

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
        if self.loop_kind == "compiled" or self.batch_size is None or not self.is_batched:
            kind = "compiled" if self.loop_kind == "called" else self.loop_kind  # one program for both
            return super(EmpiricalRiskOperator, replace(self, loop_kind=kind)).product()
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
        The operator with another kind of loop; unchanged if it is of no loss or reads a loader.
    """
    if not isinstance(op, EmpiricalRiskOperator) or op.loop_kind != "compiled":
        return op
    return replace(op, loop_kind="called")


def empirical_risk_operator(
    batch_operator: BatchOperator,
    params: Params,
    data: Batch | None,
    *,
    batch_size: Any,
    remat: Any,
    precision: Any,
    chooses: bool = False,
) -> EmpiricalRiskOperator:
    """Check the arguments of an operator of an empirical risk and build it.

    Args:
        batch_operator: The operator that one batch defines.
        params: Parameters.
        data: Examples, or None.
        batch_size: Examples per batch, or None.
        remat: Whether each product differentiates again; None is True with `batch_size`, with checkpoints in `forward`,
            and where a product takes more than an eighth of the free memory.
        precision: The matmul precision.
        chooses: Whether to choose a batch size where none is given and a product takes more than an eighth of what is
            free.

    Returns:
        The operator. Cost: one trace of `forward`; where a product may take much of the free memory, also the
        compilation of one.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or a product does not fit in memory.
    """
    name = batch_operator.name
    for argument in (one for one in fields(batch_operator) if one.default is MISSING):
        _check_function(name, argument.name, getattr(batch_operator, argument.name))
    check_choice(name, "precision", precision, get_args(Precision))
    remat = None if remat is None else check_bool(name, "remat", remat)
    check_no_statistics(name, params)
    params = check_params(name, params)
    data = check_batches(name, data, batch_size)
    batch, several = data, batch_size is not None and batch_size < num_examples(data)
    if several:
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), data)
    with jax.default_matmul_precision(precision), refusing_batch_norm(name, batch_size if several else None):
        program, result = jax.make_jaxpr(batch_operator.forward, return_shape=True)(params, batch)
    batch_operator.check(result)
    leaves = jax.tree.leaves(params)
    traced = any(isinstance(leaf, Tracer) for leaf in (*leaves, *jax.tree.leaves(data)))
    on_host = not traced and jax.default_backend() == "cpu" and contains_convolution(program)
    op = EmpiricalRiskOperator(
        params=params,
        frozen=None,
        data=data,
        batch_operator=batch_operator,
        structure=jax.tree.structure(params),
        mask=(True,) * len(leaves),
        shardings=tuple(map(sharding_of, leaves)),
        batch_size=None if batch_size is None else int(batch_size),
        shard_interleaved=is_divided(data, batch_size),
        remat=batch_size is not None or any(contains(program, one) for one in _CHECKPOINTS) if remat is None else remat,
        matmul=precision,
        loop_kind="host" if on_host else "compiled",
    )
    size, count = _batches(op)
    found = need(op, program, size, count if remat is False else 1)
    if chooses and batch_size is None and not found.is_ample and found.examples < size:
        try:
            return empirical_risk_operator(
                batch_operator, params, data, batch_size=found.examples, remat=remat, precision=precision
            )
        except ValueError:  # a loss that is no mean over batches, such as one with batch normalisation
            pass
    if found.product > found.free or (remat is False and found.kept > found.free):
        raise ValueError(_too_large(op, found, size))
    if remat is None and not found.is_ample:
        op = replace(op, remat=True)
    return batch_operator.settled(op, program)


def _batches(op: EmpiricalRiskOperator) -> tuple[int, int]:
    """Return the number of examples of a batch, 0 where the data have no common leading axis, and that of batches."""
    leaves = jax.tree.leaves(op.data)
    if not leaves or any(x.ndim == 0 or x.shape[0] != leaves[0].shape[0] for x in leaves):
        return 0, 1
    total = leaves[0].shape[0]
    size = min(op.batch_size or total, total)
    return size, -(-total // size)


def _too_large(op: EmpiricalRiskOperator, found: Need, size: int) -> str:
    name, free = op.batch_operator.name, f"{memory(found.free)} are free"
    if found.product <= found.free:
        return (
            f"{name} with remat=False needs about {memory(found.kept)} of memory to keep its linearisation; {free}. "
            "Omit remat, which then differentiates in every product."
        )
    over = f" over {size:,} examples at once" if size else ""
    remedy = "Put jax.checkpoint around the layers of the model, or give fewer data."
    if found.examples < size:
        remedy = f"Pass batch_size={found.examples} or less, or let the loader yield batches of that size."
    return f"{name} needs about {memory(found.product)} of memory for a product{over}; {free}. {remedy}"


def check_scalar(name: str, argument: str, result: Any) -> None:
    """Check that the abstract result of a loss is one real number."""
    leaves = jax.tree.leaves(result)
    if len(leaves) != 1 or jax.tree.structure(result) != jax.tree.structure(0):
        raise TypeError(
            f"{argument} of {name} must return a scalar; received {jax.tree.structure(result)}. Return the loss "
            "alone, or pass has_aux=True to hessian."
        )
    if leaves[0].shape != ():
        raise TypeError(
            f"{argument} of {name} must return a scalar, the mean over the examples; received an array of shape "
            f"{leaves[0].shape}. Take its mean."
        )
    if not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(f"{argument} of {name} must return a real floating number; received {leaves[0].dtype}.")


def _check_function(name: str, argument: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{argument} of {name} must be a function of parameters and a batch; received {function!r}.")
    try:
        hash(function)
    except TypeError as error:
        raise TypeError(
            f"{argument} of {name} must be hashable, so that it compiles once. Wrap it in a function."
        ) from error
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"{argument} of {name} must take two arguments, {argument}(params, batch), where batch is None without "
            f"data; received the signature {signature}. Close over other arguments, such as batch statistics or a "
            f"dropout key: lambda params, batch: {argument}(params, batch, model_state)."
        ) from error
