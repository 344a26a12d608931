"""Directional, critical and batch sharpness against dense Hessians in double precision."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxopt_study import optimizers
from jaxopt_study.dynamics import batch_sharpness, critical_sharpness, directional_sharpness

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(10, 3))
PARAMS = {
    "one": {"w": np.random.default_rng(1).normal(size=(3, 4)), "b": np.linspace(-0.5, 0.5, 4)},
    "two": {"w": np.random.default_rng(2).normal(size=4)},
}


def loss(params, x):
    hidden = jnp.tanh(x @ params["one"]["w"] + params["one"]["b"])
    return jnp.mean((hidden @ params["two"]["w"] - jnp.sin(x[:, 0])) ** 2)


def single(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def dense(updates):
    """g, H and u as float64 arrays, of the parameters in single precision."""
    with jax.enable_x64(True):
        as_double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float32), float), tree)
        flat, restore = ravel_pytree(as_double(PARAMS))
        f = lambda z: loss(restore(z), jnp.asarray(X.astype(np.float32), float))
        return tuple(map(np.asarray, (jax.grad(f)(flat), jax.hessian(f)(flat), ravel_pytree(as_double(updates))[0])))


CHAINS = {
    "sgd": optax.sgd(0.1),
    "adam": optimizers.adam(0.01),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, 0.9)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_curvature_along_the_update_of_any_chain(name):
    tx, params, data = CHAINS[name], single(PARAMS), jnp.asarray(X, jnp.float32)
    state = tx.init(params)
    updates, state = jax.jit(tx.update)(jax.grad(loss)(params, data), state, params)
    updates, _ = jax.jit(tx.update)(jax.grad(loss)(params, data), state, params)
    found = directional_sharpness(tx, state, loss, params, data)
    _, h, u = dense(updates)
    exact = u @ h @ u / (u @ u)
    assert abs(found.value - exact) <= float(found.error) + 1e-5 * abs(exact)
    assert found.error < 1e-3
    assert found.names == ("one", "two")
    parts = np.array([[u[a] @ h[a, b] @ u[b] for b in (slice(16), slice(16, 20))] for a in (slice(16), slice(16, 20))])
    np.testing.assert_allclose(found.interactions, parts / (u @ u), atol=2e-5)
    np.testing.assert_allclose(found.within, np.trace(parts) / (u @ u), atol=2e-5)
    np.testing.assert_allclose(found.across, (parts.sum() - np.trace(parts)) / (u @ u), atol=4e-5)
    np.testing.assert_allclose(found.norm, np.linalg.norm(u), rtol=1e-5)
    np.testing.assert_allclose(found.shares, [u[:16] @ u[:16] / (u @ u), u[16:] @ u[16:] / (u @ u)], rtol=1e-4)


MATRIX = np.diag([5.0, 1.0, 0.2]) + 0.3
QUADRATIC = lambda p, _: 0.5 * p @ jnp.asarray(MATRIX, jnp.float32) @ p
START = jnp.array([0.3, -1.0, 2.0])


@pytest.mark.parametrize(
    "tx", [optax.sgd(0.01), optax.sgd(3.0), optax.rmsprop(0.1, eps=1e-3)], ids=["low", "high", "rmsprop"]
)
def test_critical_sharpness_of_a_quadratic_is_its_curvature_along_the_update(tx):
    state = tx.init(START)
    found = critical_sharpness(tx, state, QUADRATIC, START)
    g = MATRIX @ np.asarray(START, float)
    u = np.asarray(tx.update(jnp.asarray(g, jnp.float32), state, START)[0], float)
    exact = u @ MATRIX @ u / (u @ u)
    assert found.kind == "crossing"
    assert abs(found.value - exact) <= found.error <= 0.006 * exact
    step = -2 * g @ u / (u @ MATRIX @ u)
    assert found.step_lower <= step <= found.step_upper
    assert found.num_losses <= 20
    of_paper = critical_sharpness(tx, state, QUADRATIC, START, learning_rate=0.05)
    assert abs(of_paper.value - 2 / (0.05 * step)) <= of_paper.error


def test_critical_step_of_a_network_is_where_its_loss_comes_back():
    params, data = single(PARAMS), jnp.asarray(X, jnp.float32)
    tx = optimizers.adam(0.01)
    found = critical_sharpness(tx, tx.init(params), loss, params, data)
    updates, _ = tx.update(jax.grad(loss)(params, data), tx.init(params), params)
    at = lambda s: float(loss(jax.tree.map(lambda p, u: p + s * u, params, updates), data))
    assert found.kind == "crossing"
    assert at(found.step_lower) < at(0) < at(found.step_upper)
    assert found.step_upper <= 1.011 * found.step_lower


def test_what_has_no_crossing_is_said_to_have_none():
    at = lambda tx, f, p=START: critical_sharpness(tx, tx.init(p), f, p)
    assert at(optax.sgd(0.1), lambda p, _: jnp.sum(p)).kind == "decreasing"
    assert at(optax.sgd(-0.1), QUADRATIC).kind == "ascent"
    assert at(optax.sgd(0.1), QUADRATIC, jnp.zeros(3)).kind == "unresolved"
    noise = at(optax.sgd(0.1), lambda p, _: 1e8 + QUADRATIC(p, None))  # every difference is below the last digit
    assert noise.kind == "unresolved"
    assert np.isinf(noise.error)
    assert np.isnan(noise.value)  # the middle of [0, ∞]
    assert np.isnan(noise.step)


def all_batches(size):
    """gᵀHg and ‖g‖² of every batch, in double precision."""
    found = []
    with jax.enable_x64(True):
        flat, restore = ravel_pytree(jax.tree.map(jnp.asarray, PARAMS))
        both = jax.jit(lambda z, x: (jax.grad(f := lambda y: loss(restore(y), x))(z), jax.hessian(f)(z)))
        for chosen in itertools.combinations(range(len(X)), size):
            g, h = both(flat, jnp.asarray(X[list(chosen)]))
            found.append((float(g @ h @ g), float(g @ g)))
    return np.array(found)


def test_batch_sharpness_is_the_ratio_over_all_batches():
    params, data = single(PARAMS), jnp.asarray(X, jnp.float32)
    products = all_batches(2)
    ratio, quotient = products[:, 0].sum() / products[:, 1].sum(), np.mean(products[:, 0] / products[:, 1])
    deviations = []
    for seed in range(6):
        found = batch_sharpness(loss, params, data, batch_size=2, key=jax.random.key(seed), num_batches=200)
        deviations += [
            (found.value - ratio) / found.error,
            (found.mean_quotient - quotient) / found.mean_quotient_error,
        ]
        assert found.error < 0.15 * ratio
    assert np.max(np.abs(deviations)) < 4
    assert 0.3 < np.sqrt(np.mean(np.square(deviations))) < 1.7
    whole = batch_sharpness(loss, params, data, batch_size=10, key=KEY)
    g, h, _ = dense(PARAMS)
    np.testing.assert_allclose(whole.value, g @ h @ g / (g @ g), rtol=1e-5)
    np.testing.assert_allclose(found.full_batch, whole.value, rtol=1e-5)
    assert 0 < whole.error < 1e-5 * whole.value


def test_wrong_arguments_say_what_to_do():
    data = jnp.asarray(X, jnp.float32)
    with pytest.raises(ValueError, match=r"batch_sharpness needs batch_size to be an integer from 1 to 10.*no more"):
        batch_sharpness(loss, single(PARAMS), data, batch_size=11, key=KEY)
    with pytest.raises(TypeError, match=r"batch_sharpness needs data, the examples .* received a dict without arrays"):
        batch_sharpness(loss, single(PARAMS), {}, batch_size=1, key=KEY)
    with pytest.raises(TypeError, match=r"loss of directional_sharpness must return a scalar"):
        directional_sharpness(optax.sgd(0.1), optax.sgd(0.1).init(START), lambda p, _: p, START)
    tx = optax.rmsprop(0.1, eps=0.0)
    with pytest.raises(ValueError, match=r"critical_sharpness: the next update must be finite.*positive ε"):
        critical_sharpness(tx, tx.init(START), lambda p, _: 0 * jnp.sum(p), START)
