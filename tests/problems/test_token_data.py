"""Texts and tasks of tokens: what they promise, and what they refuse."""

import jax
import numpy as np
import pytest

from jaxopt_study.problems import datasets
from jaxopt_study.problems.datasets import Dataset, DatasetError


def all_tokens(dataset):
    """The text again, from windows taken in order."""
    parts = list(dataset.parts.values())
    x, y = (np.concatenate([part[key] for part in parts]) for key in ("x", "y"))
    return np.append(x.ravel(), y[-1, -1])


def test_the_default_text_is_english_prose_each_paragraph_of_it_once():
    dataset = datasets.text(split="first")
    decoded = "".join(dataset.details["vocabulary"][token] for token in all_tokens(dataset))
    assert len(decoded) > 300_000
    assert decoded.count("The import statement") < 10
    paragraphs = [part for part in decoded.split("\n\n") if len(part) > 200]
    assert len(set(paragraphs)) == len(paragraphs)
    assert sum(decoded.count(f" {word} ") for word in ("the", "of", "is")) > 4_000
    assert dataset.vocabulary_size == len(set(decoded)) < 256
    sizes = dataset.sizes
    assert sizes["validation"] == sizes["test"] == sum(sizes.values()) // 10
    assert "pydoc_data" in dataset.source


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_a_text_is_cut_into_windows_that_predict_every_token_once(tokens, tmp_path):
    content = "Zwölf Boxkämpfer jagen Viktor — über den Sylter Deich. 𝄞" * 3
    path = tmp_path / "pangram.txt"
    path.write_text(content, encoding="utf-8")
    dataset = datasets.text(path, tokens=tokens, context=5, split="first", num_validation=0, num_test=4)
    found = all_tokens(dataset)
    if tokens == "bytes":
        assert content.encode().startswith(bytes(found.astype(np.uint8)))
        assert dataset.vocabulary_size == 256
        assert len(content.encode()) - len(found) < 5
    else:
        assert content.startswith("".join(dataset.details["vocabulary"][token] for token in found))
        assert dataset.vocabulary_size == len(set(content))
    for part in dataset.parts.values():
        np.testing.assert_array_equal(part["x"][:, 1:], part["y"][:, :-1])
    assert dataset.source == "pangram.txt"
    drawn = datasets.text(path, tokens=tokens, context=5, num_validation=0, num_test=4, seed=1)
    starts = lambda data: sorted(map(tuple, np.concatenate([part["x"] for part in data.parts.values()])))
    assert starts(drawn) == starts(dataset)
    assert drawn.sha256 != dataset.sha256


def test_a_folder_is_the_text_of_its_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name, content in [("b/two.txt", "22222"), ("a.txt", "11111"), (".git/x.txt", "99999"), ("c.md", "33333")]:
        (tmp_path / name).write_text(content)
    read = lambda **options: all_tokens(
        datasets.text(tmp_path, tokens="bytes", context=2, split="first", num_validation=0, num_test=1, **options)
    )
    assert bytes(read().astype(np.uint8)) == b"11111\n\n22222\n\n33333"
    assert bytes(read(pattern="**/*.txt").astype(np.uint8)) == b"11111\n\n2222"  # the last token ends no window


def test_a_text_that_cannot_be_read_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "latin").write_bytes("é".encode("latin-1") * 99)
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").write_text("abc")
    for path, message in [("latin", 'tokens="bytes"'), ("empty", "no files"), ("absent", "neither"), ("short", "3")]:
        with pytest.raises(DatasetError, match=message):
            datasets.text(tmp_path / path)
    with pytest.raises(DatasetError, match="pattern"):
        datasets.text(tmp_path, pattern="/absolute")
    with pytest.raises(ValueError, match="characters"):
        datasets.text(tokens="words")


def test_the_induction_task_is_predictable_exactly_where_it_counts():
    part = datasets.induction(num_symbols=9, length=12, num_train=300).train
    periods = set()
    for x, y in zip(part["x"], part["y"], strict=True):
        for t in range(12):
            earlier = [s for s in range(t) if x[s] == x[t]]
            assert (y[t] >= 0) == bool(earlier)
            if earlier:
                assert y[t] == x[earlier[-1] + 1] == x[earlier[0] + 1]
        periods.add(int((y < 0).sum()))
    assert periods == {3, 4, 5, 6}


def test_modular_addition_has_every_pair_once():
    dataset = datasets.modular_addition(modulus=7)
    pairs = np.concatenate([part["x"] for part in dataset.parts.values()])
    assert len(np.unique(pairs, axis=0)) == 48  # of 49, half and two quarters
    for part in dataset.parts.values():
        np.testing.assert_array_equal(part["y"][:, 2], part["x"][:, :2].sum(axis=1) % 7)
        assert (part["y"][:, :2] == -1).all()
    assert dataset.vocabulary_size == 8


def test_heavy_tailed_tokens_have_their_frequencies_and_their_entropy():
    dataset = datasets.heavy_tailed_tokens(vocabulary_size=4, repetition=0.3, length=50, num_train=8_000)
    pi = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    transitions = 0.7 * np.tile(pi, (4, 1)) + 0.3 * np.eye(4)
    entropy = -sum(pi[i] * transitions[i] @ np.log(transitions[i]) for i in range(4))
    np.testing.assert_allclose(dataset.details["irreducible_cross_entropy"], entropy, rtol=1e-12)
    x, y = dataset.train["x"].ravel(), dataset.train["y"].ravel()
    np.testing.assert_allclose(np.bincount(y) / len(y), pi, atol=0.01)
    counts = np.zeros((4, 4))
    np.add.at(counts, (x, y), 1)
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), transitions, atol=0.012)
    certain = datasets.heavy_tailed_tokens(repetition=1.0, num_train=10)
    assert certain.details["irreducible_cross_entropy"] == 0
    assert (certain.train["x"] == certain.train["x"][:, :1]).all()


def test_heavy_tailed_classes_lie_about_their_means():
    dataset = datasets.heavy_tailed_classes(num_classes=3, num_features=40, exponent=2.0, separation=2.0)
    x, y = dataset.train["x"], dataset.train["y"]
    np.testing.assert_allclose(np.bincount(y) / 5000, np.array([1, 1 / 4, 1 / 9]) / (49 / 36), atol=0.03)
    means = np.array([x[y == label].mean(axis=0) for label in range(3)])
    nearest = np.argmin(((dataset.test["x"][:, None] - means) ** 2).sum(-1), axis=1)
    assert (nearest == dataset.test["y"]).mean() > 0.99
    np.testing.assert_allclose((x - means[y]).std(), 1, rtol=0.02)


@pytest.mark.parametrize(
    "make", [datasets.copy, datasets.induction, datasets.heavy_tailed_classes, datasets.heavy_tailed_tokens]
)
def test_parts_and_seeds_are_independent(make):
    small, large, other = make(num_train=5), make(num_train=9), make(num_train=5, seed=1)
    np.testing.assert_array_equal(small.test["x"], large.test["x"])
    assert small.sha256 == make(num_train=5).sha256 != other.sha256


def test_resampled_sequences_remain_sequences():
    data = datasets.copy(num_train=20, num_validation=0, num_test=3)
    for part in (*datasets.k_folds(data, 2), datasets.bootstrap(data)):
        assert part.vocabulary_size == data.vocabulary_size


@pytest.mark.parametrize(
    ("x", "y", "size", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3), int), 4, "integers of one shape"),
        (np.zeros((2, 3), int), np.zeros((2, 2), int), 4, "integers of one shape"),
        (np.full((2, 3), 4), np.zeros((2, 3), int), 4, "lie in 0…3"),
        (np.zeros((2, 3), int), np.full((2, 3), -2), 4, "−1, which does not count"),
        (np.zeros((2, 3), int), np.array([[0, 1, 2], [-1, -1, -1]]), 4, "a target that counts"),
    ],
)
def test_tokens_out_of_range_are_refused(x, y, size, message):
    with pytest.raises(DatasetError, match=message):
        Dataset("mine", {"x": x, "y": y}, vocabulary_size=size)


def test_a_data_set_has_classes_or_a_vocabulary():
    tokens = np.zeros((2, 3), int)
    with pytest.raises(DatasetError, match="Drop one"):
        Dataset("mine", {"x": tokens, "y": tokens}, num_classes=3, vocabulary_size=3)
    assert "vocabulary_size=3" in repr(Dataset("mine", {"x": tokens, "y": tokens}, vocabulary_size=3))


@pytest.mark.parametrize("name", ["exponent", "separation", "repetition"])
def test_what_shapes_drawn_data_is_known_before_compiling(name):
    make = datasets.heavy_tailed_tokens if name == "repetition" else datasets.heavy_tailed_classes
    with pytest.raises(TypeError, match=f"needs {name} to be a number known before compiling"):
        jax.jit(lambda value: make(**{name: value}).train["x"])(1.0)
