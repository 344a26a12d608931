"""Several processes on one study of Optuna, one of them killed; print what each told and what the storage holds."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from jaxopt_study.sweeps import OptunaSampler, Space, log_uniform

LAZY = "optuna" not in sys.modules

SPACE = Space({"rate": log_uniform(1e-4, 1.0)})
NUM_TRIALS, HEARTBEAT = 24, 0.2
TOGETHER = multiprocessing.Barrier(2)  # else the first worker may end before the second begins


def work(storage, report):
    counted = []
    with OptunaSampler(storage, heartbeat=HEARTBEAT) as sampler:
        TOGETHER.wait(60)
        while batch := sampler.ask(SPACE, 3, num_trials=NUM_TRIALS):
            time.sleep(0.2)  # the lock on the storage goes to whoever asks first
            counted += [handle for handle, config in batch if sampler.tell(handle, config["rate"])]
    os.write(report, json.dumps(counted).encode())


def die(storage, report):
    sampler = OptunaSampler(storage, heartbeat=HEARTBEAT)
    batch = sampler.ask(SPACE, 5, num_trials=NUM_TRIALS)
    assert sampler.tell(batch[0][0], None)
    os.write(report, json.dumps([batch[0][0]]).encode())
    time.sleep(60)


def fork(function, storage):
    import optuna  # noqa: F401  # once, not in each child

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            function(storage, writing)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    return child, reading


def share(storage):
    victim, victims = fork(die, storage)
    told = [json.loads(os.read(victims, 4096))]
    workers = [fork(work, storage) for _ in range(2)]
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    codes = []
    for child, reading in workers:
        codes.append(os.waitpid(child, 0)[1])
        told.append(json.loads(os.read(reading, 4096) or "[]"))
    with OptunaSampler(storage) as sampler:
        finished = sampler.finished(SPACE)
    return {"codes": codes, "told": told, "finished": [number for number, _, _ in finished]}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {"lazy": LAZY, "file": share(str(folder / "study.log")), "sqlite": share(f"sqlite:///{folder}/study.db")}
    sys.stdout.write(json.dumps(found))
