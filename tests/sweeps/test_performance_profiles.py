"""Performance profiles count what Dolan and Moré's definition says."""

import numpy as np
import pytest

from jaxopt_study.sweeps._statistics._performance_profiles import error_cost, performance_profile


def test_shares_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    costs = rng.integers(1, 8, size=(20, 4)).astype(float)
    costs[rng.random(costs.shape) < 0.2] = np.nan
    costs[3] = np.inf
    tau = np.array([1.0, 1.5, 2.0, 7.0, 1e9])
    profile = performance_profile(costs, tau)
    for s in range(4):
        for t, share in zip(tau, profile.shares[s], strict=True):
            within = [c[s] <= t * np.nanmin(c) for c in costs if np.isfinite(c[s])]
            assert share == pytest.approx(sum(within) / len(costs))
    assert np.isinf(profile.ratios[3]).all()
    np.testing.assert_allclose(profile.shares[:, -1], np.isfinite(costs).mean(axis=0))


def test_the_factors_are_all_at_which_a_share_changes():
    costs = np.random.default_rng(1).lognormal(size=(9, 3))
    profile = performance_profile(costs)
    assert profile.tau[0] == 1.0
    assert (np.diff(profile.tau) > 0).all()
    assert (np.diff(profile.shares, axis=1).max(axis=0) > 0).all()
    assert (profile.shares[:, -1] == 1).all()
    between = performance_profile(costs, (profile.tau[1:] + profile.tau[:-1]) / 2)
    np.testing.assert_array_equal(between.shares, profile.shares[:, :-1])


def test_a_problems_unit_does_not_matter_and_the_order_of_solvers_does_not():
    costs = np.random.default_rng(2).lognormal(size=(9, 3))
    profile = performance_profile(costs)
    scaled = performance_profile(costs * 4.0 ** np.arange(9)[:, None])
    np.testing.assert_array_equal(scaled.shares, profile.shares)
    np.testing.assert_array_equal(performance_profile(costs[:, ::-1]).shares, profile.shares[::-1])


def test_nobody_solving_anything_is_a_profile_of_zeros():
    profile = performance_profile([[np.nan, np.inf]])
    assert (profile.tau.tolist(), profile.shares.tolist()) == ([1.0], [[0.0], [0.0]])


def test_error_costs_keep_the_order_and_are_positive():
    accuracies = np.array([0.9, 0.98, 1.0, np.nan])
    costs = error_cost(accuracies, 100)
    assert costs[0] > costs[1] > costs[2] > 0
    assert np.isnan(costs[3])
    assert error_cost(0.9, 10**6) == pytest.approx(0.1, rel=1e-4)
    assert performance_profile([costs]).shares[:, 0].tolist() == [0, 0, 1, 0]


def test_what_has_no_ratio_is_refused():
    with pytest.raises(ValueError, match="needs positive costs"):
        performance_profile([[0.0, 1.0]])
    with pytest.raises(ValueError, match=r"\(problems, solvers\)"):
        performance_profile([1.0])
    with pytest.raises(ValueError, match="at least 1"):
        performance_profile([[1.0, 2.0]], [0.5])
    for accuracies, count, message in ((1.2, 10, r"\[0, 1\]"), (0.5, 0, "num_examples to be an integer ≥ 1")):
        with pytest.raises(ValueError, match=message):
            error_cost(accuracies, count)


def test_a_cost_of_tau_times_the_least_is_within_tau():
    for tau in (1.1, 1.2, 1.3, 1.4, 1.7):
        for least in (0.1, 0.3, 0.7, 3.0, 1e-3):
            for dtype in (np.float32, np.float64):
                costs = np.array([[least, round(least * tau, 10)]], dtype)
                assert performance_profile(costs, [tau]).shares[1] == 1, (tau, least)
                assert performance_profile(costs, [tau - 1e-5]).shares[1] == 0
