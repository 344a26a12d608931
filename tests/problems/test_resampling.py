"""Folds are disjoint and stratified, bootstrap samples are draws with replacement, corrupted labels are wrong."""

import warnings

import jax
import numpy as np
import pytest

from jaxopt_study import problems, sweeps
from jaxopt_study.problems import datasets
from jaxopt_study.problems.datasets import (
    DatasetError,
    bootstrap,
    corrupt_labels,
    damped_cosine,
    digits,
    from_arrays,
    k_folds,
    sparse_features,
)


def numbered(size=103, classes=4, seed=0):
    """Examples whose input is their own number, so that each can be followed."""
    y = np.random.default_rng(seed).choice(classes, size, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    return from_arrays(np.arange(size)[:, None], y, num_classes=classes, split="first")


def rows(examples):
    return examples["x"][:, 0].astype(int)


@pytest.mark.parametrize("num_folds", [2, 5, 103])
def test_folds_are_a_partition_and_stratified(num_folds):
    dataset = numbered()
    folds = k_folds(dataset, num_folds, seed=1)
    held_out = [rows(fold.validation) for fold in folds]
    np.testing.assert_array_equal(np.sort(np.concatenate(held_out)), np.arange(103))
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1
    counts = np.array([np.bincount(fold.validation["y"], minlength=4) for fold in folds])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    for fold, out in zip(folds, held_out, strict=True):
        np.testing.assert_array_equal(np.sort(rows(fold.train)), np.setdiff1d(np.arange(103), out))
        np.testing.assert_array_equal(fold.train["y"], dataset.train["y"][rows(fold.train)])
        np.testing.assert_array_equal(fold.validation["y"], dataset.train["y"][out])
    assert len({fold.sha256 for fold in folds}) == num_folds


def test_folds_of_a_regression_and_of_sorted_classes():
    folds = k_folds(damped_cosine(num_train=50, num_test=7), 3)
    assert [fold.sizes for fold in folds] == [
        {"train": 33, "validation": 17, "test": 7},
        {"train": 33, "validation": 17, "test": 7},
        {"train": 34, "validation": 16, "test": 7},
    ]
    ordered = from_arrays(np.arange(40)[:, None], np.sort(np.arange(40) % 4), num_classes=4, split="first")
    for fold in k_folds(ordered, 4):
        assert (np.diff(fold.train["y"]) < 0).any()  # in a random order, whatever the order of the data


def test_a_bootstrap_sample_is_drawn_with_replacement():
    dataset = numbered(size=2_000)
    sample = bootstrap(dataset, seed=3)
    drawn = rows(sample.train)
    assert len(drawn) == 2_000
    np.testing.assert_array_equal(np.union1d(drawn, rows(sample.validation)), np.arange(2_000))
    assert not np.intersect1d(drawn, rows(sample.validation)).size
    # Var of the number of empty cells of n draws into n cells is about n(e − 2)/e².
    assert abs(sample.sizes["validation"] / 2_000 - np.exp(-1)) < 4 * np.sqrt((np.e - 2) / np.e**2 / 2_000)
    np.testing.assert_array_equal(sample.train["y"], dataset.train["y"][drawn])
    assert not np.array_equal(drawn, rows(bootstrap(dataset, seed=4).train))


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_exactly_the_fraction_asked_for_is_wrong_and_every_other_class_as_likely(fraction):
    dataset = numbered(size=3_000)
    corrupted = corrupt_labels(dataset, fraction, seed=2)
    right, wrong = dataset.train["y"], corrupted.train["y"]
    assert (right != wrong).sum() == corrupted.details["num_corrupted"] == round(3_000 * fraction)
    np.testing.assert_array_equal(dataset.train["x"], corrupted.train["x"])
    for label in range(4):
        ours = right == label
        assert abs((wrong[ours] != label).sum() - fraction * ours.sum()) < 1
        moved = wrong[ours & (right != wrong)]
        for other in set(range(4)) - {label} if len(moved) else ():
            assert abs((moved == other).mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / len(moved))


def test_held_out_labels_stay_right():
    dataset = digits()
    corrupted = corrupt_labels(dataset, 0.5)
    np.testing.assert_array_equal(dataset.test["y"], corrupted.test["y"])
    np.testing.assert_array_equal(dataset.validation["y"], corrupted.validation["y"])


def test_sparse_features_have_their_frequencies_and_their_teacher():
    dataset = sparse_features(num_features=30, exponent=0.7, num_train=20_000, seed=5)
    x, y = dataset.train["x"].astype(float), dataset.train["y"]
    expected = 0.5 * np.arange(1.0, 31) ** -0.7
    assert (abs(x.mean(axis=0) - expected) < 5 * np.sqrt(expected / 20_000)).all()
    assert set(np.unique(x)) == {0.0, 1.0}
    # The labels are those of a linear logit: its fit by Newton's method is calibrated on fresh examples.
    w = np.zeros(30)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    p = 1 / (1 + np.exp(-dataset.test["x"].astype(float) @ w))
    z = (dataset.test["y"] - p).sum() / np.sqrt((p * (1 - p)).sum())
    assert abs(z) < 4
    assert np.std(w) > 1  # the teacher is 2·N(0, 1)


def test_the_rotated_features_are_the_same_task_without_zeros():
    plain, rotated = (sparse_features(num_features=20, rotated=flag) for flag in (False, True))
    np.testing.assert_array_equal(plain.train["y"], rotated.train["y"])
    np.testing.assert_allclose(
        plain.train["x"] @ plain.train["x"].T, rotated.train["x"] @ rotated.train["x"].T, atol=1e-4
    )
    assert (rotated.train["x"][plain.train["x"].any(axis=1)] != 0).mean() > 0.99


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: k_folds(numbered(), 1), ValueError, "num_folds"),
        (lambda: k_folds(numbered(), 104), DatasetError, "103 for 104 folds"),
        (lambda: k_folds(np.ones(3), 2), TypeError, "Dataset"),
        (lambda: bootstrap(numbered(), seed=-1), ValueError, "seed"),
        (lambda: corrupt_labels(numbered(), 1.5), ValueError, "fraction"),
        (lambda: corrupt_labels(damped_cosine(num_train=5), 0.5), DatasetError, "classes"),
        (lambda: sparse_features(num_features=0), ValueError, "num_features"),
        (lambda: sparse_features(exponent=-1.0), ValueError, "exponent"),
    ],
)
def test_what_cannot_be_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: datasets.corrupt_labels(datasets.digits(num_train=20), x), "fraction"),
        (lambda x: datasets.sparse_features(exponent=x), "exponent"),
        (lambda x: datasets.damped_cosine(noise=x), "noise"),
        (lambda x: problems.linear_regression(noise=x), "noise"),
        (lambda x: problems.linear_regression(condition_number=1 + x), "condition_number"),
        (lambda x: problems.linear_network((1.0,), init_scale=x), "init_scale"),
        (lambda x: sweeps.uniform(x, 1.0).low, "low"),
        (lambda x: sweeps.log_uniform(0.1, x).high, "high"),
        (lambda x: sweeps.wilson(1, 2, level=x).lower, "level"),
        (lambda x: sweeps.mean_interval([1.0, 2.0], level=x).lower, "level"),
    ],
)
def test_what_is_drawn_on_the_host_refuses_traced_numbers(make, name):
    with pytest.raises(TypeError, match=f"needs {name} to be a number known before compiling"):
        jax.jit(lambda x: make(x) and 0)(0.5)


def test_many_sparse_features_need_no_rotation():
    """An orthogonal matrix of this size would take 80 GB; and the teacher's sums are beyond what exp can hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = datasets.sparse_features(num_features=100_000, exponent=0.0, num_train=20, num_validation=0, num_test=0)
    assert wide.input_shape == (100_000,)
    assert set(wide.train["y"]) == {0, 1}


def test_the_rotation_does_not_change_what_is_drawn():
    plain, rotated = (datasets.sparse_features(num_features=20, num_train=50, rotated=r) for r in (False, True))
    np.testing.assert_array_equal(plain.train["y"], rotated.train["y"])
    np.testing.assert_allclose(
        plain.train["x"] @ plain.train["x"].T, rotated.train["x"] @ rotated.train["x"].T, atol=1e-4
    )
