"""A metric's direction is what it declares, wherever a problem is made of it, and never guessed from a name."""

import jax.numpy as jnp
import pytest
from flax import linen, nnx

from jaxopt_study import problems
from jaxopt_study.problems import Metric, Problem, datasets, networks

DATA = {"x": jnp.ones((4, 3)), "y": jnp.zeros((4, 1))}


def loss(outputs, batch):
    return jnp.mean((outputs - batch["y"]) ** 2)


def of_model(model, batch):
    return loss(model(batch["x"]), batch)


METRICS = {"accuracy": loss, "f1": Metric(loss, mode="max"), "misses": Metric(loss, mode="min")}


@pytest.mark.parametrize(
    "make",
    [
        lambda: problems.from_linen(linen.Dense(1), loss, DATA, metrics=METRICS),
        lambda: problems.from_linen(
            linen.Sequential([linen.BatchNorm(True), linen.Dense(1)]), loss, DATA, metrics=METRICS
        ),
        lambda: problems.from_nnx(
            lambda rngs: nnx.Linear(3, 1, rngs=rngs), of_model, DATA,
            metrics={"accuracy": of_model, "f1": Metric(of_model, "max"), "misses": Metric(of_model, "min")},
        ),
        lambda: problems.from_pytree(jnp.zeros(1), loss, data=DATA, metrics=METRICS),
        lambda: problems.from_pytree((jnp.zeros(1), "other"), lambda p, b: loss(p[0], b), data=DATA,
            freeze_others=True, metrics={name: _of_first(metric) for name, metric in METRICS.items()}),
        lambda: Problem("plain", init=lambda key: jnp.zeros(1), loss=loss, data=DATA, metrics=METRICS),
    ],
    ids=["linen", "linen with state", "nnx", "pytree", "frozen leaves", "by hand"],
)  # fmt: skip
def test_a_problem_keeps_what_its_metrics_declare(make):
    problem = make()
    assert [problem.mode_of(name) for name in ("loss", "accuracy", "f1", "misses")] == ["min", None, "max", "min"]


def _of_first(metric):
    inner = lambda params, batch: loss(params[0], batch)
    return Metric(inner, metric.mode) if isinstance(metric, Metric) else inner


def test_the_metrics_of_networks_declare_theirs():
    data = datasets.digits(num_train=20, num_validation=20, num_test=10)
    problem = networks.mlp_classifier(data, widths=(3,))
    assert {name: problem.mode_of(name) for name in problem.metrics} == {"accuracy": "max", "cross_entropy": "min"}
    mine = Problem("mine", init=lambda key: jnp.zeros(3), loss=loss, metrics={"hits": networks.accuracy})
    assert mine.mode_of("hits") == "max"


def test_an_impossible_declaration_and_an_unknown_metric_are_refused():
    with pytest.raises(ValueError, match=r"mode to be one of 'min', 'max'; received 'maximise'"):
        Metric(loss, mode="maximise")
    with pytest.raises(TypeError):
        Metric(0.5, mode="max")
    with pytest.raises(ValueError, match=r"has the metrics 'loss', 'f1'; received 'f2'"):
        Problem("one", init=lambda key: jnp.zeros(1), loss=loss, metrics={"f1": loss}).mode_of("f2")
