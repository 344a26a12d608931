"""Split of the Hessian into the Gauss–Newton matrix and the rest, against dense matrices in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxopt_study.curvature import split

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(9, 3))
Y = np.random.default_rng(1).normal(size=9)
DATA = {"x": jnp.asarray(X, jnp.float32), "y": jnp.asarray(Y, jnp.float32)}


def model(params, batch):
    return jnp.tanh(batch["x"] @ params["in"]) @ params["out"]


def output_loss(outputs, batch):
    return 0.5 * jnp.mean((outputs - batch["y"]) ** 2)


def draw(width, dtype=jnp.float32):
    rng = np.random.default_rng(2)
    return {"in": jnp.asarray(rng.normal(size=(3, width)), dtype), "out": jnp.asarray(rng.normal(size=width), dtype)}


def dense(width):
    """H by `jax.hessian` and G = JᵀJ/N, in double precision."""
    with jax.enable_x64(True):
        data = {"x": jnp.asarray(np.asarray(DATA["x"], float)), "y": jnp.asarray(np.asarray(DATA["y"], float))}
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, float)), draw(width))
        flat, restore = ravel_pytree(params)
        h = jax.hessian(lambda z: output_loss(model(restore(z), data), data))(flat)
        jacobian = jax.jacobian(lambda z: model(restore(z), data))(flat)
        return np.asarray(h), np.asarray(jacobian.T @ jacobian / len(Y))


def sums(matrix):
    values = np.linalg.eigvalsh(matrix)
    return values.sum(), values[values > 0].sum(), -values[values < 0].sum()


@pytest.mark.parametrize("batch_size", [None, 4])
def test_small_networks_are_split_exactly(batch_size):
    found = split(model, output_loss, draw(5), DATA, key=KEY, batch_size=batch_size)
    h, g = dense(5)
    for part, matrix in ((found.hessian, h), (found.ggn, g), (found.rest, h - g)):
        trace, positive, negative = sums(matrix)
        np.testing.assert_allclose(part.trace.value, trace, rtol=1e-5)
        np.testing.assert_allclose(part.positive.value, positive, rtol=1e-5)
        np.testing.assert_allclose(part.negative.value, negative, atol=2e-6)
        np.testing.assert_allclose(part.negative_share.value, negative / (positive + negative), atol=1e-6)
        assert 0 < part.trace.standard_error < 1e-5 * np.linalg.norm(h)
    np.testing.assert_allclose(found.rest_share.value, np.trace(h - g) / np.trace(h), rtol=1e-4)
    assert found.num_matvecs == 2 * len(h)


def test_estimates_lie_within_their_errors():
    h, g = dense(40)
    exact = {"hessian": sums(h), "ggn": sums(g), "rest": sums(h - g)}
    deviations = []
    for seed in range(4):
        found = split(model, output_loss, draw(40), DATA, key=jax.random.key(seed), num_probes=5, num_steps=20)
        for name, (trace, positive, negative) in exact.items():
            part = getattr(found, name)
            for estimate, truth in ((part.trace, trace), (part.positive, positive), (part.negative, negative)):
                deviations.append((float(estimate.value) - truth) / (float(estimate.standard_error) + 1e-4))
        added = found.ggn.trace.value + found.rest.trace.value
        np.testing.assert_allclose(added, found.hessian.trace.value, rtol=1e-4)
        share = np.trace(h - g) / np.trace(h)
        assert abs(found.rest_share.value - share) <= 5 * found.rest_share.standard_error
    assert np.max(np.abs(deviations)) < 5
    assert 0.3 < np.sqrt(np.mean(np.square(deviations))) < 1.6


def test_a_linear_model_has_no_rest():
    found = split(lambda p, batch: batch["x"] @ p, output_loss, jnp.ones(3), DATA, key=KEY)
    assert abs(found.rest.trace.value) < 1e-6
    assert abs(found.rest_share.value) < 1e-6
    assert found.ggn.negative_share.value < 1e-6


def test_products_that_are_not_finite_are_not_hidden():
    found = split(lambda p, b: p * b, lambda f, b: jnp.sum(f**2), jnp.ones(2), jnp.array([1e30, 1.0]), key=KEY)
    assert np.isnan(found.hessian.trace.value)
    assert np.isnan(found.hessian.negative.value)


def test_too_few_probes_say_what_to_do():
    with pytest.raises(ValueError, match=r"split needs num_probes to be an integer ≥ 2.*takes two probes"):
        split(model, output_loss, draw(5), DATA, key=KEY, num_probes=1)
