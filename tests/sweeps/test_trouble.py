"""Trouble while a sweep runs: Ctrl-C is answered at once, and what is finished is safe whatever is raised later."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES

SETTINGS = {"num_steps": 4, "key": KEY, "width": 1}


def pressed(seconds):
    """Press Ctrl-C in a while; the time at which it was pressed, once it was."""
    times = []

    def press():
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(seconds, press).start()
    return times


def work(count):
    """Keep a device busy, and return 1."""
    x = jax.lax.fori_loop(0, count, lambda _, x: jnp.sin(x) + 1e-3 * x @ x, jnp.full((200, 200), 0.1))
    return 1.0 + 0.0 * x[0, 0]


def test_ctrl_c_is_answered_while_a_trial_runs(tmp_path):
    """The second trial takes some six seconds, of which nobody waits for more than one."""
    timed = jax.jit(work)
    timed(1).block_until_ready()
    began = time.monotonic()
    timed(100).block_until_ready()
    count = int(6.0 * 100 / (time.monotonic() - began))

    def slow(learning_rate):
        inner = optax.sgd(learning_rate)

        def update(updates, state, params=None):
            same = work(jnp.where(learning_rate > 0.15, count, 1))
            return inner.update(jax.tree.map(lambda u: u * same, updates), state, params)

        return optax.GradientTransformation(inner.init, update)

    times = []

    def progress(done, total, best):
        if done == 1:
            times.append(pressed(0.5))

    rates = {"learning_rate": sweeps.choices(0.1, 0.2)}
    with pytest.raises(sweeps.SearchInterrupted) as caught:
        sweeps.search(
            slow, rates, small.quadratic(), num_trials=2, sampler="grid", progress=progress, journal=tmp_path,
            **SETTINGS | {"num_steps": 1},
        )  # fmt: skip
    assert time.monotonic() - times[0][0] < 2.0
    assert caught.value.search.finished[:, 0].tolist() == [True, False]
    assert len(list(tmp_path.glob("chunk-*"))) == 1


def test_what_is_finished_is_on_disk_when_something_raises_later(tmp_path):
    def fails(done, total, best):
        if done == 3:
            raise OSError("the disk of the progress bar is full")

    search = lambda **more: sweeps.search(
        optimizers.sgd, RATES, small.quadratic(), num_trials=5, journal=tmp_path, **SETTINGS, **more
    )
    with pytest.raises(OSError, match="progress bar"):
        search(progress=fails)
    seen = []
    found = search(progress=lambda done, total, best: seen.append(done))
    assert seen == [3, 4, 5]  # three were read
    plain = sweeps.search(optimizers.sgd, RATES, small.quadratic(), num_trials=5, **SETTINGS)
    small.assert_same(found, plain)


@pytest.mark.parametrize("where", ["halving", "compare"])
def test_ctrl_c_while_a_later_stage_is_traced_keeps_the_earlier_ones(where):
    calls = []

    def make(learning_rate):
        if isinstance(learning_rate, jax.core.Tracer):
            calls.append(None)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGINT)
        return optax.sgd(learning_rate)

    if where == "halving":
        with pytest.raises(sweeps.SearchInterrupted) as caught:
            sweeps.search(
                make, RATES, small.quadratic(), num_trials=4, halving=sweeps.Halving(2, 2), **SETTINGS
            )  # fmt: skip
        assert caught.value.search.finished.all()
        assert np.isfinite(caught.value.search.final).all()
    else:
        with pytest.raises(sweeps.ComparisonInterrupted) as stopped:
            sweeps.compare(
                {"a": (make, RATES)}, {"one": small.quadratic(), "two": small.quadratic(1.0)}, budget=2, report_seeds=1,
                **SETTINGS,
            )  # fmt: skip
        assert ("one", "a") in stopped.value.comparison.searches
        assert not stopped.value.comparison.complete
