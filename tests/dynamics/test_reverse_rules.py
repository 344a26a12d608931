"""Losses of which JAX has only a reverse derivative, against the same losses without a rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.curvature import empirical_fisher, ggn, hessian
from jaxopt_study.dynamics import account_step, stability


@jax.custom_vjp
def squash(x):
    return jnp.tanh(x)


squash.defvjp(lambda x: (squash(x), x), lambda x, u: (u * (1 - squash(x) ** 2),))

DATA = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
PARAMS = jnp.array([0.3, -0.2, 0.5])


def losses(act):
    return lambda p, batch: act(batch @ p) ** 2


def mean(act):
    return lambda p, batch: jnp.mean(act(batch @ p) ** 2)


def gauss(act, **how):
    return ggn(lambda p, b: act(b @ p), lambda out, b: jnp.mean(out**2), PARAMS, DATA, **how)


MATRICES = {
    "hessian": lambda act, **how: hessian(mean(act), PARAMS, DATA, **how),
    "ggn": gauss,
    "empirical_fisher": lambda act, **how: empirical_fisher(losses(act), PARAMS, DATA, **how),
}


@pytest.mark.parametrize("how", [{}, {"batch_size": 4}, {"batch_size": 4, "remat": False}], ids=["", "batched", "kept"])
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_are_those_of_the_loss_without_a_rule(name, how):
    found, expected = (MATRICES[name](act, **how).to_dense() for act in (squash, jnp.tanh))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_account_and_stability_are_those_of_the_loss_without_a_rule():
    update = -0.1 * jax.grad(mean(jnp.tanh))(PARAMS, DATA)
    for a, b in zip(*(account_step(mean(act), PARAMS, update, DATA)[:3] for act in (squash, jnp.tanh)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    tx = optax.sgd(0.1, 0.9)
    found, expected = (stability(tx, tx.init(PARAMS), mean(act), PARAMS, DATA) for act in (squash, jnp.tanh))
    assert abs(found.radius - expected.radius) <= found.error + expected.error + 1e-6


def test_functions_that_have_no_derivative_at_all_keep_their_message():
    with pytest.raises(TypeError, match="must return"):
        hessian(lambda p, b: p, PARAMS)
