"""Samplers: their points have the distributions they claim, scipy's own where it has them, and grids are exact."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from jaxopt_study.sweeps import Space, choices, conditional, integers, log_uniform, sample, uniform

SPACE = Space({
    "decay": uniform(-1.0, 3.0),
    "rate": log_uniform(1e-5, 1e-1),
    "layers": integers(2, 6),
    "width": integers(1, 16, log=True),
    "method": choices("sgd", "adam", "lion"),
})  # fmt: skip


def values_of(name, **options):
    configs, _ = sample(SPACE, 2048, key=jax.random.key(3), **options)
    return np.array([config[name] for config in configs])


def p_value(values, expected):
    """Return the probability of counts as far as these from equal or given ones."""
    names, counts = np.unique(values, return_counts=True)
    assert len(names) == len(expected)
    return stats.chisquare(counts, np.asarray(expected) * len(values)).pvalue


def test_random_values_have_their_distributions():
    assert stats.kstest(values_of("decay"), stats.uniform(-1.0, 4.0).cdf).pvalue > 0.05
    assert stats.kstest(values_of("rate"), stats.loguniform(1e-5, 1e-1).cdf).pvalue > 0.05
    assert p_value(values_of("layers"), [1 / 5] * 5) > 0.05
    assert p_value(values_of("method"), [1 / 3] * 3) > 0.05
    k = np.arange(1, 17)
    assert p_value(values_of("width"), np.diff(np.log(np.append(k, 17) - 0.5)) / np.log(16.5 / 0.5)) > 0.05


def test_the_distribution_tests_notice_another_distribution():
    assert stats.kstest(values_of("decay"), stats.uniform(-1.0, 4.3).cdf).pvalue < 1e-6
    assert stats.kstest(values_of("rate"), stats.uniform(1e-5, 1e-1).cdf).pvalue < 1e-6
    assert p_value(values_of("width"), [1 / 16] * 16) < 1e-6


def test_random_coordinates_are_independent_of_each_other_and_of_other_keys():
    _, points = sample(SPACE, 2048, key=jax.random.key(0))
    _, others = sample(SPACE, 2048, key=jax.random.key(1))
    correlations = np.corrcoef(np.hstack([points, others]).T) - np.eye(10)
    assert np.abs(correlations).max() < 4 / np.sqrt(2048)
    assert np.abs(np.corrcoef(points[:-1, 0], points[1:, 0])[0, 1]) < 4 / np.sqrt(2048)


@pytest.mark.filterwarnings("ignore:The balance properties")  # of numbers that are no powers of two
@pytest.mark.parametrize("num_trials", [1, 2, 100, 256])
def test_sobol_points_are_those_of_scipy(num_trials):
    key = jax.random.key(5)
    _, points = sample(SPACE, num_trials, sampler="sobol", key=key)
    seed = [int(word) for word in jax.random.bits(key, (4,), "uint32")]
    expected = qmc.Sobol(5, scramble=True, rng=np.random.default_rng(seed)).random(num_trials)
    np.testing.assert_array_equal(points, expected)


def test_sobol_points_have_a_lower_discrepancy_than_random_ones_for_every_key():
    for seed in range(8):
        found = {s: qmc.discrepancy(sample(SPACE, 128, sampler=s, key=jax.random.key(seed))[1]) for s in SAMPLERS}
        assert found["sobol"] < 0.5 * found["random"]


def test_every_power_of_two_of_sobol_points_has_one_in_each_interval():
    _, points = sample(SPACE, 64, sampler="sobol", key=jax.random.key(2))
    for column in points.T:
        assert sorted((column * 64).astype(int)) == list(range(64))


SAMPLERS = ("random", "sobol")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_longer_search_begins_with_the_shorter_one(sampler):
    key = jax.random.key(0)
    configs, points = sample(SPACE, 37, sampler=sampler, key=key)
    longer, more = sample(SPACE, 200, sampler=sampler, key=key)
    assert longer[:37] == configs
    np.testing.assert_array_equal(more[:37], points)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_configurations_are_those_at_the_points(sampler):
    configs, points = sample(SPACE, 16, sampler=sampler, key=jax.random.key(0))
    assert points.shape == (16, 5)
    assert points.dtype == np.float64
    assert SPACE.at(points) == configs
    assert sample(SPACE, 16, sampler=sampler, key=jax.random.key(0))[0] == configs
    assert sample(SPACE, 16, sampler=sampler, key=jax.random.key(1))[0] != configs


def test_points_are_the_same_in_another_process_with_other_settings():
    program = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
from jaxopt_study.sweeps import Space, sample, uniform
space = Space({"a": uniform(0.0, 1.0), "b": uniform(0.0, 1.0)})
print([sample(space, 5, sampler=s, key=jax.random.key(11))[1].tolist() for s in ("random", "sobol")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    space = Space({"a": uniform(0.0, 1.0), "b": uniform(0.0, 1.0)})
    here = [sample(space, 5, sampler=s, key=jax.random.key(11))[1].tolist() for s in SAMPLERS]
    assert done.stdout.strip() == str(here)


def test_names_that_do_not_exist_have_no_coordinate():
    space = Space({"method": choices("sgd", "adam"), "b2": conditional(uniform(0, 1), on="method", equals="adam")})
    for sampler in SAMPLERS:
        configs, points = sample(space, 200, sampler=sampler, key=jax.random.key(0))
        adam = np.array([config["method"] == "adam" for config in configs])
        assert 80 < adam.sum() < 120
        assert [("b2" in config) for config in configs] == adam.tolist()
        np.testing.assert_array_equal(np.isnan(points[:, 1]), ~adam)
        assert space.at(points) == configs
        np.testing.assert_allclose(space.unit(configs)[adam, 1], points[adam, 1], atol=1e-15)


# ---- grids ----------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_of_levels_with_both_ends():
    space = Space({"method": choices("a", "b"), "layers": integers(1, 3), "decay": uniform(0, 1)})
    configs, points = sample(space, 24, sampler="grid")
    expected = itertools.product(["a", "b"], [1, 2, 3], np.linspace(0.0, 1.0, 4).tolist())
    assert [tuple(config.values()) for config in configs] == list(expected)
    assert space.at(points) == configs


def test_ranges_share_the_number_of_levels_and_integers_stop_at_all_their_values():
    space = Space({"rate": log_uniform(1e-2, 1.0), "steps": integers(1, 3, static=False)})
    configs, _ = sample(space, 15, sampler="grid")  # 5 × 3, not 5 × 5
    assert sorted({config["steps"] for config in configs}) == [1, 2, 3]
    np.testing.assert_allclose(sorted({config["rate"] for config in configs}), np.logspace(-2, 0, 5))
    configs, _ = sample(space, 4, sampler="grid")
    assert [(config["rate"], config["steps"]) for config in configs] == [(0.01, 1), (0.01, 3), (1.0, 1), (1.0, 3)]


def test_a_grid_of_one_trial_is_the_centre():
    space = Space({"a": uniform(0, 4), "b": log_uniform(0.01, 1), "c": integers(0, 10, static=False), "d": choices(7)})
    ((config,), points) = sample(space, 1, sampler="grid")
    assert config == {"a": 2.0, "b": pytest.approx(0.1), "c": 5, "d": 7}
    np.testing.assert_array_equal(points, 0.5)


def test_a_grid_has_only_combinations_that_exist():
    space = Space({
        "method": choices("sgd", "momentum", "adam"),
        "decay": conditional(uniform(0.0, 1.0), on="method", equals="momentum"),
        "b1": conditional(uniform(0.5, 1.0), on="method", equals="adam"),
        "amsgrad": conditional(choices(True, False), on="method", equals="adam"),
        "start": conditional(uniform(0.0, 1.0), on="amsgrad", equals=True),
        "rate": log_uniform(0.01, 1.0),
    })  # fmt: skip
    configs, points = sample(space, 3 * (1 + 3 + 3 * (3 + 1)), sampler="grid")
    b1 = rate = [0, 1, 2]
    assert len({tuple(sorted(config.items())) for config in configs}) == len(configs)
    counts = {method: sum(config["method"] == method for config in configs) for method in ("sgd", "momentum", "adam")}
    assert counts == {"sgd": len(rate), "momentum": 3 * len(rate), "adam": len(b1) * (3 + 1) * len(rate)}
    assert all(("start" in config) == config.get("amsgrad", False) for config in configs)
    np.testing.assert_array_equal(np.isnan(points), [[name not in config for name in space] for config in configs])


def test_a_condition_on_a_value_between_levels_does_not_hold_on_that_grid():
    space = Space({"n": integers(0, 10, static=False), "x": conditional(uniform(0, 1), on="n", equals=5)})
    assert [config["n"] for config in sample(space, 2, sampler="grid")[0]] == [0, 10]
    assert [config["n"] for config in sample(space, 5, sampler="grid")[0]] == [0, 5, 5, 5, 10]


@pytest.mark.parametrize(
    ("dimensions", "num_trials", "nearest"),
    [
        ({"a": uniform(0, 1), "b": uniform(0, 1)}, 20, "16 (4 per range) and 25 (5 per range)"),
        ({"m": choices(*"xyz"), "a": uniform(0, 1)}, 2, "have 3 (1 per range)."),
        ({"m": choices(*"xyz"), "n": integers(1, 2)}, 7, "have 6."),
        ({"n": integers(1, 5, static=False)}, 9, "have 5 (5 per range)."),
        ({"n": integers(-(2**31), 2**31 - 1)}, 9, "have 4294967296."),
        ({"m": choices(*"xy"), "a": conditional(uniform(0, 1), on="m", equals="x"), "b": uniform(0, 1)}, 7, "6 (2"),
    ],
)
def test_a_number_that_no_grid_has_is_refused_with_the_nearest(dimensions, num_trials, nearest):
    with pytest.raises(ValueError, match=f"No grid over this space has num_trials={num_trials} trials") as caught:
        sample(Space(dimensions), num_trials, sampler="grid")
    assert nearest in str(caught.value)
    for number in (3, 6, 16, 25):
        if f" {number} (" in nearest:
            assert len(sample(Space(dimensions), number, sampler="grid")[0]) == number


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_no_trials_are_refused_and_one_is_a_search(sampler):
    space = Space({"a": uniform(0, 1)})
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_trials to be an integer ≥ 1; received {number}"):
            sample(space, number, sampler=sampler, key=jax.random.key(0))
    configs, points = sample(space, 1, sampler=sampler, key=jax.random.key(0))
    assert (len(configs), points.shape) == (1, (1, 1))


def test_a_missing_key_and_an_unknown_sampler_are_refused():
    space = Space({"a": uniform(0, 1)})
    with pytest.raises(ValueError, match=r"sampler 'sobol' needs a key; pass key=jax.random.key\(0\)"):
        sample(space, 2, sampler="sobol")
    with pytest.raises(ValueError, match="one of 'random', 'grid', 'sobol'; received 'halton'"):
        sample(space, 2, sampler="halton", key=jax.random.key(0))
