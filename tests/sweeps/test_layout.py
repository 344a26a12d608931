"""Layout of lanes: no result depends on it, and the width follows from the size of the operations."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxopt_study import optimizers, sweeps
from jaxopt_study.sweeps._execution import _layout as layout_module
from jaxopt_study.sweeps._execution._layout import (
    Layout,
    Speed,
    choose_width,
    default_mesh,
    measured_speed,
    usable_cores,
)
from tests.sweeps import layouts, small

ROOT = Path(__file__).parents[2]
SPEED = Speed(operation=1e-6, flop=5e-11)


@pytest.fixture(scope="module")
def process():
    """What tests/sweeps/layouts.py finds on 8 virtual devices."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.sweeps.layouts"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def runs():
    """Every trial and seed of the searches by itself, on one device."""
    settings = {"num_steps": 12, "evaluate_every": 4}
    configs = sweeps.sample(sweeps.Space(small.RATES), 5, key=jax.random.split(small.KEY)[0])[0]
    keys = small.seed_keys(small.KEY, 3)
    found = {}
    for name in layouts.PROBLEMS:
        problem = getattr(small, name)()
        rates = [config["learning_rate"] for config in configs]
        found[name] = [[small.alone(problem, optimizers.sgd(rate), key, **settings) for key in keys] for rate in rates]
    return found


def results_of(entry):
    found = {}
    for name, data in entry["results"].items():
        kind = bool if name == "finished" else np.int32 if name in ("diverged_at", "num_steps") else np.float32
        found[name] = np.frombuffer(bytes.fromhex(data), kind).reshape(5, 3, *((4,) if "curve" in name else ()))
    return found


@pytest.mark.parametrize(("problem", "rtol"), [("quadratic", 0.0), ("regression", 16 * 2**-23)])
@pytest.mark.parametrize("which", range(len(layouts.LAYOUTS)))
def test_a_lane_of_any_layout_is_the_trial_run_by_itself(process, runs, problem, rtol, which):
    """Exactly where XLA has nothing to reorder; where there are matrix products, to 16 roundings after 12 steps."""
    entry = process[problem][which]
    devices, width = layouts.LAYOUTS[which]
    assert (entry["layout"]["axes"], entry["layout"]["width"]) == ({"trials": devices}, [width])
    found = results_of(entry)
    for i, j in np.ndindex(5, 3):
        run = runs[problem][i][j]
        for name, values in run.evaluations.items():
            if name != "step":
                np.testing.assert_allclose(found[f"curve {name}"][i, j], values, rtol=rtol)
        assert (found["diverged_at"][i, j], found["num_steps"][i, j]) == (-1, 12)
    assert found["finished"].all()
    assert len(np.unique(found["curve batch_loss"][..., -1])) == 15  # no lane stands in for another


@pytest.mark.parametrize("problem", layouts.PROBLEMS)
def test_lanes_of_one_width_are_bit_for_bit_the_same_on_any_number_of_devices(process, problem):
    by_width = {}
    for (_, width), entry in zip(layouts.LAYOUTS, process[problem], strict=True):
        by_width.setdefault(width, []).append(entry["results"])
    for same in by_width.values():
        assert len(same) == 2
        assert same[0] == same[1]


def test_without_a_mesh_all_devices_are_used(process):
    assert process["all"]["axes"] == {"trials": 8}


def test_cores_become_devices_before_jax_starts_and_not_after(process):
    assert (process["devices"], process["seen"], process["again"]) == (8, 8, 8)
    assert "8 CPU devices" in process["late"]
    assert "use_cpu_cores(3)" in process["late"]
    assert "JAX_NUM_CPU_DEVICES=3" in process["late"]
    assert "count to be an integer ≥ 1; received 0" in process["none"]


def test_messages_where_nothing_checks_types(process):
    assert "function of hyperparameters that returns an optimizer" in process["no maker"]
    assert "lambda: optimizer" in process["no candidate"]
    assert 'expected "min" or "max"; received \'least\'' in process["mode"]


def test_a_layout_says_how_many_lanes_a_call_computes():
    layout = Layout(default_mesh(), 5)
    assert layout.lanes_per_call == 5 * jax.device_count()
    assert layout.describe() == {"axes": {"trials": jax.device_count()}, "width": 5, "device": "cpu"}
    assert Layout(default_mesh()).width == 1


def program(size, operations=1):
    """A loop of matrix products of one size."""

    def loop(x):
        def body(_, x):
            for _ in range(operations):
                x = jnp.tanh(x @ x)
            return x

        return jax.lax.fori_loop(0, 10, body, x)

    return jax.make_jaxpr(loop)(jnp.zeros((size, size))).jaxpr


def test_small_operations_are_vectorised_and_large_ones_are_not():
    widths = [choose_width(program(size), lanes_per_device=1000, speed=SPEED) for size in (2, 16, 64, 512)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] >= 64
    assert widths[-1] == 1


@pytest.mark.parametrize("lanes", [1, 3, 7, 64, 100])
def test_calls_have_about_as_many_lanes(lanes):
    """A call that is not full repeats a lane, so 100 lanes are 4 calls of 25, not 3 of 32 and a last one of 4."""
    for size in (2, 8, 16, 32, 64):
        most = choose_width(program(size), lanes_per_device=2**20, speed=SPEED)
        assert most & (most - 1) == 0
        width = choose_width(program(size), lanes_per_device=lanes, speed=SPEED)
        calls = -(-lanes // width)
        assert calls == -(-lanes // most)
        assert width * calls - lanes < calls


def test_where_overhead_is_small_already_nothing_is_vectorised():
    """A vectorised program takes longer to compile, which a few lanes at once would not make up for."""
    widths = [choose_width(program(size), lanes_per_device=2**20, speed=SPEED) for size in range(16, 64)]
    assert widths == sorted(widths, reverse=True)
    assert {1, 8} <= set(widths)
    assert not {2, 3, 4} & set(widths)


def test_work_outside_loops_does_not_decide_the_width():
    """It happens once, and the steps many times."""

    def with_preparation(x):
        x = jax.lax.fori_loop(0, 10, lambda _, x: x + 1.0, x)
        return jnp.zeros((300, 300)) @ jnp.zeros((300, 300)) + x

    jaxpr = jax.make_jaxpr(with_preparation)(jnp.zeros(())).jaxpr
    assert choose_width(jaxpr, lanes_per_device=4096, speed=SPEED) > 64
    assert choose_width(program(300), lanes_per_device=4096, speed=SPEED) == 1


def test_slower_operations_are_vectorised_further():
    widths = [choose_width(program(32), lanes_per_device=1000, speed=Speed(cost, 5e-11)) for cost in (0.0, 1e-6, 1e-4)]
    assert widths == sorted(widths)
    assert widths[0] == 1 < widths[1] < widths[2]


def test_the_speed_of_the_machine_is_measured_once():
    found = measured_speed()
    assert measured_speed() is found
    assert 1e-8 < found.operation < 1e-4
    assert 1e-13 < found.flop < 1e-8


def test_a_resumed_sweep_has_the_width_it_had_whatever_is_measured_now(monkeypatch, tmp_path):
    problem, settings = small.quadratic(), {"num_trials": 6, "num_steps": 3, "key": small.KEY}
    widths = []
    for cost in (0.0, 1.0):
        monkeypatch.setattr(layout_module, "measured_speed", lambda cost=cost: Speed(cost, 5e-11))
        for journal in (None, tmp_path / "journal"):
            found = sweeps.search(optax.sgd, small.RATES, problem, journal=journal, **settings)
            widths.append(found.layout["width"])
    assert widths == [[1], [1], [6], [1]]


def test_a_mesh_without_an_axis_for_trials_is_refused():
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    with pytest.raises(ValueError, match=r"mesh with an axis 'trials'; received the axes \('batch',\)"):
        sweeps.search(optax.sgd, small.RATES, small.quadratic(), mesh=mesh, num_trials=1, num_steps=1, key=small.KEY)


def test_a_processor_has_cores():
    assert usable_cores() >= 1
