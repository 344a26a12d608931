"""The loss along lines and in planes, and the directions in which to look, against double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxopt_study.curvature import path, plane, principal_axes, random_direction

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 3)).astype(np.float32)
PARAMS = {
    "w": RNG.normal(size=(3, 4)).astype(np.float32),
    "out": RNG.normal(size=(4, 1)).astype(np.float32),
    "b": RNG.normal(size=4).astype(np.float32),
}
U, V = (jax.tree.map(lambda p: RNG.normal(size=p.shape).astype(np.float32), PARAMS) for _ in range(2))


def loss(params, x):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"]) @ params["out"] - 1) ** 2)


def exact():
    """θ, u, v, g, H and the loss of a flat vector, in double precision."""
    as_double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), tree)
    flat, restore = ravel_pytree(as_double(PARAMS))
    u, v = (ravel_pytree(as_double(tree))[0] for tree in (U, V))
    f = jax.jit(lambda z: loss(restore(z), jnp.asarray(X.astype(float))))
    return flat, u, v, jax.grad(f)(flat), jax.hessian(f)(flat), f


def test_a_line_has_its_losses_and_its_parabola():
    found = path(loss, PARAMS, U, X, batch_size=3)
    with jax.enable_x64(True):
        theta, u, _, g, h, f = exact()
        steps = np.linspace(-1, 1, 41)
        losses = np.array([f(theta + s * u) for s in steps])
        model = np.array([f(theta) + s * g @ u + 0.5 * s**2 * u @ h @ u for s in steps])
        slope, curvature, norm = float(g @ u), float(u @ h @ u), float(jnp.linalg.norm(u))
    np.testing.assert_allclose(found.steps, steps, rtol=1e-6)
    assert np.all(np.abs(found.losses - losses) <= 4 * found.errors + 1e-6 * losses)
    assert np.all(found.errors < 1e-5 * losses)
    np.testing.assert_allclose(found.model, model, rtol=1e-4, atol=1e-4)
    assert abs(found.slope - slope) <= 4 * found.slope_error + 1e-5
    assert abs(found.curvature - curvature) <= found.curvature_error
    assert found.curvature_error < 1e-3 * abs(curvature)
    assert found.norm == pytest.approx(norm, rel=1e-6)


def test_a_plane_has_its_losses_and_its_paraboloid():
    x, y = [-0.5, 0.0, 1.0], [0.0, 0.25]
    found = plane(loss, PARAMS, (U, V), X, x=x, y=y)
    with jax.enable_x64(True):
        theta, u, v, g, h, f = exact()
        losses = np.array([[f(theta + a * u + b * v) for a in x] for b in y])
        w = [[a * u + b * v for a in x] for b in y]
        model = np.array([[f(theta) + g @ each + 0.5 * each @ h @ each for each in row] for row in w])
        curvatures = np.array([[a @ h @ b for a in (u, v)] for b in (u, v)])
        cosine = float(u @ v / jnp.linalg.norm(u) / jnp.linalg.norm(v))
        slopes = np.array([g @ u, g @ v])
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(found.model, model, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.slopes, slopes, rtol=1e-4, atol=1e-5)
    assert np.all(np.abs(found.curvatures - curvatures) <= found.curvature_error)
    assert found.cosine == pytest.approx(cosine, abs=1e-6)


def test_errors_of_losses_tell_what_is_noise():
    found = path(lambda p, _: 1e4 + jnp.sum(p**2), jnp.ones(3), jnp.array([1e-3, 0.0, 0.0]), steps=[0.0, 1.0])
    assert abs(found.losses[1] - found.losses[0]) <= 4 * found.errors[0]
    assert found.errors[0] >= 1e-3


def test_normalised_directions_have_the_norms_that_are_asked_for():
    unit = path(loss, PARAMS, U, X, steps=[0.0], normalize="unit")
    assert unit.norm == pytest.approx(1, rel=1e-6)
    found = random_direction(PARAMS, key=KEY)
    assert not found["b"].any()
    for name in ("w", "out"):
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=0), np.linalg.norm(PARAMS[name], axis=0), rtol=1e-5)
    filtered = path(loss, PARAMS, U, X, steps=[0.0], normalize="filter")
    expected = np.sqrt(np.sum(PARAMS["w"] ** 2) + np.sum(PARAMS["out"] ** 2))
    assert filtered.norm == pytest.approx(expected, rel=1e-5)
    alone = random_direction(jnp.array([3.0, 4.0]), key=KEY)  # without a leaf of two axes, a vector is a filter
    assert jnp.linalg.norm(alone) == pytest.approx(5)


def test_principal_axes_are_singular_vectors():
    snapshots = {"a": RNG.normal(size=(6, 2, 3)).astype(np.float32), "b": RNG.normal(size=(6, 4)).astype(np.float32)}
    found = principal_axes(snapshots, k=3)
    rows = np.concatenate([snapshots["a"].reshape(6, 6), snapshots["b"]], axis=1).astype(float)
    u, s, vt = np.linalg.svd(rows - rows[-1], full_matrices=False)
    np.testing.assert_allclose(found.explained, s[:3] ** 2 / np.sum(s**2), rtol=1e-5)
    for i in range(3):
        axis = np.concatenate([found.axes[i]["a"].ravel(), found.axes[i]["b"]])
        sign = np.sign(axis @ vt[i])
        np.testing.assert_allclose(sign * axis, vt[i], atol=1e-5)
        np.testing.assert_allclose(sign * found.coordinates[:, i], u[:, i] * s[i], atol=1e-4)
    np.testing.assert_array_equal(found.origin["b"], snapshots["b"][-1])


def test_wrong_directions_say_what_to_do():
    with pytest.raises(ValueError, match="The direction must have the structure of the parameters"):
        path(loss, PARAMS, jnp.ones(3), X)
    with pytest.raises(ValueError, match=r"path needs steps to be a list of numbers; received an array of shape \(\)"):
        path(loss, PARAMS, U, X, steps=0.5)
    with pytest.raises(ValueError, match=r"principal_axes needs k to be an integer from 1 to 2"):
        principal_axes(jnp.ones((3, 2)), k=3)


def test_an_empty_leaf_does_not_hold_vectors_still():
    params = {"w": jnp.array([0.5, 0.2, -1.0]), "none": jnp.zeros((0, 4))}
    drawn = random_direction(params, key=KEY)
    np.testing.assert_allclose(jnp.linalg.norm(drawn["w"]), jnp.linalg.norm(params["w"]), rtol=1e-6)
    found = path(lambda p, _: jnp.sum(p["w"] ** 2), params, params, steps=[0.0, 1.0], normalize="filter")
    np.testing.assert_allclose(found.losses, [1.29, 4 * 1.29], rtol=1e-6)
