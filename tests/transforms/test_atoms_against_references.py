"""Every atom against its NumPy reference: each step, each state, in double precision on the hard stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import transforms
from tests.oracles import gradients
from tests.oracles.closeness import assert_agree, disagreement
from tests.oracles.references import atoms, descent
from tests.oracles.references.reference import run, run_on
from tests.oracles.running import run_on_function, run_outputs, run_transform, states_of, traced_staircase

GRADS, START = gradients.stream(), gradients.start()
STEPS = np.arange(1, len(GRADS) + 1)


def _one(state, class_name):
    (found,) = states_of(state, class_name)
    return found


# Statistics.


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(("of", "statistic"), [(None, lambda g: g), (jnp.square, np.square), (jnp.abs, np.abs)])
def test_ema_is_the_recursion_of_the_statistic(decay, of, statistic):
    average, state = run_outputs(transforms.ema(decay, of=of), GRADS, START)
    expected = atoms.ema(statistic(GRADS), decay)
    assert_agree(average, expected, name="output")
    assert_agree(_one(state, "EmaState").average, expected, name="state")


def test_ema_can_start_elsewhere():
    average, _ = run_outputs(transforms.ema(0.9, initial=2.0), GRADS, START)
    left = 2.0 * 0.9 ** STEPS[:, None]
    assert_agree(average, atoms.ema(GRADS, 0.9) + left, cumulative=True)


@pytest.mark.parametrize("initial", [0.0, 0.1])
@pytest.mark.parametrize(("of", "statistic"), [(jnp.square, np.square), (jnp.abs, np.abs)])
def test_total_is_the_sum_so_far(initial, of, statistic):
    sums, state = run_outputs(transforms.total(of=of, initial=initial), GRADS, START)
    expected = atoms.total(statistic(GRADS), initial)
    assert_agree(sums, expected)
    assert_agree(_one(state, "TotalState").total, expected)


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_running_max_never_falls(initial):
    largest, state = run_outputs(transforms.running_max(of=jnp.abs, initial=initial), GRADS, START)
    expected = atoms.running_max(np.abs(GRADS), initial)
    assert_agree(largest, expected, rtol=0.0)
    assert_agree(_one(state, "RunningMaxState").maximum, expected, rtol=0.0)


def test_fading_running_max_is_the_largest_faded_past():
    largest, _ = run_outputs(transforms.running_max(0.9, of=jnp.abs), GRADS, START)
    age = STEPS[:, None] - STEPS[None, :]
    faded = np.where(age >= 0, 0.9 ** np.maximum(age, 0), 0.0)[:, :, None] * np.abs(GRADS)[None]
    assert_agree(largest, faded.max(axis=1))


def test_difference_starts_at_zero_and_then_subtracts_the_step_before():
    change, state = run_outputs(transforms.gradient_difference(), GRADS, START)
    assert_agree(change, np.diff(GRADS, axis=0, prepend=GRADS[:1]), rtol=0.0)
    assert_agree(_one(state, "DifferenceState").previous, GRADS, rtol=0.0)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.99999])
@pytest.mark.parametrize("power", [1.0, -0.5, 0.5])
def test_bias_correction_divides_by_the_gathered_weight(decay, power):
    corrected, state = run_outputs(transforms.bias_correction(decay, power=power), GRADS, START)
    assert_agree(corrected, GRADS / atoms.bias_corrections(decay, len(GRADS))[:, None] ** power)
    np.testing.assert_array_equal(_one(state, "BiasCorrectionState").count, STEPS)


def test_the_statistic_of_a_fast_decay_given_as_an_array_is_the_same():
    with jax.enable_x64(True):
        traced = transforms.ema(jnp.asarray(0.9, dtype=jnp.float64))
    average, _ = run_outputs(traced, GRADS, START)
    assert_agree(average, atoms.ema(GRADS, 0.9))


# Momentum.


@pytest.mark.parametrize("decay", [0.0, 0.9, lambda count: 0.5 + 0.4 * count / (count + 10.0)])
@pytest.mark.parametrize("rate", [0.1, gradients.staircase])
@pytest.mark.parametrize("learning_rate_first", [True, False])
def test_heavy_ball_in_both_places_is_each_convention(decay, rate, learning_rate_first):
    scale, momentum = transforms.scale_by_learning_rate(_jax_schedule(rate)), transforms.heavy_ball(decay)
    parts = (scale, momentum) if learning_rate_first else (momentum, scale)
    params, _, state = run_transform(transforms.chain(*parts), GRADS, START)
    reference = (descent.momentum_paper if learning_rate_first else descent.momentum_trace)(rate, decay)
    expected = run(reference, GRADS, START)
    memory = -expected["velocity"] if learning_rate_first else expected["trace"]
    assert_agree(params, expected["params"], name="params", cumulative=True)
    found = _one(state, "HeavyBallState")
    assert_agree(found.trace, memory, name="trace", cumulative=True)
    np.testing.assert_array_equal(found.count, STEPS)


def _decay(count):
    return 0.5 + 0.4 * count / (count + 10.0)


def _jax_schedule(value):
    return traced_staircase if value is gradients.staircase else value


def test_both_writings_of_the_staircase_agree():
    with jax.enable_x64(True):
        for count in range(240):
            assert float(_jax_schedule(gradients.staircase)(count)) == gradients.staircase(count)


@pytest.mark.parametrize("decay", [0.9, _decay])
@pytest.mark.parametrize("rate", [0.1, gradients.staircase])
def test_nesterov_behind_the_learning_rate_is_bengios_form_under_any_schedule(decay, rate):
    tx = transforms.chain(transforms.scale_by_learning_rate(_jax_schedule(rate)), transforms.nesterov(decay))
    params, _, state = run_transform(tx, GRADS, START)
    expected = run(descent.nesterov_bengio(rate, decay), GRADS, START)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    assert_agree(_one(state, "NesterovState").trace, -expected["velocity"], name="trace", cumulative=True)


@pytest.mark.parametrize("rate", [0.1, gradients.staircase])
def test_nesterov_before_the_learning_rate_is_torchs_form(rate):
    tx = transforms.chain(transforms.nesterov(0.9), transforms.scale_by_learning_rate(_jax_schedule(rate)))
    params, _, state = run_transform(tx, GRADS, START)
    expected = run(descent.nesterov_trace(rate, 0.9), GRADS, START)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    assert_agree(_one(state, "NesterovState").trace, expected["trace"], name="trace", cumulative=True)


def _gradient(point, module=np):
    """A smooth non-quadratic objective's gradient."""
    return module.asarray([1.0, 0.05, 3.0]) * point + 0.3 * module.sin(3.0 * point)


@pytest.mark.parametrize("decay", [0.9, _decay])
@pytest.mark.parametrize("rate", [0.1, gradients.staircase])
def test_the_lookahead_takes_its_gradient_where_nesterov_does(decay, rate):
    start = np.array([2.0, -3.0, 1.0])
    tx = transforms.nesterov_lookahead(_jax_schedule(rate), decay)
    params, state = run_on_function(tx, lambda x: _gradient(x, jnp), start, 240, transforms.gradient_point)
    expected = run_on(descent.nesterov_lookahead(rate, decay), _gradient, start, 240)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    assert_agree(_one(state, "NesterovLookaheadState").velocity, expected["velocity"], name="velocity", cumulative=True)


def test_taking_the_gradient_at_the_parameters_instead_would_be_noticed():
    start = np.array([2.0, -3.0, 1.0])
    tx = transforms.nesterov_lookahead(0.1, 0.9)
    params, _ = run_on_function(tx, lambda x: _gradient(x, jnp), start, 240, lambda params, state: params)
    expected = run_on(descent.nesterov_lookahead(0.1, 0.9), _gradient, start, 240)
    assert disagreement(params, expected["params"]) > 1e-2


@pytest.mark.parametrize("decay", [0.9, _decay])
@pytest.mark.parametrize("rate", [0.1, gradients.staircase])
def test_readout_of_the_reformulated_form_is_the_lookahead_method(decay, rate):
    start = np.array([2.0, -3.0, 1.0])
    tx = transforms.chain(transforms.scale_by_learning_rate(_jax_schedule(rate)), transforms.nesterov(decay))
    params, state = run_on_function(tx, lambda x: _gradient(x, jnp), start, 240, transforms.gradient_point)
    with jax.enable_x64(True):
        iterates = np.asarray(jax.vmap(transforms.evaluation_params)(params, state))
    expected = run_on(descent.nesterov_lookahead(rate, decay), _gradient, start, 240)["params"]
    assert_agree(iterates, expected, cumulative=True, rtol=1e-11)


# What combines branches.


def _numerator_and_statistic(combine, of=jnp.square):
    return transforms.merge(combine, transforms.identity(), transforms.total(of=of))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("eps_root", [0.0, 1e-3])
def test_divide_by_root_puts_each_eps_in_its_place(eps, eps_root):
    ratio, _ = run_outputs(
        _numerator_and_statistic(transforms.divide_by_root(eps=eps, eps_root=eps_root)), GRADS, START
    )
    denominator = np.sqrt(atoms.total(GRADS**2) + eps_root) + eps
    expected = np.divide(GRADS, denominator, out=np.zeros_like(GRADS), where=denominator > 0.0)
    assert_agree(ratio, expected)


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
@pytest.mark.parametrize("eps_root", [0.0, 1e-3])
def test_divide_by_deviation_subtracts_the_squared_mean(eps, eps_root):
    tx = transforms.merge(
        transforms.divide_by_deviation(eps=eps, eps_root=eps_root),
        transforms.identity(),
        transforms.ema(0.99, of=jnp.square),
        transforms.ema(0.99),
    )
    ratio, _ = run_outputs(tx, GRADS, START)
    variance = atoms.ema(GRADS**2, 0.99) - atoms.ema(GRADS, 0.99) ** 2
    assert_agree(ratio, GRADS / (np.sqrt(np.maximum(variance, 0.0) + eps_root) + eps))


def test_divide_by_deviation_survives_a_variance_that_rounds_below_zero():
    with jax.enable_x64(True):
        mean = jnp.asarray(1.0 + 1e-15)
        assert np.isfinite(transforms.divide_by_deviation(eps=1e-8)(jnp.asarray(1.0), jnp.asarray(1.0), mean))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_divide_by_reads_zero_over_zero_as_zero(eps):
    ratio, _ = run_outputs(_numerator_and_statistic(transforms.divide_by(eps=eps), of=jnp.abs), GRADS, START)
    denominator = atoms.total(np.abs(GRADS)) + eps
    assert_agree(ratio, np.divide(GRADS, denominator, out=np.zeros_like(GRADS), where=denominator > 0.0))


def test_weighted_sum_and_interpolate_weigh_their_branches():
    change, _ = run_outputs(
        transforms.merge(transforms.weighted_sum(0.25), transforms.identity(), transforms.total()), GRADS, START
    )
    assert_agree(change, GRADS + 0.25 * atoms.total(GRADS**2), cumulative=True)
    change, _ = run_outputs(
        transforms.merge(transforms.interpolate(0.75), transforms.identity(), transforms.total()), GRADS, START
    )
    assert_agree(change, 0.75 * GRADS + 0.25 * atoms.total(GRADS**2), cumulative=True)


# Clipping, on a tree with a matrix, a vector, a convolution kernel and a scalar.

SHAPES = {"bias": (3,), "conv": (2, 2, 1, 3), "kernel": (4, 3), "scalar": ()}


def _trees(num_steps=40):
    generator = np.random.default_rng(7)
    scales = np.where(np.arange(num_steps) % 10 == 3, 1e12, np.where(np.arange(num_steps) % 10 == 7, 1e-12, 1.0))
    scales[20:23] = 0.0
    grads = {}
    for name, shape in SHAPES.items():
        values = generator.standard_normal((num_steps, *shape))
        values *= generator.random(values.shape) < 0.7
        grads[name] = values * scales.reshape(-1, *(1,) * len(shape))
    params = {name: generator.standard_normal(shape) for name, shape in SHAPES.items()}
    params["kernel"][:, 1] = 0.0  # a unit without weights: the ε of adaptive clipping
    return grads, params


TREE_GRADS, TREE_PARAMS = _trees()


def _each_step(rule):
    """Apply a reference on lists of leaves at each step; return stacked leaves by name."""
    steps = []
    for t in range(40):
        steps.append(rule([TREE_GRADS[name][t] for name in SHAPES]))
    return {name: np.stack([step[i] for step in steps]) for i, name in enumerate(SHAPES)}


@pytest.mark.parametrize("limit", [0.0, 0.5, 1e13])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (transforms.clip_by_value, atoms.clip_by_value),
        (transforms.clip_by_global_norm, atoms.clip_by_global_norm),
        (transforms.clip_by_leaf_norm, atoms.clip_by_leaf_norm),
    ],
)
def test_clipping_by_a_limit(make, rule, limit):
    clipped, _ = run_outputs(make(limit), TREE_GRADS, TREE_PARAMS)
    expected = _each_step(lambda tree: rule(tree, limit))
    for name in SHAPES:
        assert_agree(clipped[name], expected[name], name=name)


@pytest.mark.parametrize("clipping", [0.0, 0.01, 1.0])
def test_clipping_by_unit_norm_is_brocks_adaptive_clipping(clipping):
    clipped, _ = run_outputs(transforms.clip_by_unit_norm(clipping, eps=1e-3), TREE_GRADS, TREE_PARAMS)
    params = [TREE_PARAMS[name] for name in SHAPES]
    expected = _each_step(lambda tree: atoms.clip_adaptively(tree, params, clipping, 1e-3))
    for name in SHAPES:
        assert_agree(clipped[name], expected[name], name=name)


@pytest.mark.parametrize("percentile", [0.0, 10.0, 50.0, 77.7, 100.0])
@pytest.mark.parametrize("window", [1, 7, 1000])
def test_percentile_clipping_is_autoclip_over_a_window(percentile, window):
    clipped, state = run_outputs(transforms.clip_by_percentile(percentile, window=window), GRADS, START)
    assert_agree(clipped, atoms.clip_by_percentile(GRADS, percentile, window))
    np.testing.assert_array_equal(_one(state, "PercentileClipState").count, STEPS)


# Parameters.


def test_projection_keeps_every_units_weights_inside_the_ball():
    grads = {name: leaf[:10] for name, leaf in TREE_GRADS.items()}
    tx = transforms.chain(transforms.scale_by_learning_rate(0.1), transforms.project_to_max_norm(1.5))
    params, _, _ = run_transform(tx, grads, TREE_PARAMS)
    current = TREE_PARAMS
    for t in range(10):
        current = {name: current[name] - 0.1 * grads[name][t] for name in SHAPES}
        for name in ("kernel", "conv"):  # a bias has no incoming weights
            current[name] = atoms.project_to_max_norm([current[name]], 1.5)[0]
        for name in SHAPES:
            # u = end − θ is formed and added again, so θ's own size is the scale of the error.
            np.testing.assert_allclose(params[name][t], current[name], rtol=1e-12, atol=1e-14, err_msg=name)


def test_clip_weights_ends_every_step_inside_the_box():
    tx = transforms.chain(transforms.scale_by_learning_rate(0.1), transforms.clip_weights(0.7))
    params, _, _ = run_transform(tx, GRADS, START)
    expected = START
    for t, grad in enumerate(GRADS):
        expected = atoms.clip_by_value([expected - 0.1 * grad], 0.7)[0]
        np.testing.assert_allclose(params[t], expected, rtol=1e-12, atol=1e-14)


# Noise.


@pytest.mark.parametrize(("eta", "gamma"), [(0.3, 0.55), (0.01, 0.0), (1.0, 1.0)])
def test_gradient_noise_has_the_annealed_variance_at_every_step(eta, gamma):
    """Within five standard errors, over 30 steps of 10,000 coordinates: the sample variance's is σ²√(2/n)."""
    size, num_steps = 10_000, 30
    tx = transforms.add_gradient_noise(eta, gamma, jax.random.key(0))
    noisy, state = run_outputs(tx, np.full((num_steps, size), 3.0), np.zeros(size))
    noise = noisy - 3.0
    variance = np.array([atoms.gradient_noise_variance(eta, gamma, t) for t in range(num_steps)])
    assert np.all(np.abs(noise.var(axis=1) / variance - 1.0) < 5.0 * np.sqrt(2.0 / size))
    assert np.all(np.abs(noise.mean(axis=1)) < 5.0 * np.sqrt(variance / size))
    standard = noise / np.sqrt(variance)[:, None]
    kurtosis = np.mean(standard**4)  # normal: 3, standard error √(96/n)
    assert abs(kurtosis - 3.0) < 5.0 * np.sqrt(96.0 / standard.size)
    lag = np.mean(standard[1:] * standard[:-1])  # steps are independent
    assert abs(lag) < 5.0 / np.sqrt(standard[1:].size)
    np.testing.assert_array_equal(_one(state, "GradientNoiseState").count, np.arange(1, num_steps + 1))


def test_counting_the_noise_from_one_would_be_noticed():
    size = 20_000
    tx = transforms.add_gradient_noise(0.3, 0.55, jax.random.key(0))
    noisy, _ = run_outputs(tx, np.zeros((1, size)), np.zeros(size))
    wrong = atoms.gradient_noise_variance(0.3, 0.55, 1)
    assert abs(noisy.var() / wrong - 1.0) > 5.0 * np.sqrt(2.0 / size)


@pytest.mark.parametrize("rate", [0.1, gradients.staircase])
def test_the_learning_rate_scales_and_turns(rate):
    updates, _ = run_outputs(transforms.scale_by_learning_rate(_jax_schedule(rate)), GRADS, START)
    rates = np.array([rate(t) if callable(rate) else rate for t in range(len(GRADS))])
    assert_agree(updates, -rates[:, None] * GRADS)
