"""States and arguments as users have them: from Flax, from a checkpoint, of another optimizer, of the wrong kind."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState

from jaxopt_study.dynamics import (
    account_step,
    preconditioned_sharpness,
    stability,
    stability_limit,
    stability_threshold,
    state_roles,
)

TX = optax.adam(0.1)
DATA = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
PARAMS = jnp.array([1.0, -1.0, 0.5])
STATE = TX.init(PARAMS)


def bowl(params, _):
    return 0.5 * jnp.sum(jnp.array([3.0, 2.0, 0.5]) * params**2)


def test_states_of_nnx_are_unwrapped():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    graph, params = nnx.split(model, nnx.Param)
    loss = lambda p, batch: jnp.mean(nnx.merge(graph, p)(batch) ** 2)
    plain = stability(TX, TX.init(nnx.as_pure(params)), loss, nnx.as_pure(params), DATA).radius
    for state in (optimizer.opt_state, nnx.as_pure(optimizer.opt_state), nnx.state(optimizer)):
        assert stability(TX, state, loss, params, DATA).radius == pytest.approx(plain, rel=1e-6)
        assert stability_threshold(TX, state) == pytest.approx(stability_threshold(TX, STATE), rel=1e-9)
    with pytest.raises(TypeError, match="received its container, of type Optimizer"):
        stability(TX, optimizer, loss, params, DATA)


def test_a_state_as_a_dictionary_is_the_same_state():
    grads = jnp.array([1.0, 2.0, 3.0])
    _, state = TX.update(grads, STATE, PARAMS)
    expected = stability(TX, state, bowl, PARAMS).radius
    saved = serialization.to_state_dict(state)
    assert stability(TX, saved, bowl, PARAMS).radius == expected
    assert stability_threshold(TX, saved) == stability_threshold(TX, state)
    whole = TrainState.create(apply_fn=None, params=PARAMS, tx=TX)
    assert stability(whole.tx, whole.opt_state, bowl, whole.params).kind == "stable"
    with pytest.raises(TypeError, match="pass the optimizer's state itself"):
        stability(TX, whole, bowl, PARAMS)
    with pytest.raises(TypeError, match=r"Give its tx, and its opt_state"):
        stability_threshold(whole)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (optax.sgd(0.1, 0.9).init(PARAMS), "was not produced by this optimizer.*missing 0.count"),
        (TX.init(jnp.ones(4)), "was not produced by this optimizer.*shapes"),
        (None, "was not produced by this optimizer"),
        ((), "was not produced by this optimizer"),
        ("adam", "was not produced by this optimizer"),
    ],
    ids=["another", "shape", "none", "empty", "text"],
)
def test_wrong_states_say_what_is_missing(state, message):
    with pytest.raises(ValueError, match=message):
        stability(TX, state, bowl, PARAMS)


def call_stability(**how):
    return inspect.unwrap(stability)(TX, STATE, bowl, PARAMS, **how)  # past the tests' type checker


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("k", [0, -1, 1.5, "a", None, True]),
        ("tol", [-1, 0, 2, np.nan, np.inf, "x", None, 1j]),
        ("basis_size", [0, -3, 2.5, "x"]),
        ("max_matvecs", [0, -1, 2.5, "x", None]),
        ("num_steps", [0, -1, 1.5, "x"]),
        ("batch_size", [0, -1, 1.5, "x", 3]),
        ("freeze", ["x", None, 3]),
        ("key", [3, "x", jax.random.split(jax.random.key(0), 2), jnp.ones(2)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_absurd_arguments_are_refused_by_name(argument, values):
    for value in values:
        with pytest.raises((TypeError, ValueError), match=argument):
            call_stability(**{argument: value})


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg", "threefry2x32"])
def test_keys_of_every_implementation_are_taken(implementation):
    assert call_stability(key=jax.random.key(0, impl=implementation)).kind == "stable"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (None, "stability needs params"),
        ("x", "stability needs params"),
        (jnp.arange(3), "floating-point"),
        (PARAMS + 1j, "real"),
        (PARAMS.at[0].set(jnp.nan), "finite"),
        (jnp.zeros(0), "at least one number"),
    ],
    ids=["none", "text", "integers", "complex", "nan", "nothing"],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises((TypeError, ValueError), match=message):
        stability(TX, STATE, bowl, params)


def test_parameters_of_size_zero_beside_others_change_nothing():
    params = {"a": jnp.zeros((0, 2)), "b": PARAMS}
    found = stability(TX, TX.init(params), lambda p, _: bowl(p["b"], None), params)
    assert found.radius == pytest.approx(stability(TX, STATE, bowl, PARAMS).radius, rel=1e-5)


@pytest.mark.parametrize("tx", [TX, optax.sgd(0.1, momentum=0.9)], ids=["adam", "momentum"])
def test_the_state_of_parameters_of_size_zero_has_the_roles_of_others(tx):
    empty = {"a": jnp.zeros((0, 2)), "b": PARAMS}
    assert state_roles(tx, empty) == state_roles(tx, {"a": jnp.zeros((1, 2)), "b": PARAMS})
    found = preconditioned_sharpness(tx, tx.init(empty), lambda p, _: bowl(p["b"], None), empty)
    expected = preconditioned_sharpness(tx, tx.init(PARAMS), bowl, PARAMS)
    assert found.threshold == pytest.approx(expected.threshold, rel=1e-6)
    assert float(found.bracket.lower) == pytest.approx(float(expected.bracket.lower), rel=1e-4)


def test_optimizers_that_cannot_step_are_refused_with_their_error():
    with pytest.raises(TypeError, match="complex learning rate"):
        stability(optax.sgd(1j), optax.sgd(1j).init(PARAMS), bowl, PARAMS)
    with pytest.raises(TypeError, match=r"Call it, as in adam\(1e-3\)"):
        stability_limit(optax.adam)

    def fails(updates, state, params=None):
        raise KeyError("nothing")

    broken = optax.GradientTransformation(lambda params: (), fails)
    for function in (stability_threshold, stability_limit):
        with pytest.raises(ValueError, match=rf"{function.__name__}: the optimizer cannot take a step.*KeyError"):
            function(broken)
    with pytest.raises(ValueError, match=r"state_roles: the optimizer cannot take a step.*KeyError"):
        state_roles(broken, PARAMS)


def test_updates_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="updates to be finite"):
        account_step(bowl, PARAMS, PARAMS * jnp.nan)
