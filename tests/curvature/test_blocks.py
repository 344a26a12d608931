"""Spectra of diagonal blocks against dense matrices in double precision."""

import copy
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxopt_study.curvature import blocks, from_matvec, group_leaves, hessian

KEY = jax.random.key(0)
LIKE = {"a": {"w": jnp.zeros((4, 5)), "b": jnp.zeros(5)}, "c": {"w": jnp.zeros((30, 2))}, "d": jnp.zeros(3)}
ENDS = np.cumsum([0, 25, 60, 3])


def matrix(coupling=0.2, sizes=(1.0, 1e-3, 1e4)):
    """A symmetric matrix whose blocks differ by orders of magnitude, in single precision; b stands before w."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(88, 88)) * coupling
    units = np.concatenate([np.full(n, s**0.5) for n, s in zip(np.diff(ENDS), sizes, strict=True)])
    for start, end in itertools.pairwise(ENDS):
        n = end - start
        q = np.linalg.qr(rng.normal(size=(n, n)))[0]
        whole[start:end, start:end] = q * np.r_[2.0, rng.uniform(-0.5, 1, n - 1)] @ q.T
    whole = units[:, None] * (whole + whole.T) * units[None, :]
    return whole.astype(np.float32)


def multiply(whole, v):
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(v)])
    image = jnp.matmul(whole, flat, precision="highest")
    ends = np.cumsum([leaf.size for leaf in jax.tree.leaves(v)])
    pieces = zip(jnp.split(image, ends[:-1]), jax.tree.leaves(v), strict=True)
    return jax.tree.structure(v).unflatten([piece.reshape(leaf.shape) for piece, leaf in pieces])


def measured(whole, seed=0, **options):
    """The blocks of a matrix, which is data of one program for all tests."""
    op = from_matvec(Partial(multiply, jnp.asarray(whole)), LIKE)
    return blocks(op, key=jax.random.key(seed), **{"k": 2, "num_steps": 30} | options)


def parts(whole):
    return [whole[a:b, a:b].astype(float) for a, b in itertools.pairwise(ENDS)]


def test_each_block_has_its_eigenvalues_and_trace():
    whole = matrix()
    found = measured(whole)
    assert found.names == ("a", "c", "d")
    assert found.sizes == (25, 60, 3)
    assert found.complete == (True, False, True)
    for i, part in enumerate(parts(whole)):
        values = np.linalg.eigvalsh(part)[::-1]
        np.testing.assert_allclose(found.eigenvalues[i], values[:2], rtol=1e-3)
        assert np.all(np.abs(found.eigenvalues[i] - values[:2]) <= found.residuals[i] + 1e-5 * values[0])
        error = found.trace.standard_error[i]
        assert abs(found.trace.value[i] - np.trace(part)) <= 4 * error + 1e-4 * values[0]
        assert (error < 1e-4 * values[0]) == found.complete[i]
        np.testing.assert_allclose(np.trapezoid(found.density[i], found.grid[i]), 1, rtol=1e-2)
    assert found.num_matvecs == 4 * 3 * 31


def test_complete_blocks_hold_every_eigenvalue_as_often_as_it_occurs():
    whole = np.diag(np.r_[np.repeat([3.0, -1.0, 0.0], [5, 8, 12]), np.ones(60), np.zeros(3)]).astype(np.float32)
    found = measured(whole)
    np.testing.assert_allclose(np.sort(found.nodes[0, 1, :25]), np.repeat([-1.0, 0.0, 3.0], [8, 12, 5]), atol=1e-5)
    np.testing.assert_allclose(found.eigenvalues, [[3, 3], [1, 1], [0, 0]], atol=1e-5)
    np.testing.assert_allclose(found.trace.value, [7, 60, 0], rtol=1e-5, atol=1e-30)
    assert found.off_block_share.value == 0


def test_share_off_the_blocks_is_that_of_the_frobenius_norm():
    deviations = []
    for coupling in (0.0, 0.05, 0.2):
        whole = matrix(coupling, sizes=(1.0, 1.0, 1.0))
        share = 1 - sum(np.sum(part**2) for part in parts(whole)) / np.sum(whole.astype(float) ** 2)
        for seed in range(4):
            found = measured(whole, seed).off_block_share
            deviations.append((found.value - share) / found.standard_error)
            assert found.standard_error <= 0.4 * share + 1e-6
    assert np.max(np.abs(deviations)) < 6  # the errors themselves come from four probes


def test_distances_are_those_of_the_smoothed_spectra():
    spectra = [np.linalg.eigvalsh(part) for part in parts(matrix())]
    grid = np.linspace(-1.2, 1.2, 4001)[:, None]
    densities = [np.exp(-0.5 * ((grid - x / np.abs(x).max()) * 30) ** 2).sum(axis=1) for x in spectra]
    for seed in range(3):
        found = measured(matrix(), seed)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            p, q = (densities[at] / densities[at].sum() for at in (i, j))
            middle = (p + q) / 2
            terms = [np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0])) for x in (p, q)]
            error = found.distance_errors[i, j]
            assert abs(found.distances[i, j] - np.sqrt(sum(terms) / 2)) <= 4 * error + 1e-2
            assert (error < 1e-5) == ((i, j) == (0, 2))  # of complete blocks
        np.testing.assert_allclose(found.mean_distance, np.sum(found.distances) / 6, rtol=1e-6)


def test_distances_on_one_axis_compare_sizes_too():
    found = measured(matrix(), normalize=False)
    assert found.distances[0, 1] < 0.05  # both are peaks at 0 beside the third
    assert found.distances[0, 2] > 0.3


def test_blocks_are_leaves_or_what_a_function_says():
    paths = ["a/b", "a/w", "c/w", "d"]
    assert group_leaves("blocks", LIKE, "layer") == (("a", "c", "d"), (0, 0, 1, 2))
    assert group_leaves("blocks", LIKE, "leaf") == (tuple(paths), (0, 1, 2, 3))
    assert group_leaves("blocks", LIKE, lambda path: "d" if path == "d" else "rest") == (("rest", "d"), (0, 0, 0, 1))
    assert group_leaves("blocks", jnp.ones(3), "layer") == (("parameters",), (0,))
    with pytest.raises(TypeError, match=r"blocks needs by to return the name.*received None.*a/b, a/w, c/w, d"):
        group_leaves("blocks", LIKE, lambda path: None)
    with pytest.raises(TypeError, match=r"blocks needs by to be 'layer', 'leaf' or a function.*received 'layers'"):
        group_leaves("blocks", LIKE, "layers")


def test_blocks_of_a_network_are_those_of_its_dense_hessian():
    data = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
    params = {"one": {"w": jnp.full((3, 4), 0.3), "b": jnp.zeros(4)}, "two": {"w": jnp.full((4,), 0.5)}}
    loss = lambda p, x: jnp.mean((jnp.tanh(x @ p["one"]["w"] + p["one"]["b"]) @ p["two"]["w"] - x[:, 0]) ** 2)
    op = hessian(loss, params, data, batch_size=5)
    found = blocks(op, key=KEY)
    dense = np.asarray(op.to_dense(), float)
    for i, (a, b) in enumerate([(0, 16), (16, 20)]):
        values = np.linalg.eigvalsh(dense[a:b, a:b])
        np.testing.assert_allclose(found.eigenvalues[i, 0], values[-1], rtol=1e-4)
        np.testing.assert_allclose(found.trace.value[i], values.sum(), rtol=1e-4)


@pytest.mark.slow
def test_convolutions_on_a_cpu_are_multiplied_from_python():
    kernel = {"conv": {"w": jnp.full((2, 2, 1, 2), 0.2)}, "out": {"w": jnp.full((18,), 0.1)}}
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 1)), jnp.float32)

    def loss(p, x):
        dims = ("NHWC", "HWIO", "NHWC")
        hidden = jax.lax.conv_general_dilated(x, p["conv"]["w"], (1, 1), "VALID", dimension_numbers=dims)
        return jnp.mean((jnp.tanh(hidden).reshape(3, -1) @ p["out"]["w"] - 1) ** 2)

    op = hessian(loss, kernel, images)
    assert op.loop == "host"
    found = blocks(op, key=KEY, num_probes=2)
    dense = np.asarray(op.to_dense(), float)
    np.testing.assert_allclose(found.trace.value, [np.trace(dense[:8, :8]), np.trace(dense[8:, 8:])], rtol=1e-4)
    off = 2 * np.sum(dense[:8, 8:] ** 2) / np.sum(dense**2)
    assert abs(found.off_block_share.value - off) <= 6 * found.off_block_share.standard_error


def test_a_block_that_is_not_finite_does_not_hide_the_others():
    whole = matrix()
    whole[25:85, 25:85] *= np.nan
    found = measured(np.where(np.isnan(whole), whole, np.where(np.eye(88), whole, 0)))
    np.testing.assert_allclose(found.eigenvalues[0], np.sort(np.diag(whole)[:25])[:-3:-1], rtol=1e-5)
    assert np.isnan(found.eigenvalues[1]).all()
    assert np.isnan(found.off_block_share.value)


def test_results_are_copied_and_pickled():
    found = measured(matrix())
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other.names == found.names
        np.testing.assert_array_equal(other.eigenvalues, found.eigenvalues)


def test_leaves_without_coordinates_are_no_blocks():
    params = {"a": jnp.zeros((0, 4)), "b": jnp.ones(2), "c": {"d": jnp.zeros(0), "e": jnp.ones(1)}}
    op = hessian(lambda p, _: jnp.sum(p["b"] ** 2) + p["c"]["e"][0] ** 2 * 3 + jnp.sum(p["a"]), params)
    found = blocks(op, by="leaf", key=KEY, num_probes=2)
    assert (found.names, found.sizes) == (("b", "c/e"), (2, 1))
    np.testing.assert_allclose(found.eigenvalues[:, 0], [2, 6], rtol=1e-6)
    assert np.isfinite(found.mean_distance)


def test_eigenvalues_of_products_in_half_precision_lie_within_their_residuals():
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    loss = lambda p, b: jnp.mean((b @ p["w"].astype(jnp.float32)) ** 2)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        found = blocks(hessian(loss, {"w": jnp.ones(3, dtype)}, x), by="leaf", key=KEY, k=3, num_probes=2)
        true = np.linalg.eigvalsh(2 * x.T.astype(float) @ x / 16)[::-1]
        assert (np.abs(found.eigenvalues[0] - true) <= found.residuals[0]).all()
