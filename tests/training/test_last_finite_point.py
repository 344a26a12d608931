"""A diverged run keeps its last finite point, and a run that stands still is flagged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from jaxopt_study.problems import Problem
from jaxopt_study.training import EarlyStopping, train

KEY = jax.random.key(0)


def alone_and_as_a_lane(problem, make_optimizer, rate, **settings):
    """Train alone, and as the second of two lanes, of which the first takes no steps to speak of."""
    settings = {"key": KEY} | settings
    alone = train(problem, make_optimizer(rate), **settings)
    lanes = jax.vmap(lambda rate: train(problem, make_optimizer(rate), **settings))(jnp.array([1e-30, rate]))
    return alone, jax.tree.map(lambda leaf: leaf[1], lanes)


def test_a_gradient_that_is_not_finite_is_not_applied_though_its_loss_is():
    # √x at 1, then at 1 − 1·½ = ½, …: the second coordinate stands at 0, where the slope is infinite.
    root = Problem("root", init=lambda key: jnp.array([4.0, 0.0]), loss=lambda p, _: jnp.sum(jnp.sqrt(p)))
    for run in alone_and_as_a_lane(root, optimizers.adam, 0.1, num_steps=5, record_params_every=1):
        np.testing.assert_array_equal(run.params, [4.0, 0.0])
        assert (bool(run.diverged), int(run.diverged_at), int(run.num_steps)) == (True, 0, 0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.opt_state))
        assert np.isnan(run.losses).all()
        np.testing.assert_array_equal(run.snapshots[0], [4.0, 0.0])
        assert np.isnan(run.snapshots[1:]).all()


@pytest.mark.parametrize("loop", ["compiled", "host"])
def test_an_update_that_overflows_is_not_applied_though_loss_and_gradient_are_finite(loop):
    # tanh is finite and flat at infinity, so that neither the next loss nor its gradient would tell.
    flat = Problem("flat", init=lambda key: jnp.array([1.0, 0.5]), loss=lambda p, _: 10 * jnp.sum(jnp.tanh(p)))
    optimizer = optax.chain(
        optax.sgd(optax.piecewise_constant_schedule(0.01, {3: 1e20}), momentum=0.5),
        optax.scale_by_schedule(optax.piecewise_constant_schedule(1.0, {3: 1e25})),
    )
    run = train(flat, optimizer, num_steps=9, key=KEY, record_params_every=1, loop=loop)
    shorter = train(flat, optimizer, num_steps=3, key=KEY, loop=loop)
    assert (int(run.diverged_at), int(run.num_steps)) == (3, 3)
    for a, b in zip(jax.tree.leaves((run.params, run.opt_state)), jax.tree.leaves((shorter.params, shorter.opt_state)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_array_equal(run.params, run.snapshots[3])
    assert np.isnan(run.losses[3:]).all()


def test_a_lane_keeps_its_last_finite_point_as_a_run_alone_does():
    flat = Problem("flat", init=lambda key: jnp.array([1.0, 0.5]), loss=lambda p, _: 10 * jnp.sum(jnp.tanh(p)))
    for run in alone_and_as_a_lane(flat, optimizers.sgd, 3e38, num_steps=4):
        np.testing.assert_array_equal(run.params, [1.0, 0.5])
        assert (bool(run.diverged), int(run.diverged_at)) == (True, 0)


def test_large_gradients_are_not_infinite_ones():
    # ‖g‖² overflows in float32, g does not.
    steep = Problem("steep", init=lambda key: jnp.array([1.0, 2.0]), loss=lambda p, _: 1e20 * jnp.sum(p))
    run = train(steep, optax.sgd(1e-21), num_steps=3, key=KEY)
    np.testing.assert_allclose(run.params, [0.7, 1.7], rtol=1e-5)
    assert not run.diverged


def test_carried_variables_stay_finite_and_those_that_begin_infinite_may():
    def step_loss(params, state, batch, key):
        return params**2, {"mean": 1e15 * state["mean"], "lowest": state["lowest"]}

    growing = Problem(
        "growing", init=lambda key: jnp.array(1.0), loss=lambda p, batch, state: p**2,
        init_state=lambda key: {"mean": jnp.array(1.0), "lowest": jnp.array(jnp.inf)}, step_loss=step_loss,
    )  # fmt: skip
    run = train(growing, optax.sgd(0.1), num_steps=6, key=KEY)
    assert int(run.diverged_at) == 2  # 1e45
    np.testing.assert_allclose(run.model_state["mean"], 1e30, rtol=1e-5)
    np.testing.assert_allclose(run.params, 0.8**2, rtol=1e-6)


def test_a_metric_that_is_nan_is_never_the_best():
    # The metric is NaN until x < 1, which is after 2 steps of halving from 3.
    half = Problem(
        "half", init=lambda key: jnp.array(3.0), loss=lambda p, _: 0.5 * p**2,
        metrics={"late": lambda p, _: jnp.where(p < 1, p, jnp.nan)},
    )  # fmt: skip
    settings = {"num_steps": 5, "key": KEY, "evaluate_every": 1}
    run = train(half, optax.sgd(0.5), early_stopping=EarlyStopping("train_late", 9, mode="min"), **settings)
    np.testing.assert_allclose(run.params, 3 / 32)
    assert int(run.best_step) == 5
    never = half.replace(metrics={"late": lambda p, _: p * jnp.nan})
    run = train(never, optax.sgd(0.5), early_stopping=EarlyStopping("train_late", 2, mode="min"), **settings)
    assert (bool(run.stopped_early), int(run.num_steps), float(run.params)) == (True, 1, 3.0)


def bowl_of(dtype):
    return Problem("bowl", init=lambda key: jnp.array([3.0, -2.0], dtype), loss=lambda p, _: 0.5 * jnp.sum(p**2))


def overflowed(rate):
    """Adam as Optax writes it, whose v overflows with the first gradient and makes every later update 0."""
    return optax.chain(
        optax.GradientTransformation(
            lambda params: jnp.int32(0),
            lambda g, t, params=None: (jax.tree.map(lambda x: jnp.where(t == 0, x * 1e20, x), g), t + 1),
        ),
        optax.adam(rate, b2=0.9999, eps=1e-8),
    )


@pytest.mark.parametrize(
    ("problem", "optimizer", "last_moved"),
    [
        (bowl_of(jnp.float32), optax.sgd(0.0), 0),
        (bowl_of(jnp.float16), optax.sgd(1e-5), 0),
        (bowl_of(jnp.float32), optax.sgd(optax.piecewise_constant_schedule(0.1, {6: 0.0})), 6),
        (bowl_of(jnp.float32), optax.MultiSteps(optax.sgd(0.1), 30), 0),
    ],
    ids=["a rate of 0", "updates below the resolution", "a schedule that ends", "fewer steps than are collected"],
)
def test_a_run_that_stands_still_says_so(problem, optimizer, last_moved):
    run = train(problem, optimizer, num_steps=20, key=KEY)
    assert bool(run.stalled)
    assert int(run.last_moved) == last_moved
    assert not run.diverged
    assert "Trajectory: stalled after step" in repr(run)


def test_statistics_that_overflow_stall_a_run():
    run = train(bowl_of(jnp.float32), overflowed(0.1), num_steps=20, key=KEY, record_params_every=1)
    moves = np.flatnonzero(np.any(np.diff(np.asarray(run.snapshots), axis=0) != 0, axis=1))
    assert int(run.last_moved) == (moves[-1] + 1 if len(moves) else 0) < 18
    assert bool(run.stalled)


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(0.1), optax.MultiSteps(optax.sgd(0.1), 7), optax.sgd(optax.linear_schedule(0.0, 0.1, 20))],
    ids=["adam", "MultiSteps", "a warm-up from 0"],
)
def test_a_run_that_moves_does_not(optimizer):
    run = train(bowl_of(jnp.float32), optimizer, num_steps=20, key=KEY)
    assert not run.stalled


def test_a_point_without_gradient_is_not_a_stall():
    flat = Problem("flat", init=lambda key: jnp.ones(2), loss=lambda p, _: 0.0 * jnp.sum(p))
    run = train(flat, optax.sgd(0.1), num_steps=5, key=KEY)
    assert (bool(run.stalled), int(run.last_moved)) == (False, 0)


def test_lanes_stall_apart():
    runs = jax.vmap(lambda rate: train(bowl_of(jnp.float32), optimizers.sgd(rate), num_steps=9, key=KEY))(
        jnp.array([0.0, 0.1])
    )
    assert runs.stalled.tolist() == [True, False]
    assert runs.last_moved.tolist() == [0, 9]


def test_empty_leaves_and_leaves_of_size_0_train():
    problem = Problem(
        "gaps", init=lambda key: {"w": jnp.ones(2), "none": None, "empty": jnp.zeros((0, 3))},
        loss=lambda p, _: jnp.sum(p["w"] ** 2) + jnp.sum(p["empty"]),
    )  # fmt: skip
    run = train(problem, optax.adam(0.1), num_steps=3, key=KEY, record_params_every=1)
    assert run.params["empty"].shape == (0, 3)
    assert not run.diverged
    assert not run.stalled
    nothing = problem.replace(init=lambda key: jnp.zeros((0, 3)), loss=lambda p, _: jnp.sum(p))
    with pytest.raises(TypeError, match="have no numbers to train"):
        train(nothing, optax.adam(0.1), num_steps=3, key=KEY)


def test_optax_lookahead_trains_on_its_pair():
    bowl = bowl_of(jnp.float32)
    slow = fast = np.array([3.0, -2.0])
    losses, evaluated = [], []
    for t in range(1, 8):
        losses.append(0.5 * np.sum(fast**2))
        evaluated.append(0.5 * np.sum(slow**2))
        fast = fast - 0.25 * fast
        if t % 3 == 0:
            slow = fast = slow + 0.5 * (fast - slow)
    optimizer = optax.lookahead(optax.sgd(0.25), 3, 0.5)
    pair = optax.LookaheadParams.init_synced(jnp.array([3.0, -2.0]))
    for params in (None, jnp.array([3.0, -2.0]), pair):
        run = train(bowl, optimizer, num_steps=7, key=KEY, params=params, evaluate_every=1)
        np.testing.assert_allclose(run.params.fast, fast, rtol=1e-6)
        np.testing.assert_allclose(run.params.slow, slow, rtol=1e-6)
        np.testing.assert_allclose(run.losses, losses, rtol=1e-6)
        np.testing.assert_allclose(run.evaluations["train_loss"][:-1], evaluated, rtol=1e-6)


def test_runs_of_one_call_are_judged_each_by_itself():
    """‖g‖² of the second overflows and g does not; the third is infinite."""

    def problem(scale):
        return Problem("steep", init=lambda key: jnp.array([1.0, 2.0]), loss=lambda p, _: jnp.sum(jnp.abs(scale * p)))

    def last_step(scale, inner, rate):
        run = train(problem(scale * inner), optimizers.sgd(rate), num_steps=1, key=KEY)
        return run.diverged_at, run.params

    scales, inner, rates = jnp.array([1.0, 1e20, 1e38]), jnp.array([1.0, 1.0, 4.0]), jnp.full(3, 1e-30)
    diverged_at, params = jax.vmap(last_step)(scales, inner, rates)
    assert diverged_at.tolist() == [-1, -1, 0]
    assert jnp.isfinite(params).all()
    twice = [jnp.stack([x, y]) for x, y in zip((scales, jnp.ones(3), rates), (scales, inner, rates), strict=True)]
    assert jax.vmap(jax.vmap(last_step))(*twice)[0].tolist() == [[-1, -1, -1], [-1, -1, 0]]
