"""Kill processes that write a journal, at every step and at random moments, and print what was found as JSON.

One program instead of one per kill: importing takes seconds, forking milliseconds.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from jaxopt_study import records
from jaxopt_study.records import _writing
from jaxopt_study.sweeps import Journal, JournalError

LANES, PER_CHUNK = 24, 3
CONFIG = {"study": "killing"}


def results(lanes):
    losses = np.stack([np.random.default_rng(int(lane)).normal(size=50).astype(np.float32) for lane in lanes])
    return {"loss": losses, "diverged": losses[:, 0] > 0}


def work(folder, report):
    """Compute what is missing; say how many lanes are safe after each chunk."""
    with Journal.open(folder, CONFIG) as journal:
        done = set(journal.load()[0].tolist())
        missing = [lane for lane in range(LANES) if lane not in done]
        for start in range(0, len(missing), PER_CHUNK):
            lanes = np.array(missing[start : start + PER_CHUNK])
            journal.append(lanes, results(lanes))
            done |= set(lanes.tolist())
            os.write(report, bytes([len(done)]))


def fork(function, *arguments):
    """Run a function in a child process; return its number and where it reports."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            function(*arguments, writing)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    return child, reading


def reported(reading):
    with os.fdopen(reading, "rb") as file:
        return max(file.read(), default=0)


def survivors(folder):
    """Return how many lanes a later process finds, each of them exactly as it was computed."""
    with Journal.open(folder, CONFIG) as journal:
        lanes, arrays = journal.load()
        expected = results(lanes) if len(lanes) else {}
        assert all(arrays[name].tobytes() == expected[name].tobytes() for name in expected)
        assert not drafts(folder)
        return len(lanes)


def drafts(folder):
    return [entry.name for entry in Path(folder).iterdir() if entry.name.startswith(".") and entry.name != ".lock"]


def killed_at(step):
    """Return a profiler that ends the process at its step-th call while it writes files."""
    writing = {records.write_atomically.__code__, _writing._flush_folder.__code__}
    calls = 0

    def profile(frame, event, _):
        nonlocal calls
        if event == "c_call" and frame.f_code in writing:
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def work_until(step, folder, report):
    sys.setprofile(killed_at(step))
    work(folder, report)


def kill_at_every_step(folder):
    """Kill a process at its first call, the next one at its second, …, until one ends by itself."""
    kills = step = 0
    while True:
        step += 1
        child, reading = fork(work_until, step, folder / str(step))
        _, status = os.waitpid(child, 0)
        safe = reported(reading)
        found = survivors(folder / str(step))
        assert safe <= found <= safe + PER_CHUNK, (step, safe, found)
        if not os.WIFSIGNALED(status) or found >= 2 * PER_CHUNK:
            return {"kills": kills, "steps": step, "lanes": found}
        kills += 1


def work_on_half_a_write(folder, report):
    """End the process when half of the second chunk's bytes are on disk."""
    real = os.fdopen
    opened = 0

    def fdopen(handle, mode):
        nonlocal opened
        opened += 1
        file = real(handle, mode)
        if opened == 3:  # study.json, the first chunk, the second
            write = file.write

            class Half:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    return None

                def write(self, data):
                    write(data[: len(data) // 2])
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)

            return Half()
        return file

    os.fdopen = fdopen
    work(folder, report)


def kill_within_a_write(folder):
    child, reading = fork(work_on_half_a_write, folder)
    _, status = os.waitpid(child, 0)
    left = len(drafts(folder))
    return {"killed": os.WIFSIGNALED(status), "drafts": left, "safe": reported(reading), "found": survivors(folder)}


def kill_at_random(folder, kills, seed):
    """Kill processes at random moments until so many were killed; finish every study and compare it."""
    rng = random.Random(seed)
    count = studies = 0
    while count < kills:
        studies += 1
        place, found = folder / str(studies), 0
        while True:
            child, reading = fork(work, place)
            time.sleep(rng.uniform(0.0, 0.04))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            safe, before, found = reported(reading), found, survivors(place)
            assert found >= max(safe, before), (safe, before, found)
            assert found <= max(safe, before) + PER_CHUNK, (safe, before, found)
            count += os.WIFSIGNALED(status)
            if found == LANES:
                break
    whole = folder / "whole"
    with open(os.devnull, "wb") as report:
        work(whole, report.fileno())
    with Journal.open(whole, CONFIG) as one, Journal.open(folder / "1", CONFIG) as other:
        (lanes, arrays), (again, killed) = one.load(), other.load()
    order = np.argsort(again)
    equal = np.array_equal(lanes, again[order]) and all(
        arrays[name].tobytes() == killed[name][order].tobytes() for name in arrays
    )
    return {"kills": count, "studies": studies, "equal": bool(equal)}


def hold(folder, report):
    with Journal.open(folder, CONFIG):
        os.write(report, b"1")
        time.sleep(60)


def two_processes(folder):
    child, reading = fork(hold, folder)
    os.read(reading, 1)
    try:
        Journal.open(folder, CONFIG)
        message = ""
    except JournalError as error:
        message = str(error)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return {"message": message, "after": survivors(folder)}


if __name__ == "__main__":
    records.environment = dict  # it would start JAX in every child
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    found = {"random": kill_at_random(folder / "random", kills, seed)}
    if sys.argv[4:] != ["random"]:
        found |= {
            "every": kill_at_every_step(folder / "every"),
            "within": kill_within_a_write(folder / "within"),
            "two": two_processes(folder / "two"),
        }
    sys.stdout.write(json.dumps(found))
