"""Quadrature, density, shares and outliers against dense eigendecompositions in float64."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import cross_check, from_matrix, from_matvec, hessian, spectral_density
from jaxopt_study.curvature.spectrum._estimate import band_of_shares, mean_and_error
from jaxopt_study.curvature.spectrum._outliers import find_outliers
from jaxopt_study.linalg.gauss_quadrature import Quadrature, lanczos_quadrature, probe_vectors

KEY = jax.random.key(0)
GHOSTLY = np.concatenate([[100.0, 50.0, 30.0, 10.0], np.linspace(0, 1, 496)])  # isolated large ones and a bulk


def rotated(spectrum, dtype=np.float32, seed=0):
    """A dense matrix with this spectrum, and its exact eigendecomposition."""
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum),) * 2))[0]
    matrix = (rotation * spectrum) @ rotation.T
    return ((matrix + matrix.T) / 2).astype(dtype), rotation


def spectral_weights(op, keys, rotation):
    """(uᵢᵀv)² of the random vectors of the probes, in float64."""
    v = np.stack([np.asarray(probe_vectors(op, key), np.float64) for key in keys])
    return (v @ rotation) ** 2 / np.sum(v**2, axis=1, keepdims=True)


def moments(nodes, weights, count, low, high):
    """Chebyshev moments of a discrete measure, in float64."""
    x = np.clip((2 * np.asarray(nodes, np.float64) - high - low) / (high - low), -1, 1)
    return np.sum(np.asarray(weights, np.float64)[..., None] * np.cos(np.arange(count) * np.arccos(x)[..., None]), -2)


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
def test_isolated_eigenvalues_have_no_ghosts_and_the_quadrature_is_that_of_the_dense_matrix(dtype):
    with jax.enable_x64(dtype == np.float64):
        matrix, rotation = rotated(GHOSTLY, dtype)
        op, keys = from_matrix(matrix), jax.random.split(KEY, 2)
        ours = lanczos_quadrature(op, keys, num_steps=100)
        ghostly = lanczos_quadrature(op, keys, num_steps=100, reorthogonalize=False)
        fewer = ours.leading(10)
        truth = spectral_weights(op, keys, rotation)

    def copies(nodes):
        return np.sum(np.abs(np.asarray(nodes)[:, :, None] - GHOSTLY[:4]) < 1e-3, axis=1)

    np.testing.assert_array_equal(copies(ours.nodes), 1)
    assert np.all(copies(ghostly.nodes)[:, 0] > 3)  # what the same recurrence does without
    assert np.all(np.asarray(ours.orthogonality) < math.sqrt(np.finfo(dtype).eps))
    eps = float(np.finfo(dtype).eps)
    # m nodes have 2m − 1 moments right, here those that rounding, amplified by k², leaves worth looking at.
    exact = moments(np.broadcast_to(GHOSTLY, truth.shape), truth, 199, -1.0, 101.0)
    found = moments(ours.nodes, ours.weights, 199, -1.0, 101.0)
    np.testing.assert_allclose(found, exact, atol=100**2 * eps)
    fewer = moments(fewer.nodes, fewer.weights, 199, -1.0, 101.0)
    np.testing.assert_allclose(fewer[:, :20], exact[:, :20], atol=100**2 * eps)
    assert np.max(np.abs(fewer - exact)) > 1e-4  # 10 nodes do not have all of them: the test can tell
    largest = np.asarray(ours.nodes)[:, -4:] - GHOSTLY[3::-1]
    assert np.all(np.abs(largest) <= np.asarray(ours.residuals)[:, -4:] + 10 * eps * 100)


ZOO = {
    "identity": np.ones(60),
    "zero": np.zeros(60),
    "rank 3": np.concatenate([[3.0, 2.0, 1.0], np.zeros(57)]),
    "saddle": np.concatenate([[-2.0], np.full(59, 2.0)]),
    "two-valued": np.concatenate([-np.ones(30), np.ones(30)]),
    "clustered": np.concatenate([np.repeat([1.0, 2.0, 5.0], 20)]),
    "all distinct, k = n": np.linspace(1.0, 4.0, 60),
}


@pytest.mark.parametrize("name", ZOO)
def test_exhausted_spaces_end_with_the_exact_measure(name):
    spectrum = ZOO[name]
    matrix, rotation = rotated(spectrum)
    op, keys = from_matrix(matrix), jax.random.split(KEY, 3)
    quadrature = lanczos_quadrature(op, keys, num_steps=100)
    truth = spectral_weights(op, keys, rotation)
    for value in np.unique(spectrum):
        near = np.abs(np.asarray(quadrature.nodes) - value) < 2e-3
        assert np.all(near.any(axis=1))
        found = np.sum(np.where(near, quadrature.weights, 0), axis=1)
        np.testing.assert_allclose(found, truth[:, spectrum == value].sum(axis=1), atol=2e-5)
    np.testing.assert_allclose(np.sum(quadrature.weights, axis=1), 1, atol=1e-6)
    assert quadrature.num_matvecs == np.sum(quadrature.num_nodes)
    distinct = len(np.unique(spectrum))
    # Rounding may add a few directions of the noise, never whole copies of the space.
    assert np.all((distinct <= quadrature.num_nodes) & (quadrature.num_nodes <= distinct + 3))


@pytest.mark.slow
def test_blocks_and_the_host_loop_and_a_trace_give_the_same_quadrature():
    like = {"w": jnp.zeros((5, 8)), "b": jnp.zeros(20)}
    factors = {"w": jnp.linspace(-1.0, 2.0, 40).reshape(5, 8), "b": jnp.linspace(0.0, 9.0, 20)}

    def multiply(v):
        return jax.tree.map(jnp.multiply, factors, v)

    op, keys = from_matvec(multiply, like), jax.random.split(KEY, 4)
    one_by_one = lanczos_quadrature(op, keys, num_steps=12)
    others = [
        lanczos_quadrature(op, keys, num_steps=12, probes_at_once=2),
        lanczos_quadrature(from_matvec(multiply, like, loop="host"), keys, num_steps=12),
        jax.jit(lambda: lanczos_quadrature(op, keys, num_steps=12))(),
    ]
    for other in others:
        for a, b in zip(one_by_one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    exhausted = from_matvec(lambda v: v, jnp.zeros(30))
    ends = lanczos_quadrature(exhausted, keys, num_steps=12, probes_at_once=4)
    np.testing.assert_array_equal(ends.num_nodes, 1)
    np.testing.assert_allclose(ends.nodes, 1, atol=1e-6)


def test_other_parameters_of_the_same_shapes_do_not_compile_again(compilations):
    def loss(p, batch):
        return jnp.sum(jnp.cos(batch @ p))

    data = jax.random.normal(KEY, (5, 7))
    run = partial(spectral_density, num_probes=2, num_steps=3, key=KEY)
    operators = hessian(loss, jnp.ones(7), data), hessian(loss, jnp.zeros(7), 2 * data)
    run(operators[0])
    with compilations() as counter:
        run(operators[1])
    assert not counter.names


@pytest.fixture(scope="module")
def outlying():
    """A density with two outliers above, one below, and its spectrum."""
    spectrum = np.concatenate([[9.0, 5.0, -3.0], np.linspace(0, 1, 297)])
    op = from_matrix(rotated(spectrum)[0])
    return op, spectrum, spectral_density(op, num_probes=8, num_steps=30, key=KEY)


def test_converged_outliers_are_listed_with_their_errors_and_are_no_part_of_the_bulk(outlying):
    _, _, result = outlying
    outliers = result.outliers
    assert int(outliers.count) == 3
    truth = np.array([9.0, 5.0, -3.0])
    assert np.all(np.abs(outliers.values - truth) <= np.asarray(outliers.residuals) + 1e-5)
    assert np.all(np.asarray(outliers.residuals) < 1e-3 * 9)
    np.testing.assert_allclose(outliers.weights, 1 / 300)
    assert np.all(np.abs(outliers.measured_weights - 1 / 300) < 4 * np.asarray(outliers.measured_errors))
    assert result.grid[0] > -1
    assert result.grid[-1] < 2
    mass = np.trapezoid(result.density, result.grid)
    np.testing.assert_allclose(mass + np.sum(outliers.measured_weights), 1, atol=1e-3)


def test_rounding_in_the_products_hides_no_outlier():
    spectrum = jnp.concatenate([jnp.array([9.0, 5.0, -3.0]), jnp.linspace(0.0, 1.0, 297)])
    noisy = from_matvec(lambda v: spectrum * v + 3e-5 * jnp.sin(1e5 * v), spectrum)
    outliers = spectral_density(noisy, num_probes=8, num_steps=30, key=KEY).outliers
    assert int(outliers.count) == 3
    assert np.all(np.abs(outliers.values - np.array([9.0, 5.0, -3.0])) <= np.asarray(outliers.residuals) + 6e-4)


def test_density_is_the_kernel_sum_over_the_eigenvalues(outlying):
    _, spectrum, result = outlying
    width, grid = float(result.kernel_width), np.asarray(result.grid, np.float64)
    kernel = np.exp(-0.5 * ((grid[:, None] - spectrum[3:]) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    inside = (grid > 0.1) & (grid < 0.9)

    # 27 nodes resolve a bulk of width 1 to about .06: compare at three times that.
    def coarse(y):
        return np.convolve(y, np.ones(81) / 81, mode="same")[inside]

    error = coarse(np.asarray(result.density)) - coarse(kernel.sum(axis=1) / 300)
    assert np.mean(np.abs(error) < 3 * coarse(np.asarray(result.density_error)) + 0.02) > 0.97
    assert np.max(np.abs(error)) < 0.25  # of a density of 1


@pytest.mark.parametrize(
    "spectrum",
    [np.linspace(0, 1, 60), np.concatenate([-np.ones(30), np.ones(30)]), np.ones(60), np.zeros(60), np.arange(5.0)],
    ids=["uniform", "two-valued", "identity", "zero", "five"],
)
def test_a_spectrum_without_outliers_lists_none(spectrum):
    result = spectral_density(from_matrix(rotated(spectrum)[0]), num_probes=3, num_steps=100, key=KEY)
    assert int(result.outliers.count) == 0
    assert bool(result.finite)
    np.testing.assert_allclose(np.trapezoid(result.density, result.grid), 1, atol=2e-3)
    np.testing.assert_allclose(np.asarray(result.cdf)[[0, -1]], [0, 1], atol=1e-5)


@pytest.mark.parametrize(("residual", "apart"), [(1e-4, 2), (0.1, 0)])
def test_a_node_that_every_probe_has_is_no_outlier_until_its_residual_is_small(residual, apart):
    nodes = np.tile(np.concatenate([[-4.0], np.linspace(0, 1, 10), [9.0]]), (3, 1))
    weights = np.tile(np.concatenate([[1 / 300], np.full(10, (1 - 2 / 300) / 10), [1 / 300]]), (3, 1))
    arrays = [jnp.asarray(x, jnp.float32) for x in (nodes, weights, np.full_like(nodes, residual))]
    nothing = jnp.zeros((3, 12))
    found = Quadrature(*arrays, jnp.full(3, 12), jnp.zeros(3), nothing, nothing, jnp.int32(36))
    outliers, theirs = find_outliers(found, 300, tol=1e-3, min_gap=0.25, max_outliers=4)
    assert int(outliers.count) == apart
    np.testing.assert_array_equal(theirs.sum(axis=1), apart)
    np.testing.assert_array_equal(outliers.values[:apart], [9.0, -4.0][:apart])


@pytest.mark.slow
def test_an_eigenvalue_that_has_not_converged_is_no_outlier(outlying):
    op, _, result = outlying
    assert int(result.outliers.count) == 3
    assert int(spectral_density(op, num_probes=8, num_steps=3, key=KEY).outliers.count) == 0
    assert int(spectral_density(op, num_probes=8, num_steps=30, key=KEY, min_gap=4.0).outliers.count) == 2
    assert int(spectral_density(op, num_probes=8, num_steps=30, key=KEY, reorthogonalize=False).outliers.count) == 0


def test_the_band_of_the_shares_covers_the_truth_as_often_as_it_says():
    spectrum = jnp.sort(jax.random.normal(jax.random.key(5), (150,)) ** 3)
    grid = jnp.array([-1.0, -0.1, 0.0, 0.05, 0.6, 2.0])
    op = from_matvec(partial(jnp.multiply, spectrum), spectrum)

    def run(key):
        result = spectral_density(op, num_probes=5, num_steps=6, key=key, grid=grid)
        return result.cdf, result.cdf_error, result.cdf_lower, result.cdf_upper

    cdf, error, lower, upper = jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(KEY, 150))
    truth = jnp.mean(spectrum[:, None] <= grid, axis=0)
    assert jnp.all(jnp.mean((lower <= truth) & (truth <= upper), axis=0) >= 0.93)
    sampling_alone = jnp.mean(jnp.abs(cdf - truth) <= 2.78 * error, axis=0)  # t, 4 degrees of freedom
    assert jnp.min(sampling_alone) < 0.8  # six nodes do not resolve the steps, and this band does not know


@pytest.mark.parametrize("num_probes", [2, 5, 10, 30])
@pytest.mark.parametrize(("positive", "size"), [(20, 40), (36, 40), (39, 40), (1, 200), (195, 200), (999, 1000)])
def test_the_band_covers_skewed_shares(positive, size, num_probes):
    rng = np.random.default_rng(positive + num_probes)
    shares = rng.beta(positive / 2, (size - positive) / 2, size=(4000, num_probes))  # of a probe uniform on the sphere
    for confidence in (0.9, 0.95, 0.99):
        lower, upper = band_of_shares(jnp.asarray(shares.mean(axis=1)), num_probes, size, confidence)
        covered = np.mean((np.asarray(lower) <= positive / size) & (positive / size <= np.asarray(upper)))
        assert confidence - 0.02 < covered < confidence + 0.05
    for certain in (0.0, 1.0):
        lower, upper = band_of_shares(jnp.asarray(certain), num_probes, size, 0.95)
        assert lower <= certain <= upper


def test_the_share_of_one_eigenvalue_is_in_the_band_and_within_its_errors_as_often_as_they_say():
    spectrum = jnp.concatenate([jnp.full(39, -1.0), jnp.array([2.0])])  # a share of .975
    op = from_matvec(partial(jnp.multiply, spectrum), spectrum)

    def run(key):
        result = spectral_density(op, num_probes=10, num_steps=3, key=key, grid=jnp.array([0.0]))
        mean = result.expectation(lambda x: x)
        return result.cdf, result.cdf_lower, result.cdf_upper, mean.value, mean.standard_error

    found = jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(jax.random.key(1), 600))
    cdf, lower, upper, mean, error = map(np.ravel, found)
    assert 0.93 <= np.mean((lower <= 0.975) & (upper >= 0.975)) <= 0.98
    assert np.mean(np.abs(cdf - 0.975)) > 0  # the measure is that of the probes, not of the spectrum
    assert 0.9 <= np.mean(np.abs(mean - np.mean(spectrum)) <= 1.96 * error) <= 0.96
    np.testing.assert_allclose(np.mean(error**2), np.var(mean), rtol=0.25)
    np.testing.assert_allclose(np.mean(error**2), np.var(spectrum) / 10 / 21, rtol=0.1)  # n/2 + 1 = 21


@pytest.mark.parametrize("factor", [1.0, 1e-30, 1e30])
def test_standard_errors_are_those_of_numpy_at_any_scale(factor):
    samples = np.random.default_rng(0).normal(size=(5, 3))
    mean, error = mean_and_error(jnp.asarray(samples * factor, jnp.float32))
    np.testing.assert_allclose(mean / factor, samples.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(error / factor, samples.std(axis=0, ddof=1) / np.sqrt(5), rtol=1e-5)


def test_an_eigenvalue_at_a_grid_point_counts_as_below_it():
    zero = from_matrix(jnp.zeros((60, 60)))
    result = spectral_density(zero, num_probes=2, num_steps=3, key=KEY, grid=jnp.array([-1e-30, 0.0, 1e-30]))
    np.testing.assert_allclose(result.cdf, [0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100])
def test_densities_scale_as_the_operator_does(outlying, factor):
    op, _, one = outlying
    other = spectral_density(factor * op, num_probes=8, num_steps=30, key=KEY)
    for name in ("grid", "kernel_width"):
        np.testing.assert_allclose(getattr(other, name) / factor, getattr(one, name), rtol=1e-4)
    for name in ("density", "density_error"):
        np.testing.assert_allclose(getattr(other, name) * factor, getattr(one, name), rtol=1e-2, atol=1e-3)
    for name in ("cdf", "cdf_error", "cdf_lower", "cdf_upper"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1e-4)
    np.testing.assert_allclose(other.outliers.values / factor, one.outliers.values, rtol=1e-5)
    np.testing.assert_allclose(other.expectation(lambda x: x).value / factor, one.expectation(lambda x: x).value, 1e-4)
    assert bool(cross_check(factor * op, other, num_steps=25).agrees)
    exhausted = lanczos_quadrature(factor * from_matrix(jnp.eye(60)), jax.random.split(KEY, 2), num_steps=20)
    np.testing.assert_allclose(exhausted.nodes / factor, 1, rtol=1e-5)
    np.testing.assert_array_equal(exhausted.num_nodes, 1)


def test_expectations_are_unbiased_and_polynomials_exact_for_each_probe(outlying):
    _, spectrum, result = outlying
    for function in (lambda x: x, jnp.square, jnp.exp):
        estimate = result.expectation(function)
        truth = float(np.mean(np.asarray(function(spectrum))))
        assert abs(estimate.value - truth) < 4 * estimate.standard_error
        assert estimate.standard_error > 0
    np.testing.assert_allclose(result.expectation(jnp.ones_like).value, 1, rtol=1e-6)


def test_chebyshev_moments_agree_and_object_to_a_wrong_quadrature(outlying):
    op, _, result = outlying
    check = cross_check(op, result, num_steps=25)
    assert bool(check.agrees)
    assert check.num_matvecs == 8 * 25
    weights = result.quadrature.weights
    wrong = result.quadrature._replace(weights=weights.at[:, 10].add(0.02).at[:, 11].add(-0.02))
    assert not bool(cross_check(op, result._replace(quadrature=wrong), num_steps=25).agrees)
    assert not bool(cross_check(1.05 * op, result, num_steps=25).agrees)  # an eigenvalue outside of what Lanczos saw
    host = from_matvec(op.linearize(), op.like, loop="host")
    on_host = cross_check(host, result, num_steps=25)
    np.testing.assert_allclose(on_host.moments, check.moments, atol=1e-3)


def test_chebyshev_check_agrees_on_one_point_spectra():
    for matrix in (np.eye(60, dtype=np.float32), np.zeros((60, 60), np.float32)):
        op = from_matrix(matrix)
        assert bool(cross_check(op, spectral_density(op, num_probes=3, num_steps=100, key=KEY)).agrees)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_products_that_are_not_finite_are_flagged(bad):
    op = from_matvec(jax.tree_util.Partial(jnp.multiply, jnp.float32(bad)), jnp.zeros(60))
    result = spectral_density(op, num_probes=3, num_steps=100, key=KEY)
    assert not bool(result.finite)
    assert np.all(np.isnan(result.cdf))
    assert np.all(np.isnan(result.density))
    assert not bool(cross_check(op, result).agrees)


def test_softmax_regression_at_zero_has_the_spectrum_of_its_data():
    x = jax.random.normal(jax.random.key(3), (40, 6)) * jnp.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.2])
    y = jax.random.randint(jax.random.key(4), (40,), 0, 3)

    def loss(w, batch):
        return -jnp.mean(jax.nn.log_softmax(batch[0] @ w)[jnp.arange(40), batch[1]])

    op = hessian(loss, jnp.zeros((6, 3)), (x, y))
    of_data = np.linalg.eigvalsh(np.asarray(x, np.float64).T @ np.asarray(x, np.float64) / 40) / 3
    quadrature = lanczos_quadrature(op, jax.random.split(KEY, 2), num_steps=18)
    assert np.all(quadrature.num_nodes >= 7)  # each twice in the spectrum, and zero six times: seven in all
    for value in (0.0, *of_data):
        assert np.all(np.min(np.abs(np.asarray(quadrature.nodes) - value), axis=1) < 1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_probes": 1}, "An error estimate takes two probes"),
        ({"num_steps": 0}, "num_steps to be an integer ≥ 1; received 0"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"confidence": 1.0}, "confidence to be a real number in (0, 1)"),
        ({"tol": -1.0}, "tol to be a real number in (0, 1)"),
        ({"min_gap": 0.0}, "Outliers are defined by a gap"),
        ({"max_outliers": -1}, "max_outliers"),
        ({"kernel_width": 0.0}, "kernel_width to be a finite real number > 0"),
        ({"grid": jnp.zeros((2, 2))}, "received shape"),
        ({"probes_at_once": 3}, "must divide num_probes = 10; received 3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError)) as error:
        spectral_density(from_matrix(jnp.eye(3)), **{"key": KEY, **arguments})
    assert message in str(error.value)


def test_a_check_of_another_operator_is_refused(outlying):
    with pytest.raises(ValueError, match="of size 300; received one of size 3"):
        cross_check(from_matrix(jnp.eye(3)), outlying[2])
    assert isinstance(outlying[2].quadrature, Quadrature)
