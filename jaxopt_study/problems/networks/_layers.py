"""Convolution and pooling that run fast in compiled CPU loops; choice of activation and normalisation."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._checks import (
    check_callable,
    check_choice,
    check_integer,
    check_real,
    check_static,
    describe_argument,
)
from jaxopt_study._programs import wider
from jaxopt_study.problems.networks._convolution import convolution
from jaxopt_study.problems.networks.initialisers import Initialiser, xavier

Normalisation = Literal["batch", "layer", "instance", "group"]
ConvMethod = Literal["auto", "patches", "native"]
NORMALISATIONS = (None, "batch", "layer", "instance", "group")
METHODS = ("auto", "patches", "native")
Images = Float[Array, "examples height width channels"]

_ACTIVATIONS: dict[str, Callable[[Float[Array, "..."]], Float[Array, "..."]]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "leaky_relu": jax.nn.leaky_relu,
    "identity": lambda x: x,
}


def resolve_activation(activation: str | Callable) -> Callable:
    """Return the activation function with a given name; functions are returned unchanged.

    Args:
        activation: "relu", "tanh", "sigmoid", "gelu", "elu", "silu", "softplus", "leaky_relu", "identity", or any
            elementwise function.

    Returns:
        The function.

    Raises:
        TypeError: If it is neither a name nor a function.
        ValueError: If the name is unknown.
    """
    if callable(activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(f"An activation must be a name or a function; received {describe_argument(activation)}.")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"Unknown activation {activation!r}: expected one of {', '.join(_ACTIVATIONS)}, or an elementwise function."
        )
    return _ACTIVATIONS[activation]


def normalisation_layer(kind: Normalisation, *, num_groups: int, train: bool, name: str) -> nn.Module:
    """Make a Flax normalisation layer with learned scale and offset and ε = 1e-5.

    Over the axes of activations of shape (examples, …, channels), mean and variance are taken per channel over examples
    and positions ("batch"), per example over all else ("layer" over channels only, Flax's and the transformers'
    convention), per example and channel over positions ("instance"), per example and group of channels ("group").

    Args:
        kind: "batch", "layer", "instance" or "group".
        num_groups: Number of groups for "group"; must divide the channels.
        train: For "batch": whether to use the batch's statistics and update the running ones, or use the running ones.
            Their decay is 0.9; Flax's 0.99 needs some 500 steps to warm up.
        name: Name of the layer in the parameters.

    Returns:
        The layer.

    Raises:
        ValueError: If the kind is unknown.

    References:
        Ioffe and Szegedy (2015); Ba, Kiros and Hinton (2016); Ulyanov, Vedaldi and Lempitsky (2016); Wu and He (2018).
    """
    match kind:
        case "batch":
            # The two-pass variance: E[x²] − E[x]² cancels for activations with a large mean or a tiny scale.
            return nn.BatchNorm(
                use_running_average=not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False, name=name
            )
        case "layer":
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)
        case "instance":
            return nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False, name=name)
        case "group":
            return nn.GroupNorm(num_groups=num_groups, epsilon=1e-5, use_fast_variance=False, name=name)
    raise ValueError(f'Unknown normalisation {kind!r}: expected "batch", "layer", "instance", "group" or None.')


class Conv(nn.Module):
    """Two-dimensional convolution that also runs well inside compiled loops on a CPU.

    Parameters and results are those of `flax.linen.Conv`: kernel of shape (height, width, inputs, outputs), bias of
    shape (outputs,), inputs of shape (examples, height, width, channels). On a CPU, XLA's convolution is several times
    slower inside `scan` or `while_loop` than outside; there, this layer computes the same sums as matrix products of
    patches of the images with the kernel. It has no dilation, groups or masks.

    Attributes:
        features: Number of output channels.
        kernel_size: Height and width of the kernel.
        strides: Steps between outputs.
        padding: "SAME" or "VALID".
        method: "patches", "native" (XLA's convolution), or "auto": patches if the default backend is a CPU.
        kernel_init: Initialiser of the kernel.
    """

    features: int
    kernel_size: Sequence[int] = (3, 3)
    strides: Sequence[int] = (1, 1)
    padding: str = "SAME"
    method: ConvMethod = "auto"
    kernel_init: Initialiser = xavier()

    def __post_init__(self):
        check_integer("Conv", "features", self.features, 1)
        check_pair("Conv", "kernel_size", self.kernel_size)
        check_pair("Conv", "strides", self.strides)
        check_choice("Conv", "padding", self.padding, ("SAME", "VALID"))
        check_choice("Conv", "method", self.method, METHODS)
        check_callable("Conv", "kernel_init", self.kernel_init, expected="a function init(key, shape, dtype)")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "examples rows columns {self.features}"]:
        """Convolve the images.

        Args:
            x: Shape (examples, height, width, channels).

        Returns:
            Shape (examples, height', width', features).
        """
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)  # the parameter dtype of Flax's layers
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = convolve(x, kernel, strides=self.strides, padding=self.padding, method=self.method)
        dtype = wider(y.dtype, bias.dtype)
        return y.astype(dtype) + bias.astype(dtype)[None, None, None, :]


def convolve(
    x: Images,
    kernel: Float[Array, "kernel_height kernel_width channels outputs"],
    *,
    strides: Sequence[int] = (1, 1),
    padding: str = "SAME",
    method: ConvMethod = "auto",
) -> Float[Array, "examples rows columns outputs"]:
    """Correlate images with a kernel, which deep learning calls "convolution".

    With input x, kernel K and stride s, at every output position (i, j) and channel o, after padding:

        y[i, j, o] = Σ_{a,b,c} x[s·i + a, s·j + b, c] · K[a, b, c, o]

    Args:
        x: Images, shape (examples, height, width, channels).
        kernel: Shape (kernel height, kernel width, channels, outputs).
        strides: Steps between outputs.
        padding: "SAME" or "VALID".
        method: "patches", "native", or "auto"; see `Conv`.

    Returns:
        Shape (examples, height', width', outputs). Memory of "patches": at most kernel
        height × width copies of x, mostly little more than kernel height.

    Raises:
        TypeError: If a stride is not an integer.
        ValueError: If a shape does not match, or stride, padding or method is invalid.

    Example:
        >>> x, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
        >>> print(convolve(x, kernel, padding="VALID", method="patches")[0, :, :, 0])
        [[4. 4.]
         [4. 4.]]
    """
    check_pair("convolve", "strides", strides)
    check_choice("convolve", "padding", padding, ("SAME", "VALID"))
    if not isinstance(method, str) or method not in ("auto", "patches", "native"):
        raise ValueError(
            f'Unknown convolution method {describe_argument(method)}: expected "auto", "patches" or "native".'
        )
    if jnp.ndim(x) != 4 or jnp.ndim(kernel) != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "convolve needs x of shape (examples, height, width, channels) and a kernel of shape (height, width, "
            f"channels, outputs); received {jnp.shape(x)} and {jnp.shape(kernel)}."
        )
    dtype = wider(x.dtype, kernel.dtype)  # float64 weights on float32 images are allowed, as in a dense layer
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    if _resolve_method(method) == "native":
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, tuple(strides), padding, dimension_numbers=dims)
    return convolution(x, kernel, strides, padding)


def max_pool(
    x: Images, size: int = 2, *, method: ConvMethod = "auto"
) -> Float[Array, "examples height//{size} width//{size} channels"]:
    """Keep the largest value of each size × size block; a ragged edge is dropped.

    It consists of a reshape and a maximum, so it has derivatives of every order on every backend and is cheap inside
    loops. Ties share the gradient.

    Args:
        x: Shape (examples, height, width, channels).
        size: Side of the blocks, 1 for none.
        method: How the neighbouring convolutions are computed: "patches", "native" or "auto", as in `Conv`. The results
            are the same; XLA does not have to reorder arrays between layers of the same method.

    Returns:
        Shape (examples, height // size, width // size, channels).

    Raises:
        TypeError: If the size is not an integer.
        ValueError: If the size is below 1, the method is unknown, or x is not a batch of images of at least one block.

    Example:
        >>> print(max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0])
        [[ 5.  7.]
         [13. 15.]]
    """
    check_integer("max_pool", "size", size, 1)
    check_choice("max_pool", "method", method, METHODS)
    if jnp.ndim(x) != 4 or min(x.shape[1:3]) < size:
        raise ValueError(
            "max_pool needs images of shape (examples, height, width, channels), with height and width at least "
            f"size={size}; received {jnp.shape(x)}."
        )
    if size == 1:
        return x
    examples, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    if _resolve_method(method) == "native":
        return jnp.max(x.reshape(examples, rows, size, columns, size, channels), axis=(2, 4))
    x = x.transpose(2, 3, 1, 0).reshape(columns, size, channels, rows, size, examples)
    return jnp.max(x, axis=(1, 4)).transpose(3, 2, 0, 1)


def _resolve_method(method: ConvMethod) -> ConvMethod:
    if method != "auto":
        return method
    return "patches" if jax.default_backend() == "cpu" else "native"


def check_widths(who: str, name: str, widths: Any) -> None:
    """Raise TypeError or ValueError unless widths are a sequence of integers ≥ 1."""
    if isinstance(widths, str | bytes) or not isinstance(widths, Sequence):
        raise TypeError(
            f"{who} needs {name} to be a sequence of integers ≥ 1, such as (100, 100); received "
            f"{describe_argument(widths)}."
        )
    for i, width in enumerate(widths):
        check_integer(who, f"{name}[{i}]", width, 1)


def check_pair(who: str, name: str, pair: Any) -> None:
    """Raise TypeError or ValueError unless a value is a pair of integers ≥ 1."""
    check_widths(who, name, pair)
    if len(pair) != 2:
        raise ValueError(f"{who} needs {name} to be two integers, height and width; received {tuple(pair)}.")


def check_fraction(who: str, name: str, value: Any) -> None:
    """Raise TypeError or ValueError unless a value is a number in [0, 1) that is known before compiling."""
    check_static(who, name, value)
    check_real(who, name, value, 0, 1, closed="[)")
