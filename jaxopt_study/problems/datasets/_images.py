"""Images in ten classes: scikit-learn's digits, MNIST and Fashion-MNIST."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from jaxopt_study._checks import check_bool, describe_argument
from jaxopt_study.problems.datasets._archives import FASHION_MNIST, MNIST, IdxArchive, read_archive
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError, Examples
from jaxopt_study.problems.datasets._splits import Split, divide, from_arrays


def digits(
    *,
    flatten: bool = True,
    num_train: int | None = None,
    num_validation: int = 300,
    num_test: int = 300,
    split: Split = "stratified",
    seed: int = 0,
) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits of 8 × 8 pixels.

    Pixels are divided by 16, so they lie in [0, 1]. No files or network are needed. It is the default data set of the
    study: small, real, and hard enough to distinguish optimizers.

    Args:
        flatten: Whether inputs are vectors of 64 (for an MLP) or images of shape (8, 8, 1) (for a CNN).
        num_train: Number of training examples; None takes all remaining ones.
        num_validation: Number of validation examples.
        num_test: Number of test examples.
        split: "stratified", or "first" for the first `num_train` examples, then validation, then test, in file order.
        seed: Seed of the stratified split.

    Returns:
        The data set: 1,197 training, 300 validation and 300 test examples by default.

    Example:
        >>> digits()
        Dataset('digits', train=1197, validation=300, test=300, input_shape=(64,), num_classes=10)
        >>> digits(seed=1).sha256 == digits().sha256  # another seed, another split
        False

    References:
        Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI: the test half.
    """
    check_bool("digits", "flatten", flatten)
    import sklearn.datasets  # takes as long to import as JAX

    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8) / 16
    return from_arrays(
        images.reshape(len(images), -1) if flatten else images[..., None],
        np.asarray(labels),
        name="digits",
        num_classes=10,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        split=split,
        seed=seed,
        source="scikit-learn's embedded digits (UCI Optical Recognition of Handwritten Digits, test half)",
    )


def mnist(
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    verify: bool = True,
    flatten: bool = True,
    num_train: int | None = None,
    num_validation: int = 10_000,
    num_test: int | None = None,
    split: Split = "stratified",
    seed: int = 0,
) -> Dataset:
    """Load MNIST from its four IDX files, gzipped or not.

    Pixels are divided by 255, so they lie in [0, 1]. Training and validation examples come from the 60,000 training
    images, test examples from the 10,000 test images. "The first 300 images" is `num_train=300, num_validation=0,
    split="first"`.

    `DatasetError` is raised, with a remedy, if a file is missing, truncated, corrupted or mislabelled, if image and
    label files differ in length, if a download fails, or if more examples are requested than exist.

    Args:
        data_dir: The folder with the files, or one with a subfolder `mnist` or `MNIST/raw`. Default: the folder named
            by the environment variable JAXOPT_STUDY_DATA, otherwise the cache that `download` fills.
        download: Whether to download missing files (11 MB) into that folder, checking their SHA-256.
        verify: Whether the uncompressed files must equal the originals. If False, any data set with up to ten classes,
            this format and these file names is accepted after a check of its structure.
        flatten: Whether inputs are vectors of 784 (for an MLP) or images of shape (28, 28, 1) (for a CNN).
        num_train: Number of training examples; None takes all not used for validation.
        num_validation: Number of validation examples; 0 leaves 60,000 for training.
        num_test: Number of test examples; None takes all.
        split: "stratified", or "first" for the first `num_train` training images, the next `num_validation`, and the
            first `num_test` test images, all in file order.
        seed: Seed of the stratified split.

    Returns:
        The data set. Cost: 220 MB of memory and about a second.

    References:
        LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition.
    """
    return load_idx(
        MNIST,
        data_dir,
        download=download,
        verify=verify,
        flatten=flatten,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        split=split,
        seed=seed,
    )


def fashion_mnist(
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    verify: bool = True,
    flatten: bool = True,
    num_train: int | None = None,
    num_validation: int = 10_000,
    num_test: int | None = None,
    split: Split = "stratified",
    seed: int = 0,
) -> Dataset:
    """Load Fashion-MNIST, clothes in MNIST's format, from its four IDX files, gzipped or not.

    Everything else is as in `mnist`; the subfolders searched are `fashion_mnist`, `fashion-mnist`, `FashionMNIST/raw`
    and `fashion`. MNIST's own files in their place are recognised and raise an error.

    Args:
        data_dir: The folder with the files, or one with such a subfolder. Default as in `mnist`.
        download: Whether to download missing files (30 MB) into that folder, checking their SHA-256.
        verify: Whether the uncompressed files must equal the originals.
        flatten: Whether inputs are vectors of 784 or images of shape (28, 28, 1).
        num_train: Number of training examples; None takes all not used for validation.
        num_validation: Number of validation examples.
        num_test: Number of test examples; None takes all.
        split: "stratified" or "first", as in `mnist`.
        seed: Seed of the stratified split.

    Returns:
        The data set. Cost: 220 MB of memory and about a second.

    References:
        Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747.
    """
    return load_idx(
        FASHION_MNIST,
        data_dir,
        download=download,
        verify=verify,
        flatten=flatten,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        split=split,
        seed=seed,
    )


def load_idx(
    archive: IdxArchive,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    verify: bool = True,
    flatten: bool = True,
    num_train: int | None = None,
    num_validation: int = 0,
    num_test: int | None = None,
    split: Split = "stratified",
    seed: int = 0,
) -> Dataset:
    """Load a data set of ten classes from an archive of four IDX files; `mnist` explains the arguments.

    Args:
        archive: The files' names, hashes and mirrors.
        data_dir: The folder with the files.
        download: Whether to download missing files.
        verify: Whether the uncompressed files must equal the originals.
        flatten: Whether inputs are vectors.
        num_train: Number of training examples; None takes all not used for validation.
        num_validation: Number of validation examples.
        num_test: Number of test examples; None takes all.
        split: "stratified" or "first".
        seed: Seed of the stratified split.

    Returns:
        The data set.

    Raises:
        DatasetError: If image and label files differ in length, and as in `mnist`.
    """
    if not isinstance(archive, IdxArchive):
        raise TypeError(f"load_idx needs archive to be an IdxArchive; received {describe_argument(archive)}.")
    for name, flag in (("download", download), ("verify", verify), ("flatten", flatten)):
        check_bool("load_idx", name, flag)
    arrays = read_archive(archive, data_dir=data_dir, download=download, verify=verify)
    train_images, train_labels, test_images, test_labels = (arrays[name] for name in archive.files)
    for part, images, labels in (("training", train_images, train_labels), ("test", test_images, test_labels)):
        if len(images) != len(labels):
            raise DatasetError(
                f"{archive.title}'s {part} files do not match: {len(images)} images, {len(labels)} labels. Take both "
                "from the same download."
            )
    train_rows = divide(
        train_labels, {"train": num_train, "validation": num_validation}, split=split, seed=seed, name=archive.name
    )
    # Test examples do not depend on how the training images are divided.
    test_rows = divide(test_labels, {"test": num_test}, split=split, seed=seed, name=archive.name)

    def examples(
        images: UInt8[np.ndarray, "images height width"],
        labels: UInt8[np.ndarray, " images"],
        rows: Int[np.ndarray, " rows"],
    ) -> Examples:
        x = images[rows].astype(np.float32) / np.float32(255)
        return {"x": x.reshape(len(x), -1) if flatten else x[..., None], "y": labels[rows].astype(np.int32)}

    parts = {part: examples(train_images, train_labels, rows) for part, rows in train_rows.items()}
    parts |= {part: examples(test_images, test_labels, rows) for part, rows in test_rows.items()}
    kind = "the original bytes, checked by hash" if verify else "files of unchecked origin"
    return Dataset(
        name=archive.name,
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        num_classes=10,
        source=f"{archive.title}'s IDX files: {kind}",
        details={"split": split, "seed": seed},
    )
