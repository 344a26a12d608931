"""Values held constant inside a program, however deep they were computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxopt_study.dynamics._stop_gradient_at import hold_results


def plain(x):
    square = x * x
    return square, x * square


def compiled(x):
    square, product = jax.jit(jax.jit(plain))(x)
    return square, product


def branching(x):
    return lax.cond(x > 0, plain, lambda x: (0.0 * x, x), x)


def stored_in_half_precision(x):
    square = x * x
    return square.astype(jnp.float16), x * square


def stored_through_a_call(x):
    square = x * x
    return jax.jit(lambda y: jnp.where(y > 0, y, 0.0))(square), x * square


@pytest.mark.parametrize("fn", [plain, compiled, branching, stored_in_half_precision, stored_through_a_call])
def test_held_value_is_constant_wherever_it_is_used(fn):
    x = jnp.float32(3.0)
    held = hold_results(fn, [lax.stop_gradient, None])
    for wrapped in (held, jax.jit(held)):
        np.testing.assert_allclose(wrapped(x)[1], 27.0)
        np.testing.assert_allclose(jax.jacfwd(wrapped)(x)[1], 9.0)
    assert jax.jacfwd(fn)(x)[1] == 27.0  # the negative control


@pytest.mark.parametrize("fn", [plain, compiled, branching])
def test_held_value_can_be_replaced(fn):
    square, product = hold_results(fn, [lambda value: jnp.full_like(value, 5.0), None])(jnp.float32(3.0))
    assert (square, product) == (5.0, 15.0)


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: optax.apply_if_finite(tx, 3), lambda tx: optax.chain(tx)])
def test_optax_adam_becomes_linear_in_the_gradient(wrap):
    tx = wrap(optax.adam(0.1, eps=0.0))
    params = jnp.ones(2)
    state = tx.init(params)

    def update(grads):
        return tx.update(grads, state, params)

    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(update(params))]
    held = hold_results(update, [lax.stop_gradient if ".nu" in path else None for path in paths])
    grads = jnp.array([0.5, -2.0])
    np.testing.assert_allclose(jax.jvp(lambda g: held(g)[0], (grads,), (grads,))[1], [-0.1, 0.1], rtol=1e-5)
    # Unfrozen, the first step of Adam is a sign, which does not change.
    np.testing.assert_allclose(jax.jvp(lambda g: update(g)[0], (grads,), (grads,))[1], 0.0, atol=1e-7)
