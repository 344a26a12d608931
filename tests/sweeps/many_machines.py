"""Processes for test_many_machines: `python -m tests.sweeps.many_machines ROLE …`, with results as JSON on stdout."""

import json
import sys

import jax


def say(value):
    """Tell the test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def table(found):
    """What must be the same wherever it was computed."""
    return {"final": found.final.tolist(), "diverged": found.diverged.tolist(), "best": found.best.config}


def search(**options):
    """A small search on the digits."""
    from jaxopt_study import optimizers, problems, sweeps

    problem = problems.networks.mlp_classifier(problems.datasets.digits(num_train=200), widths=(8,))
    space = {"learning_rate": sweeps.log_uniform(1e-3, 10.0)}
    options = {"num_trials": 7, "num_seeds": 2, "num_steps": 20, "batch_size": 20} | options
    return sweeps.search(optimizers.sgd, space, problem, key=jax.random.key(0), progress=False, **options)


def distributed(index: str, port: str, folder: str) -> None:
    """One of two processes whose devices make one mesh."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
    found = search(width=2, journal=folder)
    say(table(found) | {"devices": found.layout["axes"]["trials"]})
    jax.distributed.shutdown()


def worker(storage: str, num_trials: str, heartbeat: str) -> None:
    """One of several processes that share a study."""
    from jaxopt_study import sweeps

    with sweeps.OptunaSampler(storage, heartbeat=float(heartbeat)) as sampler:
        found = search(num_trials=int(num_trials), num_seeds=1, sampler=sampler)
    say(len(found.configs))


def forgetful_worker(storage: str) -> None:
    """A worker that asks for trials and is killed before it tells anything."""
    import time

    from jaxopt_study import sweeps

    sampler = sweeps.OptunaSampler(storage, heartbeat=0.5)
    asked = sampler.ask(sweeps.Space({"learning_rate": sweeps.log_uniform(1e-3, 10.0)}), 3, num_trials=8)
    say([handle for handle, _ in asked])
    time.sleep(600)


if __name__ == "__main__":
    {"distributed": distributed, "worker": worker, "forgetful": forgetful_worker}[sys.argv[1]](*sys.argv[2:])
