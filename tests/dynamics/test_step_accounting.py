"""Predicted and realised change of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.dynamics import account_step

FEATURES = np.random.default_rng(0).normal(size=(13, 4))
TARGETS = np.random.default_rng(1).normal(size=13)


def loss(params, data):
    x, y = data
    return jnp.mean((jnp.tanh(x @ params["in"].reshape(4, 3)) @ params["out"] - y) ** 2) + 0.1


def problem(dtype):
    draw = np.random.default_rng(2).normal
    params = {"in": jnp.asarray(draw(size=12), dtype), "out": jnp.asarray(draw(size=3), dtype)}
    return params, (jnp.asarray(FEATURES, dtype), jnp.asarray(TARGETS, dtype))


def descent(params, data, rate):
    return jax.tree.map(lambda g: -rate * g, jax.jit(jax.grad(loss))(params, data))


def test_quadratic_is_predicted_exactly():
    with jax.enable_x64(True):
        matrix = jnp.array([[2.0, 1.0], [1.0, -3.0]])
        params, updates = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])
        found = account_step(lambda p, _: 0.5 * p @ matrix @ p, params, updates)
        assert found.linear == pytest.approx(float(params @ matrix @ updates), rel=1e-13)
        assert found.quadratic == pytest.approx(float(0.5 * updates @ matrix @ updates), rel=1e-13)
        assert found.realised == pytest.approx(float(found.predicted), rel=1e-13)
        assert abs(found.ratio - 1) <= 5 * found.ratio_error


def test_terms_are_gradient_and_dense_hessian():
    with jax.enable_x64(True):
        params, data = problem(jnp.float64)
        updates = descent(params, data, 0.3)
        flat, restore = jax.flatten_util.ravel_pytree(params)
        u = jax.flatten_util.ravel_pytree(updates)[0]
        f = jax.jit(lambda z: loss(restore(z), data))
        found = account_step(loss, params, updates, data)
        np.testing.assert_allclose(found.linear, jax.grad(f)(flat) @ u, rtol=1e-12)
        np.testing.assert_allclose(found.quadratic, 0.5 * u @ jax.hessian(f)(flat) @ u, rtol=1e-12)
        np.testing.assert_allclose(found.realised, f(flat + u) - f(flat), rtol=1e-12)


def test_what_remains_is_of_third_order():
    with jax.enable_x64(True):
        params, data = problem(jnp.float64)
        rest = []
        for rate in (0.02, 0.01):
            found = account_step(loss, params, descent(params, data, rate), data)
            rest.append(float(found.realised - found.predicted))
        assert rest[0] / rest[1] == pytest.approx(8.0, rel=0.1)


def test_ragged_batches_are_weighted_by_their_examples():
    params, data = problem(jnp.float32)
    updates = descent(params, data, 0.3)
    whole, batched = (account_step(loss, params, updates, data, batch_size=size) for size in (None, 5))
    for a, b in zip(whole[:3], batched[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5)


@pytest.mark.parametrize("rate", [1e-1, 1e-3, 1e-5, 1e-6])
def test_single_precision_lies_within_its_error_of_double(rate):
    single, data = problem(jnp.float32)
    updates = descent(single, data, rate)
    found = account_step(loss, single, updates, data)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), single)
        # What single precision has really added.
        applied = jax.tree.map(lambda p, u: (p + u).astype(jnp.float64) - p.astype(jnp.float64), single, updates)
        exact = account_step(loss, params, applied, (FEATURES.astype(np.float32), TARGETS.astype(np.float32)))
        realised, linear = float(exact.realised), float(exact.linear)
    assert abs(float(found.realised) - realised) <= 4 * found.realised_error
    # The rounding of θ + u differs from sample to sample: that is the error of the terms.
    assert abs(float(found.linear) - linear) <= 5 * found.linear_error + 1e-6 * abs(linear)
    assert found.realised_error < 3e-7


def test_error_tells_when_the_realised_change_is_noise():
    params, data = problem(jnp.float32)
    clear = account_step(loss, params, descent(params, data, 1e-1), data)
    lost = account_step(loss, params, descent(params, data, 1e-8), data)  # a fifth of the loss's last digit
    assert clear.ratio_error < 1e-4
    assert lost.realised_error > 0.5 * abs(lost.realised) or lost.ratio_error > 0.5


def test_an_update_below_rounding_did_not_happen():
    found = account_step(lambda p, _: jnp.sum(p**2), jnp.array([1.0]), jnp.array([1e-9]))
    assert found.linear == 0.0
    assert abs(found.realised) < found.realised_error


def test_wrong_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="structure of the parameters"):
        account_step(lambda p, _: jnp.sum(p["a"]), {"a": jnp.ones(2)}, {"b": jnp.ones(2)})
    with pytest.raises(ValueError, match="num_samples"):
        account_step(lambda p, _: jnp.sum(p), jnp.ones(2), jnp.ones(2), num_samples=1)
    with pytest.raises(TypeError, match="params to be floating-point"):
        account_step(lambda p, _: jnp.sum(p), jnp.arange(2), jnp.ones(2))


def test_wrong_losses_and_data_say_what_to_do():
    params, updates = jnp.ones(2), jnp.ones(2)
    with pytest.raises(TypeError, match=r"loss of account_step must return a scalar.*shape \(2,\)"):
        account_step(lambda p, _: p**2, params, updates)
    with pytest.raises(TypeError, match="loss of account_step must take two arguments"):
        account_step(lambda p: jnp.sum(p), params, updates)
    with pytest.raises(TypeError, match="received generator, which can be read once"):
        account_step(lambda p, x: jnp.sum(p * x), params, updates, (x for x in [1.0, 2.0]))


@pytest.mark.parametrize("factor", [1.0, 1e-30])
def test_errors_of_a_quadratic_cover_the_rounding_that_no_shift_shows(factor):
    """Its Hessian is the same at every point, so the samples agree to the bit, whatever the products lost."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        matrix = rng.normal(size=(6, 6))
        matrix = (factor * (matrix + matrix.T)).astype(np.float32)
        start = rng.normal(size=6).astype(np.float32)
        end = start + rng.normal(size=6).astype(np.float32) / 128
        account = account_step(lambda p, a: 0.5 * p @ (a @ p), jnp.asarray(start), jnp.asarray(end - start), matrix)
        a, p, u = matrix.astype(float), start.astype(float), end.astype(float) - start.astype(float)
        exact = {"linear": u @ a @ p, "quadratic": 0.5 * u @ a @ u}
        exact["realised"] = exact["linear"] + exact["quadratic"]
        for name, value in exact.items():
            error = np.float64(getattr(account, f"{name}_error"))
            assert 0 < abs(np.float64(getattr(account, name)) - value) <= 6 * error, name
            assert error <= 1e-4 * factor
