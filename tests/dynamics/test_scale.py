"""The loss in other units, f → c f: what has no units stays, and the account of a step scales with c."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from jaxopt_study.dynamics import (
    account_step,
    batch_sharpness,
    critical_sharpness,
    directional_sharpness,
    preconditioned_density,
    preconditioned_sharpness,
    stability,
    stability_limit,
    stability_threshold,
)

FACTORS = [1e-30, 1e-20, 1e20, 1e30]
CURVATURES = jnp.array([9.0, 5.0, 2.0, -0.5])
PARAMS = jnp.array([1.0, -0.5, 0.3, 0.7])


def loss(params, factor):
    return factor * (0.5 * jnp.sum(CURVATURES * params**2) + 0.05 * jnp.sum(params**3))


EXACT = np.asarray(CURVATURES) + 0.3 * np.asarray(PARAMS, np.float64)  # the Hessian's diagonal, of factor 1


@pytest.mark.parametrize("factor", FACTORS)
def test_radius_of_gradient_descent_has_no_units(factor):
    tx = optax.sgd(0.3 / factor)
    found = stability(tx, tx.init(PARAMS), loss, PARAMS, jnp.float32(factor))
    assert found.converged
    assert found.radius == pytest.approx(np.abs(1 - 0.3 * EXACT).max(), rel=1e-5)


@pytest.mark.parametrize("momentum", [optax.sgd, optimizers.momentum], ids=["of gradients", "of steps"])
@pytest.mark.parametrize("factor", FACTORS)
def test_radius_with_momentum_has_no_units(factor, momentum):
    tx = momentum(0.3 / factor, 0.9)
    found = stability(tx, tx.init(PARAMS), loss, PARAMS, jnp.float32(factor))
    radius = max(np.abs(np.linalg.eigvals([[1 - 0.3 * x, -0.27], [x, 0.9]])).max() for x in EXACT)
    assert found.converged
    assert found.radius == pytest.approx(radius, rel=1e-4)


@pytest.mark.parametrize("factor", FACTORS)
def test_thresholds_scale_and_limits_do_not(factor):
    assert stability_threshold(optax.sgd(0.3 / factor, 0.9)) == pytest.approx(3.8 * factor / 0.3, rel=1e-6)
    assert stability_limit(optax.sgd(0.3 / factor, 0.9)) == pytest.approx(3.8, rel=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
def test_sharpness_over_threshold_has_no_units(factor):
    tx = optax.sgd(0.3 / factor)
    found = preconditioned_sharpness(tx, tx.init(PARAMS), loss, PARAMS, jnp.float32(factor))
    lower, upper = found.ratio
    assert lower * (1 - 1e-5) <= EXACT.max() * 0.3 / 2 <= upper * (1 + 1e-5)
    assert upper - lower <= 0.02 * upper


@pytest.mark.parametrize("factor", FACTORS)
def test_account_of_a_step_scales_with_the_loss(factor):
    updates = -0.1 * PARAMS
    found = account_step(loss, PARAMS, updates, jnp.float32(factor))
    p, u = np.asarray(PARAMS, np.float64), np.asarray(updates, np.float64)
    gradient = np.asarray(CURVATURES) * p + 0.15 * p**2
    np.testing.assert_allclose(np.float64(found.linear) / factor, gradient @ u, rtol=1e-5)
    np.testing.assert_allclose(np.float64(found.quadratic) / factor, 0.5 * u @ (EXACT * u), rtol=1e-5)
    f = lambda x: 0.5 * np.sum(np.asarray(CURVATURES) * x**2) + 0.05 * np.sum(x**3)
    np.testing.assert_allclose(np.float64(found.realised) / factor, f(p + u) - f(p), rtol=1e-4)
    assert 0 < found.ratio_error < 1e-3
    of_one = account_step(loss, PARAMS, updates, jnp.float32(1.0))
    for name in ("linear_error", "realised_error"):  # by rounding, which differs
        assert 0.05 < np.float64(getattr(found, name)) / factor / np.float64(getattr(of_one, name)) < 20
    assert found.ratio == pytest.approx((f(p + u) - f(p)) / (gradient @ u + 0.5 * u @ (EXACT * u)), rel=1e-4)


SLOPES = np.asarray(CURVATURES) * np.asarray(PARAMS, np.float64) + 0.15 * np.asarray(PARAMS, np.float64) ** 2
ALONG = np.sum(EXACT * SLOPES**2) / np.sum(SLOPES**2)  # the curvature along the gradient, of factor 1


@pytest.mark.parametrize("factor", FACTORS)
def test_curvature_along_the_update_scales_with_the_loss(factor):
    tx = optax.sgd(0.3 / factor)
    found = directional_sharpness(tx, tx.init(PARAMS), loss, PARAMS, jnp.float32(factor))
    assert np.float64(found.value) / factor == pytest.approx(ALONG, rel=1e-5)
    assert 0 < np.float64(found.error) / factor < 1e-3
    critical = critical_sharpness(
        tx, tx.init(PARAMS), lambda p, c: loss(p, c) - 0.05 * c * jnp.sum(p**3), PARAMS, jnp.float32(factor)
    )
    steep = np.asarray(CURVATURES) * np.asarray(PARAMS, np.float64)
    exact = np.sum(np.asarray(CURVATURES) * steep**2) / np.sum(steep**2)
    assert abs(critical.value / factor - exact) <= critical.error / factor + 1e-5
    assert critical.error / factor < 0.01 * exact


@pytest.mark.parametrize("factor", FACTORS)
def test_batch_sharpness_scales_with_the_loss(factor):
    data = jnp.float32(factor) * jnp.array([1.0, 2.0])
    found = batch_sharpness(lambda p, c: loss(p, jnp.mean(c)), PARAMS, data, batch_size=1, key=jax.random.key(0))
    assert abs(np.float64(found.value) / factor - 9 / 5 * ALONG) <= 5 * np.float64(found.error) / factor
    assert np.float64(found.full_batch) / factor == pytest.approx(1.5 * ALONG, rel=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_density_over_threshold_has_no_units(factor):
    tx = optax.sgd(0.3 / factor)
    found = preconditioned_density(tx, tx.init(PARAMS), loss, PARAMS, jnp.float32(factor), key=jax.random.key(0))
    assert found.threshold == pytest.approx(2 * factor / 0.3, rel=1e-6)
    values = np.float64(found.density.quadrature.nodes[0]) / factor
    np.testing.assert_allclose(values, np.sort(EXACT), rtol=1e-5)
    assert abs(found.unstable_share - 0.25) <= 4 * found.unstable_share_error


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
def test_adam_without_epsilon_has_no_units(factor):
    """Of gradients whose squares are numbers of single precision; beyond, Optax's statistics are 0 or infinite."""
    radii = []
    for scale in (1.0, factor):
        tx = optax.adam(0.1, eps=0.0)
        _, state = tx.update(jax.grad(loss)(PARAMS, scale), tx.init(PARAMS), PARAMS)
        radii.append(stability(tx, state, loss, PARAMS, jnp.float32(scale)).radius)
    assert radii[1] == pytest.approx(radii[0], rel=1e-4)
