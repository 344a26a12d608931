"""The best of k is that of all subsets, and its intervals hold the truth about searches that were not run."""

import itertools

import numpy as np
import pytest

from jaxopt_study.sweeps import best_of_k, chosen_of_k

RNG = np.random.default_rng(0)
SCORES = np.array([0.5, 0.2, 0.9, 0.2, 0.7, 0.4, 0.3])
REPORT = np.array([0.6, 0.3, 0.8, 0.1, 0.9, 0.35, 0.5])
ALL = np.arange(1, len(SCORES) + 1)


def subsets(k):
    return [list(s) for s in itertools.combinations(range(len(SCORES)), k)]


def lower_median(values):
    return np.sort(values)[(len(values) - 1) // 2]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_best_of_k_is_that_of_all_subsets(mode):
    best = np.min if mode == "min" else np.max
    means = best_of_k(SCORES, ALL, mode=mode, average="mean").estimate
    medians = best_of_k(SCORES, ALL, mode=mode).estimate
    for k in ALL:
        found = np.array([best(SCORES[s]) for s in subsets(k)])
        assert means[k - 1] == pytest.approx(found.mean(), rel=1e-12)
        sign = 1 if mode == "min" else -1
        assert medians[k - 1] == sign * lower_median(sign * found)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_chosen_of_k_is_that_of_all_subsets_and_ties_share_the_choice(mode):
    means = chosen_of_k(SCORES, REPORT, ALL, mode=mode, report_mode="max", average="mean").estimate
    medians = chosen_of_k(SCORES, REPORT, ALL, mode=mode, report_mode="min").estimate
    for k in ALL:
        values, chances = [], []
        for s in subsets(k):
            best = SCORES[s].min() if mode == "min" else SCORES[s].max()
            chosen = REPORT[s][SCORES[s] == best]
            values += list(chosen)
            chances += [1 / len(chosen)] * len(chosen)
        values, chances = np.array(values), np.array(chances) / sum(chances)
        assert means[k - 1] == pytest.approx(values @ chances, rel=1e-12)
        order = np.argsort(values)
        assert medians[k - 1] == values[order][(np.cumsum(chances[order]) >= 0.5 - 1e-9).argmax()]


def test_weights_are_exact_for_thousands_of_trials():
    scores = np.arange(5000.0)  # the expected minimum of k of n ranks 1 … n is (n + 1)/(k + 1)
    k = np.array([1, 2, 10, 500, 2500, 4999, 5000])
    np.testing.assert_allclose(best_of_k(scores + 1, k, mode="min", average="mean").estimate, 5001 / (k + 1), rtol=1e-9)


def test_a_single_k_gives_numbers_and_more_trials_never_hurt():
    one = best_of_k(SCORES, 3, mode="min")
    assert isinstance(one.estimate, float)
    many = best_of_k(SCORES, ALL, mode="min")
    assert (one.estimate, one.lower, one.upper) == (many.estimate[2], many.lower[2], many.upper[2])
    assert (np.diff(many.estimate) <= 0).all()
    assert (np.diff(many.upper) <= 0).all()
    assert one.upper >= one.estimate


def test_a_diverged_trial_is_the_worst_and_makes_means_infinite_until_it_cannot_be_the_best():
    scores = np.array([np.nan, 1.0, np.nan, 2.0])
    assert best_of_k(scores, [1, 2, 3, 4], mode="min", average="mean").estimate.tolist() == [np.inf, np.inf, 1.25, 1.0]
    assert best_of_k(scores, [1, 2], mode="min").estimate.tolist() == [2.0, 1.0]
    assert best_of_k(scores, 1, mode="max", average="mean").estimate == -np.inf
    chosen = chosen_of_k([1.0, 2.0], [np.nan, 3.0], [1, 2], mode="min", average="mean")
    assert chosen.estimate.tolist() == [np.inf, np.inf]
    chosen = chosen_of_k([2.0, 1.0], [np.nan, 3.0], [1, 2], mode="min", average="mean")
    assert chosen.estimate.tolist() == [np.inf, 3.0]


def searches(kind, repeats, n=50):
    """Return validation and test losses of random searches, and a million trials for the truth."""

    def draw(rng, size):
        rate = rng.uniform(-1, 1, size=size)
        loss = 3 * (rate - 0.3) ** 2 if kind == "rate" else -np.exp(rng.normal(size=size))
        return loss + 0.1 * rng.normal(size=size), loss

    return draw(np.random.default_rng(1), (repeats, n)), draw(np.random.default_rng(2), 400_000)


@pytest.mark.parametrize("kind", ["rate", "heavy"])
def test_the_median_is_covered_at_every_k_and_not_by_half_the_interval(kind):
    k = np.array([1, 2, 5, 9, 10, 25, 50])
    (losses, _), (many, _) = searches(kind, repeats=400)
    truth = np.quantile(many, 1 - 0.5 ** (1 / k))
    found = [best_of_k(row, k, mode="min") for row in losses]
    lower, upper = np.array([x.lower for x in found]), np.array([x.upper for x in found])
    covered = ((lower <= truth) & (truth <= upper)).mean(axis=0)
    assert (covered >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)).all()
    bounded = np.isfinite(lower).all(axis=0)
    np.testing.assert_array_equal(bounded, k < 50 / 5.3)
    middle, quarter = (lower + upper)[:, bounded] / 2, (upper - lower)[:, bounded] / 4
    assert ((np.abs(truth[bounded] - middle) <= quarter).mean(axis=0) < 0.9).all()


def test_the_bootstrap_of_the_mean_is_not_believed_where_it_would_not_cover():
    k = np.array([1, 5, 6, 50])
    (losses, _), (many, _) = searches("heavy", repeats=1)
    found = best_of_k(losses[0], k, mode="min", average="mean")
    assert np.isfinite(found.lower).tolist() == [True, True, False, False]
    assert np.isfinite(found.upper).tolist() == [True, True, False, False]
    # Control: the best of resamples never exceeds the best that was seen, which is short of the truth.
    resampled = losses[0][np.random.default_rng(0).integers(50, size=(500, 50))].min(axis=1)
    truth = many.reshape(-1, 50).min(axis=1).mean()
    assert losses[0].min() <= resampled.min()
    assert truth < np.quantile(resampled, 0.025)


def test_what_validation_chooses_is_covered_and_its_own_score_flatters_it():
    k = np.array([1, 3, 10])
    (validation, test), (many, many_test) = searches("rate", repeats=60)
    truth = []
    for count in k:
        rows = many[: 20_000 * count].reshape(-1, count)
        truth.append(np.median(np.take_along_axis(many_test[: 20_000 * count].reshape(-1, count),
                                                  rows.argmin(axis=1)[:, None], axis=1)))  # fmt: skip
    found = [chosen_of_k(v, t, k, mode="min") for v, t in zip(validation, test, strict=True)]
    lower, upper = np.array([x.lower for x in found]), np.array([x.upper for x in found])
    assert (((lower <= truth) & (truth <= upper)).mean(axis=0) >= 0.83).all()
    flattering = [best_of_k(v, 10, mode="min").estimate for v in validation]
    assert np.mean(flattering) < truth[-1] - 0.02


def test_it_repeats_with_its_seed_only():
    scores = np.random.default_rng(3).normal(size=40)
    found = [best_of_k(scores, 1, mode="min", average="mean", seed=s).lower for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("scores", "k", "message"), [
    ([], 1, "one score per trial"), ([[1.0]], 1, "Average over seeds"), ([1.0, 2.0], 3, "from 1 to 2"),
    ([1.0, 2.0], 0, "from 1 to 2"), ([1.0, 2.0], 1.5, "k to be integers"), ([1.0], [[1]], "k to be integers"),
])  # fmt: skip
def test_what_is_no_search_is_refused(scores, k, message):
    with pytest.raises(ValueError, match=message):
        best_of_k(scores, k, mode="min")
    with pytest.raises(ValueError, match=message):
        chosen_of_k(scores, scores, k, mode="min")


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="'median', 'mean'; received 'typical'"):
        best_of_k([1.0], 1, mode="min", average="typical")
    with pytest.raises(ValueError, match='"min" or "max"'):
        best_of_k([1.0], 1, mode="best")
    with pytest.raises(ValueError, match="selection and report of the same shape"):
        chosen_of_k([1.0], [1.0, 2.0], 1, mode="min")
