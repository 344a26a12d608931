"""Paired differences: exact against all sign flips, as sure as they say, honest about families and divergence."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxopt_study.sweeps._statistics._paired_tests import paired_difference, paired_differences

NOTHING = "no detectable difference"


def brute_force_p(differences):
    ranks = stats.rankdata(np.abs(differences))
    signs = np.sign(differences)
    observed = abs((signs * ranks).sum())
    flipped = [abs((np.array(s) * signs * ranks).sum()) for s in itertools.product((1, -1), repeat=len(ranks))]
    return np.mean(np.array(flipped) >= observed - 1e-9)


@pytest.mark.parametrize("count", [1, 3, 6, 9])
@pytest.mark.parametrize("decimals", [0, 3])  # 0: many ties and zeros
def test_p_is_that_of_all_sign_flips(count, decimals):
    rng = np.random.default_rng(count)
    for _ in range(10):
        a, b = rng.normal(0.7, 1.0, size=count).round(decimals), rng.normal(size=count).round(decimals)
        found = paired_difference(a, b, mode="min", test="signed-rank")
        assert found.p_value == pytest.approx(brute_force_p(a - b), rel=1e-12)


def test_without_ties_it_is_scipys_exact_wilcoxon_and_counts_in_both_directions():
    rng = np.random.default_rng(0)
    for count in (6, 15, 40):
        a, b = rng.normal(0.4, 1.0, size=count), rng.normal(size=count)
        found = paired_difference(a, b, mode="max")
        assert found.test == "signed-rank"
        assert found.p_value == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue, rel=1e-10)
        back = paired_difference(b, a, mode="max")
        assert (back.estimate, back.lower, back.upper) == (-found.estimate, -found.upper, -found.lower)


@pytest.mark.parametrize("count", [6, 7, 10, 15])
def test_the_interval_leaves_out_exactly_the_shifts_that_the_test_rejects(count):
    rng = np.random.default_rng(count)
    a, b = rng.normal(1.0, 1.0, size=count), rng.normal(size=count)
    found = paired_difference(a, b, mode="min")
    for end, outward in ((found.lower, -1), (found.upper, 1)):
        assert paired_difference(a - end - outward * 1e-9, b, mode="min").p_value <= 0.05
        assert paired_difference(a - end + outward * 1e-9, b, mode="min").p_value > 0.05
    assert found.lower <= found.estimate <= found.upper
    averages = [(x + y) / 2 for x, y in itertools.combinations_with_replacement(a - b, 2)]
    assert found.estimate == pytest.approx(np.median(averages))


def test_few_seeds_get_students_t_and_say_so():
    a, b = np.array([1.0, 1.2, 0.9, 1.1]), np.array([2.0, 2.3, 1.7, 2.2])
    found = paired_difference(a, b, mode="min")
    expected = stats.ttest_rel(a, b)
    assert found.test == "t"
    assert found.p_value == pytest.approx(expected.pvalue)
    np.testing.assert_allclose((found.lower, found.upper), expected.confidence_interval(0.95))
    assert found.verdict == "a is better"
    assert paired_difference(a, b, mode="max").verdict == "b is better"
    assert paired_difference(a, b, mode="min", test="signed-rank").verdict == NOTHING


@pytest.mark.parametrize("kind", ["normal", "lognormal", "bimodal", "diverging"])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_equals_are_told_apart_no_more_often_than_stated(kind, count):
    rng = np.random.default_rng(count)
    repeats = 500

    def draw():
        normal = rng.normal(size=count)
        if kind == "lognormal":
            return np.exp(normal)
        if kind == "bimodal":
            return 0.5 * normal + 2 * rng.choice([-1, 1], size=count)
        return np.where(rng.random(count) < 0.2, np.nan, normal) if kind == "diverging" else normal

    shared = rng.normal(size=(repeats, count))  # what seeds have in common leaves the differences
    found = [paired_difference(draw() + s, draw() + s, mode="min") for s in shared]
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert np.mean([x.verdict != NOTHING for x in found]) <= bound
    assert np.mean([x.lower <= 0 <= x.upper for x in found]) >= 1 - bound


def test_what_seeds_share_leaves_the_difference():
    rng = np.random.default_rng(0)
    shared = 10 * rng.normal(size=8)
    a, b = shared + 0.1 * rng.normal(size=8), shared + 1 + 0.1 * rng.normal(size=8)
    assert paired_difference(a, b, mode="min").verdict == "a is better"
    assert paired_difference(a, rng.permutation(b), mode="min").verdict == NOTHING  # control: not the same seeds


def test_diverged_seeds_are_the_largest_differences_and_twice_diverged_ones_are_ties():
    fine = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    lost = np.where(np.arange(6) < 5, np.nan, fine + 0.1)
    assert paired_difference(fine, lost, mode="min").verdict == "a is better"
    assert paired_difference(-fine, -lost, mode="max").verdict == "a is better"
    assert paired_difference(fine, lost, mode="min").estimate == -np.inf
    both = paired_difference(lost, lost, mode="min")
    assert (both.estimate, both.p_value, both.verdict) == (0.0, 1.0, NOTHING)
    # A seed on which b diverged outweighs any one on which a was worse, but not five.
    one = np.array([np.nan, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = paired_difference(np.full(6, 2.0), one, mode="min")
    ranks = np.array([-6.0, 3, 3, 3, 3, 3])
    assert found.p_value == pytest.approx(brute_force_p(ranks))
    few = paired_difference([1.0, 2.0, 3.0], [np.nan, 3.0, 4.0], mode="min")
    assert (few.test, few.p_value, few.lower, few.upper) == ("signed-rank", 0.25, -np.inf, np.inf)


def test_equal_differences_of_few_seeds_are_no_proof():
    # On 100 images, differences are multiples of .01, and three of them are soon equal.
    found = paired_difference([0.91, 0.92, 0.90], [0.90, 0.91, 0.89], mode="max")
    assert (found.p_value, found.verdict) == (0.25, NOTHING)
    assert paired_difference([0.5], [0.1], mode="max").verdict == NOTHING


def test_a_winner_is_named_where_the_printed_interval_leaves_out_zero_and_nowhere_else():
    """Also among accuracies, whose differences tie and which single precision rounds; p is then small enough, too."""
    rng = np.random.default_rng(3)
    named = reached = 0
    for _ in range(60):
        right = rng.binomial(300, rng.uniform(0.93, 0.97, size=(5, 1)), size=(5, 11))
        scores = dict(zip("abcde", (right / 300).astype(np.float32), strict=True))
        found = paired_differences(scores, mode="max")
        np.testing.assert_array_equal(found.better, (found.lower > 0).astype(int) - (found.upper < 0))
        assert (found.p_value[found.better != 0] <= 0.05 + 1e-12).all()
        named += (found.better != 0).sum()
        reached += ((found.p_value <= 0.05) & (found.better == 0)).sum()
        few = np.abs(np.stack([found.lower, found.upper]))
        assert not ((few > 0) & (few < 1e-6)).any()
    assert named > 50
    assert reached < named / 5


def test_a_family_of_equals_has_rarely_a_winner():
    rng = np.random.default_rng(1)
    families = [paired_differences({name: rng.normal(size=9) for name in "abcd"}, mode="min") for _ in range(200)]
    assert np.mean([np.any(found.better) for found in families]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_the_matrices_agree_with_the_pairs():
    rng = np.random.default_rng(2)
    scores = {name: rng.normal(size=12) + shift for name, shift in (("a", 0.0), ("b", 0.1), ("c", 5.0))}
    found = paired_differences(scores, mode="max")
    assert found.names == ("a", "b", "c")
    for i, j in itertools.permutations(range(3), 2):
        pair = paired_difference(scores["abc"[i]], scores["abc"[j]], mode="max", level=1 - 0.05 / 3)
        assert found.estimate[i, j] == pytest.approx(pair.estimate)
        assert (found.lower[i, j], found.upper[i, j]) == pytest.approx((pair.lower, pair.upper))
    np.testing.assert_array_equal(found.better, [[0, 0, -1], [0, 0, -1], [1, 1, 0]])
    np.testing.assert_array_equal(found.better, -found.better.T)
    raw = [paired_difference(scores[x], scores[y], mode="max").p_value for x, y in ("ab", "ac", "bc")]
    np.testing.assert_allclose(found.p_value[np.triu_indices(3, 1)], np.minimum(1.0, 3 * np.array(raw)))
    assert set(found.test.values()) == {"signed-rank"}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([1.0, 2.0], [1.0], mode="min")
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([], [], mode="min")
    with pytest.raises(ValueError, match='"min" or "max"'):
        paired_difference([1.0], [1.0], mode="loss")
    with pytest.raises(ValueError, match="signed-rank"):
        paired_difference([1.0], [1.0], mode="min", test="sign")
    with pytest.raises(ValueError, match="at least two"):
        paired_differences({"a": [1.0]}, mode="min")
    with pytest.raises(ValueError, match=r"level to be a real number in \(0, 1\)"):
        paired_differences({"a": [1.0], "b": [2.0]}, mode="min", level=5.0)


@pytest.mark.parametrize("num_seeds", [3, 5, 8, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_that_are_rounding_are_none(num_seeds, dtype):
    a = np.random.default_rng(num_seeds).uniform(1, 2, num_seeds).astype(dtype)
    found = paired_difference(a, np.nextafter(a, dtype(3)), mode="min")
    assert (found.estimate, found.p_value, found.verdict) == (0, 1, "no detectable difference")
    far = paired_difference(a, a * dtype(1.001), mode="min", test="signed-rank")
    assert far.p_value == 2.0 ** (1 - num_seeds)


@pytest.mark.parametrize("num_seeds", [3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_spread_of_equal_differences_is_unknown_though_they_round(num_seeds, dtype):
    for seed in range(5):
        a = np.random.default_rng(seed).uniform(1, 2, num_seeds).astype(dtype)
        found = paired_difference(a, a + dtype(0.1), mode="min")
        assert found.test == "signed-rank"
        assert (found.lower, found.upper) == (-np.inf, np.inf)
