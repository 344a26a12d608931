"""Flax Linen modules: multilayer perceptron and convolutional network."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from jaxopt_study._checks import check_choice, check_integer
from jaxopt_study.problems.networks._layers import (
    METHODS,
    NORMALISATIONS,
    Conv,
    ConvMethod,
    Normalisation,
    check_fraction,
    check_pair,
    check_widths,
    max_pool,
    normalisation_layer,
    resolve_activation,
)
from jaxopt_study.problems.networks.initialisers import resolve


class MLP(nn.Module):
    """Multilayer perceptron: (affine → normalisation → activation → dropout) per hidden layer, then affine.

    Inputs are flattened. Layers are named `dense_0`, `norm_0`, …, `output`. With batch norm or dropout, pass
    `train=True` in training.

    Attributes:
        num_outputs: Number of outputs: classes, or values.
        widths: Units of each hidden layer; empty for a linear model. The default makes a 784-100×6-10 network on MNIST.
        activation: A name ("relu", "tanh", "sigmoid", …) or an elementwise function.
        initialiser: Initialiser of the weights: "he", "xavier", "glorot", "orthogonal", a standard deviation (may be
            traced), or a function `init(key, shape, dtype)`. Biases start at 0.
        normalisation: None, "batch", "layer" or "group"; applied before the activation.
        num_groups: Groups of units for "group".
        dropout: Fraction of hidden activations zeroed in training; the others are divided by 1 − dropout.
    """

    num_outputs: int
    widths: Sequence[int] = (100,) * 6
    activation: str | Callable = "relu"
    initialiser: Any = "he"
    normalisation: Normalisation | None = None
    num_groups: int = 4
    dropout: float = 0.0

    def __post_init__(self):
        check_integer("MLP", "num_outputs", self.num_outputs, 1)
        check_widths("MLP", "widths", self.widths)
        check_choice("MLP", "normalisation", self.normalisation, NORMALISATIONS)
        check_integer("MLP", "num_groups", self.num_groups, 1)
        check_fraction("MLP", "dropout", self.dropout)
        resolve_activation(self.activation)
        resolve(self.initialiser)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[ArrayLike, "examples ..."], *, train: bool = False
    ) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Inputs of any shape (examples, …).
            train: Whether to drop activations out and normalise by the batch's own statistics.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs' shape or the normalisation does not suit the network.
        """
        x = jnp.asarray(x)
        activation, init = resolve_activation(self.activation), resolve(self.initialiser)
        if self.normalisation == "instance":
            raise ValueError(
                "Instance normalisation averages over positions, but a dense layer has none, so every activation would "
                'become 0. Use "batch", "layer" or "group", or a CNN.'
            )
        x = x.reshape(len(x), -1)
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=init, name=f"dense_{i}")(x)
            if self.normalisation is not None:
                layer = normalisation_layer(
                    self.normalisation, num_groups=self.num_groups, train=train, name=f"norm_{i}"
                )
                x = layer(x)
            x = activation(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_outputs, kernel_init=init, name="output")(x)


class CNN(nn.Module):
    """Convolutional network: (convolution → normalisation → activation → max pooling) per stage, then an MLP.

    The default has two convolutions and two dense layers. Layers are named `conv_0`, `norm_0`, …, `head`. The hidden
    dense layers are normalised, too, except with "instance", which needs positions.

    Attributes:
        num_outputs: Number of outputs.
        channels: Output channels of each convolution.
        widths: Units of each hidden dense layer.
        kernel_size: Height and width of the kernels.
        pool: Side of the pooling blocks, 1 for none.
        activation: A name or an elementwise function.
        initialiser: As in `MLP`.
        normalisation: None, "batch", "layer", "instance" or "group"; applied before the activation.
        num_groups: Groups of channels for "group".
        dropout: Fraction of the dense layers' activations zeroed in training.
        method: Convolution method: "auto", "patches" or "native"; see `Conv`.
    """

    num_outputs: int
    channels: Sequence[int] = (16, 32)
    widths: Sequence[int] = (64,)
    kernel_size: Sequence[int] = (3, 3)
    pool: int = 2
    activation: str | Callable = "relu"
    initialiser: Any = "he"
    normalisation: Normalisation | None = None
    num_groups: int = 4
    dropout: float = 0.0
    method: ConvMethod = "auto"

    def __post_init__(self):
        check_integer("CNN", "num_outputs", self.num_outputs, 1)
        check_widths("CNN", "widths", self.widths)
        check_widths("CNN", "channels", self.channels)
        check_pair("CNN", "kernel_size", self.kernel_size)
        check_integer("CNN", "pool", self.pool, 1)
        check_choice("CNN", "method", self.method, METHODS)
        check_choice("CNN", "normalisation", self.normalisation, NORMALISATIONS)
        check_integer("CNN", "num_groups", self.num_groups, 1)
        check_fraction("CNN", "dropout", self.dropout)
        resolve_activation(self.activation)
        resolve(self.initialiser)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[ArrayLike, "examples ..."], *, train: bool = False
    ) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Images of shape (examples, height, width, channels).
            train: Whether to drop activations out and normalise by the batch's own statistics.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs' shape or the normalisation does not suit the network.
        """
        x = jnp.asarray(x)
        if x.ndim != 4:
            raise ValueError(
                f"A CNN needs inputs of shape (examples, height, width, channels); received {x.shape}. "
                "Load the data set with flatten=False."
            )
        activation, init = resolve_activation(self.activation), resolve(self.initialiser)
        for i, features in enumerate(self.channels):
            x = Conv(features, self.kernel_size, method=self.method, kernel_init=init, name=f"conv_{i}")(x)
            if self.normalisation is not None:
                layer = normalisation_layer(
                    self.normalisation, num_groups=self.num_groups, train=train, name=f"norm_{i}"
                )
                x = layer(x)
            x = max_pool(activation(x), self.pool, method=self.method)
        head = MLP(
            self.num_outputs,
            widths=self.widths,
            activation=self.activation,
            initialiser=self.initialiser,
            normalisation=None if self.normalisation == "instance" else self.normalisation,
            num_groups=self.num_groups,
            dropout=self.dropout,
            name="head",
        )
        return head(x, train=train)
