"""The solvers where JAX refuses to promote dtypes or ranks by itself."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import curvature

KEY = jax.random.key(0)


def test_solvers_cast_and_broadcast_explicitly():
    spectrum = np.concatenate([np.linspace(-2, 3, 38), [8.0, 20.0]])
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    matrix = ((rotation * spectrum) @ rotation.T).astype(np.float32)
    op, squared = (curvature.from_matrix((m + m.T) / 2) for m in (matrix, matrix @ matrix))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        one = curvature.eigenpairs(op, 2, key=KEY, start=jnp.ones(40, op.dtype))
        block = curvature.eigenpairs(op, 3, which="BE", block_size=2, num_basis=12, key=KEY)
        bracket = curvature.sharpness(op, key=KEY)
        estimate = curvature.trace(op, num_probes=4, rank=2, key=KEY)
        traces = [curvature.trace(op, num_probes=12, method=method, key=KEY) for method in ("xtrace", "deflated")]
        traces.append(curvature.trace(squared, num_probes=12, method="xnystrace", key=KEY))
        diagonals = [curvature.diagonal(op, num_probes=12, method=method, key=KEY) for method in ("xdiag", "deflated")]
        density = curvature.spectral_density(op, num_probes=2, num_steps=10, key=KEY)
        check = curvature.cross_check(op, density, num_steps=5)
        index = curvature.morse_index(op, key=KEY)
    np.testing.assert_allclose(one.values, [20, 8], rtol=1e-3)
    np.testing.assert_allclose(block.values, [-2, 8, 20], rtol=2e-2)
    assert bracket.lower <= 20.001
    assert abs(estimate.value - spectrum.sum()) <= 6 * estimate.standard_error
    for found, powers in zip(traces, (1, 1, 2), strict=True):
        assert abs(found.value - (spectrum**powers).sum()) <= 6 * found.standard_error
    for found in diagonals:
        assert (abs(found.value - np.diag(matrix)) <= 8 * found.standard_error + 1e-3).all()
    assert check.agrees
    assert index.lower_bound == np.sum(spectrum < 0)
