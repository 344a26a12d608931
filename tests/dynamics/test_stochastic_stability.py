"""Mean-square stability against its closed form on least squares, and against runs of SGD."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.dynamics import stochastic_stability

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(12, 3)) * np.array([1.0, 0.7, 1.5])
DATA = jnp.asarray(X, jnp.float32)
START = jnp.zeros(3)


def loss(params, x):
    return 0.5 * jnp.mean((x @ params) ** 2)


def steps(rate, decay=0.0):
    """The matrices of a step on each example, of the pair (θ, m) with m′ = γ m + g, θ′ = θ − η m′."""
    eye, found = np.eye(3), []
    for row in X.astype(np.float32).astype(float):
        h = np.outer(row, row)
        pair = np.block([[eye - rate * h, -rate * decay * eye], [h, decay * eye]])
        found.append(pair if decay else eye - rate * h)
    return np.array(found)


def second_moments(matrices, batch_size, replace=False):
    """E[A ⊗ A], with the expectation over pairs of examples of a batch."""
    n, b = len(matrices), batch_size
    same = sum(np.kron(a, a) for a in matrices) / n
    total = sum(matrices)
    different = (np.kron(total, total) - n * same) / (n * (n - 1))
    pairs = np.kron(total, total) / n**2 if replace else different
    return same / b + (b - 1) / b * pairs


def closed_form(matrices, batch_size, replace=False):
    return np.sqrt(np.abs(np.linalg.eigvals(second_moments(matrices, batch_size, replace))).max())


def fastest(matrices, batch_size):
    """The covariance that grows by the largest eigenvalue."""
    values, vectors = np.linalg.eig(second_moments(matrices, batch_size))
    found = vectors[:, np.argmax(np.abs(values))].real.reshape(3, 3)
    return (found + found.T) / np.trace(found) / 2


def measured(tx, batch_size, params=START, data=DATA, **options):
    return stochastic_stability(tx, tx.init(params), loss, params, data, batch_size=batch_size, key=KEY, **options)


@pytest.mark.parametrize(("batch_size", "replace"), [(1, False), (3, False), (3, True), (12, False)])
def test_small_problems_have_the_closed_form(batch_size, replace):
    found = measured(optax.sgd(0.4), batch_size, replace=replace)
    exact = closed_form(steps(0.4), batch_size, replace)
    assert found.exact
    assert abs(found.radius - exact) <= found.error < 1e-4


def test_momentum_is_part_of_the_map():
    found = measured(optax.sgd(0.2, 0.5), 2)
    np.testing.assert_allclose(found.radius, closed_form(steps(0.2, 0.5), 2), rtol=1e-5)


def test_particles_estimate_the_same_radius():
    for rate in (0.3, 0.9):
        found = measured(optax.sgd(rate), 2, exact=False)
        exact = closed_form(steps(rate), 2)
        assert not found.exact
        assert found.error < 0.02 * exact
        assert abs(found.radius - exact) <= 4 * found.error + 0.01 * exact


def test_the_verdict_is_where_runs_of_sgd_diverge():
    rates = np.linspace(0.1, 2.0, 200)
    limit = next(rate for rate in rates if closed_form(steps(rate), 6) > 1)
    rng = np.random.default_rng(1)
    assert limit < 0.97 * 2 / np.linalg.eigvalsh(X.T @ X / len(X)).max()  # where gradient descent diverges
    for rate, kind in ((0.85 * limit, "stable"), (1.15 * limit, "unstable")):
        assert measured(optax.sgd(rate), 6).kind == kind
        # From the second moments that grow fastest; after long, a mean square is that of a few runs that no sample has.
        runs = rng.normal(size=(50_000, 3)) @ np.linalg.cholesky(fastest(steps(rate), 6)).T
        before = np.mean(runs**2)
        for _ in range(5):
            rows = X[np.argsort(rng.random((len(runs), len(X))), axis=1)[:, :6]]
            runs = runs - rate * np.einsum("rbi,rb->ri", rows, np.einsum("rbi,ri->rb", rows, runs)) / 6
        growth = (np.mean(runs**2) / before) ** (1 / 10)
        assert (growth > 1) == (kind == "unstable")
        assert growth == pytest.approx(closed_form(steps(rate), 6), rel=0.02)


def test_full_batches_are_the_step_of_gradient_descent():
    h = X.T @ X / len(X)
    found = measured(optax.sgd(0.9), 12)
    np.testing.assert_allclose(found.radius, np.abs(1 - 0.9 * np.linalg.eigvalsh(h)).max(), rtol=1e-5)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_radius_has_no_units(factor):
    data = jnp.float32(np.sqrt(factor)) * DATA
    found = measured(optax.sgd(0.2 / factor, 0.5), 2, data=data)
    np.testing.assert_allclose(found.radius, closed_form(steps(0.2, 0.5), 2), rtol=1e-4)
    wide = measured(optax.sgd(0.3 / factor), 2, data=data, exact=False)
    assert abs(wide.radius - closed_form(steps(0.3), 2)) <= 4 * wide.error + 0.01


def test_wrong_arguments_say_what_to_do():
    with pytest.raises(ValueError, match=r"stochastic_stability needs batch_size to be an integer from 1 to 12"):
        measured(optax.sgd(0.1), 13)
    with pytest.raises(TypeError, match=r"stochastic_stability needs data, the examples .* received a tuple without"):
        measured(optax.sgd(0.1), 2, data=())
    with pytest.raises(ValueError, match=r"forms the matrix of at most 24 coordinates.*received d = 30.*Leave out"):
        measured(optax.sgd(0.1), 2, params=jnp.zeros(30), data=jnp.ones((4, 30)), exact=True)
