"""The best trial stays in the set as often as stated, worse ones leave it, and selection is paid for."""

import numpy as np
import pytest
from scipy import stats

from jaxopt_study.sweeps._statistics._indistinguishable import indistinguishable

REPEATS = 150
ROOM = 3 * np.sqrt(0.05 * 0.95 / REPEATS)


def search(kind, rng, trials, seeds):
    """Return expected losses and losses of one search."""
    noise = rng.normal(size=(trials, seeds))
    means = np.zeros(trials)
    if kind == "unequal":
        means = np.sort(rng.exponential(3.0, size=trials))
        noise *= np.exp(rng.normal(size=(trials, 1)))
    elif kind == "lognormal":
        means = np.repeat([0.0, 1.0], [5, trials - 5])
        noise = np.exp(noise) - np.exp(0.5)
    elif kind == "rarely bad":  # the best one
        means[1:] = 0.05
        noise *= 0.1
        noise[0] = 0.05 * rng.normal(size=seeds) + (rng.random(seeds) < 0.2) - 0.2
    return means, means[:, None] + noise + rng.normal(size=seeds)


@pytest.mark.parametrize("kind", ["equal", "unequal", "lognormal", "rarely bad"])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_best_trial_is_in_the_set(kind, seeds):
    rng = np.random.default_rng(seeds)
    kept = []
    for _ in range(REPEATS):
        means, scores = search(kind, rng, 30, seeds)
        kept.append(indistinguishable(scores, mode="min")[means.argmin()])
    assert np.mean(kept) >= 0.95 - ROOM


def test_without_paying_for_selection_it_would_not_be():
    rng = np.random.default_rng(0)
    naive = []
    for _ in range(REPEATS):
        _, scores = search("equal", rng, 30, 5)
        winner = scores.mean(axis=1).argmin()
        p = stats.ttest_rel(scores[0], scores[winner], alternative="greater").pvalue if winner else 1.0
        naive.append(p > 0.05)  # the best-looking against the first, as if nobody had looked
    assert np.mean(naive) < 0.8


def test_worse_trials_leave_the_set_the_more_seeds_there_are():
    rng = np.random.default_rng(1)
    means = 8 * (np.linspace(-1, 1, 40) - 0.2) ** 2
    sizes = []
    for seeds in (2, 4, 8, 16):
        kept = indistinguishable(means[:, None] + 0.3 * rng.normal(size=(40, seeds)), mode="min")
        assert kept[means.argmin()]
        sizes.append(kept.sum())
    assert sizes[0] > sizes[1] > sizes[2] >= sizes[3]
    assert sizes[3] < 15


def test_it_is_the_paired_test_against_every_rival():
    scores = np.random.default_rng(2).normal(size=(6, 5)) + np.arange(6.0)[:, None]
    expected = [
        all(stats.ttest_rel(scores[i], scores[j], alternative="greater").pvalue >= 0.05 / 5 for j in range(6) if j != i)
        for i in range(6)
    ]
    np.testing.assert_array_equal(indistinguishable(scores, mode="min"), expected)
    np.testing.assert_array_equal(indistinguishable(-scores, mode="max"), expected)
    assert 0 < sum(expected) < 6


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_a_trial_leaves_the_set_where_students_t_rejects_it_and_no_earlier(seeds):
    noise = np.random.default_rng(seeds).normal(size=seeds)
    noise -= noise.mean()
    critical = stats.t.ppf(0.95, seeds - 1) * noise.std(ddof=1) / np.sqrt(seeds)
    for factor, kept in ((0.99, True), (1.01, False)):
        found = indistinguishable(np.stack([np.zeros(seeds), noise + factor * critical]), mode="min")
        np.testing.assert_array_equal(found, [True, kept])


def test_diverged_trials_are_out_unless_all_are():
    scores = np.random.default_rng(3).normal(size=(4, 3))
    scores[1, 2] = np.nan
    assert indistinguishable(scores, mode="min").tolist() == [True, False, True, True]
    assert indistinguishable(np.full((3, 2), np.nan), mode="max").all()
    lost = indistinguishable(np.array([[0.5], [np.nan]]), mode="min")
    assert lost.tolist() == [True, False]


def test_one_seed_tells_nothing_apart_without_a_number_of_examples():
    accuracies = np.array([[0.99], [0.10], [0.98]])
    assert indistinguishable(accuracies, mode="max").all()
    assert indistinguishable(accuracies, mode="max", num_examples=100).tolist() == [True, False, True]
    assert indistinguishable(1 - accuracies, mode="min", num_examples=100).tolist() == [True, False, True]
    assert indistinguishable(accuracies, mode="max", num_examples=100_000).tolist() == [True, False, False]
    assert indistinguishable(accuracies, mode="max", num_examples=1).all()


def test_a_hundred_images_do_not_show_which_model_is_the_best_on_all_images():
    rng = np.random.default_rng(4)
    with_examples, without = [], []
    for _ in range(REPEATS):
        right = rng.random((20, 1, 100)) < 0.9  # of equally good models, each right on images of its own
        accuracies = (right ^ (rng.random((20, 5, 100)) < 0.02)).mean(axis=2)
        with_examples.append(indistinguishable(accuracies, mode="max", num_examples=100)[0])
        without.append(indistinguishable(accuracies, mode="max")[0])
    assert np.mean(with_examples) >= 0.95
    assert np.mean(without) < 0.7  # they differ, on these hundred images


def test_equal_differences_prove_nothing_and_a_single_trial_is_the_best():
    assert indistinguishable([[0.1, 0.2], [0.2, 0.3]], mode="min").all()
    assert indistinguishable([[0.1, 0.2]], mode="min").tolist() == [True]


def test_what_is_no_search_is_refused():
    for scores in ([1.0, 2.0], np.zeros((0, 3)), np.zeros((3, 0))):
        with pytest.raises(ValueError, match=r"\(trials, seeds\)"):
            indistinguishable(scores, mode="min")
    with pytest.raises(ValueError, match="accuracies"):
        indistinguishable([[2.3], [0.5]], mode="min", num_examples=100)
    with pytest.raises(ValueError, match="num_examples to be an integer ≥ 1; received 0"):
        indistinguishable([[0.3], [0.5]], mode="min", num_examples=0)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 8, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_differences_are_not_distinguished_though_they_round(num_seeds, dtype):
    for seed in range(5):
        scores = np.random.default_rng(seed).uniform(1, 2, num_seeds).astype(dtype)
        assert indistinguishable([scores, scores + dtype(0.1)], mode="min").all()
        assert indistinguishable([scores, np.nextafter(scores, dtype(3))], mode="min").all()
