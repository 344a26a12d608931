"""XTrace, XNysTrace and XDiag against their definitions: every vector left out in turn, in double precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import Estimate, diagonal, empirical_fisher, from_matrix, from_matvec, ggn, trace
from jaxopt_study.curvature.spectrum import _leave_one_out as estimators
from jaxopt_study.linalg.gram_schmidt import triangular_factors

KEY = jax.random.key(0)
N, K = 90, 6
FAST = 100.0 * 0.7 ** np.arange(N)
SLOW = np.concatenate([[40.0, -30.0, 20.0], 3 / np.sqrt(np.arange(1.0, N - 2))])
FLAT = np.linspace(-1, 1, N)


def rotated(spectrum):
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(len(spectrum),) * 2))[0]
    return (q * spectrum) @ q.T


def rows_of(seed, signs=False, k=K):
    rows = np.random.default_rng(seed).normal(size=(k, N))
    return np.sign(rows) if signs else rows


def without(matrix, rows, i):
    """An orthonormal basis of the products with all vectors but the i-th."""
    return np.linalg.qr(matrix @ np.delete(rows, i, axis=0).T)[0]


def xtrace_by_definition(matrix, rows):
    samples = []
    for i, omega in enumerate(rows):
        q = without(matrix, rows, i)
        x = omega - q @ (q.T @ omega)
        samples.append(np.trace(q.T @ matrix @ q) + (N - len(rows) + 1) / (x @ x) * (x @ matrix @ x))
    return np.array(samples)


def xnystrace_by_definition(matrix, rows):
    samples = []
    for i, omega in enumerate(rows):
        others = np.delete(rows, i, axis=0).T
        nystrom = matrix @ others @ np.linalg.pinv(others.T @ matrix @ others) @ others.T @ matrix
        q = np.linalg.qr(others)[0]
        x = omega - q @ (q.T @ omega)
        scale = (N - len(rows) + 1) / (x @ x)
        samples.append(np.trace(nystrom) + scale * (omega @ (matrix - nystrom) @ omega))
    return np.array(samples)


def xdiag_by_definition(matrix, rows):
    samples = []
    for i, omega in enumerate(rows):
        q = without(matrix, rows, i)
        p = np.eye(N) - q @ q.T
        inside = matrix - p @ matrix @ p
        samples.append(np.diag(inside) + omega * (p @ matrix @ p @ omega))
    return np.array(samples)


def jackknife(definition, matrix, rows):
    """Mean of the samples, and its error from the means of all vectors but one."""
    means = np.array([definition(matrix, np.delete(rows, i, axis=0)).mean() for i in range(len(rows))])
    error = np.sqrt((len(rows) - 1) / len(rows) * ((means - means.mean()) ** 2).sum())
    return [definition(matrix, rows).mean(), error]


def average_of(estimator, matrix, rows):
    found = estimator(lambda block: block @ matrix, jnp.asarray(rows), N)
    return np.asarray([found.mean * found.unit, found.error * found.unit])


@pytest.mark.parametrize("spectrum", [FAST, SLOW, FLAT], ids=["fast", "slow", "flat"])
def test_mean_and_error_are_those_of_the_definition(spectrum):
    with jax.enable_x64(True):
        matrix, rows = rotated(spectrum), rows_of(3)
        found = average_of(estimators.xtrace, matrix, rows)
        np.testing.assert_allclose(found, jackknife(xtrace_by_definition, matrix, rows), rtol=1e-7)
        positive = rotated(np.abs(spectrum) + 1e-3)
        found = average_of(estimators.xnystrace, positive, rows)
        np.testing.assert_allclose(found, jackknife(xnystrace_by_definition, positive, rows), rtol=1e-7)
        signs = rows_of(3, signs=True)
        add = lambda sums, x: sums + jnp.stack([x, x**2])
        sums, _ = estimators.xdiag(lambda block: block @ matrix, jnp.asarray(signs), add, jnp.zeros((2, N)))
        exact = xdiag_by_definition(matrix, signs)
        np.testing.assert_allclose(sums, [exact.sum(axis=0), (exact**2).sum(axis=0)], rtol=1e-6, atol=1e-7)


@partial(jax.jit, static_argnums=(2, 3))
def many(op, keys, method, num_probes):
    return jax.lax.map(lambda key: tuple(trace(op, num_probes=num_probes, rank=1, key=key, method=method)), keys)[:2]


@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
@pytest.mark.parametrize("spectrum", [FAST, np.abs(SLOW)], ids=["fast", "slow"])
def test_two_standard_errors_hold_the_trace_and_there_is_no_bias(spectrum, method):
    matrix = rotated(spectrum).astype(np.float32)
    truth = np.trace(matrix.astype(np.float64))
    value, error = map(np.asarray, many(from_matrix(matrix), jax.random.split(KEY, 400), method, 22))
    deviation = np.abs(value - truth)
    assert np.mean(deviation <= 2 * error) >= 0.88
    assert np.sqrt(np.mean(error**2)) < 5 * np.sqrt(np.mean(deviation**2))  # too large rather than too small
    assert abs(np.mean(value) - truth) < 4 * np.std(value) / np.sqrt(400) + 1e-6 * truth


def rms(op, truth, method, num_probes, rank):
    run = jax.jit(
        lambda keys: jax.lax.map(
            lambda key: trace(op, num_probes=num_probes, rank=rank, key=key, method=method).value, keys
        )
    )
    return np.sqrt(np.mean((np.asarray(run(jax.random.split(KEY, 200))) - truth) ** 2))


def test_for_the_same_products_it_is_better_where_eigenvalues_decay():
    for spectrum, factor in ((FAST, 0.5), (np.abs(SLOW), 0.9)):
        matrix = rotated(spectrum).astype(np.float32)
        op, truth = from_matrix(matrix), spectrum.sum()
        deflated = rms(op, truth, "deflated", 18, 6)
        assert rms(op, truth, "xtrace", 18, 6) < factor * deflated
        assert rms(op, truth, "xnystrace", 18, 6) < factor * deflated


def test_the_method_is_named_also_inside_of_a_compiled_program():
    op = from_matrix(rotated(SLOW).astype(np.float32))
    found = trace(op, num_probes=10, rank=4, key=KEY, method="xtrace")
    assert (found.method, int(found.num_matvecs)) == ("xtrace", 18)
    value, error, products = found  # an estimate is still three numbers
    assert isinstance(found, Estimate)
    compiled = jax.jit(lambda key: trace(op, num_probes=10, rank=4, key=key, method="xtrace"))(KEY)
    assert compiled.method == "xtrace"
    assert trace(op, num_probes=10, rank=0, key=KEY).method == "hutchinson"
    assert trace(op, num_probes=10, rank=4, key=KEY).method == "deflated"
    assert trace(op, key=KEY).method == "exact"
    assert diagonal(op, num_probes=10, rank=4, key=KEY).method == "deflated"
    assert diagonal(op, num_probes=10, rank=4, key=KEY, method="xdiag").method == "xdiag"
    assert (float(value), float(error), int(products)) == (float(found.value), float(found.standard_error), 18)


def test_operators_that_are_known_to_have_no_negative_eigenvalue_take_nystrom():
    x = np.random.default_rng(0).normal(size=(60, 50)).astype(np.float32)
    fisher = empirical_fisher(lambda p, batch: batch @ p, jnp.zeros(50), x)
    found = trace(fisher, num_probes=10, rank=4, key=KEY)
    assert (found.method, int(found.num_matvecs)) == ("xnystrace", 18)
    assert abs(found.value - np.sum(x**2) / 60) < 4 * found.standard_error
    assert trace(fisher, num_probes=2, rank=1, key=KEY).method == "deflated"  # too few vectors to leave one out
    squares = ggn(lambda p, batch: batch @ p, lambda f, _: jnp.mean(f**2), jnp.zeros(50), x)
    assert trace(squares, num_probes=10, rank=4, key=KEY).method == "deflated"  # convexity is not known


@pytest.mark.parametrize("factor", [2.0**-90, 2.0**90])
@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
def test_the_samples_scale_as_the_operator_does(factor, method):
    matrix = rotated(FAST).astype(np.float32)
    one, other = (
        trace(from_matrix(matrix * np.float32(c)), num_probes=10, rank=4, key=KEY, method=method) for c in (1, factor)
    )
    np.testing.assert_allclose(other.value / np.float32(factor), one.value, rtol=1e-5)
    np.testing.assert_allclose(other.standard_error / np.float32(factor), one.standard_error, rtol=1e-3)


@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
@pytest.mark.parametrize(
    "spectrum", [np.zeros(N), np.ones(N), np.r_[3.0, 1.0, np.zeros(N - 2)]], ids=["zero", "identity", "rank 2"]
)
def test_degenerate_spectra(spectrum, method):
    for loop in ("compiled", "host"):
        matrix = rotated(spectrum).astype(np.float32)
        op = from_matvec(lambda v, matrix=matrix: matrix @ v, jnp.zeros(N, jnp.float32), loop=loop)
        found = trace(op, num_probes=10, rank=5, key=KEY, method=method)
        assert abs(found.value - spectrum.sum()) <= 4 * found.standard_error + 2e-4
        assert found.standard_error < 1e-3


def test_factors_of_nearly_dependent_vectors_are_orthonormal():
    rows = np.random.default_rng(0).normal(size=(5, 70))
    rows[1] = rows[0] + 1e-4 * rows[1]
    rows[2] *= 1e-5
    rows = np.asarray(rows / np.abs(rows).max(), np.float32)
    basis, factor = (np.asarray(x, np.float64) for x in triangular_factors(jnp.asarray(rows)))
    np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(factor.T @ basis, rows, atol=2e-6)
    np.testing.assert_array_equal(factor, np.triu(factor))


def test_too_few_vectors_are_refused():
    op = from_matrix(rotated(SLOW).astype(np.float32))
    with pytest.raises(ValueError, match="needs three vectors"):
        trace(op, num_probes=2, rank=0, key=KEY, method="xtrace")
