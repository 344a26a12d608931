"""Comparisons: tuned with equal budgets, reported on seeds and examples that tuning never saw, and said as they are."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps, transforms
from jaxopt_study.sweeps import Candidate, Comparison, ComparisonInterrupted, JournalError, Report
from jaxopt_study.sweeps._compare import _tune_and_report as protocol
from jaxopt_study.sweeps._execution import _sweep as sweep
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES

SETTINGS = {
    "budget": 4,
    "num_steps": 12,
    "evaluate_every": 3,
    "key": KEY,
    "tune_seeds": 2,
    "report_seeds": 8,
    "width": 4,
}
CANDIDATES = {
    "sgd": Candidate(optimizers.sgd(0.02), RATES),
    "momentum": (optimizers.momentum, RATES),
    "fixed": optax.sgd(0.1),
}


@pytest.fixture(scope="module")
def problem():
    return small.regression(metrics={})


@pytest.fixture(scope="module")
def compared(problem):
    return sweeps.compare(CANDIDATES, problem, **SETTINGS)


def assert_same_tuning(one, other):
    assert one.searches.keys() == other.searches.keys()
    for name, search in one.searches.items():
        small.assert_same(search, other.searches[name])
        assert search.best.config == other.searches[name].best.config


def scores_of(comparison):
    return {(r.problem, r.candidate, r.settings): r.scores.tobytes() for r in comparison.reports}


def report_keys(number, num_seeds):
    """The keys of the start and of the run of every reporting seed, by the protocol as it is described."""
    keys = jax.random.split(jax.random.fold_in(jax.random.split(KEY)[1], number), num_seeds)
    return [tuple(jax.random.split(key)) for key in keys]


def test_every_candidate_is_reported_with_each_of_its_settings(compared):
    found = {(report.candidate, report.settings): report for report in compared.reports}
    assert found.keys() == {("sgd", "default"), ("sgd", "tuned"), ("momentum", "tuned"), ("fixed", "default")}
    assert found["sgd", "default"].config == {"learning_rate": 0.02}
    assert found["fixed", "default"].config == {}
    assert all(report.scores.shape == (8,) for report in compared.reports)
    assert list(compared.of()) == ["sgd", "momentum", "fixed"]
    assert list(compared.of(settings="default")) == ["sgd", "fixed"]
    assert (compared.metric, compared.selected_by) == ("test_loss", "validation_loss")
    assert compared.complete


def test_budgets_are_equal_and_equal_spaces_try_the_same_settings(compared):
    sgd, momentum = compared.searches["regression", "sgd"], compared.searches["regression", "momentum"]
    assert len(sgd.configs) == len(momentum.configs) == 4
    assert sgd.configs == momentum.configs
    assert sgd.finished.shape == momentum.finished.shape == (4, 2)
    assert ("regression", "fixed") not in compared.searches


def test_a_report_is_the_runs_of_the_chosen_settings_on_the_reporting_seeds(compared, problem):
    report = compared.of()["momentum"]
    search = compared.searches["regression", "momentum"]
    assert report.config == search.configs[int(search.curves["validation_loss"][..., -1].mean(axis=1).argmin())]
    for j, keys in enumerate(report_keys(0, 8)):
        run = small.alone(problem, optimizers.momentum(**report.config), keys, num_steps=12, evaluate_every=3)
        np.testing.assert_allclose(report.scores[j], problem.loss(run.params, problem.test), rtol=1e-5)
        curve = run.evaluations["validation_loss"]
        np.testing.assert_allclose(report.curves["validation_loss"][j], curve, rtol=1e-5)
        np.testing.assert_array_equal(report.steps, run.evaluations["step"])
        np.testing.assert_allclose(report.finals["validation_loss"][j], curve[-1], rtol=1e-5)


def test_reporting_seeds_are_paired_and_none_of_them_tuned(compared):
    starts = {name: report.curves["validation_loss"][:, 0] for name, report in compared.of().items()}
    assert all((values == starts["sgd"]).all() for values in starts.values())
    tuned = compared.searches["regression", "sgd"].curves["validation_loss"][0, :, 0]
    assert len(np.unique([*starts["sgd"], *tuned])) == 8 + 2
    # The other half of the key draws the trials.
    promised = jax.random.split(jax.random.fold_in(jax.random.split(SETTINGS["key"])[1], 0), 8)
    assert (sweeps.report_keys(SETTINGS["key"], 0, 8) == promised).all()


@pytest.mark.parametrize("poison", [-1e10, 1e30])
def test_test_examples_choose_nothing(compared, problem, poison):
    bad = tuple(np.full_like(array, poison) for array in problem.test)
    poisoned = sweeps.compare(CANDIDATES, problem.replace(test=bad), **SETTINGS)
    assert_same_tuning(compared, poisoned)
    for one, other in zip(compared.reports, poisoned.reports, strict=True):
        assert one.config == other.config
        assert one.curves["validation_loss"].tobytes() == other.curves["validation_loss"].tobytes()
        assert (one.scores != other.scores).all()


def test_reporting_seeds_choose_nothing(compared, problem, monkeypatch):
    monkeypatch.setattr(protocol, "report_keys", lambda key, number, count: jax.random.split(jax.random.key(99), count))
    other = sweeps.compare(CANDIDATES, problem, **SETTINGS)
    assert_same_tuning(compared, other)
    assert [report.config for report in other.reports] == [report.config for report in compared.reports]
    assert all((one.scores != two.scores).all() for one, two in zip(other.reports, compared.reports, strict=True))


def test_test_examples_are_looked_at_once_per_reported_run():
    looks = []
    plain = small.regression(metrics={})
    sizes = {len(part[1]): name for name, part in (("train", small.TRAIN), ("validation", small.VALIDATION),
                                                   ("test", small.TEST))}  # fmt: skip

    def loss(params, batch):
        jax.debug.callback(lambda value: looks.append(sizes[len(batch[1])]), params[0])
        return plain.loss(params, batch)

    watched = sweeps.compare({"sgd": CANDIDATES["sgd"]}, plain.replace(loss=loss), **SETTINGS | {"width": 1})
    jax.effects_barrier()
    assert looks.count("test") == len(watched.reports) * 8
    assert looks.count("validation") == (len(watched.reports) * 8 + len(watched.searches) * 4 * 2) * 5


def test_tuning_has_no_results_on_test_examples(compared):
    assert all("test_loss" in report.finals for report in compared.reports)
    for found in compared.searches.values():
        assert {name for name in (*found.curves, *found.reports) if name.startswith("test_")} == set()


def test_without_a_budget_the_defaults_are_reported_as_with_one(compared, problem):
    candidates = {name: CANDIDATES[name] for name in ("sgd", "fixed")}
    untuned = sweeps.compare(candidates, problem, **SETTINGS | {"budget": 0})
    assert untuned.searches == {}
    assert {report.settings for report in untuned.reports} == {"default"}
    for name, report in untuned.of(settings="default").items():
        assert report.scores.tobytes() == compared.of(settings="default")[name].scores.tobytes()
        assert untuned.of()[name] is report  # what there is, when tuned settings are asked for


def test_another_candidate_changes_nothing_for_the_others(compared, problem):
    more = {"first": (optimizers.adam, RATES)} | {name: CANDIDATES[name] for name in ("fixed", "sgd")}
    other = sweeps.compare(more, problem, **SETTINGS)
    small.assert_same(other.searches["regression", "sgd"], compared.searches["regression", "sgd"])
    for settings in ("default", "tuned"):
        for name in ("sgd", "fixed"):
            assert other.of(None, settings)[name].scores.tobytes() == compared.of(None, settings)[name].scores.tobytes()


def test_an_optimizer_under_two_names_cannot_be_told_from_itself(problem, compilations):
    with compilations() as counter:
        found = sweeps.compare(
            {"a": (optimizers.rmsprop, RATES), "b": (lambda learning_rate: optimizers.rmsprop(learning_rate), RATES)},
            problem, **SETTINGS,
        )  # fmt: skip
    assert found.verdict() == "no detectable difference"
    differences = found.differences()
    for matrix in (differences.estimate, differences.lower, differences.upper, differences.better):
        assert (matrix == 0).all()
    assert counter.lanes == 1  # one program that tunes and reports both


def test_optimizers_that_differ_are_told_apart(problem):
    good, bad = transforms.scale_by_learning_rate(0.2), transforms.scale_by_learning_rate(0.002)
    found = sweeps.compare({"bad": bad, "good": good}, problem, **SETTINGS | {"budget": 0})
    assert found.ranking() == ["good", "bad"]
    assert found.verdict() == "good is better than all others"
    assert found.differences().better.tolist() == [[0, -1], [1, 0]]


def test_candidates_take_all_their_forms():
    chain = transforms.chain(transforms.heavy_ball(0.5), transforms.scale_by_learning_rate(0.05))

    def make(learning_rate, momentum=None):
        return optax.sgd(learning_rate, momentum=momentum)

    space = RATES | {"momentum": sweeps.uniform(0.1, 0.9)}
    candidates = {
        "transform": chain,
        "paths": Candidate(chain, {"heavy_ball.decay": sweeps.uniform(0.1, 0.9)}),
        "optax": optax.sgd(0.05),
        "pair": (make, RATES),
        "none": Candidate(make, space, {"learning_rate": 0.05, "momentum": None}),
        "defaults": Candidate(make, RATES, {"learning_rate": 0.05}),
    }
    found = sweeps.compare(candidates, small.quadratic(), **SETTINGS | {"budget": 2, "report_seeds": 2})
    defaults = {name: report.config for name, report in found.of(settings="default").items()}
    assert defaults == {
        "transform": {}, "paths": {"heavy_ball.decay": 0.5}, "optax": {}, "defaults": {"learning_rate": 0.05},
        "none": {"learning_rate": 0.05, "momentum": None},
    }  # fmt: skip
    assert set(found.of()) == set(candidates)
    scores = {name: report.scores for name, report in found.of(settings="default").items()}
    np.testing.assert_allclose(scores["transform"], scores["paths"], rtol=1e-6)
    np.testing.assert_allclose(scores["optax"], scores["defaults"], rtol=1e-6)
    np.testing.assert_allclose(scores["optax"], scores["none"], rtol=1e-6)


def test_an_accuracy_is_better_where_it_is_larger():
    candidates = {"good": optax.sgd(0.2), "bad": optax.sgd(0.001)}
    found = sweeps.compare(
        candidates, small.regression(), metric="accuracy", select_by="loss", **SETTINGS | {"budget": 0}
    )
    assert (found.metric, found.mode, found.selected_by, found.select_mode) == (
        "test_accuracy", "max", "validation_loss", "min",
    )  # fmt: skip
    assert found.ranking() == ["good", "bad"]
    assert found.median()["good"].estimate > found.median()["bad"].estimate


@pytest.mark.parametrize(
    ("parts", "metric", "select_by"),
    [
        (("validation",), "test_loss", "train_loss"),
        (("test",), "validation_loss", "validation_loss"),
        (("test", "validation"), "train_loss", "train_loss"),
    ],
)
def test_where_there_are_no_such_examples_the_next_best_are_taken(problem, parts, metric, select_by):
    lacking = problem.replace(**dict.fromkeys(parts))
    found = sweeps.compare({"sgd": optax.sgd(0.1)}, lacking, **SETTINGS | {"budget": 0, "report_seeds": 1})
    assert (found.metric, found.selected_by) == (metric, select_by)
    assert np.isfinite(found.reports[0].scores).all()


def test_a_candidate_that_diverges_is_worst_and_costs_the_others_nothing(compared, problem):
    """Also where all its trials do: then the one that went furthest is reported."""
    candidates = {
        "wild": Candidate(optimizers.sgd(1e9), {"learning_rate": sweeps.log_uniform(1e10, 1e12)}),
        "sgd": CANDIDATES["sgd"],
    }
    found = sweeps.compare(candidates, problem, **SETTINGS | {"num_steps": 30})
    for settings in ("default", "tuned"):
        wild = found.of(None, settings)["wild"]
        assert wild.diverged.all()
        assert np.isnan(wild.scores).all()
        assert found.ranking(None, settings) == ["sgd", "wild"]
        assert found.median(None, settings)["wild"].estimate == np.inf
    assert found.verdict() == "sgd is better than all others"
    search = found.searches["regression", "wild"]
    assert search.num_steps[search.configs.index(wild.config)].min() == search.num_steps.min(axis=1).max()
    # A target that half of the candidates reach is one that the candidate which ran reaches.
    steps = found.steps_to_target()
    assert np.isinf(steps["wild"]).all()
    assert np.isfinite(steps["sgd"]).sum() >= 4
    assert found.profile().shares[:, -1].tolist() == [0.0, np.isfinite(steps["sgd"]).mean()]
    table = found.table().set_index("candidate")
    assert table.loc["wild", "boundary"] == {}
    assert table.loc["wild", "tuned_rank"] == 2


@pytest.fixture(scope="module")
def two_problems(problem):
    other = small.quadratic()
    problems = {"regression": problem.replace(validation=None, test=None), "quadratic": other}
    return sweeps.compare(
        {"sgd": CANDIDATES["sgd"], "fixed": CANDIDATES["fixed"]}, problems, **SETTINGS | {"budget": 2}
    )


def test_several_problems_are_compared_one_by_one(two_problems):
    found = two_problems
    assert found.problems == ["regression", "quadratic"]
    assert found.metric == "train_loss"
    assert set(found.searches) == {("regression", "sgd"), ("quadratic", "sgd")}
    for name in found.problems:
        assert set(found.of(name)) == {"sgd", "fixed"}
        assert isinstance(found.verdict(name), str)
    for ask in (found.of, found.verdict, found.ranking, found.budget_curves, found.target):
        with pytest.raises(ValueError, match=r"has the problems \['regression', 'quadratic'\]; received None"):
            ask()
        with pytest.raises(ValueError, match="received 'digits'"):
            ask("digits")
    starts = [found.of(name)["sgd"].curves["train_loss"][:, 0] for name in found.problems]
    assert not (starts[0] == starts[1]).any()


def test_a_profile_is_made_of_the_steps_of_all_problems_and_seeds(two_problems):
    rows = []
    for name in two_problems.problems:
        reports = two_problems.of(name)
        lasts = [np.median(report.curves["train_loss"][:, -1]) for report in reports.values()]
        target = np.median(lasts)
        for j in range(8):
            row = []
            for report in reports.values():
                there = [s for s, y in zip(report.steps, report.curves["train_loss"][j], strict=True) if y <= target]
                row.append(max(there[0], 1) if there else np.inf)
            rows.append(row)
        np.testing.assert_array_equal(
            np.stack(list(two_problems.steps_to_target(None, name).values())).clip(1), np.array(rows[-8:]).T
        )
    rows = np.array(rows)
    with np.errstate(invalid="ignore"):
        ratios = rows / rows.min(axis=1, keepdims=True)
    profile = two_problems.profile()
    for tau, shares in zip(profile.tau, profile.shares.T, strict=True):
        np.testing.assert_allclose(shares, (ratios <= tau).mean(axis=0))
    assert two_problems.profile("default").shares.shape[0] == 2


def test_candidates_without_default_settings_fail_the_profile_of_defaults(compared):
    profile = compared.profile("default")
    assert profile.shares[compared.candidates.index("momentum"), -1] == 0


def test_the_tables_hold_both_rankings(compared):
    table = compared.table().set_index("candidate")
    assert list(table.index) == compared.candidates
    for settings in ("default", "tuned"):
        better = compared.differences(None, settings).better
        for i, name in enumerate(compared.of(None, settings)):
            assert table.loc[name, f"{settings}_rank"] == 1 + (better[:, i] > 0).sum()
            assert table.loc[name, settings] == pytest.approx(np.median(compared.of(None, settings)[name].scores))
    assert np.isnan(table.loc["momentum", "default"])
    assert table.loc["sgd", "config"] == compared.of()["sgd"].config
    assert table.loc["sgd", "boundary"] == dict(compared.searches["regression", "sgd"].best.boundary)
    tidy = compared.to_pandas()
    assert len(tidy) == 4 * 8
    rows = tidy[(tidy.candidate == "sgd") & (tidy.settings == "tuned")]
    np.testing.assert_array_equal(rows.score, compared.of()["sgd"].scores)
    np.testing.assert_array_equal(rows.validation_loss, compared.of()["sgd"].finals["validation_loss"])


def test_budget_curves_end_at_the_trial_that_was_chosen(compared):
    for name, (k, interval) in compared.budget_curves().items():
        search = compared.searches["regression", name]
        assert k.tolist() == [1, 2, 3, 4]
        assert interval.estimate[-1] == pytest.approx(search.best.score)
        assert (np.diff(interval.estimate) <= 0).all()


def by_hand(scores, mode="min"):
    """A comparison with given scores."""
    blank = {"problem": "p", "settings": "tuned", "config": {}, "finals": {}, "steps": np.array([0, 5, 10])}
    reports = []
    for name, values in scores.items():
        values = np.asarray(values, float)
        curves = {"validation_loss": np.stack([values + 2, values + 1, values], axis=1)}
        diverged = np.isnan(values)
        seen = {"scores": values, "curves": curves, "diverged": diverged, "stalled": np.zeros_like(diverged)}
        reports.append(Report(candidate=name, seconds_per_step=0.5, **seen, **blank))
    return Comparison(reports, {}, 0, "test_loss", "validation_loss", mode, "min")


NOISE = np.random.default_rng(0).normal(size=12)


def test_a_verdict_says_what_the_differences_allow():
    apart, near = 10 + NOISE, NOISE[::-1]
    assert by_hand({"a": NOISE, "b": apart}).verdict() == "a is better than all others"
    assert by_hand({"a": NOISE, "b": apart}, mode="max").verdict() == "b is better than all others"
    assert by_hand({"a": NOISE, "b": near}).verdict() == "no detectable difference"
    assert by_hand({"a": NOISE}).verdict() == "only a was run"
    three = by_hand({"a": NOISE, "b": near, "c": apart})
    first, second = three.ranking()[:2]
    tied = f"{first} has the best median and is statistically indistinguishable from {second}"
    assert three.verdict() == f"{tied}; it is better than c"
    diverged = by_hand({"a": NOISE, "b": np.full(12, np.nan)})
    assert diverged.verdict() == "a is better than all others"
    assert by_hand({"a": [np.nan] * 12, "b": [np.nan] * 12}).verdict() == "no detectable difference"


def test_a_verdict_does_not_call_best_what_is_worse_seed_by_seed():
    """The median of a is lower by one seed's luck, but b is lower on all the others."""
    a = np.array([*range(10), 10.0, *range(20, 30)])
    b = a - 1 + np.where(np.arange(21) == 10, 2.5, 0.0)
    found = by_hand({"a": a, "b": b})
    assert found.ranking() == ["a", "b"]
    assert found.verdict() == "a has the best median; seed by seed b is better"


def test_steps_to_a_target_are_the_first_that_reach_it():
    found = by_hand({"a": [0.0, 1.0, np.nan], "b": [5.0, 6.0, 7.0]})
    steps = found.steps_to_target(1.0)
    assert steps["a"].tolist() == [5, 10, np.inf]
    assert steps["b"].tolist() == [np.inf] * 3
    assert found.target() == pytest.approx((1.0 + 6.0) / 2)
    nothing = by_hand({"a": [np.nan] * 3, "b": [np.nan] * 3})
    assert all(np.isinf(steps).all() for steps in nothing.steps_to_target().values())
    assert (nothing.profile().shares == 0).all()


@pytest.mark.parametrize("stop", [1, 4 + 3, 4 + 8 + 3])
def test_an_interrupted_comparison_keeps_what_is_complete_and_goes_on(compared, problem, tmp_path, monkeypatch, stop):
    """Interrupted as it tunes, as it reports, and on the second problem: 4 and 8 calls for each."""
    monkeypatch.setattr(sweep, "_SECONDS_PER_CHUNK", 0.0)
    problems = {"regression": problem, "again": problem}
    given = {"journal": tmp_path} | SETTINGS
    calls = []

    def press(done, total, best):
        calls.append(total)
        if len(calls) == stop:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ComparisonInterrupted) as caught:
        sweeps.compare(CANDIDATES, problems, progress=press, **given)
    part = caught.value.comparison
    assert not part.complete
    assert part.problems == (["regression"] if stop > 12 else [])
    assert len(part.to_pandas()) == (32 if stop > 12 else 0)
    jobs = []
    found = sweeps.compare(CANDIDATES, problems, progress=lambda done, total, best: jobs.append((done, total)), **given)
    assert found.complete
    whole = sweeps.compare(CANDIDATES, problems, **SETTINGS)
    assert_same_tuning(found, whole)
    assert scores_of(found) == scores_of(whole)
    assert sum(done < total for done, total in jobs) < 2 * 12
    assert all(report.seconds_per_step > 0 for report in whole.reports)
    if stop > 12:  # of what was read from the journal nobody knows how long it took
        assert all(np.isnan(report.seconds_per_step) for report in found.reports if report.problem == "regression")


def test_a_comparison_of_another_kind_is_refused(problem, tmp_path):
    given = SETTINGS | {"budget": 0, "report_seeds": 2}
    sweeps.compare({"sgd": optax.sgd(0.1)}, problem, journal=tmp_path, **given)
    with pytest.raises(JournalError, match=r"config\['programs'\]"):
        sweeps.compare({"sgd": optax.sgd(0.2)}, problem, journal=tmp_path, **given)
    with pytest.raises(JournalError, match="config"):
        sweeps.compare({"sgd": optax.sgd(0.1)}, problem, journal=tmp_path, **given | {"report_seeds": 3})
    sweeps.compare({"another name": optax.sgd(0.1)}, problem, journal=tmp_path, **given)


@pytest.mark.parametrize(
    ("candidates", "changes", "message"),
    [
        ({}, {}, "at least one candidate and one problem; received 0 and 1"),
        ({"a": 3}, {}, "Candidate 'a': expected a Candidate, a transformation, or a pair"),
        ({"a": (optax.sgd, {"rate": RATES["learning_rate"]})}, {}, "Unknown hyperparameter 'rate'"),
        ({"a": (optax.sgd, RATES)}, {"budget": 0}, "'a' has no default settings and the budget is 0"),
        ({"a": (optax.sgd, RATES)}, {"budget": -1}, "budget to be an integer ≥ 0; received -1"),
        ({"a": optax.sgd(0.1)}, {"report_seeds": 0}, "report_seeds to be an integer ≥ 1; received 0"),
        ({"a": optax.sgd(0.1)}, {"tune_seeds": 0}, "tune_seeds to be an integer ≥ 1; received 0"),
        ({"a": optax.sgd(0.1)}, {"metric": "f1"}, "metric='f1' is not among the evaluated metrics: 'loss'"),
        ({"a": (optax.sgd, RATES)}, {"select_by": "f1"}, "metric='f1' is not among"),
    ],
)
def test_what_cannot_be_compared_is_refused(problem, compilations, candidates, changes, message):
    with compilations() as counter, pytest.raises((TypeError, ValueError), match=message):
        sweeps.compare(candidates, problem, **SETTINGS | changes)
    assert counter.lanes == 0


def test_defaults_give_each_name_of_the_space_a_value():
    space = RATES | {"momentum": sweeps.uniform(0, 1)}
    for defaults in ({"learning_rate": 0.1}, {"learning_rate": 0.1, "momentum": 0.5, "nesterov": True}):
        with pytest.raises(ValueError, match="exactly the names of its space, learning_rate, momentum; received"):
            Candidate(optax.sgd, space, defaults)
    conditional = {
        "method": sweeps.choices("a", "b"),
        "decay": sweeps.conditional(sweeps.uniform(0, 1), on="method", equals="b"),
    }
    Candidate(lambda method, decay: optax.sgd(0.1), conditional, {"method": "a"})
    with pytest.raises(ValueError, match="method, decay; received"):
        Candidate(lambda method, decay: optax.sgd(0.1), conditional, {"method": "b"})
    assert Candidate(optax.sgd, RATES).defaults is None
    assert Candidate(lambda learning_rate=0.5: optax.sgd(learning_rate), RATES).defaults == {"learning_rate": 0.5}


def test_reports_keep_where_every_seed_ended(problem, compared, tmp_path):
    kept = sweeps.compare(CANDIDATES, problem, **SETTINGS, keep_params=True, journal=tmp_path)
    assert scores_of(kept) == scores_of(compared)
    assert all(report.params is None for report in compared.reports)
    for report in kept.reports:
        assert report.params.shape == (SETTINGS["report_seeds"], 3)
        np.testing.assert_allclose(report.params[2], report.replay(2).params, rtol=1e-5)
        losses = jax.vmap(lambda params: problem.loss(params, problem.test))(report.params)
        np.testing.assert_allclose(losses, report.scores, rtol=1e-5)
    again = sweeps.compare(CANDIDATES, problem, **SETTINGS, keep_params=True, journal=tmp_path)
    for one, other in zip(kept.reports, again.reports, strict=True):  # read from the journal
        np.testing.assert_array_equal(one.params, other.params)
    with pytest.raises(JournalError, match="another"):
        sweeps.compare(CANDIDATES, problem, **SETTINGS, journal=tmp_path)


def test_reports_keep_model_state_with_the_parameters():
    def step_loss(params, state, batch, key):
        return jnp.mean(small.residuals(params["w"], batch) ** 2), {"mean": state["mean"] + 1.0}

    problem = small.regression(
        init=lambda key: {"w": jax.random.normal(key, (3,), jnp.bfloat16)},
        init_state=lambda key: {"mean": jnp.zeros(())},
        loss=lambda params, batch, state: jnp.mean(small.residuals(params["w"], batch) ** 2),
        step_loss=step_loss,
        metrics={},
    )
    found = sweeps.compare(
        {"sgd": optimizers.sgd(0.01)}, problem, budget=0, num_steps=5, key=KEY, report_seeds=2, keep_params=True
    )
    (report,) = found.reports
    assert report.params["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(report.model_state["mean"], [5.0, 5.0])


def test_keeping_parameters_is_a_flag(problem):
    with pytest.raises(TypeError, match="keep_params"):
        sweeps.compare(CANDIDATES, problem, **SETTINGS, keep_params=1)
