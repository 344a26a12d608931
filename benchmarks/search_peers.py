"""Random search of Saito (2016) without this package: PyTorch trial by trial, and the book's NumPy code.

Each function runs trials one after the other in this process: 784-100×6-10 with ReLU, He's initial scale and L2 weight
decay, SGD, batches of 100 drawn with replacement, accuracies on training and validation images after every epoch.
"""

import itertools
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import numpy as np

WIDTHS = (784, 100, 100, 100, 100, 100, 100, 10)
BATCH, EPOCHS = 100, 50

Trial = tuple[float, float]  # learning rate, weight decay


def torch_trials(trials: list[Trial], data: dict[str, np.ndarray], threads: int) -> list[float]:
    """Return the last validation accuracy of every trial."""
    import torch

    torch.set_num_threads(threads)
    x, y, vx, vy = (torch.as_tensor(data[name]) for name in ("x", "y", "vx", "vy"))
    found = []
    for i, (rate, decay) in enumerate(trials):
        torch.manual_seed(i)
        layers: list[Any] = []
        for a, b in itertools.pairwise(WIDTHS):
            layer = torch.nn.Linear(a, b)
            torch.nn.init.normal_(layer.weight, std=(2.0 / a) ** 0.5)
            torch.nn.init.zeros_(layer.bias)
            layers += [layer, torch.nn.ReLU()]
        net = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.SGD(net.parameters(), lr=rate, weight_decay=decay)
        per_epoch = len(x) // BATCH
        for _ in range(EPOCHS):
            for _ in range(per_epoch):
                rows = torch.randint(len(x), (BATCH,))
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                accuracies = [(net(a).argmax(1) == b).float().mean().item() for a, b in ((x, y), (vx, vy))]
        found.append(accuracies[1])
    return found


def numpy_trials(trials: list[Trial], data: dict[str, np.ndarray], threads: int) -> list[float]:
    """Return the last validation accuracy of every trial, computed in double precision as the book does.

    References:
        Saito (2016), Deep Learning from Scratch, chapter 6: MultiLayerNet, SGD and Trainer.
    """
    from threadpoolctl import threadpool_limits

    x, vx = data["x"].astype(np.float64), data["vx"].astype(np.float64)
    y, vy = np.eye(10)[data["y"]], data["vy"]
    found = []
    with threadpool_limits(threads):
        for i, (rate, decay) in enumerate(trials):
            rng = np.random.default_rng(i)
            weights = [rng.normal(size=(a, b)) * np.sqrt(2.0 / a) for a, b in itertools.pairwise(WIDTHS)]
            biases = [np.zeros(b) for b in WIDTHS[1:]]
            for _ in range(EPOCHS):
                for _ in range(len(x) // BATCH):
                    rows = rng.choice(len(x), BATCH)
                    _numpy_step(weights, biases, x[rows], y[rows], rate, decay)
                _accuracy(weights, biases, x, data["y"])
                accuracy = _accuracy(weights, biases, vx, vy)
            found.append(accuracy)
    return found


def _numpy_step(weights: list, biases: list, x: np.ndarray, y: np.ndarray, rate: float, decay: float) -> None:
    outputs = [x]
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = outputs[-1] @ w + b
        outputs.append(np.maximum(z, 0) if i < len(weights) - 1 else z)
    scores = np.exp(outputs[-1] - outputs[-1].max(1, keepdims=True))
    signal = (scores / scores.sum(1, keepdims=True) - y) / len(x)
    grads = []
    for i in reversed(range(len(weights))):
        grads.append((outputs[i].T @ signal + decay * weights[i], signal.sum(0)))
        if i:
            signal = (signal @ weights[i].T) * (outputs[i] > 0)
    for i, (gw, gb) in enumerate(reversed(grads)):
        weights[i] -= rate * gw
        biases[i] -= rate * gb


def _accuracy(weights: list, biases: list, x: np.ndarray, labels: np.ndarray) -> float:
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ w + b
        x = np.maximum(x, 0) if i < len(weights) - 1 else x
    return float((x.argmax(1) == labels).mean())


class Workers:
    """Worker processes, started and with all imports done before the timing."""

    def __init__(self, count: int, run: Callable, data: dict[str, np.ndarray], threads: int):
        self._count, self._run, self._data, self._threads = count, run, data, threads
        self._pool = get_context("spawn").Pool(count)
        self([(0.01, 0.0)] * count)

    def __call__(self, trials: list[Trial]) -> list[float]:
        """Run the trials, an equal share in every process."""
        shares = [(trials[i :: self._count], self._data, self._threads) for i in range(self._count)]
        return [score for share in self._pool.starmap(self._run, shares, chunksize=1) for score in share]

    def close(self) -> None:
        """End the processes."""
        self._pool.terminate()
        self._pool.join()
