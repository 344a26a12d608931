"""Growing a Krylov space: exact compression, kept orthogonal, whatever the operator."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.linalg import block_lanczos as lanczos
from jaxopt_study.linalg.layout import layout_of, seed_words

N = 120


@partial(jax.jit, static_argnames=("steps", "b"))
def grow(d, key, steps, b=1):
    layout, seed = layout_of(jax.ShapeDtypeStruct(d.shape, d.dtype)), seed_words(key)
    space = lanczos.begin(layout, layout.random(seed, 0, b), (steps + 1) * b, seed)
    breakdown = jnp.asarray(100 * jnp.finfo(d.dtype).eps, d.dtype)

    def step(_, space):
        return lanczos.extend(layout, space, d * lanczos.pending(space, b), seed, breakdown, jnp.bool(True))[0]

    return jax.lax.fori_loop(0, steps, step, space)


SPECTRA = {
    "uniform": np.linspace(-1, 1, N),
    "decaying": 1.5 ** -np.arange(float(N)),
    "identity": np.ones(N),
    "zero": np.zeros(N),
    "rank 3": np.r_[3.0, 2.0, -1.0, np.zeros(N - 3)],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("b", [1, 3])
def test_the_projected_matrix_is_the_compression_of_the_operator(dtype, b):
    with jax.enable_x64(dtype is np.float64):
        for name, spectrum in SPECTRA.items():
            steps = 36 // b
            space = grow(jnp.asarray(spectrum, dtype), jax.random.key(0), steps, b)
            q, t = np.asarray(space.basis, np.float64), np.asarray(space.projected, np.float64)
            m, eps = int(space.count), float(np.finfo(dtype).eps)
            assert m == 36
            # What is dropped at a breakdown is at most 100 ε of the scale.
            np.testing.assert_allclose(q @ q.T, np.eye(m + b), atol=50 * eps, err_msg=name)
            np.testing.assert_allclose(spectrum * q[:m], t[:, :m].T @ q, atol=150 * eps * np.abs(spectrum).max())
            np.testing.assert_allclose(t[:m, :m], t[:m, :m].T, atol=150 * eps * np.abs(spectrum).max(), err_msg=name)


def plain_lanczos(d, steps):
    """Return the Ritz values of the three-term recurrence, which forgets what it has found."""
    q, before, beta = np.random.default_rng(0).normal(size=d.size).astype(d.dtype), np.zeros_like(d), d.dtype.type(0)
    q /= np.linalg.norm(q)
    alphas, betas = [], []
    for _ in range(steps):
        w = d * q - beta * before
        alphas.append(q @ w)
        w -= alphas[-1] * q
        beta = np.linalg.norm(w)
        before, q = q, w / beta
        betas.append(beta)
    return np.linalg.eigvalsh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hundred_steps_make_no_ghosts_where_the_plain_recurrence_does(dtype):
    spectrum = np.r_[10.0, 5.0, 3.0, np.linspace(-1, 1, 397)].astype(dtype)
    copies = lambda values: np.sum(np.abs(values - 10) < 1e-2)
    with jax.enable_x64(dtype is np.float64):
        space = grow(jnp.asarray(spectrum), jax.random.key(0), 100)
        assert copies(np.asarray(lanczos.ritz(space, 1)[0])[:100]) == 1
    assert copies(plain_lanczos(spectrum, 100)) > 1


def test_ritz_residuals_are_those_of_the_ritz_vectors():
    with jax.enable_x64(True):
        d = jnp.asarray(SPECTRA["uniform"])
        space = grow(d, jax.random.key(1), 20)
        values, coefficients, residuals = lanczos.ritz(space, 1)
        vectors = coefficients.T[:20] @ space.basis
        true = jnp.linalg.norm(d * vectors - values[:20, None] * vectors, axis=1)
        np.testing.assert_allclose(residuals[:20], true, rtol=1e-10, atol=1e-14)
        assert np.isinf(residuals[20:]).all()


@pytest.mark.parametrize("b", [1, 3])
def test_a_compressed_space_keeps_its_relation_and_can_grow(b):
    with jax.enable_x64(True):
        d = jnp.asarray(SPECTRA["uniform"])
        space = grow(d, jax.random.key(1), 24 // b, b)
        values, coefficients, _ = lanczos.ritz(space, b)
        compress, extend = jax.jit(lanczos.compress, static_argnums=(4, 5)), jax.jit(lanczos.extend, static_argnums=0)
        space = compress(space, values, coefficients, jnp.int32(6), 6, b)
        seed, layout = seed_words(jax.random.key(2)), layout_of(jax.ShapeDtypeStruct(d.shape, d.dtype))
        residuals = lanczos.ritz(space, b)[2][:6]
        true = d * space.basis[:6] - values[:6, None] * space.basis[:6]
        np.testing.assert_allclose(residuals, jnp.linalg.norm(true, axis=1), atol=1e-13)
        for _ in range(3):
            products = d * lanczos.pending(space, b)
            space, _ = extend(layout, space, products, seed, jnp.asarray(1e-14), jnp.bool(True))
        m = 6 + 3 * b
        assert int(space.count) == m
        q, t = space.basis[: m + b], space.projected[: m + b, :m]
        np.testing.assert_allclose(d * q[:m], t.T @ q, atol=1e-13)
        np.testing.assert_allclose(q @ q.T, np.eye(m + b), atol=1e-13)


def test_random_directions_are_standard_normal_and_differ():
    layout = layout_of(
        {"a": jax.ShapeDtypeStruct((50_000,), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    )
    draw = jax.jit(layout.random, static_argnums=2)
    seed = seed_words(jax.random.key(0))
    block = np.asarray(draw(seed, 0, 2), np.float64)
    others = [
        draw(seed, 1, 1),
        draw(seed_words(jax.random.key(1)), 0, 1),
        draw(seed_words(jax.random.PRNGKey(2)), 0, 1),
    ]
    rows = np.concatenate([block, *(np.asarray(x, np.float64) for x in others)])
    n = rows.shape[1]
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        np.testing.assert_array_less(np.abs(np.mean(rows**power, axis=1) - moment), 5 * np.sqrt(variance / n))
    correlations = rows @ rows.T / n - np.eye(len(rows))
    neighbours = np.mean(rows[:, 1:] * rows[:, :-1], axis=1)
    assert np.abs(correlations[~np.eye(len(rows), dtype=bool)]).max() < 5 / np.sqrt(n)
    assert np.abs(neighbours).max() < 5 / np.sqrt(n)
    quantiles = np.quantile(rows, [0.01, 0.25, 0.5, 0.75, 0.99])
    np.testing.assert_allclose(quantiles, [-2.3263, -0.6745, 0, 0.6745, 2.3263], atol=0.03)
    np.testing.assert_array_equal(seed_words(jax.random.PRNGKey(0)), seed)


def test_random_directions_are_the_same_in_every_layout():
    like = {"a": jax.ShapeDtypeStruct((3, 4), jnp.float32), "b": jax.ShapeDtypeStruct((7,), jnp.float32)}
    flat, seed = layout_of(like), seed_words(jax.random.key(0))
    leaves = replace(flat, flat=False)
    assert flat.flat
    for serial in (0, 1, 5):
        block = jax.vmap(flat.unpack)(flat.random(seed, serial, 3))
        jax.tree.map(np.testing.assert_array_equal, block, leaves.random(seed, serial, 3))
