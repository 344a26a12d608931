"""Splits are disjoint, stratified and reproducible; drawn tasks obey their formulas; contents are hashed."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_study.problems import datasets
from jaxopt_study.problems.datasets import Dataset, DatasetError
from jaxopt_study.problems.datasets._splits import apportion, divide

PARTS = ("train", "validation", "test")


def numbered(num_examples: int = 400, **options) -> Dataset:
    """A data set whose inputs are row numbers, with four classes of unequal size."""
    labels = np.random.default_rng(5).choice(4, num_examples, p=[0.5, 0.3, 0.15, 0.05])
    return datasets.from_arrays(np.arange(num_examples)[:, None], labels, num_classes=4, **options)


def rows(dataset: Dataset, part: str) -> np.ndarray:
    return getattr(dataset, part)["x"][:, 0].astype(int)


def test_digits_are_scaled_images_with_labels():
    flat, images = datasets.digits(), datasets.digits(flatten=False)
    assert flat.sizes == {"train": 1197, "validation": 300, "test": 300}
    for part in PARTS:
        x, y = getattr(flat, part)["x"], getattr(flat, part)["y"]
        assert x.dtype == np.float32
        assert y.dtype == np.int32
        assert x.min() == 0
        assert x.max() == 1
        assert set(y) == set(range(10))
        np.testing.assert_array_equal(getattr(images, part)["x"].reshape(len(x), -1), x)
    assert images.input_shape == (8, 8, 1)


def test_digits_split_is_stratified_to_within_one_example_of_each_class():
    dataset = datasets.digits()
    counts = {part: np.bincount(getattr(dataset, part)["y"]) for part in PARTS}
    whole = sum(counts.values())
    assert whole.sum() == 1797
    np.testing.assert_array_less(np.abs(counts["test"] - 300 * whole / 1797), 1)
    np.testing.assert_array_less(np.abs(counts["validation"] - 300 * (whole - counts["test"]) / 1497), 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("num_train", [None, 50])
def test_stratified_parts_are_disjoint_and_keep_labels_with_their_inputs(seed, num_train):
    labels = np.random.default_rng(5).choice(4, 400, p=[0.5, 0.3, 0.15, 0.05])
    dataset = numbered(num_train=num_train, num_validation=61, num_test=83, seed=seed)
    taken = np.concatenate([rows(dataset, part) for part in PARTS])
    assert len(set(taken)) == len(taken)
    assert dataset.sizes == {"train": num_train or 256, "validation": 61, "test": 83}
    for part in PARTS:
        np.testing.assert_array_equal(getattr(dataset, part)["y"], labels[rows(dataset, part)])
        share = np.bincount(labels, minlength=4) / 400
        expected = share * dataset.sizes[part]
        np.testing.assert_array_less(np.abs(np.bincount(getattr(dataset, part)["y"], minlength=4) - expected), 2)


def test_splits_are_decided_by_the_seed_alone():
    first, again, other = (numbered(num_test=83, seed=seed) for seed in (3, 3, 4))
    assert first.sha256 == again.sha256 != other.sha256
    np.testing.assert_array_equal(rows(first, "test"), rows(again, "test"))
    assert set(rows(first, "test")) != set(rows(other, "test"))


def test_the_test_part_does_not_depend_on_how_many_are_trained_on():
    few, many = (numbered(num_train=n, num_validation=40, num_test=83) for n in (20, 200))
    np.testing.assert_array_equal(rows(few, "test"), rows(many, "test"))
    np.testing.assert_array_equal(rows(few, "validation"), rows(many, "validation"))


def test_first_split_takes_examples_in_file_order():
    dataset = numbered(num_train=30, num_validation=10, num_test=5, split="first")
    np.testing.assert_array_equal(np.concatenate([rows(dataset, part) for part in PARTS]), np.arange(45))
    rest = numbered(num_validation=10, num_test=5, split="first")
    np.testing.assert_array_equal(rows(rest, "train"), np.arange(385))


def test_parts_not_asked_for_are_absent():
    dataset = numbered()
    assert dataset.validation is None
    assert dataset.test is None
    assert dataset.sizes == {"train": 400}


def test_values_to_regress_on_are_split_without_classes():
    dataset = datasets.from_arrays(np.arange(50)[:, None], np.arange(50)[:, None] * 2.0, num_test=10)
    assert dataset.num_classes is None
    assert dataset.train["y"].dtype == np.float32
    np.testing.assert_array_equal(dataset.test["y"], 2 * dataset.test["x"])
    assert not set(rows(dataset, "train")) & set(rows(dataset, "test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_test": 400}, "Request fewer"),
        ({"num_train": 401}, "Request fewer"),
        ({"num_train": 0}, "at least one"),
        ({"num_test": -1}, "at least 0"),
    ],
)
def test_impossible_splits_are_refused_with_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        numbered(**options)


def test_an_unknown_split_is_refused_with_those_that_exist():
    unchecked = inspect.unwrap(divide)  # past the types, as a user without a type checker comes
    with pytest.raises(DatasetError, match='"stratified" or "first"; received \'alphabetical\''):
        unchecked(np.zeros(4, int), {"train": None}, split="alphabetical", seed=0, name="a")


@pytest.mark.parametrize("split", ["stratified", "first"])
def test_inputs_and_targets_of_different_lengths_are_refused(split):
    with pytest.raises(DatasetError, match="5 inputs, 4 targets"):
        datasets.from_arrays(np.zeros((5, 1)), np.zeros(4), split=split)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), st.floats(0, 1))
def test_apportioned_shares_sum_up_and_stay_within_one_of_exact(available, fraction):
    available = np.array(available)
    total = int(fraction * available.sum())
    shares = apportion(available, total)
    assert shares.sum() == total
    assert (shares <= available).all()
    assert (np.abs(shares - available * total / available.sum()) < 1 + 1e-9).all()


def test_hash_sees_every_value_and_the_division_into_parts():
    x, y = np.arange(6.0).reshape(3, 2).astype(np.float32), np.array([0, 1, 0], np.int32)
    dataset = Dataset("a", {"x": x, "y": y}, num_classes=2)
    changed = x.copy()
    changed[2, 1] = np.nextafter(changed[2, 1], 0)
    others = [
        Dataset("a", {"x": changed, "y": y}, num_classes=2),
        Dataset("a", {"x": x.reshape(3, 1, 2), "y": y}, num_classes=2),
        Dataset("a", {"x": x, "y": y}, test={"x": x, "y": y}, num_classes=2),
    ]
    assert len({dataset.sha256, *(other.sha256 for other in others)}) == 4
    assert Dataset("another name", {"x": x.copy(), "y": y.copy()}, num_classes=2).sha256 == dataset.sha256


def test_examples_are_read_only_and_the_callers_arrays_are_not():
    x, y = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
    dataset = Dataset("a", {"x": x, "y": y})
    with pytest.raises(ValueError, match="read-only"):
        dataset.train["x"][0] = 1
    x[0] = 1
    assert jnp.asarray(dataset.train["x"])[0, 0] == 1


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"x": np.zeros((2, 1))}, '"x" and "y"'),
        ({"x": np.zeros((2, 1)), "y": np.zeros(3, int)}, "2 inputs and 3 targets"),
        ({"x": np.zeros((0, 1)), "y": np.zeros(0, int)}, "at least one"),
        ({"x": np.zeros((2, 1)), "y": np.array([0, 3])}, "0…2"),
        ({"x": np.zeros((2, 1)), "y": np.array([-1, 0])}, "from -1"),
    ],
)
def test_inconsistent_examples_are_refused(examples, message):
    with pytest.raises(DatasetError, match=message):
        Dataset("a", examples, num_classes=3)


def test_damped_cosine_leaves_exactly_the_noise():
    dataset = datasets.damped_cosine(seed=1)
    x, y = (dataset.train[key].astype(np.float64) for key in "xy")
    assert x.shape == y.shape == (10_000, 1)
    residual = y - np.exp(-(x**2)) * np.cos(10 * x)
    # The variance of N residuals has standard error 9e-4 · √(2/N) = 1.3e-5: four of them.
    assert abs(np.mean(residual**2) - 9e-4) < 4 * 9e-4 * np.sqrt(2 / 10_000)
    assert -3 <= x.min() < -2.99
    assert 2.99 < x.max() <= 3
    assert dataset.details["irreducible_mse"] == pytest.approx(9e-4)
    noiseless = datasets.damped_cosine(noise=0.0, num_train=10).train
    np.testing.assert_allclose(noiseless["y"], np.exp(-(noiseless["x"] ** 2)) * np.cos(10 * noiseless["x"]), atol=2e-6)


def test_adding_targets_are_the_sums_of_the_two_marked_numbers():
    dataset = datasets.adding(num_steps=11, num_train=2_000)
    x, y = dataset.train["x"], dataset.train["y"]
    marks = x[:, :, 1]
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:, :5].sum(axis=1) == 1).all()
    assert (marks[:, 5:].sum(axis=1) == 1).all()
    np.testing.assert_allclose((x[:, :, 0] * marks).sum(axis=1), y[:, 0], rtol=1e-6)
    assert (marks.sum(axis=0) > 0).all()  # every step gets its turn


def test_temporal_order_labels_name_the_pair_in_its_order():
    dataset = datasets.temporal_order(num_steps=20, num_train=2_000)
    x, y = dataset.train["x"], dataset.train["y"]
    assert (x.sum(axis=-1) == 1).all()  # one-hot
    symbols = x.argmax(axis=-1)
    names = {0: "A", 1: "B"}
    for sequence, label in zip(symbols, y, strict=True):
        places = np.flatnonzero(sequence < 2)
        assert len(places) == 2
        assert 2 <= places[0] <= 4
        assert 8 <= places[1] <= 10
        assert ["AA", "AB", "BA", "BB"][label] == "".join(names[symbol] for symbol in sequence[places])
    assert set(y) == {0, 1, 2, 3}
    assert dataset.num_classes == 4


@pytest.mark.parametrize("make", [datasets.damped_cosine, datasets.adding, datasets.temporal_order])
def test_drawn_parts_are_independent_of_each_others_sizes(make):
    small = make(num_train=5, num_validation=7, num_test=9)
    large = make(num_train=50, num_validation=7, num_test=9)
    for part in ("validation", "test"):
        np.testing.assert_array_equal(getattr(small, part)["x"], getattr(large, part)["x"])
    assert not np.array_equal(small.train["x"][:5], small.test["x"][:5])
    assert make(num_train=5, seed=0).sha256 == make(num_train=5, seed=0).sha256 != make(num_train=5, seed=1).sha256
    assert make(num_train=5, num_validation=0, num_test=0).sizes == {"train": 5}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (datasets.damped_cosine, {"noise": -1.0}, "at least 0"),
        (datasets.damped_cosine, {"num_train": 0}, "num_train ≥ 1"),
        (datasets.adding, {"num_steps": 1}, "≥ 2"),
        (datasets.temporal_order, {"num_steps": 9}, "≥ 10"),
    ],
)
def test_impossible_draws_are_refused(make, options, message):
    with pytest.raises(DatasetError, match=message):
        make(**options)
