"""Runs of the command line from several seeds at once: lanes equal to solo runs, programs shared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, problems, training, transforms
from jaxopt_study.cli._expressions import specification
from jaxopt_study.cli._multi_seed import MultiSeedRun
from jaxopt_study.transforms import chain


def keys(num_seeds, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(num_seeds))


@pytest.fixture(scope="module")
def runs():
    data = problems.datasets.digits(num_train=60, num_validation=40, num_test=40)
    problem = problems.networks.mlp_classifier(data, widths=(8,))
    return MultiSeedRun(problem, keys(3, seed=5), num_steps=12, batch_size=16, evaluate_every=5)


def test_a_lane_is_a_solo_run_from_the_same_start(runs):
    result = runs.train(optimizers.momentum(0.1))
    start = jax.tree.map(lambda leaf: leaf[1], runs.starts)
    solo = training.train(
        runs.problem, optimizers.momentum(0.1), num_steps=12, key=runs._keys[1], params=start,
        batch_size=16, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(result.trajectory.losses[1], solo.losses, rtol=2e-5)
    assert not np.allclose(result.trajectory.losses[0], result.trajectory.losses[1])


def test_every_optimizer_meets_the_same_first_loss_and_numbers_share_a_program(runs):
    first = runs.train(optimizers.momentum(0.1))
    second = runs.train(optimizers.momentum(0.01))
    assert second.compile_seconds == 0.0
    np.testing.assert_array_equal(first.trajectory.losses[:, 0], second.trajectory.losses[:, 0])
    assert not np.allclose(first.trajectory.losses[:, 5], second.trajectory.losses[:, 5])


def test_windows_average_the_losses_between_evaluations(runs):
    result = runs.train(optimizers.momentum(0.1))
    losses = np.asarray(result.trajectory.losses, dtype=float)
    expected = [losses[:, 0], losses[:, 0:5].mean(1), losses[:, 5:10].mean(1), losses[:, 10:12].mean(1)]
    np.testing.assert_allclose(result.windowed_losses(), np.stack(expected, 1))
    assert result.trajectory.evaluations["step"][0].tolist() == [0, 5, 10, 12]


def test_finals_belong_to_the_last_parameters(runs):
    result = runs.train(optimizers.momentum(0.1))
    last = jax.tree.map(lambda leaf: leaf[2], result.trajectory.params)
    alone = training.evaluate(runs.problem, last, on="test")
    np.testing.assert_allclose(result.finals["test_accuracy"][2], alone["accuracy"])
    np.testing.assert_allclose(
        result.finals["validation_loss"], result.trajectory.evaluations["validation_loss"][:, -1], rtol=1e-5
    )


def test_a_seed_does_not_depend_on_how_many_there_are():
    problem = problems.networks.mlp_classifier(problems.datasets.digits(), widths=(4,))
    few, many = (MultiSeedRun(problem, keys(n), num_steps=1).starts for n in (2, 3))
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(a, b[:2])


def test_a_plain_optax_transformation_runs_too():
    runs = MultiSeedRun(problems.planar.bowl(), keys(1), num_steps=3)
    ours, theirs = runs.train(optimizers.sgd(0.1)), runs.train(optax.sgd(0.1))
    np.testing.assert_allclose(ours.trajectory.params, theirs.trajectory.params, rtol=1e-6)


def test_a_bare_transformation_has_no_specification():
    assert specification(optax.sgd(0.1)) == {"expression": None, "spec": None}
    assert specification(chain(optax.sgd(0.1)))["spec"] is None


def test_an_optimizer_with_a_key_in_its_state_runs():
    noisy = transforms.chain(transforms.add_gradient_noise(0.1, 0.55, jax.random.key(0)), optimizers.sgd(0.1))
    result = MultiSeedRun(problems.planar.bowl(), keys(2), num_steps=3).train(noisy)
    losses = np.asarray(result.trajectory.losses)
    assert np.isfinite(losses).all()
    assert np.all(losses[0, 1:] != losses[1, 1:])  # the seeds draw apart
