"""One trial: who gets which hyperparameter, what it records, and which examples it looks at."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.sweeps._execution._trials import _windowed
from tests.sweeps import small
from tests.sweeps.small import trials

SEEDS = jax.random.split(jax.random.key(0), 2)


def traced(made, values, **static):
    """Return the jaxpr of a lane, and what its inputs are by path."""
    shared = made.shared(static, values, SEEDS)
    one = {"values": {name: np.float32(value) for name, value in values.items()}, "seed": np.int32(0)}
    if made.start_varies():
        one["start"] = np.zeros(3, np.float32)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path((one, shared))]
    return jax.make_jaxpr(made.lane(static))(one, shared).jaxpr, paths


def readers(jaxpr, paths, part):
    """Return the primitives of the equations that read some inputs."""
    inputs = {var for var, path in zip(jaxpr.invars, paths, strict=True) if f"['{part}']" in path}
    assert inputs
    return [equation.primitive.name for equation in jaxpr.eqns if inputs & set(map(_variable, equation.invars))]


def _variable(atom):
    return None if hasattr(atom, "val") else atom


def test_each_hyperparameter_goes_to_whoever_has_an_argument_of_its_name(regression):
    seen = {}

    def make_optimizer(learning_rate, decay=0.0):
        seen["optimizer"] = {"learning_rate": learning_rate, "decay": decay}
        return optax.sgd(learning_rate)

    def make_problem(scale, decay):
        seen["problem"] = {"scale": scale, "decay": decay}
        return regression

    made = trials(make_optimizer, make_problem, 3)
    config = {"learning_rate": 0.1, "decay": 0.5, "scale": 2.0, "batch_size": 4}
    made.check_names(config)
    made.optimizer(config)
    made.problem_of(config)
    assert seen == {
        "optimizer": {"learning_rate": 0.1, "decay": 0.5},
        "problem": {"scale": 2.0, "decay": 0.5},
    }


def test_paths_of_a_transform_are_replaced_in_it(regression):
    made = trials(optimizers.adam(0.1), regression, 3)
    made.check_names(["learning_rate", "b2", "batch_size"])
    assert made.optimizer({"b2": 0.5, "batch_size": 4}).hyperparams["b2"] == 0.5
    chain = transforms.chain(transforms.heavy_ball(0.9), transforms.scale_by_learning_rate(0.1))
    made = trials(chain, regression, 3)
    made.check_names(["heavy_ball.decay", "decay", "*.decay"])
    assert made.optimizer({"decay": 0.5}).hyperparams == chain.replace({"heavy_ball.decay": 0.5}).hyperparams


def test_a_function_of_any_keyword_takes_all_but_what_is_meant_for_training(regression):
    made = trials(lambda **given: optax.sgd(given["rate"]), regression, 3)
    made.check_names(["rate", "anything", "order"])
    with pytest.raises(KeyError, match="rate"):
        made.optimizer({"order": "shuffle_once"})  # which went to `train`


@pytest.mark.parametrize(
    ("maker", "problem", "offers"),
    [
        (optax.sgd, small.regression(), ["learning_rate, momentum, nesterov", "the problem accepts none"]),
        (optimizers.adam(0.1), small.regression(), ["learning_rate, b1, b2, eps"]),
        (lambda a, /: optax.sgd(a), lambda width: None, ["the optimizer accepts none", "the problem accepts width"]),
    ],
)
def test_a_name_that_nothing_takes_is_refused_with_all_that_there_are(maker, problem, offers):
    made = trials(maker, problem, 3)
    with pytest.raises(ValueError, match="Unknown hyperparameter 'rate'") as error:
        made.check_names(["batch_size", "rate"])
    assert all(offer in str(error.value) for offer in [*offers, "train accepts batch_size, order"])


def test_what_makes_no_problem_is_refused():
    with pytest.raises(TypeError, match="must return a Problem; received 2"):
        trials(optax.sgd, lambda width: width, 3).problem_of({"width": 2})


def test_examples_that_depend_on_a_traced_hyperparameter_are_refused(regression):
    def make_problem(noise):
        return regression.replace(validation=(small.VALIDATION[0], small.VALIDATION[1] + noise))

    made = trials(optax.sgd, make_problem, 3)
    with pytest.raises(TypeError, match=r"validation of problem 'regression' depend on.*static=True"):
        traced(made, {"learning_rate": 0.1, "noise": 0.5})
    traced(made, {"learning_rate": 0.1}, noise=0.5)  # as a static one it may


def test_a_lane_is_one_run_of_train_recorded(regression):
    settings = {"num_steps": 7, "evaluate_every": 3}
    made = trials(optimizers.sgd, regression, 7, evaluate_every=3, report_on=("test", "train"))
    shared = made.shared({}, {"learning_rate": 0.2}, SEEDS)
    one = {"values": {"learning_rate": np.float32(0.2)}, "seed": np.int32(1)}
    record = jax.jit(made.lane({}))(one, shared)

    run = small.alone(regression, optimizers.sgd(0.2), jax.random.split(SEEDS[1]), **settings)
    np.testing.assert_array_equal(made.steps(), run.evaluations["step"])
    for name in ("validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(record[name], run.evaluations[name], rtol=1e-6)
    for name, examples in (("test", small.TEST), ("train", small.TRAIN)):
        np.testing.assert_allclose(record[f"{name}_loss"], regression.loss(run.params, examples), rtol=1e-6)
    losses = np.asarray(run.losses)
    windows = [losses[0], losses[:3].mean(), losses[3:6].mean(), losses[6]]
    np.testing.assert_allclose(record["batch_loss"], windows, rtol=1e-6)
    assert (int(record["diverged_at"]), bool(record["stalled"]), int(record["num_steps"])) == (-1, False, 7)
    assert record.keys() == {
        "validation_loss", "validation_accuracy", "test_loss", "test_accuracy", "train_loss", "train_accuracy",
        "batch_loss", "diverged_at", "stalled", "num_steps",
    }  # fmt: skip


@pytest.mark.parametrize(("num_steps", "every"), [(0, 1), (1, 1), (1, 5), (5, 5), (6, 5), (12, 5), (10, 1)])
def test_windows_hold_every_step_once(num_steps, every):
    steps = trials(optax.sgd, small.quadratic(), num_steps, evaluate_every=every).steps()
    assert steps.tolist() == [*range(0, num_steps, every), num_steps]
    losses = np.arange(num_steps, dtype=np.float32) ** 2
    found = np.asarray(_windowed(jnp.asarray(losses), steps))
    assert found.shape == steps.shape
    if num_steps == 0:
        assert np.isnan(found).all()
        return
    assert found[0] == losses[0]
    by_hand = [losses[first:last].mean() for first, last in itertools.pairwise(steps)]
    np.testing.assert_allclose(found[1:], by_hand, rtol=1e-6)


def test_without_a_cadence_a_trial_is_evaluated_at_both_ends():
    assert trials(optax.sgd, small.quadratic(), 9).steps().tolist() == [0, 9]
    assert trials(optax.sgd, small.quadratic(), 0).steps().tolist() == [0]


def test_a_trial_says_what_it_evaluates_and_which_values_are_better(regression):
    found = trials(optax.sgd, regression, 3, evaluate_on=["train", "test"]).evaluated(regression)
    assert found == {
        "train_loss": "min", "train_accuracy": "max", "test_loss": "min", "test_accuracy": "max", "batch_loss": "min"
    }  # fmt: skip
    assert list(trials(optax.sgd, regression, 3).evaluated(regression)) == [
        "validation_loss", "validation_accuracy", "batch_loss"
    ]  # fmt: skip
    assert list(trials(optax.sgd, small.quadratic(), 3).evaluated(small.quadratic())) == ["train_loss", "batch_loss"]


def test_test_examples_do_not_occur_in_the_program_that_tunes(regression):
    made = trials(optimizers.sgd, regression, 7, evaluate_every=3)
    jaxpr, paths = traced(made, {"learning_rate": 0.1})
    assert readers(jaxpr, paths, "test") == []
    assert readers(jaxpr, paths, "validation")  # the control: these do
    assert readers(jaxpr, paths, "data")


def test_the_program_that_reports_looks_at_test_examples_once_and_not_in_its_loop(regression):
    made = trials(optimizers.sgd, regression, 7, evaluate_every=3, report_on=("test",))
    jaxpr, paths = traced(made, {"learning_rate": 0.1})
    assert len(readers(jaxpr, paths, "test")) == 1
    names = [equation.primitive.name for equation in jaxpr.eqns]
    loop = max(i for i, equation in enumerate(jaxpr.eqns) if "while" in str(equation) or "scan[" in str(equation))
    inputs = {var for var, path in zip(jaxpr.invars, paths, strict=True) if "['test']" in path}
    reads = [i for i, eqn in enumerate(jaxpr.eqns) if inputs & set(map(_variable, eqn.invars))]
    assert reads[0] > loop, names
