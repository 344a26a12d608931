"""A metric of one's own is anything that can be called and declares its direction: every selection follows it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, problems, sweeps, training
from jaxopt_study.problems import Metric, MetricFunction, networks
from tests.sweeps import small


@dataclass(frozen=True)
class Within:
    """The fraction of the examples whose residual is smaller than a tolerance: no subclass, no decorator."""

    tolerance: float
    mode = "max"
    is_proportion = True

    def __call__(self, params, batch):
        return jnp.mean(jnp.abs(small.residuals(params, batch)) < self.tolerance)


within = Within(0.5)
problem = small.regression(metrics={"within": within, "plain": lambda params, batch: within(params, batch)})


def test_it_is_a_metric_and_a_function_without_a_direction_is_none():
    assert isinstance(within, MetricFunction)
    assert isinstance(Metric(len, "min"), MetricFunction)
    assert isinstance(networks.accuracy, MetricFunction)
    assert not isinstance(problem.metrics["plain"], MetricFunction)
    assert [problem.mode_of(name) for name in ("loss", "within", "plain")] == ["min", "max", None]


def test_a_proportion_is_declared_and_not_read_from_a_name():
    assert [problem.is_proportion(name) for name in ("loss", "within", "plain")] == [False, True, False]
    data = problems.datasets.digits(num_train=20, num_validation=20, num_test=10)
    network = networks.mlp_classifier(data, widths=(3,))
    assert {name: network.is_proportion(name) for name in network.metrics} == {"accuracy": True, "cross_entropy": False}
    named = small.regression(metrics={"accuracy": Metric(small.residuals, "max")})
    assert not named.is_proportion("accuracy")
    adapted = problems.from_pytree(
        (jnp.zeros(2), "fixed"), lambda params, batch: jnp.mean(params[0] ** 2), data=problem.data, freeze_others=True,
        metrics={"within": within},
    )  # fmt: skip
    assert (adapted.mode_of("within"), adapted.is_proportion("within")) == ("max", True)
    with pytest.raises(ValueError, match="has the metrics 'loss', 'plain', 'within'; received 'without'"):
        problem.is_proportion("without")
    with pytest.raises(TypeError, match="is_proportion"):
        Metric(len, "min", is_proportion=1)


def test_early_stopping_search_and_comparison_select_by_it():
    rates, settings = small.RATES, {"num_steps": 8, "key": small.KEY, "width": 1}
    found = sweeps.search(optimizers.sgd, rates, problem, metric="validation_within", num_trials=5, **settings)
    ends = found.curves["validation_within"][:, 0, -1]
    assert found.mode == "max"
    assert ends[found.best.trial] == ends.max() > ends.min()
    candidates = {"good": optax.sgd(0.1), "bad": optax.sgd(1e-4)}
    compared = sweeps.compare(candidates, problem, metric="within", budget=0, report_seeds=6, **settings)
    assert (compared.mode, compared.ranking()) == ("max", ["good", "bad"])
    rule = training.EarlyStopping("validation_within", patience=1)
    run = training.train(
        problem, optax.sgd(0.1), num_steps=30, evaluate_every=1, early_stopping=rule, key=jax.random.key(0)
    )
    best = np.nanmax(run.evaluations["validation_within"])
    assert within(run.params, problem.validation) == best
