"""Several processes: one mesh of all their devices, or one study they share; a dead worker costs its own trials."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxopt_study import sweeps
from tests.sweeps.many_machines import search, table

pytest.importorskip("optuna")
ROOT = Path(__file__).parents[2]


def start(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.many_machines", *map(str, arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(process, timeout=300):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_with_one_mesh_give_the_table_of_one_process(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start("distributed", index, port, tmp_path / "journal") for index in range(2)]
    first, second = (result(process) for process in processes)
    alone = table(search(width=2))
    assert first == second
    assert first["devices"] == 2
    assert first["diverged"] == alone["diverged"]
    # The same program on one device each: exactly, if it is optimized alike.
    rtol = 1e-6 if jax.config.values["jax_disable_most_optimizations"] else 0.0
    np.testing.assert_allclose(first["final"], alone["final"], rtol=rtol)
    assert first["best"] == alone["best"]
    # What they left on disk is a search like any other: the same processes would go on from there.
    assert (tmp_path / "journal" / "study.json").exists()


@pytest.mark.slow
def test_two_workers_share_a_study_and_together_run_exactly_its_trials(tmp_path):
    storage = tmp_path / "study.log"
    processes = [start("worker", storage, 12, 15.0) for _ in range(2)]
    counts = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        late = "already has its 12 trials" in err  # the other one was through before this one began
        assert process.returncode == 0 or late, err
        counts.append(0 if late else json.loads(out.splitlines()[-1]))
    assert sum(counts) == 12
    with sweeps.OptunaSampler(storage) as sampler:
        finished = sampler.finished(sweeps.Space({"learning_rate": sweeps.log_uniform(1e-3, 10.0)}))
    assert len(finished) == 12
    assert len({handle for handle, _, _ in finished}) == 12


def test_a_killed_worker_costs_its_own_trials_and_nothing_else(tmp_path):
    storage = tmp_path / "study.log"
    dead = start("forgetful", storage)
    lost = json.loads(dead.stdout.readline())
    assert len(lost) == 3
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    survivor = start("worker", storage, 8, 0.5)
    assert result(survivor) == 8
    with sweeps.OptunaSampler(storage) as sampler:
        finished = sampler.finished(sweeps.Space({"learning_rate": sweeps.log_uniform(1e-3, 10.0)}))
    assert len(finished) == 8
    assert not {handle for handle, _, _ in finished} & set(lost)
