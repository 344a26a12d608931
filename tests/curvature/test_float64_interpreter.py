"""A program run in double precision computes what wide arguments would give, and draws what the narrow one draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_study.curvature._float64_interpreter import in_double_precision

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 6)).astype(np.float32)
X = RNG.normal(size=6).astype(np.float32)
V = RNG.normal(size=6).astype(np.float32)
ROWS = np.array([0, 2, 2, 5], np.int32)


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda cosine, slope: (slope * cosine,))

PROGRAMS = {
    "scan": lambda x: lax.scan(lambda c, a: (jnp.tanh(c + a @ c), c.sum()), x, jnp.stack([A, A]))[0],
    "cond": lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    "remat": jax.checkpoint(lambda x: jnp.tanh(A @ jnp.sin(A @ x))),
    "custom derivatives": lambda x: sine(jax.nn.relu(A @ x)),
    "scatter": lambda x: jnp.zeros(6, x.dtype).at[ROWS].add(jnp.sin(x[ROWS])),
    "convolution": lambda x: lax.conv(x.reshape(1, 1, 2, 3), x[:4].reshape(1, 1, 2, 2), (1, 1), "SAME"),
    "pooling": lambda x: lax.reduce_window(x.reshape(2, 3), -jnp.inf, lax.max, (2, 2), (1, 1), "SAME"),
    "linear solve": lambda x: jnp.linalg.solve(jnp.diag(3 + x**2) + A @ A.T, x),
    "iterative solve": lambda x: jax.scipy.sparse.linalg.cg(lambda v: (3 + x**2) * v, x, tol=1e-12)[0],
    "fourier": lambda x: jnp.abs(jnp.fft.rfft(x)) ** 2,
    "eigenvalues": lambda x: jnp.linalg.eigvalsh(jnp.diag(2 + x**2) + A @ A.T),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_second_derivatives_are_those_of_wide_arguments(name):
    def product(x, v):
        return jax.jvp(jax.grad(lambda p: jnp.sum(jnp.sin(PROGRAMS[name](p)))), (x,), (v,))[1]

    found = in_double_precision(product, X, V)
    with jax.enable_x64(True):
        expected = jax.jit(product)(X.astype(np.float64), V.astype(np.float64))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    assert np.abs(np.asarray(found) - np.asarray(jax.jit(product)(X, V))).max() > 1e-12  # the narrow one is another


def test_loops_without_a_fixed_length_are_run_in_double_precision():
    def halve(x):
        return lax.while_loop(lambda c: c[1] < 5, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0]

    expected = X.astype(np.float64)
    for _ in range(5):
        expected = np.sin(expected)
    np.testing.assert_allclose(in_double_precision(halve, X), expected, rtol=1e-14)


@pytest.mark.parametrize("draw", ["bernoulli", "normal", "uniform", "gumbel", "permutation", "old key"])
def test_random_draws_are_those_of_the_narrow_program(draw):
    def draws(scale):
        key = jax.random.PRNGKey(3) if draw == "old key" else jax.random.key(3)
        sample = {
            "bernoulli": lambda: jax.random.bernoulli(key, 0.9, (1000,)),
            "normal": lambda: jax.random.normal(key, (1000,)),
            "uniform": lambda: jax.random.uniform(key, (1000,), scale.dtype, -1.0, 2.0),
            "gumbel": lambda: jax.random.gumbel(key, (1000,)),
            "permutation": lambda: jax.random.permutation(key, 1000),
            "old key": lambda: jax.random.split(key)[0] % 7,
        }
        return scale * sample[draw]()

    scale = jnp.float32(2.0)
    found = in_double_precision(draws, scale)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, draws(scale), rtol=0, atol=0 if draw != "uniform" else 5e-7)


def test_dtypes_that_the_function_names_are_widened_too():
    def coarse(x):
        return (x.astype(jnp.bfloat16) / 3).astype(jnp.float32)

    np.testing.assert_allclose(in_double_precision(coarse, X), X.astype(np.float64) / 3, rtol=1e-14)


def test_pytrees_integers_and_numbers_that_are_not_used_pass_through():
    found = in_double_precision(lambda p, n: {"a": p["a"] / n, "n": n + 1}, {"a": X, "b": None}, jnp.int32(3))
    assert (found["a"].dtype, found["n"].dtype) == (np.float64, np.int32)
    np.testing.assert_allclose(found["a"], X.astype(np.float64) / 3, rtol=1e-15)


def test_a_callback_is_refused():
    with pytest.raises(TypeError, match="pure_callback"):
        in_double_precision(lambda x: jax.pure_callback(np.sin, x, x), X)
