"""The direction of a metric is declared, by it or by the caller, and never read from its name."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps
from jaxopt_study.problems import Metric
from jaxopt_study.sweeps import penalised
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES

SETTINGS = {"num_trials": 5, "num_steps": 8, "key": KEY, "width": 1}


def fit(params, batch):
    return -jnp.mean(small.residuals(params, batch) ** 2)


def problem(name, metric):
    return small.regression(metrics={name: metric})


@pytest.mark.parametrize("name", ["f1", "error", "accuracy", "loss_like", "top5"])
def test_the_same_numbers_have_the_same_winner_under_every_name(name):
    """Least loss is largest fit: whichever it is called, the winner is that of the loss."""
    by_loss = sweeps.search(optimizers.sgd, RATES, problem(name, fit), **SETTINGS)
    for metric, mode in ((Metric(fit, "max"), None), (fit, "max")):
        found = sweeps.search(
            optimizers.sgd, RATES, problem(name, metric), metric=f"validation_{name}", mode=mode, **SETTINGS
        )
        assert (found.mode, found.best.trial) == ("max", by_loss.best.trial)
    with pytest.raises(ValueError, match=rf"needs a direction for 'validation_{name}'.*mode='max'.*problems.Metric"):
        sweeps.search(optimizers.sgd, RATES, problem(name, fit), metric=f"validation_{name}", **SETTINGS)


def test_halving_goes_on_with_the_best_of_a_metric_that_is_maximised():
    kept = [
        sweeps.search(
            optimizers.sgd, RATES, problem("f1", Metric(fit, "max")), metric=metric, halving=sweeps.Halving(2, 2),
            **SETTINGS,
        ).num_steps[:, 0]
        for metric in ("validation_loss", "validation_f1")
    ]  # fmt: skip
    np.testing.assert_array_equal(*kept)


def test_a_comparison_names_the_better_one_the_winner():
    candidates = {"good": optax.sgd(0.1), "bad": optax.sgd(1e-4)}
    settings = {"budget": 0, "num_steps": 20, "report_seeds": 6, "key": KEY, "width": 1}
    for metric, mode in ((Metric(fit, "max"), None), (fit, "max")):
        found = sweeps.compare(candidates, problem("f1", metric), metric="f1", mode=mode, **settings)
        assert (found.mode, found.select_mode, found.ranking()) == ("max", "max", ["good", "bad"])
        assert found.verdict() == "good is better than all others"
    with pytest.raises(ValueError, match="compare needs a direction for 'f1'"):
        sweeps.compare(candidates, problem("f1", fit), metric="f1", **settings)
    chosen = {"metric": "loss", "select_by": "f1", "select_mode": "max"}
    found = sweeps.compare(candidates, problem("f1", fit), **chosen, **settings)
    assert (found.mode, found.select_mode) == ("min", "max")
    with pytest.raises(ValueError, match="needs a direction for 'f1'"):
        sweeps.compare(candidates, problem("f1", fit), metric="loss", select_by="f1", mode="max", **settings)


def test_an_ablation_knows_what_helps():
    arguments = {"num_steps": 10, "num_seeds": 1, "key": KEY, "width": 1}
    chain = optimizers.momentum(0.02)
    by_loss = sweeps.ablate(chain, problem("f1", Metric(fit, "max")), **arguments)
    by_fit = sweeps.ablate(chain, problem("f1", Metric(fit, "max")), metric="f1", **arguments)
    for one, other in zip(by_loss.contributions(), by_fit.contributions(), strict=True):
        np.testing.assert_allclose(one.loss[0], other.loss[0], rtol=1e-5)
    with pytest.raises(ValueError, match="ablate needs a direction"):
        sweeps.ablate(chain, problem("f1", fit), metric="f1", **arguments)


def test_infinity_on_the_better_side_is_no_record():
    """An overflow, as of a reciprocal, must not win; neither where larger nor where smaller is better."""
    score = lambda params, batch: jnp.where(params[0] > 0.2, jnp.inf, fit(params, batch))
    for sign, mode in ((1.0, "max"), (-1.0, "min")):
        metric = Metric(lambda params, batch, sign=sign: sign * score(params, batch), mode)
        found = sweeps.search(optimizers.sgd, RATES, problem("odd", metric), metric="validation_odd", **SETTINGS)
        ends = found.curves["validation_odd"][:, 0, -1]
        assert np.isinf(ends).any()
        assert np.isfinite(ends).any()
        finite = np.where(np.isfinite(ends), sign * ends, -np.inf)
        assert found.best.trial == finite.argmax()
        assert np.isnan(found.scores[np.isinf(ends)]).all()
    np.testing.assert_array_equal(penalised([np.inf, -np.inf, 1.0], "max"), [-np.inf, -np.inf, 1.0])
    np.testing.assert_array_equal(penalised([np.inf, -np.inf, 1.0], "min"), [np.inf, np.inf, 1.0])


def test_a_sampler_of_the_other_direction_is_refused():
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="The sampler has mode='max', but 'validation_loss' has mode='min'"):
        sweeps.search(
            optimizers.sgd, RATES, small.regression(), sampler=sweeps.OptunaSampler(direction="maximize"), **SETTINGS
        )
