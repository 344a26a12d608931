"""Every error covers the rounding of its number: |value − exact| ≤ error, with exact numbers in double precision.

The operators, models and data are chosen so that nothing is left to random probes: what the errors must cover is the
arithmetic in single precision, at three scales.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from jaxopt_study.curvature import (
    blocks,
    diagonal,
    from_matrix,
    from_matvec,
    ggn,
    hessian,
    ill_conditioning,
    log_det,
    path,
    plane,
    spectral_density,
    split,
    trace,
)
from jaxopt_study.dynamics import (
    account_step,
    batch_sharpness,
    critical_sharpness,
    directional_sharpness,
    gradient_noise,
    preconditioned_density,
    stability,
)

KEY = jax.random.key(0)
SCALES = [1e-20, 1.0, 1e20]
N = 24


def covered(value, exact, error, times=1.0):
    value, exact, error = (np.asarray(x, float) for x in (value, exact, error))
    assert np.all(np.isfinite(value))
    wrong = np.abs(value - exact) > times * error
    assert not wrong.any(), (value[wrong], exact[wrong], error[wrong])


def rotated(spectrum, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum), len(spectrum))))
    matrix = (q * np.asarray(spectrum)) @ q.T
    return (matrix + matrix.T) / 2


HOLLOW = rotated(np.r_[5.0, np.ones(N - 1)], 3)
MATRICES = {
    "indefinite": rotated(np.random.default_rng(1).normal(size=N)),
    "a third of the identity": np.eye(N) / 3,
    "of rank one": rotated(np.r_[1.0, np.zeros(N - 1)], 2),
    "positive": rotated(np.linspace(0.5, 4.0, N), 4),
    "without a diagonal": HOLLOW - np.diag(np.diag(HOLLOW)),
}


def single(matrix, scale):
    """A matrix in single precision, and the same numbers in double precision."""
    rounded = (np.asarray(matrix) * scale).astype(np.float32)
    return jnp.asarray(rounded), rounded.astype(float)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", MATRICES)
def test_sums_and_counts_of_eigenvalues(kind, scale):
    matrix, exact = single(MATRICES[kind], scale)
    values, op = np.linalg.eigvalsh(exact), from_matrix(matrix)
    found = trace(op, key=KEY)
    covered(found.value, np.trace(exact), found.standard_error)
    found = diagonal(op, key=KEY)
    covered(found.value, np.diag(exact), found.standard_error)
    if values[0] > 0.1 * values[-1]:
        for num_steps in (N, N - 4):  # all eigenvalues, and random probes, which have no variance for the identity
            found = log_det(op, key=KEY, num_steps=num_steps)
            covered(found.value, np.sum(np.log(values)), found.standard_error + np.abs(found.truncation), 4)
    grid = np.r_[values[0], values[-1]].astype(np.float32)  # on either side of the eigenvalues themselves
    density = spectral_density(op, key=KEY, num_steps=N, grid=grid)
    near = 1e-6 * np.abs(values).max()
    above, below = (np.mean(values[:, None] <= grid[None, :] + shift, axis=0) for shift in (near, -near))
    assert np.all((density.cdf_lower <= below + 1e-6) & (above - 1e-6 <= density.cdf_upper))
    mean = density.expectation(lambda x: x)
    covered(mean.value, values.mean(), mean.standard_error, 4)
    g = np.random.default_rng(5).normal(size=N).astype(np.float32)
    found = ill_conditioning(op, jnp.asarray(g), key=KEY)
    covered(found.ghg, g.astype(float) @ exact @ g, found.ghg_error)


def apart(matrix, v):
    image = jnp.matmul(matrix, jnp.concatenate([v["a"], v["b"]]), precision="highest")
    return {"a": image[: N // 2], "b": image[N // 2 :]}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", MATRICES)
def test_blocks_of_which_all_is_known(kind, scale):
    matrix, exact = single(MATRICES[kind], scale)
    half = N // 2
    op = from_matvec(Partial(apart, matrix), {"a": jnp.zeros(half), "b": jnp.zeros(half)})
    found = blocks(op, key=KEY)
    halves = exact[:half, :half], exact[half:, half:]
    covered(found.trace.value, [np.trace(block) for block in halves], found.trace.standard_error)
    covered(found.eigenvalues[:, 0], [np.linalg.eigvalsh(block)[-1] for block in halves], found.residuals[:, 0])
    if kind != "without a diagonal":  # four probes say little of a matrix of nearly rank one
        off = 1 - sum(np.sum((block / scale) ** 2) for block in halves) / np.sum((exact / scale) ** 2)
        covered(found.off_block_share.value, off, found.off_block_share.standard_error, 6)


def test_equal_blocks_have_no_distance_beyond_its_error():
    half = rotated(np.random.default_rng(6).normal(size=N // 2))
    matrix, _ = single(np.block([[half, 0 * half], [0 * half, half]]), 1.0)
    found = blocks(from_matvec(Partial(apart, matrix), {"a": jnp.zeros(N // 2), "b": jnp.zeros(N // 2)}), key=KEY)
    covered(found.distances, np.zeros((2, 2)), found.distance_errors, 2)


def linear(params, batch):
    return jnp.matmul(batch["x"], params, precision="highest")


def squares(outputs, batch):
    return jnp.mean(batch["c"] * (outputs - batch["y"]) ** 2) / 2


def examples(n, scale, count=9, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, n)).astype(np.float32), rng.normal(size=count).astype(np.float32)
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(y), "c": jnp.full(count, scale, jnp.float32)}
    return batch, x.astype(float), y.astype(float), float(np.float32(scale))


def part_covered(part, values, times):
    covered(part.trace.value, values.sum(), part.trace.standard_error, times)
    covered(part.positive.value, values[values > 0].sum(), part.positive.standard_error, times)
    covered(part.negative.value, -values[values < 0].sum(), part.negative.standard_error, times)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("num_probes", [10, 2])
def test_the_split_of_a_linear_model_with_squares(scale, num_probes):
    batch, x, _, c = examples(50, scale)
    found = split(linear, squares, jnp.ones(50), batch, key=KEY, num_probes=num_probes, num_steps=10)
    values = np.linalg.eigvalsh(x.T @ x / len(x)).clip(0) * c
    times = 1 if num_probes == 10 else 6
    for part, exact in ((found.hessian, values), (found.ggn, values), (found.rest, 0 * values)):
        part_covered(part, exact, times)
    for part in (found.hessian, found.ggn):
        covered(part.negative_share.value, 0, part.negative_share.standard_error, times)
    covered(found.rest_share.value, 0, found.rest_share.standard_error, times)


def scores(params, batch):
    return jnp.matmul(batch["x"], params["w"], precision="highest") + params["b"]


def cross_entropy(outputs, batch):
    return jnp.mean(batch["c"] * optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"]))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("num_probes", [10, 2])
def test_the_rest_of_a_linear_model_with_softmax_is_rounding_and_says_so(scale, num_probes):
    batch, *_ = examples(12, scale)
    batch |= {"y": jnp.arange(9) % 4}
    params = {"w": jax.random.normal(KEY, (12, 4)), "b": jnp.zeros(4)}
    found = split(scores, cross_entropy, params, batch, key=KEY, num_probes=num_probes, num_steps=10)
    rest = found.rest
    assert found.hessian.trace.value > 0
    for number in (rest.trace, rest.positive, rest.negative, found.rest_share):
        covered(number.value, 0, number.standard_error)
    assert found.rest_share.standard_error < 1e-3
    if not np.isnan(rest.negative_share.value):  # 0/0, or a share of rounding, of which nothing is known
        assert rest.negative_share.standard_error >= 0.5
    covered(found.ggn.negative.value, 0, found.ggn.negative.standard_error)


@pytest.mark.parametrize("scale", SCALES)
def test_noise_and_sharpness_of_equal_batches(scale):
    batch, x, y, c = examples(30, scale, count=1)
    batch = jax.tree.map(lambda leaf: jnp.tile(leaf, (12,) + (1,) * (leaf.ndim - 1)), batch)
    loss = lambda params, batch: squares(linear(params, batch), batch)
    params = jnp.asarray(np.random.default_rng(1).normal(size=30), jnp.float32)
    g = x[0] * (x[0] @ np.asarray(params, float) - y[0])
    noise = gradient_noise(loss, params, batch, batch_size=4, num_batches=8, key=KEY)
    covered(noise.noise_scale.value, 0, noise.noise_scale.standard_error)
    assert noise.lower == 0
    if scale == 1:  # squares of other scales leave single precision
        covered(noise.trace.value, 0, noise.trace.standard_error)
        covered(noise.squared_norm.value, g @ g, noise.squared_norm.standard_error)
    found = batch_sharpness(loss, params, batch, batch_size=4, num_batches=8, key=KEY)
    covered(found.value, c * x[0] @ x[0], found.error)
    covered(found.mean_quotient, c * x[0] @ x[0], found.mean_quotient_error)


def quadratic(params, batch):
    return 0.5 * params @ jnp.matmul(batch["a"], params, precision="highest") + batch["b"] @ params


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("critical", [False, True])
@pytest.mark.parametrize("kind", ["indefinite", "positive"])
def test_a_step_and_a_line_at_a_point_and_at_a_critical_one(kind, critical, scale):
    matrix, exact = single(MATRICES[kind], scale)
    rng = np.random.default_rng(7)
    slope, b = single(rng.normal(size=N), scale)
    at, u = rng.normal(size=(2, N)).astype(np.float32)
    if critical:  # where the gradient is what is left of terms that cancel
        at = np.linalg.solve(exact / scale, -b / scale).astype(np.float32)
    data, point, d = {"a": matrix, "b": slope}, at.astype(float), u.astype(float)
    gradient = exact @ point + b
    found = path(quadratic, jnp.asarray(at), jnp.asarray(u), data, steps=[0.0])
    covered(found.slope, gradient @ d, found.slope_error)
    covered(found.curvature, d @ exact @ d, found.curvature_error)
    both = plane(quadratic, jnp.asarray(at), (jnp.asarray(u), jnp.asarray(u)), data, x=[0.0], y=[0.0])
    covered(both.curvatures, np.full((2, 2), d @ exact @ d), both.curvature_error)
    step = (0.01 * u).astype(np.float32)
    applied = (at + step).astype(float) - point
    terms = gradient @ applied, 0.5 * applied @ exact @ applied
    account = account_step(quadratic, jnp.asarray(at), jnp.asarray(step), data)
    covered(account.linear, terms[0], account.linear_error, 4)
    covered(account.quadratic, terms[1], account.quadratic_error, 4)
    covered(account.realised, sum(terms), account.realised_error, 6)
    if critical:
        return
    tx = optax.sgd(0.1)
    arguments = tx, tx.init(jnp.asarray(at)), quadratic, jnp.asarray(at), data
    along = gradient @ exact @ gradient / (gradient @ gradient)
    found = directional_sharpness(*arguments)
    covered(found.value, along, found.error)
    if kind == "positive" and scale == 1:  # a step of 1e-21 changes no loss
        found = critical_sharpness(*arguments, tol=1e-4)
        covered(found.value, along, found.error)
    if scale == 1:
        found = stability(*arguments, key=KEY)
        radius = np.abs(1 - float(np.float32(0.1)) * np.linalg.eigvalsh(exact)).max()
        covered(found.radius, radius, found.error)


def test_an_update_nearly_across_the_gradient_has_a_slope_of_rounding():
    a = jnp.asarray(np.linspace(1, 2, N), jnp.float32)
    loss = lambda p, _: 0.5 * jnp.sum(a * p**2)
    at = np.random.default_rng(8).normal(size=N).astype(np.float32)
    g = np.asarray(a, float) * at
    across = np.random.default_rng(9).normal(size=N)
    across -= (across @ g + 1e-5 * np.linalg.norm(across) * np.linalg.norm(g)) / (g @ g) * g
    u = (1e-6 * across).astype(np.float32)
    tx = optax.stateless(lambda updates, params=None: jnp.asarray(u))
    found = critical_sharpness(tx, tx.init(jnp.asarray(at)), loss, jnp.asarray(at), tol=1e-3)
    exact = u.astype(float)
    if found.kind == "crossing":
        covered(found.value, exact @ (np.asarray(a, float) * exact) / (exact @ exact), found.error)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
def test_the_share_at_the_threshold_itself_is_unknown(rate):
    limit = np.float32(2 / rate)
    tx, loss = optax.sgd(rate), lambda p, _: 0.5 * limit * jnp.sum(p**2)
    found = preconditioned_density(tx, tx.init(jnp.ones(8)), loss, jnp.ones(8), key=KEY, num_steps=4)
    for share in (0, 1):
        covered(found.unstable_share, share, found.unstable_share_error)


def test_products_in_half_precision_have_the_errors_of_half_precision():
    matrix = MATRICES["positive"].astype(np.float32)
    op = hessian(lambda p, a: 0.5 * p @ (a @ p), jnp.ones(N, jnp.bfloat16), jnp.asarray(matrix, jnp.bfloat16))
    rounded = np.asarray(jnp.asarray(matrix, jnp.bfloat16), float)
    found = trace(op, key=KEY)
    covered(found.value, np.trace(rounded), found.standard_error)
    fisher = ggn(linear, squares, jnp.ones(5), examples(5, 1.0)[0])
    x = examples(5, 1.0)[1]
    found = diagonal(fisher, key=KEY)
    covered(found.value, np.diag(x.T @ x / len(x)), found.standard_error)
