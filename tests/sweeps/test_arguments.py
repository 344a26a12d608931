"""Every argument of a sweep is looked at before anything is traced: no value of a wrong kind is taken for another."""

import jax
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES

COUNTS = [1.5, True, -1, "3", None, float("nan"), 10**30, np.ones(2)]
WORDS = [0, None, True, "halton", float("nan"), np.ones(2)]
LEVELS = ["x", 0.0, 1.0, 1.5, -0.5, float("nan"), None, True, np.ones(2)]
ENDS = ["x", float("nan"), float("inf"), None, True, 1j, np.ones(2)]


def search(**changes):
    given = {"space": RATES, "problem": small.quadratic(), "num_trials": 1, "num_steps": 1, "key": KEY, "width": 1}
    return sweeps.search(**{"make_optimizer": optimizers.sgd} | given | changes)


def compare(**changes):
    given = {"candidates": {"a": optax.sgd(0.1)}, "problem": small.quadratic(), "budget": 0, "num_steps": 1, "key": KEY}
    return sweeps.compare(**given | changes)


def ablate(**changes):
    given = {"optimizer": optimizers.momentum(0.1), "problem": small.quadratic(), "num_steps": 1, "key": KEY}
    return sweeps.ablate(**given | changes)


WRONG = [
    *[(search, name, COUNTS) for name in ("num_trials", "num_steps", "num_seeds", "width")],
    *[(compare, name, COUNTS) for name in ("budget", "num_steps", "tune_seeds", "report_seeds", "width")],
    *[(ablate, name, COUNTS) for name in ("budget", "num_steps", "tune_seeds", "num_seeds", "width")],
    *[(run, name, WORDS) for run in (search, compare, ablate) for name in ("sampler",)],
    *[(run, "mode", [0, True, "larger", np.ones(2)]) for run in (search, compare, ablate)],
    *[(run, "metric", [0, True, "f1", "loss_", np.ones(2)]) for run in (search, compare, ablate)],
    *[(run, "mesh", ["trials", 1, jax.devices()]) for run in (search, compare, ablate)],
    *[(run, "problem", [None, "bowl", 3]) for run in (search, compare, ablate)],
    *[(run, "evaluate_every", [0, -1, 1.5, "x", True]) for run in (search, compare, ablate)],
    (search, "space", [None, {}, [], "x", {"learning_rate": 0.1}, {"no name": RATES["learning_rate"]}]),
    (search, "make_optimizer", [None, 3, "sgd", optax.sgd(0.1)]),
    (search, "halving", [3, "x", True]),
    (compare, "candidates", [None, {}, [optax.sgd(0.1)], {"a": 3}]),
    (ablate, "level", LEVELS),
    (ablate, "optimizer", [None, optax.sgd(0.1), "x"]),
    (ablate, "neutral", [3, "x", [1], {"eps": "x"}]),
    *[(lambda **end: sweeps.uniform(**{"low": 0.0, "high": 1.0} | end), name, ENDS) for name in ("low", "high")],
    *[(lambda **end: sweeps.log_uniform(**{"low": 0.1, "high": 1.0} | end), name, ENDS) for name in ("low", "high")],
    *[(lambda **end: sweeps.integers(**{"low": 1, "high": 4} | end), name, [*ENDS, 1.5]) for name in ("low", "high")],
    (lambda low: sweeps.uniform(low, 1.0), "low", [1.0, 2.0]),
    (lambda low: sweeps.log_uniform(low, 1.0), "low", [0.0, -1.0, 1.0]),
    (lambda low: sweeps.integers(low, 4), "low", [5, 2**31]),
    (lambda log: sweeps.integers(0, 4, log=log), "log", [True, "yes", 1]),
    (lambda options: sweeps.choices(*options), "options", [(), ([16, 64],), ("a", "a"), (1, 1.0), (float("nan"), 2)]),
    (lambda static: sweeps.choices(0.1, 0.2, static=static), "static", ["yes", 1]),
    (lambda dimension: sweeps.conditional(dimension, on="a", equals=1), "dimension", [None, 3, "x"]),
    (lambda on: sweeps.conditional(RATES["learning_rate"], on=on, equals=1), "on", [None, 3]),
    (sweeps.Halving, "min_steps", COUNTS[:-2]),
    (lambda factor: sweeps.Halving(1, factor), "factor", [*COUNTS[:-2], 1]),
    *[(lambda **given: sweeps.sample(**{"space": RATES, "num_trials": 2, "key": KEY} | given), *rest) for rest in (
        ("num_trials", COUNTS), ("sampler", WORDS), ("space", [None, {}, 3]), ("key", [None, 3, "x"]),
    )],
    (lambda count: sweeps.use_cpu_cores(count), "count", [0, *COUNTS[:4]]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "values"), WRONG)
def test_a_wrong_argument_is_refused(call, name, values):
    for value in values:
        with pytest.raises((TypeError, ValueError)):
            call(**{name: value})


@pytest.fixture(scope="module")
def results():
    pair = {"a": optax.sgd(0.1), "b": optax.sgd(0.2)}
    return search(num_trials=2), compare(candidates=pair, report_seeds=2)


def test_a_wrong_question_to_a_result_is_refused(results):
    found, compared = results
    questions = [
        *[lambda level=level: found.indistinguishable(level=level) for level in LEVELS],
        *[lambda level=level: compared.differences(level=level) for level in LEVELS],
        *[lambda k=k: found.best_of_k(k) for k in (0, 3, 1.5, "x", [])],
        *[lambda i=i: found.replay(i) for i in (-1, 2, 0.0, "x", None, True)],
        *[lambda n=n: found.indistinguishable(num_examples=n) for n in (0, -1, 1.5, "x")],
        *[lambda s=s: compared.of(settings=s) for s in ("best", None, 1)],
        *[lambda t=t: compared.steps_to_target(t) for t in (float("nan"), "x")],
    ]
    for question in questions:
        with pytest.raises((TypeError, ValueError)):
            question()


@pytest.mark.parametrize("run", [search, compare, ablate])
def test_a_sweep_is_not_traced(run):
    for call in (lambda x: jax.jit(lambda key: run(key=key))(x), lambda x: jax.vmap(lambda key: run(key=key))(x[None])):
        with pytest.raises(TypeError, match=f"{run.__name__} runs from Python"):
            call(KEY)
    with pytest.raises(TypeError, match=f"{run.__name__} runs from Python"):
        jax.jit(lambda scale: run(problem=small.quadratic()) and scale)(1.0)
