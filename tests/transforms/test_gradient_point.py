"""Nesterov's look-ahead: where the gradient is taken, that it is found wherever the state is, and what follows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, problems, training
from jaxopt_study.transforms import (
    LooksAhead,
    chain,
    evaluation_params,
    from_optax,
    gradient_point,
    heavy_ball,
    identity,
    nesterov,
    nesterov_lookahead,
    scale_by_learning_rate,
    tap,
)

PARAMS = {"left": jnp.array([1.0, -2.0]), "right": jnp.array([3.0])}
GRADS = {"left": jnp.array([0.5, 1.0]), "right": jnp.array([-1.0])}
RATE, DECAY = 0.1, 0.9
LOOK = nesterov_lookahead(RATE, DECAY)


def after(tx, steps=2):
    """The state after some steps with fixed gradients, and the velocity that a look-ahead must then have."""
    state, velocity = tx.init(PARAMS), 0.0
    for _ in range(steps):
        _, state = tx.update(GRADS, state, PARAMS)
        velocity = DECAY * velocity + RATE
    return state, jax.tree.map(lambda g: velocity * g, GRADS)


def assert_ahead(point, velocity, leaves=("left", "right")):
    for leaf, value in point.items():
        expected = PARAMS[leaf] - DECAY * velocity[leaf] if leaf in leaves else PARAMS[leaf]
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=leaf)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: chain(tx),
        lambda tx: chain(identity(), tap("step", chain(tx))),
        lambda tx: optax.chain(optax.identity(), tx),
        lambda tx: optax.masked(tx, {"left": True, "right": True}),
        lambda tx: from_optax(optax.masked)(tx, True),
        lambda tx: optax.partition({"all": tx}, "all"),
        lambda tx: optax.chain(optax.masked(optax.chain(optax.partition({"all": tx}, "all")), True)),
        lambda tx: optax.inject_hyperparams(nesterov_lookahead)(RATE, DECAY),
        lambda tx: optax.masked(optax.inject_hyperparams(nesterov_lookahead)(RATE, DECAY), True),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optimizers.nesterov_lookahead(RATE, DECAY),
        lambda tx: jax.tree.map(lambda x: x, tx),
    ],
)
def test_is_found_wherever_it_is(wrap):
    state, velocity = after(wrap(LOOK))
    assert_ahead(gradient_point(PARAMS, state), velocity)
    assert_ahead(jax.jit(gradient_point)(PARAMS, state), velocity)


@pytest.mark.parametrize(
    "build",
    [
        lambda: optax.masked(LOOK, {"left": True, "right": False}),
        lambda: from_optax(optax.masked)(LOOK, {"left": True, "right": False}),
        lambda: optax.partition({"look": LOOK, "plain": heavy_ball(0.9)}, {"left": "look", "right": "plain"}),
        lambda: optax.masked(
            optax.partition({"look": LOOK, "no": LOOK}, {"left": "look", "right": "no"}), {"left": True, "right": False}
        ),
    ],
    ids=["masked", "wrapped masked", "partition", "nested"],
)
def test_moves_only_the_parameters_it_steps(build):
    state, velocity = after(build())
    assert_ahead(gradient_point(PARAMS, state), velocity, leaves=("left",))


def test_several_in_one_partition_each_move_their_own():
    tx = optax.partition(
        {"a": nesterov_lookahead(RATE, DECAY), "b": nesterov_lookahead(2 * RATE, 0.5)}, {"left": "a", "right": "b"}
    )
    state, velocity = after(tx)
    point = gradient_point(PARAMS, state)
    assert_ahead({"left": point["left"]}, velocity)
    np.testing.assert_allclose(point["right"], PARAMS["right"] - 0.5 * (0.5 + 1.0) * 2 * RATE * GRADS["right"])


def test_one_without_gradient_steps_looks_nowhere():
    assert gradient_point(PARAMS, LOOK.init(PARAMS))["left"].tolist() == PARAMS["left"].tolist()


@pytest.mark.parametrize(
    "tx",
    [
        optimizers.adam(),
        optimizers.nesterov(0.1),
        optimizers.momentum(0.1),
        chain(identity()),
        optax.adam(0.1),
        optax.sgd(0.1, momentum=0.9, nesterov=True),
    ],
    ids=["adam", "nesterov", "momentum", "identity", "optax.adam", "optax.sgd"],
)
def test_is_the_parameters_themselves_without_a_lookahead(tx):
    state, _ = after(tx)
    assert gradient_point(PARAMS, state) is PARAMS


def lanes():
    rates = jnp.array([0.1, 0.2, 0.4])

    def train(rate):
        tx = optax.chain(nesterov_lookahead(rate, DECAY))
        state = tx.init(PARAMS)
        for _ in range(2):
            _, state = tx.update(GRADS, state, PARAMS)
        return state, gradient_point(PARAMS, state)

    return rates, *jax.vmap(train)(rates)


def test_is_found_inside_vmap():
    rates, _, points = lanes()
    for leaf, value in points.items():
        expected = [PARAMS[leaf] - DECAY * (1 + DECAY) * rate * GRADS[leaf] for rate in rates]
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_is_found_outside_vmap_with_a_batched_state():
    _, states, points = lanes()
    stacked = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    for outside in (gradient_point(stacked, states), jax.vmap(gradient_point)(stacked, states)):
        for leaf, value in outside.items():
            np.testing.assert_allclose(value, points[leaf], rtol=1e-6)


def test_each_lane_of_a_batched_state_has_its_own_decay():
    decays = jnp.array([0.0, 0.5, 0.9])

    def train(decay):
        tx = nesterov_lookahead(RATE, decay)
        return tx.update(GRADS, tx.init(PARAMS), PARAMS)[1]

    stacked = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    point = gradient_point(stacked, jax.vmap(train)(decays))
    np.testing.assert_allclose(point["right"][:, 0], 3.0 + RATE * decays, rtol=1e-6)


@pytest.mark.parametrize("function", [gradient_point, evaluation_params])
def test_state_of_other_parameters_is_refused(function):
    tx = LOOK if function is gradient_point else nesterov(0.9)
    state, _ = after(tx)
    with pytest.raises(ValueError, match=rf"{function.__name__}: the optimizer state does not belong to these"):
        function({"left": PARAMS["left"]}, state)


class OwnLookAhead(NamedTuple):
    """What somebody else's look-ahead looks like: extra-gradient with the last gradient."""

    last: Any

    def gradient_point(self, params):
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, self.last)


def extrapolated():
    def update(updates, state, params=None, **extra):
        return jax.tree.map(lambda g: -0.1 * g, updates), OwnLookAhead(updates)

    return optax.GradientTransformationExtraArgs(
        lambda params: OwnLookAhead(jax.tree.map(jnp.zeros_like, params)), update
    )


def test_a_state_with_a_gradient_point_of_its_own_is_followed_everywhere():
    assert isinstance(OwnLookAhead(None), LooksAhead)
    assert not isinstance(optimizers.adam().init(PARAMS), LooksAhead)
    problem = problems.from_pytree(jnp.array([1.0, -2.0]), lambda p, _: 0.5 * jnp.sum(p**2))
    found = training.train(problem, chain(tap("gradient"), extrapolated()), num_steps=3, key=jax.random.key(0))
    x, g = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(3):  # ∇f = x
        g = x - 0.5 * g
        x = x - 0.1 * g
    np.testing.assert_allclose(found.params, x, rtol=1e-6)


def test_the_slow_parameters_of_a_pair_and_the_average_of_schedule_free_are_evaluated():
    slow, fast = PARAMS, jax.tree.map(jnp.negative, PARAMS)
    assert evaluation_params(optax.LookaheadParams(fast, slow), ()) is slow
    tx = optax.contrib.schedule_free_sgd(0.1)
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    params = optax.apply_updates(PARAMS, updates)
    wrapped = chain(tap("gradient"), tx).update(GRADS, chain(tap("gradient"), tx).init(PARAMS), PARAMS)[1]
    expected = optax.contrib.schedule_free_eval_params(state, params)
    for found in (evaluation_params(params, state), evaluation_params(params, wrapped)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


# True and reformulated.


def eta(count):
    return 0.02 / (1.0 + 0.1 * count)


def gamma(count):
    return 0.95 - 0.5 / (2.0 + count)


@pytest.mark.parametrize(
    ("rate", "decay"),
    [(0.02, 0.9), (eta, 0.9), (0.02, gamma), (eta, gamma)],
    ids=["constant", "scheduled rate", "scheduled decay", "both scheduled"],
)
def test_reformulated_holds_the_lookahead_points_of_the_true_method(rate, decay):
    with jax.enable_x64(True):
        hessian = jnp.array([[3.0, 1.0], [1.0, 10.0]])
        gradient = lambda x: hessian @ x + 0.3 * jnp.sin(5 * x)
        true, reformulated = nesterov_lookahead(rate, decay), chain(scale_by_learning_rate(rate), nesterov(decay))
        start = jnp.array([1.0, -2.0])
        theta, phi = start, start
        true_state, state = true.init(start), reformulated.init(start)

        @jax.jit
        def step(theta, true_state, phi, state):
            updates, true_state = true.update(gradient(gradient_point(theta, true_state)), true_state, theta)
            theta = theta + updates
            updates, state = reformulated.update(gradient(phi), state, phi)
            phi = phi + updates
            return theta, true_state, phi, state, gradient_point(theta, true_state), evaluation_params(phi, state)

        for _ in range(200):
            theta, true_state, phi, state, point, iterate = step(theta, true_state, phi, state)
            np.testing.assert_allclose(iterate, theta, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(phi, point, rtol=1e-12, atol=1e-13)
        assert np.abs(np.asarray(theta)).max() < 0.1  # it went somewhere


def test_iterates_of_nesterov_are_known_in_both_orders_while_the_rate_is_constant():
    with jax.enable_x64(True):
        before, behind = (
            chain(nesterov(0.9), scale_by_learning_rate(0.1)),
            chain(scale_by_learning_rate(0.1), nesterov(0.9)),
        )
        start = jnp.array([1.0])
        a, b = before.init(start), behind.init(start)
        for g in (1.0, -3.0, 0.5):
            _, a = before.update(jnp.array([g]), a)
            _, b = behind.update(jnp.array([g]), b)
            np.testing.assert_allclose(
                evaluation_params(start, a, learning_rate=0.1), evaluation_params(start, b), rtol=1e-14
            )


def test_evaluation_params_are_the_parameters_themselves_without_nesterov():
    assert evaluation_params(PARAMS, optimizers.adam().init(PARAMS)) is PARAMS


# Rates on quadratics: the spectral radius of one step, which is linear there, from its Jacobian.


def spectral_radius(tx, curvatures, at=gradient_point):
    """The largest |eigenvalue| of (parameters, state) → (parameters, state) on ½Σλᵢxᵢ²."""
    with jax.enable_x64(True):
        curvatures = jnp.asarray(curvatures)
        start = jnp.ones_like(curvatures)
        flat, unravel = jax.flatten_util.ravel_pytree((start, jax.tree.map(_real, tx.init(start))))

        def step(vector):
            params, state = unravel(vector)
            state = jax.tree.map(
                lambda x, like: x if jnp.issubdtype(like.dtype, jnp.floating) else like, state, tx.init(start)
            )
            updates, state = tx.update(curvatures * at(params, state), state, params)
            return jax.flatten_util.ravel_pytree((params + updates, jax.tree.map(_real, state)))[0]

        jacobian = np.asarray(jax.jit(jax.jacfwd(step))(flat))
        return float(np.abs(np.linalg.eigvals(jacobian)).max())  # constants and counters add zeros


def _real(x):
    return jnp.asarray(x, dtype=float)


KAPPA20 = [0.1, 2.0]  # x²/20 + y²


@pytest.mark.parametrize(
    ("tx", "radius"),
    [
        (optimizers.sgd(0.95), 0.905),
        (optimizers.momentum(0.1), np.sqrt(0.9)),
        (optimizers.momentum(0.1, convention="torch"), np.sqrt(0.9)),
        (
            optimizers.momentum((2 / (np.sqrt(2.0) + np.sqrt(0.1))) ** 2, ((np.sqrt(20) - 1) / (np.sqrt(20) + 1)) ** 2),
            (np.sqrt(20) - 1) / (np.sqrt(20) + 1),
        ),
        (
            optimizers.nesterov_lookahead(1 / 2.0, (np.sqrt(20) - 1) / (np.sqrt(20) + 1)),
            1 - 1 / np.sqrt(20),
        ),
        (
            optimizers.nesterov_lookahead(4 / (3 * 2.0 + 0.1), (np.sqrt(61) - 2) / (np.sqrt(61) + 2)),
            1 - 2 / np.sqrt(61),
        ),
        (optimizers.nesterov(1 / 2.0, (np.sqrt(20) - 1) / (np.sqrt(20) + 1)), 1 - 1 / np.sqrt(20)),
    ],
    ids=[
        "gradient descent",
        "momentum",
        "momentum torch",
        "optimal heavy ball",
        "nesterov 1/L",
        "tuned nesterov",
        "reformulated nesterov 1/L",
    ],
)
def test_spectral_radius_is_the_closed_form(tx, radius):
    # At an optimum two eigenvalues meet, and a defective matrix has its eigenvalues to √ε only: 1e-6 allows for that.
    assert spectral_radius(tx, KAPPA20) == pytest.approx(radius, abs=1e-6)


def test_closed_forms_are_the_published_numbers():
    assert (np.sqrt(20) - 1) / (np.sqrt(20) + 1) == pytest.approx(0.6345, abs=5e-5)
    assert 1 - 1 / np.sqrt(20) == pytest.approx(0.7764, abs=5e-5)
    assert 1 - 2 / np.sqrt(61) == pytest.approx(0.7439, abs=5e-5)
    assert (2 / (np.sqrt(2.0) + np.sqrt(0.1))) ** 2 == pytest.approx(1.336, abs=5e-4)


LIMIT = (2 + 2 * DECAY) / (1 + 2 * DECAY)
MISORDERED = (2 + 2 * DECAY) / ((1 + DECAY) * (1 + DECAY + DECAY**2) - DECAY**3)


def misordered_radius(sharpness):
    """θ ← θ + γ²v − (1 + γ)ηg with v ← γv − ηg updated first: the velocity is used one step too early."""
    step = [[1 - sharpness * (1 + DECAY + DECAY**2), DECAY**3], [-sharpness, DECAY]]
    return np.abs(np.linalg.eigvals(np.array(step))).max()


def test_misordered_nesterov_breaks_where_the_true_one_is_stable():
    assert pytest.approx(0.860, abs=5e-4) == MISORDERED
    assert misordered_radius(0.999 * MISORDERED) < 1 < misordered_radius(1.001 * MISORDERED)
    for sharpness in (1.001 * MISORDERED, 1.0, 1.3):
        assert spectral_radius(optimizers.nesterov_lookahead(1.0, DECAY), [sharpness]) < 1


def test_gradient_at_the_parameters_makes_it_the_heavy_ball():
    ignored = lambda params, state: params
    for sharpness in (0.5, 3.79, 3.81):
        wrong = spectral_radius(optimizers.nesterov_lookahead(1.0, DECAY), [sharpness], at=ignored)
        assert wrong == pytest.approx(spectral_radius(optimizers.momentum(1.0, DECAY), [sharpness]), abs=1e-9)
        assert (wrong < 1) == (sharpness < 2 + 2 * DECAY)


def test_published_limit_of_the_true_method():
    assert pytest.approx(1.357, abs=5e-4) == LIMIT


@pytest.mark.parametrize("build", [optimizers.nesterov_lookahead, optimizers.nesterov])
def test_true_nesterov_is_stable_up_to_its_limit(build):
    assert spectral_radius(build(1.0, DECAY), [0.999 * LIMIT]) < 1
    assert spectral_radius(build(1.0, DECAY), [1.001 * LIMIT]) > 1


def trajectory(tx, sharpness, steps=3000):
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(sharpness * gradient_point(params, state), state, params)
        return (params + updates, state), None

    with jax.enable_x64(True):
        start = jnp.ones(())
        return float(jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), length=steps))()[0][0])


@pytest.mark.parametrize("build", [optimizers.nesterov_lookahead, optimizers.nesterov])
def test_trajectories_converge_below_the_limit_and_diverge_above_it(build):
    assert abs(trajectory(build(1.0, DECAY), 0.99 * LIMIT)) < 1e-6
    assert abs(trajectory(build(1.0, DECAY), 1.01 * LIMIT)) > 1e6
