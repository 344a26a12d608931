"""Searches end at critical points of the index that is near, and reject those where only Hg vanishes."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxopt_study import problems
from jaxopt_study.curvature import SearchStatus, find_critical_point

KEY = jax.random.key(0)
METHODS = ["newton-mr", "gradient-norm", "saddle-free-newton"]


def gradient_flat(p, batch=None):
    return p[0] ** 3 / 3 + p[0] + p[1] ** 2


def kink(p, batch=None):
    """The gradient is 1 + p above 0 and p − 2 below: it is never less than 1, and smallest where it jumps."""
    return 1 + jnp.sum(jnp.where(p > 0, p, -2 * p) + p**2 / 2)


def derivatives(loss, like):
    """Gradient and Hessian of a loss, of ravelled parameters."""
    _, restore = jax.flatten_util.ravel_pytree(like)
    return jax.jit(jax.grad(lambda x: loss(restore(x), None))), jax.jit(jax.hessian(lambda x: loss(restore(x), None)))


def plain_newton(gradient, hessian, x, num_steps=50):
    """Newton's method as it stands in a textbook: no damping, no line search, no care about the signs of curvature."""
    for _ in range(num_steps):
        x = x - np.linalg.solve(hessian(x), gradient(x))
        if np.linalg.norm(gradient(x)) < 1e-11:
            break
    return x


@pytest.mark.parametrize("method", METHODS)
def test_searches_near_himmelblaus_points_end_at_the_kind_the_method_looks_for(method):
    problem = problems.planar.himmelblau()
    with jax.enable_x64(True):
        gradient, hessian = derivatives(problem.loss, jnp.zeros(2))
        for point in problem.critical_points:
            start = jnp.asarray(point.params) + 0.1
            found = find_critical_point(problem.loss, start, method=method, key=KEY, max_steps=200)
            assert found.verdict == "converged"
            norms = np.asarray(found.gradient_norms)[: int(found.num_steps) + 1]
            assert found.gradient_norm == norms[-1] <= found.gradient_tol
            assert np.isnan(found.gradient_norms[int(found.num_steps) + 1 :]).all()
            values = np.linalg.eigvalsh(hessian(found.params))
            if method == "saddle-free-newton":
                assert values[0] > 0
                # The control: without the signs of curvature Newton's method takes saddles and the maximum for minima.
                fooled = np.linalg.eigvalsh(hessian(plain_newton(gradient, hessian, start)))
                assert np.sum(fooled < 0) == point.index
            else:
                np.testing.assert_allclose(found.params, point.params, atol=1e-5)
                assert np.sum(values < 0) == point.index
                assert np.all(np.diff(norms) < 0)


def test_the_saddles_of_a_linear_network_are_found_though_none_of_them_is_isolated():
    problem = problems.linear_network((3.0, 2.0, 1.0), hidden=4, sizes=(5, 6))
    rng = np.random.default_rng(0)
    astray = 0
    with jax.enable_x64(True):
        gradient, hessian = derivatives(problem.loss, problem.critical_points[0].params)
        for point in problem.critical_points:
            start = jax.tree.map(lambda x: jnp.asarray(x) + 0.03 * rng.normal(size=x.shape), point.params)
            found = find_critical_point(problem.loss, start, key=KEY, gradient_tol=1e-11)
            assert found.verdict == "converged", point.label
            # Values and indices of the closed form; the point is another one of the same manifold.
            np.testing.assert_allclose(found.value, point.value, atol=1e-14)
            at, began = (np.asarray(jax.flatten_util.ravel_pytree(p)[0]) for p in (found.params, start))
            assert np.sum(np.linalg.eigvalsh(hessian(at)) < -1e-4) == point.index, point.label
            assert np.linalg.norm(at - began) < 0.3
            # The control: along the manifold H is singular, and a solver that divides by it is thrown out, or stopped.
            try:
                astray += np.linalg.norm(plain_newton(gradient, hessian, began) - began) > 100
            except np.linalg.LinAlgError:
                astray += 1
    assert astray >= 3


def test_of_a_valley_the_nearest_point_is_found_where_newtons_equation_has_no_solution():
    normal = np.array([1.0, 2.0, 2.0])

    def valley(p, batch=None):
        return (normal @ p - 3) ** 2

    start = jnp.array([3.0, 1.0, -2.0])
    found = find_critical_point(valley, start, key=KEY)
    assert (found.verdict, found.num_steps) == ("converged", 1)
    np.testing.assert_allclose(found.params, start + 2 / 9 * normal, rtol=1e-6)
    with pytest.raises(np.linalg.LinAlgError):
        plain_newton(*derivatives(valley, start), np.asarray(start))


def test_many_starts_at_once_in_single_precision_find_what_each_finds_alone():
    problem = problems.planar.himmelblau()
    places = np.stack([point.params for point in problem.critical_points])
    starts = jnp.asarray(places + 0.1, jnp.float32)
    together = jax.vmap(lambda start: find_critical_point(problem.loss, start, key=KEY))(starts)
    assert np.all(together.status == SearchStatus.CONVERGED)
    assert np.all(together.success)
    assert together.params.dtype == np.float32
    exact = jax.vmap(jax.grad(lambda p: problem.loss(p, None)))
    with jax.enable_x64(True):
        gradients = np.asarray(exact(jnp.asarray(np.asarray(together.params, np.float64))))
    # What was reported, up to the rounding of gradients made of terms as large as 200.
    np.testing.assert_allclose(np.linalg.norm(gradients, axis=1), together.gradient_norm, atol=1e-4)
    np.testing.assert_allclose(together.params, places, atol=2e-3)
    for i in (0, 5, 8):
        alone = find_critical_point(problem.loss, starts[i], key=KEY)
        np.testing.assert_allclose(alone.params, together.params[i], atol=1e-5)
        assert alone.num_steps == together.num_steps[i]
        assert alone.num_gradients == together.num_gradients[i]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_batches_give_what_all_examples_at_once_give(method):
    x = np.linspace(0.5, 2.0, 8)

    def loss(p, batch):  # a saddle at 0, and minima on p₀p₁ = 2
        return jnp.mean((p["a"] * p["b"] * batch["x"] - batch["y"]) ** 2)

    with jax.enable_x64(True):
        data = {"x": jnp.asarray(x), "y": jnp.asarray(2 * x)}
        start = {"a": jnp.asarray(0.1), "b": jnp.asarray(0.2)}
        whole, ragged = (
            find_critical_point(loss, start, data, method=method, key=KEY, batch_size=size) for size in (None, 3)
        )
    whole, ragged = jax.device_get((whole, ragged))
    assert whole.verdict == ragged.verdict == "converged"
    for name in start:
        np.testing.assert_allclose(ragged.params[name], whole.params[name], atol=1e-9)
    np.testing.assert_allclose(ragged.gradient_norms, whole.gradient_norms, rtol=1e-6, atol=1e-11)
    assert ragged.num_steps == whole.num_steps
    product = whole.params["a"] * whole.params["b"]
    np.testing.assert_allclose(product, 2.0 if method == "saddle-free-newton" else 0.0, atol=1e-6)


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_a_gradient_flat_point_is_no_success(method):
    with jax.enable_x64(True):
        found = find_critical_point(gradient_flat, jnp.array([0.5, 0.3]), method=method, key=KEY)
        assert found.verdict == "gradient-flat"
        assert not found.success
        np.testing.assert_allclose([*found.params, found.gradient_norm], [0, 0, 1], atol=1e-3)
        # The control: who only minimises ‖g‖² stops at the same point and calls it a success.
        gradient, hessian = derivatives(gradient_flat, found.params)
        fooled = optimize.least_squares(lambda x: np.asarray(gradient(x)), [0.5, 0.3], lambda x: np.asarray(hessian(x)))
        assert fooled.success
        np.testing.assert_allclose([*fooled.x, np.linalg.norm(fooled.fun)], [0, 0, 1], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_where_no_step_makes_progress_the_search_says_that_it_stalled(method):
    with jax.enable_x64(True):
        found = find_critical_point(kink, jnp.array([0.7]), method=method, key=KEY)
        assert found.verdict == "stalled"
        assert not found.success
        assert found.gradient_norm >= 1
        assert abs(found.params[0]) < 1e-6


def test_too_few_steps_are_said_to_be():
    problem = problems.planar.himmelblau()
    found = find_critical_point(problem.loss, jnp.array([0.5, 2.0]), key=KEY, max_steps=2)
    assert (found.verdict, found.num_steps) == ("out of steps", 2)
    assert not found.success
    assert found.gradient_norm > found.gradient_tol


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_is_said_to_be_and_never_stepped_to(method):
    def entropy(p, batch=None):  # not a number where p < 0
        return jnp.sum(p * jnp.log(p))

    found = find_critical_point(entropy, jnp.array([2.0, 5.0]), method=method, key=KEY)
    assert found.verdict == "converged"  # though the first step of Newton's method leads to −8
    np.testing.assert_allclose(found.params, np.exp(-1.0), rtol=1e-3)
    outside = find_critical_point(entropy, jnp.array([2.0, -1.0]), method=method, key=KEY)
    assert (outside.verdict, outside.num_steps) == ("not finite", 0)
    assert not outside.success
    np.testing.assert_array_equal(outside.params, [2.0, -1.0])


def test_a_hessian_that_is_not_finite_makes_no_critical_point_of_a_zero_gradient():
    found = find_critical_point(lambda p, _: jnp.sum(jnp.abs(p) ** 1.5), jnp.zeros(2), key=KEY)
    assert found.gradient_norm == 0
    assert found.verdict == "not finite"


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="newton-mr"):
        find_critical_point(gradient_flat, jnp.zeros(2), method="newton", key=KEY)
    with pytest.raises(ValueError, match="max_steps"):
        find_critical_point(gradient_flat, jnp.zeros(2), max_steps=0, key=KEY)
    with pytest.raises(ValueError, match="flatness to be a finite real number > 0"):
        find_critical_point(gradient_flat, jnp.zeros(2), flatness=0.0, key=KEY)
