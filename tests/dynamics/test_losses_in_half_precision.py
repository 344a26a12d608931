"""Losses that are returned in half precision: changes of the loss are no more certain than it is rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.curvature import path, plane
from jaxopt_study.dynamics import account_step, critical_sharpness

CURVATURES = np.array([4.0, 1.0])
START = np.array([1.0, 0.5])


def exact(params):
    return 100 + 0.5 * np.sum(CURVATURES * np.asarray(params, np.float64) ** 2)


def rounded(dtype):
    """A quadratic whose level hides small changes: one unit of its last digit is .06 or .5."""
    return lambda p, _: (100 + 0.5 * jnp.sum(jnp.asarray(CURVATURES, dtype) * p.astype(dtype) ** 2)).astype(dtype)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("params", [jnp.float32, None])
def test_realised_changes_lie_within_their_errors(dtype, params):
    theta = jnp.asarray(START, params or dtype)
    for length in (0.01, 0.04, 0.3):
        updates = jnp.asarray([-length, -length / 8], theta.dtype)
        found = account_step(rounded(dtype), theta, updates)
        change = exact(np.asarray(theta, np.float64) + np.asarray(updates, np.float64)) - exact(theta)
        rounding = length * 8 * float(jnp.finfo(theta.dtype).eps)  # of θ + u
        assert abs(float(found.realised) - change) <= 4 * float(found.realised_error) + 4 * rounding
        assert float(found.realised_error) > 0.5 * 100 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_losses_of_a_path_and_a_plane_lie_within_their_errors(dtype):
    theta, d = jnp.asarray(START, jnp.float32), jnp.array([0.01, 0.003])
    line = path(rounded(dtype), theta, d, steps=[-4.0, -1.0, 0.0, 1.0, 4.0])
    truth = np.array([exact(START + s * np.asarray(d, np.float64)) for s in np.asarray(line.steps)])
    assert (np.abs(line.losses - truth) <= line.errors).all()
    field = plane(rounded(dtype), theta, (d, d[::-1]), x=[-1.0, 0.0, 2.0], y=[0.0, 1.0])
    for i, y in enumerate(np.asarray(field.y)):
        for j, x in enumerate(np.asarray(field.x)):
            point = START + x * np.asarray(d, np.float64) + y * np.asarray(d, np.float64)[::-1]
            assert abs(float(field.losses[i, j]) - exact(point)) <= float(field.errors[i, j])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.013, 0.0017])
def test_critical_step_lies_between_its_certain_ends(dtype, rate):
    theta, tx = jnp.asarray(START, jnp.float32), optax.sgd(rate)
    found = critical_sharpness(tx, tx.init(theta), rounded(dtype), theta)
    g = CURVATURES * START
    step = 2 * (g @ g) / (rate * g @ (CURVATURES * g))
    assert found.step_lower <= step <= found.step_upper


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_terms_and_the_change_are_of_the_same_rounded_step(dtype):
    theta = jnp.array([0.5, 0.2, -1.0], dtype)
    curvatures = jnp.array([3.0, 1.0, 0.25])
    loss = lambda p, _: 0.5 * jnp.sum(curvatures * p.astype(jnp.float32) ** 2)
    found = account_step(loss, theta, jnp.full(3, -0.01, dtype))  # up to a quarter of it is lost in θ + u
    error = np.hypot(float(found.realised_error), float(found.predicted_error))
    assert abs(float(found.realised) - float(found.predicted)) <= 4 * error
    assert error < 0.1 * abs(float(found.realised))


def test_single_precision_in_a_double_one():
    with jax.enable_x64(True):
        theta = jnp.asarray(START)
        found = account_step(rounded(jnp.float32), theta, jnp.array([-1e-4, 0.0]))
        change = exact(START + np.array([-1e-4, 0.0])) - exact(START)
        assert abs(float(found.realised) - change) <= 4 * float(found.realised_error)
        assert float(found.realised_error) > 1e-6
