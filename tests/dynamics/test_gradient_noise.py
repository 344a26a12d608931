"""Noise of the gradient: closed forms on least squares, brute-force jackknife, coverage, units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.dynamics import gradient_noise

INPUTS = np.random.default_rng(0).normal(size=(50, 4)) * [2.0, 1.0, 0.5, 0.1]
TARGETS = np.random.default_rng(1).normal(size=50)
KEY = jax.random.key(0)


def loss(params, batch):
    x, y = batch
    return 0.5 * jnp.mean((x @ jnp.concatenate([params["a"], params["b"]]) - y) ** 2)


def least_squares(dtype=jnp.float64, at=1.0):
    """Return parameters, data, and the exact gradients of the examples in double precision."""
    w = np.full(4, at)
    params = {"a": jnp.asarray(w[:2], dtype), "b": jnp.asarray(w[2:], dtype)}
    return params, (jnp.asarray(INPUTS, dtype), jnp.asarray(TARGETS, dtype)), (INPUTS @ w - TARGETS)[:, None] * INPUTS


def closed_form(gradients):
    mean = gradients.mean(axis=0)
    return ((gradients - mean) ** 2).sum(axis=1).mean(), mean @ mean


@pytest.mark.parametrize("num_batches", [3, 10])
def test_both_estimates_are_unbiased(num_batches):
    with jax.enable_x64(True):
        params, data, gradients = least_squares(at=0.2)
        keys = jax.random.split(KEY, 20_000)
        found = jax.jit(
            jax.vmap(lambda key: gradient_noise(loss, params, data, batch_size=5, num_batches=num_batches, key=key))
        )(keys)
        for estimate, exact in zip((found.trace, found.squared_norm), closed_form(gradients), strict=True):
            values = np.asarray(estimate.value)
            assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(keys))
            # The jackknife's variance is unbiased for a mean and slightly too large otherwise.
            said = np.sqrt(np.mean(np.asarray(estimate.standard_error) ** 2))
            assert 0.95 * values.std() < said < 1.6 * values.std()


def test_estimates_are_those_of_two_batch_sizes_and_their_errors_the_jackknifes():
    with jax.enable_x64(True):
        params, data, gradients = least_squares()
        size, count = 5, 12
        found = gradient_noise(loss, params, data, batch_size=size, num_batches=count, key=KEY)
        rows = [np.asarray(jax.random.randint(key, (size,), 0, 50)) for key in jax.random.split(KEY, count)]
        batches = np.array([gradients[row].mean(axis=0) for row in rows])

        def two_sizes(batches):
            small, large = (batches**2).sum(axis=1).mean(), (batches.mean(axis=0) ** 2).sum()
            big = size * len(batches)
            trace = (small - large) / (1 / size - 1 / big)
            norm = (big * large - size * small) / (big - size)
            return np.array([trace, norm])

        whole = two_sizes(batches)
        parts = np.array([two_sizes(np.delete(batches, k, axis=0)) for k in range(count)])
        covariance = (count - 1) * np.cov(parts.T, bias=True)
        slope = np.array([1, -whole[0] / whole[1]]) / whole[1]
        np.testing.assert_allclose([found.trace.value, found.squared_norm.value], whole, rtol=1e-12)
        np.testing.assert_allclose(found.trace.standard_error, covariance[0, 0] ** 0.5, rtol=1e-12)
        np.testing.assert_allclose(found.squared_norm.standard_error, covariance[1, 1] ** 0.5, rtol=1e-12)
        np.testing.assert_allclose(found.noise_scale.value, whole[0] / whole[1], rtol=1e-12)
        np.testing.assert_allclose(found.noise_scale.standard_error, (slope @ covariance @ slope) ** 0.5, rtol=1e-10)
        assert found.trace.num_matvecs == 2 * count
        for end in (found.lower, found.upper):  # Fieller: the difference is t of its errors
            distance = whole[0] - end * whole[1]
            error = np.sqrt([1, -end] @ covariance @ [1, -end])
            np.testing.assert_allclose(abs(distance) / error, 2.2009852, rtol=1e-6)  # t of 11 degrees of freedom


@pytest.mark.parametrize("at", [1.0, 0.2])  # the gradient is seen well, or hardly
def test_interval_of_the_noise_scale_covers(at):
    with jax.enable_x64(True):
        params, data, gradients = least_squares(at=at)
        trace, norm = closed_form(gradients)
        found = jax.jit(
            jax.vmap(lambda key: gradient_noise(loss, params, data, batch_size=5, num_batches=40, key=key))
        )(jax.random.split(KEY, 1000))
        covered = (found.lower <= trace / norm) & (trace / norm <= found.upper)
        assert 0.93 < covered.mean() <= 1.0  # 95 %, less the skew of |G|²


def test_at_a_minimum_nothing_is_known_but_a_lower_end():
    with jax.enable_x64(True):
        best = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
        params, data = {"a": jnp.asarray(best[:2]), "b": jnp.asarray(best[2:])}, least_squares()[1]
        found = jax.vmap(lambda key: gradient_noise(loss, params, data, batch_size=5, key=key))(
            jax.random.split(KEY, 50)
        )
        assert np.isinf(found.upper).mean() > 0.8
        assert (found.lower > 5).mean() > 0.8
        negative = np.asarray(found.squared_norm.value) <= 0
        assert 0 < negative.mean() < 1
        assert np.isinf(found.noise_scale.value[negative]).all()
        assert np.isinf(found.noise_scale.standard_error[negative]).all()
        assert np.isfinite(found.noise_scale.value[~negative]).all()


@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_loss_in_other_units_scales_squares_and_not_the_noise_scale(factor, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        params, data, gradients = least_squares(dtype)

        def scaled(params, batch):
            return dtype(factor) * loss(params, batch)

        plain, found = (gradient_noise(f, params, data, batch_size=5, key=KEY) for f in (loss, scaled))
        tolerance = 1e-5 if dtype == jnp.float32 else 1e-12
        for a, b in zip(
            (plain.noise_scale.value, plain.noise_scale.standard_error, plain.lower, plain.upper),
            (found.noise_scale.value, found.noise_scale.standard_error, found.lower, found.upper),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=tolerance)
        with np.errstate(over="ignore"):
            square = np.asarray(np.float64(factor) ** 2 * np.float64(plain.trace.value)).astype(dtype)
        np.testing.assert_allclose(found.trace.value, square, rtol=tolerance, atol=float(jnp.finfo(dtype).tiny))
        if dtype == jnp.float64:
            assert abs(found.trace.value / factor**2 - closed_form(gradients)[0]) < 4 * plain.trace.standard_error


def test_equal_examples_have_no_noise():
    data = jnp.ones((6, 2))
    found = gradient_noise(lambda p, x: jnp.mean(x @ p), jnp.ones(2), data, batch_size=2, key=KEY)
    assert found.trace.value == 0
    assert found.noise_scale.value == 0
    np.testing.assert_allclose(found.squared_norm.value, 2.0, rtol=1e-6)
    assert found.squared_norm.standard_error > 0  # of rounding


def test_a_gradient_of_zero_has_no_noise_scale():
    found = gradient_noise(lambda p, x: 0 * jnp.mean(x @ p), jnp.ones(2), jnp.ones((6, 2)), batch_size=2, key=KEY)
    assert found.trace.value == found.squared_norm.value == 0
    assert found.noise_scale.value == jnp.inf
    assert (found.lower, found.upper) == (0, jnp.inf)


def test_convolutions_give_the_same_in_either_loop_and_halves_are_summed_in_single_precision():
    data = jax.random.normal(KEY, (6, 1, 9))

    def convolved(params, batch):
        out = jax.lax.conv(batch, params["kernel"].astype(jnp.float32), (1,), "SAME")
        return jnp.mean(jnp.sum(jnp.tanh(out) ** 2, axis=(1, 2)))

    params = {"kernel": jnp.ones((2, 1, 3), jnp.bfloat16)}
    host = gradient_noise(convolved, params, data, batch_size=2, num_batches=5, key=KEY)
    inside = jax.jit(lambda p: gradient_noise(convolved, p, data, batch_size=2, num_batches=5, key=KEY))(params)
    assert host.trace.value.dtype == jnp.float32
    for a, b in zip(jax.tree.leaves(host), jax.tree.leaves(inside), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02)  # bfloat16 gradients round differently


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 51}, "from 1 to 50"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": None}, "batch_size"),
        ({"num_batches": 2}, "takes three batches"),
        ({"confidence": 1.0}, "confidence"),
        ({"data": None}, "needs data"),
        ({"data": (), "batch_size": None}, "needs data, .* received a tuple without arrays"),
        ({"data": {}}, "needs data, .* received a dict without arrays"),
        ({"data": {"x": jnp.ones((3, 2)), "y": jnp.ones(2)}}, "common leading axis"),
        ({"loss": lambda params, batch: batch[1]}, "must return a scalar"),
        ({"params": {"a": jnp.full(2, jnp.nan), "b": jnp.ones(2)}}, "finite"),
    ],
)
def test_what_it_cannot_do_is_refused(change, message):
    params, data, _ = least_squares(jnp.float32)
    arguments = {"loss": loss, "params": params, "data": data, "batch_size": 5, "key": KEY, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        gradient_noise(arguments.pop("loss"), arguments.pop("params"), arguments.pop("data"), **arguments)
