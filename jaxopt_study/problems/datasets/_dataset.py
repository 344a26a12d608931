"""`Dataset`: training, validation and test examples with a hash of their contents."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Real, Shaped

from jaxopt_study import files
from jaxopt_study._checks import check_integer, check_mapping, check_text, describe_argument
from jaxopt_study.problems._examples import as_array

Examples = dict[str, Shaped[np.ndarray, "..."]]  # {"x": inputs, "y": targets}, with a common leading axis


class DatasetError(ValueError):
    """A data set is missing, damaged or mislabelled; the message gives the remedy."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test examples, disjoint, each a dictionary `{"x": inputs, "y": targets}`.

    Arrays are read-only NumPy arrays on the host: `float32` inputs, and targets that are `int32` labels in {0, …,
    num_classes − 1} or `float32` values; or, with a vocabulary, `int32` tokens as inputs and as targets. To index them
    in compiled code, use `jnp.asarray(dataset.train["x"])`.

    Attributes:
        name: A short identifier, used in records and figures.
        train: Examples to train on.
        validation: Examples for choosing hyperparameters, or None.
        test: Examples for the final report, or None.
        num_classes: Number of classes, or None for a regression and for tokens.
        vocabulary_size: V, for sequences of tokens: inputs of shape (examples, positions) in {0, …, V − 1}, and
            targets of the same shape, of which −1 does not count; every example has one that does. Otherwise None.
        source: Origin of the examples, in words.
        details: Further information for records: seeds, sizes, parameters of a generator.
        sha256: Hash of names, shapes, types and bytes of all arrays: equal hashes mean equal examples in equal order.

    Raises:
        TypeError: If examples are not arrays of numbers. Torch tensors and pandas frames are converted.
        DatasetError: If the name is not a valid file name, arrays have different lengths, a number is not finite, or
            labels or tokens are not integers in range.
    """

    name: str
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None
    num_classes: int | None = None
    source: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = field(init=False)
    vocabulary_size: int | None = None

    def __post_init__(self):
        check_text("Dataset", "name", self.name)
        check_text("Dataset", "source", self.source)
        try:
            files.check_name("A data set's name", self.name)
        except ValueError as error:
            raise DatasetError(str(error)) from None
        if self.num_classes is not None:
            check_integer("Dataset", "num_classes", self.num_classes, 1)
        if self.vocabulary_size is not None:
            check_integer("Dataset", "vocabulary_size", self.vocabulary_size, 1)
            if self.num_classes is not None:
                raise DatasetError(
                    f"{self.name!r} has num_classes and vocabulary_size; tokens have no classes. Drop one."
                )
        check_mapping("Dataset", "details", self.details)
        if self.train is None:
            raise DatasetError(f"The data set {self.name!r} needs training examples; received train=None.")
        for part, examples in self.parts.items():
            if not isinstance(examples, Mapping):
                raise TypeError(
                    f'The {part} part of {self.name!r} must be {{"x": inputs, "y": targets}}; received '
                    f"{describe_argument(examples)}."
                )
            examples = {key: host_array(f"{key} of the {part} part of {self.name!r}", x) for key, x in examples.items()}
            object.__setattr__(self, part, examples)
            _check(self.name, part, examples, self.num_classes)
            if self.vocabulary_size is not None:
                _check_tokens(self.name, part, examples, self.vocabulary_size)
            object.__setattr__(self, part, {key: _read_only(array) for key, array in examples.items()})
        _check_parts(self.name, self.parts)
        object.__setattr__(self, "sha256", _content_hash(self.parts))

    @property
    def parts(self) -> dict[str, Examples]:
        """The non-empty parts by name: "train", "validation", "test"."""
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
        kind = "num_classes" if self.vocabulary_size is None else "vocabulary_size"
        return f"Dataset({self.name!r}, {sizes}, input_shape={self.input_shape}, {kind}={getattr(self, kind)})"


def _read_only(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    view = array.view()  # the caller's array stays writable
    view.setflags(write=False)
    return view


def _check(name: str, part: str, examples: Examples, num_classes: int | None) -> None:
    if set(examples) != {"x", "y"}:
        raise DatasetError(f'The {part} part of {name!r} needs the keys "x" and "y"; received {sorted(examples)}.')
    x, y = examples["x"], examples["y"]
    if not x.ndim or not y.ndim:
        raise DatasetError(f"The {part} part of {name!r} needs arrays of examples; received a single number.")
    if len(x) != len(y) or len(y) == 0:
        raise DatasetError(
            f"The {part} part of {name!r} needs as many targets as inputs, and at least one; "
            f"received {len(x)} inputs and {len(y)} targets."
        )
    for key, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DatasetError(
                f"{key} of the {part} part of {name!r} has NaN or infinity. Remove these examples, or replace the "
                "numbers."
            )
    if num_classes is not None and (y.ndim != 1 or y.dtype.kind not in "iu"):
        raise DatasetError(
            f"Labels of the {part} part of {name!r} must be integers, one per example; received {y.dtype} of shape "
            f"{y.shape}. Convert them, for example by y.astype(int), or leave num_classes out for a regression."
        )
    if num_classes is not None:
        check_labels(f"Labels of the {part} part of {name!r}", y, num_classes)


def _check_tokens(name: str, part: str, examples: Examples, size: int) -> None:
    x, y = examples["x"], examples["y"]
    if x.ndim != 2 or x.shape != y.shape or x.dtype.kind not in "iu" or y.dtype.kind not in "iu":
        raise DatasetError(
            f"The {part} part of {name!r} needs tokens and targets that are integers of one shape (examples, "
            f"positions); received {x.dtype} of shape {x.shape} and {y.dtype} of shape {y.shape}."
        )
    if not x.size or x.min() < 0 or x.max() >= size or y.min() < -1 or y.max() >= size:
        ranges = f"{x.min()} to {x.max()} and {y.min()} to {y.max()}" if x.size else "none"
        raise DatasetError(
            f"Tokens of the {part} part of {name!r} must lie in 0…{size - 1}, and targets there or be −1, which does "
            f"not count; received {ranges}. Give the right vocabulary_size, or renumber the tokens."
        )
    if not (y >= 0).any(axis=1).all():
        raise DatasetError(
            f"Every example of the {part} part of {name!r} needs a target that counts, one that is not −1. Remove the "
            "examples without one."
        )


def check_labels(what: str, y: Real[np.ndarray, " examples"], num_classes: int) -> None:
    """Raise DatasetError if a label is not in {0, …, num_classes − 1}."""
    if y.size and (y.min() < 0 or y.max() >= num_classes):
        raise DatasetError(
            f"{what} must lie in 0…{num_classes - 1}; received labels from {y.min()} to {y.max()}. Give the right "
            "num_classes, or renumber the labels."
        )


def _check_parts(name: str, parts: dict[str, Examples]) -> None:
    for part, examples in parts.items():
        for key in ("x", "y"):
            given, expected = examples[key].shape[1:], parts["train"][key].shape[1:]
            if given != expected:
                raise DatasetError(
                    f"{key} of the {part} part of {name!r} must have examples of the training part's shape, "
                    f"{expected}; received {given}."
                )


def host_array(where: str, values: Any) -> Shaped[np.ndarray, "..."]:
    """Return numbers as a NumPy array.

    Raises:
        TypeError: If the values are text, objects, times, complex or sparse.
        DatasetError: If the values are lists of different lengths, or entries are masked.
    """
    if isinstance(values, list | tuple) and any(isinstance(part, np.ma.MaskedArray) for part in values):
        values = np.ma.stack(values)
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except (TypeError, ValueError) as error:
            raise DatasetError(
                f"{where} must be one array; received lists of different lengths. Pad them to equal lengths."
            ) from error
    try:
        array = np.asarray(as_array(where, values))
    except ValueError as error:
        raise DatasetError(str(error)) from None
    if not (jnp.issubdtype(array.dtype, jnp.floating) or array.dtype.kind in "biu"):
        raise TypeError(f"{where} must be real numbers; received {array.dtype}.")
    return array


def _content_hash(parts: dict[str, Examples]) -> str:
    digest = hashlib.sha256()
    for part, examples in parts.items():
        for key, array in sorted(examples.items()):
            digest.update(f"{part}.{key}:{array.dtype.str}:{array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
