"""Operator of a loss over batches that are read anew for every product."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_study.curvature.operators._empirical_risk import EmpiricalRiskOperator
from jaxopt_study.curvature.operators._operator import Loop, Operator
from jaxopt_study.curvature.operators._streams import Stream
from jaxopt_study.types import Batch, Matvec, Params


@partial(jax.tree_util.register_dataclass, data_fields=("template",), meta_fields=("stream",))
@dataclass(frozen=True, eq=False, repr=False)
class StreamedOperator(Operator):
    """The mean over a stream of batches of the operator that a batch defines.

    Attributes:
        template: The operator, without data.
        stream: The batches.
    """

    template: EmpiricalRiskOperator
    stream: Stream

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a vector."""
        return self.template.like

    @property
    def loop(self) -> Loop:
        """Kind of loop for many products: a Python loop, which reads the batches."""
        return "host"

    @property
    def precision(self) -> str:
        """Matmul precision of the loss."""
        return self.template.precision

    @property
    def product_error(self) -> float:
        """Error of a product relative to ‖H‖, beyond rounding."""
        return self.template.product_error

    @property
    def is_semidefinite(self) -> bool:
        """Whether it is known that no eigenvalue is negative."""
        return self.template.is_semidefinite

    @property
    def is_batched(self) -> bool:
        """Whether a product sums over several batches of data."""
        return True

    @property
    def is_streamed(self) -> bool:
        """Whether a product reads its data from Python."""
        return True

    def linearize(self) -> Matvec:
        """Raise: a compiled program cannot read the batches.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"An operator of {self.stream.name} over a loader reads its batches from Python, which a compiled program "
            "cannot. Call it outside of jax.jit and of functions that search for points, or give the data as arrays, "
            "with batch_size."
        )

    def mean(self, function: Callable[[Batch], Any]) -> Any:
        """Raise: a compiled program, such as the update of an optimizer that searches a line, cannot read the batches.

        Args:
            function: From a batch to a pytree of floating arrays.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{self.stream.name}: an optimizer that evaluates the loss inside its update, as a line search does, needs "
            "the data as arrays; received a loader. Concatenate its batches: jax.tree.map(lambda *x: "
            "jnp.concatenate(x), *loader)."
        )

    def product(self) -> Matvec:
        """Return v ↦ H v, which reads the stream once.

        Returns:
            A function of a vector, which is not checked.
        """
        return lambda v: self.mean_over_data(lambda part: part @ v)

    @property
    def params(self) -> Params:
        """The parameters of a vector."""
        return self.template.params

    @property
    def loss(self) -> Callable[[Params, Batch], Any]:
        """The loss of a Hessian."""
        return self.template.loss

    def mean_over_data(self, function: Callable[[Any], Any]) -> Any:
        """Return the mean of a function of the operators of the batches, weighted by examples.

        Args:
            function: From the operator of one batch to a pytree of arrays.

        Returns:
            The mean, summed in at least single precision. The next batch is read while this one is computed, and no
            more than two are on the device.
        """
        total, examples, value = None, 0, None
        for count, batch in self.stream:
            before, value = total, function(replace(self.template, data=batch))
            terms = jax.tree.map(lambda x, count=count: count * _at_least_single(x), value)
            total = terms if total is None else jax.tree.map(operator.add, total, terms)
            examples += count
            jax.block_until_ready(before)
        if not examples:
            raise ValueError(
                f"{self.stream.name} reads its batches once for every product; the given "
                f"{type(self.stream.source).__name__} no longer yields any. Pass something that starts again, such as "
                "a function that returns a new iterator."
            )
        return jax.tree.map(lambda s, x: (s / examples).astype(x.dtype), total, value)

    def other_batches(self) -> Operator | None:
        """Return the same operator with pairs of batches read as one."""
        return replace(self, stream=replace(self.stream, merged=2 * self.stream.merged))

    def unrepeatable(self) -> str | None:
        """Return how a second reading of the stream differs from a first; None if it gives the same examples."""
        first, second = self.stream.examples(), self.stream.examples()
        if sorted(first) != sorted(second):
            return (
                f"The loader gives other examples the second time ({len(first):,}, then {len(second):,}): a product "
                "belongs to no one loss. Turn off augmentation and drop_last, or give a list of its batches."
            )
        return None

    def _restrict(self, mask: tuple[bool, ...]) -> Operator:
        return replace(self, template=self.template._restrict(mask))


LossOperator = EmpiricalRiskOperator | StreamedOperator


def _at_least_single(x: Any) -> Any:
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
