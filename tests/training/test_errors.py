"""Every mistake at the door gets a message with what was expected, what came, and what to do."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxopt_study import transforms
from jaxopt_study.problems import Problem
from jaxopt_study.training import (
    Curriculum,
    CurvatureProbe,
    EarlyStopping,
    LinearPace,
    Probe,
    evaluate,
    linear_curriculum,
    train,
)
from jaxopt_study.training._validate import check_arguments

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"num_steps": -1}, ValueError, "num_steps to be an integer ≥ 0; received -1"),
        ({"batch_size": 0}, ValueError, "batch_size to be an integer ≥ 1; received 0"),
        ({"batch_size": 24}, ValueError, "has 23 training examples, fewer than batch_size=24. Use batch_size=None"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every to be an integer ≥ 1"),
        ({"record_params_every": 0}, ValueError, "record_params_every to be an integer ≥ 1"),
        (
            {"order": Curriculum(jnp.zeros(23), lambda t: 1.0)},
            ValueError,
            "needs a batch_size; received batch_size=None",
        ),
        (
            {"order": Curriculum(jnp.zeros(5), lambda t: 1.0), "batch_size": 2},
            ValueError,
            r"one difficulty for each of the 23 .* received shape \(5,\)",
        ),
        ({"evaluate_every": 1, "evaluate_on": "test"}, ValueError, r"has no test examples. .*replace\(test=…\)"),
        ({"evaluate_every": 1, "evaluate_on": "tests"}, ValueError, "'train', 'validation', 'test'; received 'tests'"),
        ({"early_stopping": EarlyStopping("loss")}, ValueError, "'loss' is not among the evaluated metrics: 'valid"),
        ({"params": {"weight": jnp.zeros((2, 3), int), "bias": jnp.zeros(())}}, TypeError, r"\['weight'\].*is int32"),
        ({"params": {}}, TypeError, "have no numbers to train"),
    ],
)
def test_train_refuses(regression, arguments, kind, message):
    with pytest.raises(kind, match=message):
        train(regression, optax.sgd(0.1), **{"num_steps": 3, "key": KEY} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 1.5}, "num_steps to be an integer ≥ 0; received 1.5"),
        ({"num_steps": 3.0}, "received 3.0. Give 3."),
        ({"num_steps": True}, "received True"),
        ({"num_steps": "16"}, "received '16'"),
        ({"num_steps": None}, "received None"),
        ({"batch_size": True}, "batch_size to be an integer ≥ 1; received True"),
        ({"batch_size": "16"}, "batch_size to be an integer ≥ 1; received '16'"),
        ({"batch_size": jnp.nan}, "batch_size to be an integer ≥ 1; received nan"),
        ({"params": "here"}, "Parameters must be arrays; received 'here'"),
    ],
)
def test_values_of_another_kind_are_refused_without_a_type_checker(planned, regression, arguments, message):
    with pytest.raises(TypeError, match=message):
        planned(regression, optax.sgd(0.1), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 2**40}, "from 0 to 2147483647; received 1099511627776"),
        ({"evaluate_on": "nowhere"}, "one of 'train', 'validation', 'test'; received 'nowhere'"),
        ({"order": "random"}, "'reshuffle', 'shuffle_once', 'with_replacement', a Curriculum, or an object with"),
        ({"layout": "flatt"}, "layout to be one of 'auto', 'tree', 'flat'; received 'flatt'"),
        ({"loop": "scan"}, "loop to be one of 'auto', 'compiled', 'host'; received 'scan'"),
    ],
)
def test_values_out_of_range_are_refused_without_a_type_checker(planned, regression, arguments, message):
    with pytest.raises(ValueError, match=message):
        planned(regression, optax.sgd(0.1), **arguments)


def test_train_refuses_what_is_no_optimizer(planned, regression):
    with pytest.raises(TypeError, match="If it is a constructor, call it"):
        planned(regression, optax.adam)


def test_train_refuses_a_loss_that_is_no_scalar(regression):
    vector = regression.replace(loss=lambda p, batch: batch[1] - p["bias"])
    with pytest.raises(TypeError, match=r"floating scalar.*received float32\[23\].*jnp.mean"):
        train(vector, optax.sgd(0.1), num_steps=3, key=KEY)


def test_early_stopping_needs_validation_examples_and_epochs(regression, bowl):
    with pytest.raises(ValueError, match=r"needs validation examples, but problem 'regression' has none"):
        train(regression.replace(validation=None), optax.sgd(0.1), num_steps=3, key=KEY, early_stopping=EarlyStopping())
    with pytest.raises(ValueError, match="needs evaluate_every for problem 'bowl', which has no data"):
        train(bowl, optax.sgd(0.1), num_steps=3, key=KEY, early_stopping=EarlyStopping("train_loss"))


def test_a_problem_without_data_has_no_batches(bowl):
    with pytest.raises(ValueError, match="'bowl' has no data for batches; received batch_size=5"):
        train(bowl, optax.sgd(0.1), num_steps=3, key=KEY, batch_size=5)


def test_the_host_cannot_drive_inside_a_program(bowl):
    with pytest.raises(ValueError, match="loop='host' cannot run inside jit or vmap"):
        jax.jit(lambda key: train(bowl, optax.sgd(0.1), num_steps=3, key=key, loop="host").params)(KEY)


def test_evaluate_refuses(regression):
    params = regression.init(KEY)
    with pytest.raises(ValueError, match="has no test examples"):
        evaluate(regression, params, on="test")
    with pytest.raises(ValueError, match="batch_size to be an integer ≥ 1; received 0"):
        evaluate(regression, params, batch_size=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(patience=-1), "patience to be an integer ≥ 1; received -1"),
        (lambda: EarlyStopping(min_delta=jnp.nan), "min_delta to be a finite real number ≥ 0; received nan"),
        (lambda: CurvatureProbe(tol=-1.0), "tol to be a real number in"),
        (lambda: CurvatureProbe(tol=jnp.inf), "tol to be a real number in"),
        (lambda: CurvatureProbe(batch_size=0), "batch_size to be an integer ≥ 1; received 0"),
        (lambda: CurvatureProbe(seed=-1), "seed to be an integer"),
        (lambda: LinearPace(jnp.nan, 3), "start to be a real number in"),
        (lambda: linear_curriculum([1.0, jnp.nan], start=0.5, num_steps=3), "difficulty to be finite"),
        (lambda: EarlyStopping(patience=0), "patience to be an integer ≥ 1"),
        (lambda: EarlyStopping(mode="least"), "mode to be one of 'min', 'max'"),
        (lambda: EarlyStopping(min_delta=-1.0), "min_delta to be a finite real number ≥ 0"),
        (lambda: Probe(lambda *_: 0.0, every=0), "every to be an integer ≥ 1"),
    ],
)
def test_requests_refuse_impossible_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_implementation_train_and_others_are_refused(regression, impl):
    settings = {"num_steps": 2, "batch_size": 5}
    key = jax.random.key(0, impl=impl)
    assert bool(jnp.isfinite(train(regression, optax.sgd(0.01), key=key, **settings).losses).all())
    with pytest.raises(ValueError, match=r"key to be one key; received an array of keys of shape \(3,\)"):
        train(regression, optax.sgd(0.01), key=jax.random.split(key, 3), **settings)


@pytest.mark.parametrize("key", [None, 0, "seed"])
def test_a_missing_key_gets_the_keys_error(key):
    with pytest.raises(TypeError, match=r"key to be a random key of JAX.*Give jax.random.key\(0\)"):
        check_arguments(Problem("p", init=jnp.zeros, loss=print), key, None)


def test_parameters_of_another_shape_are_not_broadcast(regression):
    start = regression.init(KEY)
    with pytest.raises(ValueError, match=r"params\['bias'\] to have the shape of .* \(\); received \(1,\)"):
        train(regression, optax.sgd(0.1), num_steps=1, key=KEY, params=start | {"bias": jnp.zeros(1)})
    with pytest.raises(ValueError, match="params with the structure"):
        train(regression, optax.sgd(0.1), num_steps=1, key=KEY, params=start | {"more": jnp.zeros(1)})
    with pytest.raises(ValueError, match="needs finite initial parameters"):
        train(regression, optax.sgd(0.1), num_steps=1, key=KEY, params=start | {"bias": jnp.array(jnp.nan)})
    with pytest.raises(ValueError, match="parameters of the shapes of problem 'regression'"):
        evaluate(regression, start | {"bias": jnp.zeros(7)})


def test_an_error_in_the_users_loss_reaches_the_user(regression):
    def loss(params, batch):
        raise RuntimeError("my own mistake")

    with pytest.raises(RuntimeError, match="my own mistake"):
        train(regression.replace(loss=loss), optax.sgd(0.1), num_steps=3, key=KEY)


def test_an_optimizer_whose_state_changes_its_structure_is_named(bowl):
    growing = optax.GradientTransformation(lambda p: (), lambda u, s, p=None: (u, (*s, jnp.zeros(()))))
    with pytest.raises(TypeError, match="a state with the structure"):
        train(bowl, growing, num_steps=3, key=KEY)


def test_problems_are_found_before_anything_runs(regression):
    calls = []

    def init(key):
        calls.append(key)
        return regression.init(key)

    noisy = regression.replace(init=init)
    with pytest.raises(ValueError, match="fewer than"):
        train(noisy, optax.sgd(0.1), num_steps=3, key=KEY, batch_size=99)
    assert not calls


def test_any_pytree_is_a_problem():
    problem = Problem(
        "tuple", init=lambda key: (jnp.ones(2), [jnp.ones(())]), loss=lambda p, _: jnp.sum(p[0] ** 2) + p[1][0] ** 2
    )
    run = train(problem, optax.sgd(0.5), num_steps=1, key=KEY)
    assert jax.tree.structure(run.params) == jax.tree.structure((0, [0]))
    assert float(run.params[1][0]) == 0.0


def test_a_seed_in_place_of_a_key_is_refused():
    bowl = Problem("bowl", init=lambda key: jnp.ones(2), loss=lambda p, _: jnp.sum(p**2))
    with pytest.raises(TypeError, match=r"key to be a random key of JAX; received .*Give jax.random.key"):
        train(bowl, optax.sgd(0.1), num_steps=1, key=jnp.int32(0))


def test_an_update_that_raises_is_named(regression):
    private = optax.contrib.differentially_private_aggregate(1.0, 0.1, 0)
    message = (
        "the update of differentially_private_aggregate raises IndexError: .* per-example gradients are not available"
    )
    for optimizer in (private, transforms.chain(private, optax.sgd(0.1)), optax.chain(private, optax.sgd(0.1))):
        with pytest.raises(ValueError, match=message):
            train(regression, optimizer, num_steps=1, key=KEY)
    with pytest.raises(ValueError, match="raises ValueError: obj_fn must be provided"):
        train(regression, optax.contrib.sophia(1e-3), num_steps=1, key=KEY)
