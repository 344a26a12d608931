"""Linear networks: every listed critical point is one, with the loss and the index that the closed form says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxopt_study import problems

# σ = (3, 2, 1), four hidden units, sizes (5, 6): learned modes → (loss, index).
TABLE = {
    (): (7.0, 12),
    (0,): (2.5, 6),
    (1,): (5.0, 7),
    (2,): (6.5, 8),
    (0, 1): (0.5, 2),
    (0, 2): (2.0, 3),
    (1, 2): (4.5, 4),
    (0, 1, 2): (0.0, 0),
}


def label(modes):
    return f"modes {{{', '.join(map(str, modes))}}}"


def inspect(problem, points):
    """Loss, gradient and Hessian spectrum at each point, dense and in float64."""
    with jax.enable_x64(True):
        flats = jnp.stack([ravel_pytree(jax.tree.map(jnp.asarray, point.params))[0] for point in points])
        unravel = ravel_pytree(jax.tree.map(jnp.asarray, points[0].params))[1]

        def loss(flat):
            return problem.loss(unravel(flat))

        @jax.jit
        def at(flats):
            return tuple(jax.vmap(f)(flats) for f in (loss, jax.grad(loss), jax.hessian(loss)))

        value, gradient, hessian = map(np.asarray, at(flats))
    return value, gradient, np.linalg.eigvalsh(hessian)


@pytest.mark.parametrize("key", [None, 0])
def test_two_layers_have_the_eight_points_of_the_table(key):
    problem = problems.linear_network(key=None if key is None else jax.random.key(key))
    points = {point.label: point for point in problem.critical_points}
    assert set(points) == {label(modes) for modes in TABLE}
    ordered = [points[label(modes)] for modes in TABLE]
    value, gradient, eigenvalues = inspect(problem, ordered)
    assert np.abs(gradient).max() < 1e-14
    np.testing.assert_allclose(value, [loss for loss, _ in TABLE.values()], atol=1e-14)
    assert np.sum(eigenvalues < -1e-10, axis=1).tolist() == [index for _, index in TABLE.values()]
    assert [point.index for point in ordered] == [index for _, index in TABLE.values()]
    np.testing.assert_allclose([point.value for point in ordered], value, atol=1e-14)
    assert [point.kind for point in ordered] == ["saddle"] * 7 + ["minimum"]


@pytest.mark.parametrize(
    ("sigma", "hidden", "sizes"),
    [
        ((3.0, 2.0, 1.0), 2, (5, 6)),  # a bottleneck: the minimum has a loss
        ((2.0, 2.0, 1.0), 3, (3, 4)),  # a repeated singular value
        ((1.0, 4.0), 3, (2, 2)),  # not sorted
        ((3.0, 2.0, 1.0), (4, 4), (5, 6)),
        ((3.0, 1.0), (2, 3, 2), (3, 2)),
        ((3.0, 2.0, 1.0), (3, 1), (3, 3)),  # a deep bottleneck
    ],
)
def test_listed_losses_and_indices_are_those_of_the_dense_hessian(sigma, hidden, sizes):
    problem = problems.linear_network(sigma, hidden=hidden, sizes=sizes, key=jax.random.key(4))
    points = problem.critical_points
    value, gradient, eigenvalues = inspect(problem, points)
    assert np.abs(gradient).max() < 1e-13
    np.testing.assert_allclose([point.value for point in points], value, atol=1e-13)
    assert [point.index for point in points] == np.sum(eigenvalues < -1e-10, axis=1).tolist()
    widest = min([hidden] if isinstance(hidden, int) else hidden)
    assert len(points) == sum(1 for s in range(len(sigma) + 1) if s <= widest for _ in itertools.combinations(sigma, s))
    best = sum(sorted(np.square(sigma))[: max(0, len(sigma) - widest)]) / 2  # Eckart and Young
    for point in points:
        assert (point.kind == "minimum") == (abs(point.value - best) < 1e-12)
        assert (point.kind == "saddle") == (point.index > 0)


def test_the_deep_origin_is_degenerate_and_escaped_by_moving_every_layer():
    problem = problems.deep_linear_network(depth=3)
    origin = problem.critical_points[-1]
    assert (origin.label, origin.kind, origin.index) == ("modes {}", "degenerate", 0)
    _, _, eigenvalues = inspect(problem, [origin])
    assert np.abs(eigenvalues).max() == 0
    goal = next(point for point in problem.minima)
    nudge = jax.tree.map(lambda leaf: jnp.asarray(0.1 * leaf), goal.params)
    assert problem.loss(nudge) < origin.value


def test_small_starts_learn_mode_after_mode():
    problem = problems.linear_network((8.0, 2.0, 0.5), init_scale=1e-3)

    def step(params, _):
        value, gradient = jax.value_and_grad(problem.loss)(params)
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, gradient), value

    losses = np.asarray(jax.jit(lambda p: jax.lax.scan(step, p, length=2000)[1])(problem.init(jax.random.key(0))))
    for saddle in (34.125, 2.125, 0.125):  # ∅, {0}, {0, 1}: the run stays near each for a while
        assert np.sum(np.abs(losses - saddle) < 0.02) > 20
    assert losses[-1] < 1e-3


def test_shapes_key_and_dtype_of_the_start():
    problem = problems.linear_network((1.0,), hidden=(3, 2), sizes=(4, 5), init_scale=2.0)
    params = problem.init(jax.random.key(0))
    assert [leaf.shape for leaf in params] == [(3, 4), (2, 3), (5, 2)]
    assert all(leaf.dtype == jnp.float32 for leaf in params)
    draws = np.asarray(jax.vmap(problem.init)(jax.random.split(jax.random.key(1), 2000))[0])
    np.testing.assert_allclose(draws.std(), 2.0, rtol=0.03)


def test_many_modes_list_only_the_strongest():
    sigma = np.arange(1.0, 13.0)
    problem = problems.linear_network(sigma, hidden=20, sizes=(12, 12))
    assert len(problem.critical_points) == 13
    np.testing.assert_allclose(problem.critical_points[1].value, 0.5)  # all but σ = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"singular_values": (1.0,) * 6}, "singular_values to be 1 to 5 numbers"),
        ({"singular_values": (1.0, 0.0)}, "positive"),
        ({"hidden": ()}, "at least one hidden layer"),
        ({"hidden": 0}, "hidden to be an integer ≥ 1"),
        ({"sizes": (0, 3)}, "sizes to be an integer ≥ 1"),
        ({"init_scale": -1.0}, "init_scale"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        problems.linear_network(**arguments)


def test_a_deep_network_of_one_layer_is_refused():
    with pytest.raises(ValueError, match="depth to be an integer ≥ 2"):
        problems.deep_linear_network(depth=1)
