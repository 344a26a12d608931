"""Splits of examples into training, validation and test parts."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Integer

from jaxopt_study._checks import check_integer, describe_argument
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError, Examples, check_labels, host_array

Split = Literal["stratified", "first"]


def from_arrays(
    x: Any,
    y: Any,
    *,
    name: str = "arrays",
    num_classes: int | None = None,
    num_train: int | None = None,
    num_validation: int = 0,
    num_test: int = 0,
    split: Split = "stratified",
    seed: int = 0,
    source: str = "arrays",
) -> Dataset:
    """Make a data set from arrays, split into disjoint training, validation and test parts.

    With `split="stratified"` the parts are drawn in the order test, validation, training. Each has the class
    proportions of the examples left at that point, to within one example per class, in a random order that depends only
    on `seed`; without classes the parts are uniform draws without replacement. With `split="first"` nothing is drawn or
    reordered: training takes the first `num_train` examples, validation the next and test the next; use it for "the
    first 300 images".

    Inputs are cast to `float32` and otherwise unchanged; they are not standardised.

    Args:
        x: Inputs, shape (examples, …).
        y: Labels in {0, …, num_classes − 1}, shape (examples,); without `num_classes`, values to regress on, cast to
            `float32`.
        name: A short identifier.
        num_classes: Number of classes, or None for a regression.
        num_train: Size of the training part; None takes all remaining examples.
        num_validation: Size of the validation part; 0 omits it.
        num_test: Size of the test part; 0 omits it.
        split: "stratified" or "first".
        seed: Seed of the stratified draw.
        source: Origin of the examples, in words.

    Returns:
        The data set. Cost: one copy of the examples and one hash over them.

    Raises:
        TypeError: If x or y are not numbers, or a size is not an integer. Torch tensors and pandas frames and series
            are converted.
        DatasetError: If there are too few examples for the requested sizes, x and y differ in length, or labels are not
            whole numbers.

    Example:
        >>> dataset = from_arrays(np.arange(10.0)[:, None], np.arange(10) % 2, num_classes=2, num_test=4)
        >>> dataset
        Dataset('arrays', train=6, test=4, input_shape=(1,), num_classes=2)
        >>> print(np.bincount(dataset.test["y"]))  # the class proportions of all examples
        [2 2]
    """
    if num_classes is not None:
        check_integer("from_arrays", "num_classes", num_classes, 1)
    with np.errstate(over="ignore"):  # `Dataset` rejects infinity
        x = host_array(f"x of {name!r}", x).astype(np.float32)
    y = host_array(f"y of {name!r}", y)
    if not x.ndim or not y.ndim:
        raise DatasetError(f"{name!r} needs arrays of examples; received a single number.")
    if num_classes is not None and y.dtype.kind == "f" and not (y == np.round(y)).all():
        raise DatasetError(f"Labels of {name!r} must be integers; received {y.dtype}, not all of them whole numbers.")
    if num_classes is not None:
        check_labels(f"Labels of {name!r}", y, num_classes)  # before they are cast to 32 bits
    with np.errstate(over="ignore"):
        y = y.astype(np.float32 if num_classes is None else np.int32)
    if len(x) != len(y):
        raise DatasetError(f"{name!r} needs as many targets as inputs; received {len(x)} inputs, {len(y)} targets.")
    groups = y if num_classes is not None else np.zeros(len(y), np.int32)
    sizes = {"train": num_train, "validation": num_validation, "test": num_test}
    indices = divide(groups, sizes, split=split, seed=seed, name=name)
    parts: dict[str, Examples] = {part: {"x": x[rows], "y": y[rows]} for part, rows in indices.items()}
    return Dataset(
        name=name,
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        num_classes=num_classes,
        source=source,
        details={"split": split, "seed": seed},
    )


def divide(
    groups: Integer[np.ndarray, " rows"], sizes: dict[str, int | None], *, split: Split, seed: int, name: str
) -> dict[str, Int[np.ndarray, " _"]]:
    """Divide row indices into disjoint parts with equal group proportions.

    Args:
        groups: Group of each row, integers ≥ 0, shape (rows,).
        sizes: Size of each part in file order; one may be None and takes the rest. Parts of size 0 are omitted.
        split: "stratified" or "first"; see `from_arrays`.
        seed: Seed of the stratified draw.
        name: The data set, for messages.

    Returns:
        Row indices of each part.

    Raises:
        TypeError: If a size or the seed is not an integer.
        ValueError: If the seed is negative.
        DatasetError: If a size is negative, the sizes exceed the number of rows, or nothing is left for training.
    """
    for part, size in sizes.items():
        if size is not None:
            check_integer(name, f"num_{part}", size)
    check_integer(name, "seed", seed, 0, high=None)
    if not isinstance(split, str) or split not in ("stratified", "first"):
        raise DatasetError(f'split must be "stratified" or "first"; received {describe_argument(split)}.')
    if list(sizes.values()).count(None) > 1:
        raise DatasetError(
            f"{name!r}: at most one size can be None, which takes the rest of the examples; received {sizes}."
        )
    if any(size is not None and size < 0 for size in sizes.values()):
        raise DatasetError(
            f"{name!r}: each size must be at least 0, or None for the rest of the examples; received {sizes}."
        )
    rest = len(groups) - sum(size or 0 for size in sizes.values())
    if rest < 0 or (rest == 0 and None in sizes.values()) or sizes.get("train") == 0:
        raise DatasetError(
            f"{name!r}: the sizes of the parts must add up to at most {len(groups)} examples, with at least one for "
            f"training and for None, which takes the rest; received {sizes}. Request fewer."
        )
    counts = {part: rest if size is None else size for part, size in sizes.items()}
    counts = {part: count for part, count in counts.items() if count}
    if split == "first":
        ends = np.cumsum(list(counts.values()))
        return {part: np.arange(end - counts[part], end) for part, end in zip(counts, ends, strict=True)}
    rng = np.random.default_rng(seed)
    pools = [rng.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    parts = {}
    for part in reversed(counts):  # test first, so that its examples do not depend on the number of training examples
        shares = apportion(np.array([len(pool) for pool in pools]), counts[part])
        rows = np.concatenate([pool[:share] for pool, share in zip(pools, shares, strict=True)])
        pools = [pool[share:] for pool, share in zip(pools, shares, strict=True)]
        parts[part] = rng.permutation(rows)
    return {part: parts[part] for part in counts}


def apportion(available: Int[np.ndarray, " groups"], total: int) -> Int[np.ndarray, " groups"]:
    """Apportion a total to groups in proportion to their sizes, by largest remainders.

    Args:
        available: Size of each group, shape (groups,).
        total: Total number to take, at most the sum of `available`.

    Returns:
        Integers with sum `total`, each within one of total · available / Σ available and at most `available`.

    Example:
        >>> print(apportion(np.array([50, 30, 20]), 11))
        [6 3 2]
    """
    exact = available * (total / available.sum())
    shares = np.floor(exact).astype(int)
    largest_remainders = np.argsort(shares - exact, kind="stable")[: total - shares.sum()]
    shares[largest_remainders] += 1
    return shares
