"""The preconditioner read from the optimizer, and sharpness in the unit of the threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxopt_study import optimizers
from jaxopt_study.curvature import vectors
from jaxopt_study.dynamics import preconditioned_sharpness, preconditioner, stability_threshold
from jaxopt_study.dynamics.linearised import linear_step
from jaxopt_study.transforms import gradient_point

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
CURVATURES = np.array([9.0, 5.0, 2.0, 1.0, 0.5, 0.1])


def loss(params, scale):
    theta = jnp.concatenate([params["a"].ravel(), params["b"]])
    return 0.5 * scale * theta @ jnp.asarray(BASIS * CURVATURES @ BASIS.T, theta.dtype) @ theta


def trained(tx, scale, num_steps=6):
    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(gradient_point(params, state), scale)
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(lambda p, u: p + 0.01 * u, params, updates), state

    params = {"a": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, -0.7])}
    state = tx.init(params)
    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


OPTIMIZERS = {
    "sgd": optimizers.sgd(0.1),
    "momentum": optax.sgd(0.1, 0.9),
    "nesterov": optimizers.nesterov(0.1),
    "lookahead": optimizers.nesterov_lookahead(0.1),
    "adam": optimizers.adam(0.1),
    "optax.adam": optax.adam(0.1),
    "rmsprop": optimizers.rmsprop(0.1, momentum=0.9),
    "optax.rmsprop": optax.rmsprop(0.1),
    "adagrad": optimizers.adagrad(0.1),
    "optax.adagrad": optax.adagrad(0.1),
    "weight decay": optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)),
    "adamw": optax.adamw(0.1, weight_decay=0.5),
    "groups": optax.partition({"slow": optax.sgd(0.05, 0.9), "fast": optax.sgd(0.1, 0.9)}, {"a": "slow", "b": "fast"}),
}
SOME = ("adam",)


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_ratio_is_one_exactly_at_the_edge(name):
    """The Hessian scaled so that the ratio is 1: a hair more, and the dense frozen step is unstable."""
    tx = OPTIMIZERS[name]
    with jax.enable_x64(True):
        params, state = trained(tx, 1.0)
        found = preconditioned_sharpness(tx, state, loss, params, 1.0, key=KEY, tol=1e-6)
        # Scaling the loss would scale the statistics too, so the Hessian is scaled about the gradient it has here.
        grads = jax.grad(loss)(gradient_point(params, state), 1.0)
        point = gradient_point(params, state)

        def scaled(q, scale):
            moved = jax.tree.map(jnp.subtract, q, point)
            return loss(moved, scale) + sum(
                jnp.vdot(g, m) for g, m in zip(*map(jax.tree.leaves, (grads, moved)), strict=True)
            )

        def radius(scale):
            step = linear_step(tx, state, scaled, params, scale, "statistics", None)
            return np.abs(np.linalg.eigvals(np.asarray(columns(step)).T)).max()

        @jax.jit
        def columns(step):
            flat, restore = ravel_pytree(vectors.zeros_like(step.like))
            product = step.linearize()
            return lax.map(lambda v: ravel_pytree(product(restore(v)))[0], jnp.eye(flat.size))

        assert found.ratio[0] == pytest.approx(found.ratio[1], rel=1e-5)
        assert radius(0.999 / found.ratio[0]) < 1
        assert radius(1.001 / found.ratio[0]) > 1


def test_adams_preconditioner_is_the_root_of_its_second_moment():
    tx = optax.adam(0.1, b1=0.9, b2=0.99, eps=1e-3)
    with jax.enable_x64(True):
        params, state = trained(tx, 1.0)
        found = preconditioner(tx, state, loss, params, 1.0)
        grads = jax.grad(loss)(params, 1.0)
        nu = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, state[0].nu, grads)
        root = np.sqrt(1 - 0.99**7)
        for p, v in zip(*map(jax.tree.leaves, (found.diagonal, nu)), strict=True):
            np.testing.assert_allclose(p, (np.sqrt(v) / root + 1e-3) / (1 / root + 1e-3), rtol=1e-10)
    assert found.threshold == pytest.approx(stability_threshold(tx, state, params))


def test_momentum_has_no_preconditioner():
    tx = optimizers.nesterov_lookahead(0.1)
    params, state = trained(tx, 1.0)
    for leaf in jax.tree.leaves(preconditioner(tx, state, loss, params, 1.0).diagonal):
        np.testing.assert_allclose(leaf, 1.0, rtol=1e-6)


def test_groups_carry_the_ratio_of_their_thresholds():
    tx = OPTIMIZERS["groups"]
    params, state = trained(tx, 1.0)
    found = preconditioner(tx, state, loss, params, 1.0)
    np.testing.assert_allclose(found.diagonal["a"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(found.diagonal["b"], 1.0, rtol=1e-6)
    assert found.threshold == pytest.approx(38.0)


def test_unmoved_coordinate_has_no_weight():
    tx = optimizers.adagrad(0.1, eps=0.0)
    params = {"a": jnp.zeros((2, 2)), "b": jnp.ones(2)}
    only_b = lambda p, _: 2.0 * jnp.sum(p["b"] ** 2)
    with pytest.raises(ValueError, match="does not answer"):  # a whole parameter without gradient, and ε = 0
        preconditioner(tx, tx.init(params), only_b, params)
    half = lambda p, _: 2.0 * jnp.sum(p["b"] ** 2) + jnp.sum(p["a"][0] ** 2)
    params = {"a": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "b": jnp.ones(2)}
    found = preconditioned_sharpness(tx, tx.init(params), half, params, key=KEY)
    assert found.upper == pytest.approx(1.0, rel=1e-2)  # 4/√16, 2/√4


def test_what_is_no_preconditioner_is_refused():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}
    for tx, message in [
        (optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1)), "mixes coordinates"),
        (optax.lion(0.1), "does not answer"),
        (optax.scale(0.1), "goes up the gradient"),
    ]:
        with pytest.raises(ValueError, match=message):
            preconditioner(tx, tx.init(params), loss, params, 1.0)
    inactive = optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(0.1))
    np.testing.assert_allclose(preconditioner(inactive, inactive.init(params), loss, params, 1.0).diagonal["b"], 1.0)
