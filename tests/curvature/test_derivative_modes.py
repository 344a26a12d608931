"""Every mode of differentiation gives the Hessian, finite differences within the error that they state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import curvature
from jaxopt_study.curvature import audit, eigenpairs, hessian, noise_floor, sharpness

X = jax.random.normal(jax.random.key(0), (12, 4))
Y = jnp.sin(X.sum(axis=1))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 5)) / 2, "v": jax.random.normal(jax.random.key(2), (5,)) / 2}


def loss(params, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2)


def dense(function=loss, params=PARAMS, data=(X, Y)):
    flat, back = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.hessian(lambda p: function(back(p), data))(flat))


@jax.custom_vjp
def kernel(z):  # a tanh whose gradient a host computes: it has no second derivative
    return jnp.tanh(z)


def on_host(z, u):
    return np.asarray(u) * (1 - np.tanh(np.asarray(z)) ** 2)


kernel.defvjp(lambda z: (kernel(z), z), lambda z, u: (jax.pure_callback(on_host, z, z, u, vmap_method="sequential"),))


def fused(params, batch):
    x, y = batch
    return jnp.mean((kernel(x @ params["w"]) @ params["v"] - y) ** 2)


@jax.custom_vjp
def slope(z):
    return 1 - jnp.tanh(z) ** 2


@jax.custom_vjp
def reverse_only(z):  # the rule of its slope is a reverse rule, too
    return jnp.tanh(z)


slope.defvjp(lambda z: (slope(z), z), lambda z, u: (-2 * u * jnp.tanh(z) * slope(z),))
reverse_only.defvjp(lambda z: (jnp.tanh(z), z), lambda z, u: (u * slope(z),))


def with_reverse_rule(params, batch):
    x, y = batch
    return jnp.mean((reverse_only(x @ params["w"]) @ params["v"] - y) ** 2)


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("mode", ["auto", "forward_over_reverse", "reverse_over_reverse"])
def test_exact_modes_are_the_hessian(mode, batch_size):
    op = hessian(loss, PARAMS, (X, Y), mode=mode, batch_size=batch_size)
    np.testing.assert_allclose(op.to_dense(), dense(), rtol=1e-4, atol=1e-6)
    assert op.product_error == 0


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_finite_differences_are_the_hessian_within_their_error(scale, batch_size):
    scaled = lambda params, batch: scale * loss(params, batch)
    op = hessian(scaled, PARAMS, (X, Y), mode="finite_difference", batch_size=batch_size)
    exact = dense()
    gap = np.linalg.norm(np.asarray(op.to_dense()) / scale - exact, axis=0).max() / np.linalg.norm(exact, 2)
    assert gap < op.product_error < 2e-2
    assert noise_floor(op) == pytest.approx(op.product_error)


def test_their_error_is_smaller_in_double_precision():
    single = hessian(loss, PARAMS, (X, Y), mode="finite_difference").product_error
    with jax.enable_x64(True):
        params, data = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (PARAMS, (X, Y)))
        double = hessian(loss, params, data, mode="finite_difference").product_error
    assert double < 1e-4 * single


def test_auto_takes_the_first_mode_that_the_loss_allows():
    reverse = hessian(with_reverse_rule, PARAMS, (X, Y))
    assert reverse.product_error == 0
    np.testing.assert_allclose(reverse.to_dense(), dense(), rtol=1e-4, atol=1e-6)
    op = hessian(fused, PARAMS, (X, Y))
    assert 0 < op.product_error < 2e-2
    np.testing.assert_allclose(op.to_dense(), dense(), atol=op.product_error * np.abs(dense()).max() * 10)


def test_certificates_widen_by_the_error_and_hold():
    op = hessian(fused, PARAMS, (X, Y))
    largest = np.linalg.eigvalsh(dense())[-1]
    bracket = sharpness(op, key=jax.random.key(0))
    assert float(bracket.lower) <= largest <= float(bracket.upper)
    found = eigenpairs(op, 1, tol=4 * noise_floor(op), key=jax.random.key(0))
    assert abs(float(found.values[0]) - largest) <= op.product_error * largest * 4


def test_audit_accepts_them_and_keeps_their_error():
    op = hessian(loss, PARAMS, (X, Y), mode="finite_difference")
    told = audit(op, key=jax.random.key(0))
    assert told.verdict == "sound", told.messages
    assert told.noise_floor >= op.product_error


def test_a_mode_that_a_loss_does_not_allow_is_refused_with_the_one_that_it_does():
    with pytest.raises(TypeError, match=r"no forward derivative; its program contains custom_vjp.*mode=\"auto\""):
        hessian(with_reverse_rule, PARAMS, (X, Y), mode="forward_over_reverse")
    with pytest.raises(TypeError, match=r"custom_vjp.*mode=\"auto\""):
        hessian(fused, PARAMS, (X, Y), mode="reverse_over_reverse")


def test_a_loss_without_a_gradient_is_refused_by_the_name_of_what_it_contains():
    def opaque(params, batch):
        return jnp.mean(jax.pure_callback(lambda z: np.tanh(z), batch[0][:, 0], batch[0] @ params["w"][:, 0]))

    with pytest.raises(TypeError, match=r"its program contains callback.*jax.custom_vjp"):
        hessian(opaque, PARAMS, (X, Y))


def test_finite_differences_under_jit_take_the_usual_step():
    product = jax.jit(lambda p, v: hessian(loss, p, (X, Y), mode="finite_difference") @ v)
    v = jax.tree.map(jnp.ones_like, PARAMS)
    exact = dense() @ np.ones(25)
    found = np.asarray(jax.flatten_util.ravel_pytree(product(PARAMS, v))[0])
    assert np.linalg.norm(found - exact) < 1e-2 * np.linalg.norm(exact)


def test_a_constant_gradient_has_a_hessian_of_zero():
    op = hessian(lambda p, _: jnp.sum(p), jnp.ones(3), mode="finite_difference")
    np.testing.assert_array_equal(op.to_dense(), 0)


def test_a_block_by_finite_differences_is_the_block():
    op = hessian(loss, PARAMS, (X, Y), mode="finite_difference").restrict(lambda path: path == "v")
    flat = hessian(loss, PARAMS, (X, Y)).restrict(lambda path: path == "v")
    np.testing.assert_allclose(op.to_dense(), flat.to_dense(), atol=2e-3)


def test_auxiliary_values_are_ignored_and_compile_once():
    calls = []

    def with_aux(params, batch):
        calls.append(1)
        return loss(params, batch), {"predictions": batch[0]}

    first = hessian(with_aux, PARAMS, (X, Y), has_aux=True)
    np.testing.assert_allclose(first.to_dense(), dense(), rtol=1e-4, atol=1e-6)
    before = len(calls)
    hessian(with_aux, PARAMS, (X, Y), has_aux=True).to_dense()
    assert len(calls) == before
    with pytest.raises(TypeError, match="must return a pair"):
        hessian(loss, PARAMS, (X, Y), has_aux=True)
    with pytest.raises(TypeError, match="has_aux=True"):
        hessian(with_aux, PARAMS, (X, Y))


@pytest.mark.parametrize("argument", [{"mode": "fast"}, {"mode": None}, {"has_aux": 1}])
def test_wrong_arguments_are_refused(argument):
    with pytest.raises((TypeError, ValueError), match=r"hessian"):
        hessian(loss, PARAMS, (X, Y), **argument)


def test_partial_losses_carry_a_key():
    def dropped(key, params, batch):
        x, y = batch
        kept = jax.random.bernoulli(key, 0.5, (5,))
        return jnp.mean((jnp.where(kept, jnp.tanh(x @ params["w"]), 0) @ params["v"] - y) ** 2)

    fixed = partial(dropped, jax.random.key(3))
    op = curvature.hessian(jax.tree_util.Partial(fixed), PARAMS, (X, Y))
    np.testing.assert_allclose(op.to_dense(), dense(fixed), rtol=1e-4, atol=1e-6)
