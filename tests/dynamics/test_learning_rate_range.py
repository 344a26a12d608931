"""The range of learning rates holds the closed-form limit, and the rate at which runs are seen to diverge."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from jaxopt_study.dynamics import learning_rate_range

KEY = jax.random.key(0)
CURVATURES = np.array([8.0, 3.0, 1.0, 0.1, 0.0])
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
MATRIX = jnp.asarray(BASIS * CURVATURES @ BASIS.T, jnp.float32)
START = jnp.asarray(np.random.default_rng(1).normal(size=5), jnp.float32)


def loss(params, matrix):
    return 0.5 * params @ (matrix @ params)


def momentum(rate):
    return optax.sgd(rate, 0.9)


def nesterov(rate):
    return optimizers.nesterov(rate, 0.5)


def decayed(rate):
    return optax.chain(optax.add_decayed_weights(0.5), optax.sgd(rate))


def clipped(rate):
    """A clip that is active: it divides by the norm of the gradient, so it mixes coordinates."""
    return optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(rate))


# The limit in units of 1/λmax. The Jacobian of an active clip is c/‖g‖ (1 − ĝĝᵀ) H, computed below.
LIMITS = {optax.sgd: 2.0, momentum: 3.8, nesterov: 3 / 2, decayed: 2 * 8 / 8.5}


def diverges(make_optimizer, rate, num_steps=2000):
    tx = make_optimizer(rate)

    @jax.jit
    def run():
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(MATRIX @ params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (START, tx.init(START)), None, length=num_steps)[0][0]

    return not np.abs(run()).max() < 10 * np.abs(START).max()


@pytest.mark.parametrize("make_optimizer", LIMITS, ids=lambda make: make.__name__)
def test_range_holds_the_closed_form_and_the_measured_divergence(make_optimizer):
    found = learning_rate_range(make_optimizer, loss, START, MATRIX, key=KEY)
    assert found.kind == "oscillation"
    assert found.lower < LIMITS[make_optimizer] / 8 < found.upper <= 1.021 * found.lower
    assert abs(found.eigenvalue) > 1 + found.eigenvalue_error
    assert not diverges(make_optimizer, found.lower)
    assert diverges(make_optimizer, found.upper)
    assert found.measured[0] <= found.upper
    assert found.measured[1] >= found.lower
    assert found.num_matvecs < 400


def test_an_update_that_mixes_coordinates_has_a_range():
    found = learning_rate_range(clipped, loss, START, MATRIX, key=KEY)
    g = np.asarray(MATRIX, float) @ np.asarray(START, float)
    norm = np.linalg.norm(g)
    jacobian = 0.1 / norm * (np.eye(5) - np.outer(g, g) / norm**2) @ np.asarray(MATRIX, float)
    limit = 2 / np.linalg.eigvals(jacobian).real.max()
    assert found.lower < limit < found.upper <= 1.021 * found.lower


def test_negative_curvature_is_no_limit():
    found = learning_rate_range(optax.sgd, loss, START, MATRIX - 20 * jnp.eye(5), key=KEY)  # from −20 to −12
    assert found.kind == "unbounded"
    assert found.upper == np.inf
    mixed = learning_rate_range(optax.sgd, loss, START, MATRIX - 6 * jnp.eye(5), key=KEY)  # from −6 to 2
    assert mixed.lower < 1 < mixed.upper


def test_a_step_that_does_not_depend_on_the_gradient_has_no_limit():
    found = learning_rate_range(optax.sign_sgd, loss, START, MATRIX, key=KEY, num_steps=2)
    assert (found.lower, found.upper, found.kind) == (np.inf, np.inf, "unbounded")


def test_the_state_that_is_given_sets_the_preconditioner():
    tx = optax.rmsprop(0.1, eps=0.0, initial_scale=4.0, decay=1.0 - 1e-7)  # v ≈ 4: the gradient is divided by 2
    make = lambda rate: optax.rmsprop(rate, eps=0.0, initial_scale=4.0, decay=1.0 - 1e-7)
    found = learning_rate_range(make, loss, START, MATRIX, key=KEY, opt_state=tx.init(START))
    assert found.lower < 4 / 8 < found.upper


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_range_has_the_inverse_units_of_the_loss(factor):
    found = learning_rate_range(momentum, loss, START, jnp.float32(factor) * MATRIX, key=KEY)
    assert found.lower < 3.8 / 8 / factor < found.upper <= 1.021 * found.lower


def test_results_are_copied_and_pickled_and_errors_say_what_to_do():
    found = learning_rate_range(optax.sgd, loss, START, MATRIX, key=KEY)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (other.lower, other.upper, other.kind) == (found.lower, found.upper, found.kind)
    with pytest.raises(TypeError, match=r"needs make_optimizer to take a traced learning rate.*Concretization"):
        learning_rate_range(lambda rate: optax.sgd(float(rate)), loss, START, MATRIX, key=KEY)
    with pytest.raises(TypeError, match="optimizer must be an Optax transformation"):
        learning_rate_range(lambda rate: rate, loss, START, MATRIX, key=KEY)
