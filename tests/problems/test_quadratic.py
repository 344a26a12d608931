"""Quadratics: the Hessian and the noise are the prescribed ones, and SGD on them follows its exact recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import problems

SPECTRUM = np.array([-2.0, 0.0, 0.5, 3.0, 40.0])
COVARIANCE = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])


@pytest.mark.parametrize("rotated", [False, True])
def test_the_hessian_is_the_prescribed_one(rotated):
    Q = problems.random_rotation(5, key=jax.random.key(3)) if rotated else None
    center = np.arange(5.0)
    problem = problems.quadratic(SPECTRUM[::-1], rotation=Q, center=center)
    with jax.enable_x64(True):
        params = problem.init(jax.random.key(0))
        hessian = np.asarray(jax.hessian(problem.loss)(params))
        gradient = np.asarray(jax.grad(problem.loss)(params))
        at_center = np.asarray(jax.grad(problem.loss)(jnp.asarray(center)))
    axes = np.eye(5) if Q is None else Q
    expected = sum(value * np.outer(axis, axis) for value, axis in zip(SPECTRUM[::-1], axes.T, strict=True))
    np.testing.assert_allclose(hessian, expected, atol=1e-13)
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), problem.spectrum, atol=1e-13)
    np.testing.assert_allclose(gradient, expected @ (np.asarray(params) - center), atol=1e-12)
    assert np.abs(at_center).max() == 0
    assert (problem.critical_points[0].kind, problem.critical_points[0].index) == ("saddle", 1)


@pytest.mark.parametrize(
    ("spectrum", "kind", "index"),
    [
        ([1, 2], "minimum", 0),
        ([0, 2], "minimum", 0),
        ([-1, 0], "maximum", 1),
        ([-1, -1], "maximum", 2),
        ([0], "degenerate", 0),
    ],
)
def test_kinds_are_exact_with_zero_eigenvalues_too(spectrum, kind, index):
    point = problems.quadratic(spectrum).critical_points[0]
    assert (point.kind, point.index, point.value) == (kind, index, 0.0)


def test_rotations_are_orthogonal_and_uniform():
    draws = np.stack([problems.random_rotation(3, key=key) for key in jax.random.split(jax.random.key(0), 400)])
    np.testing.assert_allclose(draws.transpose(0, 2, 1) @ draws, np.broadcast_to(np.eye(3), draws.shape), atol=1e-14)
    # Under the Haar measure entries have mean 0 and variance 1/3; QR without the sign rule fixes the diagonal's sign.
    assert np.abs(draws.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / 400)
    assert np.abs((draws**2).mean(axis=0) - 1 / 3).max() < 4 * np.sqrt(4 / 45 / 400)
    assert 0.4 < np.mean(np.linalg.det(draws) > 0) < 0.6


def test_starts_are_drawn_around_the_center_or_given():
    problem = problems.quadratic([1.0, 2.0], center=[5.0, -5.0])
    starts = np.asarray(jax.vmap(problem.init)(jax.random.split(jax.random.key(0), 1000)))
    assert np.abs(starts.mean(axis=0) - [5, -5]).max() < 4 / np.sqrt(1000)
    fixed = problems.quadratic([1.0, 2.0], start=[3, 4])
    assert fixed.init(jax.random.key(0)).tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    "covariance", [COVARIANCE, np.array([2.0, 0.0, 0.5]), np.ones((3, 3))]
)  # full, diagonal, singular
def test_gradient_noise_is_additive_and_has_the_prescribed_covariance(covariance):
    num_draws = 20_000
    center = np.array([1.0, 2.0, 3.0])
    problem = problems.quadratic([1.0, 2.0, 5.0], center=center, noise_covariance=covariance)
    params = jnp.array([0.3, -1.0, 2.0])
    step_gradient = jax.jit(jax.vmap(jax.grad(problem.step_loss, has_aux=True), in_axes=(None, None, None, 0)))
    keys = jax.random.split(jax.random.key(1), num_draws)
    noise = np.asarray(step_gradient(params, None, None, keys)[0] - jax.grad(problem.loss)(params), dtype=float)
    elsewhere = np.asarray(step_gradient(jnp.asarray(center), None, None, keys)[0])
    np.testing.assert_allclose(noise, elsewhere, atol=2e-5)  # the noise does not depend on the parameters
    full = np.diag(covariance) if covariance.ndim == 1 else covariance
    variances = np.diag(full)
    assert np.all(np.abs(noise.mean(axis=0)) <= 4.5 * np.sqrt(variances / num_draws) + 1e-6)
    # Isserlis: Var(ξᵢξⱼ) = CᵢᵢCⱼⱼ + Cᵢⱼ².
    standard_error = np.sqrt((np.outer(variances, variances) + full**2) / num_draws)
    assert np.all(np.abs(noise.T @ noise / num_draws - full) <= 4.5 * standard_error + 1e-6)


def test_the_loss_itself_is_free_of_noise_and_a_noiseless_problem_has_no_step_loss():
    noisy, plain = problems.quadratic([1.0], noise_covariance=[4.0]), problems.quadratic([1.0])
    params = jnp.array([2.0])
    assert noisy.loss(params) == plain.loss(params) == 2.0
    assert plain.step_loss is None
    state = {"kept": jnp.ones(())}
    value, returned = noisy.step_loss(params, state, None, jax.random.key(0))
    assert returned is state
    assert value != 2.0


def test_sgd_on_the_noisy_quadratic_follows_the_exact_recursion():
    num_runs, num_steps, learning_rate, batch_size = 4000, 60, 0.5, 4
    problem = problems.noisy_quadratic(3, batch_size=batch_size, start=[2.0, -1.0, 0.5])
    curvature = np.array([1.0, 1 / 2, 1 / 3])

    def run(key):
        def step(params, key):
            gradient, _ = jax.grad(problem.step_loss, has_aux=True)(params, None, None, key)
            params = params - learning_rate * gradient
            return params, params

        return jax.lax.scan(step, problem.init(key), jax.random.split(key, num_steps))[1]

    paths = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_runs)), dtype=float)
    mean, second = np.array([2.0, -1.0, 0.5]), np.array([4.0, 1.0, 0.25])
    for t in range(num_steps):
        contraction = 1 - learning_rate * curvature
        mean, second = contraction * mean, contraction**2 * second + learning_rate**2 * curvature / batch_size
        variance = second - mean**2
        fourth = mean**4 + 6 * mean**2 * variance + 3 * variance**2  # of a normal variable
        assert np.all(np.abs(paths[:, t].mean(axis=0) - mean) < 5 * np.sqrt(variance / num_runs))
        assert np.all(np.abs((paths[:, t] ** 2).mean(axis=0) - second) < 5 * np.sqrt((fourth - second**2) / num_runs))
    stationary = learning_rate / batch_size / (2 - learning_rate * curvature)
    assert abs(second[0] / stationary[0] - 1) < 1e-6


def test_large_problems_on_the_axes_need_no_matrix():
    problem = problems.quadratic(np.linspace(1, 2, 200_000), noise_covariance=np.ones(200_000))
    params = problem.init(jax.random.key(0))
    assert jax.grad(problem.step_loss, has_aux=True)(params, None, None, jax.random.key(1))[0].shape == (200_000,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spectrum": []}, "one or more finite"),
        ({"spectrum": [1.0, np.nan]}, "one or more finite"),
        ({"spectrum": [[1.0]]}, "one axis"),
        ({"spectrum": [1.0, 2.0], "rotation": np.eye(3)}, r"shape \(2, 2\)"),
        ({"spectrum": [1.0, 2.0], "rotation": np.ones((2, 2))}, "orthogonal"),
        ({"spectrum": [1.0, 2.0], "center": [1.0]}, "center must be 2"),
        ({"spectrum": [1.0, 2.0], "start": [1.0, np.inf]}, "start must be 2"),
        ({"spectrum": [1.0, 2.0], "noise_covariance": [1.0]}, "noise covariance must be finite"),
        ({"spectrum": [1.0, 2.0], "noise_covariance": [1.0, -1.0]}, "smallest is -1"),
        ({"spectrum": [1.0, 2.0], "noise_covariance": [[1.0, 2.0], [2.0, 1.0]]}, "smallest is -1"),
        ({"spectrum": [1.0, 2.0], "noise_covariance": [[1.0, 0.5], [0.0, 1.0]]}, "symmetric"),
    ],
)
def test_impossible_quadratics_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        problems.quadratic(**arguments)


@pytest.mark.parametrize("arguments", [{"dim": 0}, {"dim": 3, "batch_size": 0}])
def test_impossible_noisy_quadratics_are_refused(arguments):
    with pytest.raises(ValueError, match="an integer ≥ 1"):
        problems.noisy_quadratic(**arguments)
