"""Gradient noise: its own randomness in every lane, the published variance, and nothing that depends on layout."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.transforms import add_gradient_noise, chain, scale_by_learning_rate

KEY = jax.random.key(7)


def noise_of(tx, like, steps=1):
    state, outputs = tx.init(like), []
    zero = jax.tree.map(jnp.zeros_like, like)
    for _ in range(steps):
        noise, state = tx.update(zero, state)
        outputs.append(noise)
    return outputs


def test_replayed_key_replays_the_noise():
    tx = add_gradient_noise(0.1, 0.55, KEY)
    first, again = noise_of(tx, jnp.zeros(5), 3), noise_of(add_gradient_noise(0.1, 0.55, KEY), jnp.zeros(5), 3)
    np.testing.assert_array_equal(first, again)
    other = noise_of(add_gradient_noise(0.1, 0.55, jax.random.key(8)), jnp.zeros(5), 3)
    assert not np.isin(other, first).any()


def test_each_step_and_each_leaf_has_its_own_noise():
    steps = noise_of(add_gradient_noise(1.0, 0.0, KEY), {"a": jnp.zeros(50), "b": jnp.zeros(50)}, 3)
    draws = np.concatenate([np.asarray(step[leaf]) for step in steps for leaf in "ab"])
    assert len(np.unique(draws)) == 300


@pytest.mark.parametrize("wrap", [lambda tx: tx, chain, lambda tx: optax.chain(tx, optax.identity())])
def test_lanes_of_a_vmap_over_keys_differ_and_equal_their_solo_runs(wrap):
    keys = jax.random.split(KEY, 4)

    def run(key):
        return jnp.stack(noise_of(wrap(add_gradient_noise(0.1, 0.55, key)), jnp.zeros(6), 2))

    lanes = np.asarray(jax.vmap(run)(keys))
    assert len(np.unique(lanes)) == lanes.size
    for lane, key in zip(lanes, keys, strict=True):
        np.testing.assert_allclose(lane, run(key), rtol=1e-5, atol=1e-6)


def test_optax_noise_is_shared_by_the_lanes_and_ours_is_not():
    def ours(key):
        return noise_of(add_gradient_noise(0.1, 0.55, key), jnp.zeros(4))[0]

    def optaxs(key):
        del key  # captured when the transformation is built, it cannot be a lane's own
        tx = optax.add_noise(0.1, 0.55, jax.random.key(0))
        return tx.update(jnp.zeros(4), tx.init(jnp.zeros(4)))[0]

    keys = jax.random.split(KEY, 2)
    assert (jax.vmap(ours)(keys)[0] != jax.vmap(ours)(keys)[1]).all()
    np.testing.assert_array_equal(*jax.vmap(optaxs)(keys))


def test_key_is_state_so_a_lane_can_be_given_its_own():
    tx = add_gradient_noise(1.0, 0.0, KEY)
    states = jax.vmap(lambda key: tx.init(jnp.zeros(3)).__class__(key, jnp.zeros((), jnp.int32)))(
        jax.random.split(KEY, 2)
    )
    noise, _ = jax.vmap(lambda s: tx.update(jnp.zeros(3), s))(states)
    assert (noise[0] != noise[1]).all()


@pytest.mark.parametrize(("eta", "gamma"), [(0.01, 0.55), (1.0, 0.55), (0.3, 0.0)])
def test_variance_follows_the_published_schedule(eta, gamma):
    size, seeds, checked = 4000, 5, (0, 1, 9, 99)

    def run(key):
        tx = add_gradient_noise(eta, gamma, key)

        def step(state, _):
            noise, state = tx.update(jnp.zeros(size), state)
            return state, jnp.stack([noise.mean(), (noise**2).mean()])

        return jax.lax.scan(step, tx.init(jnp.zeros(size)), length=100)[1]

    moments = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, seeds)))
    for step in checked:
        variance = eta / (1 + step) ** gamma
        mean_error, variance_error = np.sqrt(variance / size), variance * np.sqrt(2 / size)
        assert (np.abs(moments[:, step, 0]) < 4 * mean_error).all()
        assert (np.abs(moments[:, step, 1] - variance) < 4 * variance_error).all()
    # Negative control: the schedule of the step before is outside the interval.
    if gamma:
        assert (np.abs(moments[:, 1, 1] - eta) > 4 * eta * np.sqrt(2 / size)).all()


def test_noise_is_normal():
    noise = np.sort(np.asarray(noise_of(add_gradient_noise(1.0, 0.0, KEY), jnp.zeros(20_000))[0]))
    normal = np.asarray(jax.scipy.stats.norm.cdf(noise))
    distance = np.abs(normal - (np.arange(noise.size) + 0.5) / noise.size).max()
    assert distance < 1.95 / np.sqrt(noise.size)  # Kolmogorov's bound at one in a thousand


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2), (12, 1)])
def test_noise_does_not_depend_on_the_shape_of_its_leaf(shape):
    tx = add_gradient_noise(1.0, 0.0, KEY)
    flat = noise_of(tx, {"a": jnp.zeros(12), "b": jnp.zeros(2)}, 2)
    shaped = noise_of(tx, {"a": jnp.zeros(shape), "b": jnp.zeros((2, 1))}, 2)
    for x, y in zip(flat, shaped, strict=True):
        np.testing.assert_array_equal(x["a"], y["a"].ravel())
        np.testing.assert_array_equal(x["b"], y["b"].ravel())


def test_noise_does_not_depend_on_the_size_of_other_leaves():
    tx = add_gradient_noise(1.0, 0.0, KEY)
    small, large = (noise_of(tx, {"a": jnp.zeros(n), "b": jnp.zeros(5)})[0]["b"] for n in (1, 100))
    np.testing.assert_array_equal(small, large)


def test_noise_is_added_to_the_gradient_unscaled():
    tx = add_gradient_noise(0.01, 0.0, KEY)
    (noise,) = noise_of(tx, jnp.zeros(4))
    grads = jnp.array([1.0, -100.0, 0.0, 3.0])
    noisy, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(noisy - grads, noise, atol=1e-5)


def test_no_variance_is_no_noise():
    tx = chain(add_gradient_noise(0.0, 0.55, KEY), scale_by_learning_rate(1.0))
    np.testing.assert_array_equal(tx.update(jnp.ones(3), tx.init(jnp.ones(3)))[0], -jnp.ones(3))


def test_state_does_not_share_the_key_of_the_transformation():
    tx = add_gradient_noise(1.0, 0.0, KEY)
    donate = jax.jit(lambda state: tx.update(jnp.zeros(2), state), donate_argnums=0)
    first, _ = donate(tx.init(jnp.zeros(2)))
    np.testing.assert_array_equal(donate(tx.init(jnp.zeros(2)))[0], first)  # the key is still there
