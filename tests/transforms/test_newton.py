"""Newton directions against dense ones in double precision, written from the papers, and what their state reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import optimizers, problems, training
from jaxopt_study.transforms import NewtonState, scale_by_newton, scale_by_saddle_free_newton
from tests.oracles.references.newton import saddle_free, truncated

N = 8
DEFINITE = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 20.0, 100.0])
INDEFINITE = DEFINITE * np.array([1, -1, 1, 1, -1, 1, -1, 1])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def quadratic(spectrum, seed=0):
    """A symmetric matrix, its minimum or saddle, and a point with its gradient."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(N, N)))[0]
    hessian, centre, point = q * spectrum @ q.T, rng.normal(size=N), rng.normal(size=N)
    return hessian, centre, point, hessian @ (point - centre)


def split(x):
    """The coordinates as parameters of two leaves."""
    return {"a": jnp.asarray(x[:6]).reshape(2, 3), "b": jnp.asarray(x[6:])}


def joined(tree):
    return np.concatenate([np.ravel(tree["a"]), np.ravel(tree["b"])])


@jax.jit
def direction(tx, hessian, centre, point, g):
    def loss(params):
        away = jnp.concatenate([params["a"].ravel(), params["b"]]) - centre
        return away @ hessian @ away / 2

    return tx.update(g, tx.init(point), point, value_fn=loss)


def of(tx, hessian, centre, point, g) -> tuple[np.ndarray, NewtonState]:
    updates, state = direction(tx, hessian, centre, split(point), split(g))
    return joined(updates), state


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_a_definite_quadratic_shows_no_negative_curvature_in_any_units(scale):
    hessian, centre, point, _ = quadratic(DEFINITE)
    with jax.enable_x64(False):
        loss = lambda x: jnp.float32(scale) * (x - centre) @ jnp.asarray(hessian, jnp.float32) @ (x - centre) / 2
        tx, x = scale_by_newton(tolerance=0), jnp.asarray(point, jnp.float32)
        u, state = tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)
    np.testing.assert_allclose(x - u, centre, atol=1e-4)
    assert not state.negative_curvature


@pytest.mark.parametrize("seed", range(3))
def test_one_step_solves_a_quadratic(seed):
    problem = quadratic(DEFINITE, seed)
    for tx in (scale_by_newton(tolerance=1e-13), scale_by_saddle_free_newton()):
        u, state = of(tx, *problem)
        np.testing.assert_allclose(problem[2] - u, problem[1], atol=1e-10)
        assert not state.negative_curvature
        assert state.num_matvecs <= N + 2  # rounding may cost a product or two
    loose, _ = of(scale_by_newton(0.1), *problem)
    assert np.abs(problem[2] - loose - problem[1]).max() > 1e-3


def test_on_an_indefinite_quadratic_newton_goes_to_the_saddle_and_saddle_free_newton_away_from_it():
    hessian, centre, point, g = quadratic(INDEFINITE)
    u, state = of(scale_by_newton(tolerance=1e-13, stop_at_negative_curvature=False), hessian, centre, point, g)
    np.testing.assert_allclose(point - u, centre, atol=1e-10)
    assert state.negative_curvature
    u, state = of(scale_by_saddle_free_newton(), hessian, centre, point, g)
    values, vectors = np.linalg.eigh(hessian)
    before, after = vectors.T @ (point - centre), vectors.T @ (point - u - centre)
    np.testing.assert_allclose(after, np.where(values > 0, 0, 2 * before), atol=1e-10)
    assert state.negative_curvature


@pytest.mark.parametrize("spectrum", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("max_matvecs", [1, 2, 3, 5, N])
def test_directions_are_those_of_the_papers(spectrum, max_matvecs):
    for seed in range(4):
        problem = hessian, _, _, g = quadratic(spectrum, seed)
        for damping in (0.0, 0.7):
            for scale in (1e-3, 1.0):  # of the gradient: a smaller one asks for more
                u, state = of(scale_by_newton(damping, max_matvecs=max_matvecs), *problem[:3], scale * g)
                expected, count, residual, negative = truncated(hessian, scale * g, damping, 0.5, max_matvecs)
                np.testing.assert_allclose(u, expected, rtol=1e-9, atol=1e-12)
                assert (int(state.num_matvecs), bool(state.negative_curvature)) == (count, negative)
                np.testing.assert_allclose(state.residual * np.linalg.norm(scale * g), residual, rtol=1e-6)
            u, state = of(scale_by_saddle_free_newton(damping, max_matvecs=max_matvecs), *problem)
            expected, outside, negative = saddle_free(hessian, g, damping, max_matvecs)
            np.testing.assert_allclose(u, expected, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(state.residual, outside, rtol=1e-7, atol=1e-9)
            assert (int(state.num_matvecs), bool(state.negative_curvature)) == (max_matvecs, negative)


def test_flat_directions_without_damping_end_in_numbers():
    zero = np.zeros((N, N))
    _, centre, point, g = quadratic(DEFINITE)
    for tx in (scale_by_newton(), scale_by_saddle_free_newton()):
        np.testing.assert_allclose(of(tx, zero, centre, point, g)[0], g)
        assert not of(tx, zero, centre, point, 0 * g)[0].any()
    hessian = quadratic(DEFINITE * (DEFINITE > 2))[0]
    u, state = of(scale_by_saddle_free_newton(), hessian, centre, point, hessian @ g)
    np.testing.assert_allclose(hessian @ u, hessian @ g, atol=1e-9)
    assert state.num_matvecs <= 6


def test_a_product_that_is_not_finite_shows_in_the_direction():
    hessian, centre, point, g = quadratic(DEFINITE)
    hessian[0, 0] = np.nan
    for tx in (scale_by_newton(), scale_by_saddle_free_newton()):
        assert np.isnan(of(tx, hessian, centre, point, g)[0]).any()


def test_a_scaled_loss_has_the_same_directions():
    hessian, centre, point, g = quadratic(DEFINITE)
    for tx in (scale_by_newton(tolerance=1e-12), scale_by_saddle_free_newton()):
        plain, _ = of(tx, hessian, centre, point, g)
        for scale in (1e-30, 1e30):
            other, _ = of(tx, scale * hessian, centre, point, scale * g)
            np.testing.assert_allclose(other, plain, rtol=1e-8, atol=1e-11)


def test_derivatives_are_those_of_the_dense_direction():
    hessian, centre, point, g = quadratic(DEFINITE)
    weights = np.arange(1.0, N + 1)
    tight = lambda damping: scale_by_newton(damping, 1e-13, max_matvecs=20)
    for build in (tight, scale_by_saddle_free_newton):

        def value(g, damping, build=build):
            u, _ = direction(build(damping), hessian, centre, split(point), split(g))
            return weights @ jnp.concatenate([u["a"].ravel(), u["b"]])

        by_g, by_damping = jax.grad(value, argnums=(0, 1))(jnp.asarray(g), 0.3)
        inverse = np.linalg.inv(hessian + 0.3 * np.eye(N))
        np.testing.assert_allclose(by_g, inverse @ weights, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(by_damping, -weights @ inverse @ inverse @ g, rtol=1e-8)


def test_train_gives_the_loss_of_the_batch_and_products_add_up():
    data = problems.linear_regression(num_examples=40, num_features=5, key=jax.random.key(0))
    run = training.train(data, optimizers.newton(tolerance=1e-12), num_steps=1, key=jax.random.key(1))
    gradient = jax.grad(data.loss)(run.params, data.data)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-10
    several = optimizers.saddle_free_newton(0.5, 0.1, max_matvecs=3)
    run = training.train(data, several, num_steps=4, key=jax.random.key(1), batch_size=10)
    assert int(run.opt_state[0].num_matvecs) == 4 * 3
    assert np.isfinite(run.losses).all()


def test_the_loss_is_needed():
    x = jnp.ones(3)
    for tx in (scale_by_newton(), optimizers.saddle_free_newton()):
        with pytest.raises(ValueError, match=r"needs the loss, .*: call update\(.*, value_fn=loss\)"):
            tx.update(x, tx.init(x), x)
        with pytest.raises(TypeError, match="needs value_fn to be the loss as a function of the parameters"):
            tx.update(x, tx.init(x), x, value_fn=3.0)


@pytest.mark.parametrize("wrong", [lambda p: p, jnp.argmax, lambda p: 1j * jnp.sum(p), lambda p: (jnp.sum(p), 1)])
def test_a_loss_that_is_no_scalar_says_what_to_do(wrong):
    x = jnp.ones(3)
    for tx in (scale_by_newton(), scale_by_saddle_free_newton()):
        with pytest.raises(TypeError, match="needs value_fn to return the loss, a real scalar; received"):
            tx.update(x, tx.init(x), x, value_fn=wrong)
