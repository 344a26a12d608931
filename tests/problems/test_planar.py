"""Planar problems: what they list is there, and nothing in the domain is missing from the list."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxopt_study.problems import planar

MAKERS = planar.all_problems()
SMOOTH = {name: make for name, make in MAKERS.items() if name not in {"cliff", "monkey_saddle"}}  # isolated, Morse


def derivatives(problem, places):
    """Loss, gradient and Hessian in float64 at many places at once."""

    @jax.jit
    def at(places):
        return tuple(jax.vmap(f)(places) for f in (problem.loss, jax.grad(problem.loss), jax.hessian(problem.loss)))

    with jax.enable_x64(True):
        return tuple(np.asarray(value) for value in at(jnp.asarray(places, dtype=float)))


def places(problem):
    return np.stack([point.params for point in problem.critical_points])


def differentiable(problem):
    return [point for point in problem.critical_points if not point.label.startswith("cusp")]


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_vanish_and_values_agree_at_the_listed_points(name):
    problem = MAKERS[name]()
    value, gradient, hessian = derivatives(problem, places(problem))
    scale = 1 + np.abs(hessian).max()
    assert np.abs(gradient).max() < 1e-13 * scale
    np.testing.assert_allclose(value, [point.value for point in problem.critical_points], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_hessian_signs_match_kind_and_index(name):
    problem = MAKERS[name]()
    points = differentiable(problem)
    _, _, hessian = derivatives(problem, np.stack([point.params for point in points]))
    eigenvalues = np.linalg.eigvalsh(hessian)
    negative = np.sum(eigenvalues < -1e-9, axis=1)
    assert negative.tolist() == [point.index for point in points]
    kinds = {0: "minimum", 1: "saddle", 2: "maximum"}
    for point, values in zip(points, eigenvalues, strict=True):
        if point.kind == "degenerate":
            assert np.abs(values).max() == 0
        else:
            assert point.kind == kinds[point.index]
            assert np.abs(values).min() > 1e-6 or point.label == "one of a curve"
    if problem.spectrum is not None:
        np.testing.assert_allclose(eigenvalues, np.broadcast_to(problem.spectrum, eigenvalues.shape), rtol=1e-14)


@pytest.mark.parametrize("name", SMOOTH)
def test_indices_add_up_to_the_winding_number_of_the_gradient(name):
    # Poincaré and Hopf: minima and maxima count +1, saddles −1; a forgotten point would break the sum.
    problem = SMOOTH[name]()
    (x0, y0), (x1, y1) = problem.domain
    t = np.linspace(0, 1, 4001)[:-1]
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
    border = np.concatenate([a + t[:, None] * (b - a) for a, b in itertools.pairwise(corners)])
    with jax.enable_x64(True):
        gradient = np.asarray(jax.jit(jax.vmap(jax.grad(problem.loss)))(jnp.asarray(border)))
    angles = np.unwrap(np.arctan2(gradient[:, 1], gradient[:, 0]))
    angles = np.append(angles, angles[-1] + np.angle(np.exp(1j * (angles[0] - angles[-1]))))
    winding = (angles[-1] - angles[0]) / (2 * np.pi)
    counted = sum(-1 if point.kind == "saddle" else 1 for point in problem.critical_points)
    assert abs(winding - counted) < 1e-6


@pytest.mark.parametrize("name", ["beale", "himmelblau", "styblinski_tang", "rosenbrock", "mountain", "plateau"])
def test_an_independent_root_finder_finds_the_listed_points_and_no_others(name):
    problem = MAKERS[name]()
    with jax.enable_x64(True):
        gradient, hessian = jax.jit(jax.grad(problem.loss)), jax.jit(jax.hessian(problem.loss))
        found = set()
        lower, upper = map(np.array, problem.domain)
        rng = np.random.default_rng(0)
        for spread in np.linspace(0.02, 1, 150):  # denser in the middle, where summits with a small basin lie
            start = (lower + upper) / 2 + spread * rng.uniform(-1, 1, 2) * (upper - lower) / 2
            root = scipy.optimize.root(
                lambda p: np.asarray(gradient(p)), start, jac=lambda p: np.asarray(hessian(p)), tol=1e-13
            )
            # Far out on a plateau the gradient is small without a critical point: ask for curvature too.
            curved = np.abs(np.linalg.eigvalsh(hessian(root.x))).min() > 1e-3
            if np.abs(root.fun).max() < 1e-9 and curved and np.all((lower <= root.x) & (root.x <= upper)):
                nearest = np.argmin(np.linalg.norm(places(problem) - root.x, axis=1))
                np.testing.assert_allclose(root.x, places(problem)[nearest], atol=1e-9)
                found.add(int(nearest))
    assert found == set(range(len(problem.critical_points)))


@pytest.mark.parametrize("name", MAKERS)
def test_everything_listed_and_the_start_lie_inside_the_domain(name):
    problem = MAKERS[name]()
    lower, upper = map(np.array, problem.domain)
    start = np.asarray(problem.init(jax.random.key(0)))
    assert np.all((lower < start) & (start < upper))
    assert np.all((lower <= places(problem)) & (places(problem) <= upper))


@pytest.mark.parametrize("name", MAKERS)
def test_init_is_the_start_whatever_the_key(name):
    problem = MAKERS[name](start=(0.25, -0.5))
    for seed in range(2):
        params = problem.init(jax.random.key(seed))
        assert params.shape == (2,)
        assert params.dtype == jnp.float32
        assert params.tolist() == [0.25, -0.5]
    np.testing.assert_array_equal(jax.vmap(problem.init)(jax.random.split(jax.random.key(0), 3)), [[0.25, -0.5]] * 3)
    assert problem.name == name


@pytest.mark.parametrize("name", MAKERS)
def test_contours_are_the_same_by_broadcasting_and_by_vmap(name):
    problem = MAKERS[name]()
    (x0, y0), (x1, y1) = problem.domain
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(x0, x1, 7), jnp.linspace(y0, y1, 5)))
    vmapped = jax.vmap(jax.vmap(problem.loss, in_axes=1), in_axes=1)(grid)
    assert vmapped.shape == (5, 7)
    np.testing.assert_allclose(problem.loss(grid), vmapped, rtol=1e-5)


@pytest.mark.parametrize("start", [(1.0,), (1.0, 2.0, 3.0), (float("nan"), 0.0), 3.0, [[1.0, 2.0]]])
def test_a_start_that_is_not_a_point_is_refused(start):
    with pytest.raises((ValueError, TypeError), match="start"):
        planar.bowl(start=start)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("rosenbrock", (-1.2, 1.0), 24.2),  # Moré, Garbow and Hillstrom
        ("beale", (1.0, 1.0), 14.203125),
        ("himmelblau", (-0.270845, -0.923039), 181.617),  # the maximum, in every description of the function
        ("styblinski_tang", (-2.903534, -2.903534), -78.33233),
        ("rastrigin", (4.52299366, 4.52299366), 80.70658039),  # the maximum on [−5.12, 5.12]²
        ("ackley", (1.0, 1.0), 3.6253849384403627),
        ("bowl", (-7.0, 2.0), 6.45),
        ("saddle", (2.0, 1.0), 3.0),
        ("monkey_saddle", (1.0, 1.0), -2.0),
    ],
)
def test_values_are_those_of_the_literature(name, place, value):
    with jax.enable_x64(True):
        np.testing.assert_allclose(MAKERS[name]().loss(jnp.array(place)), value, rtol=5e-6)


def test_counts_of_critical_points():
    counts = {
        name: tuple(
            sum(point.kind == kind for point in make().critical_points) for kind in ("minimum", "saddle", "maximum")
        )
        for name, make in MAKERS.items()
    }
    assert counts["himmelblau"] == counts["styblinski_tang"] == (4, 4, 1)
    assert counts["rastrigin"] == counts["ackley"] == (121, 220, 100)
    assert counts["mountain"] == (0, 0, 1)


def test_ackley_has_a_cusp_that_is_said_and_harmless():
    problem = planar.ackley()
    best = problem.minima[0]
    assert (best.params.tolist(), best.index, best.label) == ([0.0, 0.0], None, "cusp: no gradient")
    assert jax.grad(problem.loss)(jnp.zeros(2)).tolist() == [0.0, 0.0]
    assert np.isfinite(jax.hessian(problem.loss)(jnp.zeros(2))).all()
    angles = jnp.linspace(0, 2 * jnp.pi, 9)
    ring = 1e-6 * jnp.stack([jnp.cos(angles), jnp.sin(angles)])
    slopes = jax.vmap(lambda p: jnp.linalg.norm(jax.grad(problem.loss)(p)), in_axes=1)(ring)
    np.testing.assert_allclose(slopes, 2 * np.sqrt(2), rtol=1e-3)


def cliff_reference(w, b):
    state = 0.5
    for _ in range(50):
        state = w / (1 + np.exp(-state)) + b
    return (1 / (1 + np.exp(-state)) - 0.7) ** 2


def test_the_cliff_is_the_recurrence_written_out():
    problem = planar.cliff()
    with jax.enable_x64(True):
        for w, b in [(5.5, -2.5), (1.0, 0.5), (6.0, -3.5), (0.0, 0.0)]:
            np.testing.assert_allclose(problem.loss(jnp.array([w, b])), cliff_reference(w, b), rtol=1e-10)


def test_the_cliff_has_a_wall_between_two_gentle_sides():
    problem = planar.cliff()
    w, b = jnp.meshgrid(jnp.linspace(4, 7, 151), jnp.linspace(-4, -1.5, 251))
    slopes = jax.jit(jax.vmap(lambda w, b: jnp.linalg.norm(jax.grad(problem.loss)(jnp.stack([w, b])))))(
        w.ravel(), b.ravel()
    )
    assert slopes.max() > 200
    assert jnp.mean(slopes < 1) > 0.98


def descend(problem, learning_rate, num_steps, clip=None):
    def step(params, _):
        gradient = jax.grad(problem.loss)(params)
        if clip is not None:
            gradient = gradient * jnp.minimum(1, clip / jnp.linalg.norm(gradient))
        return params - learning_rate * gradient, params

    return np.asarray(jax.jit(lambda p: jax.lax.scan(step, p, length=num_steps)[1])(problem.init(jax.random.key(0))))


def test_plain_descent_is_thrown_off_the_cliff_and_clipped_descent_is_not():
    problem = planar.cliff()
    plain, clipped = descend(problem, 1.0, 200), descend(problem, 1.0, 200, clip=0.1)
    upper = np.array(problem.domain[1])
    assert np.any(plain[-1] > upper)
    assert np.all((clipped > problem.domain[0]) & (clipped < upper))
    assert problem.loss(clipped[-1]) < problem.loss(plain[-1])


def test_descent_from_the_wrong_side_of_the_mountain_ends_far_above_the_infimum():
    problem = planar.mountain()
    wrong, right = descend(problem, 0.3, 3000), descend(planar.mountain(start=(1.0, 0.5)), 0.3, 3000)
    assert np.all(np.diff(problem.loss(jnp.asarray(wrong.T))) <= 1e-6)  # it always goes down
    assert problem.loss(wrong[-1]) > problem.metadata["left_level"] - 0.01
    assert problem.loss(right[-1]) < problem.metadata["infimum"] + 0.05


def test_the_plateau_points_at_the_minimum_and_says_little():
    problem = planar.plateau()
    params = problem.init(jax.random.key(0))
    gradient = jax.grad(problem.loss)(params)
    assert 0 < jnp.linalg.norm(gradient) < 0.002
    np.testing.assert_allclose(gradient / jnp.linalg.norm(gradient), params / jnp.linalg.norm(params), rtol=1e-6)
