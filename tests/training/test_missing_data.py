"""A problem without data whose loss or metric looks for examples is refused; one that ignores its batch runs."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxopt_study import optimizers, problems, sweeps
from jaxopt_study.problems import Metric, Problem
from jaxopt_study.training import EarlyStopping, Probe, evaluate, train

KEY = jax.random.key(0)
SETTINGS = {"num_steps": 2, "key": KEY}
MISSING = (
    r"Problem 'mine' has no data, and its {} fails on batch=None: .*None.* Give the problem its examples, as data=…"
)


def problem(loss=lambda params, _: jnp.sum(params**2), **more):
    return Problem("mine", init=lambda key: jnp.ones(2), loss=loss, **more)


LOOKING = {
    "subscript": lambda params, batch: jnp.mean((batch["x"] - params) ** 2),
    "unpacking": lambda params, batch: sum(part for part in batch) - params.sum(),
    "attribute": lambda params, batch: jnp.mean((batch.x - params) ** 2),
    "arithmetic": lambda params, batch: jnp.mean((params - batch) ** 2),
    "jax": lambda params, batch: jnp.mean(jnp.asarray(batch)) + params.sum(),
    "function of jax.numpy": lambda params, batch: jnp.mean(jnp.subtract(params, batch) ** 2),
}


@pytest.mark.parametrize("loss", LOOKING.values(), ids=LOOKING)
def test_a_loss_that_looks_for_examples_is_refused(loss):
    with pytest.raises(ValueError, match=MISSING.format("loss")):
        train(problem(loss), optax.sgd(0.1), **SETTINGS)


RATES = {"learning_rate": sweeps.log_uniform(0.01, 0.1)}


@pytest.mark.parametrize(
    "call",
    [
        lambda mine: evaluate(mine, jnp.ones(2), on="train"),
        lambda mine: sweeps.search(optimizers.sgd, RATES, mine, num_trials=2, width=1, **SETTINGS),
        lambda mine: sweeps.compare({"sgd": optax.sgd(0.1)}, mine, budget=0, report_seeds=1, width=1, **SETTINGS),
        lambda mine: sweeps.ablate(optimizers.momentum(0.1), mine, num_seeds=1, width=1, **SETTINGS),
        lambda mine: jax.vmap(lambda rate: train(mine, optax.sgd(rate), **SETTINGS).params)(jnp.ones(2)),
    ],
    ids=["evaluate", "search", "compare", "ablate", "vmap"],
)
def test_every_door_says_so(call):
    with pytest.raises(ValueError, match=MISSING.format("loss")):
        call(problem(LOOKING["subscript"]))


def test_a_metric_or_the_loss_of_a_step_is_named():
    metric = problem(metrics={"hits": Metric(LOOKING["subscript"], "max")})
    train(metric, optax.sgd(0.1), **SETTINGS)  # nothing is evaluated
    with pytest.raises(ValueError, match=MISSING.format("metric 'hits'")):
        train(metric, optax.sgd(0.1), early_stopping=EarlyStopping("train_loss"), evaluate_every=1, **SETTINGS)
    step_loss = lambda params, state, batch, key: (LOOKING["subscript"](params, batch), state)
    with pytest.raises(ValueError, match=MISSING.format("step_loss")):
        train(problem(step_loss=step_loss), optax.sgd(0.1), **SETTINGS)


def test_a_loss_that_ignores_its_batch_needs_none():
    assert train(problem(), optax.sgd(0.25), **SETTINGS).params.tolist() == [0.25, 0.25]
    assert train(problems.planar.bowl(), optax.sgd(0.1), **SETTINGS).num_steps == 2


@pytest.mark.parametrize("text", ["'NoneType' is not my fault", "another error"])
def test_errors_of_others_are_left_alone(text):
    def fails(params, opt_state, batch):
        raise TypeError(text)

    with pytest.raises(TypeError, match=text):
        train(problem(), optax.sgd(0.1), probe=Probe(fails), **SETTINGS)
    data = jnp.ones(3)
    with pytest.raises(TypeError, match=text):
        train(problem(lambda params, batch: fails(params, None, batch), data=data), optax.sgd(0.1), **SETTINGS)
