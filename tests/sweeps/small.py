"""Small problems for sweeps, and one trial of a search run by itself."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import sweeps
from jaxopt_study.problems import Metric, Problem
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.training import train

KEY = jax.random.key(3)
RATES = {"learning_rate": sweeps.log_uniform(1e-3, 0.5)}

_RNG = np.random.default_rng(0)
_X = _RNG.normal(size=(53, 3)).astype(np.float32)
_Y = (_X @ np.array([1.0, -2.0, 3.0]) + 0.3 * _RNG.normal(size=53)).astype(np.float32)
# The sizes differ, so that a loss knows by its batch which examples it sees.
TRAIN, VALIDATION, TEST = ((_X[part], _Y[part]) for part in (slice(0, 23), slice(23, 36), slice(36, 53)))


def residuals(params, batch):
    return batch[0] @ params - batch[1]


def regression(**changes):
    """Least squares in three dimensions, with a metric that is better where it is larger."""
    return Problem(
        "regression",
        init=lambda key: jax.random.normal(key, (3,)),
        loss=lambda params, batch: jnp.mean(residuals(params, batch) ** 2),
        data=TRAIN,
        validation=VALIDATION,
        test=TEST,
        metrics={"accuracy": Metric(lambda params, batch: jnp.mean(jnp.abs(residuals(params, batch)) < 1.0), "max")},
    ).replace(**changes)


def quadratic(centre=0.0):
    """A quadratic without data, whose largest curvature is 4: rates below ½ are stable."""
    scales = np.array([4.0, 1.0, 0.25], np.float32)
    return Problem(
        "quadratic",
        init=lambda key: jax.random.normal(key, (3,)),
        loss=lambda params, _: 0.5 * jnp.sum(scales * (params - centre) ** 2),
    )


def trials(make_optimizer, problem, num_steps, **changes):
    settings = {
        "evaluate_every": None, "evaluate_on": None, "report_on": (), "static": (),
        "options": {"batch_size": None, "order": "reshuffle", "evaluate_batch_size": None},
    }  # fmt: skip
    return Trials(make_optimizer, problem, num_steps, **settings | changes)


def seed_keys(key, num_seeds):
    """The key of the start, and that of the run, of every seed of a search."""
    pairs = [jax.random.split(one) for one in jax.random.split(jax.random.split(key)[1], num_seeds)]
    return [(pair[0], pair[1]) for pair in pairs]


def alone(problem, optimizer, keys, **settings):
    """Run one trial by itself."""
    return train(problem, optimizer, params=problem.init(keys[0]), key=keys[1], **settings)


def curves(search):
    """Everything a search recorded, by name, as bytes can be compared."""
    found = {f"curve {name}": values for name, values in search.curves.items()}
    return found | {name: getattr(search, name) for name in ("diverged_at", "num_steps", "finished")}


def assert_same(one, other):
    """Two searches have the same trials and, bit for bit, the same results."""
    assert one.configs == other.configs
    first, second = curves(one), curves(other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.dtype == second[name].dtype, name
        assert values.tobytes() == second[name].tobytes(), f"{name} differs: {values}, {second[name]}"
