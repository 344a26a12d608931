"""Trace and diagonal, and whether their standard errors are honest."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import diagonal, from_matrix, from_matvec, ggn, hessian, trace
from jaxopt_study.linalg.gram_schmidt import orthonormal_basis

KEY = jax.random.key(0)
DECAYING = np.concatenate([[80.0, -40.0, 20.0, 10.0], 1 / np.arange(1.0, 117.0)])


def rotated(spectrum, dtype=np.float32):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(len(spectrum),) * 2))[0]
    matrix = (rotation * spectrum) @ rotation.T
    return ((matrix + matrix.T) / 2).astype(dtype)


@partial(jax.jit, static_argnums=(2, 3))
def many(op, keys, num_probes, rank):
    def run(key):
        return trace(op, num_probes=num_probes, rank=rank, key=key, method="deflated")[:2]

    return jax.lax.map(run, keys)


@pytest.mark.parametrize(("num_probes", "rank"), [(40, 0), (20, 10)])
@pytest.mark.parametrize("spectrum", [DECAYING, np.linspace(-1, 1, 120)], ids=["decaying", "flat"])
def test_two_standard_errors_hold_the_trace_as_often_as_they_should(spectrum, num_probes, rank):
    matrix = rotated(spectrum)
    truth = np.trace(matrix.astype(np.float64))
    value, error = many(from_matrix(matrix), jax.random.split(KEY, 300), num_probes, rank)
    deviation = np.abs(np.asarray(value) - truth)

    def covered(factor):
        return np.mean(deviation <= factor * np.asarray(error))

    assert covered(2.0) >= 0.9
    assert covered(1.0) < 0.8  # the errors are not just large
    bias = np.mean(np.asarray(value) - truth)
    assert abs(bias) < 4 * np.std(value) / np.sqrt(300)


@pytest.mark.parametrize("num_probes", [2, 3])
def test_the_mean_square_of_the_standard_error_is_the_variance_of_the_estimate(num_probes):
    matrix = rotated(np.concatenate([[9.0, -7.0, 5.0], np.linspace(-1, 1, 37)]))
    value, error = map(np.asarray, many(from_matrix(matrix), jax.random.split(jax.random.key(2), 1500), num_probes, 0))
    variance = 2 * (np.sum(matrix.astype(np.float64) ** 2) - np.sum(np.diag(matrix) ** 2.0)) / num_probes
    np.testing.assert_allclose(np.var(value), variance, rtol=0.2)
    spread = 4 * np.std(error**2) / np.sqrt(len(error))
    assert abs(np.mean(error**2) - variance) < spread < 0.25 * variance


def test_standard_errors_of_the_diagonal_have_the_closed_form_of_their_probes():
    matrix = rotated(np.linspace(-1, 2, 40))
    op = from_matrix(matrix)
    run = jax.jit(lambda keys: jax.lax.map(lambda k: diagonal(op, num_probes=3, rank=0, key=k)[:2], keys))
    value, error = map(np.asarray, run(jax.random.split(KEY, 800)))
    off = matrix.astype(np.float64) - np.diag(np.diag(matrix))
    np.testing.assert_allclose(np.mean(error**2, axis=0), np.sum(off**2, axis=1) / 3, rtol=0.3)
    np.testing.assert_allclose(np.mean(error**2), np.mean(off**2) * 40 / 3, rtol=0.05)
    assert np.all(np.abs(np.mean(value, axis=0) - np.diag(matrix)) < 5 * np.std(value, axis=0) / np.sqrt(800))


@pytest.mark.parametrize(
    ("n", "num_probes", "rank"),
    [(1, 60, 20), (2, 2, 0), (3, 2, 0), (5, 60, 20), (32, 2, 0), (50, 4, 23), (100, 60, 20)],
)
def test_what_the_products_suffice_for_is_exact(n, num_probes, rank):
    matrix = rotated(np.random.default_rng(n).normal(size=n) * 3)
    op = from_matrix(matrix)
    for seed in range(3):
        key = jax.random.key(seed)
        of_trace = trace(op, num_probes=num_probes, rank=rank, key=key)
        of_diagonal = diagonal(op, num_probes=num_probes, rank=rank, key=key)
        np.testing.assert_array_equal(of_diagonal.value, np.diag(matrix))
        np.testing.assert_allclose(of_trace.value, np.trace(matrix.astype(np.float64)), atol=1e-6 * n)
        size = np.linalg.norm(matrix)
        for estimate in (of_trace, of_diagonal):  # the noise floor of products, and nothing of random probes
            assert np.all((estimate.standard_error > 0) & (estimate.standard_error <= 2e-6 * size))
        assert of_trace.num_matvecs == of_diagonal.num_matvecs == n


def test_one_product_too_few_is_an_estimate_and_says_so():
    matrix = rotated(np.linspace(-3, 3, 51))
    for estimator, truth in ((trace, np.trace(matrix)), (diagonal, np.diag(matrix))):
        estimate = estimator(from_matrix(matrix), num_probes=10, rank=20, key=KEY)
        assert np.all(estimate.standard_error > 0)
        assert np.all(np.abs(estimate.value - truth) < 5 * estimate.standard_error)
        assert estimate.num_matvecs == 50


def test_pytrees_restricted_operators_and_the_host_loop_are_exact_too():
    like = {"scalar": jnp.zeros(()), "one": jnp.zeros(1), "none": jnp.zeros((0, 3)), "w": jnp.zeros((2, 3))}
    matrix = rotated(np.arange(1.0, 9.0))
    sizes = {name: np.size(leaf) for name, leaf in like.items()}
    starts = dict(zip(sorted(sizes), np.cumsum([0] + [sizes[name] for name in sorted(sizes)]), strict=False))

    def multiply(v):
        image = matrix @ jnp.concatenate([v[name].reshape(-1) for name in sorted(like)])
        return {
            name: image[starts[name] : starts[name] + sizes[name]].reshape(leaf.shape) for name, leaf in like.items()
        }

    truth = {
        name: np.diag(matrix)[starts[name] : starts[name] + sizes[name]].reshape(leaf.shape)
        for name, leaf in like.items()
    }
    for loop in ("compiled", "host"):
        op = from_matvec(multiply, like, loop=loop)
        estimate = diagonal(op, num_probes=2, rank=1, key=KEY)
        jax.tree.map(np.testing.assert_array_equal, estimate.value, truth)
        jax.tree.map(lambda x: np.testing.assert_array_less(x, 2e-5), estimate.standard_error)
        np.testing.assert_allclose(trace(op, key=KEY).value, 36.0, rtol=1e-5)
    block = op.restrict(lambda path: path in ("w", "one"))
    estimate = diagonal(block, num_probes=2, rank=0, key=KEY)
    np.testing.assert_array_equal(estimate.value["w"], truth["w"])
    assert estimate.value["scalar"] is None
    assert estimate.num_matvecs == 7


def test_the_basis_of_the_sketch_is_orthonormal_though_its_rows_are_nearly_parallel():
    rows = np.ones((4, 60)) + 0.02 * np.random.default_rng(0).normal(size=(4, 60))
    for factor in (1.0, 1e30, 1e-30):
        basis = np.asarray(orthonormal_basis(jnp.asarray(rows * factor, jnp.float32)), np.float64)
        np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=5e-6)
        inside = rows @ basis.T @ basis
        np.testing.assert_allclose(inside, rows, atol=1e-4)


def test_where_the_sketch_holds_all_of_the_operator_only_rounding_is_left():
    pair = np.zeros(40)
    pair[[3, 8]] = 1.0, -1.0  # half of all vectors of signs are orthogonal to it
    low_rank = rotated(np.concatenate([[30.0, -4.0, 1.0], np.zeros(117)]))
    for matrix, rank in ((np.outer(pair, pair).astype(np.float32), 1), (low_rank, 6)):
        op, truth = from_matrix(matrix), np.trace(matrix.astype(np.float64))
        value, error = map(np.asarray, many(op, jax.random.split(KEY, 50), 3, rank))
        assert np.all(error < 1e-5 * np.abs(matrix).sum())
        assert np.all(np.abs(value - truth) <= 10 * error + 1e-6 * np.abs(np.diag(matrix)).sum())
        assert np.all(error > 0)


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100])
def test_the_estimates_scale_as_the_operator_does(factor):
    matrix = rotated(np.concatenate([[9.0, -7.0, 5.0], np.linspace(-1, 1, 57)]))
    for estimator in (trace, diagonal):
        for rank in (0, 4):
            one, other = (
                estimator(from_matrix(matrix * np.float32(c)), num_probes=4, rank=rank, key=KEY) for c in (1, factor)
            )
            np.testing.assert_allclose(other.value / factor, one.value, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(other.standard_error / factor, one.standard_error, rtol=1e-3, atol=1e-6)


def test_deflation_pays_where_few_eigenvalues_are_large_and_not_where_none_is():
    keys = jax.random.split(KEY, 300)
    rms = {}
    for name, spectrum in {"decaying": DECAYING, "flat": np.linspace(-1, 1, 120)}.items():
        for num_probes, rank in [(40, 0), (20, 10)]:  # as many products
            value, _ = many(from_matrix(rotated(spectrum)), keys, num_probes, rank)
            rms[name, rank] = np.sqrt(np.mean((np.asarray(value) - spectrum.sum()) ** 2))
    assert rms["decaying", 10] < 0.1 * rms["decaying", 0]
    assert rms["flat", 10] > rms["flat", 0]


@pytest.mark.parametrize("rank", [0, 12])
def test_standard_errors_of_the_diagonal_cover_it(rank):
    matrix = rotated(DECAYING)
    estimate = diagonal(from_matrix(matrix), num_probes=30, rank=rank, key=KEY)
    deviation = np.abs(np.asarray(estimate.value) - np.diag(matrix))
    assert np.mean(deviation <= 2 * np.asarray(estimate.standard_error) + 1e-5) >= 0.88
    assert np.mean(deviation <= 0.7 * np.asarray(estimate.standard_error)) < 0.75
    assert estimate.num_matvecs == 30 + 2 * rank
    if rank:
        plain = diagonal(from_matrix(matrix), num_probes=54, rank=0, key=KEY)
        assert np.max(estimate.standard_error) < 0.1 * np.max(plain.standard_error)


@pytest.mark.parametrize("rank", [0, 5, 20])
@pytest.mark.parametrize(
    "spectrum",
    [np.ones(30), np.zeros(30), np.concatenate([[3.0, -2.0, 1.0], np.zeros(27)]), np.repeat([-2.0, 2.0], 15)],
    ids=["identity", "zero", "rank 3", "two-valued"],
)
def test_degenerate_spectra(spectrum, rank):
    op = from_matrix(rotated(spectrum))
    estimate = trace(op, num_probes=10, rank=rank, key=KEY)
    assert abs(estimate.value - spectrum.sum()) <= 4 * estimate.standard_error + 1e-4
    if rank >= 5 and np.sum(spectrum == 0) >= 27:
        assert estimate.standard_error < 1e-4  # all of it is in the deflated space
    of_coordinates = diagonal(op, num_probes=10, rank=rank, key=KEY)
    assert np.all(np.isfinite(of_coordinates.value))
    np.testing.assert_allclose(np.sum(of_coordinates.value), spectrum.sum(), atol=4 * estimate.standard_error + 1e-3)


def test_a_diagonal_operator_is_exact_without_deflation():
    entries = {"a": jnp.linspace(-1.0, 3.0, 12).reshape(3, 4), "b": jnp.arange(5.0)}
    op = from_matvec(lambda v: jax.tree.map(jnp.multiply, entries, v), entries)
    estimate = diagonal(op, num_probes=2, rank=0, key=KEY)
    for found, error, entry in zip(
        *map(jax.tree.leaves, (estimate.value, estimate.standard_error, entries)), strict=True
    ):
        np.testing.assert_allclose(found, entry, rtol=1e-6)
        np.testing.assert_allclose(error, 0, atol=1e-5)


@pytest.mark.slow
def test_relu_networks_have_the_trace_and_the_blocks_of_their_gauss_newton_matrix():
    x = jax.random.normal(KEY, (12, 4))
    y = jax.random.randint(KEY, (12,), 0, 3)
    shapes = {"w0": (4, 6), "b0": (6,), "w1": (6, 5), "w2": (5, 3)}
    keys = jax.random.split(jax.random.key(7), 4)
    params = {name: jax.random.normal(k, shape) for (name, shape), k in zip(shapes.items(), keys, strict=True)}

    def model(p, batch):
        return jax.nn.relu(jax.nn.relu(batch[0] @ p["w0"] + p["b0"]) @ p["w1"]) @ p["w2"]

    def output_loss(logits, batch):
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(12), batch[1]])

    h = hessian(lambda p, batch: output_loss(model(p, batch), batch), params, (x, y))
    g = ggn(model, output_loss, params, (x, y))
    np.testing.assert_allclose(np.trace(h.to_dense()), np.trace(g.to_dense()), rtol=1e-5)
    assert not np.allclose(h.to_dense(), g.to_dense(), atol=1e-2)
    for layer in (["w0", "b0"], ["w1"], ["w2"]):  # what differs couples layers, so blocks show no saddle either
        of_h, of_g = (np.asarray(op.restrict(layer.__contains__).to_dense()) for op in (h, g))
        np.testing.assert_allclose(of_h, of_g, rtol=1e-4, atol=1e-5 * np.abs(of_g).max())
        assert np.abs(of_g).max() > 0.01
    pair = [np.asarray(op.restrict(["w1", "w2"].__contains__).to_dense()) for op in (h, g)]
    assert not np.allclose(*pair, atol=1e-2)
    for op in (h, g):
        estimate = trace(op, num_probes=40, rank=10, key=KEY)
        assert abs(estimate.value - np.trace(g.to_dense())) < 4 * estimate.standard_error


def test_softmax_regression_at_zero_has_the_trace_of_its_data():
    x = jax.random.normal(jax.random.key(3), (40, 6)) * jnp.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.2])
    y = jax.random.randint(jax.random.key(4), (40,), 0, 3)

    def loss(w, batch):
        return -jnp.mean(jax.nn.log_softmax(batch[0] @ w)[jnp.arange(40), batch[1]])

    estimate = trace(hessian(loss, jnp.zeros((6, 3)), (x, y)), num_probes=20, rank=12, key=KEY)
    truth = 2 / 3 * jnp.sum(x**2) / 40  # XᵀX/N divided by C = 3, each eigenvalue C − 1 = 2 times
    assert abs(estimate.value - truth) <= 4 * estimate.standard_error + 1e-5 * truth
    assert estimate.standard_error < 1e-2 * truth  # twelve directions hold nearly all of it


def test_single_precision_is_right_within_its_error_bars_of_double():
    matrix = rotated(DECAYING, np.float64)
    single = trace(from_matrix(matrix.astype(np.float32)), num_probes=20, rank=10, key=KEY)
    with jax.enable_x64(True):
        double = trace(from_matrix(matrix), num_probes=20, rank=10, key=KEY)
        assert double.value.dtype == np.float64
    truth = np.trace(matrix)
    for estimate in (single, double):
        assert abs(float(estimate.value) - truth) < 4 * float(estimate.standard_error)


@pytest.mark.slow
def test_blocks_and_the_host_loop_give_the_same_numbers():
    factors = {"w": jnp.linspace(-1.0, 2.0, 40).reshape(5, 8), "b": jnp.linspace(0.0, 9.0, 20)}

    def mix(v):
        return jax.tree.map(lambda f, x: f * x + jnp.mean(x), factors, v)

    op, host = from_matvec(mix, factors), from_matvec(mix, factors, loop="host")
    for estimator, rank, other_op, at_once in [(trace, 3, op, 3), (diagonal, 3, host, None)]:
        run = partial(estimator, num_probes=6, rank=rank, key=KEY)
        one_by_one = run(op)
        for other in (run(other_op, probes_at_once=at_once),):
            for a, b in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_products_that_are_not_finite_show():
    op = from_matvec(lambda v: jnp.nan * v, jnp.zeros(30))
    for estimator, rank in [(trace, 0), (trace, 4), (diagonal, 4)]:
        estimate = estimator(op, num_probes=4, rank=rank, key=KEY)
        assert np.all(np.isnan(estimate.value))
        assert np.all(np.isnan(estimate.standard_error))


@pytest.mark.parametrize("estimator", [trace, diagonal])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_probes": 1}, "integer ≥ 2; received 1. An error estimate takes two probes"),
        ({"rank": -1}, "rank to be an integer ≥ 0; received -1"),
        ({"probes_at_once": 0}, "probes_at_once to be an integer ≥ 1; received 0"),
    ],
)
def test_wrong_arguments_are_refused(estimator, arguments, message):
    with pytest.raises(ValueError, match=message):
        estimator(from_matrix(jnp.eye(3)), **{"key": KEY, **arguments})
