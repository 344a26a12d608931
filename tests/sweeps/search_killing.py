"""Kill processes that search, at random moments, resume until one ends by itself, and print what was found as JSON.

One program instead of one per kill: importing takes seconds. The children are forked before JAX starts anything, from
a process that has only imported it.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import optax

from jaxopt_study import sweeps
from jaxopt_study.sweeps._execution import _sweep as sweep

TRIALS, SEEDS, WIDTH = 16, 2, 2
MOST_STUDIES = 40  # on a busy machine many processes end before they are killed


def work(folder, report):
    """Search with a journal, a chunk after every call, and write what was found to a file."""
    from tests.sweeps import small

    sweep._SECONDS_PER_CHUNK = 0.0

    def progress(done, total, best):
        os.write(report, bytes([done]))
        time.sleep(0.02)  # so that a kill can fall between chunks

    found = sweeps.search(
        optax.sgd, small.RATES, small.quadratic(), num_trials=TRIALS, num_seeds=SEEDS, num_steps=10, width=WIDTH,
        key=small.KEY, journal=folder, progress=progress,
    )  # fmt: skip
    with open(f"{folder}.npz", "wb") as file:
        np.savez(file, **small.curves(found))


def fork(folder):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(folder, writing)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    return child, reading


def kill_until_done(folder, rng, longest):
    """Return what numbers of finished lanes each process reported, and whether it was killed."""
    history = []
    while not history or history[-1][1]:
        child, reading = fork(folder)
        first = os.read(reading, 1)  # it has compiled, and the first chunk is on disk
        time.sleep(rng.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as file:
            reported = [*first, *file.read()]
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        history.append((reported, os.WIFSIGNALED(status)))
    return history


if __name__ == "__main__":
    folder, seed, kills, longest = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    rng = random.Random(seed)
    child, reading = fork(folder / "whole")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    whole = dict(np.load(folder / "whole.npz"))
    found = {"kills": 0, "equal": True, "resumed": True, "shape": list(whole["finished"].shape)}
    for study in range(MOST_STUDIES):
        if found["kills"] >= kills:
            break
        history = kill_until_done(folder / str(study), rng, longest)
        again = dict(np.load(folder / f"{study}.npz"))
        found["kills"] += sum(killed for _, killed in history)
        found["equal"] &= all(whole[name].tobytes() == again[name].tobytes() for name in whole)
        for (before, _), (after, _) in itertools.pairwise(history):
            found["resumed"] &= after[0] >= before[-1]  # what was reported was on disk
    json.dump(found, sys.stdout)
