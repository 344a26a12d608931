"""The form in which every data set arrives: training, validation and test examples with a hash of their contents."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxopt_study import files

Examples = dict[str, np.ndarray]  # {"x": inputs, "y": targets}, with a common leading axis


class DatasetError(ValueError):
    """A data set that is missing, damaged or not what it claims to be; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test examples, disjoint, each a dictionary `{"x": inputs, "y": targets}`.

    Arrays are read-only NumPy arrays on the host: `float32` inputs, and as targets `int32` labels in
    {0, …, num_classes − 1} or `float32` values. Index them inside compiled code as `jnp.asarray(dataset.train["x"])`.

    Attributes:
        name: A short identifier, used in records and figures.
        train: Examples to train on.
        validation: Examples to choose hyperparameters with; None if none were asked for.
        test: Examples for the final report; None if none were asked for.
        num_classes: Number of classes, or None for a regression.
        source: Where the examples come from, in words.
        details: What else a record should keep: seeds, sizes, parameters of a generator.
        sha256: Hash of names, shapes, types and bytes of all arrays: equal hashes mean equal examples in equal order.

    Raises:
        DatasetError: If the name cannot be a file's, arrays have different lengths, or labels lie outside
            {0, …, num_classes − 1}.
    """

    name: str
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None
    num_classes: int | None = None
    source: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = field(init=False)

    def __post_init__(self):
        try:
            files.check_name("A data set's name", self.name)
        except ValueError as error:
            raise DatasetError(str(error)) from None
        for part, examples in self.parts.items():
            _check(self.name, part, examples, self.num_classes)
            object.__setattr__(self, part, {key: _read_only(array) for key, array in examples.items()})
        object.__setattr__(self, "sha256", _content_hash(self.parts))

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts that hold examples, by name: "train", "validation", "test"."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: examples for part, examples in parts.items() if examples is not None}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.train["x"].shape[1:]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each part."""
        return {part: len(examples["y"]) for part, examples in self.parts.items()}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part}={size}" for part, size in self.sizes.items())
        return f"Dataset({self.name!r}, {sizes}, input_shape={self.input_shape}, num_classes={self.num_classes})"


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()  # the caller's own array stays writable
    view.setflags(write=False)
    return view


def _check(name: str, part: str, examples: Examples, num_classes: int | None) -> None:
    if set(examples) != {"x", "y"}:
        raise DatasetError(f'The {part} part of {name!r} needs the keys "x" and "y"; received {sorted(examples)}.')
    x, y = examples["x"], examples["y"]
    if len(x) != len(y) or len(y) == 0:
        raise DatasetError(
            f"The {part} part of {name!r} needs as many targets as inputs, and at least one; "
            f"received {len(x)} inputs and {len(y)} targets."
        )
    if num_classes is not None and (y.min() < 0 or y.max() >= num_classes):
        raise DatasetError(
            f"Labels of the {part} part of {name!r} must lie in 0…{num_classes - 1}; "
            f"received labels from {y.min()} to {y.max()}. Give the right num_classes, or renumber the labels."
        )


def _content_hash(parts: dict[str, Examples]) -> str:
    digest = hashlib.sha256()
    for part, examples in parts.items():
        for key, array in sorted(examples.items()):
            digest.update(f"{part}.{key}:{array.dtype.str}:{array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
