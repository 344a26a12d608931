"""The optax convention of every optimizer against Optax."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from tests.oracles import gradients
from tests.oracles.closeness import assert_agree, disagreement
from tests.oracles.running import run_transform
from tests.oracles.running import traced_staircase as stairs

GRADS, START = gradients.stream(seed=2), gradients.start(seed=2)


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
