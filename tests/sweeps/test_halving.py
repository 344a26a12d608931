"""Successive halving: who goes on is decided by the scores so far, and the result keeps the form of a search's."""

import math

import jax
import numpy as np
import pytest

from jaxopt_study import optimizers, problems, sweeps

RATES = {"learning_rate": sweeps.log_uniform(1e-3, 100.0)}


def search(num_steps=90, **options):
    return sweeps.search(
        optimizers.sgd,
        RATES,
        problems.planar.bowl(),
        num_trials=27,
        num_steps=num_steps,
        key=jax.random.key(0),
        **options,
    )


@pytest.fixture(scope="module")
def halved():
    return search(halving=sweeps.Halving(min_steps=10))


@pytest.fixture(scope="module")
def full():
    return search(evaluate_every=10)


def test_each_rung_keeps_the_best_third(halved):
    ran = {steps: int((halved.num_steps[:, 0] >= steps).sum()) for steps in (30, 90)}
    assert ran == {30: 9, 90: 3}
    assert halved.finished.all()
    early = halved.curves["train_loss"][:, 0, 1]  # after 10 steps
    early = np.where(halved.diverged_at[:, 0] >= 0, np.inf, early)
    assert set(np.flatnonzero(halved.num_steps[:, 0] >= 30)) == set(np.argsort(early, kind="stable")[:9])


def test_a_trial_that_went_to_the_end_is_the_trial_without_halving(halved, full):
    survivors = halved.num_steps[:, 0] == 90
    assert survivors.sum() == 3
    for name, curve in full.curves.items():
        if name != "batch_loss":
            np.testing.assert_allclose(halved.curves[name][survivors], curve[survivors], rtol=1e-6)
    assert halved.configs == full.configs
    np.testing.assert_array_equal(halved.steps, full.steps)


def test_a_stopped_trial_has_no_values_after_its_rung(halved):
    stopped = (halved.num_steps[:, 0] == 10) & ~halved.diverged[:, 0]
    assert stopped.any()
    curves = halved.curves["train_loss"][stopped, 0]
    assert np.isfinite(curves[:, :2]).all()
    assert np.isnan(curves[:, 2:]).all()
    assert np.isfinite(halved.final[stopped]).all()  # its score is that of its last rung


def test_the_best_is_among_those_that_went_furthest(halved, full):
    assert halved.num_steps[halved.best.trial, 0] == 90
    ranking = halved.num_steps[halved.ranking, 0]
    diverged = halved.diverged[halved.ranking, 0]
    assert (np.diff(ranking[~diverged]) <= 0).all()
    assert halved.best.trial == full.best.trial  # on a quadratic those that are ahead stay ahead


@pytest.mark.parametrize(
    ("num_trials", "factor", "kept"), [(1, 2, 1), (2, 3, 1), (4, 3, 2), (7, 2, 4), (9, 3, 3), (10, 3, 4)]
)
def test_a_rung_keeps_the_ceiling_of_its_share(num_trials, factor, kept):
    scores = np.random.default_rng(num_trials).permutation(num_trials).astype(float)
    for mode, best in (("min", np.argsort(scores)), ("max", np.argsort(-scores))):
        survivors = sweeps.Halving(min_steps=1, factor=factor).survivors(scores, mode)
        np.testing.assert_array_equal(survivors, np.sort(best[:kept]))


def test_diverged_trials_never_go_on():
    scores = np.array([np.nan, 3.0, 1.0, np.nan, 2.0, np.nan])
    halving = sweeps.Halving(min_steps=1, factor=2)
    assert halving.survivors(scores, "min").tolist() == [1, 2, 4]
    assert halving.survivors(scores, "max").tolist() == [1, 2, 4]
    assert halving.survivors(np.full(4, np.nan), "min").tolist() == []


def test_rungs_end_at_evaluations_and_at_the_last_step():
    assert sweeps.Halving(10).rungs(90, every=10) == [10, 30, 90]
    assert sweeps.Halving(10).rungs(100, every=20) == [20, 40, 100]
    assert sweeps.Halving(10, factor=4).rungs(10, every=10) == [10]


@pytest.mark.parametrize(("n", "factor"), [(27, 3), (10, 3), (100, 4), (7, 2), (1, 3), (2, 5), (50, 3)])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_each_rung_has_the_counts_of_sequential_halving_rounded_up(n, factor, mode):
    """Karnin, Koren and Somekh (2013), any factor: rung i has ⌈n/ηⁱ⌉ trials, those ahead in the rung before."""
    rng, rule = np.random.default_rng(n), sweeps.Halving(min_steps=2, factor=factor)
    left = np.arange(n)
    for rung in range(1, 6):
        scores = rng.permutation(len(left)).astype(float)
        kept = rule.survivors(scores, mode)
        assert len(kept) == math.ceil(n / factor**rung)
        cost = scores if mode == "min" else -scores
        assert set(kept) == {i for i in range(len(left)) if (cost < cost[i]).sum() < len(kept)}
        left = left[kept]


@pytest.mark.parametrize(("least", "factor", "num_steps", "every"), [(1, 3, 81, 1), (2, 4, 100, 1), (3, 2, 50, 7)])
def test_rungs_are_the_powers_rounded_up_to_evaluations(least, factor, num_steps, every):
    expected = [every * math.ceil(least * factor**i / every) for i in range(20)]
    expected = sorted({steps for steps in expected if steps < num_steps} | {num_steps})
    assert sweeps.Halving(least, factor).rungs(num_steps, every) == expected


def test_a_search_halves_as_many_trials_as_it_says():
    """Ten trials, none of which diverges: 10, 4, 2 and 1, in this program's own steps."""
    found = sweeps.search(
        optimizers.sgd, {"learning_rate": sweeps.log_uniform(1e-3, 0.5)}, problems.planar.bowl(), num_trials=10,
        num_steps=27, key=jax.random.key(1), halving=sweeps.Halving(1), width=1,
    )  # fmt: skip
    assert not found.diverged.any()
    assert [int((found.num_steps[:, 0] >= steps).sum()) for steps in (1, 3, 9, 27)] == [10, 4, 2, 1]


def test_an_infinite_score_takes_nobodys_place():
    rule = sweeps.Halving(min_steps=1, factor=2)
    assert rule.survivors(np.array([np.inf, 1.0, 2.0, 3.0]), "max").tolist() == [2, 3]
    assert rule.survivors(np.array([-np.inf, 1.0, 2.0, 3.0]), "min").tolist() == [1, 2]


def test_a_killed_halving_resumes_from_its_journals(tmp_path, halved):
    first = search(halving=sweeps.Halving(min_steps=10), journal=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10-steps", "30-steps", "90-steps"]
    for chunk in (tmp_path / "90-steps").glob("chunk-*"):
        chunk.unlink()  # as if it had been killed in the last rung
    again = search(halving=sweeps.Halving(min_steps=10), journal=tmp_path)
    for found in (first, again):
        np.testing.assert_array_equal(found.final, halved.final)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_steps": 0}, "min_steps to be an integer ≥ 1; received 0"),
        ({"min_steps": 5, "factor": 1}, "factor to be an integer ≥ 2; received 1"),
    ],
)
def test_impossible_rules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sweeps.Halving(**arguments)


def test_more_first_steps_than_steps_are_refused():
    with pytest.raises(ValueError, match="received 5"):
        search(num_steps=5, halving=sweeps.Halving(min_steps=10))
