"""Flax Linen modules: multilayer perceptron, convolutional network and recurrent network."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from jaxopt_study._checks import check_choice, check_integer, describe_argument
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

Hidden = Float[Array, "examples units"]


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
            x = max_pool(activation(x), self.pool)
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


class RNN(nn.Module):
    """Elman's recurrent network, with an output after the last step of the sequence.

    With inputs x₁, …, x_T and h₀ = 0, in each recurrent layer

        hₜ = φ(xₜ W + hₜ₋₁ U + b),

    and the next layer's inputs are h₁, …, h_T. The output is an affine function of the last layer's h_T. The network
    has no gates, so its gradient contains products of T Jacobians, which vanish or explode; it is included to study
    this effect.

    Attributes:
        num_outputs: Number of outputs.
        widths: Units of each recurrent layer.
        activation: φ, a name or an elementwise function.
        initialiser: Initialiser of the input and output weights, as in `MLP`.
        recurrent_initialiser: Initialiser of U, likewise. "orthogonal" makes all singular values 1.
        normalisation: None or "layer", applied to the affine sum at each step.
        dropout: Fraction of each layer's outputs zeroed in training, never inside the recurrence.
    """

    num_outputs: int
    widths: Sequence[int] = (50,)
    activation: str | Callable = "tanh"
    initialiser: Any = "xavier"
    recurrent_initialiser: Any = "orthogonal"
    normalisation: Normalisation | None = None
    dropout: float = 0.0

    def __post_init__(self):
        check_integer("RNN", "num_outputs", self.num_outputs, 1)
        check_widths("RNN", "widths", self.widths)
        resolve(self.recurrent_initialiser)
        check_fraction("RNN", "dropout", self.dropout)
        resolve_activation(self.activation)
        resolve(self.initialiser)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[ArrayLike, "examples ..."], *, train: bool = False
    ) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Sequences of shape (examples, steps, features).
            train: Whether to drop activations out and normalise by the batch's own statistics.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs' shape or the normalisation does not suit the network.
        """
        x = jnp.asarray(x)
        if x.ndim != 3:
            raise ValueError(f"An RNN needs inputs of shape (examples, steps, features); received {x.shape}.")
        if self.normalisation is not None and (
            not isinstance(self.normalisation, str) or self.normalisation != "layer"
        ):
            raise ValueError(
                f'An RNN can be normalised by "layer" or not at all; received {self.normalisation!r}. The statistics '
                "of the other kinds would mix time steps or examples."
            )
        activation, init = resolve_activation(self.activation), resolve(self.initialiser)
        x = x.swapaxes(0, 1)  # scan needs time as the first axis
        for i, width in enumerate(self.widths):
            driven = nn.Dense(width, kernel_init=init, name=f"input_{i}")(x)  # one product for all steps
            make, shape = resolve(self.recurrent_initialiser), (width, width)
            recurrent = self.param(f"recurrent_{i}", make, shape, jnp.float32)  # as all of Flax's layers
            if getattr(recurrent, "shape", None) != shape:
                raise ValueError(
                    f"An RNN needs its recurrent_initialiser to return an array of shape {shape}; received "
                    f"{describe_argument(recurrent)}."
                )
            normalises = self.normalisation is not None
            scale = self.param(f"scale_{i}", nn.initializers.ones, (width,), jnp.float32) if normalises else None

            def step(h: Hidden, drive: Hidden, recurrent=recurrent, scale=scale) -> tuple[Hidden, Hidden]:
                total = drive + h @ recurrent
                h = activation(total if scale is None else scale * jax.nn.standardize(total, epsilon=1e-5))
                return h, h

            _, x = jax.lax.scan(step, jnp.zeros_like(driven[0]), driven)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_outputs, kernel_init=init, name="output")(x[-1])
