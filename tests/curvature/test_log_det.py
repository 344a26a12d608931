"""log det against the dense one, and where it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import from_matrix, from_matvec, log_det

KEY = jax.random.key(0)
SPECTRUM = np.concatenate([[40.0, 10.0], np.linspace(0.0, 3.0, 118)])


@pytest.fixture(scope="module")
def op():
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(120, 120)))[0]
    matrix = (rotation * SPECTRUM) @ rotation.T
    return from_matrix(((matrix + matrix.T) / 2).astype(np.float32))


def test_standard_errors_and_truncation_cover_the_truth(op):
    def run(key):
        return log_det(op, shift=0.2, num_probes=8, num_steps=25, key=key)

    result = jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(KEY, 150))
    truth = np.sum(np.log(SPECTRUM + 0.2))
    deviation = np.abs(np.asarray(result.value) - truth)
    error = np.asarray(result.standard_error)
    assert np.mean(deviation <= 2.36 * error) >= 0.9  # Student's t with 7 degrees of freedom
    assert np.mean(deviation <= 0.8 * error) < 0.75  # the errors are not just large
    assert np.all(result.positive)
    assert np.all(np.asarray(result.truncation) >= -1e-3)
    assert np.all(np.asarray(result.truncation) < 0.1 * error)


def test_few_steps_overestimate_and_say_so(op):
    def run(steps):
        return log_det(op, shift=0.01, num_probes=8, num_steps=steps, key=KEY)

    few, many = run(8), run(60)
    assert few.value > many.value  # Gauss quadrature of a logarithm comes from above
    assert few.truncation > 10 * abs(many.truncation)
    assert not bool(few.resolved)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_exact_where_the_steps_suffice_for_the_whole_matrix(n):
    spectrum = np.geomspace(0.1, 7.0, n)
    rotation = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]
    matrix = ((rotation * spectrum) @ rotation.T).astype(np.float32)
    for factor in (1.0, 2.0**100, 2.0**-100):
        result = log_det(from_matrix(jnp.asarray(matrix) * factor), key=KEY)
        np.testing.assert_allclose(result.value, np.sum(np.log(spectrum * factor)), rtol=1e-5, atol=1e-4)
        assert result.truncation == 0
        assert abs(result.value - np.sum(np.log(spectrum * factor))) <= result.standard_error < 3e-3 * n
        assert bool(result.positive & result.resolved)
        assert result.num_matvecs == n
    shifted = log_det(from_matrix(jnp.asarray(matrix)), shift=0.5, key=KEY)
    np.testing.assert_allclose(shifted.value, np.sum(np.log(spectrum + 0.5)), rtol=1e-5, atol=1e-5)


def test_scaling_the_operator_adds_its_logarithm(op):
    one = log_det(op + 0.2 * from_matrix(jnp.eye(120)), num_probes=8, num_steps=25, key=KEY)
    for factor in (2.0**-90, 2.0**90):
        other = log_det(factor * (op + 0.2 * from_matrix(jnp.eye(120))), num_probes=8, num_steps=25, key=KEY)
        np.testing.assert_allclose(other.value - 120 * np.log(factor), one.value, atol=1e-2)
        np.testing.assert_allclose(other.standard_error, one.standard_error, rtol=1e-3)


def test_exact_where_the_space_is_exhausted():
    result = log_det(from_matrix(2 * jnp.eye(30)), num_probes=2, num_steps=5, key=KEY)
    np.testing.assert_allclose(result.value, 30 * np.log(2), rtol=1e-5)
    assert bool(result.positive & result.resolved)
    assert result.num_matvecs == 2


@pytest.mark.parametrize("shift", [-0.5, -3.1])
def test_negative_ritz_values_refuse_the_estimate(op, shift):
    result = log_det(op, shift=shift, num_probes=8, num_steps=25, key=KEY)
    assert not bool(result.positive)
    assert result.smallest < 0
    assert np.isnan(result.value)
    assert np.isnan(result.standard_error)


def test_a_zero_within_rounding_and_products_that_are_not_finite_refuse_the_estimate():
    singular = from_matrix(jnp.diag(jnp.array([0.0, 1.0, 2.0, 3.0])))
    result = log_det(singular, num_probes=2, num_steps=4, key=KEY)
    assert not bool(result.positive)
    assert np.isnan(result.value)
    assert not bool(log_det(from_matvec(lambda v: jnp.inf * v, jnp.zeros(4)), num_probes=2, key=KEY).positive)
    generous = log_det(from_matrix(jnp.diag(jnp.array([1.0, 2.0]))), num_probes=2, key=KEY, noise_floor=0.9)
    assert not bool(generous.positive)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_probes": 1}, "An error estimate takes two"),
        ({"num_steps": 0}, "num_steps to be an integer ≥ 1"),
        ({"shift": float("nan")}, "shift to be a finite real number; received nan"),
        ({"shift": jnp.ones(2)}, "shift to be a finite real number"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        log_det(from_matrix(jnp.eye(3)), **{"key": KEY, **arguments})
