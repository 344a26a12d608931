"""Parameter trees, data and peers of several benchmarks."""

import gzip
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study.problems import Problem

MLP_SIZES = (784, *(100,) * 6, 10)


def resnet18_shapes() -> list[tuple[int, ...]]:
    """Shapes of ResNet-18's 20 convolution kernels, each with seven vectors of its channels: 160 leaves, 11.2M numbers.

    The kernels are the network's own, (out, in, height, width) as PyTorch and Equinox keep them. The vectors stand for
    bias, scale and shift of its normalisations, and are more than it has, so that small leaves are as many as in common
    training trees.
    """
    kernels = [(64, 3, 7, 7)]
    width = 64
    for outputs in (64, 128, 256, 512):
        for _ in range(2):
            kernels += [(outputs, width, 3, 3), (outputs, outputs, 3, 3)]
            kernels += [(outputs, width, 1, 1)] if width != outputs else []
            width = outputs
    return [shape for kernel in kernels for shape in (kernel, *[kernel[:1]] * 7)]


def quadratic(shapes: list[tuple[int, ...]]) -> Problem:
    """½ c ‖θ‖²: its gradient cθ fuses into the update, so a step's traffic is that of Adam with a gradient in memory.

    Loss and gradient read θ once each instead of a stored gradient: 4 + (12 read + 12 written) = 28 bytes a parameter.
    """

    def init(key: Any) -> list[Any]:
        keys = jax.random.split(key, len(shapes))
        return [
            jax.random.normal(k, shape) / math.sqrt(max(1, math.prod(shape)))
            for k, shape in zip(keys, shapes, strict=True)
        ]

    return Problem("quadratic", init=init, loss=lambda params, _: 0.05 * sum(jnp.sum(leaf**2) for leaf in params))


def mlp_shapes() -> list[tuple[int, ...]]:
    """Shapes of the 784-100×6-10 network: 14 leaves, 130,010 numbers."""
    return [shape for a, b in pairwise(MLP_SIZES) for shape in ((a, b), (b,))]


def mlp_forward(params: list[Any], images: Any) -> Any:
    """Apply the network, ReLU between its layers."""
    x = images
    layers = list(zip(params[::2], params[1::2], strict=True))
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mlp_problem(images: np.ndarray, labels: np.ndarray) -> Problem:
    """The network on images, He-initialised."""

    def init(key: Any) -> list[Any]:
        keys = jax.random.split(key, 14)
        return [
            jax.random.normal(k, s) * math.sqrt(2 / s[0]) if len(s) == 2 else jnp.zeros(s)
            for k, s in zip(keys, mlp_shapes(), strict=True)
        ]

    def loss(params: list[Any], batch: Any) -> Any:
        return cross_entropy(mlp_forward(params, batch[0]), batch[1])

    return Problem("mlp", init=init, loss=loss, data=(jnp.asarray(images), jnp.asarray(labels)))


def mnist(data_dir: Path | None) -> tuple[np.ndarray, np.ndarray, str]:
    """MNIST's training images as 60,000 × 784 floats with labels, or random data of that shape."""
    if data_dir is None:
        rng = np.random.default_rng(0)
        images = rng.random((60_000, 784), dtype=np.float32)
        return images, rng.integers(0, 10, 60_000).astype(np.int32), "random, of MNIST's shape"
    images = _idx(data_dir, "train-images-idx3-ubyte").reshape(60_000, 784).astype(np.float32) / 255
    return images, _idx(data_dir, "train-labels-idx1-ubyte").astype(np.int32), "MNIST"


def _idx(folder: Path, name: str) -> np.ndarray:
    path = next(p for p in (folder / f"{name}.gz", folder / name) if p.exists())
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = np.frombuffer(raw, ">u4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
