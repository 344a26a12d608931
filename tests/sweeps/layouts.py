"""Run the same searches on 1, 2 and 8 virtual devices, and print what was found as JSON.

A process of its own, because the number of CPU devices is settled before JAX starts.
"""

import json
import sys

import jax
import optax
from jax.sharding import AxisType

from jaxopt_study import sweeps

LAYOUTS = [(1, 1), (1, 4), (2, 4), (8, 1)]  # devices and width; but for the first, 15 lanes do not fill the last call
PROBLEMS = ("quadratic", "regression")


def settings():
    from tests.sweeps import small

    return {"num_trials": 5, "num_seeds": 3, "num_steps": 12, "evaluate_every": 4, "key": small.KEY}


def searched(problem, devices, width):
    from tests.sweeps import small  # which has a key, and so starts JAX

    mesh = jax.make_mesh((devices,), ("trials",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return sweeps.search(optax.sgd, small.RATES, getattr(small, problem)(), mesh=mesh, width=width, **settings())


def message(function, *arguments):
    try:
        function(*arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    found = {"devices": sweeps.use_cpu_cores(8), "seen": len(jax.devices())}
    from tests.sweeps import small

    found["again"] = sweeps.use_cpu_cores(8)
    found["late"] = message(sweeps.use_cpu_cores, 3)
    found["none"] = message(sweeps.use_cpu_cores, 0)
    found["all"] = sweeps.search(optax.sgd, small.RATES, small.quadratic(), **settings()).layout
    for problem in PROBLEMS:
        found[problem] = []
        for devices, width in LAYOUTS:
            search = searched(problem, devices, width)
            results = {name: values.tobytes().hex() for name, values in small.curves(search).items()}
            found[problem].append({"layout": search.layout, "results": results})
    # Outside of the tests nothing checks types.
    found["no maker"] = message(lambda: sweeps.search(optax.sgd(0.1), small.RATES, small.quadratic(), **settings()))
    found["mode"] = message(
        lambda: sweeps.search(optax.sgd, small.RATES, small.quadratic(), mode="least", **settings())
    )
    found["no candidate"] = message(lambda: sweeps.Candidate(optax.sgd(0.1), small.RATES))
    json.dump(found, sys.stdout)
