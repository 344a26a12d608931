"""Every public result can be copied and pickled, without a change in its numbers."""

import copy
import dataclasses
import inspect
import pickle
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import curvature, dynamics, optimizers, problems, sweeps, training
from jaxopt_study.sweeps import ComparisonInterrupted, SearchInterrupted
from jaxopt_study.training import TrainingInterrupted
from jaxopt_study.transforms import Transform
from tests.abuse.valid_calls import public_calls

STAGES = {"curvature": curvature, "dynamics": dynamics, "sweeps": sweeps, "training": training}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda result: pickle.loads(pickle.dumps(result))}
KEY = jax.random.key(0)


def start(key):
    return jax.random.normal(key, (2,))


def loss(params, _):
    return jnp.sum(params**2)


def assert_same(one, other, where="result"):
    """Compare all that a result holds, except for functions."""
    assert type(one) is type(other), where
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            if field.name != "trials":
                assert_same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for name in one:
            assert_same(one[name], other[name], f"{where}[{name!r}]")
    elif isinstance(one, list | tuple) and not isinstance(one, Transform):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(one, jax.Array) and jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(other), where)
    elif isinstance(one, np.ndarray | jax.Array | float):
        np.testing.assert_array_equal(one, other, where)
    elif isinstance(one, Transform) or not callable(one):
        assert repr(one) == repr(other), where


def results(stage):
    """Yield (name, result) of every public function of a stage that returns one of its classes."""
    for name, (function, arguments) in public_calls(stage).items():
        annotation = inspect.signature(function).return_annotation
        given = arguments()
        ours = inspect.isclass(annotation) and annotation.__module__.startswith("jaxopt_study")
        # An operator is no result: it holds the caller's function, and can be pickled if that can.
        if ours and not issubclass(annotation, curvature.Operator):
            positional = [given.pop(p) for p in list(given) if p in _before(function)]
            yield name, function(*positional, **given)


def _before(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.POSITIONAL_ONLY or p.kind is p.VAR_POSITIONAL}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_public_result_can_be_copied_and_pickled(stage):
    found = 0
    for name, result in results(stage):
        for copied in (copier(result) for copier in COPIES.values()):
            assert_same(result, copied, name)
        found += 1
    assert found


@cache
def sweep(local):
    """Return a search, a comparison, an ablation and a trajectory of a problem with local or importable functions."""
    problem = problems.Problem("bowl", init=(lambda key: start(key)) if local else start, loss=loss)
    rates = {"learning_rate": sweeps.log_uniform(0.01, 0.1)}
    settings = {"num_steps": 3, "key": KEY, "width": 1}
    candidates = {"sgd": (optimizers.sgd, rates)}
    return {
        "search": sweeps.search(optimizers.sgd, rates, problem, num_trials=2, **settings),
        "comparison": sweeps.compare(candidates, problem, budget=2, report_seeds=2, **settings),
        "ablation": sweeps.ablate(optimizers.momentum(0.1), problem, num_seeds=2, **settings),
        "trajectory": training.train(problem, optimizers.adam(0.1), num_steps=3, key=KEY),
    }


@pytest.mark.parametrize("local", [False, True], ids=["importable", "local"])
@pytest.mark.parametrize("name", ["search", "comparison", "ablation", "trajectory"])
@pytest.mark.parametrize("copier", COPIES.values(), ids=COPIES)
def test_what_sweeps_and_training_return_can_be_copied(copier, name, local):
    result = sweep(local)[name]
    assert_same(result, copier(result))


def test_a_copy_runs_its_trials_again():
    found = sweep(False)["search"]
    alone = found.replay(1).losses
    for copier in COPIES.values():
        np.testing.assert_array_equal(copier(found).replay(1).losses, alone)
    report = sweep(True)["comparison"].reports[-1]
    np.testing.assert_array_equal(copy.deepcopy(report).replay(1).losses, report.replay(1).losses)


@pytest.mark.parametrize("name", ["search", "comparison"])
def test_what_is_pickled_without_its_functions_says_why_it_cannot_run_again(name):
    result = pickle.loads(pickle.dumps(sweep(True)[name]))
    with pytest.raises(ValueError, match=r"replay needs the functions .* local object 'sweep.<locals>.<lambda>'"):
        result.replay(0) if name == "search" else result.reports[0].replay(0)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(SearchInterrupted, "search"), (ComparisonInterrupted, "comparison"), (TrainingInterrupted, "trajectory")],
)
def test_an_interrupt_arrives_with_its_result(kind, name):
    raised = kind(sweep(True)[name])
    arrived = pickle.loads(pickle.dumps(raised))
    assert str(arrived) == str(raised)
    assert_same(getattr(raised, name), getattr(arrived, name))
