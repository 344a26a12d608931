"""A search: each trial the run it says, chosen by validation alone, with every failure a result or a clear message."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps
from jaxopt_study.problems import Metric, datasets, networks
from jaxopt_study.sweeps import Search, SearchInterrupted
from jaxopt_study.training import linear_curriculum, train
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES
from tests.training.test_batch_order import Backwards, Weighted

EASY = np.arange(23.0)
SETTINGS = {"num_trials": 6, "num_seeds": 2, "num_steps": 12, "evaluate_every": 5, "key": KEY, "width": 1}


@pytest.fixture(scope="module")
def found(regression):
    return sweeps.search(optimizers.sgd, RATES, regression, **SETTINGS)


def assert_trials_are_runs(search, problem_of, optimizer_of, *, rtol, which=slice(None), **settings):
    """Lanes of a search are the runs of `train` that their configurations and their seeds' keys say."""
    for j, keys in enumerate(small.seed_keys(KEY, search.finished.shape[1])):
        for i in np.arange(len(search.configs))[which]:
            config = search.configs[i]
            own = {name: config[name] for name in ("batch_size", "order") if name in config}
            run = small.alone(problem_of(config), optimizer_of(config), keys, **settings | own)
            assert (search.num_steps[i, j], search.diverged_at[i, j]) == (int(run.num_steps), int(run.diverged_at))
            for name, values in run.evaluations.items():
                if name != "step":
                    np.testing.assert_allclose(search.curves[name][i, j], values, rtol=rtol, err_msg=f"{name} {config}")


def test_a_trial_is_the_run_of_its_configuration_and_seed(found, regression):
    settings = {"num_steps": 12, "evaluate_every": 5, "rtol": 16 * 2**-23}
    assert_trials_are_runs(found, lambda _: regression, lambda config: optimizers.sgd(**config), **settings)
    assert found.steps.tolist() == [0, 5, 10, 12]
    assert found.finished.all()


def test_paths_of_a_transform_are_searched(regression):
    """A traced decay is complemented in single precision, Adam's own in double: within 1e-5 after 12 steps."""
    space = RATES | {"b2": sweeps.uniform(0.5, 0.99)}
    search = sweeps.search(optimizers.adam(0.1), space, regression, **SETTINGS)
    settings = {"num_steps": 12, "evaluate_every": 5, "rtol": 1e-5}
    assert_trials_are_runs(search, lambda _: regression, lambda config: optimizers.adam(**config), **settings)


def test_seeds_are_shared_between_trials(found):
    start, first_batch = found.curves["validation_loss"][:, :, 0], found.curves["batch_loss"][:, :, 0]
    for values in (start, first_batch):
        assert (values == values[0]).all()
        assert len(np.unique(values)) == 2  # and no seed is another's


def test_a_longer_search_begins_with_a_shorter_one(found, regression):
    longer = sweeps.search(optimizers.sgd, RATES, regression, **SETTINGS | {"num_trials": 9, "num_seeds": 3})
    assert longer.configs[:6] == found.configs
    for name, values in found.curves.items():
        assert longer.curves[name][:6, :2].tobytes() == values.tobytes()


def test_the_same_key_repeats_a_search_and_another_does_not(found, regression):
    small.assert_same(found, sweeps.search(optimizers.sgd, RATES, regression, **SETTINGS))
    other = sweeps.search(optimizers.sgd, RATES, regression, **SETTINGS | {"key": jax.random.key(4)})
    assert other.configs != found.configs
    assert (other.curves["validation_loss"][..., 0] != found.curves["validation_loss"][..., 0]).all()


def test_the_best_trial_has_the_best_mean_of_the_metric(found):
    means = found.curves["validation_loss"][:, :, -1].astype(float).mean(axis=1)
    best = found.best
    assert (best.trial, best.score) == (means.argmin(), means.min())
    assert best.config == found.configs[best.trial]
    np.testing.assert_array_equal(best.scores, found.curves["validation_loss"][best.trial, :, -1])
    np.testing.assert_array_equal(found.ranking, np.argsort(means))
    assert (found.metric, found.mode) == ("validation_loss", "min")


def test_an_accuracy_is_better_where_it_is_larger_and_mode_decides(regression):
    upward = sweeps.search(optimizers.sgd, RATES, regression, metric="validation_accuracy", **SETTINGS)
    assert upward.mode == "max"
    assert upward.best.score == upward.curves["validation_accuracy"][:, :, -1].astype(float).mean(axis=1).max()
    worst = sweeps.search(optimizers.sgd, RATES, regression, mode="max", **SETTINGS)
    assert worst.best.score == np.max(worst.scores)


@pytest.mark.parametrize("poison", [-1e10, 1e30])
def test_test_examples_do_not_reach_a_search(found, regression, poison):
    bad = tuple(np.full_like(array, poison) for array in regression.test)
    small.assert_same(found, sweeps.search(optimizers.sgd, RATES, regression.replace(test=bad), **SETTINGS))
    garbage = regression.replace(validation=tuple(np.full_like(array, poison) for array in regression.validation))
    control = sweeps.search(optax.sgd, RATES, garbage, **SETTINGS)
    assert (control.curves["validation_loss"] != found.curves["validation_loss"]).all()


def test_what_is_evaluated_can_be_said(regression):
    both = sweeps.search(optimizers.sgd, RATES, regression, evaluate_on=["train", "validation"], **SETTINGS)
    assert {"train_loss", "validation_loss", "batch_loss"} < both.curves.keys()
    assert both.metric == "validation_loss"
    assert both.curves["train_loss"].shape == (6, 2, 4)


def test_compilation_is_shared_where_it_can_be(compilations):
    """A program for each value that shapes one; but options that lead to the same program share it."""
    rate = sweeps.uniform(0.01, 0.2)

    def compiled(make_optimizer, space, num_trials, sampler="grid"):
        with compilations() as counter:
            search = sweeps.search(
                make_optimizer, {"learning_rate": rate} | space, small.quadratic(), num_trials=num_trials,
                num_steps=5, key=KEY, sampler=sampler, width=2,
            )  # fmt: skip
        assert search.finished.all()
        return counter.lanes

    flavour = {"flavour": sweeps.choices("a", "b", "c")}
    assert compiled(lambda learning_rate, flavour: optax.sgd(learning_rate, 0.8), flavour, 9) == 1
    numbers = {"momentum": sweeps.choices(0.5, 0.7, 0.9), "power": sweeps.integers(1, 3, static=False)}
    maker = lambda learning_rate, momentum, power: optax.sgd(learning_rate / power, momentum)
    assert compiled(maker, numbers, 20, "random") == 1
    conditional = {
        "method": sweeps.choices("sgd", "momentum"),
        "decay": sweeps.conditional(sweeps.uniform(0.1, 0.9), on="method", equals="momentum"),
    }

    def make(learning_rate, method, decay=0.0):
        return optax.sgd(learning_rate, momentum=decay if method == "momentum" else None)

    assert compiled(make, conditional, 16, "random") == 2


def two_layers(scale, weight_decay, width, centred):
    """A network whose hidden layer may be centred by a mean over the batch, of which a running one is carried."""

    def outputs(params, x, mean):
        hidden = x @ params["in"]
        return jnp.tanh(hidden - (hidden.mean(0) if mean is None else mean)) @ params["out"], hidden

    def objective(params, batch, mean):
        predicted, hidden = outputs(params, batch[0], mean)
        penalty = weight_decay * (jnp.sum(params["in"] ** 2) + jnp.sum(params["out"] ** 2))
        return jnp.mean((predicted - batch[1]) ** 2) + penalty, hidden

    def step_loss(params, mean, batch, key):
        loss, hidden = objective(params, batch, None if centred else mean)
        return loss, 0.9 * mean + 0.1 * hidden.mean(0) if centred else mean

    def init(key):
        inner, outer = jax.random.split(key)
        shapes = {"in": jax.random.normal(inner, (3, width)), "out": jax.random.normal(outer, (width,))}
        return jax.tree.map(lambda leaf: scale * leaf, shapes)

    return small.regression(
        init=init, loss=lambda params, batch, mean: objective(params, batch, mean)[0], metrics={}, step_loss=step_loss,
        init_state=lambda key: jnp.zeros(width),
    )  # fmt: skip


def test_settings_of_the_problem_are_searched_and_each_trial_is_its_own_run(compilations):
    """Initial scale and weight decay travel through one program; what is normalised, and the width, have their own."""
    space = RATES | {
        "scale": sweeps.log_uniform(0.01, 1.0),
        "weight_decay": sweeps.log_uniform(1e-4, 1e-1),
        "centred": sweeps.choices(True, False),
        "width": sweeps.conditional(sweeps.integers(4, 4), on="centred", equals=True),
    }

    def make_problem(scale, weight_decay, centred, width=5):
        return two_layers(scale, weight_decay, width, centred)

    with compilations() as counter:
        search = sweeps.search(optimizers.sgd, space, make_problem, num_trials=6, num_steps=7, key=KEY, width=2)
    kinds = [config["centred"] for config in search.configs]
    assert set(kinds) == {True, False}
    assert counter.lanes == 4  # of each kind the start and the trial
    assert len(np.unique(search.curves["validation_loss"][:, 0, 0])) == 6  # scales differ
    names = ("scale", "weight_decay", "centred", "width")
    assert_trials_are_runs(
        search, lambda c: make_problem(**{name: c[name] for name in names if name in c}),
        lambda c: optimizers.sgd(c["learning_rate"]), which=[kinds.index(True)],
        num_steps=7, evaluate_every=7, rtol=2e-5,
    )  # fmt: skip


@pytest.mark.slow
def test_networks_with_and_without_batch_norm_are_searched():
    digits = datasets.digits(num_train=60, num_validation=40, num_test=10)

    def make_problem(scale, weight_decay, normalisation):
        return networks.mlp_classifier(
            digits, widths=(6 if normalisation else 5,), initialiser=scale, weight_decay=weight_decay,
            normalisation=normalisation,
        )  # fmt: skip

    space = RATES | {
        "scale": sweeps.log_uniform(0.01, 1.0),
        "weight_decay": sweeps.log_uniform(1e-4, 1e-1),
        "normalisation": sweeps.choices(None, "batch"),
        "batch_size": sweeps.conditional(sweeps.integers(20, 21), on="normalisation", equals="batch"),
    }
    search = sweeps.search(
        lambda learning_rate: optimizers.sgd(learning_rate),  # which has a weight decay, too
        space, make_problem, num_trials=8, num_steps=5, metric="validation_cross_entropy", key=KEY,
    )  # fmt: skip
    assert len({(config["normalisation"], config.get("batch_size")) for config in search.configs}) == 3
    names = ("scale", "weight_decay", "normalisation")
    assert_trials_are_runs(
        search, lambda c: make_problem(**{name: c[name] for name in names}),
        lambda c: optimizers.sgd(c["learning_rate"]), num_steps=5, evaluate_every=5, rtol=2e-5,
    )  # fmt: skip


def test_batch_size_and_order_are_searched():
    problem = small.regression(metrics={})
    space = {
        "batch_size": sweeps.choices(4, 7),
        "order": sweeps.conditional(sweeps.choices("shuffle_once"), on="batch_size", equals=7),
    }
    search = sweeps.search(lambda: optimizers.sgd(0.1), space, problem, sampler="grid", **SETTINGS | {"num_trials": 2})
    assert search.configs == [{"batch_size": 4}, {"batch_size": 7, "order": "shuffle_once"}]
    settings = {"num_steps": 12, "evaluate_every": 5, "rtol": 16 * 2**-23}
    assert_trials_are_runs(search, lambda _: problem, lambda _: optimizers.sgd(0.1), which=[1], **settings)
    assert (search.curves["batch_loss"][0, 0] != search.curves["batch_loss"][1, 0]).any()


def test_some_trials_that_diverge_are_kept_and_flagged():
    rates = {"learning_rate": sweeps.choices(0.1, 1e25, 0.2)}
    search = sweeps.search(optax.sgd, rates, small.quadratic(), sampler="grid", **SETTINGS | {"num_trials": 3})
    assert search.diverged.tolist() == [[False, False], [True, True], [False, False]]
    assert np.isnan(search.final[1]).all()
    assert np.isfinite(search.final[[0, 2]]).all()
    assert search.best.trial == 2
    assert search.ranking.tolist() == [2, 0, 1]
    assert not search.indistinguishable()[1]
    run = train(small.quadratic(), optax.sgd(1e25), num_steps=12, key=KEY)
    assert (search.diverged_at[1] == int(run.diverged_at)).all()
    table = search.to_pandas()
    assert table[table.trial == 1].diverged.all()
    assert np.isfinite(search.curves["train_loss"][1, :, 0]).all()  # what there was before


def test_trials_in_which_nothing_moves_are_flagged():
    rates = {"learning_rate": sweeps.choices(0.1, 1e-30, 0.2)}
    search = sweeps.search(optax.sgd, rates, small.quadratic(), sampler="grid", **SETTINGS | {"num_trials": 3})
    assert search.stalled.tolist() == [[False, False], [True, True], [False, False]]
    assert search.to_pandas().stalled.tolist() == search.stalled.ravel().tolist()
    rungs = sweeps.search(
        optax.sgd, rates, small.quadratic(), sampler="grid", halving=sweeps.Halving(factor=2, min_steps=4),
        **SETTINGS | {"num_trials": 3},
    )  # fmt: skip
    assert rungs.stalled.tolist() == search.stalled.tolist()


def test_nan_from_the_first_step_in_all_trials_leaves_the_table_and_says_so():
    problem = small.quadratic().replace(loss=lambda params, _: jnp.nan * jnp.sum(params))
    search = sweeps.search(optax.sgd, RATES, problem, **SETTINGS)
    assert (search.diverged_at == 0).all()
    assert (search.num_steps == 0).all()
    with pytest.raises(
        ValueError,
        match="No trial has a finite score on every seed: of 6 trials, 6 were run with every seed, 6 of them diverged",
    ):
        search.best  # noqa: B018
    table = search.to_pandas()
    assert len(table) == 12
    assert table.diverged.all()
    assert table.train_loss.isna().all()
    assert search.indistinguishable().all()  # none is better than another
    assert not np.isfinite(search.best_of_k().estimate).any()


def test_nan_in_the_metric_alone_is_not_called_divergence(regression):
    nothing = Metric(lambda params, batch: jnp.nan * jnp.sum(batch[0]), mode="min")
    broken = regression.replace(metrics={"broken": nothing})
    search = sweeps.search(optimizers.sgd, RATES, broken, metric="validation_broken", **SETTINGS)
    assert not search.diverged.any()
    with pytest.raises(ValueError, match="0 of them diverged, and the validation_broken of the others is NaN"):
        search.best  # noqa: B018


def test_one_trial_is_a_search():
    search = sweeps.search(optax.sgd, RATES, small.quadratic(), **SETTINGS | {"num_trials": 1, "num_seeds": 1})
    assert search.best.trial == 0
    assert search.indistinguishable().tolist() == [True]
    assert search.best_of_k().estimate.tolist() == [search.best.score]
    assert len(search.to_pandas()) == 1
    assert repr(search).startswith("Search: 1 of 1 trials × 1 seed, train_loss (smaller is better)")


def test_no_steps_evaluate_the_start(regression):
    search = sweeps.search(optimizers.sgd, RATES, regression, **SETTINGS | {"num_steps": 0, "evaluate_every": None})
    start = regression.init(small.seed_keys(KEY, 2)[1][0])
    assert search.steps.tolist() == [0]
    np.testing.assert_allclose(search.final[:, 1], regression.loss(start, regression.validation), rtol=1e-6)
    assert np.isnan(search.curves["batch_loss"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 0}, "num_trials to be an integer ≥ 1; received 0"),
        ({"num_seeds": 0}, "num_seeds to be an integer ≥ 1; received 0"),
        ({"num_steps": -1}, "num_steps to be an integer ≥ 0; received -1"),
        ({"evaluate_every": 0}, "evaluate_every to be an integer ≥ 1; received 0"),
        ({"batch_size": 24}, "batch_size"),
        ({"width": 0}, 'width to be an integer ≥ 1; received 0. Or give "auto"'),
        ({"metric": "accuracy"}, "metric='accuracy' is not among the evaluated metrics: .*'validation_accuracy'"),
        ({"metric": "train_loss"}, "'train_loss' is not among the evaluated metrics"),
        ({"evaluate_on": "holdout"}, "holdout"),
        (
            {"sampler": "grid", "space": RATES | {"momentum": sweeps.uniform(0, 1)}},
            "No grid over this space has num_trials=6",
        ),
        (
            {"space": {"rate": sweeps.uniform(0, 1)}},
            "Unknown .*'rate'.*learning_rate, momentum, nesterov",
        ),
        ({"space": {}}, "at least one dimension"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(regression, compilations, tmp_path, changes, message):
    given = {"space": RATES} | SETTINGS | changes
    space = given.pop("space")
    with compilations() as counter, pytest.raises(ValueError, match=message):
        sweeps.search(optax.sgd, space, regression, journal=tmp_path / "kept", **given)
    assert counter.lanes == 0
    assert not (tmp_path / "kept").exists()


def test_progress_counts_every_run_once_and_up(regression):
    calls = []
    search = sweeps.search(
        optimizers.sgd, RATES, regression, progress=lambda *numbers: calls.append(numbers), **SETTINGS
    )
    done, totals, best = zip(*calls, strict=True)
    assert done == tuple(range(1, 13))
    assert set(totals) == {12}
    finals = search.final.ravel()
    np.testing.assert_allclose(best, np.minimum.accumulate(finals), rtol=1e-6)


def test_the_best_so_far_of_an_accuracy_goes_up(regression):
    best = []
    sweeps.search(
        optimizers.sgd, RATES, regression, metric="validation_accuracy",
        progress=lambda done, total, value: best.append(value), **SETTINGS,
    )  # fmt: skip
    assert best == sorted(best)
    assert best[0] < best[-1]


def test_an_interrupt_keeps_the_finished_trials(found, regression):
    def press(done, total, best):
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted after 2 of 6 trials") as caught:
        sweeps.search(optimizers.sgd, RATES, regression, progress=press, **SETTINGS)
    assert isinstance(caught.value, SearchInterrupted)
    part = caught.value.search
    assert part.finished.tolist() == [[True, True]] * 2 + [[True, False]] + [[False, False]] * 3
    for name, values in part.curves.items():
        np.testing.assert_array_equal(values[part.finished], found.curves[name][part.finished])
        assert np.isnan(values[~part.finished]).all()
    assert not part.diverged.any()
    assert np.isnan(part.scores[2:]).all()
    assert part.best.trial == int(found.scores[:2].argmin())
    assert not part.indistinguishable()[2:].any()
    assert part.best_of_k().estimate.shape == (2,)
    assert repr(part).startswith("Search: 2 of 6 trials × 2 seeds, validation_loss (smaller is better)")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_before_a_trial_has_all_seeds_leaves_no_best():
    """Whatever the type of the results, there is NaN, not 0, where nothing was run."""
    problem = small.quadratic()
    start, loss = problem.init, problem.loss
    problem = problem.replace(init=lambda key: start(key).astype(jnp.bfloat16))
    problem = problem.replace(loss=lambda params, batch: loss(params, batch).astype(jnp.bfloat16))

    def press(done, total, best):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SearchInterrupted) as caught:
        sweeps.search(optax.sgd, RATES, problem, progress=press, **SETTINGS)
    part = caught.value.search
    assert part.finished.sum() == 1
    assert part.curves["train_loss"].dtype == jnp.bfloat16
    assert np.isnan(part.curves["train_loss"][~part.finished].astype(float)).all()
    assert not part.indistinguishable().any()
    with pytest.raises(ValueError, match=r"of 6 trials, 0 were run with every seed.*resume"):
        part.best  # noqa: B018
    with pytest.raises(ValueError, match="a trial that was run with every seed"):
        part.best_of_k()


def test_the_tables_hold_every_trial_seed_and_evaluation(found):
    table = found.to_pandas()
    assert table[["trial", "seed"]].to_numpy().tolist() == [[i, j] for i in range(6) for j in range(2)]
    for _, row in table.iterrows():
        assert row.learning_rate == found.configs[row.trial]["learning_rate"]
        assert row.validation_loss == found.final[row.trial, row.seed]
        assert row.validation_accuracy == found.curves["validation_accuracy"][row.trial, row.seed, -1]
    tidy = found.curves_to_pandas()
    assert len(tidy) == 6 * 2 * 4
    one = tidy[(tidy.trial == 4) & (tidy.seed == 1)]
    assert one.step.tolist() == [0, 5, 10, 12]
    np.testing.assert_array_equal(one.validation_loss, found.curves["validation_loss"][4, 1])


def test_a_setting_with_the_name_of_a_result_is_kept_beside_it():
    search = synthetic({"seed": sweeps.integers(5, 9), "loss": sweeps.uniform(0, 1)}, lambda seed, loss: -loss, 7, 0)
    table = search.to_pandas()
    assert table.columns[:4].tolist() == ["trial", "seed", "seed (setting)", "loss (setting)"]
    assert table.seed.tolist() == [0] * 7
    assert table["seed (setting)"].tolist() == [config["seed"] for config in search.configs]
    np.testing.assert_array_equal(table.loss, -table["loss (setting)"])


def test_a_conditional_name_that_does_not_exist_is_empty_in_the_table():
    space = {
        "method": sweeps.choices("sgd", "momentum"),
        "decay": sweeps.conditional(sweeps.choices(0.5), on="method", equals="momentum"),
    }
    search = sweeps.search(
        lambda method, decay=None: optax.sgd(0.1, momentum=decay), space, small.quadratic(), sampler="grid",
        **SETTINGS | {"num_trials": 2},
    )  # fmt: skip
    table = search.to_pandas()
    assert table.decay.isna().tolist() == [True, True, False, False]


def synthetic(space, surface, num_trials, seed, noise=0.0):
    """A search over a surface that is known."""
    space = sweeps.Space(space)
    configs, points = sweeps.sample(space, num_trials, key=jax.random.key(seed))
    scores = np.array([surface(**config) for config in configs])
    scores += noise * np.random.default_rng(seed).normal(size=num_trials)
    ones = np.ones((num_trials, 1), int)
    return Search(
        space, configs, points, "loss", "min", np.array([0]), {"loss": scores[:, None, None]}, {}, -ones,
        ones < 0, 0 * ones, ones > 0,
    )  # fmt: skip


SURFACE = {"rate": sweeps.log_uniform(1e-4, 1.0), "decay": sweeps.uniform(0.0, 1.0)}


@pytest.mark.parametrize(("optimum", "side"), [(100.0, "high"), (1e-6, "low")])
@pytest.mark.parametrize("num_trials", [3, 10, 16, 50])
def test_an_optimum_beyond_the_range_is_flagged_with_its_side(optimum, side, num_trials):
    """The best is the outermost trial, but for the .75ⁿ of the searches without one in the outer quarter."""
    flags = []
    for seed in range(200):
        search = synthetic({"rate": SURFACE["rate"]}, lambda rate: np.log(rate / optimum) ** 2, num_trials, seed)
        flags.append(search.best.boundary.get("rate"))
    missed = 0.75**num_trials
    assert abs(flags.count(side) / 200 - (1 - missed)) <= 3 * np.sqrt(missed * (1 - missed) / 200)


def test_of_few_trials_the_outermost_is_not_taken_for_an_end_of_the_range():
    """One of three is the outermost always, or in the middle. Nothing within the two inner quarters is flagged."""
    flagged = 0
    for seed in range(200):
        search = synthetic({"rate": SURFACE["rate"]}, lambda rate: np.log(rate / 1e-2) ** 2, 3, seed)
        if search.best.boundary:
            flagged += 1
            assert not 1e-3 < search.best.config["rate"] < 1e-1
    assert flagged / 200 <= 0.5**3 + 3 * np.sqrt(0.125 * 0.875 / 200)  # all three in the outer quarters


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_an_optimum_inside_is_not_flagged_and_each_dimension_is_judged_by_itself(noise):
    """With noise as large as the surface is at a distance of 1 (in e-folds, of 9.2) from the optimum."""
    inside = both = 0
    for seed in range(200):

        def surface(rate, decay):
            return np.log(rate / 0.01) ** 2 + 30 * (decay - 1.5) ** 2

        flags = synthetic(SURFACE, surface, 50, seed, noise).best.boundary
        inside += "rate" in flags
        both += flags.get("decay") == "high"
    assert inside <= 2
    assert both > 60  # the trials near the end of one range must lie well in the other, too


def test_the_ends_of_integers_are_flagged_and_choices_have_none():
    space = {"width": sweeps.integers(1, 10), "scale": sweeps.choices(1.0, 2.0, 4.0)}
    narrow = [synthetic(space, lambda width, scale: width + scale, 80, seed).best for seed in range(20)]
    assert all(choice.boundary == {"width": "low"} for choice in narrow)
    wide = [synthetic(space, lambda width, scale: abs(width - 5) + scale, 80, seed).best for seed in range(20)]
    assert all(choice.boundary == {} for choice in wide)


@pytest.mark.parametrize(
    ("order", "other"),
    [
        (Backwards(), Backwards(3)),
        (Weighted(jnp.arange(23.0)), Weighted(jnp.arange(23.0)[::-1])),
        (linear_curriculum(EASY, start=0.2, num_steps=5), linear_curriculum(EASY, start=0.3, num_steps=5)),
    ],
    ids=["own", "own, with arrays", "curriculum"],
)
def test_an_order_of_somebodys_own_is_searched_with_and_belongs_to_the_journal(regression, tmp_path, order, other):
    settings = SETTINGS | {"num_trials": 2, "num_seeds": 1, "batch_size": 4, "journal": tmp_path / "journal"}
    search = sweeps.search(optimizers.sgd, RATES, regression, order=order, **settings)
    run = {"num_steps": 12, "evaluate_every": 5, "batch_size": 4, "order": order, "rtol": 1e-5}
    assert_trials_are_runs(search, lambda _: regression, lambda config: optimizers.sgd(**config), **run)
    small.assert_same(sweeps.search(optimizers.sgd, RATES, regression, order=order, **settings), search)
    with pytest.raises(sweeps.JournalError, match="another configuration"):
        sweeps.search(optimizers.sgd, RATES, regression, order=other, **settings)
