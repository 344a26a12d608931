"""Every named optimizer under every convention against its reference in NumPy, at every step and state."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import optimizers, transforms
from tests.oracles import gradients
from tests.oracles.closeness import assert_agree
from tests.oracles.references import adafactor, adagrad_family, adam_family, averaging, descent, lion_adan, resilient
from tests.oracles.references.reference import run, run_on
from tests.oracles.running import run_on_function, run_transform, states_of
from tests.oracles.running import traced_staircase as stairs

GRADS, START = gradients.stream(seed=2), gradients.start(seed=2)
STAIRS = gradients.staircase
DOUBLE = float(np.finfo(np.float64).eps)


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
# These are not fed gradients alone, or have Optax's own code as reference: they have tests of their own.
ELSEWHERE = {("nesterov_lookahead", None), ("adan", "optax"), ("newton", None), ("saddle_free_newton", None)}


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
