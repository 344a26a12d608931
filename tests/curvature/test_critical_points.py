"""Searches end at critical points of the index that is near, and reject those where only Hg vanishes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import problems
from jaxopt_study.curvature import find_critical_point

KEY = jax.random.key(0)


def gradient_flat(p, batch=None):
    return p[0] ** 3 / 3 + p[0] + p[1] ** 2


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm", "saddle-free-newton"])
def test_searches_near_himmelblaus_points_end_at_the_kind_the_method_looks_for(method):
    problem = problems.planar.himmelblau()
    with jax.enable_x64(True):
        for point in problem.critical_points:
            start = jnp.asarray(point.params) + 0.1
            found = find_critical_point(problem.loss, start, method=method, key=KEY, max_steps=200)
            assert found.verdict == "converged"
            norms = np.asarray(found.gradient_norms)[: int(found.num_steps) + 1]
            assert found.gradient_norm == norms[-1] <= found.gradient_tol
            values = np.linalg.eigvalsh(jax.hessian(lambda p: problem.loss(p, None))(found.params))
            if method == "saddle-free-newton":
                assert values[0] > 0
            else:
                np.testing.assert_allclose(found.params, point.params, atol=1e-5)
                assert np.sum(values < 0) == point.index
                assert np.all(np.diff(norms) < 0)


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_a_gradient_flat_point_is_no_success(method):
    with jax.enable_x64(True):
        found = find_critical_point(gradient_flat, jnp.array([0.5, 0.3]), method=method, key=KEY)
        assert found.verdict == "gradient-flat"
        assert not found.success
        np.testing.assert_allclose([*found.params, found.gradient_norm], [0, 0, 1], atol=1e-3)


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="newton-mr"):
        find_critical_point(gradient_flat, jnp.zeros(2), method="newton", key=KEY)
    with pytest.raises(ValueError, match="max_steps"):
        find_critical_point(gradient_flat, jnp.zeros(2), max_steps=0, key=KEY)
