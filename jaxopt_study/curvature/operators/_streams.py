"""Batches that are read anew for every product, from a loader or another iterable."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study._checks import describe_argument
from jaxopt_study._progress_bar import Bar
from jaxopt_study.curvature.operators._batches import as_array, num_examples
from jaxopt_study.types import Batch


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


def check_examples(name: str, data: Any) -> None:
    """Raise TypeError if there are no data of which batches could be drawn."""
    if not is_stream(data) and not jax.tree.leaves(data):
        given = "None" if data is None else f"{describe_argument(data)} without arrays"
        raise TypeError(f"{name} needs data, the examples of which batches are drawn; received {given}.")


def in_memory(name: str, data: Any) -> Any:
    """Return data as arrays: the concatenated batches of a stream, or what is no stream unchanged."""
    return next(iter(Stream(name, data, sys.maxsize)), (0, data))[1] if is_stream(data) else data


def _together(batches: list[Batch]) -> tuple[int, Batch]:
    batch = batches[0] if len(batches) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *batches)
    return num_examples(batch), batch
