"""Diverged runs count as the worst, and a target is reached where a curve first is at least as good."""

import numpy as np
import pytest

from jaxopt_study.sweeps import penalised
from jaxopt_study.sweeps._statistics._scores import steps_to_target


def test_nan_becomes_the_worst_score_and_the_argument_stays_as_it_was():
    scores = np.array([[1.0, np.nan], [np.inf, -2.0]], dtype=np.float32)
    np.testing.assert_array_equal(penalised(scores, "min"), [[1.0, np.inf], [np.inf, -2.0]])
    np.testing.assert_array_equal(penalised(scores, "max"), [[1.0, -np.inf], [-np.inf, -2.0]])  # ∞ is an overflow
    assert np.isnan(scores[0, 1])
    with pytest.raises(ValueError, match='"min" or "max"'):
        penalised(scores, "lowest")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_first_step_at_the_target_is_that_of_a_loop(mode):
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(3, 50, 8)).round(1)  # rounded, so that curves touch the target
    curves[rng.random(curves.shape) < 0.1] = np.nan
    steps = np.array([0, 1, 2, 5, 10, 20, 50, 100])
    found = steps_to_target(curves, steps, 0.7 if mode == "max" else -0.7, mode=mode)
    assert found.shape == (3, 50)
    assert np.isinf(found).any()
    for index in np.ndindex(found.shape):
        there = [s for s, y in zip(steps, curves[index], strict=True) if (y >= 0.7 if mode == "max" else y <= -0.7)]
        assert found[index] == (there[0] if there else np.inf)


def test_one_curve_gives_one_number_and_none_at_all_is_never():
    assert steps_to_target([2.0, 1.0], [0, 5], 1.0) == 5
    assert steps_to_target(np.zeros((2, 0)), [], 1.0).tolist() == [np.inf, np.inf]


def test_what_is_no_curve_is_refused():
    with pytest.raises(ValueError, match=r"steps of shape \(K,\) and curves of shape"):
        steps_to_target([1.0, 2.0], [0, 1, 2], 1.0)
    with pytest.raises(ValueError, match="increasing steps"):
        steps_to_target([1.0, 2.0], [1, 1], 1.0)
    with pytest.raises(ValueError, match="target to be a real number; received nan"):
        steps_to_target([1.0, 2.0], [0, 1], float("nan"))


@pytest.mark.parametrize("target", [0.1, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_that_is_the_target_up_to_rounding_reaches_it(target, sign):
    for mode in ("min", "max"):
        curve = np.array([sign * np.float32(target)])
        assert steps_to_target(curve, [5], sign * target, mode=mode) == 5
        beside = sign * target * (1 + 1e-5)  # which only one direction reaches
        assert np.isfinite(steps_to_target(curve, [5], beside, mode=mode)) == ((beside > curve[0]) == (mode == "min"))


def test_doubles_are_compared_as_doubles():
    assert steps_to_target([0.1 + 1e-9], [5], 0.1) == np.inf
