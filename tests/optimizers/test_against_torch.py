"""The torch convention against stored trajectories of PyTorch, and documented differences from them."""

import jax
import numpy as np
import pytest

from jaxopt_study import optimizers, transforms
from tests.oracles import torch_trajectories
from tests.oracles.closeness import assert_agree, disagreement
from tests.oracles.running import run_transform, states_of
from tests.oracles.running import traced_staircase as stairs

TORCH = torch_trajectories.load()
DOUBLE = float(np.finfo(np.float64).eps)


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
