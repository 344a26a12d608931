"""Compilation: each program once, and none again for other numbers."""

import gc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from jaxopt_study.problems import Problem
from jaxopt_study.training import _device_put as placement
from jaxopt_study.training import train
from jaxopt_study.training._compiled_loop import begin, next_chunk, next_step, whole_run
from jaxopt_study.training._device_put import on_device

KEY = jax.random.key(0)
PROGRAMS = {"jit(start)", "jit(next_chunk)", "jit(last_records)", "jit(_finish)", "jit(whole_run)", "jit(next_step)"}


def test_other_numbers_do_not_compile_anything_again(regression, compilations):
    settings = {"batch_size": 5, "evaluate_every": 4}
    train(regression, optimizers.adam(0.1), num_steps=30, key=KEY, **settings)
    same_shapes = regression.replace(data=jax.tree.map(lambda x: 2 * x, regression.data))
    for problem, rate, b2, num_steps in [
        (regression, 0.01, 0.999, 30), (regression, 0.1, 0.9, 77), (same_shapes, 0.1, 0.99, 300),
    ]:  # fmt: skip
        with compilations() as counter:
            run = train(problem, optimizers.adam(rate, b2=b2), num_steps=num_steps, key=jax.random.key(1), **settings)
        assert not PROGRAMS & set(counter.names)
        assert int(run.num_steps) == num_steps


def test_the_counter_of_compilations_counts(regression, compilations):
    with compilations() as counter:
        train(regression, optimizers.adam(0.1), num_steps=3, key=KEY, batch_size=11)
    assert "jit(next_chunk)" in counter.names


def test_a_plain_optax_transformation_compiles_once(regression, compilations):
    optimizer = optax.adam(0.1)
    train(regression, optimizer, num_steps=30, key=KEY, batch_size=5)
    with compilations() as counter:
        train(regression, optimizer, num_steps=50, key=jax.random.key(1), batch_size=5)
    assert not PROGRAMS & set(counter.names)


def test_lanes_over_other_numbers_do_not_compile_again(regression, compilations):
    def trial(key, rate):
        return train(regression, optimizers.adam(rate), num_steps=20, key=key, batch_size=5)

    lanes = jax.vmap(trial)
    first = lanes(jax.random.split(KEY, 3), jnp.array([0.1, 0.01, 0.001]))
    with compilations() as counter:
        lanes(jax.random.split(jax.random.key(1), 3), jnp.array([0.2, 0.02, 0.002]))
    assert not PROGRAMS & set(counter.names)
    for lane, rate in enumerate([0.1, 0.01, 0.001]):
        alone = trial(jax.random.split(KEY, 3)[lane], rate)
        np.testing.assert_allclose(first.losses[lane], alone.losses, rtol=2e-4, atol=1e-6)
        assert jax.tree.map(lambda x: x.shape[1:], first) == jax.tree.map(lambda x: x.shape, alone)


def test_lanes_share_one_loop_whose_counter_is_not_batched(regression):
    """A batched counter would turn every slice of the data into a gather and every cadence into work at every step."""

    def trial(key, **cadences):
        return train(regression, optimizers.adam(0.1), num_steps=20, key=key, evaluate_every=5, **cadences).losses

    keys = jax.random.split(KEY, 3)
    program = jax.make_jaxpr(jax.vmap(partial(trial, record_params_every=4)))(keys)
    assert "cond[" in str(program)  # evaluations stay conditional: not a select between both branches
    program = jax.make_jaxpr(jax.vmap(trial))(keys)
    loops = [equation for equation in program.jaxpr.eqns[0].params["jaxpr"].jaxpr.eqns if "jaxpr" in equation.params]
    # Records of one cadence: a loop over segments, in which each is made once. What is left is a branch for all lanes,
    # in case the squares of gradients overflow.
    assert str(program).count("cond[") == 1
    assert loops


def test_the_data_are_not_constants_of_the_program(planned, bowl):
    data = np.random.default_rng(0).normal(size=(50_000, 2)).astype(np.float32)
    problem = Problem("mean", init=bowl.init, loss=lambda p, x: jnp.mean((x - p) ** 2), data=data)
    plan, inputs = planned(problem, optax.sgd(0.1), batch_size=10)
    assert len(whole_run.lower(plan, inputs, None, KEY, 3).as_text()) < 200_000


def test_the_carry_is_overwritten_in_place(planned, regression):
    plan, inputs = planned(regression, optax.adam(0.1), batch_size=10)
    constants, carry = begin(plan, inputs, None, KEY)
    for advance, bounds in ((next_chunk, (np.int32(0), np.int32(3))), (next_step, (np.int32(3),))):
        old = carry
        carry, _ = advance(plan, inputs, constants, old, *bounds)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.opt_state)))


def test_training_can_be_differentiated(bowl):
    def final_loss(rate):
        return bowl.loss(train(bowl, optimizers.sgd(rate), num_steps=5, key=KEY).params, None)

    # ½ ‖x₀‖² (1 − η)¹⁰ has derivative −5 ‖x₀‖² (1 − η)⁹.
    assert float(jax.grad(final_loss)(0.1)) == pytest.approx(-5 * 13 * 0.9**9, rel=1e-4)


def ones_at(offset):
    """An array of ones, so many bytes behind a multiple of 64, where a CPU device would share its memory."""
    room = np.zeros(192, np.uint8)
    start = (offset - room.ctypes.data) % 64
    ones = room[start : start + 48].view(np.float32).reshape(6, 2)
    ones[:] = 1.0
    return ones


@pytest.mark.parametrize("offset", [0, 4])
def test_read_only_data_are_copied_to_the_device_once_and_others_every_time(bowl, offset):
    data, frozen = ones_at(offset), ones_at(offset)
    frozen.setflags(write=False)
    assert on_device({"x": frozen})["x"] is on_device([frozen])[0]
    before = on_device(data)
    data *= 2
    np.testing.assert_array_equal(before, np.ones((6, 2)))
    np.testing.assert_array_equal(on_device(data), np.full((6, 2), 2.0))

    problem = Problem("mean", init=bowl.init, loss=lambda p, x: jnp.mean((x - p) ** 2), data=data)
    first = train(problem, optax.sgd(0.1), num_steps=1, key=KEY)
    data *= 2
    second = train(problem, optax.sgd(0.1), num_steps=1, key=KEY)
    assert float(second.losses[0]) != float(first.losses[0])

    remembered = len(placement._copies)
    del frozen
    gc.collect()
    assert len(placement._copies) == remembered - 1
