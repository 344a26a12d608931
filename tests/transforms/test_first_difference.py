"""explain_difference names the first step, the atom and the reason; the answers here are known in advance."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from jaxopt_study.optimizers import explain_difference
from jaxopt_study.transforms import (
    add_gradient_noise,
    bias_correction,
    chain,
    clip_by_global_norm,
    clip_by_value,
    divide_by_root,
    ema,
    from_optax,
    heavy_ball,
    identity,
    merge,
    nesterov,
    running_max,
    tap,
    total,
)


def constant(value, steps=10):
    return jnp.full((steps, 1), value)


@pytest.mark.parametrize(
    "tx",
    [optimizers.adamw(0.1), optimizers.adan(), optimizers.rmsprop(0.1, momentum=0.9)],
    ids=["adamw", "adan", "rms"],
)
def test_everything_equals_its_expansion(tx):
    found = explain_difference(tx, tx.expand(), num_steps=5)
    assert found.equal
    assert (found.step, found.atom, found.gap) == (None, None, 0.0)
    assert str(found) == "The updates agree in all 5 steps. The expressions are equal."


@pytest.mark.parametrize(
    ("a", "b", "step", "atom", "reason"),
    [
        (ema(0.9), ema(0.8), 1, "ema", "decay is 0.9 in the first, 0.8 in the second"),
        (heavy_ball(0.9), heavy_ball(0.8), 2, "heavy_ball", "decay is 0.9"),  # no past at the first step
        (chain(identity(), ema(0.9), ema(0.5)), chain(identity(), ema(0.9), ema(0.4)), 1, "ema[1]", "decay is 0.5"),
        (
            merge(divide_by_root(), identity(), total()),
            merge(divide_by_root(), identity(), total(initial=1.0)),
            1,
            "total",
            "initial is 0.0 in the first, 1.0 in the second",
        ),
        (
            merge(divide_by_root(eps=1e-8), identity(), total()),
            merge(divide_by_root(eps=1e-3), identity(), total()),
            1,
            "fn",
            "eps is 1e-08 in the first, 0.001 in the second",
        ),
        (chain(ema(0.9), bias_correction(0.9)), chain(ema(0.9)), 1, "bias_correction", "bias_correction"),
        (chain(clip_by_value(1.0), ema(0.9)), chain(ema(0.9)), 1, "clip_by_value", "clip_by_value"),
    ],
    ids=["decay", "no past", "second of two", "start", "epsilon", "missing", "clipping"],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_names_step_atom_and_reason(a, b, step, atom, reason, swapped):
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(10, 4)) * 3)
    found = explain_difference(b, a, grads=grads) if swapped else explain_difference(a, b, grads=grads)
    assert not found.equal
    assert found.step == step
    assert found.atom.endswith(atom)
    assert swapped or reason in found.reason
    assert found.gap > 0
    assert f"The updates first differ at step {step}, in {found.atom}: " in str(found)


def test_finds_the_step_at_which_a_difference_begins_to_matter():
    grads = jnp.asarray([1.0, 1.0, 1.0, 5.0, 1.0])[:, None]
    found = explain_difference(chain(clip_by_value(2.0), ema(0.9)), chain(clip_by_value(3.0), ema(0.9)), grads=grads)
    assert (found.step, found.atom) == (4, "clip_by_value")
    never = explain_difference(clip_by_value(2.0), clip_by_value(3.0), grads=grads[:3])
    assert never.equal
    assert "max_value is 2.0 in the first, 3.0 in the second" in never.reason  # said, though it made no difference


def test_adam_of_the_book_differs_in_what_epsilon_is_added_to():
    found = explain_difference(optimizers.adam(), optimizers.adam(convention="saito2016"))
    assert (found.equal, found.step) == (False, 1)
    assert "bias_correction" in found.reason  # ε stands beside √v before the correction
    without = explain_difference(optimizers.adam(eps=0.0), optimizers.adam(eps=0.0, convention="saito2016"))
    assert without.equal  # without ε the two are one method
    assert without.gap < 1e-12


def test_orders_of_momentum_part_when_the_learning_rate_changes():
    schedule = from_optax(optax.piecewise_constant_schedule)(0.1, {4: 0.5})
    paper, torch = (optimizers.momentum(schedule, convention=c) for c in ("paper", "torch"))
    assert explain_difference(paper, torch, grads=constant(1.0, 4)).equal
    found = explain_difference(paper, torch, grads=constant(1.0, 10))
    assert (found.equal, found.step) == (False, 5)
    constant_rate = [optimizers.momentum(0.1, convention=c) for c in ("paper", "torch")]
    assert explain_difference(*constant_rate).equal


def test_places_of_the_maximum_in_amsgrad():
    found = explain_difference(optimizers.amsgrad(convention="torch"), optimizers.amsgrad(convention="optax"))
    assert not found.equal
    assert "running_max" in found.reason
    assert "bias_correction" in found.reason
    rising = jnp.arange(1.0, 8.0)[:, None]
    assert explain_difference(running_max(), identity(), grads=rising).equal  # a maximum of what rises


def test_agrees_with_a_run_by_hand():
    a, b = optimizers.nesterov(0.1, 0.9), optimizers.momentum(0.1, 0.9)
    grads = jnp.asarray(np.random.default_rng(4).normal(size=(6, 3)))
    found = explain_difference(a, b, grads=grads)
    with jax.enable_x64(True):
        first = [tx.update(jnp.asarray(grads[0], float), tx.init(jnp.ones(3)))[0] for tx in (a, b)]
    x, y = map(np.asarray, first)
    assert found.step == 1
    assert found.gap == pytest.approx(np.abs(x - y).max() / max(np.abs(x).max(), np.abs(y).max()), rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (optimizers.adam(0.1), optax.adam(0.1)),
        (optimizers.momentum(0.1, convention="optax"), from_optax(optax.sgd)(0.1, momentum=0.9)),
        (optax.sgd(0.1), optimizers.sgd(0.1)),
        (chain(nesterov(0.9)), optax.trace(0.9, nesterov=True)),
        (chain(tap("here"), optimizers.sgd(0.1)), optimizers.sgd(0.1)),
    ],
    ids=["adam", "wrapped sgd", "bare sgd", "trace", "tap"],
)
def test_compares_with_transformations_of_other_makes(a, b):
    found = explain_difference(a, b, num_steps=20, tolerance=1e-6)
    assert found.equal
    assert found.reason.startswith("The expressions differ")


def test_parameters_may_be_any_pytree():
    params = {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}
    found = explain_difference(
        optimizers.adamw(weight_decay=0.1), optimizers.adamw(weight_decay=0.2), params=params, num_steps=7
    )
    assert (found.equal, found.num_steps) == (False, 7)
    assert "weight_decay is 0.1 in the first, 0.2 in the second" in found.reason


def test_nan_on_one_side_is_a_difference():
    grads = jnp.zeros((3, 2))
    found = explain_difference(clip_by_global_norm(0.0), optax.clip_by_global_norm(0.0), grads=grads)
    assert (found.equal, found.step) == (False, 1)
    assert found.gap == np.inf


def test_noise_with_other_keys_is_a_difference():
    a, b = (add_gradient_noise(0.1, 0.5, jax.random.key(seed)) for seed in (0, 1))
    assert explain_difference(a, a, num_steps=3).equal
    found = explain_difference(a, b, num_steps=3)
    assert (found.step, found.atom) == (1, "add_gradient_noise")
    assert "key" in found.reason


def test_takes_transformations_only():
    with pytest.raises(TypeError, match=r"the second argument must be a transformation|Type-check error"):
        explain_difference(ema(0.9), 0.1)
