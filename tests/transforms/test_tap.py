"""Taps measure what passes, inside compiled loops too, and change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.interpreters import partial_eval

from jaxopt_study import optimizers
from jaxopt_study.transforms import (
    add_decayed_weights,
    chain,
    clip_by_global_norm,
    clip_by_value,
    ema,
    from_optax,
    identity,
    merge,
    negate,
    read_taps,
    scale_by_learning_rate,
    tap,
)

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([-1.0])}
GRADS = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([12.0])}  # of norm 13


def read(tx, grads=GRADS, params=PARAMS):
    return read_taps(tx.update(grads, tx.init(params), params)[1])


def program(tx):
    return str(jax.make_jaxpr(lambda g, s, p: tx.update(g, s, p))(GRADS, tx.init(PARAMS), PARAMS))


def test_taps_off_are_the_program_without_them():
    plain = chain(clip_by_global_norm(1.0), optimizers.adam(0.1))
    tapped = chain(tap("clip", clip_by_global_norm(1.0)), tap("adam", optimizers.adam(0.1)))
    off = tapped.replace({"*enabled": False})
    assert program(off) == program(plain)
    assert program(tapped) != program(plain)
    assert read(off) == {}
    assert jax.tree.structure(off.init(PARAMS)) == jax.tree.structure(plain.init(PARAMS))


def test_taps_between_parts_off_are_the_program_without_them():
    plain = chain(clip_by_global_norm(1.0), scale_by_learning_rate(0.1))
    off = chain(tap("in", enabled=False), clip_by_global_norm(1.0), scale_by_learning_rate(0.1))
    assert program(off) == program(plain)


def train(tx, steps=50):
    def step(carry, x):
        params, state = carry
        grads = jax.tree.map(lambda p: jnp.sin(3 * p) * (1 + x), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, read_taps(state))

    return jax.jit(lambda: jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), jnp.arange(steps) % 7.0))()[1]


def test_taps_on_read_every_step_of_a_scan():
    plain, _ = train(chain(clip_by_global_norm(1.0), optimizers.adam(0.1)))
    tapped, readings = train(chain(tap("in"), tap("clip", clip_by_global_norm(1.0)), tap("adam", optimizers.adam(0.1))))
    for leaf in PARAMS:
        # The same operations; how XLA rounds a sum depends on what it fuses it with.
        np.testing.assert_allclose(plain[leaf], tapped[leaf], rtol=1e-5, atol=1e-6)
    assert set(readings) == {"in", "clip", "adam"}
    assert readings["clip"].norm_in.shape == (50,)  # a reading of every step
    np.testing.assert_allclose(readings["clip"].norm_in, readings["in"].norm_out, rtol=1e-6)
    assert (readings["clip"].norm_out <= 1.0 + 1e-6).all()
    assert (readings["clip"].clipped_fraction[1:] == (readings["in"].norm_in[1:] > 1.0)).all()


def test_taps_on_leave_the_parameters_identical():
    plain = chain(clip_by_global_norm(1.0), optimizers.adam(0.1))
    tapped = chain(tap("in"), tap("clip", clip_by_global_norm(1.0)), tap("adam", optimizers.adam(0.1)))
    a, b, here, there = PARAMS, PARAMS, plain.init(PARAMS), tapped.init(PARAMS)
    for scale in (1.0, 0.1, 10.0):
        grads = jax.tree.map(lambda p, s=scale: s * jnp.sin(3 * p), a)
        updates, here = plain.update(grads, here, a)
        a = optax.apply_updates(a, updates)
        updates, there = tapped.update(grads, there, b)
        b = optax.apply_updates(b, updates)
        for leaf in PARAMS:
            np.testing.assert_array_equal(a[leaf], b[leaf])


def test_program_of_the_parameters_is_that_without_taps():
    def parameters_after(tx):
        def steps(params, grads):
            state = tx.init(params)
            for _ in range(2):
                updates, state = tx.update(grads, state, params)
                params = optax.apply_updates(params, updates)
            return params

        jaxpr = jax.make_jaxpr(steps)(PARAMS, GRADS).jaxpr
        return str(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0])

    plain = chain(clip_by_global_norm(1.0), optimizers.adam(0.1))
    tapped = chain(tap("in"), tap("clip", clip_by_global_norm(1.0)), tap("adam", optimizers.adam(0.1)))
    assert parameters_after(tapped) == parameters_after(plain)


def test_readings_are_what_numpy_finds():
    reading = read(chain(tap("clip", clip_by_value(5.0))))["clip"]
    before, after = np.array([3.0, -4.0, 12.0]), np.array([3.0, -4.0, 5.0])
    assert reading.norm_in == pytest.approx(13.0)
    assert reading.norm_out == pytest.approx(np.linalg.norm(after))
    assert reading.cosine == pytest.approx(before @ after / np.linalg.norm(before) / np.linalg.norm(after))
    assert reading.clipped_fraction == pytest.approx(1 / 3)


def test_cosine_is_with_the_raw_gradient_of_the_whole_chain():
    tx = chain(clip_by_value(5.0), chain(negate(), tap("end")))
    after = -np.array([3.0, -4.0, 5.0])
    expected = after @ np.array([3.0, -4.0, 12.0]) / np.linalg.norm(after) / 13.0
    assert read(tx)["end"].cosine == pytest.approx(expected)
    assert read(chain(tap("step", scale_by_learning_rate(0.1))))["step"].cosine == pytest.approx(-1.0)


def test_nothing_is_measured_as_nothing():
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    for tx in (chain(tap("here")), chain(tap("here", clip_by_global_norm(0.0)))):
        assert tuple(map(float, read(tx, zero)["here"])) == (0.0, 0.0, 0.0, 0.0)
    assert read_taps(tap("here", ema(0.9)).init({})) == read_taps(tap("here").update({}, tap("here").init({}))[1])


def test_nan_is_seen():
    reading = read(chain(tap("here")), {"a": jnp.array([jnp.nan, 1.0]), "b": jnp.zeros(1)})["here"]
    assert np.isnan([reading.norm_in, reading.norm_out, reading.cosine]).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx, True),
        lambda tx: from_optax(optax.masked)(tx, True),
        lambda tx: optax.chain(optax.identity(), tx),
        lambda tx: optax.partition({"all": tx}, "all"),
        lambda tx: merge(lambda a, b: a, tx, identity()),
        lambda tx: tap("outer", chain(identity(), tx)),
        lambda tx: optax.apply_if_finite(tx, 3),
    ],
    ids=["masked", "wrapped masked", "optax.chain", "partition", "merge", "tap", "apply_if_finite"],
)
def test_is_read_wherever_it_is(wrap):
    reading = read(chain(wrap(tap("inner", clip_by_value(5.0)))))["inner"]
    assert reading.norm_in == pytest.approx(13.0)
    assert reading.clipped_fraction == pytest.approx(1 / 3)


def test_sees_only_its_part_inside_masked():
    tx = chain(optax.masked(tap("part", clip_by_value(3.5)), {"a": True, "b": False}))
    reading = read(tx)["part"]
    assert reading.norm_in == pytest.approx(5.0)
    assert reading.norm_out == pytest.approx(np.hypot(3.0, 3.5))
    assert reading.clipped_fraction == pytest.approx(0.5)
    # The part's angle to its own share of the raw gradient.
    assert reading.cosine == pytest.approx((9 + 14) / np.hypot(3.0, 3.5) / 5.0)


def test_passes_parameters_and_other_arguments_on():
    reading = read(chain(tap("decay", add_decayed_weights(1.0))))["decay"]
    assert reading.norm_out == pytest.approx(np.linalg.norm([4.0, -2.0, 11.0]))


def test_lanes_of_a_vmap_read_apart():
    tx = chain(tap("clip", clip_by_global_norm(2.0)))
    scales = jnp.array([0.1, 1.0])
    readings = jax.vmap(lambda s: read(tx, jax.tree.map(lambda g: s * g, GRADS)))(scales)
    np.testing.assert_allclose(readings["clip"].norm_in, [1.3, 13.0], rtol=1e-6)
    np.testing.assert_allclose(readings["clip"].norm_out, [1.3, 2.0], rtol=1e-6)


@pytest.mark.parametrize(
    "build",
    [lambda: chain(tap("x"), tap("x")), lambda: chain(tap("x", tap("x"))), lambda: chain(tap("x"), chain(tap("x")))],
    ids=["side by side", "nested", "in a chain"],
)
def test_two_of_one_name_are_an_error(build):
    with pytest.raises(ValueError, match="Two taps are called 'x'; give each tap of a chain its own name"):
        read_taps(build().init(PARAMS))
