"""Networks of the curvature benchmarks in torch, with the same weights and data."""

from itertools import pairwise
from typing import Any

import cases
import numpy as np
import torch
from curvature_cases import Case


class TorchCase:
    """The network of a case in torch."""

    def __init__(self, case: Case) -> None:
        self.weights = [np.asarray(leaf) for leaf in case.params]
        self.data = (torch.from_numpy(np.array(case.data[0])), torch.from_numpy(np.array(case.data[1])).long())
        self.criterion = torch.nn.CrossEntropyLoss()

    def model(self) -> torch.nn.Module:
        """Build the network with the case's weights."""
        layers: list[torch.nn.Module] = []
        for i, (a, b) in enumerate(pairwise(cases.MLP_SIZES)):
            linear = torch.nn.Linear(a, b)
            linear.weight.data = torch.from_numpy(self.weights[2 * i].T.copy())
            linear.bias.data = torch.from_numpy(self.weights[2 * i + 1].copy())
            layers += [linear, torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def to_jax(self, vector: Any) -> list[Any]:
        """Return a vector of torch's, flat or in parts, as the case's pytree."""
        flat = torch.cat([part.reshape(-1) for part in vector]) if isinstance(vector, list) else torch.as_tensor(vector)
        leaves, start = [], 0
        for w in self.weights:
            piece = flat[start : start + w.size].numpy()
            leaves.append(piece.reshape(w.shape[::-1]).T if w.ndim == 2 else piece)
            start += w.size
        return leaves


class TorchCNN(torch.nn.Module):
    """The convolutional case in torch; its dense weights are in torch's order of channels."""

    def __init__(self, params: Any) -> None:
        super().__init__()
        p = {name: np.array(leaf) for name, leaf in params.items()}
        flat = p["dense_1"].reshape(7, 7, 16, -1).transpose(3, 2, 0, 1).reshape(p["dense_1"].shape[1], -1)
        kernels = [p["conv_1"].transpose(3, 2, 0, 1), p["conv_2"].transpose(3, 2, 0, 1)]
        weights = [*kernels, flat, p["bias_1"], p["dense_2"].T, p["bias_2"]]
        self.w = torch.nn.ParameterList([torch.from_numpy(x.copy()) for x in weights])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the network."""
        f = torch.nn.functional
        x = f.max_pool2d(f.relu(f.conv2d(x, self.w[0], padding=2)), 2)
        x = f.max_pool2d(f.relu(f.conv2d(x, self.w[1], padding=2)), 2)
        return f.linear(f.relu(f.linear(x.flatten(1), self.w[2], self.w[3])), self.w[4], self.w[5])


def torch_cnn(case: Case) -> tuple[TorchCNN, Any]:
    """Return the convolutional case in torch, with its data."""
    images = torch.from_numpy(np.array(case.data[0]).transpose(0, 3, 1, 2).copy())
    return TorchCNN(case.params), (images, torch.from_numpy(np.array(case.data[1])).long())
