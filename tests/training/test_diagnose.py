"""Findings on curves whose truth is built in, on real runs with known stability limits, and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import problems, training
from jaxopt_study.training import diagnose
from jaxopt_study.training._diagnose import ADVICE, FINDINGS

STEPS = np.arange(400)
CURVES = {
    "rate too high": 2.3 + 0.004 * STEPS,
    "rate too low": 2.3 - 0.002 * STEPS,
    "good": 0.1 + 2.2 * np.exp(-STEPS / 30),
    "plateau": np.full(400, 2.3),
}
NOISE = 0.02


def noisy(curve, seed):
    return curve + NOISE * np.random.default_rng(seed).standard_normal(len(curve))


@pytest.mark.parametrize("finding", CURVES)
def test_curves_without_and_with_noise(finding):
    assert diagnose(CURVES[finding]).finding == finding
    found = [diagnose(noisy(CURVES[finding], seed)).finding for seed in range(20)]
    assert found.count(finding) >= 19, found


@pytest.mark.parametrize("level", [0.1, 2.3, 7.7, 1e3])
def test_rounding_is_no_descent(level):
    """Equal losses, whose sums round on some processors, and losses that differ by a last digit now and then."""
    assert diagnose(np.full(400, level)).finding == "plateau"
    single = np.full(400, level, np.float32)
    single[250:] = np.nextafter(single[0], np.float32(0))
    assert diagnose(single).finding == "plateau"


@pytest.mark.parametrize("finding", CURVES)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_the_loss_does_not_matter(finding, factor):
    assert diagnose(factor * noisy(CURVES[finding], 1)).finding == finding


def test_shuffled_curves_say_nothing_about_the_rate():
    """The negative control: the same numbers in a random order."""
    rng = np.random.default_rng(0)
    found = {diagnose(rng.permutation(noisy(curve, 3))).finding for curve in CURVES.values() for _ in range(5)}
    assert not found & {"good", "rate too low"}


def test_the_estimated_noise_is_the_noise():
    found = [diagnose(noisy(CURVES["good"], seed)).statistics["noise"] for seed in range(50)]
    assert abs(np.mean(found) / NOISE - 1) < 0.05


def test_spikes_are_counted_and_the_steep_start_is_none():
    curve = noisy(CURVES["good"], 0)
    assert diagnose(curve).statistics["num_spikes"] == 0
    for place in (120, 250, 333):
        curve[place : place + 3] += [2.0, 1.2, 0.5]
    found = diagnose(curve)
    assert (found.finding, found.statistics["num_spikes"]) == ("spiking", 3)
    assert "120, 250, 333" in found.evidence
    assert "eps" in found.advice


def test_overfitting_needs_a_rising_validation_loss_and_a_falling_training_loss():
    train = noisy(0.02 + 2.2 * np.exp(-STEPS / 60), 0)
    turn = 0.5 + 1.8 * np.exp(-np.arange(20) / 2) + 0.02 * np.maximum(np.arange(20) - 6, 0)
    falling = 0.5 + 1.8 * np.exp(-np.arange(20) / 2)
    assert diagnose(train, validation_losses=turn).finding == "overfitting"
    assert diagnose(train, validation_losses=falling).finding == "good"
    assert diagnose(train[::-1], validation_losses=turn).finding == "rate too high"


def between(share_of_line, end=0.01):
    """A curve of which a share falls in a straight line, the rest at once; half of the line is in the second half."""
    return end + 2.3 * ((1 - share_of_line) * np.exp(-STEPS / 20) + share_of_line * (1 - STEPS / 400))


def test_nothing_is_said_of_short_curves_nor_between_the_kinds():
    assert diagnose(CURVES["good"][:10]).finding == "undecided"
    assert diagnose(CURVES["good"][:19]).finding == "undecided"
    assert diagnose(between(0.15)).finding == "undecided"  # 7 % in the second half


@pytest.mark.parametrize(
    ("curve", "finding"),
    [
        (between(0.05), "good"),  # 2.5 % of the descent in the second half
        (between(0.3), "rate too low"),  # 15 %
        (0.4 + between(0.0), "undecided"),  # it has ended, at 15 % of the start
        (1.5 + between(0.0), "undecided"),  # at 40 %
        (9.0 + between(0.0), "plateau"),  # with more than half of the start left
    ],
)
def test_a_finding_follows_the_shares_that_the_docstring_gives(curve, finding):
    assert diagnose(curve).finding == finding
    assert {diagnose(curve + 0.001 * np.random.default_rng(s).standard_normal(400)).finding for s in range(9)} == {
        finding
    }


def test_a_spike_takes_back_half_of_the_descent():
    for height, finding in ((0.4 * 2.2, "good"), (0.6 * 2.2, "spiking")):
        curve = noisy(CURVES["good"], 0) - 0.05
        curve[[150, 300]] += height
        assert diagnose(curve).finding == finding


def test_a_wild_second_half_above_the_first_loss_is_one_of_a_rate_too_high():
    rng = np.random.default_rng(0)
    wild = np.concatenate([[2.3], 3.5 + 2.0 * np.abs(rng.standard_normal(399))])
    assert diagnose(wild).finding == "rate too high"
    assert diagnose(rng.permutation(wild)).finding != "rate too high"


@pytest.mark.parametrize("end", [np.inf, np.nan])
def test_a_curve_that_leaves_the_numbers_is_one_of_a_rate_too_high(end):
    run = np.append(CURVES["good"], [np.inf, end])
    found = diagnose(run)
    assert found.finding == "rate too high"
    assert "step 400" in found.evidence
    assert diagnose(np.append(CURVES["good"], [np.nan] * 50)).finding == "good"  # steps after the end of a short run


def a_run(rate, num_steps=300):
    bowl = problems.quadratic([1.0, 0.01])
    start = jnp.array([1.0, 1.0])
    return training.train(bowl, optax.sgd(rate), num_steps=num_steps, key=jax.random.key(0), params=start)


def test_gradient_descent_on_a_quadratic_is_judged_by_its_stability_limit():
    assert diagnose(a_run(2.1)).finding == "rate too high"  # the limit is 2/L = 2
    assert diagnose(a_run(1e-3, num_steps=200)).finding == "rate too low"  # 1 − ηλ = .999 per step
    assert diagnose(a_run(1.0)).finding == "good"
    assert diagnose(a_run(1e30, num_steps=100)).finding == "rate too high"  # it diverges at once


def test_a_trajectory_gives_its_own_validation_losses():
    run = a_run(1.0)
    rising = jnp.concatenate([jnp.linspace(2.0, 0.5, 10), jnp.linspace(0.55, 1.0, 10)])
    assert diagnose(run.replace(evaluations={"validation_loss": rising})).finding == "overfitting"
    assert diagnose(run).finding == "good"


def test_every_finding_has_its_advice_and_is_printed_in_words():
    assert set(ADVICE) == set(FINDINGS)
    shown = " ".join(str(diagnose(CURVES["good"])).split())
    assert shown.startswith("Diagnosis: good")
    assert "The loss falls from 2.3 to 0.1, and 0% of that" in shown


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: diagnose(np.ones((3, 30))), ValueError, "one axis"),
        (lambda: diagnose("losses"), TypeError, "losses"),
        (lambda: diagnose(CURVES["good"], validation_losses=[[1.0]]), ValueError, "one axis"),
        (lambda: diagnose(jax.tree.map(lambda x: x[None], a_run(1.0))), ValueError, "lanes"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_losses_that_are_not_numbers_for_a_while_are_no_end_of_the_run():
    """NaN at the end is what was not run; with a number after it, a step diverged."""
    falling = 2.3 * np.exp(-np.arange(200) / 20)
    assert diagnose(np.r_[falling, np.full(30, np.nan)]).finding == "good"
    broken = falling.copy()
    broken[150:153] = np.nan
    found = diagnose(broken)
    assert found.finding == "rate too high"
    assert "150" in found.evidence


@pytest.mark.parametrize("level", [0.0, 1e-40, -0.1, 0.1, 2.3026, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_losses_are_a_plateau_at_every_level(level, dtype):
    for count in (20, 199, 400):
        assert diagnose(np.full(count, level, dtype)).finding == "plateau"
    assert diagnose(np.r_[np.zeros(199), 1.0]).finding == "plateau"


@pytest.mark.parametrize("validation", [np.zeros(10), np.full(10, 0.1), np.r_[0.0, np.full(9, 1e-17)]])
def test_a_validation_loss_that_stays_has_not_risen(validation):
    falling = 2.3 * np.exp(-np.arange(200) / 20)
    assert diagnose(falling, validation_losses=validation).finding == "good"
