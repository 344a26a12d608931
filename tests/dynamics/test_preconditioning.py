"""The preconditioner read from the optimizer, and sharpness in the unit of the threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxopt_study import optimizers
from jaxopt_study.dynamics import preconditioned_sharpness, preconditioner, stability_limit, stability_threshold
from jaxopt_study.dynamics._linearised_step import linear_step
from jaxopt_study.linalg import vectors
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
    with pytest.raises(ValueError, match="is locally constant"):  # a whole parameter without gradient, and ε = 0
        preconditioner(tx, tx.init(params), only_b, params)
    half = lambda p, _: 2.0 * jnp.sum(p["b"] ** 2) + jnp.sum(p["a"][0] ** 2)
    params = {"a": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "b": jnp.ones(2)}
    found = preconditioned_sharpness(tx, tx.init(params), half, params, key=KEY)
    assert found.upper == pytest.approx(1.0, rel=1e-2)  # 4/√16, 2/√4


def test_what_is_no_preconditioner_is_refused():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}
    for tx, message in [
        (optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1)), "mixes coordinates"),
        (optax.lion(0.1), "is locally constant"),
        (optax.scale(0.1), "points along .gradient"),
    ]:
        with pytest.raises(ValueError, match=message):
            preconditioner(tx, tx.init(params), loss, params, 1.0)
    inactive = optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(0.1))
    np.testing.assert_allclose(preconditioner(inactive, inactive.init(params), loss, params, 1.0).diagonal["b"], 1.0)


def some_without_gradient(params, _):
    return 0.5 * jnp.sum(jnp.array([3.0, 2.0, 0.0]) * params**2)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(optax.clip_by_global_norm(1e-3), optax.adam(0.1)),
        pytest.param(
            optax.chain(optax.scale_by_adam(), optax.clip_by_global_norm(1e-3), optax.scale(-0.1)),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["before", "after"],
)
def test_an_active_clip_is_seen_beside_a_coordinate_that_answers_far_more(tx):
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="mixes coordinates"):
        preconditioned_sharpness(tx, tx.init(params), some_without_gradient, params)
    # The negative control: the dense response is not diagonal. At 0 the root of Optax's Adam has no derivative.
    updates = lambda g: tx.update(g, tx.init(params), params)[0]
    grads = jax.grad(some_without_gradient)(params, None)
    response = np.asarray(jax.jacfwd(updates)(jnp.where(grads == 0, 1e-12, grads)))
    assert np.abs(response - np.diag(np.diag(response))).max() > 0


def normalised(params, data):
    """A network with batch normalisation, whose biases have no gradient but rounding."""
    hidden = data @ params["w"] + params["b"]
    hidden = (hidden - hidden.mean(0)) / jnp.sqrt(hidden.var(0) + 1e-5)
    return jnp.mean((jnp.tanh(hidden) @ params["o"] - jnp.sin(data[:, 0])) ** 2)


@pytest.mark.slow
def test_a_network_with_batch_norm_has_a_preconditioner():
    draw = np.random.default_rng(0).normal
    data = jnp.asarray(draw(size=(16, 4)), jnp.float32)
    params = {"w": jnp.asarray(draw(size=(4, 5)), jnp.float32), "b": jnp.zeros(5), "o": jnp.asarray(draw(size=5))}
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    tx = optax.adam(0.01)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.grad(normalised)(params, data), state, params)
        params = optax.apply_updates(params, updates)
    found = preconditioner(tx, state, normalised, params, data)
    grads = jax.grad(normalised)(params, data)
    for name in params:
        root = np.sqrt((0.999 * state[0].nu[name] + 0.001 * grads[name] ** 2) / (1 - 0.999**4))
        units = 1 / np.sqrt(1 - 0.999**4) + 1e-8
        np.testing.assert_allclose(
            found.diagonal[name], (root + 1e-8) / units, rtol=2e-3, atol=1e-9
        )  # rounding of zeros
    clipped = optax.chain(optax.clip_by_global_norm(1e-2), tx)
    with pytest.raises(ValueError, match="mixes coordinates"):
        preconditioner(clipped, clipped.init(params), normalised, params, data)


def test_a_rate_of_zero_is_named_as_the_reason():
    params = jnp.ones(3)
    warm = optax.sgd(optax.linear_schedule(0.0, 0.1, 10), momentum=0.9)
    state = warm.init(params)
    with pytest.raises(ValueError, match=r"zero for every gradient.*rate is 0.*warms up"):
        preconditioned_sharpness(warm, state, some_without_gradient, params)
    with pytest.raises(ValueError, match=r"zero for every gradient.*rate is 0.*warms up"):
        stability_limit(warm, state, params)
    assert stability_threshold(warm, state, params) == np.inf
    _, later = warm.update(params, state, params)
    found = preconditioned_sharpness(warm, later, some_without_gradient, params)
    assert found.threshold == pytest.approx(3.8 / 0.01)


def test_a_frozen_group_bears_any_curvature():
    tx = optax.partition({"s": optax.sgd(0.1), "f": optax.set_to_zero()}, {"a": "s", "b": "f"})
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    loss = lambda p, _: some_without_gradient(p["a"], None) + 50.0 * jnp.sum(p["b"] ** 2)
    found = preconditioned_sharpness(tx, tx.init(params), loss, params)
    assert found.upper == pytest.approx(3.0, rel=0.01)
    assert found.threshold == pytest.approx(20.0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_rounding_in_half_precision_is_no_mixing_of_coordinates(dtype):
    def bowl(params, _=None):
        return jnp.sum(jnp.square(params - 1))

    tx, narrow = optimizers.adam(0.1), jnp.asarray(np.random.default_rng(0).normal(size=50), dtype)
    single = narrow.astype(jnp.float32)
    found = preconditioner(tx, tx.init(narrow), bowl, narrow)
    expected = preconditioner(tx, tx.init(single), bowl, single)
    np.testing.assert_allclose(np.asarray(found.diagonal, float), expected.diagonal, rtol=0.05)
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1))
    with pytest.raises(ValueError, match="mixes coordinates"):
        preconditioner(clipped, clipped.init(narrow), bowl, narrow)
