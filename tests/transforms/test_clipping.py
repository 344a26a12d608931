"""Limits on gradients and on parameters: values against NumPy, nothing to clip, NaN kept visible, clipping twice."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.transforms import (
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_percentile,
    clip_by_unit_norm,
    clip_by_value,
    clip_weights,
    project_to_max_norm,
)

DRAW = np.random.default_rng(11)
PARAMS = {
    "bias": DRAW.normal(size=4),
    "conv": DRAW.normal(size=(3, 3, 2, 5)),
    "dense": DRAW.normal(size=(6, 4)),
    "scale": DRAW.normal(size=()),
}
GRADS = {name: DRAW.normal(size=value.shape) for name, value in PARAMS.items()}
ZERO = {name: np.zeros_like(value) for name, value in PARAMS.items()}


def apply(tx, grads, params=PARAMS):
    with jax.enable_x64(True):
        to_jax = lambda tree: jax.tree.map(jnp.asarray, tree)
        grads, params = to_jax(grads), to_jax(params)
        updates, _ = tx.update(grads, tx.init(params), params)
        return jax.tree.map(np.asarray, updates)


def total(tree):
    return np.sqrt(sum(np.sum(leaf**2) for leaf in tree.values()))


def assert_trees(actual, desired, rtol=1e-13):
    for name, value in desired.items():
        np.testing.assert_allclose(actual[name], value, rtol=rtol, atol=1e-15, err_msg=name)


def units(x):
    return np.sqrt(np.sum(x**2, axis=tuple(range(x.ndim - 1)) if x.ndim > 1 else None, keepdims=True))


CLIPS = {
    "value": clip_by_value(0.3),
    "global norm": clip_by_global_norm(0.3),
    "leaf norm": clip_by_leaf_norm(0.3),
    "unit norm": clip_by_unit_norm(0.05),
    "percentile": clip_by_percentile(10.0, window=4),
}
PROJECTIONS = {"max norm": project_to_max_norm(0.8), "weights": clip_weights(0.8)}
each_clip = pytest.mark.parametrize("tx", CLIPS.values(), ids=CLIPS)
each = pytest.mark.parametrize("tx", (CLIPS | PROJECTIONS).values(), ids=CLIPS | PROJECTIONS)


# Values.


@pytest.mark.parametrize("limit", [0.0, 0.3, 100.0])
def test_clipping_by_value_limits_every_coordinate(limit):
    clipped = apply(clip_by_value(limit), GRADS)
    assert_trees(clipped, {name: np.clip(g, -limit, limit) for name, g in GRADS.items()})


@pytest.mark.parametrize("limit", [0.0, 0.3, 100.0])
def test_clipping_by_global_norm_shortens_all_leaves_together(limit):
    clipped = apply(clip_by_global_norm(limit), GRADS)
    assert_trees(clipped, {name: g * min(1.0, limit / total(GRADS)) for name, g in GRADS.items()})
    assert total(clipped) == pytest.approx(min(limit, total(GRADS)), rel=1e-13)


@pytest.mark.parametrize("limit", [0.0, 0.7, 100.0])
def test_clipping_by_leaf_norm_shortens_each_leaf_alone(limit):
    clipped = apply(clip_by_leaf_norm(limit), GRADS)
    assert_trees(clipped, {name: g * min(1.0, limit / np.linalg.norm(g)) for name, g in GRADS.items()})


@pytest.mark.parametrize(("share", "eps"), [(0.0, 1e-3), (0.01, 1e-3), (0.5, 1e-3), (0.01, 30.0), (100.0, 1e-3)])
def test_clipping_by_unit_norm_limits_each_unit_to_a_share_of_its_weights(share, eps):
    clipped = apply(clip_by_unit_norm(share, eps=eps), GRADS)
    for name, g in GRADS.items():
        limit = share * np.maximum(units(PARAMS[name]), eps)
        np.testing.assert_allclose(clipped[name], g * np.minimum(1.0, limit / units(g)), rtol=1e-13, atol=1e-300)


def test_clipping_by_unit_norm_agrees_with_optax_on_dense_and_convolutional_kernels():
    ours = apply(clip_by_unit_norm(0.05), GRADS)
    theirs = apply(optax.adaptive_grad_clip(0.05), GRADS)
    assert_trees(ours, theirs, rtol=1e-6)  # Optax adds 1e-6 to the norm


def test_clipping_by_percentile_is_the_percentile_of_the_last_norms():
    window, percentile, norms = 5, 30.0, DRAW.exponential(size=23)
    tx = clip_by_percentile(percentile, window=window)
    with jax.enable_x64(True):
        state = tx.init(jnp.zeros(2))
        for t, length in enumerate(norms):
            updates, state = tx.update(jnp.array([0.6, -0.8]) * length, state)
            threshold = np.percentile(norms[max(0, t + 1 - window) : t + 1], percentile)
            np.testing.assert_allclose(jnp.linalg.norm(updates), min(length, threshold), rtol=1e-13)
        # The ring holds exactly the last norms, each where its step put it.
        np.testing.assert_allclose(np.asarray(state.norms), np.roll(norms[-window:], len(norms) % window), rtol=1e-14)
        assert int(state.count) == len(norms)


@pytest.mark.parametrize(("percentile", "expected"), [(100.0, 5.0), (0.0, 1.0)])
def test_extreme_percentiles(percentile, expected):
    tx = clip_by_percentile(percentile, window=3)
    state = tx.init(jnp.zeros(1))
    for g in (1.0, 2.0, 5.0):
        updates, state = tx.update(jnp.array([g]), state)
    np.testing.assert_allclose(updates, [expected], rtol=1e-6)


def test_window_forgets():
    tx = clip_by_percentile(0.0, window=2)
    state = tx.init(jnp.zeros(1))
    for g in (1.0, 4.0, 6.0):
        updates, state = tx.update(jnp.array([g]), state)
    np.testing.assert_allclose(updates, [4.0], rtol=1e-6)  # the 1 has left


def test_norm_that_is_not_finite_does_not_stop_later_clipping():
    tx = clip_by_percentile(100.0, window=3)
    state = tx.init(jnp.zeros(1))
    for g in (1.0, jnp.nan, jnp.inf):
        updates, state = tx.update(jnp.array([g]), state)
        assert g == 1.0 or not np.isfinite(updates).all()  # the step itself is not hidden
    assert np.isfinite(np.asarray(state.norms)).all()
    updates, state = tx.update(jnp.array([0.5]), state)
    np.testing.assert_allclose(updates, [0.5])


@pytest.mark.parametrize("limit", [0.3, 0.8, 100.0])
def test_projection_to_max_norm_ends_inside(limit):
    updates = apply(project_to_max_norm(limit), GRADS)
    for name, g in GRADS.items():
        end = PARAMS[name] + g
        if end.ndim > 1:
            end = end * np.minimum(1.0, limit / units(end))
        np.testing.assert_allclose(PARAMS[name] + updates[name], end, rtol=1e-13)


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_projection_over_given_axes(axis):
    params, grads = {"dense": PARAMS["dense"]}, {"dense": GRADS["dense"]}
    end = params["dense"] + grads["dense"]
    end = end * np.minimum(1.0, 0.5 / np.sqrt(np.sum(end**2, axis=axis, keepdims=True)))
    updates = apply(project_to_max_norm(0.5, axis=axis), grads, params)
    np.testing.assert_allclose(params["dense"] + updates["dense"], end, rtol=1e-13)


@pytest.mark.parametrize("limit", [0.0, 0.3, 100.0])
def test_clipped_weights_end_inside(limit):
    updates = apply(clip_weights(limit), GRADS)
    assert_trees(
        {name: PARAMS[name] + u for name, u in updates.items()},
        {name: np.clip(PARAMS[name] + g, -limit, limit) for name, g in GRADS.items()},
    )


@pytest.mark.parametrize(
    "tx",
    [
        clip_by_value(50.0),
        clip_by_global_norm(50.0),
        clip_by_leaf_norm(50.0),
        clip_by_unit_norm(50.0),
        clip_by_percentile(100.0),
        project_to_max_norm(50.0),
        clip_weights(50.0),
    ],
)
def test_what_is_inside_passes_untouched(tx):
    for name, u in apply(tx, GRADS).items():
        np.testing.assert_array_equal(u, GRADS[name])


# What bites.


@pytest.mark.parametrize(
    "tx",
    [
        *CLIPS.values(),
        clip_by_value(0.0),
        clip_by_global_norm(0.0),
        clip_by_leaf_norm(0.0),
        clip_by_unit_norm(0.0),
        clip_by_percentile(0.0, window=1),
    ],
)
def test_zero_gradients_stay_zero_even_at_limit_zero(tx):
    assert_trees(apply(tx, ZERO), ZERO)
    assert_trees(apply(tx, ZERO, ZERO), ZERO)


@pytest.mark.parametrize(
    "tx", [clip_by_value(0.0), clip_by_global_norm(0.0), clip_by_leaf_norm(0.0), clip_by_unit_norm(0.0)]
)
def test_limit_zero_stops_everything(tx):
    assert_trees(apply(tx, GRADS), ZERO)


def test_optax_is_nan_at_limit_zero():
    assert np.isnan(apply(optax.clip_by_global_norm(0.0), ZERO)["bias"]).all()  # why ours exists


def test_zero_parameters_can_still_move():
    updates = apply(clip_by_unit_norm(0.1, eps=1e-3), GRADS, ZERO)
    for u in updates.values():
        np.testing.assert_allclose(units(u), 1e-4, rtol=1e-12)


@each
def test_nan_passes_visibly(tx):
    for bad in (np.nan, np.inf):
        grads = {name: g.copy() for name, g in GRADS.items()}
        grads["dense"][0, 0] = bad
        update = apply(tx, grads)["dense"]
        clips_infinity = bad == np.inf and tx in (CLIPS["value"], PROJECTIONS["weights"])
        assert np.isfinite(update).all() if clips_infinity else not np.isfinite(update).all()


@pytest.mark.parametrize(
    "tx",
    [
        clip_by_value(0.3),
        clip_by_global_norm(0.3),
        clip_by_leaf_norm(0.3),
        clip_by_unit_norm(0.05),
        project_to_max_norm(0.8),
        clip_weights(0.8),
    ],
)
def test_twice_is_once(tx):
    once = apply(tx, GRADS)
    assert_trees(apply(tx, once), once)


@pytest.mark.parametrize("build", [clip_by_global_norm, clip_by_leaf_norm])
@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 1e30), (jnp.float16, 6e4), (jnp.float32, 1e-30)])
def test_norms_neither_overflow_nor_underflow(build, dtype, size):
    g = jnp.asarray([0.6 * size, -0.8 * size], dtype=dtype)
    limit = 0.5 * size
    updates, _ = build(limit).update(g, optax.EmptyState())
    np.testing.assert_allclose(np.asarray(updates, float), [0.3 * size, -0.4 * size], rtol=2e-3)


def test_norm_of_many_halves():
    g = jnp.ones(70_000, dtype=jnp.float16)
    updates, _ = clip_by_global_norm(1.0).update(g, optax.EmptyState())
    np.testing.assert_allclose(np.asarray(updates, float), 1 / np.sqrt(70_000), rtol=2e-3)


@pytest.mark.parametrize("build", [clip_by_global_norm, clip_by_leaf_norm])
def test_derivative_is_that_of_the_normalised_gradient(build):
    g = jnp.array([3.0, 4.0])
    jacobian = jax.jacobian(lambda g: build(1.0).update(g, optax.EmptyState())[0])(g)
    direction = np.array([0.6, 0.8])
    np.testing.assert_allclose(jacobian, (np.eye(2) - np.outer(direction, direction)) / 5.0, atol=1e-6)
    np.testing.assert_allclose(jax.jacobian(lambda g: build(1.0).update(g, optax.EmptyState())[0])(g * 0), np.eye(2))


@pytest.mark.parametrize("build", [clip_by_value, clip_by_global_norm, clip_by_leaf_norm])
def test_limit_can_be_swept(build):
    limits = jnp.array([0.0, 0.5, 2.0, 1e6])
    g = jnp.array([3.0, -4.0])
    lanes = jax.vmap(lambda c: build(c).update(g, optax.EmptyState())[0])(limits)
    for lane, limit in zip(lanes, limits, strict=True):
        np.testing.assert_allclose(lane, build(float(limit)).update(g, optax.EmptyState())[0], rtol=1e-6)


@pytest.mark.parametrize("constructor", [clip_by_value, clip_by_global_norm, clip_by_leaf_norm, clip_by_unit_norm])
def test_an_infinite_limit_clips_nothing(constructor):
    grads = {"w": jnp.array([[3.0, -1e20], [0.0, 1e-20]])}
    params = {"w": jnp.ones((2, 2))}
    updates, _ = constructor(jnp.inf).update(grads, constructor(jnp.inf).init(params), params)
    chex.assert_trees_all_equal(updates, grads)


@pytest.mark.parametrize("constructor", [project_to_max_norm, clip_weights])
def test_an_infinite_limit_on_the_parameters_changes_nothing(constructor):
    updates = {"w": jnp.array([[3.0, -1e20], [0.0, 1e-20]])}
    params = {"w": jnp.ones((2, 2))}
    new, _ = constructor(jnp.inf).update(updates, constructor(jnp.inf).init(params), params)
    chex.assert_trees_all_equal(new, updates)
