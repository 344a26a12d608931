"""Gradient streams on which an optimizer has nowhere to hide."""

import numpy as np

NUM_STEPS = 240
KINDS = ("dense", "sparse", "zero stretches", "bursts of 1e12", "scale 1e-12", "sign flipping", "constant")


def stream(seed: int = 0, num_steps: int = NUM_STEPS) -> np.ndarray:
    """Gradients of shape (num_steps, 7), float64, one column for each of KINDS; all columns rest at steps 200–205.

    Columns: a standard normal; nine of ten zero; a normal that begins with 5 zeros and pauses for 50 steps; a normal
    that is multiplied by 1e12 for 2 steps in 60; a normal times 1e-12; ±1 alternating, jittered by a tenth; ½.
    """
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal((num_steps, len(KINDS)))
    present = generator.random(num_steps) < 0.1
    steps = np.arange(num_steps)
    grads = normal.copy()
    grads[:, 1] *= present
    grads[:, 2] *= (steps >= 5) & ~((steps >= 100) & (steps < 150))
    grads[:, 3] *= np.where(np.isin(steps % 60, (20, 21)), 1e12, 1.0)
    grads[:, 4] *= 1e-12
    grads[:, 5] = np.where(steps % 2 == 0, 1.0, -1.0) * (1.0 + 0.1 * normal[:, 5])
    grads[:, 6] = 0.5
    grads[(steps >= 200) & (steps < 206)] = 0.0
    return grads + 0.0  # no negative zeros


def start(seed: int = 0) -> np.ndarray:
    """Initial parameters of shape (7,)."""
    return np.random.default_rng([seed, 1]).uniform(-2.0, 2.0, len(KINDS))


def staircase(count):
    """A learning-rate schedule: .1, then .02, then .05, changing every 60 steps."""
    return (0.1, 0.02, 0.05)[(int(count) // 60) % 3]


def shaped_stream(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Gradients of another shape, filled column by column from streams of this seed and those after it."""
    count = int(np.prod(shape))
    streams = [stream(seed + i) for i in range(-(-count // len(KINDS)))]
    return np.concatenate(streams, axis=1)[:, :count].reshape(-1, *shape)


def shaped_start(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Initial parameters of another shape."""
    return np.random.default_rng([seed, 2]).uniform(-2.0, 2.0, shape)
