"""The end of a spectrum: right values, true residuals, honest flags."""

import re
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxopt_study.curvature import eigenpairs, from_matrix, from_matvec, hessian
from jaxopt_study.curvature.spectrum._eigenpairs import limits_for, make_solver, solve

N = 200
SPECTRA = {
    "identity": np.ones(N),
    "zero": np.zeros(N),
    "rank 3": np.r_[3.0, 2.0, -1.0, np.zeros(N - 3)],
    "± saddle": np.r_[3.0, -3.0, 2.0, -2.0, 1.0, -1.0, np.zeros(N - 6)],
    "two values": np.r_[np.full(20, 5.0), np.ones(N - 20)],
    "three values": np.r_[np.full(50, 5.0), np.full(50, 3.0), np.ones(N - 100)],
    "clustered": np.r_[10.0, 9.999, 9.998, 9.997, np.linspace(0, 1, N - 4)],
    "tiny": 1e-12 * np.linspace(-1, 1, N) ** 3,
    "negative": -(np.linspace(1, 2, N) ** 4),
    "bulk within the tolerance": np.r_[1.0, -0.3, -0.2, 1e-4 * np.linspace(0, 1, N - 3)],
}


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[type]:
    with jax.enable_x64(request.param is np.float64):
        yield request.param


def diagonal(spectrum, dtype=np.float32, loop="compiled"):
    d = jnp.asarray(spectrum, dtype)
    return from_matvec(Partial(jnp.multiply, d), d, loop=loop)


def expected(spectrum, k, which):
    ascending = np.sort(spectrum)
    ends = np.r_[ascending[: k // 2], ascending[len(ascending) - (k + 1) // 2 :]]
    by_magnitude = ascending[np.argsort(-np.abs(ascending), kind="stable")]
    return {"LA": ascending[::-1][:k], "SA": ascending[:k], "BE": ends, "LM": by_magnitude[:k]}[which]


@pytest.mark.parametrize(
    ("which", "k", "block_size"), [("LA", 3, 1), pytest.param("BE", 5, 1, marks=pytest.mark.slow), ("LM", 4, 3)]
)
def test_finds_every_copy_of_every_eigenvalue_in_the_zoo(dtype, which, k, block_size):
    tol = 1e-3 if dtype is np.float32 else 1e-8
    for name, spectrum in SPECTRA.items():
        pairs = eigenpairs(
            diagonal(spectrum, dtype), k, which=which, block_size=block_size, tol=tol, key=jax.random.key(1)
        )
        values, exact, largest = np.asarray(pairs.values), expected(spectrum, k, which), np.abs(spectrum).max()
        if which == "LM":  # of ±σ either may come first
            values, exact = np.abs(values), np.abs(exact)
        assert pairs.converged.all(), name
        np.testing.assert_allclose(values, exact, rtol=0, atol=tol * largest, err_msg=name)
        v = np.asarray(pairs.vectors, np.float64)
        np.testing.assert_allclose(v @ v.T, np.eye(k), atol=1e2 * np.finfo(dtype).eps, err_msg=name)
        true = np.linalg.norm(spectrum * v - np.asarray(pairs.values)[:, None] * v, axis=1)
        noise = 30 * np.finfo(dtype).eps * largest
        np.testing.assert_allclose(pairs.residuals, true, rtol=1e-2, atol=noise, err_msg=name)
        assert np.all(true <= tol * largest + noise), name


def test_finds_three_outliers_among_a_million():
    spectrum = np.r_[10.0, 5.0, 3.0, np.linspace(-1, 1, 999_997)]
    pairs = eigenpairs(diagonal(spectrum), 3, num_basis=16, key=jax.random.key(0))
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, [10, 5, 3], atol=1e-2)


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
def test_all_n_pairs_are_those_of_numpy_in_the_documented_order(which):
    with jax.enable_x64(True):
        a = np.random.default_rng(0).normal(size=(11, 11))
        pairs = eigenpairs(from_matrix(jnp.asarray(a + a.T)), 11, which=which, tol=1e-10, key=jax.random.key(2))
        np.testing.assert_allclose(
            pairs.values, expected(np.linalg.eigvalsh(a + a.T), 11, which), rtol=1e-12, atol=1e-12
        )
        assert pairs.converged.all()
        assert pairs.num_matvecs == 22


def test_a_long_run_returns_every_simple_eigenvalue_once(dtype):
    spectrum = np.r_[1.5 ** -np.arange(30.0), np.zeros(N - 30)]
    tol = 2e-6 if dtype is np.float32 else 1e-14 * 10
    pairs = eigenpairs(diagonal(spectrum, dtype), 12, num_basis=100, tol=tol, key=jax.random.key(0))
    np.testing.assert_allclose(pairs.values, spectrum[:12], atol=10 * tol)


def mlp_loss(params, batch):
    x, y = batch
    hidden = jnp.tanh(x @ params["w"] + params["b"])
    return jnp.mean((hidden @ params["v"] - y) ** 2)


def mlp():
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(4, 5)), "b": rng.normal(size=5), "v": rng.normal(size=(5, 2))}
    return params, (rng.normal(size=(30, 4)), rng.normal(size=(30, 2)))


def test_agrees_with_the_dense_hessian_of_a_network_in_values_and_vectors():
    with jax.enable_x64(True):
        params, batch = jax.tree.map(jnp.asarray, mlp())
        op = hessian(mlp_loss, params, batch)
        pairs = eigenpairs(op, 6, which="BE", tol=1e-9, key=jax.random.key(0))
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        values, vectors = np.linalg.eigh(jax.hessian(lambda x: mlp_loss(unravel(x), batch))(flat))
        chosen = np.r_[:3, len(flat) - 3 : len(flat)]
        np.testing.assert_allclose(pairs.values, values[chosen], rtol=1e-12, atol=1e-12 * values[-1])
        found = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(pairs.vectors)
        np.testing.assert_allclose(np.abs(np.sum(found * vectors.T[chosen], axis=1)), 1, rtol=1e-12)
        assert jax.tree.map(jnp.shape, pairs.vectors) == {"b": (6, 5), "v": (6, 5, 2), "w": (6, 4, 5)}
        for i in range(6):
            v = jax.tree.map(lambda leaf, i=i: leaf[i], pairs.vectors)
            image = jax.flatten_util.ravel_pytree(op @ v)[0]
            residual = np.linalg.norm(image - pairs.values[i] * found[i])
            np.testing.assert_allclose(pairs.residuals[i], residual, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("block_size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loop_on_the_host_and_a_compiled_one_agree(block_size):
    spectrum = np.r_[7.0, 6.5, 5.0, np.linspace(-1, 4, N - 3)]
    compiled, host = (
        eigenpairs(
            diagonal(spectrum, loop=loop), 3, num_basis=9, block_size=block_size, tol=1e-5, key=jax.random.key(4)
        )
        for loop in ("compiled", "host")
    )
    assert compiled.num_matvecs == host.num_matvecs > 12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), compiled, host)


@pytest.mark.parametrize("block_size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_counts_every_product(block_size):
    calls = []
    d = jnp.asarray(np.r_[9.0, 8.0, np.linspace(-1, 1, 100)], jnp.float32)

    def matvec(v):
        jax.debug.callback(lambda: calls.append(1))
        return d * v

    pairs = eigenpairs(from_matvec(matvec, d), 2, block_size=block_size, key=jax.random.key(0))
    jax.effects_barrier()
    assert len(calls) == int(pairs.num_matvecs)


def test_a_small_basis_restarts_and_finds_the_same():
    spectrum = np.linspace(-1, 1, N) ** 3
    small = eigenpairs(diagonal(spectrum), 3, num_basis=6, tol=1e-4, key=jax.random.key(0))
    assert small.converged.all()
    assert small.num_matvecs > 30  # many times six
    np.testing.assert_allclose(small.values, expected(spectrum, 3, "LA"), atol=1e-5)


@pytest.mark.slow
def test_a_block_finds_the_copies_that_one_vector_does_not_see():
    with jax.enable_x64(True):
        op = diagonal(np.r_[10.0, 10.0, 5.0, np.linspace(-1, 1, N - 3)], np.float64)
        one, two = (eigenpairs(op, 2, block_size=b, key=jax.random.key(0)) for b in (1, 2))
        np.testing.assert_allclose(two.values, [10, 10], atol=1e-3)
        np.testing.assert_allclose(one.values, [10, 5], atol=1e-3)  # right, within its residuals, and not all


def test_an_exhausted_budget_is_flagged_and_kept():
    spectrum = np.linspace(-1, 1, N)
    pairs = eigenpairs(diagonal(spectrum), 3, tol=1e-5, max_matvecs=13, key=jax.random.key(0))
    assert not pairs.converged.any()
    assert pairs.num_matvecs == 13
    assert np.all(pairs.residuals > 1e-5)
    # The error bar is right all the same: an eigenvalue lies within the residual.
    distances = np.abs(np.asarray(pairs.values)[:, None] - spectrum).min(axis=1)
    assert np.all(distances <= np.asarray(pairs.residuals))


def test_the_check_catches_what_the_projected_problem_does_not_know():
    d = jnp.asarray(np.r_[4.0, 3.0, np.linspace(-1, 1, 100)], jnp.float32)
    noisy = from_matvec(lambda v: d * v + 1e-2 * jnp.sin(1e5 * v) / 10, d)
    pairs = eigenpairs(noisy, 2, tol=1e-3, key=jax.random.key(0))
    assert not pairs.converged.any()
    assert np.all(pairs.relative_residuals > 1e-3)
    assert pairs.num_matvecs < 200


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_from_the_operator_ends_the_run_and_is_kept(bad):
    d = jnp.ones(30).at[3].set(bad)
    pairs = eigenpairs(from_matvec(Partial(jnp.multiply, d), d), 2, key=jax.random.key(0))
    assert not pairs.converged.any()
    assert np.isnan(pairs.values).all()
    assert np.isnan(pairs.residuals).all()
    assert pairs.num_matvecs == 1


def test_a_warm_start_saves_products_and_hides_nothing():
    spectrum = np.r_[10.0, 9.0, 8.0, np.linspace(-4, 4, N - 3)]
    cold = eigenpairs(diagonal(spectrum), 3, key=jax.random.key(0))
    moved = diagonal(spectrum + 0.01 * np.sin(np.arange(N)))
    again = eigenpairs(moved, 3, key=jax.random.key(1), start=cold.vectors)
    assert again.num_matvecs < eigenpairs(moved, 3, key=jax.random.key(1)).num_matvecs
    # All are the same eigenvector: only the random part of the start sees the others.
    start = jnp.zeros((3, N)).at[:, 1].set(1.0)
    for useless in (start, jnp.zeros((3, N)), jnp.full((3, N), jnp.nan)):
        found = eigenpairs(diagonal(spectrum), 3, key=jax.random.key(2), start=useless)
        np.testing.assert_allclose(found.values, [10, 9, 8], atol=1e-2)
        assert found.converged.all()


@pytest.mark.slow
def test_works_inside_scan_and_vmap_and_every_lane_is_a_solo_run():
    spectra = jnp.asarray(np.stack([SPECTRA["clustered"], SPECTRA["identity"], SPECTRA["± saddle"]]), jnp.float32)
    solver = make_solver(diagonal(SPECTRA["zero"]), 3)
    limits = limits_for(solver, 1e-3)
    keys = jax.random.split(jax.random.key(0), 3)

    def one(d, key):
        pairs = solve(from_matvec(Partial(jnp.multiply, d), d), solver, limits, key=key)
        return pairs.values, pairs.residuals, pairs.num_matvecs

    lanes = jax.jit(jax.vmap(one))(spectra, keys)
    scanned = jax.jit(lambda *xs: jax.lax.scan(lambda c, x: (c, one(*x)), None, xs)[1])(spectra, keys)
    for i in range(3):
        solo = eigenpairs(diagonal(spectra[i]), 3, key=keys[i])
        for values, residuals, num_matvecs in (lanes, scanned):
            np.testing.assert_allclose(values[i], solo.values, rtol=1e-5)
            np.testing.assert_allclose(residuals[i], solo.residuals, rtol=1e-2, atol=1e-4)
            assert num_matvecs[i] == solo.num_matvecs


def test_other_parameters_and_tolerances_do_not_compile_again(compilations):
    with compilations() as counter:
        eigenpairs(diagonal(SPECTRA["clustered"]), 3, num_basis=17, key=jax.random.key(0))
    assert "jit(trace)" in counter.names
    with compilations() as counter:
        eigenpairs(diagonal(SPECTRA["rank 3"]), 3, num_basis=17, key=jax.random.key(1), tol=1e-4, max_matvecs=50)
    assert "jit(trace)" not in counter.names


def test_leaves_of_different_dtypes_stay_as_they_are():
    with jax.enable_x64(True):
        d = {"a": jnp.linspace(1, 2, 20), "b": jnp.asarray(np.r_[5.0, np.zeros(30)], jnp.float32)}
        pairs = eigenpairs(
            from_matvec(lambda v: jax.tree.map(jnp.multiply, d, v), d), 2, tol=1e-4, key=jax.random.key(0)
        )
        np.testing.assert_allclose(pairs.values, [5, 2], atol=1e-3)
        assert pairs.vectors["b"].dtype == jnp.float32
        assert pairs.converged.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k to be an integer from 1 to 200; received 0"),
        ({"k": 201}, "k to be an integer from 1 to 200; received 201"),
        ({"which": "SM"}, "which to be one of 'LA', 'SA', 'BE', 'LM'; received 'SM'"),
        ({"tol": 1e-7}, "tol must be at least the operator's noise floor, 1.9e-06"),
        ({"tol": float("nan")}, "tol to be a real number in .0, 1.; received nan"),
        ({"tol": 1e-3, "noise_floor": 1e-2}, "noise floor, 1.0e-02 .* Ask for 2.0e-02"),
        ({"block_size": 0}, "block_size to be an integer from 1 to 200; received 0"),
        ({"num_basis": 3}, "num_basis to be an integer ≥ 4; received 3. The basis holds k pairs and a block"),
        ({"max_matvecs": 5}, "max_matvecs to be an integer ≥ 6; received 5. Half of them compute k = 3 pairs"),
        ({"start": jnp.zeros(7)}, "start must have leaves of shapes .* received .*7"),
        ({"start": {"x": jnp.zeros(200)}}, "start must have the structure"),
    ],
)
def test_wrong_arguments_get_their_own_message(change, message):
    arguments = {"k": 3, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=message):
        eigenpairs(diagonal(SPECTRA["identity"]), **arguments)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from jax.tree_util import Partial
from jaxopt_study.curvature import from_matvec
from jaxopt_study.curvature import eigenpairs
d = np.r_[10.0, 9.0, -8.0, np.linspace(-1, 1, 1021)].astype(np.float32).reshape(64, 16)
def solve(place):
    x = {"a": place(d[:32], P("i", None)), "b": place(d[32:], P(None, "i"))}
    like = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding), x)
    op = from_matvec(Partial(lambda x, v: jax.tree.map(jnp.multiply, x, v), x), like)
    return eigenpairs(op, 3, which="LM", key=jax.random.key(0))
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("i",))
one = solve(lambda v, spec: jnp.asarray(v))
eight = solve(lambda v, spec: jax.device_put(v, NamedSharding(mesh, spec)))
np.testing.assert_allclose(one.values, eight.values, rtol=1e-5)
assert eight.converged.all()
for name, shard in (("a", (3, 4, 16)), ("b", (3, 32, 2))):
    assert eight.vectors[name].addressable_shards[0].data.shape == shard, eight.vectors[name].sharding
print("same")
"""


@pytest.mark.slow
def test_eight_devices_find_what_one_finds_and_keep_the_basis_spread():
    code = "import jax; jax.config.update('jax_num_cpu_devices', 8)\n" + SHARDED
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert re.search("same", done.stdout), done.stderr[-2000:]
