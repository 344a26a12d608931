"""The curvature at which an optimizer goes unstable, against closed forms, companion matrices, and by running."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.dynamics import preconditioned_sharpness, stability_limit, stability_threshold
from jaxopt_study.dynamics._step_period import period
from jaxopt_study.transforms import chain, gradient_point, scale_by_learning_rate

RATE, DECAY = 0.01, 0.9
GD, HEAVY, NESTEROV, EMA = 200.0, 380.0, 3.8 / (0.01 * 2.8), 3800.0

CLOSED_FORMS = {
    "sgd": (optimizers.sgd(RATE), GD),
    "optax.sgd": (optax.sgd(RATE), GD),
    "sgd, decoupled decay": (chain(transforms.add_decayed_weights(0.1), scale_by_learning_rate(RATE)), GD - 0.1),
    "optax.sgd, decoupled decay": (optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE)), GD - 0.1),
    "heavy ball of steps": (optimizers.momentum(RATE), HEAVY),
    "heavy ball of gradients": (optimizers.momentum(RATE, convention="torch"), HEAVY),
    "optax.sgd with momentum": (optax.sgd(RATE, DECAY), HEAVY),
    "nesterov of steps": (optimizers.nesterov(RATE), NESTEROV),
    "nesterov of gradients": (optimizers.nesterov(RATE, convention="torch"), NESTEROV),
    "nesterov, looking ahead": (optimizers.nesterov_lookahead(RATE), NESTEROV),
    "optax.sgd, nesterov": (optax.sgd(RATE, DECAY, nesterov=True), NESTEROV),
    "ema of gradients": (chain(transforms.ema(DECAY), scale_by_learning_rate(RATE)), EMA),
    "adam": (optimizers.adam(RATE), EMA),
    "adam, the book's": (optimizers.adam(RATE, convention="saito2016"), EMA),
    "optax.adam": (optax.adam(RATE), EMA),
    "optax.adam, injected": (optax.inject_hyperparams(optax.adam)(RATE), EMA),
    "amsgrad": (optimizers.amsgrad(RATE), EMA),
    "adamax": (optimizers.adamax(RATE), EMA),
    "optax.adamw": (optax.adamw(RATE, weight_decay=0.1), 19 * (GD - 0.1)),
    "adamw, torch": (optimizers.adamw(RATE, weight_decay=0.1, convention="torch"), 19 * (GD - 0.1)),
    "rmsprop": (optimizers.rmsprop(RATE), GD),
    "rmsprop, centred": (optimizers.rmsprop(RATE, centered=True), GD),
    "optax.rmsprop": (optax.rmsprop(RATE), GD),
    "optax.rmsprop, centred, with momentum": (optax.rmsprop(RATE, centered=True, momentum=DECAY), HEAVY),
    "adagrad": (optimizers.adagrad(RATE), GD),
    "optax.adagrad": (optax.adagrad(RATE), GD),
    "lion": (optimizers.lion(RATE), np.inf),
    "sgd with momentum and L2": (optimizers.sgd(RATE, DECAY, weight_decay=0.1), HEAVY - 0.1),
    "momentum, dampened": (optimizers.momentum(RATE, DECAY, dampening=0.3, convention="torch"), HEAVY / 0.7),
    "asgd": (optimizers.asgd(RATE, lambd=0.1, alpha=0.0), GD - 0.1),
    "ascent": (optimizers.sgd(RATE, maximize=True), 0.0),
    "without a minus sign": (scale_by_learning_rate(RATE, flip_sign=False), 0.0),
}


# Another spelling or convention of a case that always runs, with the same formula.
ALIKE = {
    "optax.sgd", "optax.sgd, decoupled decay", "heavy ball of gradients", "optax.sgd, nesterov", "adam, the book's",
    "optax.adam", "adamax", "adamw, torch", "rmsprop", "optax.rmsprop", "optax.adagrad",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in CLOSED_FORMS]
)
def test_threshold_is_the_closed_form(name):
    tx, expected = CLOSED_FORMS[name]
    np.testing.assert_allclose(stability_threshold(tx), expected, rtol=1e-6)


def delayed(rate):
    """Step by the gradient of the step before."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -rate * g, state), updates

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def slipped(rate, decay):
    """Nesterov's step with the velocity after it was updated: θ ← θ + γ²v − (1 + γ)ηg."""

    def update(updates, state, params=None):
        velocity = jax.tree.map(lambda v, g: decay * v - rate * g, state, updates)
        return jax.tree.map(lambda v, g: decay**2 * v - (1 + decay) * rate * g, velocity, updates), velocity

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def first_unstable(companion):
    """The first λ on a fine grid, bisected, at which a companion matrix has an eigenvalue outside the unit circle."""

    def radius(x):
        return np.abs(np.linalg.eigvals(companion(x))).max()

    grid = np.geomspace(1e-3, 1e6, 20_001)
    index = next(i for i, x in enumerate(grid) if radius(x) > 1 + 1e-10)
    low, high = grid[index - 1], grid[index]
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if radius(middle) > 1 + 1e-10 else (middle, high)
    return low


# Written from the recursions, on (θ, memories), with every statistic 1 and every correction 1.
COMPANIONS = {
    "slipped nesterov": (
        slipped(RATE, DECAY),
        lambda x: np.array([[1 - (1 + DECAY + DECAY**2) * RATE * x, DECAY**3], [-RATE * x, DECAY]]),
    ),
    "delayed": (delayed(RATE), lambda x: np.array([[1.0, -RATE], [x, 0.0]])),
    "nadam": (
        optimizers.nadam(RATE, convention="optax"),
        lambda x: np.array([[1 - RATE * (0.1 + 0.9 * 0.1) * x, -RATE * 0.81], [0.1 * x, 0.9]]),
    ),
    "adan": (
        optimizers.adan(RATE),  # θ, m, d, the last gradient
        lambda x: np.array([
            [1 - RATE * (0.02 + 0.92 * 0.08) * x, -RATE * 0.98, -RATE * 0.92 * 0.92, RATE * 0.92 * 0.08],
            [0.02 * x, 0.98, 0, 0],
            [0.08 * x, 0, 0.92, -0.08],
            [x, 0, 0, 0],
        ]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPANIONS)
def test_threshold_is_that_of_the_companion_matrix(name):
    tx, companion = COMPANIONS[name]
    np.testing.assert_allclose(stability_threshold(tx), first_unstable(companion), rtol=3e-8)  # ε is 1e-8


def test_slip_of_nesterov_is_less_stable_as_documented():
    assert stability_threshold(slipped(RATE, DECAY)) * RATE == pytest.approx(0.860, abs=5e-4)


def sizes(tx, curvature, *, ahead=True, num_steps=3000):
    """The last and the largest size of θ in a run on ½λθ²."""
    with jax.enable_x64(True):

        @jax.jit
        def run(curvature):
            def step(carry, _):
                params, state = carry
                point = gradient_point(params, state) if ahead else params
                updates, state = tx.update(curvature * point, state, params)
                return (params + updates, state), jnp.abs(params[0])

            start = jnp.ones(1)
            return jax.lax.scan(step, (start, tx.init(start)), None, num_steps)[1]

        run = np.asarray(run(curvature))
        return run[-1], run.max()


def converges(tx, curvature, **how):
    return sizes(tx, curvature, **how)[0] < 1e-3


def diverges(tx, curvature, **how):
    return sizes(tx, curvature, **how)[1] > 1e3


RUNNABLE = {  # and P
    "gd": (optimizers.sgd(RATE), 1.0),
    "heavy ball": (optax.sgd(RATE, DECAY), 1.0),
    "nesterov": (optimizers.nesterov(RATE), 1.0),
    "lookahead": (optimizers.nesterov_lookahead(RATE), 1.0),
    "ema + decay": (
        chain(transforms.ema(DECAY), transforms.add_decayed_weights(0.5), scale_by_learning_rate(RATE)),
        1.0,
    ),
    "slipped": (slipped(RATE, DECAY), 1.0),
    "delayed": (delayed(RATE), 1.0),
    "rmsprop of a still moment": (optax.rmsprop(RATE, decay=1 - 1e-15, initial_scale=4.0, momentum=DECAY), 2.0),
}


@pytest.mark.parametrize("name", RUNNABLE)
def test_runs_diverge_above_the_threshold_and_converge_below(name):
    tx, preconditioner = RUNNABLE[name]
    threshold = preconditioner * stability_threshold(tx)
    assert converges(tx, 0.99 * threshold)
    assert diverges(tx, 1.01 * threshold)


def test_gradient_taken_at_the_parameters_is_another_method():
    tx = optimizers.nesterov_lookahead(RATE)
    assert converges(tx, 1.01 * NESTEROV, ahead=False)  # the negative control: heavy ball, stable up to 380
    assert converges(tx, 0.99 * HEAVY, ahead=False)
    assert diverges(tx, 1.01 * HEAVY, ahead=False)


def test_state_gives_the_coming_step_its_learning_rate_and_corrections():
    tx = chain(
        transforms.heavy_ball(DECAY), scale_by_learning_rate(transforms.from_optax(optax.linear_schedule)(0.1, 0.2, 2))
    )
    params = jnp.zeros(3)
    state = tx.init(params)
    for rate in (0.1, 0.15, 0.2, 0.2):
        assert stability_threshold(tx, state, params) == pytest.approx(3.8 / rate, rel=1e-7)
        assert stability_threshold(tx, state) == pytest.approx(3.8 / rate, rel=1e-7)
        _, state = tx.update(params, state, params)
    assert stability_threshold(tx) == pytest.approx(3.8 / 0.2, rel=1e-7)


def test_adams_corrections_enter_at_their_step():
    tx = optax.adam(RATE, b2=0.99)
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(params, state, params)
    first, second = 1 - 0.9**6, 1 - 0.99**6
    assert stability_threshold(tx, state) == pytest.approx(EMA * first / np.sqrt(second), rel=1e-6)


def test_groups_give_the_smallest_threshold():
    tx = optax.partition({"slow": optax.sgd(0.01), "fast": optax.sgd(0.1, 0.9)}, {"a": "slow", "b": "fast"})
    params = {"a": jnp.zeros(2), "b": jnp.zeros((2, 2))}
    assert stability_threshold(tx, tx.init(params), params) == pytest.approx(38.0, rel=1e-7)
    assert stability_threshold(tx, None, params) == pytest.approx(38.0, rel=1e-7)


def test_state_of_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="expected a scalar at"):
        stability_threshold(optax.adam(0.1), optax.sgd(0.1).init(jnp.ones(1)))


def test_an_update_that_is_not_finite_at_zero_gradient_has_no_threshold():
    with pytest.raises(ValueError, match="not finite at zero gradient and parameters"):
        stability_threshold(optax.adafactor(1e-2))


def multi_steps(optimizer, k):
    return optax.MultiSteps(optimizer, k).gradient_transformation()


def ahead(rate, period, slow):
    """The first λ at which `period` steps of gradient descent, and the pull back to their start, grow."""
    return first_unstable(lambda x: np.array([[1 - slow + slow * (1 - rate * x) ** period]]))


PERIODIC = {
    "accumulation": (multi_steps(optax.sgd(0.05), 2), 40.0),
    "of five momenta": (multi_steps(optax.sgd(RATE, DECAY), 5), HEAVY),
    "of adam": (multi_steps(optax.adam(RATE), 3), EMA),
    "sum of two": (optax.chain(optax.apply_every(2), optax.sgd(0.05)), 20.0),
    "lookahead": (optax.lookahead(optax.sgd(RATE), 5, 0.5), ahead(RATE, 5, 0.5)),
}


@pytest.mark.parametrize("name", PERIODIC)
def test_threshold_of_a_period_is_that_of_its_map(name):
    tx, expected = PERIODIC[name]
    np.testing.assert_allclose(stability_threshold(tx), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        optax.sgd(0.01, momentum=0.0),
        optax.chain(optax.trace(0.0), optax.sgd(0.01)),
        optimizers.momentum(0.01, 0.0),
        optax.adam(0.01, b1=0.0),
        optimizers.adam(0.01, b1=0.0),
    ],
    ids=["sgd", "trace", "momentum", "optax adam", "adam"],
)
def test_a_momentum_of_decay_zero_is_none(tx):
    np.testing.assert_allclose(stability_threshold(tx), 200.0, rtol=1e-6)  # 2/η
    np.testing.assert_allclose(stability_limit(tx), 2.0, rtol=1e-6)


def test_counters_of_different_periods_stand_as_before_after_their_least_common_multiple():
    tx = optax.chain(optax.apply_every(2), optax.apply_every(3), optax.sgd(0.05))
    assert period("a test", tx, jnp.zeros(2)) == 6
    assert period("a test", optax.chain(optax.apply_every(4), optax.apply_every(6)), jnp.zeros(2)) == 12


def test_threshold_of_a_period_is_the_same_in_every_phase():
    tx, params = optax.MultiSteps(optax.sgd(0.05), 2), jnp.zeros(2)
    state = tx.init(params)
    for _ in range(2):
        assert stability_threshold(tx, state, params) == pytest.approx(40.0, rel=1e-8)
        _, state = tx.update(params, state, params)


def test_threshold_of_steps_that_alternate_by_a_running_counter_is_told_by_num_steps():
    tx = optax.chain(optax.conditionally_transform(optax.scale(0.0), lambda step: step % 2 == 0), optax.sgd(0.1))
    assert stability_threshold(tx, num_steps=2) == pytest.approx(20.0, rel=1e-8)
    with pytest.raises(ValueError, match="num_steps must be a multiple of 2"):
        stability_threshold(multi_steps(optax.sgd(0.1), 2), num_steps=3)


@pytest.mark.parametrize(("rate", "decay"), [(0.01, 0.0), (0.5, 0.9)])
def test_the_limit_is_the_threshold_in_units_of_the_gain(rate, decay):
    assert stability_limit(optax.sgd(rate, momentum=decay)) == pytest.approx(2 + 2 * decay)  # η λ of heavy ball
    assert stability_threshold(optax.sgd(rate, momentum=decay)) == pytest.approx((2 + 2 * decay) / rate)


def test_one_gain_does_not_stand_for_a_period():
    tx, params = multi_steps(optax.sgd(0.1), 2), jnp.ones(2)
    with pytest.raises(ValueError, match=r"stability_limit: .* repeats only every 2 steps.*Use `stability`"):
        stability_limit(tx)
    with pytest.raises(ValueError, match=r"preconditioned_sharpness: .* repeats only every 2 steps"):
        preconditioned_sharpness(tx, tx.init(params), lambda p, _: jnp.sum(p**2), params)
    for wrapped, steps in ((optax.lookahead(optax.sgd(0.1), 3, 0.5), 3), (multi_steps(optax.sgd(0.1), 100), 100)):
        with pytest.raises(ValueError, match=f"stability_limit: .* repeats only every {steps} steps"):
            stability_limit(wrapped)


def test_a_perturbation_of_unit_length_has_no_threshold():
    tx = optax.contrib.sam(optax.sgd(0.05), optax.chain(optax.contrib.normalize(), optax.sgd(0.1)))
    with pytest.raises(ValueError, match="not finite at zero gradient and parameters"):
        stability_threshold(tx)


def test_groups_without_their_parameters_are_asked_for_them():
    tx = optax.partition({"slow": optax.sgd(0.01), "fast": optax.sgd(0.1, 0.9)}, {"a": "slow", "b": "fast"})
    for function in (stability_threshold, stability_limit):
        with pytest.raises(ValueError, match=r"Pass params="):
            function(tx)


@pytest.mark.parametrize("function", [stability_threshold, stability_limit])
def test_what_is_no_optimizer_is_refused(function):
    with pytest.raises(TypeError, match="must be an Optax transformation; received 'sgd'"):
        function("sgd")
