"""Intervals contain the truth as often as they say, on distributions whose truth is known, and narrower ones do not."""

import numpy as np
import pytest
from scipy import stats

from jaxopt_study.sweeps import mean_interval, median_interval, wilson

REPEATS = 1500
NOISE = 3 * np.sqrt(0.05 * 0.95 / REPEATS)  # of a measured coverage, at three standard errors


def draws(kind, count, seed=0):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(REPEATS, count))
    if kind == "normal":
        return normal, 0.0, 0.0
    if kind == "lognormal":
        return np.exp(normal), 1.0, np.exp(0.5)
    return 0.5 * normal + 2 * rng.choice([-1, 1], size=normal.shape), 0.0, 0.0


def coverage(interval, truth, scale=1.0):
    middle, half = (interval.upper + interval.lower) / 2, (interval.upper - interval.lower) / 2
    return np.mean(np.abs(truth - middle) <= scale * half)


@pytest.mark.parametrize("kind", ["normal", "lognormal", "bimodal"])
@pytest.mark.parametrize("count", [6, 7, 10, 20])
def test_from_six_seeds_on_a_median_is_covered_whatever_the_distribution(kind, count):
    values, median, _ = draws(kind, count)
    interval = median_interval(values)
    assert coverage(interval, median) >= 0.95 - NOISE
    np.testing.assert_allclose(interval.estimate, np.median(values, axis=1))


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_normal_means_are_covered_and_not_with_intervals_half_as_wide(count):
    values, _, mean = draws("normal", count)
    for interval in (mean_interval(values), median_interval(values)):
        assert coverage(interval, mean) >= 0.95 - NOISE
        assert coverage(interval, mean, scale=0.5) < 0.95 - NOISE
    assert coverage(mean_interval(values, level=0.8), mean) == pytest.approx(0.8, abs=0.035)


@pytest.mark.parametrize(("kind", "count", "median", "mean"), [
    ("lognormal", 3, 0.94, 0.83), ("lognormal", 5, 0.96, 0.90), ("lognormal", 10, 0.98, 0.90),
    ("bimodal", 3, 0.78, 0.78), ("bimodal", 5, 0.94, 0.94), ("bimodal", 10, 0.97, 0.99),
])  # fmt: skip
def test_the_documentation_says_how_much_is_covered(kind, count, median, mean):
    values, true_median, true_mean = draws(kind, count, seed=1)
    assert coverage(median_interval(values), true_median) == pytest.approx(median, abs=0.035)
    assert coverage(mean_interval(values), true_mean) == pytest.approx(mean, abs=0.035)


def test_bootstrapping_the_median_would_not_cover():
    values, median, _ = draws("normal", 3)
    resampled = np.median(values[:, np.random.default_rng(0).integers(3, size=(500, 3))], axis=2)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=1)
    assert np.mean((low <= median) & (median <= high)) < 0.8


def test_skewed_means_are_covered_better_than_by_students_t():
    values, _, mean = draws("lognormal", 10)
    n = values.shape[1]
    reach = stats.t.ppf(0.975, n - 1) * stats.sem(values, axis=1)
    student = np.mean(np.abs(values.mean(axis=1) - mean) <= reach)
    assert coverage(mean_interval(values), mean) > student + 0.03


@pytest.mark.parametrize("count", [6, 7, 12, 25])
def test_the_median_lies_between_the_order_statistics_of_the_sign_test(count):
    values = np.random.default_rng(2).permutation(np.arange(1.0, count + 1))
    interval = median_interval(values)
    rank = int(interval.lower)
    assert interval.upper == count + 1 - rank
    assert stats.binomtest(rank - 1, count).pvalue <= 0.05 < stats.binomtest(rank, count).pvalue


def test_three_values_have_students_interval():
    values = np.array([1.0, 2.0, 4.0])
    expected = stats.t.interval(0.9, 2, values.mean(), stats.sem(values))
    for interval in (median_interval(values, level=0.9), mean_interval(values, level=0.9)):
        np.testing.assert_allclose((interval.lower, interval.upper), expected)
    assert median_interval(values).estimate == 2.0


@pytest.mark.parametrize("interval", [median_interval([0.3]), mean_interval([0.3])])
def test_one_seed_bounds_nothing(interval):
    assert (interval.estimate, interval.lower, interval.upper) == (0.3, -np.inf, np.inf)


def test_many_samples_at_once_are_the_samples_one_by_one():
    values = np.random.default_rng(3).normal(size=(2, 3, 7))
    for make in (median_interval, mean_interval):
        together = make(values)
        alone = make(values[1, 2])
        assert isinstance(alone.estimate, float)
        assert together.lower.shape == (2, 3)
        found = (together.estimate[1, 2], together.lower[1, 2], together.upper[1, 2])
        np.testing.assert_allclose(found, (alone.estimate, alone.lower, alone.upper), rtol=1e-12)


def test_shifted_and_scaled_values_have_the_shifted_and_scaled_interval():
    values = np.random.default_rng(4).gamma(1.0, size=8)
    for make in (median_interval, mean_interval):
        plain, changed = make(values), make(3 * values + 1000)
        np.testing.assert_allclose(changed.lower, 3 * plain.lower + 1000, rtol=1e-10)
        np.testing.assert_allclose(changed.upper, 3 * plain.upper + 1000, rtol=1e-10)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(5).normal(size=6)
    assert mean_interval(values, seed=7) == mean_interval(values, seed=7) != mean_interval(values, seed=8)


def test_equal_values_leave_no_width_and_infinite_ones_no_bound():
    assert mean_interval([2.0] * 6) == mean_interval([2.0] * 6, seed=1)
    assert (mean_interval([2.0] * 6).lower, mean_interval([2.0] * 6).upper) == (2.0, 2.0)
    for count in (3, 8):
        interval = mean_interval([1.0] * count + [np.inf])
        assert (interval.estimate, interval.lower, interval.upper) == (np.inf, -np.inf, np.inf)
    interval = median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.inf])
    assert (interval.estimate, interval.lower, interval.upper) == (4.0, 1.0, np.inf)
    assert median_interval([1.0, 2.0, np.inf]).estimate == 2.0
    assert np.isnan(mean_interval([np.inf, -np.inf, 0.0]).estimate)


@pytest.mark.parametrize(("values", "level", "message"), [
    ([1.0, np.nan], 0.95, "penalised"), ([], 0.95, "at least one seed"), (1.0, 0.95, "at least one seed"),
    ([1.0], 95.0, r"level to be a real number in \(0, 1\); received 95.0"), ([1.0], 1.0, r"in \(0, 1\)"),
])  # fmt: skip
def test_what_has_no_interval_is_refused_with_the_remedy(values, level, message):
    for make in (median_interval, mean_interval):
        with pytest.raises(ValueError, match=message):
            make(values, level=level)


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (1, 1), (500, 1000)])
def test_wilson_is_scipys(successes, count):
    expected = stats.binomtest(successes, count).proportion_ci(0.9, method="wilson")
    interval = wilson(successes, count, level=0.9)
    np.testing.assert_allclose((interval.lower, interval.upper), (expected.low, expected.high), atol=1e-12)
    assert interval.lower <= interval.estimate <= interval.upper


def test_wilson_covers_on_average_exactly_and_halved_it_does_not():
    counts, shares = np.arange(11), np.linspace(0.0005, 0.9995, 1999)
    interval = wilson(counts, 10)
    chances = stats.binom.pmf(counts, 10, shares[:, None])
    inside = (interval.lower <= shares[:, None]) & (shares[:, None] <= interval.upper)
    covered = (chances * inside).sum(axis=1)
    assert covered.mean() == pytest.approx(0.95, abs=0.01)
    assert covered.min() == pytest.approx(0.835, abs=0.005)
    middle, half = (interval.lower + interval.upper) / 2, (interval.upper - interval.lower) / 4
    assert (chances * (np.abs(shares[:, None] - middle) <= half)).sum(axis=1).mean() < 0.75


def test_wilson_of_no_trials_knows_nothing_and_impossible_counts_are_refused():
    interval = wilson([0, 2], [0, 4])
    assert np.isnan(interval.estimate[0])
    assert (interval.lower[0], interval.upper[0]) == (0.0, 1.0)
    for counts in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="0 ≤ successes ≤ num_trials"):
            wilson(*counts)


@pytest.mark.parametrize("exponent", [-1010, 1010])
@pytest.mark.parametrize("interval", [median_interval, mean_interval])
@pytest.mark.parametrize("count", [3, 6, 12])
def test_intervals_have_no_units(exponent, interval, count):
    values = np.random.default_rng(3).normal(1.0, 1.0, size=(2, count))
    plain, scaled = interval(values), interval(np.ldexp(values, exponent))
    for name in ("estimate", "lower", "upper"):
        np.testing.assert_array_equal(getattr(scaled, name), np.ldexp(getattr(plain, name), exponent))
