"""Every named optimizer under every convention: NumPy references, stored torch trajectories, Optax itself."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from tests.oracles import gradients, torch_trajectories
from tests.oracles.closeness import assert_agree, disagreement
from tests.oracles.references import (
    adafactor,
    adagrad_family,
    adam_family,
    averaging,
    descent,
    lion_adan,
    resilient,
)
from tests.oracles.references.reference import run, run_on
from tests.oracles.running import run_on_function, run_transform, states_of

GRADS, START = gradients.stream(seed=2), gradients.start(seed=2)
TORCH = torch_trajectories.load()
STAIRS = gradients.staircase
DOUBLE = float(np.finfo(np.float64).eps)


def stairs(count):
    """The staircase, written so that it can be traced."""
    return jnp.asarray([0.1, 0.02, 0.05])[(count // 60) % 3]


def relative_stairs(count):
    """The staircase as a multiplier of .1."""
    return STAIRS(count) / 0.1


MOMENTS = {"m": ("EmaState", 0, "average"), "v": ("EmaState", 1, "average")}
COUNT = {"count": ("BiasCorrectionState", 0, "count")}
ADAM = {**MOMENTS, **COUNT}
AMSGRAD = {**MOMENTS, "v_max": ("RunningMaxState", 0, "maximum")}
ADAMAX = {"m": ("EmaState", 0, "average"), "u": ("RunningMaxState", 0, "maximum"), **COUNT}
NADAM = {
    "m": ("NadamAverageState", 0, "average"),
    "v": ("EmaState", 0, "average"),
    "mu_product": ("NadamAverageState", 0, "product"),
    "count": ("NadamAverageState", 0, "count"),
}
ADAN = {
    "m": ("EmaState", 0, "average"),
    "v": ("EmaState", 1, "average"),
    "n": ("EmaState", 2, "average"),
    "previous": ("DifferenceState", 0, "previous"),
    **COUNT,
}
TRACE = {"trace": ("HeavyBallState", 0, "trace"), "count": ("HeavyBallState", 0, "count")}
TOTAL = {"total": ("TotalState", 0, "total"), "count": ("LearningRateState", 0, "count")}
SQUARE = {"square": ("EmaState", 0, "average"), "count": ("LearningRateState", 0, "count")}
DELTA = {"square_grad": ("EmaState", 0, "average"), "square_delta": ("UpdateRmsState", 0, "average")}
VELOCITY = {"-velocity": ("HeavyBallState", 0, "trace"), "count": ("HeavyBallState", 0, "count")}
AVERAGE = {"average": ("AverageIteratesState", 0, "average"), "count": ("AverageIteratesState", 0, "count")}
RPROP = {"size": ("RpropState", 0, "size"), "direction": ("RpropState", 0, "direction")}
FACTORED = {"v": ("FactoredRmsState", 0, "second"), "count": ("FactoredRmsState", 0, "count")}
BENGIO = {"-velocity": ("NesterovState", 0, "trace"), "count": ("NesterovState", 0, "count")}

# (name, convention): the optimizer with only its learning rate given, a reference with every default spelled out, and
# where each of its state variables is. All under the staircase schedule of the learning rate.
CASES = {
    ("sgd", None): (optimizers.sgd(stairs), descent.sgd(STAIRS), {"count": ("LearningRateState", 0, "count")}),
    ("momentum", "paper"): (optimizers.momentum(stairs), descent.momentum_paper(STAIRS, 0.9), VELOCITY),
    ("momentum", "saito2016"): (
        optimizers.momentum(stairs, convention="saito2016"),
        descent.momentum_paper(STAIRS, 0.9),
        VELOCITY,
    ),
    ("momentum", "torch"): (
        optimizers.momentum(stairs, convention="torch"),
        descent.momentum_trace(STAIRS, 0.9),
        TRACE,
    ),
    ("momentum", "optax"): (
        optimizers.momentum(stairs, convention="optax"),
        descent.momentum_trace(STAIRS, 0.9),
        TRACE,
    ),
    ("nesterov", "paper"): (optimizers.nesterov(stairs), descent.nesterov_bengio(STAIRS, 0.9), BENGIO),
    ("nesterov", "saito2016"): (
        optimizers.nesterov(stairs, convention="saito2016"),
        descent.nesterov_bengio(STAIRS, 0.9),
        BENGIO,
    ),
    ("nesterov", "torch"): (
        optimizers.nesterov(stairs, convention="torch"),
        descent.nesterov_trace(STAIRS, 0.9),
        {"trace": ("NesterovState", 0, "trace")},
    ),
    ("nesterov", "optax"): (
        optimizers.nesterov(stairs, convention="optax"),
        descent.nesterov_trace(STAIRS, 0.9),
        {"trace": ("NesterovState", 0, "trace")},
    ),
    ("adagrad", "paper"): (optimizers.adagrad(stairs), adagrad_family.adagrad(STAIRS, eps=1e-8), TOTAL),
    ("adagrad", "torch"): (
        optimizers.adagrad(stairs, convention="torch"),
        adagrad_family.adagrad(STAIRS, eps=1e-10),
        TOTAL,
    ),
    ("adagrad", "optax"): (
        optimizers.adagrad(stairs, convention="optax"),
        adagrad_family.adagrad(STAIRS, eps=1e-7, initial=0.1, eps_inside=True),
        TOTAL,
    ),
    ("adagrad", "saito2016"): (
        optimizers.adagrad(stairs, convention="saito2016"),
        adagrad_family.adagrad(STAIRS, eps=1e-7),
        TOTAL,
    ),
    ("adadelta", "paper"): (optimizers.adadelta(), adagrad_family.adadelta(0.95, 1e-6), DELTA),
    ("adadelta", "torch"): (
        optimizers.adadelta(stairs, convention="torch"),
        adagrad_family.adadelta(0.9, 1e-6, STAIRS),
        DELTA,
    ),
    ("adadelta", "optax"): (
        optimizers.adadelta(stairs, convention="optax"),
        adagrad_family.adadelta(0.9, 1e-6, STAIRS),
        DELTA,
    ),
    ("rmsprop", "paper"): (optimizers.rmsprop(stairs), adagrad_family.rmsprop(STAIRS, 0.9, 1e-8), SQUARE),
    ("rmsprop", "torch"): (
        optimizers.rmsprop(stairs, convention="torch"),
        adagrad_family.rmsprop(STAIRS, 0.99, 1e-8),
        SQUARE,
    ),
    ("rmsprop", "optax"): (
        optimizers.rmsprop(stairs, convention="optax"),
        adagrad_family.rmsprop(STAIRS, 0.9, 1e-8, eps_inside=True),
        SQUARE,
    ),
    ("rmsprop", "saito2016"): (
        optimizers.rmsprop(stairs, convention="saito2016"),
        adagrad_family.rmsprop(STAIRS, 0.99, 1e-7),
        SQUARE,
    ),
    ("adam", "paper"): (optimizers.adam(stairs), adam_family.adam(STAIRS, 0.9, 0.999, 1e-8), ADAM),
    ("adam", "torch"): (
        optimizers.adam(stairs, convention="torch"),
        adam_family.adam(STAIRS, 0.9, 0.999, 1e-8),
        ADAM,
    ),
    ("adam", "optax"): (
        optimizers.adam(stairs, convention="optax"),
        adam_family.adam(STAIRS, 0.9, 0.999, 1e-8),
        ADAM,
    ),
    ("adam", "saito2016"): (
        optimizers.adam(stairs, convention="saito2016"),
        adam_family.adam_eps_hat(STAIRS, 0.9, 0.999, 1e-7),
        ADAM,
    ),
    ("amsgrad", "paper"): (
        optimizers.amsgrad(stairs),
        adam_family.amsgrad_paper(STAIRS, 0.9, 0.999, 1e-8),
        AMSGRAD,
    ),
    ("amsgrad", "torch"): (
        optimizers.amsgrad(stairs, convention="torch"),
        adam_family.amsgrad_torch(STAIRS, 0.9, 0.999, 1e-8),
        {**AMSGRAD, **COUNT},
    ),
    ("amsgrad", "optax"): (
        optimizers.amsgrad(stairs, convention="optax"),
        adam_family.amsgrad_optax(STAIRS, 0.9, 0.999, 1e-8),
        {**AMSGRAD, **COUNT},
    ),
    ("adamax", "paper"): (optimizers.adamax(stairs), adam_family.adamax(STAIRS, 0.9, 0.999), ADAMAX),
    ("adamax", "torch"): (
        optimizers.adamax(stairs, convention="torch"),
        adam_family.adamax(STAIRS, 0.9, 0.999, 1e-8),
        ADAMAX,
    ),
    ("adamax", "optax"): (
        optimizers.adamax(stairs, convention="optax"),
        adam_family.adamax(STAIRS, 0.9, 0.999, 1e-8),
        ADAMAX,
    ),
    ("nadam", "paper"): (
        optimizers.nadam(stairs),
        adam_family.nadam(STAIRS, 0.9, 0.999, 1e-8, 0.004, average_with_mu=True),
        NADAM,
    ),
    ("nadam", "torch"): (
        optimizers.nadam(stairs, convention="torch"),
        adam_family.nadam(STAIRS, 0.9, 0.999, 1e-8, 0.004),
        NADAM,
    ),
    ("nadam", "optax"): (
        optimizers.nadam(stairs, convention="optax"),
        adam_family.nadam_optax(STAIRS, 0.9, 0.999, 1e-8),
        ADAM,
    ),
    ("radam", "paper"): (
        optimizers.radam(stairs),
        adam_family.radam(STAIRS, 0.9, 0.999),
        {**MOMENTS, "count": ("RectifyState", 0, "count")},
    ),
    ("radam", "torch"): (
        optimizers.radam(stairs, convention="torch"),
        adam_family.radam(STAIRS, 0.9, 0.999, 1e-8, threshold=5.0, eps_corrected=False),
        MOMENTS,
    ),
    ("radam", "optax"): (
        optimizers.radam(stairs, convention="optax"),
        adam_family.radam(STAIRS, 0.9, 0.999, 1e-8, threshold=5.0, inclusive=True),
        MOMENTS,
    ),
    ("adamw", "paper"): (
        optimizers.adamw(0.1, schedule=lambda count: stairs(count) / 0.1),
        adam_family.adamw_paper(0.1, 1e-4, relative_stairs),
        ADAM,
    ),
    ("adamw", "torch"): (
        optimizers.adamw(stairs, convention="torch"),
        adam_family.adamw_torch(STAIRS, 1e-2),
        ADAM,
    ),
    ("adamw", "optax"): (
        optimizers.adamw(stairs, convention="optax"),
        adam_family.adamw_torch(STAIRS, 1e-4),
        ADAM,
    ),
    ("lion", None): (
        optimizers.lion(stairs, weight_decay=0.1),
        lion_adan.lion(STAIRS, 0.9, 0.99, 0.1),
        {"m": ("EmaState", 0, "average")},
    ),
    ("adan", "paper"): (
        optimizers.adan(stairs, weight_decay=0.02),
        lion_adan.adan(STAIRS, 0.98, 0.92, 0.99, 1e-8, 0.02),
        ADAN,
    ),
    ("asgd", "paper"): (optimizers.asgd(stairs), averaging.asgd_bottou(STAIRS, 1e-4, 0.75, 0.0), AVERAGE),
    ("asgd", "torch"): (
        optimizers.asgd(stairs, convention="torch"),
        averaging.asgd_torch(STAIRS, 1e-4, 0.75, 1e6),
        AVERAGE,
    ),
    ("rprop", "paper"): (optimizers.rprop(), resilient.rprop(0.1, 0.5, 1.2, 1e-6, 50.0), RPROP),
    ("rprop", "torch"): (
        optimizers.rprop(convention="torch"),
        resilient.rprop(0.01, 0.5, 1.2, 1e-6, 50.0, backtracking=False),
        RPROP,
    ),
    ("rprop", "optax"): (
        optimizers.rprop(convention="optax"),
        resilient.rprop(0.1, 0.5, 1.2, 1e-6, 50.0, backtracking=False, lagged=True),
        RPROP,
    ),
    ("adafactor", "paper"): (
        optimizers.adafactor(stairs),
        adafactor.adafactor(STAIRS, 0.8, 1e-30, 1e-3, 1.0),
        FACTORED,
    ),
    ("adafactor", "torch"): (
        optimizers.adafactor(stairs, convention="torch"),
        adafactor.adafactor(STAIRS, 0.8, DOUBLE, 1e-3, 1.0, as_torch=True),
        FACTORED,
    ),
    ("adafactor", "optax"): (
        optimizers.adafactor(stairs, convention="optax"),
        adafactor.adafactor(STAIRS, 0.8, 1e-30, 1e-3, 1.0, relative=False),
        FACTORED,
    ),
}
# The one is not fed gradients, the other's reference is Optax's own code: they have tests of their own.
ELSEWHERE = {("nesterov_lookahead", None), ("adan", "optax")}


def test_every_named_optimizer_has_a_reference_under_every_convention():
    offered = set()
    for name, constructor in optimizers.named().items():
        conventions = [convention for convention, _ in constructor.constructor.conventions]
        offered |= {(name, convention) for convention in conventions or [None]}
    assert offered == set(CASES) | ELSEWHERE


def _ids(key):
    return "-".join(str(part) for part in key if part)


@pytest.mark.parametrize("key", CASES, ids=_ids)
def test_optimizer_follows_its_reference_at_every_step_and_state(key):
    optimizer, reference, where = CASES[key]
    params, _, state = run_transform(optimizer, GRADS, START)
    expected = run(reference, GRADS, START)
    assert len(expected["params"]) >= 200
    assert_agree(params, expected["params"], name="params", cumulative=True)
    kept = {name for name in expected if not name.startswith("_")}  # the rest is how a reference reckons
    assert kept - {"params", "count"} <= {name.removeprefix("-") for name in where}, "a state is not compared"
    for variable, (class_name, index, field) in where.items():
        sign = -1.0 if variable.startswith("-") else 1.0
        actual = sign * getattr(states_of(state, class_name)[index], field)
        signed_sum = variable in {"m", "mean", "v", "trace", "-velocity", "average"} and key[0] != "adagrad"
        assert_agree(actual, expected[variable.removeprefix("-")], name=variable, cumulative=signed_sum)


@pytest.mark.parametrize("scheduled", [False, True])
def test_lookahead_follows_nesterovs_method(scheduled):
    def gradient(point, module=np):
        return module.asarray([1.0, 0.05, 3.0]) * point + 0.3 * module.sin(3.0 * point)

    start = np.array([2.0, -3.0, 1.0])
    optimizer = optimizers.nesterov_lookahead(stairs if scheduled else 0.1)
    params, state = run_on_function(optimizer, lambda x: gradient(x, jnp), start, 240, transforms.gradient_point)
    expected = run_on(descent.nesterov_lookahead(STAIRS if scheduled else 0.1, 0.9), gradient, start, 240)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    velocity = states_of(state, "NesterovLookaheadState")[0].velocity
    assert_agree(velocity, expected["velocity"], name="velocity", cumulative=True)


# What PyTorch did.

AS_TORCH = {
    "sgd": optimizers.sgd(0.1),
    "sgd_momentum": optimizers.momentum(0.1, convention="torch"),
    "sgd_momentum_scheduled": optimizers.momentum(stairs, convention="torch"),
    "sgd_nesterov": optimizers.nesterov(0.1, convention="torch"),
    "sgd_nesterov_scheduled": optimizers.nesterov(stairs, convention="torch"),
    "adagrad": optimizers.adagrad(0.1, convention="torch"),
    "adadelta": optimizers.adadelta(convention="torch"),
    "adadelta_lr": optimizers.adadelta(0.3, decay=0.95, convention="torch"),
    "rmsprop": optimizers.rmsprop(0.01, convention="torch"),
    "rmsprop_momentum": optimizers.rmsprop(0.01, momentum=0.9, convention="torch"),
    "rmsprop_momentum_scheduled": optimizers.rmsprop(stairs, momentum=0.9, convention="torch"),
    "rmsprop_centered": optimizers.rmsprop(0.01, centered=True, convention="torch"),
    "adam": optimizers.adam(0.01, convention="torch"),
    "adam_amsgrad": optimizers.amsgrad(0.01, convention="torch"),
    "adamax": optimizers.adamax(0.01, convention="torch"),
    "nadam": optimizers.nadam(0.01, convention="torch"),
    "radam": optimizers.radam(0.01, convention="torch"),
    "adamw": optimizers.adamw(0.01, weight_decay=0.1, convention="torch"),
    "adamw_scheduled": optimizers.adamw(stairs, weight_decay=0.1, convention="torch"),
    "sgd_dampening": optimizers.momentum(0.1, dampening=0.3, convention="torch"),
    "sgd_dampening_scheduled": optimizers.sgd(stairs, 0.9, dampening=0.3),
    "sgd_decay": optimizers.sgd(0.1, weight_decay=0.1),
    "sgd_decay_ascent": optimizers.sgd(0.1, 0.9, weight_decay=0.1, maximize=True),
    "sgd_nesterov_decay_ascent": optimizers.nesterov(stairs, weight_decay=0.1, maximize=True, convention="torch"),
    "adagrad_lr_decay": optimizers.adagrad(0.1, lr_decay=0.05, initial_accumulator_value=0.2, convention="torch"),
    "adagrad_decay_ascent": optimizers.adagrad(
        stairs, lr_decay=0.05, weight_decay=0.1, maximize=True, convention="torch"
    ),
    "adadelta_decay_ascent": optimizers.adadelta(stairs, weight_decay=0.1, maximize=True, convention="torch"),
    "rmsprop_decay_ascent": optimizers.rmsprop(0.01, momentum=0.9, weight_decay=0.1, maximize=True, convention="torch"),
    "adam_decay_ascent": optimizers.adam(0.01, weight_decay=0.1, maximize=True, convention="torch"),
    "adam_decoupled": optimizers.adam(0.01, weight_decay=0.1, decoupled_weight_decay=True, convention="torch"),
    "adam_amsgrad_decay": optimizers.amsgrad(0.01, weight_decay=0.1, convention="torch"),
    "adamw_amsgrad": optimizers.adamw(stairs, weight_decay=0.1, amsgrad=True, maximize=True, convention="torch"),
    "adamax_decay_ascent": optimizers.adamax(0.01, weight_decay=0.1, maximize=True, convention="torch"),
    "nadam_decay_ascent": optimizers.nadam(0.01, weight_decay=0.1, maximize=True, convention="torch"),
    "nadam_decoupled": optimizers.nadam(stairs, weight_decay=0.1, decoupled_weight_decay=True, convention="torch"),
    "radam_decay_ascent": optimizers.radam(0.01, weight_decay=0.1, maximize=True, convention="torch"),
    "radam_decoupled": optimizers.radam(stairs, weight_decay=0.1, decoupled_weight_decay=True, convention="torch"),
    "asgd": optimizers.asgd(0.1, convention="torch"),
    "asgd_averaged": optimizers.asgd(0.1, lambd=0.05, alpha=0.6, t0=20, weight_decay=0.1, convention="torch"),
    "asgd_scheduled_ascent": optimizers.asgd(stairs, lambd=0.05, t0=0, maximize=True, convention="torch"),
    "rprop": optimizers.rprop(convention="torch"),
    "rprop_ascent": optimizers.rprop(
        1e-4, 0.3, 1.5, min_step_size=1e-3, max_step_size=0.3, maximize=True, convention="torch"
    ),
    "adafactor": optimizers.adafactor(convention="torch"),
    "adafactor_matrix": optimizers.adafactor(convention="torch"),
    "adafactor_tensor": optimizers.adafactor(stairs, weight_decay=0.1, convention="torch"),
    "adafactor_ascent": optimizers.adafactor(
        0.3,
        decay_rate=0.5,
        eps=1e-3,
        min_rms=0.5,
        clipping_threshold=1.1,
        weight_decay=0.1,
        maximize=True,
        convention="torch",
    ),
}


def test_every_torch_trajectory_is_met():
    assert set(TORCH["cases"]) == set(AS_TORCH)


@pytest.mark.parametrize("name", AS_TORCH)
def test_torch_convention_follows_torch_at_every_step(name):
    params, _, state = run_transform(AS_TORCH[name], *torch_trajectories.inputs(TORCH, name))
    assert_agree(params, TORCH["cases"][name]["params"], name=name, cumulative=True)
    if "average" in TORCH["cases"][name]:
        with jax.enable_x64(True):
            average = transforms.evaluation_params(params, states_of(state, "AverageIteratesState")[0])
        assert_agree(average, TORCH["cases"][name]["average"], name=name, cumulative=True)


UNLIKE_TORCH = {
    "nadam as Optax has it: constant momentum": ("nadam", optimizers.nadam(0.01, convention="optax")),
    "nadam as Dozat has it: scheduled average": ("nadam", optimizers.nadam(0.01)),
    "amsgrad as Optax has it: maximum of the corrected": (
        "adam_amsgrad",
        optimizers.amsgrad(0.01, convention="optax"),
    ),
    "amsgrad as Reddi has it: uncorrected": ("adam_amsgrad", optimizers.amsgrad(0.01)),
    "rmsprop with momentum under a schedule, Optax's order": (
        "rmsprop_momentum_scheduled",
        optimizers.rmsprop(stairs, 0.99, eps=1e-8, eps_root=0.0, momentum=0.9, convention="optax"),
    ),
    "momentum under a schedule, the textbooks' order": ("sgd_momentum_scheduled", optimizers.momentum(stairs)),
    "nesterov under a schedule, Bengio's order": ("sgd_nesterov_scheduled", optimizers.nesterov(stairs)),
    "rmsprop as Optax has it: ε inside": (
        "rmsprop",
        optimizers.rmsprop(0.01, 0.99, convention="optax"),
    ),
    "adagrad as Optax has it: start .1": ("adagrad", optimizers.adagrad(0.1, convention="optax")),
    "adam as the book has it": ("adam", optimizers.adam(0.01, eps=1e-8, convention="saito2016")),
    "adadelta as Zeiler has it: ρ = .95": ("adadelta", optimizers.adadelta()),
    "radam as Liu has it: threshold 4": ("radam", optimizers.radam(0.01)),
    "adamw as Loshchilov has it": ("adamw", optimizers.adamw(0.01, weight_decay=0.1)),
    "dampening from the first gradient on": (
        "sgd_dampening",
        transforms.chain(
            transforms.elementwise(lambda g: 0.7 * g),
            transforms.heavy_ball(0.9),
            transforms.scale_by_learning_rate(0.1),
        ),
    ),
    "weight decay turned with the gradient": (
        "sgd_decay_ascent",
        transforms.chain(
            transforms.add_decayed_weights(0.1), transforms.negate(), optimizers.momentum(0.1, convention="torch")
        ),
    ),
    "L2 instead of decoupled": ("nadam_decoupled", optimizers.nadam(stairs, weight_decay=0.1, convention="torch")),
    "decoupled instead of L2": (
        "radam_decay_ascent",
        optimizers.radam(0.01, weight_decay=0.1, decoupled_weight_decay=True, maximize=True, convention="torch"),
    ),
    "asgd as Bottou has it: the rate of this step": (
        "asgd_scheduled_ascent",
        optimizers.asgd(stairs, lambd=0.05, maximize=True),
    ),
    "rprop as Riedmiller has it: a step taken back": ("rprop", optimizers.rprop(0.01)),
    "rprop as Optax has it: a step late": ("rprop", optimizers.rprop(0.01, convention="optax")),
    "adafactor as Shazeer has it: ε added": ("adafactor_matrix", optimizers.adafactor(eps=DOUBLE)),
    "adafactor as Optax has it: no 1/√t": ("adafactor_matrix", optimizers.adafactor(0.3, convention="optax")),
    "adafactor with the paper's decay": ("adafactor_tensor", optimizers.adafactor(stairs, weight_decay=0.1)),
}


@pytest.mark.parametrize("why", UNLIKE_TORCH)
def test_documented_differences_from_torch_exist(why):
    name, optimizer = UNLIKE_TORCH[why]
    params, _, _ = run_transform(optimizer, *torch_trajectories.inputs(TORCH, name))
    assert disagreement(params, TORCH["cases"][name]["params"]) > 1e-6


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("rmsprop_momentum", optimizers.rmsprop(0.01, 0.99, eps=1e-8, eps_root=0.0, momentum=0.9, convention="optax")),
        ("sgd_momentum", optimizers.momentum(0.1)),
        ("sgd_nesterov", optimizers.nesterov(0.1)),
        ("adamw", optimizers.adamw(0.01, weight_decay=0.1 * 0.01)),
    ],
)
def test_orders_that_part_under_a_schedule_agree_without_one(name, optimizer):
    params, _, _ = run_transform(optimizer, TORCH["grads"], TORCH["start"])
    assert_agree(params, TORCH["cases"][name]["params"], name=name, cumulative=True)


# What Optax does.

AS_OPTAX = {
    "sgd": (optimizers.sgd(stairs), optax.sgd(stairs)),
    "momentum": (optimizers.momentum(stairs, convention="optax"), optax.sgd(stairs, 0.9)),
    "nesterov": (optimizers.nesterov(stairs, convention="optax"), optax.sgd(stairs, 0.9, nesterov=True)),
    "adagrad": (optimizers.adagrad(stairs, convention="optax"), optax.adagrad(stairs)),
    "adadelta": (optimizers.adadelta(stairs, convention="optax"), optax.adadelta(stairs)),
    "adadelta without a rate": (optimizers.adadelta(convention="optax"), optax.adadelta(1.0)),
    "rmsprop": (optimizers.rmsprop(stairs, convention="optax"), optax.rmsprop(stairs)),
    "rmsprop with momentum": (
        optimizers.rmsprop(stairs, momentum=0.9, convention="optax"),
        optax.rmsprop(stairs, momentum=0.9),
    ),
    "rmsprop, centred": (
        optimizers.rmsprop(stairs, 0.99, centered=True, convention="optax"),
        optax.rmsprop(stairs, 0.99, centered=True),
    ),
    "adam": (optimizers.adam(stairs, eps_root=1e-5, convention="optax"), optax.adam(stairs, eps_root=1e-5)),
    "amsgrad": (optimizers.amsgrad(stairs, convention="optax"), optax.amsgrad(stairs)),
    "adamax": (optimizers.adamax(stairs, convention="optax"), optax.adamax(stairs)),
    "nadam": (optimizers.nadam(stairs, convention="optax"), optax.nadam(stairs)),
    "radam": (optimizers.radam(stairs, convention="optax"), optax.radam(stairs)),
    "adamw": (optimizers.adamw(stairs, convention="optax"), optax.adamw(stairs)),
    "lion": (optimizers.lion(stairs, weight_decay=0.1), optax.lion(stairs, weight_decay=0.1)),
    "adan": (
        optimizers.adan(stairs, weight_decay=0.02, convention="optax"),
        optax.adan(stairs, weight_decay=0.02),
    ),
    "sgd with momentum": (optimizers.sgd(stairs, 0.9, True), optax.sgd(stairs, 0.9, True)),
    "adam, nesterov": (optimizers.adam(stairs, nesterov=True), optax.adam(stairs, nesterov=True)),
    "nadamw": (
        optimizers.adamw(stairs, weight_decay=0.1, nesterov=True, convention="optax"),
        optax.nadamw(stairs, weight_decay=0.1),
    ),
    "nadamw, written as nadam": (
        optimizers.nadam(stairs, weight_decay=0.1, decoupled_weight_decay=True, convention="optax"),
        optax.nadamw(stairs, weight_decay=0.1),
    ),
    "adamaxw": (
        optimizers.adamax(stairs, weight_decay=0.1, decoupled_weight_decay=True, convention="optax"),
        optax.adamaxw(stairs, weight_decay=0.1),
    ),
    "radam, nesterov": (
        optimizers.radam(stairs, eps_root=1e-5, nesterov=True, convention="optax"),
        optax.radam(stairs, eps_root=1e-5, nesterov=True),
    ),
    "adadelta with decay": (
        optimizers.adadelta(stairs, rho=0.8, weight_decay=0.1, convention="optax"),
        optax.adadelta(stairs, rho=0.8, weight_decay=0.1),
    ),
    "adagrad, started elsewhere": (
        optimizers.adagrad(stairs, initial_accumulator_value=0.7, convention="optax"),
        optax.adagrad(stairs, initial_accumulator_value=0.7),
    ),
    "rmsprop, every option": (
        optimizers.rmsprop(stairs, momentum=0.9, nesterov=True, bias_correction=True, convention="optax"),
        optax.rmsprop(stairs, momentum=0.9, nesterov=True, bias_correction=True),
    ),
    "rmsprop, started elsewhere": (
        optimizers.rmsprop(stairs, initial_scale=0.7, convention="optax"),
        optax.rmsprop(stairs, initial_scale=0.7),
    ),
    "rprop": (optimizers.rprop(0.1, convention="optax"), optax.rprop(0.1)),
}


@pytest.mark.parametrize("name", AS_OPTAX)
def test_optax_convention_follows_optax_at_every_step(name):
    ours, theirs = (run_transform(optimizer, GRADS, START)[0] for optimizer in AS_OPTAX[name])
    assert_agree(ours, theirs, name=name, cumulative=True)


# Optax forms the decay 1 − t^−c in single precision whatever the parameters' precision is.
AS_OPTAX_TO_SINGLE_PRECISION = {
    "adafactor": (optimizers.adafactor(stairs, convention="optax"), optax.adafactor(stairs)),
    "adafactor, every option": (
        optimizers.adafactor(
            0.1,
            decay_rate=0.6,
            momentum=0.9,
            dtype_momentum=jnp.float64,
            weight_decay_rate=0.01,
            clipping_threshold=1.5,
            multiply_by_parameter_scale=False,
            convention="optax",
        ),
        optax.adafactor(
            0.1,
            decay_rate=0.6,
            momentum=0.9,
            dtype_momentum=jnp.float64,
            weight_decay_rate=0.01,
            clipping_threshold=1.5,
            multiply_by_parameter_scale=False,
        ),
    ),
}


@pytest.mark.parametrize("name", AS_OPTAX_TO_SINGLE_PRECISION)
def test_optax_convention_follows_optax_as_far_as_its_single_precision_goes(name):
    ours, theirs = (run_transform(tx, GRADS, START)[0] for tx in AS_OPTAX_TO_SINGLE_PRECISION[name])
    assert_agree(ours, theirs, name=name, rtol=1e-6, cumulative=True)


def test_optaxs_adadelta_without_a_rate_goes_uphill_and_ours_does_not():
    """`optax.adadelta()` leaves the sign to the learning rate, and its default is to have none."""
    ours = run_transform(optimizers.adadelta(convention="optax"), GRADS[:1], START)[1]
    theirs = run_transform(optax.adadelta(), GRADS[:1], START)[1]
    assert np.all(ours * GRADS[:1] <= 0.0)
    np.testing.assert_allclose(theirs, -ours, rtol=1e-12)


def test_the_papers_adan_is_not_optaxs():
    ours = run_transform(optimizers.adan(stairs), GRADS, START)[0]
    assert disagreement(run_transform(optax.adan(stairs), GRADS, START)[0], ours) > 1e-3


# Arguments.

ABUSE = (None, "x", b"x", 1j, float("nan"), -1.0, float("inf"), True, np.array([0.1, 0.2]), [0.1], object(), float)
# A pytree of booleans or a function, checked where it meets the parameters; an integer, which the run-time type checker
# of the tests refuses first.
UNTYPED = {"mask", "min_dim_size_to_factor"}


def _sensible(parameter, value, has_conventions):
    """Return whether a value of the table is one that this argument may have."""
    if value is None:  # the default: of the argument, or of the convention
        return parameter.default is None or (has_conventions and parameter.name not in ("learning_rate", "convention"))
    if parameter.annotation is bool:
        return isinstance(value, bool)
    if parameter.name.endswith("dtype"):
        return value is float
    return parameter.name == "clipping_threshold" and isinstance(value, float) and value == float("inf")


@pytest.mark.parametrize("name", optimizers.named())
def test_every_argument_is_checked_under_the_name_the_user_gave(name):
    constructor = optimizers.named()[name]
    parameters = inspect.signature(constructor).parameters
    required = {p.name: 0.1 for p in parameters.values() if p.default is p.empty}
    for parameter in parameters.values():
        for value in ABUSE:
            if parameter.name in UNTYPED or _sensible(parameter, value, "convention" in parameters):
                continue
            with pytest.raises((TypeError, ValueError), match=rf"^{name}.*\b{parameter.name}\b") as caught:
                constructor(**{**required, parameter.name: value})
            assert "jaxopt_study" in caught.traceback[-1].path.as_posix()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optimizers.sgd(0.1, nesterov=True), "sgd: nesterov and dampening need momentum"),
        (lambda: optimizers.sgd(0.1, 0.9, True, dampening=0.1), "sgd: nesterov and dampening cannot be combined"),
        (lambda: optimizers.rmsprop(0.1, nesterov=True), "rmsprop: nesterov needs momentum"),
        (
            lambda: optimizers.adam(nesterov=True, convention="saito2016"),
            "adam: saito2016's form has no Nesterov momentum",
        ),
        (lambda: optimizers.adamw(amsgrad=True, nesterov=True), "adamw: amsgrad and nesterov cannot be combined"),
        (lambda: optimizers.adam(mask=True), "adam: mask needs weight_decay; received weight_decay=None"),
        (lambda: optimizers.nadam(mu_dtype=jnp.float32), "mu_dtype needs constant momentum"),
        (lambda: transforms.scale_by_rprop(lagged=True), "scale_by_rprop: a lagged step has not been taken yet"),
    ],
)
def test_options_that_contradict_each_other_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_names_of_optax_and_torch_are_understood_and_written_in_ours():
    tx = optimizers.adagrad(0.1, initial_accumulator_value=0.3)
    assert tx == optimizers.adagrad(0.1, initial=0.3)
    assert repr(tx) == "optimizers.adagrad(0.1, initial=0.3)"
    assert transforms.from_json(tx.to_json()) == tx
    with pytest.raises(TypeError, match="initial_accumulator_value is another name of initial; received both"):
        optimizers.adagrad(0.1, initial_accumulator_value=0.3, initial=0.3)


def test_traced_hyperparameters_pass_the_checks():
    def step(rate, decay):
        tx = optimizers.sgd(rate, decay, dampening=decay, weight_decay=rate)
        params = jnp.ones(2)
        return tx.update(params, tx.init(params), params)[0]

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(step)(rates, rates)[1], step(0.2, 0.2), rtol=1e-6)


# The ends of the range, and half precision.


def test_rprop_and_adafactor_step_on_gradients_whose_squares_do_not_exist():
    grads = jnp.array([[1e20, -1e20, 1e-30], [-1e20, 3e38, 1e-30]])
    for convention in ("paper", "torch", "optax"):
        for optimizer in (optimizers.rprop(convention=convention), optimizers.adafactor(0.1, convention=convention)):
            params = jnp.ones((2, 3))
            state = optimizer.init(params)
            for _ in range(3):
                updates, state = optimizer.update(grads, state, params)
                assert np.isfinite(updates).all(), optimizer
                params = params + updates
            assert (np.sign(updates) == -np.sign(grads))[:, :2].all(), optimizer
    np.testing.assert_allclose(optimizers.rprop(0.1).update(grads, optimizers.rprop(0.1).init(grads))[0][0, 2], -0.1)


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_with_wide_accumulators_is_single_precision_to_half_rounding(half):
    grads = np.random.default_rng(0).normal(size=(20, 3, 2)) * np.array([300.0, 1e-3])
    pairs = {
        "momentum": lambda dtype: optimizers.sgd(1e-3, 0.9, accumulator_dtype=dtype),
        "nesterov": lambda dtype: optimizers.nesterov(1e-3, accumulator_dtype=dtype, convention="torch"),
        "factored": lambda dtype: transforms.chain(
            transforms.scale_by_factored_rms(dtype=dtype), transforms.scale_by_learning_rate(1e-3)
        ),
    }
    for name, build in pairs.items():
        wide, narrow = (build(jnp.float32) for _ in range(2))
        states = wide.init(jnp.zeros((3, 2))), narrow.init(jnp.zeros((3, 2), dtype=half))
        for g in grads:
            g = jnp.asarray(g, dtype=half)
            expected, wide_state = wide.update(g.astype(jnp.float32), states[0])
            actual, narrow_state = narrow.update(g, states[1])
            states = wide_state, narrow_state
            np.testing.assert_allclose(
                np.asarray(actual, dtype=np.float32), expected, rtol=0.02, atol=1e-7, err_msg=name
            )


def test_nothing_to_train_is_no_error():
    for name, constructor in optimizers.named().items():
        required = {p.name: 0.1 for p in inspect.signature(constructor).parameters.values() if p.default is p.empty}
        optimizer = constructor(**required)
        assert optimizer.update({}, optimizer.init({}), {})[0] == {}, name


# Adafactor's factors, which a vector does not show.

FACTORED_CASES = {
    "matrix, paper": (optimizers.adafactor(stairs), adafactor.adafactor(STAIRS), (2, 3)),
    "matrix, torch": (
        optimizers.adafactor(stairs, weight_decay=0.1, convention="torch"),
        adafactor.adafactor(STAIRS, eps1=DOUBLE, as_torch=True, weight_decay=0.1),
        (3, 2),
    ),
    "matrix, optax, with momentum and decay": (
        optimizers.adafactor(stairs, momentum=0.9, weight_decay=0.01, min_dim_size_to_factor=2, convention="optax"),
        adafactor.adafactor(STAIRS, relative=False, momentum=0.9, weight_decay=0.01),
        (2, 3),
    ),
    "the largest axes, optax": (
        optimizers.adafactor(stairs, min_dim_size_to_factor=2, convention="optax"),
        adafactor.adafactor(STAIRS, relative=False, axes=(2, 0)),
        (4, 1, 3),
    ),
    "the last axes, paper": (optimizers.adafactor(stairs), adafactor.adafactor(STAIRS), (4, 1, 3)),
    "not factored, optax": (
        optimizers.adafactor(stairs, convention="optax"),
        adafactor.adafactor(STAIRS, relative=False, axes=None),
        (2, 3),
    ),
    "not factored, paper": (
        optimizers.adafactor(stairs, factored=False),
        adafactor.adafactor(STAIRS, axes=None),
        (2, 3),
    ),
    "a number without a rate, optax": (
        optimizers.adafactor(convention="optax"),
        adafactor.adafactor(None, relative=False),
        (),
    ),
}


@pytest.mark.parametrize("name", FACTORED_CASES)
def test_adafactor_keeps_rows_and_columns_as_its_reference_does(name):
    optimizer, reference, shape = FACTORED_CASES[name]
    grads, start = gradients.shaped_stream(shape, 3), gradients.shaped_start(shape, 3)
    params, _, state = run_transform(optimizer, grads, start)
    expected = run(reference, grads, start)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    second = states_of(state, "FactoredRmsState")[0].second
    if "row" in expected:
        assert_agree(second.row, expected["row"], name="row", cumulative=True)
        assert_agree(second.column, expected["column"], name="column", cumulative=True)
    else:
        assert_agree(second, expected["v"], name="v", cumulative=True)


def test_adafactor_with_optaxs_defaults_is_optaxs_on_leaves_of_many_shapes():
    shapes = {"large": (3, 128, 130), "square": (129, 129), "small": (127, 140), "bias": (130,), "one": ()}
    generator = np.random.default_rng(0)
    grads = {name: generator.normal(size=(6, *shape)) for name, shape in shapes.items()}
    start = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    mask = {name: len(shape) > 1 for name, shape in shapes.items()}
    ours = optimizers.adafactor(stairs, weight_decay=0.01, mask=mask, convention="optax")
    theirs = optax.adafactor(stairs, weight_decay_rate=0.01, weight_decay_mask=mask)
    ours, theirs = (run_transform(optimizer, grads, start)[0] for optimizer in (ours, theirs))
    for name in shapes:
        assert_agree(ours[name], theirs[name], name=name, rtol=1e-6, cumulative=True)
