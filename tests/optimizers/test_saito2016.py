"""The optimizers at the settings of Saito (2016): the points of its figure 6-8, and what they write down."""

import jax
import numpy as np
import pytest

from jaxopt_study import problems, training
from jaxopt_study.optimizers import network_optimizers, plane_optimizers
from jaxopt_study.transforms import from_json

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
        run = training.train(
            problems.planar.bowl(), plane_optimizers()[name], num_steps=STEPS, key=jax.random.key(0),
            record_params_every=1,
        )  # fmt: skip
        path = np.asarray(run.snapshots)
    np.testing.assert_allclose(path, program(), rtol=1e-9, atol=1e-12)


def test_every_optimizer_of_the_notes_describes_itself():
    assert list(plane_optimizers()) == list(network_optimizers())
    for tx in [*plane_optimizers().values(), *network_optimizers().values()]:
        assert from_json(tx.to_json()) == tx
