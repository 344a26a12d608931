"""Every point with a known answer gets it, and no valley is called a minimum."""

from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxopt_study import problems
from jaxopt_study.curvature import PointKind, classify_point, hessian

KEY = jax.random.key(0)
PLANAR = ["himmelblau", "rosenbrock", "styblinski_tang", "bowl", "saddle", "monkey_saddle", "plateau", "mountain"]
PLANAR += ["beale", "rastrigin", "ackley"]  # the last two with 441 points each
TABLE = {"": 12, "0": 6, "1": 7, "2": 8, "0, 1": 2, "0, 2": 3, "1, 2": 4, "0, 1, 2": 0}


@partial(jax.jit, static_argnums=0)
def classify_many(loss, places, data=None):
    return jax.vmap(lambda place: classify_point(loss, place, data, key=KEY))(places)


PROBLEMS = {name: getattr(problems.planar, name)() for name in PLANAR}
AT_ONCE = 9  # points in a call


def any_planar(place, which):
    """The loss of one planar problem: a number chooses it, so that all of them share a compiled program."""
    return lax.switch(which, [problem.loss for problem in PROBLEMS.values()], place)


def classify_planar(name, places):
    """Classify points of a planar problem, some at a time, the last ones together with copies of the last."""
    short = -len(places) % AT_ONCE
    parts = np.split(np.concatenate([places, np.repeat(places[-1:], short, axis=0)]), (len(places) + short) // AT_ONCE)
    found = [jax.device_get(classify_many(any_planar, part, np.int32(PLANAR.index(name)))) for part in parts]
    return jax.tree.map(lambda *x: np.concatenate(x), *found)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, np.float64) for name in PLANAR if name != "ackley"),
        *(
            pytest.param(name, np.float32, marks=pytest.mark.slow)
            for name in (*PLANAR[:2], "beale", "rastrigin", "ackley")
        ),
        pytest.param("ackley", np.float64, marks=pytest.mark.slow),
    ],
)
def test_listed_points_of_planar_problems_are_what_they_are_listed_as(name, dtype):
    problem = PROBLEMS[name]
    points = problem.critical_points
    places = np.stack([point.params for point in points]).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        found = classify_planar(name, places)
    for i, point in enumerate(points):
        assert PointKind(found.kind[i]).name.lower() == point.kind, (name, point)
        assert point.index is None or found.index.estimate[i] == point.index  # a cusp has none
        assert found.gradient_norm[i] <= found.gradient_tol[i]
        assert found.escape.seen[i] == (point.kind == "saddle" or name == "monkey_saddle")
        if point.kind == "saddle" and i < 20:
            assert_falls(problem.loss, jax.tree.map(lambda x, i=i: x[i], found), places[i])


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_the_floor_before_the_cliff_is_a_valley_and_its_points_are_no_strict_minima(dtype):
    problem = problems.planar.cliff()
    target = np.log(0.7 / 0.3)
    listed = np.stack([point.params for point in problem.critical_points])
    places = np.concatenate([listed, [[w, target - 0.7 * w] for w in (0.5, 1.0, 1.5)]])
    with jax.enable_x64(dtype == np.float64):
        found = jax.device_get(classify_many(problem.loss, jnp.asarray(places, dtype)))
    np.testing.assert_array_equal(found.kind, PointKind.DEGENERATE)
    np.testing.assert_array_equal(found.index.estimate, 0)
    np.testing.assert_array_equal(found.index.flat, 1)
    assert not found.escape.seen.any()
    # Along the floor nothing bends; across it the curvature is 2 |∂σ(h)|², by the chain rule for the fixed point h.
    slope = 0.7 * 0.3
    across = 2 * (slope / (1 - places[:, 0] * slope)) ** 2 * (1 + 0.7**2)
    np.testing.assert_allclose(found.largest, across, rtol=1e-9 if dtype == np.float64 else 1e-4)


def assert_falls(loss, result, params, data=None):
    """Check a way down with the loss evaluated in NumPy's double precision at the same points."""
    assert result.escape.seen
    assert result.escape.fall > 4 * result.escape.rounding
    with jax.enable_x64(True):
        double = partial(jax.tree.map, lambda x: jnp.asarray(np.asarray(x, np.float64)))
        start, direction, data = double(params), double(result.escape.direction), double(data)
        end = jax.tree.map(lambda x, d: x + float(result.escape.step) * d, start, direction)
        fall = float(loss(start, data) - loss(end, data))
        assert fall > 0
        np.testing.assert_allclose(fall, result.escape.fall, rtol=1e-2)


@pytest.mark.slow
def test_linear_network_has_the_index_of_the_closed_form_at_all_eight_subsets():
    problem = problems.linear_network((3.0, 2.0, 1.0), hidden=4, sizes=(5, 6))
    with jax.enable_x64(True):
        for point in problem.critical_points:
            result = classify_point(problem.loss, point.params, key=KEY)
            label = point.label.removeprefix("modes {").removesuffix("}")
            assert result.index.exact
            assert (result.index.lower_bound, result.index.estimate) == (TABLE[label],) * 2, label
            dense = np.linalg.eigvalsh(dense_hessian(problem.loss, point.params))
            assert result.index.flat == np.sum(np.abs(dense) < 1e-9)
            assert result.index.flat > 0  # the rotations of the hidden layer
            np.testing.assert_allclose([result.smallest, result.largest], dense[[0, -1]], atol=1e-12)
            assert np.all(result.residuals < 1e-12)
            if label == "0, 1, 2":  # a valley of minima: the Hessian does not decide, and there is no way down
                assert result.verdict == "degenerate"
                assert not result.escape.seen
            else:
                assert result.verdict == "saddle"
                assert_falls(problem.loss, result, point.params)


def dense_hessian(loss, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda x: loss(unravel(x), None)))(jnp.asarray(flat, jnp.float64)))


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_the_origin_of_a_deep_linear_network_is_degenerate_and_no_minimum(dtype):
    problem = problems.deep_linear_network(depth=3)
    with jax.enable_x64(dtype == np.float64):
        origin = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), problem.critical_points[-1].params)
        result = classify_point(problem.loss, origin, key=KEY)
        assert result.verdict == "degenerate"
        assert (result.index.lower_bound, result.index.estimate) == (0, 0)
        assert result.index.flat == result.index.flat_interval[0] == 60
        assert (result.smallest, result.largest) == (0, 0)
        assert_falls(problem.loss, result, origin)  # seen by walking, not by the Hessian


@pytest.mark.parametrize("batch_size", [None, pytest.param(16, marks=pytest.mark.slow)])
def test_softmax_regression_at_zero_has_the_spectrum_of_its_closed_form(batch_size):
    rng = np.random.default_rng(0)
    x, classes = rng.normal(size=(40, 6)), 4
    y = np.arange(40) % classes

    def loss(weights, batch):
        return optax.softmax_cross_entropy_with_integer_labels(batch["x"] @ weights, batch["y"]).mean()

    with jax.enable_x64(True):
        data = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
        place = jnp.zeros((6, classes))
        result = classify_point(loss, place, data, key=KEY, batch_size=batch_size)
        # Eigenvalues of XᵀX/N divided by C, each C − 1 times, and d zeros, for the shift that softmax does not see.
        curvature = np.linalg.eigvalsh(x.T @ x / 40) / classes
        np.testing.assert_allclose(result.largest, curvature[-1], rtol=1e-12)
        assert (result.index.estimate, result.index.flat, bool(result.index.exact)) == (0, 6, True)
        assert result.verdict == "not critical"
        minimum = classify_point(loss, place, data, key=KEY, batch_size=batch_size, gradient_tol=1.0)
        assert minimum.verdict == "degenerate"  # by a lax tolerance; the zeros stay
        assert not minimum.escape.seen


@pytest.mark.parametrize(
    ("sizes", "trials"), [((3,), 1_000), pytest.param((1, 2, 3, 4, 5), 4_000, marks=pytest.mark.slow)]
)
def test_random_symmetric_matrices_are_minima_as_often_as_the_closed_form_says(sizes, trials):
    closed = {1: 0.5, 2: (2 - np.sqrt(2)) / 4, 3: (np.pi - 2 * np.sqrt(2)) / (4 * np.pi), 4: 0.0025, 5: 0.00014}

    def loss(p, matrix):
        return 0.5 * p @ matrix @ p

    @jax.jit
    def run(matrices):
        found = jax.vmap(lambda matrix: classify_point(loss, jnp.zeros(matrix.shape[0]), matrix, key=KEY))(matrices)
        return found.kind, found.index.estimate

    rng = np.random.default_rng(0)
    for n in sizes:
        probability = closed[n]
        matrices = rng.normal(size=(trials, n, n)).astype(np.float32)
        kinds, index = map(np.asarray, run((matrices + matrices.swapaxes(1, 2)) / 2))
        error = np.sqrt(probability * (1 - probability) / trials)
        assert abs(np.mean(kinds == PointKind.MINIMUM) - probability) < 4 * error + 1e-4, n
        assert abs(np.mean(kinds == PointKind.MAXIMUM) - probability) < 4 * error + 1e-4, n
        values = np.linalg.eigvalsh(((matrices + matrices.swapaxes(1, 2)) / 2).astype(np.float64))
        assert np.all((kinds == PointKind.MINIMUM) <= np.all(values > 0, axis=1))
        clear = np.min(np.abs(values), axis=1) > 1e-3
        np.testing.assert_array_equal(index[clear], np.sum(values < 0, axis=1)[clear])
        assert np.mean((kinds == PointKind.DEGENERATE) | (kinds == PointKind.UNRESOLVED)) < 5e-3


def gradient_flat(p, batch=None):
    return p[0] ** 3 / 3 + p[0] + p[1] ** 2


def test_a_gradient_flat_point_is_neither_critical_nor_simply_not():
    assert classify_point(gradient_flat, jnp.zeros(2), key=KEY).verdict == "gradient-flat"
    assert classify_point(gradient_flat, jnp.array([1e-5, 0.0]), key=KEY).verdict == "gradient-flat"
    assert classify_point(gradient_flat, jnp.array([0.5, 0.3]), key=KEY).verdict == "not critical"
    # An ill-conditioned valley, where Hg is small because g is, is not gradient-flat.
    valley = classify_point(lambda p, _: 1e-4 * p[0] ** 2 + 1e4 * p[1] ** 2, jnp.array([1.0, 0.0]), gradient_tol=1e-6)
    assert valley.verdict == "not critical"
    np.testing.assert_allclose(valley.flatness, 2e-4 * 2e-4 * (1 + 1.0) / 2e-4**2, rtol=1e-3)  # ‖Hg‖ (1 + ‖θ‖)/‖g‖²


def test_a_stricter_tolerance_changes_the_verdict_and_is_reported():
    near = jnp.array([1e-4, 0.0])
    loss = problems.planar.bowl().loss
    assert classify_point(loss, near, key=KEY).verdict == "minimum"
    strict = classify_point(loss, near, key=KEY, gradient_tol=1e-9)
    assert strict.verdict == "not critical"
    np.testing.assert_allclose([strict.gradient_norm, strict.gradient_tol], [1e-5, 1e-9], rtol=1e-4)


def test_a_slope_is_not_taken_for_a_way_down():
    result = classify_point(lambda p, _: jnp.sum(p**4) + 1e-6 * p[0], jnp.zeros(2), key=KEY, gradient_tol=1e-3)
    assert result.verdict == "degenerate"
    assert not result.escape.seen


def test_a_way_down_a_valley_through_the_origin_is_seen_only_where_it_is():
    """Along the valley the loss is rounding, of its evaluation or of the matrix; the latter may have a way down."""
    normals = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    matrices = jnp.asarray(normals[:, :, None] * normals[:, None, :])
    quadratic = lambda p, a: 0.5 * p @ (a @ p)
    found = jax.jit(jax.vmap(lambda a: classify_point(quadratic, jnp.zeros(3), a, key=jax.random.key(0))))(matrices)
    assert (found.kind == PointKind.DEGENERATE).all()
    walks = np.asarray(found.escape.direction, np.float64) * np.asarray(found.escape.step, np.float64)[:, None]
    falls = -0.5 * np.einsum("ki,kij,kj->k", walks, np.asarray(matrices, np.float64), walks)
    assert (falls[found.escape.seen] > 0).all()


def test_a_fall_within_rounding_is_not_called_seen():
    # Curvature is computed apart from the value, so it is exact; the loss itself has no digits left for the fall.
    result = classify_point(lambda p, _: 1e8 + 1e-3 * (p[0] ** 2 - p[1] ** 2), jnp.zeros(2), key=KEY)
    assert result.verdict == "saddle"
    assert not result.escape.seen
    assert result.escape.rounding > 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_loss_that_is_not_finite_is_said_to_be(bad):
    assert classify_point(lambda p, _: bad * jnp.sum(p**2), jnp.ones(2), key=KEY).verdict == "not finite"


def half_of_squares(p, scale):
    return 0.5 * jnp.sum(scale * p**2)


def of_spectrum(spectrum, **options):
    """Classify the origin of ½ Σ λᵢ qᵢ² without the matrix."""
    spectrum = jnp.asarray(spectrum, np.float32)
    return classify_point(half_of_squares, jnp.zeros_like(spectrum), spectrum, key=KEY, **options)


@pytest.mark.parametrize(
    ("condition", "enough"),
    [(300, 128), pytest.param(1000, 256, marks=pytest.mark.slow)],
)
def test_what_few_products_leave_open_is_unresolved_and_more_products_resolve_it(condition, enough):
    spectrum = np.logspace(-np.log10(condition), 0, 1000)
    few = of_spectrum(spectrum, max_matvecs=64)
    assert few.verdict == "unresolved"  # and not degenerate: no eigenvalue within ±τ was found
    assert few.bounds[0] < few.index.tau < spectrum[0] < few.smallest
    more = of_spectrum(spectrum, max_matvecs=enough)
    assert more.verdict == "minimum"
    assert few.index.tau < more.bounds[0] <= spectrum[0] <= more.smallest
    assert more.bounds[1] >= spectrum[-1]
    assert not few.escape.seen
    assert not more.escape.seen
    assert few.num_matvecs + 64 < more.num_matvecs <= few.num_matvecs + 2 * enough


def test_one_direction_down_in_a_wide_spectrum_is_proved_and_walked():
    # Too shallow for the 64 vectors of the index; the bracket's own vector has a negative Rayleigh quotient.
    spectrum = np.r_[-1e-3, np.logspace(-3, 0, 999)]
    result = of_spectrum(spectrum, max_matvecs=64)
    assert result.verdict == "saddle"
    assert result.index.lower_bound == 1
    assert result.index.interval[0] >= 1
    assert result.escape.seen
    down = np.asarray(result.escape.direction, np.float64)
    assert np.sum(spectrum * down**2) < 0


def test_flat_directions_that_were_found_are_degenerate_without_the_matrix():
    valley = np.r_[np.zeros(300), np.linspace(0.3, 3, 700)]
    for spectrum in (valley, -valley, np.zeros(1000)):
        assert of_spectrum(spectrum, max_matvecs=64).verdict == "degenerate"


def test_an_eigenvalue_at_the_edge_of_tau_is_unresolved_with_the_matrix_too():
    loss = problems.planar.bowl().loss
    smallest = classify_point(loss, jnp.zeros(2), key=KEY).smallest
    assert classify_point(loss, jnp.zeros(2), key=KEY, tau=float(smallest)).verdict == "unresolved"
    assert classify_point(loss, jnp.zeros(2), key=KEY, tau=1.1 * float(smallest)).verdict == "degenerate"


@pytest.mark.slow
def test_many_parameters_are_classified_without_the_matrix():
    curvature = jnp.concatenate([-jnp.linspace(1.0, 2.0, 5), jnp.linspace(0.5, 3.0, 595)])

    def loss(p, scale):
        return 0.5 * jnp.sum(scale * p["w"] ** 2)

    params = {"w": jnp.zeros(600)}
    options = {"key": KEY, "max_dense": 100}
    result = classify_point(loss, params, curvature, **options)
    assert result.verdict == "saddle"
    assert result.index.lower_bound == 5
    assert result.escape.seen
    np.testing.assert_allclose([result.smallest, result.largest], [-2, 3], rtol=1e-3)
    assert classify_point(loss, params, jnp.abs(curvature), **options).verdict == "minimum"
    assert classify_point(loss, params, -jnp.abs(curvature), **options).verdict == "maximum"
    assert classify_point(loss, params, jnp.maximum(curvature, 0), **options).verdict == "degenerate"


def convolved(params, images):
    out = lax.conv_general_dilated(images, params["kernel"], (1, 1), "VALID")
    return jnp.mean(out**2) - jnp.sum(params["kernel"] ** 2)


@pytest.mark.parametrize(
    "options", [{"batch_size": 3}, pytest.param({"max_dense": 4}, marks=pytest.mark.slow)], ids=["dense", "krylov"]
)
def test_a_convolution_whose_products_are_called_from_python_is_classified_like_the_matrix(options):
    images = np.random.default_rng(0).normal(size=(4, 1, 6, 6)).astype(np.float32)
    origin = {"kernel": jnp.zeros((1, 1, 3, 3))}
    op = hessian(convolved, origin, images)
    assert op.loop == ("host" if jax.default_backend() == "cpu" else "compiled")
    patches = np.stack([images[:, 0, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], axis=-1)
    patches = patches.reshape(-1, 9).astype(np.float64)
    values = np.linalg.eigvalsh(2 * patches.T @ patches / len(patches) - 2 * np.eye(9))
    assert 0 < np.sum(values < 0) < 9
    result = classify_point(convolved, origin, images, key=KEY, **options)
    assert result.verdict == "saddle"
    assert result.index.lower_bound == np.sum(values < 0)
    np.testing.assert_allclose([result.smallest, result.largest], values[[0, -1]], rtol=1e-3)
    assert_falls(convolved, result, origin, images)


def test_wrong_arguments_are_named():
    loss = problems.planar.bowl().loss
    with pytest.raises(ValueError, match=r"gradient_tol to be a finite real number > 0; received -1\.0"):
        classify_point(loss, jnp.zeros(2), key=KEY, gradient_tol=-1.0)
    with pytest.raises(ValueError, match="noise floor"):
        classify_point(loss, jnp.zeros(2), key=KEY, tau=1e-12)
    for tol in (1e-30, float("nan"), -1.0):
        with pytest.raises(
            ValueError, match=r"tol must be at least the operator's noise floor|tol to be a real number in"
        ):
            classify_point(loss, jnp.zeros(2), key=KEY, tol=tol)
    with pytest.raises(ValueError, match="in double precision"):
        classify_point(loss, jnp.zeros(2), key=KEY, tol=1e-3, noise_floor=1e-2)
    with pytest.raises(ValueError, match="max_matvecs to be an integer ≥ 2; received 1"):
        classify_point(loss, jnp.zeros(2), key=KEY, max_matvecs=1)
    with pytest.raises(TypeError, match="scalar"):
        classify_point(lambda p, _: p, jnp.zeros(2), key=KEY)


def test_leaves_of_size_zero_beside_others_change_nothing():
    def saddle(params, _=None):
        return 0.5 * jnp.sum(jnp.array([1.0, -1.0]) * params["b"] ** 2)

    params = {"b": jnp.zeros(2)}
    expected = classify_point(saddle, params)
    found = classify_point(saddle, {"a": jnp.zeros((0, 3)), **params})
    assert found.verdict == expected.verdict
    np.testing.assert_allclose(jnp.abs(found.escape.direction["b"]), [0.0, 1.0], atol=1e-3)


@pytest.mark.parametrize("error", [1e-4, -1e-4, 3e-5, 1e-6, 0.0])
def test_a_valley_that_was_not_quite_reached_is_no_saddle(error):
    """Beside the minima ab = 1 one eigenvalue is −2 (ab − 1)/(a² + b²), negative on one side, and 0 in the valley."""
    for a in (1.0, 3.0):
        params = jnp.array([a, (1 + error) / a], jnp.float32)
        found = classify_point(lambda p, _: (p[0] * p[1] - 1) ** 2 / 2, params)
        assert found.verdict == "degenerate"
        assert not found.escape.seen
        assert (found.index.estimate, found.index.flat) == (0, 1)


def test_a_saddle_that_was_not_quite_reached_is_one():
    loss = lambda p, _: 2 * p[0] ** 2 - 0.05 * p[1] ** 2 + p[0] ** 3
    found = classify_point(loss, jnp.array([1e-5, 3e-4], jnp.float32))
    assert found.gradient_norm > 0
    assert (found.verdict, float(found.index.estimate)) == ("saddle", 1.0)
    assert found.index.tau < 0.01
    far = classify_point(loss, jnp.array([0.5, 0.5], jnp.float32))  # not critical: of H at the point itself
    assert far.index.tau < 1e-3
