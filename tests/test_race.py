"""A race: the same starts and batches for everybody, lanes equal to solo runs, programs shared."""

import jax
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, problems, training, transforms
from jaxopt_study.race import Race, network_optimizers, plane_optimizers, specification
from jaxopt_study.transforms import chain, from_json

# The book's program for its figure 6-8, in NumPy, run here independently of the package.
START, STEPS = np.array([-7.0, 2.0]), 29


def gradient(point):
    return np.array([point[0] / 10.0, 2.0 * point[1]])


def book_sgd():
    points = [START]
    for _ in range(STEPS):
        points.append(points[-1] - 0.95 * gradient(points[-1]))
    return np.array(points)


def book_momentum():
    points, v = [START], np.zeros(2)
    for _ in range(STEPS):
        v = 0.9 * v - 0.1 * gradient(points[-1])
        points.append(points[-1] + v)
    return np.array(points)


def true_nesterov():
    points, v = [START], np.zeros(2)
    for _ in range(STEPS):
        v = 0.9 * v - 0.1 * gradient(points[-1] + 0.9 * v)
        points.append(points[-1] + v)
    return np.array(points)


def book_adagrad():
    points, h = [START], np.zeros(2)
    for _ in range(STEPS):
        g = gradient(points[-1])
        h = h + g * g
        points.append(points[-1] - 1.5 * g / (np.sqrt(h) + 1e-7))
    return np.array(points)


def book_adam():
    points, m, v = [START], np.zeros(2), np.zeros(2)
    for t in range(1, STEPS + 1):
        g = gradient(points[-1])
        rate = 0.3 * np.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
        m = m + (1 - 0.9) * (g - m)
        v = v + (1 - 0.999) * (g**2 - v)
        points.append(points[-1] - rate * m / (np.sqrt(v) + 1e-7))
    return np.array(points)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("sgd", book_sgd),
        ("momentum", book_momentum),
        ("nesterov", true_nesterov),
        ("adagrad", book_adagrad),
        ("adam", book_adam),
    ],
)
def test_the_plotted_points_are_those_of_the_books_program(name, program):
    with jax.enable_x64(True):
        race = Race(problems.planar.bowl(), num_steps=STEPS, record_params_every=1)
        path = np.asarray(race.run(plane_optimizers()[name]).trajectory.snapshots)[0]
    np.testing.assert_allclose(path, program(), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def small_race():
    data = problems.datasets.digits(num_train=60, num_validation=40, num_test=40)
    problem = problems.networks.mlp_classifier(data, widths=(8,))
    return Race(problem, num_steps=12, num_seeds=3, seed=5, batch_size=16, evaluate_every=5)


def test_a_lane_is_a_solo_run_from_the_same_start(small_race):
    result = small_race.run(optimizers.momentum(0.1))
    start = jax.tree.map(lambda leaf: leaf[1], small_race.starts)
    solo = training.train(
        small_race.problem, optimizers.momentum(0.1), num_steps=12, key=small_race._keys[1], params=start,
        batch_size=16, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(result.trajectory.losses[1], solo.losses, rtol=2e-5)
    assert not np.allclose(result.trajectory.losses[0], result.trajectory.losses[1])


def test_every_optimizer_meets_the_same_first_loss_and_numbers_share_a_program(small_race):
    first = small_race.run(optimizers.momentum(0.1))
    second = small_race.run(optimizers.momentum(0.01))
    assert second.compile_seconds == 0.0
    np.testing.assert_array_equal(first.trajectory.losses[:, 0], second.trajectory.losses[:, 0])
    assert not np.allclose(first.trajectory.losses[:, 5], second.trajectory.losses[:, 5])


def test_windows_average_the_losses_between_evaluations(small_race):
    result = small_race.run(optimizers.momentum(0.1))
    losses = np.asarray(result.trajectory.losses, dtype=float)
    expected = [losses[:, 0], losses[:, 0:5].mean(1), losses[:, 5:10].mean(1), losses[:, 10:12].mean(1)]
    np.testing.assert_allclose(result.windowed_losses(), np.stack(expected, 1))
    assert result.trajectory.evaluations["step"][0].tolist() == [0, 5, 10, 12]


def test_finals_belong_to_the_last_parameters(small_race):
    result = small_race.run(optimizers.momentum(0.1))
    last = jax.tree.map(lambda leaf: leaf[2], result.trajectory.params)
    alone = training.evaluate(small_race.problem, last, on="test")
    np.testing.assert_allclose(result.finals["test_accuracy"][2], alone["accuracy"])
    np.testing.assert_allclose(
        result.finals["validation_loss"], result.trajectory.evaluations["validation_loss"][:, -1], rtol=1e-5
    )


def test_a_seed_does_not_depend_on_how_many_there_are():
    problem = problems.networks.mlp_classifier(problems.datasets.digits(), widths=(4,))
    few, many = (Race(problem, num_steps=1, num_seeds=n).starts for n in (2, 3))
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(a, b[:2])


def test_a_plain_optax_transformation_races_too():
    race = Race(problems.planar.bowl(), num_steps=3)
    ours, theirs = race.run(optimizers.sgd(0.1)), race.run(optax.sgd(0.1))
    np.testing.assert_allclose(ours.trajectory.params, theirs.trajectory.params, rtol=1e-6)


def test_a_race_without_seeds_is_refused():
    with pytest.raises(ValueError, match="num_seeds"):
        Race(problems.planar.bowl(), num_steps=1, num_seeds=0)


def test_every_optimizer_of_the_notes_describes_itself():
    assert list(plane_optimizers()) == list(network_optimizers())
    for tx in [*plane_optimizers().values(), *network_optimizers().values()]:
        assert from_json(specification(tx)["spec"]) == tx
    assert specification(optax.sgd(0.1)) == {"expression": None, "spec": None}
    assert specification(chain(optax.sgd(0.1)))["spec"] is None


def test_an_optimizer_with_a_key_in_its_state_races():
    noisy = transforms.chain(transforms.add_gradient_noise(0.1, 0.55, jax.random.key(0)), optimizers.sgd(0.1))
    result = Race(problems.planar.bowl(), num_steps=3, num_seeds=2).run(noisy)
    losses = np.asarray(result.trajectory.losses)
    assert np.isfinite(losses).all()
    assert np.all(losses[0, 1:] != losses[1, 1:])  # the seeds draw apart
