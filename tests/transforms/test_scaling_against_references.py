"""Every composed scaling against its NumPy reference, with its arguments off their defaults; every step and state."""

import numpy as np
import pytest

from jaxopt_study import transforms
from tests.oracles import gradients
from tests.oracles.closeness import assert_agree, disagreement
from tests.oracles.references import adagrad_family, adam_family, atoms, lion_adan
from tests.oracles.references.reference import run
from tests.oracles.running import run_outputs, run_transform, states_of, traced_staircase

GRADS, START = gradients.stream(seed=1), gradients.start(seed=1)
STEPS = np.arange(1, len(GRADS) + 1)
RATE = 0.02

MOMENTS = {"m": ("EmaState", 0, "average"), "v": ("EmaState", 1, "average")}
WITH_MAX = {**MOMENTS, "v_max": ("RunningMaxState", 0, "maximum")}
COUNTED = {"count": ("BiasCorrectionState", 0, "count")}

# name: (transformation, reference, where each state variable of the reference is)
CASES = {
    "adagrad": (
        transforms.scale_by_adagrad(eps=1e-3, initial=0.2),
        adagrad_family.adagrad(RATE, eps=1e-3, initial=0.2),
        {"total": ("TotalState", 0, "total")},
    ),
    "adagrad, ε inside": (
        transforms.scale_by_adagrad(eps=0.0, eps_root=1e-3),
        adagrad_family.adagrad(RATE, eps=1e-3, eps_inside=True),
        {"total": ("TotalState", 0, "total")},
    ),
    "rms": (
        transforms.scale_by_rms(0.8, eps=1e-3),
        adagrad_family.rmsprop(RATE, 0.8, 1e-3),
        {"square": ("EmaState", 0, "average")},
    ),
    "rms, ε inside": (
        transforms.scale_by_rms(0.8, eps=0.0, eps_root=1e-3),
        adagrad_family.rmsprop(RATE, 0.8, 1e-3, eps_inside=True),
        {"square": ("EmaState", 0, "average")},
    ),
    "rms, centred": (
        transforms.scale_by_rms(0.99, eps=1e-3, centered=True),
        adagrad_family.rmsprop(RATE, 0.99, 1e-3, centered=True),
        {"square": ("EmaState", 0, "average"), "mean": ("EmaState", 1, "average")},
    ),
    "adadelta": (
        transforms.scale_by_adadelta(0.8, eps=1e-4),
        adagrad_family.adadelta(0.8, 1e-4, lr=RATE),
        {"square_grad": ("EmaState", 0, "average"), "square_delta": ("UpdateRmsState", 0, "average")},
    ),
    "adam": (
        transforms.scale_by_adam(0.7, 0.97, eps=1e-3, eps_root=1e-4),
        adam_family.adam(RATE, 0.7, 0.97, 1e-3, 1e-4),
        {**MOMENTS, **COUNTED},
    ),
    "adam, no first moment": (
        transforms.scale_by_adam(0.0, 0.97, eps=1e-3),
        adam_family.adam(RATE, 0.0, 0.97, 1e-3),
        MOMENTS,
    ),
    "amsgrad, uncorrected": (
        transforms.scale_by_amsgrad(0.7, 0.97, eps=1e-3, correction="none"),
        adam_family.amsgrad_paper(RATE, 0.7, 0.97, 1e-3),
        WITH_MAX,
    ),
    "amsgrad, corrected before": (
        transforms.scale_by_amsgrad(0.7, 0.97, eps=1e-3, eps_root=1e-4, correction="before"),
        adam_family.amsgrad_optax(RATE, 0.7, 0.97, 1e-3, 1e-4),
        {**WITH_MAX, **COUNTED},
    ),
    "amsgrad, corrected after": (
        transforms.scale_by_amsgrad(0.7, 0.97, eps=1e-3, correction="after"),
        adam_family.amsgrad_torch(RATE, 0.7, 0.97, 1e-3),
        {**WITH_MAX, **COUNTED},
    ),
    "adamax": (
        transforms.scale_by_adamax(0.7, 0.97, eps=1e-3),
        adam_family.adamax(RATE, 0.7, 0.97, 1e-3),
        {"m": ("EmaState", 0, "average"), "u": ("RunningMaxState", 0, "maximum"), **COUNTED},
    ),
    "nadam, paper": (
        transforms.scale_by_nadam(0.7, 0.97, eps=1e-3, momentum_decay=0.02),
        adam_family.nadam(RATE, 0.7, 0.97, 1e-3, 0.02, average_with_mu=True),
        {
            "m": ("NadamAverageState", 0, "average"),
            "mu_product": ("NadamAverageState", 0, "product"),
            "count": ("NadamAverageState", 0, "count"),
            "v": ("EmaState", 0, "average"),
        },
    ),
    "nadam, torch": (
        transforms.scale_by_nadam(0.7, 0.97, eps=1e-3, momentum_decay=0.02, average_with_schedule=False),
        adam_family.nadam(RATE, 0.7, 0.97, 1e-3, 0.02),
        {"m": ("NadamAverageState", 0, "average"), "v": ("EmaState", 0, "average")},
    ),
    "nadam, constant momentum": (
        transforms.scale_by_nadam(0.7, 0.97, eps=1e-3, eps_root=1e-4, momentum_decay=None),
        adam_family.nadam_optax(RATE, 0.7, 0.97, 1e-3, 1e-4),
        {**MOMENTS, **COUNTED},
    ),
    "radam, paper": (
        transforms.scale_by_radam(0.7, 0.97, eps=1e-3),
        adam_family.radam(RATE, 0.7, 0.97, 1e-3),
        {**MOMENTS, "count": ("RectifyState", 0, "count")},
    ),
    "radam, ε beside the raw root": (
        transforms.scale_by_radam(0.7, 0.97, eps=1e-3, threshold=5.0, eps_corrected=False),
        adam_family.radam(RATE, 0.7, 0.97, 1e-3, threshold=5.0, eps_corrected=False),
        MOMENTS,
    ),
    "lion": (
        transforms.scale_by_lion(0.7, 0.97),
        lion_adan.lion(RATE, 0.7, 0.97),
        {"m": ("EmaState", 0, "average")},
    ),
    "adan": (
        transforms.scale_by_adan(0.9, 0.7, 0.97, eps=1e-3),
        lion_adan.adan(RATE, 0.9, 0.7, 0.97, 1e-3),
        {
            "m": ("EmaState", 0, "average"),
            "v": ("EmaState", 1, "average"),
            "n": ("EmaState", 2, "average"),
            "previous": ("DifferenceState", 0, "previous"),
            **COUNTED,
        },
    ),
    "adan, Optax's weight": (
        transforms.scale_by_adan(0.9, 0.7, 0.97, eps=1e-3, difference_weight=0.3),
        lion_adan.adan(RATE, 0.9, 0.7, 0.97, 1e-3, v_weight=0.3),
        {"v": ("EmaState", 1, "average"), "n": ("EmaState", 2, "average")},
    ),
}


def test_every_scaling_is_here():
    public = {name.removeprefix("scale_by_") for name in transforms.__all__ if name.startswith("scale_by_")}
    tested = {name.split(",")[0] for name in CASES}
    elsewhere = {"learning_rate", "update_rms", "factored_rms", "param_rms", "rprop", "newton", "saddle_free_newton"}
    assert public - elsewhere == tested


@pytest.mark.parametrize("name", CASES)
def test_scaling_follows_its_reference_at_every_step_and_state(name):
    scaling, reference, where = CASES[name]
    tx = transforms.chain(scaling, transforms.scale_by_learning_rate(RATE))
    params, _, state = run_transform(tx, GRADS, START)
    expected = run(reference, GRADS, START)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    for variable, (class_name, index, field) in where.items():
        actual = getattr(states_of(state, class_name)[index], field)
        assert_agree(actual, expected[variable], name=variable, cumulative=variable == "m")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("adagrad", "adagrad, ε inside"),
        ("rms", "rms, ε inside"),
        ("amsgrad, uncorrected", "amsgrad, corrected after"),
        ("amsgrad, corrected before", "amsgrad, corrected after"),
        ("nadam, paper", "nadam, torch"),
        ("nadam, torch", "nadam, constant momentum"),
        ("radam, paper", "radam, ε beside the raw root"),
        ("adan", "adan, Optax's weight"),
    ],
)
def test_variants_are_told_apart(one, other):
    ours = run_transform(transforms.chain(CASES[one][0], transforms.scale_by_learning_rate(RATE)), GRADS, START)[0]
    assert disagreement(ours, run(CASES[other][1], GRADS, START)["params"]) > 1e-4


# The parts that only composed scalings use.


@pytest.mark.parametrize(("inclusive", "last"), [(True, 2.0), (False, 1.0)])
def test_inclusive_threshold_matters_on_equality(inclusive, last):
    """With b2 = .75 the memory ends at ρ∞ = 7 exactly, where r = 1: trusted, a 2 passes; else it becomes 1."""
    tx = transforms.rectify(0.75, threshold=7.0, inclusive=inclusive)
    out, _ = run_outputs(tx, np.full((240, 1), 2.0), np.zeros(1))
    assert out[-1, 0] == last
    assert out[0, 0] == 1.0


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_bias_correction_can_look_ahead(ahead):
    out, _ = run_outputs(transforms.bias_correction(0.9, ahead=ahead), GRADS, START)
    weights = atoms.bias_corrections(0.9, len(GRADS) + ahead)[ahead:]
    assert_agree(out, GRADS / weights[:, None])


def test_root_and_magnitude_put_eps_in_its_place():
    out, _ = run_outputs(transforms.elementwise(transforms.root(eps=1e-3, eps_root=1e-4)), np.abs(GRADS), START)
    assert_agree(out, np.sqrt(np.abs(GRADS) + 1e-4) + 1e-3)
    out, _ = run_outputs(transforms.elementwise(transforms.magnitude(eps=1e-3)), GRADS, START)
    assert_agree(out, np.abs(GRADS) + 1e-3)


def test_added_weight_decay_is_the_gradient_of_half_the_square():
    out, _ = run_outputs(transforms.add_decayed_weights(0.3), GRADS, START)
    assert_agree(out, GRADS + 0.3 * START, cumulative=True)
    out, _ = run_outputs(transforms.add_decayed_weights(0.3, mask=lambda params: False), GRADS, START)
    assert_agree(out, GRADS, rtol=0.0)


@pytest.mark.parametrize("scheduled", [False, True])
def test_proximal_decay_divides_the_end_of_the_step(scheduled):
    rates = [(0.1, 0.02, 0.05)[t // 60 % 3] if scheduled else 0.1 for t in range(len(GRADS))]
    rate = traced_staircase if scheduled else 0.1
    tx = transforms.chain(transforms.scale_by_learning_rate(rate), transforms.decay_proximally(0.3, rate))
    params, _, _ = run_transform(tx, GRADS, START)
    expected, theta = [], START
    for eta, grad in zip(rates, GRADS, strict=True):
        theta = (theta - eta * grad) / (1.0 + 0.3 * eta)
        expected.append(theta)
    assert_agree(params, np.stack(expected), cumulative=True)
