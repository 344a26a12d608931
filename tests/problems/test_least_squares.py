"""Least squares: the closed form is the minimum, of least norm, and the spectrum is the Hessian's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxopt_study import problems


def example(rank_deficient=False, outputs=None):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 6))
    if rank_deficient:
        X[:, 5] = X[:, 0] - 2 * X[:, 1]
    Y = rng.normal(size=(30,) if outputs is None else (30, outputs))
    return X, Y


@pytest.mark.parametrize("rank_deficient", [False, True])
@pytest.mark.parametrize("outputs", [None, 3])
def test_solution_value_and_spectrum_agree_with_lapack_and_jax(rank_deficient, outputs):
    X, Y = example(rank_deficient, outputs)
    with jax.enable_x64(True):
        problem = problems.least_squares(X, Y)
        point = problem.minima[0]
        value, gradient = jax.value_and_grad(problem.loss)(jnp.asarray(point.params), problem.data)
        flat = jax.hessian(lambda w: problem.loss(w.reshape(point.params.shape), problem.data))(
            jnp.ones(point.params.size)
        )
    expected, _, rank, _ = scipy.linalg.lstsq(X, Y)  # by divide and conquer, of least norm
    np.testing.assert_allclose(point.params, expected, rtol=1e-10, atol=1e-13)
    assert problem.metadata["rank"] == rank == 6 - rank_deficient
    assert np.abs(gradient).max() < 1e-13
    np.testing.assert_allclose(point.value, value, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(flat), problem.spectrum, atol=1e-13)
    np.testing.assert_allclose(
        problem.spectrum, np.sort(np.repeat(np.linalg.eigvalsh(X.T @ X / 30), outputs or 1)), atol=1e-13
    )


def test_more_features_than_examples_fit_exactly_with_least_norm():
    X, Y = np.random.default_rng(1).normal(size=(4, 7)), np.arange(4.0)
    problem = problems.least_squares(X, Y)
    solution = problem.minima[0].params
    np.testing.assert_allclose(X @ solution, Y, atol=1e-12)
    np.testing.assert_allclose(solution, X.T @ np.linalg.solve(X @ X.T, Y), rtol=1e-10)
    assert problem.spectrum.shape == (7,)
    np.testing.assert_array_equal(problem.spectrum[:3], 0)


def test_gradient_descent_from_zero_finds_the_solution_of_least_norm():
    X, Y = example(rank_deficient=True)
    with jax.enable_x64(True):
        problem = problems.least_squares(X, Y)
        rate = 1 / problem.spectrum[-1]
        descend = jax.jit(
            lambda w: jax.lax.fori_loop(0, 2000, lambda _, w: w - rate * jax.grad(problem.loss)(w, problem.data), w)
        )
        np.testing.assert_allclose(descend(problem.init(jax.random.key(0))), problem.minima[0].params, atol=1e-10)


def test_the_loss_is_a_mean_over_the_batch():
    X, Y = example(outputs=2)
    problem = problems.least_squares(X, Y)
    params = jax.random.normal(jax.random.key(0), (6, 2))
    batch = jax.tree.map(lambda leaf: leaf[:7], problem.data)
    expected = np.mean([np.sum((x @ params - y) ** 2) / 2 for x, y in zip(X[:7], Y[:7], strict=True)])
    np.testing.assert_allclose(problem.loss(params, batch), expected, rtol=1e-5)
    assert problem.num_examples == 30
    assert problem.data["x"].dtype == jnp.float32


def test_random_regressions_have_the_asked_conditioning_noise_and_key():
    problem = problems.linear_regression(20_000, 5, noise=0.5, condition_number=1e4)
    np.testing.assert_allclose(problem.spectrum[-1] / problem.spectrum[0], 1e4, rtol=0.1)
    # (N − d)/N σ²/2 with standard error σ²/√(2N)
    assert abs(problem.minima[0].value - 0.5**2 / 2 * (1 - 5 / 20_000)) < 4 * 0.5**2 / np.sqrt(2 * 20_000)
    same, other = problems.linear_regression(), problems.linear_regression(key=jax.random.key(1))
    np.testing.assert_array_equal(same.data["x"], problems.linear_regression().data["x"])
    assert not np.array_equal(same.data["x"], other.data["x"])


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (np.ones(3), np.ones(3), r"received \(3,\) and \(3,\)"),
        (np.ones((3, 2)), np.ones(4), "same N"),
        (np.ones((0, 2)), np.ones(0), "N ≥ 1"),
        (np.ones((3, 2)), np.array([1.0, np.nan, 0.0]), "finite"),
    ],
)
def test_impossible_regressions_are_refused(inputs, targets, message):
    with pytest.raises(ValueError, match=message):
        problems.least_squares(inputs, targets)


def test_a_start_of_another_shape_and_impossible_random_regressions_are_refused():
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        problems.least_squares(*example(), start=np.zeros(5))
    with pytest.raises(ValueError, match="condition_number to be a finite real number ≥ 1"):
        problems.linear_regression(condition_number=0.5)
