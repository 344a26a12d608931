"""Ablations: each variant is the chain it says, and what an atom contributes is told from what it does not."""

import signal

import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps, transforms
from jaxopt_study.sweeps import Ablation, ComparisonInterrupted
from jaxopt_study.sweeps._compare._ablation_variants import variants_of
from jaxopt_study.sweeps._execution import _sweep as sweep
from tests.oracles.running import run_transform
from tests.sweeps import small
from tests.sweeps.small import KEY
from tests.sweeps.test_compare import by_hand, report_keys

SETTINGS = {"num_steps": 15, "key": KEY, "num_seeds": 10, "width": 10}
B1, B2, EPS, RATE = 0.9, 0.99, 1e-3, 0.1


def moments(grads, *, power, decay, corrected=True, before=False):
    """m ← βm + (1 − β)gᵖ, divided by 1 − βᵗ after it, or its input before."""
    found, m = [], np.zeros_like(grads[0])
    for t, g in enumerate(grads, 1):
        correction = 1 - decay**t
        m = decay * m + (1 - decay) * (g / correction if before else g) ** power
        found.append(m / correction if corrected and not before else m)
    return np.array(found)


def adam_by_hand(grads, first=None, second=None, eps=EPS):
    first = moments(grads, power=1, decay=B1) if first is None else first
    second = moments(grads, power=2, decay=B2) if second is None else second
    return -RATE * first / (np.sqrt(second) + eps)


M, V = "chain(ema(0.9), bias_correction(0.9)) (first moment)", (
    "chain(ema(0.99, of=jnp.square), bias_correction(0.99)) (second moment)"
)  # fmt: skip
ADAM = {
    "full": adam_by_hand,
    "without merge": lambda g: -RATE * g,
    f"without {M}": lambda g: adam_by_hand(g, first=g),
    "without bias_correction(0.9)": lambda g: adam_by_hand(g, moments(g, power=1, decay=B1, corrected=False)),
    f"without {V}": lambda g: adam_by_hand(g, second=np.ones_like(g)),
    "without bias_correction(0.99)": lambda g: adam_by_hand(g, None, moments(g, power=2, decay=B2, corrected=False)),
    "without every bias_correction": lambda g: adam_by_hand(
        g, moments(g, power=1, decay=B1, corrected=False), moments(g, power=2, decay=B2, corrected=False)
    ),
    "scale_by_learning_rate(0.1) before merge": lambda g: adam_by_hand(-RATE * g) / -RATE,
    "bias_correction(0.9) before ema(0.9) (first moment)": lambda g: adam_by_hand(
        g, moments(g, power=1, decay=B1, before=True)
    ),
    "bias_correction(0.99) before ema(0.99, of=jnp.square) (second moment)": lambda g: adam_by_hand(
        g, None, moments(g, power=2, decay=B2, before=True)
    ),
    "merge.fn.eps = 0": lambda g: adam_by_hand(g, eps=0.0),
}


def adam():
    return optimizers.adam(RATE, b1=B1, b2=B2, eps=EPS)


def test_adam_shows_both_moments_and_both_corrections_each_by_itself():
    assert [variant.name for variant in variants_of(adam())] == list(ADAM)


@pytest.mark.parametrize("number", range(len(ADAM)))
def test_each_variant_of_adam_is_the_recursion_written_out(number):
    variant = variants_of(adam())[number]
    grads = np.random.default_rng(0).normal(size=(25, 3)) * np.array([1.0, 1e-3, 30.0])
    optimizer = variant.optimizer.replace(variant.values)
    _, updates, _ = run_transform(optimizer, grads, np.zeros(3))
    np.testing.assert_allclose(updates, ADAM[variant.name](grads), rtol=1e-10)


def test_kinds_are_said_and_neutral_variants_differ_in_numbers_only():
    variants = variants_of(optimizers.nadam(0.1))
    kinds = [variant.kind for variant in variants]
    assert (kinds[0], kinds.count("full"), kinds.count("neutral")) == ("full", 1, 2)
    neutral = [variant for variant in variants if variant.kind == "neutral"]
    assert all(variant.optimizer is variants[0].optimizer for variant in neutral)
    for variant in neutral:
        changed = {path for path, value in variant.values.items() if value != variants[0].values[path]}
        assert [f"{path} = 0" for path in changed] == [variant.name]


def test_variants_of_repeated_parts_have_names_of_their_own():
    clip = transforms.clip_by_global_norm(1.0)
    variants = variants_of(transforms.chain(clip, clip, transforms.scale_by_learning_rate(0.1)))
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names)
    assert "without clip_by_global_norm(1.0) at clip_by_global_norm[0]" in names
    assert "without clip_by_global_norm(1.0) at clip_by_global_norm[1]" in names
    # Equal neighbours that change places change nothing.
    assert [variant.kind for variant in variants] == ["full", "without", "without", "swapped"]


def test_neutral_values_can_be_named():
    variants = variants_of(adam(), neutral={"chain[1].ema.decay": 0.5, "learning_rate": 0.0})
    neutral = [variant for variant in variants if variant.kind == "neutral"]
    assert [variant.name for variant in neutral] == [
        "merge.chain[1].ema.decay = 0.5", "scale_by_learning_rate.learning_rate = 0",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"matches 4 hyperparameters(.|\n)*expected one of.*merge\.fn\.eps"):
        variants_of(adam(), neutral={"decay": 0.0})
    with pytest.raises(ValueError, match="matches no hyperparameters"):
        variants_of(adam(), neutral={"weight_decay": 0.0})


def test_what_has_no_parts_has_neutral_variants_at_most():
    assert [variant.name for variant in variants_of(transforms.from_optax(optax.adam)(0.1))] == ["full", "eps = 0"]
    found = sweeps.ablate(optimizers.sgd(0.1), small.quadratic(), **SETTINGS)
    assert found.contributions() == []
    assert found.to_pandas().variant.tolist() == ["full"]


def chain(decay=2.0):
    """A clip that never clips, weight decay towards 0 where the minimum is at 3, and momentum where steps are short."""
    return transforms.chain(
        transforms.clip_by_global_norm(1e6),
        transforms.add_decayed_weights(decay),
        transforms.heavy_ball(0.8),
        transforms.scale_by_learning_rate(0.02),
    )


PROBLEM = small.quadratic(centre=3.0)


def by_name(found, settings=None):
    return {part.variant.name: part for part in found.contributions(settings)}


@pytest.fixture(scope="module")
def ablated():
    return sweeps.ablate(chain(), PROBLEM, **SETTINGS)


def test_an_atom_that_does_nothing_is_not_detected_with_a_tight_interval(ablated):
    part = by_name(ablated)["without clip_by_global_norm(1000000.0)"]
    typical = np.median(ablated.comparison.of(settings="default")["full"].scores)
    assert part.verdict == "no detectable difference"
    assert part.p_value == 1.0
    estimate, low, high = part.loss
    assert max(abs(estimate), abs(low), abs(high)) < 1e-5 * typical


def test_an_atom_that_is_essential_helps(ablated):
    part = by_name(ablated)["without heavy_ball(0.8)"]
    assert part.verdict == "helps"
    assert 0 < part.loss[1] <= part.loss[0] <= part.loss[2]
    assert part.diverged == 0


def test_what_is_harmful_harms_and_its_neutral_value_shows_the_same(ablated):
    parts = by_name(ablated)
    without, neutral = parts["without add_decayed_weights(2.0)"], parts["add_decayed_weights.weight_decay = 0"]
    for part in (without, neutral):
        assert part.verdict == "harms"
        assert part.loss[1] <= part.loss[0] <= part.loss[2] < 0
    np.testing.assert_allclose(neutral.loss, without.loss, rtol=1e-4)


def test_variants_that_differ_in_numbers_share_a_program(compilations):
    heavy = transforms.chain(transforms.heavy_ball(0.7), transforms.scale_by_learning_rate(0.02))
    with compilations() as counter:
        found = sweeps.ablate(heavy, PROBLEM, neutral={"decay": 0.0, "learning_rate": 0.01}, **SETTINGS)
    assert [variant.kind for variant in found.variants] == ["full", "without", "swapped", "neutral", "neutral"]
    assert counter.lanes == 3
    scores = {name: report.scores for name, report in found.comparison.of(settings="default").items()}
    np.testing.assert_allclose(scores["heavy_ball.decay = 0"], scores["without heavy_ball(0.7)"], rtol=1e-5)


def test_variants_that_diverge_are_counted_and_worst():
    """Steps of a tenth at most with the clip; without it each multiplies the distance by 1e9."""
    clipped = transforms.chain(transforms.clip_by_global_norm(1e-10), transforms.scale_by_learning_rate(1e9))
    found = sweeps.ablate(clipped, small.quadratic(), **SETTINGS)
    part = by_name(found)["without clip_by_global_norm(1e-10)"]
    assert (part.diverged, part.verdict, part.loss[0]) == (10, "helps", np.inf)
    assert found.comparison.of(settings="default")["full"].diverged.sum() == 0
    row = found.to_pandas().set_index("variant").loc["without clip_by_global_norm(1e-10)"]
    assert (row.diverged, row["median"], row.verdict) == (10, np.inf, "helps")


def test_a_variant_is_the_run_of_its_chain_on_paired_seeds(ablated):
    reports = ablated.comparison.of(settings="default")
    swapped = transforms.chain(
        transforms.heavy_ball(0.8), transforms.add_decayed_weights(2.0), transforms.scale_by_learning_rate(0.02)
    )
    for j, keys in enumerate(report_keys(0, 10)):
        run = small.alone(PROBLEM, swapped, keys, num_steps=15, evaluate_every=15)
        curve = reports["heavy_ball(0.8) before add_decayed_weights(2.0)"].curves["train_loss"][j]
        np.testing.assert_allclose(curve, run.evaluations["train_loss"], rtol=1e-5)
    starts = {report.curves["train_loss"][:, 0].tobytes() for report in reports.values()}
    assert len(starts) == 1


def test_verdicts_are_held_to_one_level_together(ablated):
    """Intervals have Bonferroni's level, and verdicts are those of the intervals."""
    parts = ablated.contributions()
    assert {part.difference.level for part in parts} == {1 - 0.05 / len(parts)}
    raw = [part.difference.p_value for part in parts]
    assert [part.p_value for part in parts] == pytest.approx([min(1.0, p * len(parts)) for p in raw])
    told = [{"helps": 1, "harms": -1}.get(part.verdict, 0) for part in parts]
    assert told == [int(part.loss[1] > 0) - int(part.loss[2] < 0) for part in parts]
    assert any(told)


def test_the_table_says_what_the_contributions_say(ablated):
    table = ablated.to_pandas().set_index("variant")
    assert list(table.index) == [variant.name for variant in ablated.variants]
    for name, part in by_name(ablated).items():
        row = table.loc[name]
        assert (row.loss, row.loss_low, row.loss_high) == part.loss
        assert (row.verdict, row.p_value, row.kind) == (part.verdict, part.p_value, part.variant.kind)
    assert repr(ablated).startswith(f"Ablation: {len(table) - 1} changes of chain(")


def test_the_sign_of_a_loss_is_that_of_a_cost_whatever_is_better():
    variants = variants_of(optimizers.momentum(0.1))[:2]
    noise = np.random.default_rng(0).normal(size=8)
    scores = {variants[0].name: 5 + noise, variants[1].name: 3 + noise}
    for mode, verdict, sign in (("max", "helps", 1), ("min", "harms", -1)):
        [part] = Ablation(variants, by_hand(scores, mode), 0.95).contributions("tuned")
        assert part.verdict == verdict
        assert part.loss[0] == pytest.approx(2 * sign)
        assert part.difference.estimate == pytest.approx(-2)


@pytest.mark.slow
def test_tuned_variants_are_compared_at_their_own_best():
    """Momentum gives longer steps; with its own rate the chain without it is not as far behind."""
    heavy = transforms.chain(transforms.heavy_ball(0.8), transforms.scale_by_learning_rate(0.02))
    given = {"space": {"learning_rate": sweeps.log_uniform(0.01, 0.45)}, "budget": 6, "tune_seeds": 10}
    found = sweeps.ablate(heavy, small.quadratic(), **SETTINGS | given)
    name = "without heavy_ball(0.8)"
    fixed, tuned = by_name(found, "default")[name], by_name(found)[name]
    assert fixed.verdict == "helps"
    assert abs(tuned.loss[0]) < 0.5 * fixed.loss[0]
    configs = {variant: found.comparison.searches["quadratic", variant].configs for variant in ("full", name)}
    assert configs["full"] == configs[name]
    assert len(configs["full"]) == 6
    assert found.comparison.of()[name].config["learning_rate"] > 0.1
    assert found.comparison.of(settings="default")[name].config == {}


def test_an_interrupted_ablation_goes_on(ablated, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_SECONDS_PER_CHUNK", 0.0)
    given = {"journal": tmp_path} | SETTINGS

    def press(done, total, best):
        if done > total // 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ComparisonInterrupted):
        sweeps.ablate(chain(), PROBLEM, progress=press, **given)
    done = []
    found = sweeps.ablate(chain(), PROBLEM, progress=lambda *numbers: done.append(numbers[0]), **given)
    assert done[0] > len(ablated.variants) * 10 // 2
    for one, other in zip(found.comparison.reports, ablated.comparison.reports, strict=True):
        assert one.candidate == other.candidate
        assert one.scores.tobytes() == other.scores.tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 3}, "needs a space for its budget of 3 trials"),
        ({"space": {"rate": sweeps.uniform(0, 1)}}, "No hyperparameter 'rate'"),
        (
            {"space": {"heavy_ball.decay": sweeps.uniform(0, 1)}, "budget": 2},
            "Unknown .*'heavy_ball.decay'",
        ),
        (
            {"space": {"weight_decay": sweeps.uniform(0, 1)}},
            "add_decayed_weights.weight_decay cannot be both tuned and",
        ),
        ({"neutral": {"momentum": 0.0}}, "matches no hyperparameters"),
        ({"num_seeds": 0}, "num_seeds to be an integer ≥ 1; received 0"),
        ({"metric": "accuracy"}, "metric='accuracy' is not among the evaluated metrics: 'loss'"),
    ],
)
def test_what_cannot_be_ablated_is_refused(compilations, changes, message):
    with compilations() as counter, pytest.raises(ValueError, match=message):
        sweeps.ablate(chain(), PROBLEM, **SETTINGS | changes)
    assert counter.lanes == 0
