"""Roles of state leaves, momentum or second moment, found by running the optimizer."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.dynamics import state_roles
from jaxopt_study.transforms import chain

PARAMS = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(3)}

# Ends of paths without the leaf's own, and their roles; what is not named is a clock.
EXPECTED = {
    "sgd": (optimizers.sgd(0.1), {}),
    "momentum": (optimizers.momentum(0.1), {"trace": "memory"}),
    "lookahead": (optimizers.nesterov_lookahead(0.1), {"velocity": "memory"}),
    "adagrad": (optimizers.adagrad(0.1), {"total": "statistic"}),
    "adam": (optimizers.adam(), {"[0][0].average": "memory", "branches[1][0].average": "statistic"}),
    "amsgrad": (
        optimizers.amsgrad(),
        {"branches[0].average": "memory", "[0].average": "statistic", "maximum": "statistic"},
    ),
    "centred": (
        optimizers.rmsprop(0.1, centered=True),
        {"branches[1].average": "statistic", "branches[2].average": "centre"},
    ),
    "nadam": (optimizers.nadam(), {"branches[0].average": "memory", "branches[1][0].average": "statistic"}),
    "noise": (
        chain(transforms.add_gradient_noise(0.3, 0.55, jax.random.key(1)), optax.adam(0.1)),
        {"mu": "memory", "nu": "statistic"},
    ),
    "clip": (
        chain(transforms.clip_by_value(0.5), transforms.clip_by_global_norm(1.0), optax.adam(0.1)),
        {"mu": "memory", "nu": "statistic"},
    ),
    "optax.adamw": (optax.inject_hyperparams(optax.adamw)(0.1), {"mu": "memory", "nu": "statistic"}),
    "optax.rmsprop": (
        optax.rmsprop(0.1, centered=True, momentum=0.9),
        {"mu": "centre", "nu": "statistic", "trace": "memory"},
    ),
    "optax.adan": (optax.adan(0.1), {".m": "memory", ".v": "memory", ".n": "statistic", ".g": "memory"}),
    "optax.schedule_free": (optax.contrib.schedule_free_adamw(0.1), {".z": "memory", "nu": "statistic"}),
    "optax.multi_steps": (
        optax.MultiSteps(optax.adam(0.1), 3),
        {"mu": "memory", "nu": "statistic", "acc_grads": "memory"},
    ),
    "multi_steps of 4": (  # as many as the steps after which roles used to be read
        optax.MultiSteps(optax.adam(0.1), 4),
        {"mu": "memory", "nu": "statistic", "acc_grads": "memory"},
    ),
    "multi_steps of 7": (
        optax.MultiSteps(optax.adam(0.1), 7),
        {"mu": "memory", "nu": "statistic", "acc_grads": "memory"},
    ),
    "optax.apply_every": (optax.chain(optax.apply_every(2), optax.sgd(0.1)), {"grad_acc": "memory"}),
    "optax.sam": (
        optax.contrib.sam(optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(0.1))),
        {"cache": "memory"},
    ),
}  # fmt: skip


SOME = ("lookahead", "adam", "optax.rmsprop", "noise", "multi_steps of 7", "optax.sam")


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED]
)
def test_roles(name):
    tx, expected = EXPECTED[name]
    seen = set()
    for path, role in state_roles(tx, PARAMS).items():
        ending = next((end for end in expected if path.removesuffix("['w']").removesuffix("['b']").endswith(end)), None)
        assert role == expected.get(ending, "clock"), path
        seen.add(ending)
    assert seen >= set(expected)


def test_a_period_too_long_to_compose_is_none_too_long_for_roles():
    roles = state_roles(optax.MultiSteps(optax.sgd(0.1, 0.9), 100), jnp.zeros(2))
    assert {path for path, role in roles.items() if role == "memory"} == {".acc_grads", ".inner_opt_state[0].trace"}


def test_a_counter_without_a_period_is_refused_with_what_can_be_done():
    growing = optax.MultiSteps(optax.sgd(0.1), lambda step: 2 + step // 8)
    with pytest.raises(
        ValueError, match=r"state_roles: .*\.mini_step.* no period can be detected.*\. Pass the inner transformation"
    ):
        state_roles(growing, jnp.zeros(2))


def test_a_leaf_without_numbers_has_the_roles_of_one_with_some():
    empty, some = ({"w": jnp.zeros(3), "none": jnp.zeros((size, 2))} for size in (0, 1))
    for tx in (optimizers.adam(), optimizers.momentum(0.1), optax.adam(0.1)):
        assert state_roles(tx, empty) == state_roles(tx, some)
