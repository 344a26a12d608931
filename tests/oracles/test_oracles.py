"""The oracles against each other: NumPy references, stored torch trajectories, hand computation, identities."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from tests.oracles import gradients, torch_trajectories
from tests.oracles.closeness import assert_agree, disagreement
from tests.oracles.references import (
    adafactor,
    adagrad_family,
    adam_family,
    atoms,
    averaging,
    descent,
    lion_adan,
    resilient,
)
from tests.oracles.references.options import ascent, decoupled, l2
from tests.oracles.references.reference import one_minus_power, run, run_on

TORCH = torch_trajectories.load()
STAIRS = gradients.staircase
DOUBLE = float(np.finfo(np.float64).eps)

# Each torch case and the reference that must reproduce it.
TORCH_REFERENCES = {
    "sgd": descent.sgd(0.1),
    "sgd_momentum": descent.momentum_trace(0.1, 0.9),
    "sgd_momentum_scheduled": descent.momentum_trace(STAIRS, 0.9),
    "sgd_dampening": descent.momentum_trace(0.1, 0.9, dampening=0.3),
    "sgd_nesterov": descent.nesterov_trace(0.1, 0.9),
    "sgd_nesterov_scheduled": descent.nesterov_trace(STAIRS, 0.9),
    "adagrad": adagrad_family.adagrad(0.1, eps=1e-10),
    "adadelta": adagrad_family.adadelta(rho=0.9),
    "adadelta_lr": adagrad_family.adadelta(rho=0.95, lr=0.3),
    "rmsprop": adagrad_family.rmsprop(0.01, 0.99, 1e-8),
    "rmsprop_momentum": adagrad_family.rmsprop_momentum(0.01, 0.99, 1e-8, 0.9),
    "rmsprop_momentum_scheduled": adagrad_family.rmsprop_momentum(STAIRS, 0.99, 1e-8, 0.9),
    "rmsprop_centered": adagrad_family.rmsprop(0.01, 0.99, 1e-8, centered=True),
    "adam": adam_family.adam(0.01),
    "adam_amsgrad": adam_family.amsgrad_torch(0.01),
    "adamax": adam_family.adamax(0.01, eps=1e-8),
    "nadam": adam_family.nadam(0.01),
    "radam": adam_family.radam(0.01, eps=1e-8, threshold=5.0, eps_corrected=False),
    "adamw": adam_family.adamw_torch(0.01, 0.1),
    "adamw_scheduled": adam_family.adamw_torch(STAIRS, 0.1),
    "sgd_dampening_scheduled": descent.momentum_trace(STAIRS, 0.9, dampening=0.3),
    "sgd_decay": l2(descent.sgd(0.1), 0.1),
    "sgd_decay_ascent": ascent(l2(descent.momentum_trace(0.1, 0.9), 0.1)),
    "sgd_nesterov_decay_ascent": ascent(l2(descent.nesterov_trace(STAIRS, 0.9), 0.1)),
    "adagrad_lr_decay": adagrad_family.adagrad(lambda t: 0.1 / (1.0 + 0.05 * t), 1e-10, initial=0.2),
    "adagrad_decay_ascent": ascent(l2(adagrad_family.adagrad(lambda t: STAIRS(t) / (1.0 + 0.05 * t), 1e-10), 0.1)),
    "adadelta_decay_ascent": ascent(l2(adagrad_family.adadelta(0.9, 1e-6, STAIRS), 0.1)),
    "rmsprop_decay_ascent": ascent(l2(adagrad_family.rmsprop_momentum(0.01, 0.99, 1e-8, 0.9), 0.1)),
    "adam_decay_ascent": ascent(l2(adam_family.adam(0.01), 0.1)),
    "adam_decoupled": decoupled(adam_family.adam(1.0), 0.01, 0.1),
    "adam_amsgrad_decay": l2(adam_family.amsgrad_torch(0.01), 0.1),
    "adamw_amsgrad": ascent(decoupled(adam_family.amsgrad_torch(1.0), STAIRS, 0.1)),
    "adamax_decay_ascent": ascent(l2(adam_family.adamax(0.01, eps=1e-8), 0.1)),
    "nadam_decay_ascent": ascent(l2(adam_family.nadam(0.01), 0.1)),
    "nadam_decoupled": decoupled(adam_family.nadam(1.0), STAIRS, 0.1),
    "radam_decay_ascent": ascent(l2(adam_family.radam(0.01, eps=1e-8, threshold=5.0, eps_corrected=False), 0.1)),
    "radam_decoupled": decoupled(adam_family.radam(1.0, eps=1e-8, threshold=5.0, eps_corrected=False), STAIRS, 0.1),
    "asgd": averaging.asgd_torch(0.1),
    "asgd_averaged": l2(averaging.asgd_torch(0.1, 0.05, 0.6, 20), 0.1),
    "asgd_scheduled_ascent": ascent(averaging.asgd_torch(STAIRS, 0.05, t0=0)),
    "rprop": resilient.rprop(0.01, backtracking=False),
    "rprop_ascent": ascent(resilient.rprop(1e-4, 0.3, 1.5, 1e-3, 0.3, backtracking=False)),
    "adafactor": adafactor.adafactor(eps1=DOUBLE, as_torch=True),
    "adafactor_matrix": adafactor.adafactor(eps1=DOUBLE, as_torch=True),
    "adafactor_tensor": adafactor.adafactor(STAIRS, eps1=DOUBLE, as_torch=True, weight_decay=0.1),
    "adafactor_ascent": ascent(adafactor.adafactor(0.3, 0.5, 1e-3, 0.5, 1.1, as_torch=True, weight_decay=0.1)),
}


def test_every_torch_case_has_a_reference():
    assert set(TORCH_REFERENCES) == set(TORCH["cases"]) == set(torch_trajectories.CASES)


def test_the_stored_gradients_are_those_of_the_stream():
    np.testing.assert_array_equal(TORCH["grads"], gradients.stream(TORCH["seed"])[: torch_trajectories.NUM_STEPS])
    np.testing.assert_array_equal(TORCH["start"], gradients.start(TORCH["seed"]))
    for case in torch_trajectories.CASES.values():
        if case.shape:
            stored = TORCH["shapes"]["x".join(map(str, case.shape))]
            expected = gradients.shaped_stream(case.shape, TORCH["seed"])
            np.testing.assert_array_equal(stored["grads"], expected[: case.num_steps])
            np.testing.assert_array_equal(stored["start"], gradients.shaped_start(case.shape, TORCH["seed"]))


@pytest.mark.parametrize("name", TORCH_REFERENCES)
def test_reference_follows_torch_at_every_step(name):
    grads, start = torch_trajectories.inputs(TORCH, name)
    ours, theirs = run(TORCH_REFERENCES[name], grads, start), TORCH["cases"][name]
    assert len(ours["params"]) == torch_trajectories.CASES[name].num_steps >= 120
    assert_agree(ours["params"], theirs["params"], name=name, cumulative=True)
    assert ("average" in theirs) == (theirs["class"] == "ASGD")
    if "average" in theirs:
        assert_agree(ours["average"], theirs["average"], name=name, cumulative=True)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("nadam", adam_family.nadam_optax(0.01)),
        ("nadam", adam_family.nadam(0.01, average_with_mu=True)),
        ("nadam", adam_family.nadam(0.01, nu_factor=True)),
        ("adam_amsgrad", adam_family.amsgrad_optax(0.01)),
        ("adam_amsgrad", adam_family.amsgrad_paper(0.01, eps=1e-8)),
        ("rmsprop_momentum_scheduled", adagrad_family.rmsprop_momentum(STAIRS, 0.99, 1e-8, 0.9, lr_first=True)),
        ("sgd_momentum_scheduled", descent.momentum_paper(STAIRS, 0.9)),
        ("sgd_nesterov_scheduled", descent.nesterov_bengio(STAIRS, 0.9)),
        ("rmsprop", adagrad_family.rmsprop(0.01, 0.99, 1e-8, eps_inside=True)),
        ("adagrad", adagrad_family.adagrad(0.1, eps=1e-7, initial=0.1, eps_inside=True)),
        ("adam", adam_family.adam_eps_hat(0.01, eps=1e-8)),
        ("radam", adam_family.radam(0.01, eps=1e-8, threshold=5.0)),
        ("radam", adam_family.radam(0.01)),
        ("adamw_scheduled", adam_family.adamw_paper(0.1, 0.1, lambda count: STAIRS(count) / 0.1)),
    ],
)
def test_conventions_that_differ_from_torch_really_differ(name, other):
    ours = run(other, TORCH["grads"], TORCH["start"])
    assert disagreement(ours["params"], TORCH["cases"][name]["params"]) > 1e-7


def test_the_comparison_notices_one_wrong_rounding_unit_in_a_thousand():
    desired = TORCH["cases"]["adam"]["params"]
    actual = desired.copy()
    actual[77, 3] *= 1.0 + 1e-11
    with pytest.raises(AssertionError, match=r"\(77, 3\)"):
        assert_agree(actual, desired, cumulative=True)


def test_the_stream_is_as_hard_as_it_says():
    grads = gradients.stream()
    assert grads.shape == (240, 7)
    assert np.mean(grads[:, 1] == 0.0) > 0.85
    assert np.any(grads[:, 1] != 0.0)
    assert not grads[:5, 2].any()
    assert np.abs(grads[:, 3]).max() > 1e11
    assert 0.0 < np.abs(grads[:, 4]).max() < 1e-11
    signs = np.sign(grads[:200, 5])
    assert np.all(signs[1:] == -signs[:-1])
    assert np.all(grads[:200, 6] == 0.5)
    assert not grads[200:206].any()


# First steps by hand, g = (3, 0, −4), θ = 0.

GRAD = np.array([[3.0, 0.0, -4.0]])
SIGN = np.array([1.0, 0.0, -1.0])


@pytest.mark.parametrize(
    ("reference", "first_step"),
    [
        (descent.sgd(0.1), [-0.3, 0.0, 0.4]),
        (descent.momentum_paper(0.1, 0.9), [-0.3, 0.0, 0.4]),
        (descent.momentum_trace(0.1, 0.9, dampening=0.5), [-0.3, 0.0, 0.4]),
        (descent.nesterov_trace(0.1, 0.9), [-0.57, 0.0, 0.76]),  # (1 + β)ηg
        (adagrad_family.adagrad(0.1, eps=1.0), [-0.3 / 4.0, 0.0, 0.4 / 5.0]),
        (adagrad_family.adagrad(0.1, eps=1.0, initial=6.0, eps_inside=True), [-0.3 / 4.0, 0.0, 0.4 / np.sqrt(23.0)]),
        (adagrad_family.adadelta(rho=0.75, eps=1.0), [-3.0 / np.sqrt(3.25), 0.0, 4.0 / np.sqrt(5.0)]),
        (adagrad_family.rmsprop(0.1, 0.75, eps=0.5), [-0.15, 0.0, 0.16]),  # √(.25·9) + .5 = 2 and √(.25·16) + .5 = 2.5
        (adagrad_family.rmsprop(0.1, 0.75, eps=0.0, eps_inside=True), -0.2 * SIGN),
        (adagrad_family.rmsprop(0.1, 0.5, eps=0.0, centered=True), -0.2 * SIGN),  # √(½ − ¼)|g| = ½|g|
        (adam_family.adam(0.1, eps=0.0), -0.1 * SIGN),
        (adam_family.adam(0.1, eps=1.0), [-0.075, 0.0, 0.08]),  # 3/(3 + 1), 4/(4 + 1)
        (adam_family.adam(0.1, eps=0.0, eps_root=16.0), [-0.06, 0.0, 0.4 / np.sqrt(32.0)]),
        (adam_family.adam(0.1, b1=0.5, b2=0.75, eps=0.5, correct_m=False, correct_v=False), [-0.075, 0.0, 0.08]),
        (adam_family.adam_eps_hat(0.1, b1=0.5, b2=0.75, eps=0.5), [-0.075, 0.0, 0.08]),  # .1·(½/½)·1.5/(1.5 + .5)
        (adam_family.amsgrad_paper(0.1, b1=0.5, b2=0.75), -0.1 * SIGN),
        (adam_family.amsgrad_torch(0.1, eps=0.0), -0.1 * SIGN),
        (adam_family.amsgrad_optax(0.1, eps=0.0), -0.1 * SIGN),
        (adam_family.adamax(0.1), -0.1 * SIGN),
        (adam_family.adamax(0.1, eps=1.0), [-0.075, 0.0, 0.08]),
        (adam_family.nadam_optax(0.1, b1=0.5, eps=0.0), -0.1 * (0.25 / 0.75 + 1.0) * SIGN),
        (adam_family.radam(0.1), [-0.3, 0.0, 0.4]),  # unrectified: momentum SGD with m̂ = g
        (adam_family.radam(0.1, b2=0.75, threshold=0.0), -0.1 * np.sqrt(21.0 / 15.0) * SIGN),  # ρ∞ = 7, ρ₁ = 1
        (lion_adan.lion(0.1), -0.1 * SIGN),
        (lion_adan.adan(0.1, eps=0.0), -0.1 * SIGN),
        (lion_adan.adan(0.1, eps=0.0, start="paper"), -0.1 * SIGN),
    ],
)
def test_first_step_is_what_a_hand_computes(reference, first_step):
    params = run(reference, GRAD, np.zeros(3))["params"][0]
    np.testing.assert_allclose(params, first_step, rtol=1e-14, atol=0.0)


def test_weight_decay_by_hand():
    start = np.array([10.0, 10.0, 10.0])
    decayed = {
        "adamw_torch": run(adam_family.adamw_torch(0.1, 0.5, eps=0.0), GRAD, start)["params"][0],
        "adamw_paper": run(adam_family.adamw_paper(0.1, 0.5, 0.2, eps=0.0), GRAD, start)["params"][0],
        "lion": run(lion_adan.lion(0.1, weight_decay=0.5), GRAD, start)["params"][0],
        "adan": run(lion_adan.adan(0.1, eps=0.0, weight_decay=0.5), GRAD, start)["params"][0],
    }
    np.testing.assert_allclose(decayed["adamw_torch"], 10.0 - 0.5 - 0.1 * SIGN, rtol=1e-14)
    np.testing.assert_allclose(decayed["adamw_paper"], 10.0 - 1.0 - 0.02 * SIGN, rtol=1e-14)
    np.testing.assert_allclose(decayed["lion"], 10.0 - 0.5 - 0.1 * SIGN, rtol=1e-14)
    np.testing.assert_allclose(decayed["adan"], (10.0 - 0.1 * SIGN) / 1.05, rtol=1e-14)


# Identities.


def _stretch(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return gradients.stream(seed)[:, [0, 1, 5, 6]], gradients.start(seed)[[0, 1, 5, 6]]


def test_the_two_momentum_conventions_agree_at_constant_rate_and_part_under_a_schedule():
    grads, start = _stretch()
    paper = run(descent.momentum_paper(0.1, 0.9), grads, start)
    trace = run(descent.momentum_trace(0.1, 0.9), grads, start)
    assert_agree(paper["params"], trace["params"], cumulative=True)
    scheduled = [
        run(rule(STAIRS, 0.9), grads, start)["params"] for rule in (descent.momentum_paper, descent.momentum_trace)
    ]
    assert_agree(scheduled[0][:60], scheduled[1][:60], cumulative=True)  # the first stair
    assert disagreement(scheduled[0][60:62], scheduled[1][60:62]) > 1e-3


def _gradient(point):
    """A smooth non-quadratic objective's gradient."""
    return np.array([1.0, 0.05, 3.0]) * point + 0.3 * np.sin(3.0 * point)


def _decay(count):
    return 0.5 + 0.4 * count / (count + 10.0)


@pytest.mark.parametrize(("lr", "decay"), [(0.1, 0.9), (STAIRS, 0.9), (0.1, _decay), (STAIRS, _decay)])
def test_bengios_nesterov_is_the_lookahead_seen_from_its_gradient_point(lr, decay):
    start = np.array([2.0, -3.0, 1.0])
    true = run_on(descent.nesterov_lookahead(lr, decay), _gradient, start, 200)
    shifted = descent.nesterov_bengio(lr, decay)
    point, state = start, shifted.init(start)
    for t in range(200):
        point, state = shifted.step(_gradient(point), state, point)
        gamma_next = decay(t + 1) if callable(decay) else decay
        evaluation_params = point + gamma_next * state["velocity"]
        np.testing.assert_allclose(evaluation_params, true["params"][t], rtol=1e-9, atol=1e-12)


def test_the_trace_form_of_nesterov_is_bengios_at_constant_rate():
    start = np.array([2.0, -3.0, 1.0])
    bengio, trace = descent.nesterov_bengio(0.1, 0.9), descent.nesterov_trace(0.1, 0.9)
    a, b = start, start
    state_a, state_b = bengio.init(a), trace.init(b)
    for _ in range(200):
        a, state_a = bengio.step(_gradient(a), state_a, a)
        b, state_b = trace.step(_gradient(b), state_b, b)
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("step", "stable"), [(1.357, True), (1.358, False)])
def test_true_nesterov_is_stable_up_to_1_357(step, stable):
    final = run_on(descent.nesterov_lookahead(step, 0.9), lambda x: x, np.array([1.0]), 30_000)["params"][-1]
    assert (abs(final[0]) < 1.0) == stable


@pytest.mark.parametrize(("step", "stable"), [(0.859, True), (0.861, False)])
def test_misordered_nesterov_is_stable_only_up_to_860(step, stable):
    rule = descent.nesterov_misordered(step, 0.9)
    params, state = np.array([1.0]), rule.init(np.array([1.0]))
    for _ in range(10_000):
        params, state = rule.step(params, state, params)
    assert (abs(params[0]) < 1.0) == stable


def test_adam_with_eps_hat_is_algorithm_1_with_a_growing_eps():
    grads, start = _stretch()
    plain = run(adam_family.adam(0.01, eps=0.0), grads, start)["params"]
    assert_agree(run(adam_family.adam_eps_hat(0.01, eps=0.0), grads, start)["params"], plain, cumulative=True)


def test_nadam_without_momentum_schedule_or_first_moment_is_adam():
    grads, start = _stretch()
    expected = run(adam_family.adam(0.01, b1=0.0), grads, start)["params"]
    assert_agree(run(adam_family.nadam_optax(0.01, b1=0.0), grads, start)["params"], expected, cumulative=True)
    assert_agree(run(adam_family.nadam(0.01, b1=0.0), grads, start)["params"], expected, cumulative=True)


def test_amsgrad_never_lets_a_denominator_shrink_and_reddis_adam_goes_the_wrong_way():
    """Reddi et al. (2018), section 3: C = 4, period 3, on [−1, 1]; the best point is −1."""
    b2, scale = 1.0 / 17.0, 4.0

    def final(rule):
        params, state = np.array([0.0]), rule.init(np.array([0.0]))
        for t in range(30_000):
            grad = np.array([scale if t % 3 == 0 else -1.0])
            params, state = rule.step(grad, state, params)
            params = np.clip(params, -1.0, 1.0)
        return params[0]

    rate = lambda count: 0.5 / np.sqrt(count + 1.0)
    assert final(adam_family.adam(rate, 0.0, b2, correct_m=False, correct_v=False)) > 0.99
    assert final(adam_family.amsgrad_paper(rate, 0.0, b2)) < -0.99


def test_adan_without_the_difference_weight_is_rms_scaled_momentum():
    grads, start = _stretch()
    adan = run(lion_adan.adan(0.01, 0.9, 0.5, 0.999, v_weight=0.0), grads, start)["params"]
    assert_agree(adan, run(adam_family.adam(0.01), grads, start)["params"], cumulative=True)


def test_optaxs_adan_weight_is_another_method():
    grads, start = _stretch()
    ours = run(lion_adan.adan(0.01), grads, start)["params"]
    assert disagreement(run(lion_adan.adan(0.01, v_weight=1.0 - 0.92), grads, start)["params"], ours) > 1e-3
    assert disagreement(run(lion_adan.adan(0.01, start="paper"), grads, start)["params"], ours) > 1e-3


def test_adamw_papers_and_torchs_decay_are_the_same_with_rescaled_lambda():
    grads, start = _stretch()
    paper = run(adam_family.adamw_paper(0.01, 0.1 * 0.01), grads, start)["params"]
    assert_agree(run(adam_family.adamw_torch(0.01, 0.1), grads, start)["params"], paper, cumulative=True)


def test_every_state_of_a_reference_is_finite_on_the_stream():
    rules = [
        *TORCH_REFERENCES.values(),
        adam_family.amsgrad_paper(0.1),
        adam_family.adamax(0.1),
        adam_family.radam(0.1),
    ]
    for rule in rules:
        for name, values in run(rule, gradients.stream(), gradients.start()).items():
            assert np.all(np.isfinite(values)), name


# Atoms.


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.99999])
def test_one_minus_power_against_fifty_decimal_digits(decay):
    with localcontext() as context:
        context.prec = 50
        for t in (1, 2, 3, 10, 1000, 100_000):
            exact = float(1 - Decimal(decay) ** t)
            assert one_minus_power(decay, t) == pytest.approx(exact, rel=4e-16, abs=0.0)


def test_the_ema_is_its_weighted_sum():
    values = gradients.stream()[:, :2]
    np.testing.assert_allclose(atoms.ema(values, 0.9), atoms.ema_closed_form(values, 0.9), rtol=1e-12, atol=1e-15)


def test_bias_correction_makes_the_mean_of_a_constant_exact():
    values = np.full((300, 1), 0.7)
    corrected = atoms.ema(values, 0.99)[:, 0] / atoms.bias_corrections(0.99, 300)
    np.testing.assert_allclose(corrected, 0.7, rtol=1e-13)


def test_clipping_by_hand():
    tree = [np.array([3.0, 0.0]), np.array([[4.0]])]
    assert atoms.global_norm(tree) == 5.0
    assert atoms.global_norm([np.array([3e200, 4e200])]) == pytest.approx(5e200)
    clipped = atoms.clip_by_global_norm(tree, 1.0)
    np.testing.assert_allclose(clipped[0], [0.6, 0.0])
    np.testing.assert_allclose(clipped[1], [[0.8]])
    by_leaf = atoms.clip_by_leaf_norm(tree, 3.5)
    np.testing.assert_allclose(by_leaf[0], [3.0, 0.0])
    np.testing.assert_allclose(by_leaf[1], [[3.5]])
    np.testing.assert_allclose(atoms.clip_by_value([np.array([-2.0, 0.5, 7.0])], 1.0)[0], [-1.0, 0.5, 1.0])
    assert not atoms.clip_by_global_norm([np.zeros(3)], 0.0)[0].any()


def test_adaptive_clipping_by_hand():
    weight = np.array([[3.0, 0.0], [4.0, 0.0]])  # units are columns: norms 5 and 0 → ε
    grad = np.array([[0.0, 3.0], [10.0, 4.0]])
    clipped = atoms.clip_adaptively([grad], [weight], 0.1, eps=1e-3)[0]
    np.testing.assert_allclose(clipped, [[0.0, 6e-5], [0.5, 8e-5]], rtol=1e-14)


def test_percentile_clipping_by_hand():
    grads = np.array([[1.0], [3.0], [-9.0], [2.0]])
    np.testing.assert_allclose(atoms.clip_by_percentile(grads, 50.0)[:, 0], [1.0, 2.0, -3.0, 2.0])
    np.testing.assert_allclose(atoms.clip_by_percentile(grads, 50.0, window=2)[:, 0], [1.0, 2.0, -6.0, 2.0])
    np.testing.assert_allclose(atoms.clip_by_percentile(grads, 100.0), grads)


def test_max_norm_projection_by_hand():
    weight = np.array([[3.0, 0.3], [4.0, 0.4]])
    np.testing.assert_allclose(atoms.project_to_max_norm([weight], 1.0)[0], [[0.6, 0.3], [0.8, 0.4]])
    assert not atoms.project_to_max_norm([np.zeros((2, 2))], 1.0)[0].any()


def test_gradient_noise_anneals_from_eta():
    assert atoms.gradient_noise_variance(0.3, 0.55, 0) == 0.3
    assert atoms.gradient_noise_variance(0.3, 0.55, 99) == pytest.approx(0.3 / 100**0.55)
