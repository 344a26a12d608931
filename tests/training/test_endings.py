"""Ends of runs: divergence, patience, an interrupt."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from jaxopt_study.problems import Metric, Problem
from jaxopt_study.training import EarlyStopping, TrainingInterrupted, train
from jaxopt_study.training import _python_loop as host

KEY = jax.random.key(0)


@pytest.mark.parametrize("loop", ["compiled", "host"])
def test_the_first_step_without_a_finite_loss_is_not_applied(loop):
    # x ← x − 10·x³: from 0.5 the iterates run away and overflow after a few steps.
    problem = Problem("runaway", init=lambda key: jnp.array([0.6]), loss=lambda p, _: jnp.sum(p**4) / 4)
    run = train(
        problem,
        optax.sgd(10.0, momentum=0.5),
        num_steps=40,
        key=KEY,
        record_params_every=1,
        evaluate_every=1,
        loop=loop,
    )
    at = int(run.diverged_at)
    assert run.diverged
    assert 1 < at < 20
    assert int(run.num_steps) == at
    losses = np.asarray(run.losses)
    assert np.all(np.isfinite(losses[:at]))
    assert np.all(np.isnan(losses[at:]))
    assert losses.shape == (40,)
    np.testing.assert_array_equal(run.params, run.snapshots[at])  # what it had, not what came of it
    assert np.all(np.isnan(run.snapshots[at + 1 :]))
    # The optimizer's state belongs to the same step: it is that of a run that was never asked for more.
    shorter = train(problem, optax.sgd(10.0, momentum=0.5), num_steps=at, key=KEY, loop=loop)
    np.testing.assert_array_equal(run.opt_state[0].trace, shorter.opt_state[0].trace)


def test_a_diverged_lane_does_not_disturb_the_others(bowl):
    rates = jnp.array([0.5, 30.0, 0.1])
    runs = jax.vmap(lambda rate: train(bowl, optimizers.sgd(rate), num_steps=60, key=KEY, evaluate_every=20))(rates)
    assert runs.diverged.tolist() == [False, True, False]
    assert runs.num_steps[0] == runs.num_steps[2] == 60
    for lane in (0, 2):
        alone = train(bowl, optimizers.sgd(float(rates[lane])), num_steps=60, key=KEY, evaluate_every=20)
        np.testing.assert_allclose(runs.params[lane], alone.params, rtol=1e-5)
        np.testing.assert_allclose(runs.evaluations["train_loss"][lane], alone.evaluations["train_loss"], rtol=1e-5)
    alone = train(bowl, optimizers.sgd(30.0), num_steps=60, key=KEY, evaluate_every=20)
    assert alone.diverged_at == runs.diverged_at[1]
    np.testing.assert_allclose(runs.params[1], alone.params, rtol=1e-5)


@pytest.fixture(scope="module")
def overfitting():
    """The validation loss (x + 1)² falls while x goes from −3 to −1, then rises on the way to the minimum at 2."""
    return Problem(
        "overfitting",
        init=lambda key: jnp.array(-3.0),
        loss=lambda p, target: jnp.mean((p - target) ** 2),
        data=jnp.full(4, 2.0),
        validation=jnp.full(4, -1.0),
        metrics={"nearness": lambda p, target: -jnp.abs(p - target[0])},
    )


@pytest.mark.parametrize(
    "rule",
    [EarlyStopping(patience=3), EarlyStopping("validation_nearness", 3, "max")],
    ids=["min", "max"],
)
@pytest.mark.parametrize("loop", ["compiled", "host"])
def test_early_stopping_restores_the_best_parameters(overfitting, rule, loop):
    settings = {"num_steps": 200, "key": KEY, "evaluate_every": 2, "early_stopping": rule, "loop": loop}
    run = train(overfitting, optax.sgd(0.02), **settings)
    # By hand: xₜ = 2 − 5 · .96ᵗ, evaluated at even t.
    path = 2 - 5 * 0.96 ** np.arange(200)
    best = 2 * int(np.argmin((path[::2] + 1) ** 2))
    assert run.stopped_early
    assert int(run.best_step) == best
    np.testing.assert_allclose(run.params, path[best], rtol=1e-4)
    assert int(run.num_steps) == best + 3 * 2  # three evaluations in vain
    np.testing.assert_allclose(run.last_params, path[best + 6], rtol=1e-4)
    assert np.isfinite(run.losses).sum() == best + 6
    assert np.isfinite(run.evaluations["validation_loss"]).sum() == (best + 6) // 2 + 1
    assert not run.diverged


def test_early_stopping_takes_the_direction_that_the_metric_declares_and_guesses_none(overfitting):
    """A name says nothing: the same function is maximised if it says so, and refused if it says nothing."""
    nearness = overfitting.metrics["nearness"]
    settings = {"num_steps": 200, "key": KEY, "evaluate_every": 2}
    told = train(
        overfitting, optax.sgd(0.02), early_stopping=EarlyStopping("validation_nearness", 3, "max"), **settings
    )
    for name in ("nearness", "error", "f1"):
        declared = overfitting.replace(metrics={name: Metric(nearness, mode="max")})
        rule = EarlyStopping(f"validation_{name}", 3)
        assert int(train(declared, optax.sgd(0.02), early_stopping=rule, **settings).best_step) == int(told.best_step)
    accuracy = overfitting.replace(metrics={"accuracy": nearness})
    with pytest.raises(ValueError, match=r"needs a direction, but the metric has none.*mode='max'"):
        train(accuracy, optax.sgd(0.02), early_stopping=EarlyStopping("validation_accuracy", 3), **settings)


def test_patience_that_never_runs_out_still_returns_the_best(overfitting):
    run = train(
        overfitting, optax.sgd(0.02), num_steps=30, key=KEY, evaluate_every=1, early_stopping=EarlyStopping(patience=99)
    )
    assert not run.stopped_early
    assert int(run.num_steps) == 30
    path = 2 - 5 * 0.96 ** np.arange(31)
    np.testing.assert_allclose(run.params, path[int(run.best_step)], rtol=1e-4)
    np.testing.assert_allclose(run.last_params, path[30], rtol=1e-4)


def test_improvements_below_min_delta_do_not_count(overfitting):
    rule = EarlyStopping(patience=2, min_delta=0.5)
    run = train(overfitting, optax.sgd(0.001), num_steps=200, key=KEY, evaluate_every=1, early_stopping=rule)
    # The first improvement by more than ½ of (x + 1)² = 4 takes dozens of steps; patience is 2.
    assert int(run.num_steps) == 2
    assert int(run.best_step) == 0


def test_lanes_stop_early_independently(overfitting):
    rule = EarlyStopping(patience=2)
    settings = {"num_steps": 120, "key": KEY, "evaluate_every": 1, "early_stopping": rule}
    rates = [0.1, 0.02, 0.001]
    runs = jax.vmap(lambda rate: train(overfitting, optimizers.sgd(rate), **settings))(jnp.array(rates))
    for lane, rate in enumerate(rates):
        alone = train(overfitting, optimizers.sgd(rate), **settings)
        assert runs.num_steps[lane] == alone.num_steps
        np.testing.assert_allclose(runs.params[lane], alone.params, rtol=1e-5)
    assert len(set(runs.num_steps.tolist())) == 3
    assert runs.stopped_early.tolist() == [True, True, False]


def test_early_stopping_evaluates_once_per_epoch_by_default(overfitting):
    run = train(overfitting, optax.sgd(0.01), num_steps=6, key=KEY, batch_size=2, early_stopping=EarlyStopping())
    assert run.evaluations["step"].tolist() == [0, 2, 4, 6]


def test_batch_statistics_are_restored_with_the_parameters(overfitting):
    counting = overfitting.replace(
        loss=lambda p, batch, state: overfitting.loss(p, batch),
        metrics={},
        init_state=lambda key: jnp.int32(0),
        step_loss=lambda p, state, batch, key: (overfitting.loss(p, batch), state + 1),
    )
    rule = EarlyStopping(patience=3)
    run = train(counting, optax.sgd(0.02), num_steps=200, key=KEY, evaluate_every=2, early_stopping=rule)
    assert int(run.model_state) == int(run.best_step) < int(run.num_steps)


def test_an_interrupt_keeps_what_was_finished(bowl):
    def press(done, total, loss):
        if done >= 17:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(
            bowl, optax.sgd(0.01), num_steps=10**6, key=KEY, record_params_every=10, evaluate_every=10, progress=press
        )
    assert isinstance(caught.value, TrainingInterrupted)
    run = caught.value.trajectory
    taken = int(run.num_steps)
    assert 17 <= taken < 10**6
    assert run.losses.shape == (taken,)
    np.testing.assert_allclose(run.params, np.array([3.0, -2.0]) * 0.99**taken, rtol=1e-4)
    assert int(run.evaluations["step"][-1]) == int(run.snapshot_steps[-1]) == taken
    np.testing.assert_array_equal(run.snapshots[-1], run.params)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_acts_at_once(bowl):
    def press(done, total, loss):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(bowl, optax.sgd(0.01), num_steps=100, key=KEY, progress=press)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_during_the_last_part_is_not_lost(bowl):
    def press(done, total, loss):
        if done == total:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted) as caught:
        train(bowl, optax.sgd(0.01), num_steps=30, key=KEY, progress=press)
    assert int(caught.value.trajectory.num_steps) == 30


@pytest.mark.parametrize("every", [1, 7, 100])
def test_no_part_of_a_run_keeps_an_interrupt_waiting_whatever_its_evaluations_cost(every):
    pace, done, longest = host._Pace({"evaluations": every}), 0, 0.0
    while done < 1000:  # a step takes a millisecond, an evaluation one second
        stop = done + pace.size(done)
        seconds = 1e-3 * (stop - done) + len(range(-(-done // every) * every, stop, every))
        longest = max(longest, seconds if done else 0.0)
        pace.took(done, stop, seconds + (10.0 if done == 0 else 0.0))  # the first part compiles
        done = stop
    assert longest < 1.5


@pytest.mark.parametrize("loop", ["compiled", "host"])
def test_an_interrupt_is_answered_within_two_seconds(loop):
    def slowly(x):
        time.sleep(0.02)
        return x

    def loss(params, batch):
        waited = jax.pure_callback(slowly, jax.ShapeDtypeStruct((), jnp.float32), jax.lax.stop_gradient(params))
        return params**2 + 0.0 * waited

    pressed = []

    def press():
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timers = []

    def begin(done, total, loss):
        if not timers:
            timers.append(threading.Timer(1.0, press))
            timers[0].start()

    slow = Problem("slow", init=lambda key: jnp.array(1.0), loss=loss)
    with pytest.raises(TrainingInterrupted) as caught:
        train(slow, optax.sgd(0.1), num_steps=10**5, key=KEY, loop=loop, progress=begin)
    assert time.perf_counter() - pressed[0] < 2.0
    assert int(caught.value.trajectory.num_steps) == len(caught.value.trajectory.losses) > 0


def test_training_works_outside_the_main_thread(bowl):
    found = []
    worker = threading.Thread(target=lambda: found.append(train(bowl, optax.sgd(0.5), num_steps=3, key=KEY)))
    worker.start()
    worker.join()
    np.testing.assert_allclose(found[0].params, [3 / 8, -2 / 8])


def test_parameters_that_overflow_at_the_last_step_count_as_divergence():
    bowl = Problem("bowl", init=lambda key: jnp.array([-7.0, 2.0]), loss=lambda p, _: jnp.sum(p**2))
    run = train(bowl, optimizers.sgd(1e38), num_steps=1, key=jax.random.key(0))
    np.testing.assert_array_equal(run.params, [-7.0, 2.0])
    assert bool(run.diverged)
    assert int(run.diverged_at) == 0
