"""Operators over batches that are read anew for every product, from a loader or another iterable."""

import hashlib
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study._checks import describe_argument
from jaxopt_study._progress_bar import Bar
from jaxopt_study.curvature.operators._batches import as_array, check_batches, num_examples
from jaxopt_study.curvature.operators._empirical_risk import (
    BatchOperator,
    EmpiricalRiskOperator,
    empirical_risk_operator,
)
from jaxopt_study.curvature.operators._operator import Loop, Operator
from jaxopt_study.types import Batch, Matvec, Params


@dataclass(frozen=True, eq=False)
class Stream:
    """Batches that can be read again, with the number of examples of each; a long pass shows a progress bar.

    Attributes:
        name: The function that was called, for messages.
        source: Anything that `iter` accepts and that starts again, or a function that returns an iterator.
        merged: How many batches to read as one.
    """

    name: str
    source: Any
    merged: int = 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return NotImplemented
        return self.source is other.source and (self.name, self.merged) == (other.name, other.merged)

    def __hash__(self) -> int:
        return hash((self.name, id(self.source), self.merged))

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        waiting: list[Batch] = []
        structure = None
        with Bar(None, f"{self.name}: batches") as bar:
            for done, batch in enumerate(self._opened()):
                bar.move(done, self.num_batches)
                arrays = self._arrays(batch)
                structure = jax.tree.structure(arrays) if structure is None else structure
                if jax.tree.structure(arrays) != structure:
                    raise ValueError(
                        f"Every batch of {self.name} must have the structure of the first, {structure}; received "
                        f"{jax.tree.structure(arrays)}. Let the loader yield batches of one kind."
                    )
                if not num_examples(arrays):  # its mean is NaN, and its weight 0
                    continue
                waiting.append(arrays)
                if len(waiting) == self.merged:
                    yield _together(waiting)
                    waiting = []
            if waiting:
                yield _together(waiting)

    def check_starts_again(self) -> None:
        """Raise TypeError if every reading continues the one before.

        What returns the same iterator twice is one of these, or starts it again, as a torch loader with persistent
        workers does; only such is read to its end here.
        """
        batches = self._opened()
        if self._opened() is not batches:
            return
        for _ in batches:
            pass
        if next(self._opened(), None) is None:
            raise TypeError(
                f"{self.name} reads its batches once for every product; received {describe_argument(self.source)}, "
                "which can be read once. Pass something that starts again: a loader, a function that returns a new "
                "iterator, or list(batches)."
            )

    @property
    def num_batches(self) -> int | None:
        """Number of batches of the source, if it knows."""
        try:
            return len(self.source)
        except TypeError:
            return None

    def first(self, count: int) -> "Stream":
        """Return the first batches, read once and kept as the source gives them, for repeated passes."""
        return replace(self, source=list(islice(self._opened(), count)))

    def _opened(self) -> Iterator[Any]:
        source: Any = self.source
        try:
            readable: Any = source() if callable(source) else source
            return iter(readable)
        except TypeError as error:
            raise TypeError(
                f"The data of {self.name} must be arrays, or something that yields batches: a loader, a list of tuples "
                "or dictionaries, or a function without arguments that returns an iterator; received "
                f"{describe_argument(source)} ({error})."
            ) from error

    def _arrays(self, batch: Any) -> Batch:
        batch = jax.tree.map(partial(as_array, self.name), batch)
        shapes = [leaf.shape for leaf in jax.tree.leaves(batch)]
        if not shapes or any(not shape for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
            raise ValueError(
                f"Every batch of {self.name} must be a pytree of arrays with a common leading axis, the examples; "
                f"received shapes {shapes}. Let the loader collate examples into arrays."
            )
        return batch

    def examples(self) -> list[bytes]:
        """Return a digest of every example, in order; batches do not matter."""
        digests = []
        for count, batch in self:
            rows = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
            digests += [
                hashlib.blake2b(
                    b"".join(np.ascontiguousarray(row[i]).tobytes() for row in rows), digest_size=8
                ).digest()
                for i in range(count)
            ]
        return digests


def is_stream(data: Any) -> bool:
    """Return whether data are batches to iterate over, and not one pytree of arrays.

    A list of tuples or dictionaries is a list of batches; a list of arrays is a pytree.
    """
    if isinstance(data, list):
        return bool(data) and all(isinstance(batch, tuple | dict) for batch in data)
    if isinstance(data, str | bytes | np.ndarray | jax.Array) or hasattr(data, "__array__"):
        return False
    if not jax.tree_util.all_leaves([data]) or isinstance(data, type):
        return False
    return isinstance(data, Iterable) or callable(data) or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


def refuse_stream(name: str, data: Any) -> None:
    """Raise TypeError if data are batches to iterate over, where one compiled program takes all examples as arrays."""
    if isinstance(data, Iterator) or is_stream(data):
        raise TypeError(
            f"{name} takes all examples as arrays, which one compiled program reads; received "
            f"{describe_argument(data)}, batches to iterate over. Concatenate them: jax.tree.map(lambda *x: "
            "jnp.concatenate(x), *batches), with batch_size for less memory."
        )


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
                f"{type(self.stream.source).__name__} yields none any more. Pass something that starts again, such as "
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


def check_examples(name: str, data: Any) -> None:
    """Raise TypeError if there are no data of which batches could be drawn."""
    if not is_stream(data) and not jax.tree.leaves(data):
        given = "None" if data is None else f"{describe_argument(data)} without arrays"
        raise TypeError(f"{name} needs data, the examples of which batches are drawn; received {given}.")


LossOperator = EmpiricalRiskOperator | StreamedOperator


def in_memory(name: str, data: Any) -> Any:
    """Return data as arrays: the concatenated batches of a stream, or what is no stream unchanged."""
    return next(iter(Stream(name, data, sys.maxsize)), (0, data))[1] if is_stream(data) else data


def operator_of_data(
    batch_operator: BatchOperator,
    params: Params,
    data: Any,
    *,
    batch_size: Any,
    remat: Any,
    precision: Any,
    chooses: bool = False,
) -> Operator:
    """Return the operator of an empirical risk over arrays, or over a stream of batches.

    Args:
        batch_operator: The operator that one batch defines.
        params: Parameters.
        data: Arrays, None, or batches.
        batch_size: Examples per batch of arrays, or None.
        remat: Whether each product linearises again; a stream always does.
        precision: The matmul precision.
        chooses: Whether to choose a batch size for arrays, where it takes one to leave ample free memory.

    Returns:
        The operator.

    Raises:
        TypeError: If batches cannot be read again, or `empirical_risk_operator` raises.
        ValueError: If a stream has no batches, or comes with `batch_size`.
    """
    build = partial(empirical_risk_operator, batch_operator, params, remat=remat, precision=precision)
    name = batch_operator.name
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} reads its batches once for every product; received {type(data).__name__}, which can be read once. "
            "Pass the loader itself, a function that returns a new iterator, or list(batches)."
        )
    if not is_stream(data):
        return build(data, batch_size=batch_size, chooses=chooses)
    if batch_size is not None:
        raise ValueError(
            f"{name} takes the batches of a loader as they come; received batch_size={batch_size!r}. Omit it, and set "
            "the size in the loader."
        )
    stream = Stream(name, data)
    stream.check_starts_again()
    first = next(iter(stream), None)
    if first is None:
        raise ValueError(
            f"{name} needs at least one batch with examples; the given {type(data).__name__} yields none. Check how "
            "the data were selected."
        )
    template = build(check_batches(name, first[1], None), batch_size=None)
    return StreamedOperator(replace(template, data=None), stream)


def _at_least_single(x: Any) -> Any:
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(np.float32)


def _together(batches: list[Batch]) -> tuple[int, Batch]:
    batch = batches[0] if len(batches) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *batches)
    return num_examples(batch), batch
