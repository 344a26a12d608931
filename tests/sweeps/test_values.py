"""Values that a constructor refuses are refused before anything is compiled; what branches on a value is told how."""

import jax
import optax
import pytest

from jaxopt_study import optimizers, sweeps
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES

BAD = RATES | {"b2": sweeps.uniform(0.9, 1.4)}
SETTINGS = {"num_trials": 5, "num_steps": 4, "key": KEY, "width": 1}
COMPARISON = {"budget": 5, "num_steps": 4, "key": KEY, "width": 1}


def penalised(weight_decay):
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay to be a finite real number ≥ 0; received {weight_decay}.")
    return small.quadratic()


RUNS = {
    "search": lambda: sweeps.search(optimizers.adam, BAD, small.quadratic(), **SETTINGS),
    "path": lambda: sweeps.search(optimizers.adam(0.1), BAD, small.quadratic(), **SETTINGS),
    "grid": lambda: sweeps.search(
        optimizers.adam, BAD, small.quadratic(), sampler="grid", **SETTINGS | {"num_trials": 9}
    ),
    "choices": lambda: sweeps.search(
        optimizers.adam(0.1), {"b2": sweeps.choices(0.9, 1.33)}, small.quadratic(), sampler="grid",
        **SETTINGS | {"num_trials": 2},
    ),
    "halving": lambda: sweeps.search(optimizers.adam, BAD, small.quadratic(), halving=sweeps.Halving(2), **SETTINGS),
    "compare": lambda: sweeps.compare({"a": (optimizers.adam, BAD)}, small.quadratic(), **COMPARISON),
    "second problem": lambda: sweeps.compare(
        {"a": (optimizers.adam, BAD)}, {"one": small.quadratic(), "two": small.quadratic()}, **COMPARISON
    ),
    "ablate": lambda: sweeps.ablate(
        optimizers.adam(0.1), small.quadratic(), num_seeds=1,
        space={"learning_rate": sweeps.uniform(-2.0, -1.0)}, **COMPARISON,
    ),
    "rounded": lambda: sweeps.search(  # which single precision makes 1
        optimizers.adam(0.1), {"b2": sweeps.uniform(0.9, 0.9999999999)}, small.quadratic(), sampler="grid",
        **SETTINGS | {"num_trials": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_decay_out_of_range_is_refused_with_trial_name_value_and_range(name, compilations):
    message = r"to be a (finite )?real number (in \[0|≥ 0|> 0)"
    with compilations() as counter, pytest.raises(ValueError, match=message) as caught:
        RUNS[name]()
    assert counter.lanes == 0
    said = str(caught.value).lower()
    assert "trial" in said
    assert "uniform(low=" in said or "options=(0.9, 1.33)" in said
    assert "b2 = " in said or "learning_rate = -" in said


def test_optuna_is_not_given_a_space_that_is_refused():
    pytest.importorskip("optuna")
    sampler = sweeps.OptunaSampler()
    with pytest.raises(ValueError, match=r"to be a real number in \[0, 1\)"):
        sweeps.search(optimizers.adam, BAD, small.quadratic(), sampler=sampler, **SETTINGS)


def test_default_settings_and_settings_of_the_problem_and_of_training_are_looked_at(compilations):
    good = {"b2": sweeps.uniform(0.9, 0.99)}
    candidate = sweeps.Candidate(optimizers.adam(0.1), good, {"b2": 2.0})
    with compilations() as counter:
        with pytest.raises(ValueError, match=r"'a': default settings.* b2 = 2.0.*to be a real number in \[0, 1\)"):
            sweeps.compare({"a": candidate}, small.quadratic(), **COMPARISON)
        space = RATES | {"weight_decay": sweeps.uniform(-1.0, 1.0)}
        refused = r"weight_decay = -.*weight_decay to be a finite real number ≥ 0.*Uniform\(low=-1.0"
        with pytest.raises(ValueError, match=refused):
            sweeps.search(optimizers.sgd, space, penalised, **SETTINGS)
        with pytest.raises(ValueError, match="batch_size to be an integer from 1 to 23; received 40"):
            sweeps.search(optimizers.sgd, RATES | {"batch_size": sweeps.choices(4, 40)}, small.regression(), **SETTINGS)
        with pytest.raises(ValueError, match="'batch_size' must be static"):
            sweeps.search(optimizers.sgd, RATES | {"batch_size": sweeps.uniform(4, 8)}, small.regression(), **SETTINGS)
    assert counter.lanes == 0


def test_two_names_of_one_hyperparameter_are_refused():
    space = {"*.decay": sweeps.uniform(0.1, 0.9), "heavy_ball.decay": sweeps.uniform(0.1, 0.9)}
    with pytest.raises(ValueError, match="are the same hyperparameter"):
        sweeps.search(optimizers.momentum(0.1).expand(), space, small.quadratic(), **SETTINGS)


PEAK = sweeps.log_uniform(1e-3, 0.3)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda v: optax.warmup_cosine_decay_schedule(0.0, v, 2, 10),
        lambda v: optax.sgdr_schedule([{"init_value": 0.0, "peak_value": v, "decay_steps": 5, "warmup_steps": 2}]),
        lambda v: optax.exponential_decay(0.1, 10, v),
        lambda v: optax.piecewise_constant_schedule(0.1, {2: v}),
    ],
    ids=["warm-up and cosine", "restarts", "rate of decay", "factor of a piece"],
)
def test_a_schedule_that_branches_on_a_value_is_told_two_ways_and_both_work(schedule):
    make = lambda peak: optax.sgd(schedule(peak))
    with pytest.raises(TypeError, match=r"the optimizer branches on peak in Python.*static=True.*peak \* unit"):
        sweeps.search(make, {"peak": PEAK}, small.quadratic(), **SETTINGS)
    few = SETTINGS | {"num_trials": 2}
    static = {"peak": sweeps.log_uniform(1e-3, 0.3, static=True)}
    found = sweeps.search(make, static, small.quadratic(), **few)
    for i in range(2):
        run = found.replay(i)
        assert float(run.evaluations["train_loss"][-1]) == pytest.approx(float(found.final[i, 0]), rel=1e-5)


def test_a_peak_that_multiplies_is_the_peak_of_the_schedule():
    unit = optax.warmup_cosine_decay_schedule(0.0, 1.0, 2, 10)
    traced = sweeps.search(
        lambda peak: optax.sgd(lambda t: peak * unit(t)), {"peak": PEAK}, small.quadratic(), **SETTINGS
    )
    static = sweeps.search(
        lambda peak: optax.sgd(optax.warmup_cosine_decay_schedule(0.0, peak, 2, 10)),
        {"peak": sweeps.log_uniform(1e-3, 0.3, static=True)}, small.quadratic(), **SETTINGS | {"num_trials": 2},
    )  # fmt: skip
    assert traced.scores[:2] == pytest.approx(static.scores, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["acprop", "ademamix", "adopt", "cocob", "dadapt_adamw", "dog", "dowg", "galore", "madgrad", "momo",
             "momo_adam", "muon", "prodigy", "schedule_free_adamw", "schedule_free_sgd", "simplified_ademamix"],
)  # fmt: skip
def test_optimizers_of_optax_contrib_are_searched(name):
    make = getattr(optax.contrib, name)
    found = sweeps.search(
        lambda rate: make(learning_rate=rate), {"rate": PEAK}, small.quadratic(), **SETTINGS | {"num_trials": 2}
    )
    assert found.finished.all()
    assert not found.diverged.any()
    assert jax.numpy.isfinite(found.scores).all()


def test_values_that_single_precision_makes_0_are_refused():
    space = {"learning_rate": sweeps.log_uniform(1e-60, 1e-50)}
    with pytest.raises(ValueError, match=r"in single precision, where 1?.*e-5\d underflows to 0.*jax_enable_x64"):
        sweeps.search(optimizers.sgd, space, small.quadratic(), num_trials=2, num_steps=3, key=jax.random.key(0))
