"""Data sets made from a data set: cross-validation folds, bootstrap samples, corrupted labels."""

import numpy as np

from jaxopt_study._checks import check_integer, check_static_real, describe_argument
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError
from jaxopt_study.problems.datasets._splits import apportion


def k_folds(dataset: Dataset, num_folds: int, *, seed: int = 0) -> tuple[Dataset, ...]:
    """Divide the training examples into folds for cross-validation.

    The folds are disjoint, together hold every training example once, and differ in size by at most one. With classes
    they are stratified: the counts of each class in two folds differ by at most one.

    Args:
        dataset: Its training examples are divided; its own validation examples are left out.
        num_folds: k, from 2 to the number of training examples, which is leave-one-out.
        seed: Seed of the division.

    Returns:
        k data sets. The i-th has fold i as validation examples, the other folds as training examples, and the test
        examples of `dataset`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        DatasetError: If there are fewer training examples than folds.

    Example:
        >>> from jaxopt_study.problems import datasets
        >>> folds = datasets.k_folds(datasets.digits(num_train=100), 5)
        >>> print([fold.sizes["validation"] for fold in folds])
        [20, 20, 20, 20, 20]

    References:
        Kohavi (1995), A study of cross-validation and bootstrap for accuracy estimation and model selection.
    """
    _check_dataset("k_folds", dataset)
    check_integer("k_folds", "num_folds", num_folds, 2)
    check_integer("k_folds", "seed", seed, 0, high=None)
    size = dataset.sizes["train"]
    if num_folds > size:
        raise DatasetError(
            f"k_folds needs at least one training example per fold; {dataset.name!r} has {size} for {num_folds} folds."
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(size)
    if dataset.num_classes is not None:
        # Dealing the examples out class by class stratifies them, and keeps the folds' sizes within one.
        shuffled = shuffled[np.argsort(dataset.train["y"][shuffled], kind="stable")]
    fold_of = np.empty(size, int)
    fold_of[shuffled] = np.arange(size) % num_folds
    return tuple(
        _resampled(
            dataset,
            f"fold{fold}of{num_folds}",
            rng.permutation(np.flatnonzero(fold_of != fold)),
            np.flatnonzero(fold_of == fold),
            {"fold": fold, "num_folds": num_folds, "fold_seed": seed},
        )
        for fold in range(num_folds)
    )


def bootstrap(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """Draw as many training examples as there are, with replacement.

    A share of about 1 − 1/e = .632 of the examples is drawn at least once. The others are "out of the bag" and serve
    as validation examples.

    Args:
        dataset: Its training examples are drawn; its own validation examples are left out.
        seed: Seed of the draw.

    Returns:
        The data set, with the test examples of `dataset`.

    Raises:
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> from jaxopt_study.problems import datasets
        >>> sample = datasets.bootstrap(datasets.digits(num_train=1000))
        >>> print(sample.sizes["train"], 0.3 < sample.sizes["validation"] / 1000 < 0.43)
        1000 True

    References:
        Efron and Tibshirani (1993), An introduction to the bootstrap, §17.
    """
    _check_dataset("bootstrap", dataset)
    check_integer("bootstrap", "seed", seed, 0, high=None)
    size = dataset.sizes["train"]
    rows = np.random.default_rng(seed).integers(0, size, size)
    out_of_bag = np.setdiff1d(np.arange(size), rows)
    return _resampled(dataset, f"bootstrap{seed}", rows, out_of_bag, {"bootstrap_seed": seed})


def corrupt_labels(dataset: Dataset, fraction: float, *, seed: int = 0) -> Dataset:
    """Replace a fraction of the training labels by other, wrong labels.

    The examples are drawn without replacement, in the class proportions of the training part to within one a class;
    each gets a class drawn uniformly from the C − 1 others. Validation and test labels stay right.

    Args:
        dataset: A data set with at least two classes.
        fraction: In [0, 1]; the number of wrong labels is the nearest integer to `fraction` times the examples.
        seed: Seed of the draw.

    Returns:
        The data set. `details["num_corrupted"]` is the number of wrong labels.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the fraction is out of range.
        DatasetError: If the data set has no classes, or only one.

    Example:
        >>> from jaxopt_study.problems import datasets
        >>> right = datasets.digits(num_train=1000)
        >>> wrong = datasets.corrupt_labels(right, 0.4)
        >>> print((wrong.train["y"] != right.train["y"]).mean())
        0.4

    References:
        Zhang et al. (2017), Understanding deep learning requires rethinking generalization, §2.1.
    """
    _check_dataset("corrupt_labels", dataset)
    fraction = check_static_real("corrupt_labels", "fraction", fraction, 0, 1)
    check_integer("corrupt_labels", "seed", seed, 0, high=None)
    classes = dataset.num_classes
    if classes is None or classes < 2:
        raise DatasetError(f"corrupt_labels needs a data set with at least two classes; received {dataset!r}.")
    rng, labels = np.random.default_rng(seed), dataset.train["y"].copy()
    groups = [np.flatnonzero(labels == label) for label in range(classes)]
    counts = apportion(np.array([len(group) for group in groups]), round(fraction * len(labels)))
    rows = np.concatenate([rng.choice(group, n, replace=False) for group, n in zip(groups, counts, strict=True)])
    labels[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    return Dataset(
        name=f"{dataset.name}-corrupted",
        train={"x": dataset.train["x"], "y": labels},
        validation=dataset.validation,
        test=dataset.test,
        num_classes=classes,
        source=dataset.source,
        details={
            **dataset.details,
            "corrupted_fraction": fraction,
            "num_corrupted": len(rows),
            "corruption_seed": seed,
        },
    )


def _resampled(dataset: Dataset, suffix: str, train: np.ndarray, validation: np.ndarray, details: dict) -> Dataset:
    def chosen(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {key: array[rows] for key, array in dataset.train.items()}

    return Dataset(
        name=f"{dataset.name}-{suffix}",
        train=chosen(train),
        validation=chosen(validation) if len(validation) else None,
        test=dataset.test,
        num_classes=dataset.num_classes,
        vocabulary_size=dataset.vocabulary_size,
        source=dataset.source,
        details={**dataset.details, **details},
    )


def _check_dataset(who: str, dataset: object) -> None:
    if not isinstance(dataset, Dataset):
        raise TypeError(f"{who} needs a Dataset; received {describe_argument(dataset)}.")
