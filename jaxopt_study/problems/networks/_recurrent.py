"""Flax Linen modules: Elman's recurrent network, LSTM and GRU."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real, Shaped

from jaxopt_study._checks import check_integer, check_real, describe_argument
from jaxopt_study.problems.networks._layers import Normalisation, check_fraction, check_widths, resolve_activation
from jaxopt_study.problems.networks.initialisers import Initialiser, resolve
from jaxopt_study.types import Key

Hidden = Float[Array, "examples units"]
Driven = Float[Array, "examples gates"]
Sequences = Shaped[ArrayLike, "examples steps features"]


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
        _check("RNN", self)
        resolve_activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Sequences, *, train: bool = False) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Sequences of shape (examples, steps, features).
            train: Whether to drop activations out and normalise by the batch's own statistics.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs' shape or the normalisation does not suit the network.
        """
        x = _time_first("An RNN", x)
        if self.normalisation is not None and (
            not isinstance(self.normalisation, str) or self.normalisation != "layer"
        ):
            raise ValueError(
                f'An RNN can be normalised by "layer" or not at all; received {self.normalisation!r}. The statistics '
                "of the other kinds would mix time steps or examples."
            )
        activation, init = resolve_activation(self.activation), resolve(self.initialiser)
        for i, width in enumerate(self.widths):
            driven, recurrent = _affine(self, i, x, width, gates=1)
            normalises = self.normalisation is not None
            scale = self.param(f"scale_{i}", nn.initializers.ones, (width,), jnp.float32) if normalises else None

            def step(h: Hidden, drive: Hidden, recurrent=recurrent, scale=scale) -> tuple[Hidden, Hidden]:
                total = drive + h @ recurrent
                h = activation(total if scale is None else scale[None] * jax.nn.standardize(total, epsilon=1e-5))
                return h, h

            _, x = jax.lax.scan(step, jnp.zeros_like(driven[0]), driven)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_outputs, kernel_init=init, name="output")(x[-1])


class LSTM(nn.Module):
    """Long short-term memory, with an output after the last step of the sequence.

    With inputs x₁, …, x_T, h₀ = c₀ = 0 and σ the logistic function, in each recurrent layer

        i, f, g, o = the four parts of xₜ W + hₜ₋₁ U + b,
        cₜ = σ(f) ⊙ cₜ₋₁ + σ(i) ⊙ tanh(g),    hₜ = σ(o) ⊙ tanh(cₜ),

    and the next layer's inputs are h₁, …, h_T. The output is an affine function of the last layer's h_T. The cell c
    passes from step to step by a product with σ(f) alone, so that gradients survive where forget gates are open. There
    are no peepholes and no projection.

    At the start every gate's part of W and U is drawn on its own, as the matrix of a layer of `width` units, and b is 0
    but for f, where it is `forget_bias`: 1, as usual, keeps σ(1) = .73 of the cell in a step. The parameters of layer i
    are `input_{i}` (kernel W, bias b) and `recurrent_{i}` (U), with the gates in the order i, f, g, o.

    Attributes:
        num_outputs: Number of outputs.
        widths: Units of each recurrent layer.
        initialiser: Initialiser of the input and output weights, as in `MLP`.
        recurrent_initialiser: Initialiser of each gate's part of U, likewise.
        forget_bias: Start of the bias of f; may be traced. Memories of T steps need about ln T.
        dropout: Fraction of each layer's outputs zeroed in training, never inside the recurrence.

    References:
        Hochreiter and Schmidhuber (1997), Long short-term memory; Gers, Schmidhuber and Cummins (2000), Learning to
        forget, for f; Jozefowicz, Zaremba and Sutskever (2015), An empirical exploration of recurrent network
        architectures, for the bias 1; Tallec and Ollivier (2018), Can recurrent neural networks warp time?, for ln T.
    """

    num_outputs: int
    widths: Sequence[int] = (50,)
    initialiser: Any = "xavier"
    recurrent_initialiser: Any = "orthogonal"
    forget_bias: Real[ArrayLike, ""] = 1.0
    dropout: float = 0.0

    def __post_init__(self):
        _check("LSTM", self)
        check_real("LSTM", "forget_bias", self.forget_bias)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Sequences, *, train: bool = False) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Sequences of shape (examples, steps, features).
            train: Whether to drop activations out.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs' shape does not suit the network.
        """
        x = _time_first("An LSTM", x)
        for i, width in enumerate(self.widths):
            driven, recurrent = _affine(self, i, x, width, gates=4, biases=(0.0, self.forget_bias, 0.0, 0.0))

            def step(
                state: tuple[Hidden, Hidden], drive: Driven, recurrent=recurrent
            ) -> tuple[tuple[Hidden, Hidden], Hidden]:
                h, c = state
                i, f, g, o = jnp.split(drive + h @ recurrent, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            start = jnp.zeros_like(driven[0, :, :width])
            _, x = jax.lax.scan(step, (start, start), driven)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_outputs, kernel_init=resolve(self.initialiser), name="output")(x[-1])


class GRU(nn.Module):
    """Network of gated recurrent units, with an output after the last step of the sequence.

    With inputs x₁, …, x_T, h₀ = 0 and σ the logistic function, in each recurrent layer

        r = σ(xₜ W_r + hₜ₋₁ U_r + b_r),    z = σ(xₜ W_z + hₜ₋₁ U_z + b_z),
        n = tanh(xₜ W_n + b_n + r ⊙ (hₜ₋₁ U_n + c)),    hₜ = z ⊙ hₜ₋₁ + (1 − z) ⊙ n,

    and the next layer's inputs are h₁, …, h_T. The output is an affine function of the last layer's h_T. The reset gate
    r acts after the product with U_n, as in cuDNN, PyTorch and Flax; in the first paper it acts before, on hₜ₋₁.

    At the start every gate's part of W and U is drawn on its own, as the matrix of a layer of `width` units, and all
    biases are 0 but b_z, which is `update_bias`: 0, as usual, keeps half of h in a step. The parameters of layer i are
    `input_{i}` (kernel W, bias b), `recurrent_{i}` (U) and `reset_{i}` (c), with the gates in the order r, z, n.

    Attributes:
        num_outputs: Number of outputs.
        widths: Units of each recurrent layer.
        initialiser: Initialiser of the input and output weights, as in `MLP`.
        recurrent_initialiser: Initialiser of each gate's part of U, likewise.
        update_bias: Start of the bias of z; may be traced. Memories of T steps need about ln T.
        dropout: Fraction of each layer's outputs zeroed in training, never inside the recurrence.

    References:
        Cho et al. (2014), Learning phrase representations using RNN encoder–decoder for statistical machine
        translation, equations 5 to 8; Tallec and Ollivier (2018), Can recurrent neural networks warp time?, for ln T.
    """

    num_outputs: int
    widths: Sequence[int] = (50,)
    initialiser: Any = "xavier"
    recurrent_initialiser: Any = "orthogonal"
    update_bias: Real[ArrayLike, ""] = 0.0
    dropout: float = 0.0

    def __post_init__(self):
        _check("GRU", self)
        check_real("GRU", "update_bias", self.update_bias)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Sequences, *, train: bool = False) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Sequences of shape (examples, steps, features).
            train: Whether to drop activations out.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs' shape does not suit the network.
        """
        x = _time_first("A GRU", x)
        for i, width in enumerate(self.widths):
            driven, recurrent = _affine(self, i, x, width, gates=3, biases=(0.0, self.update_bias, 0.0))
            shift = self.param(f"reset_{i}", nn.initializers.zeros, (width,), jnp.float32)

            def step(h: Hidden, drive: Driven, recurrent=recurrent, shift=shift) -> tuple[Hidden, Hidden]:
                by_input, by_state = jnp.split(drive, 3, axis=-1), jnp.split(h @ recurrent, 3, axis=-1)
                r, z = (jax.nn.sigmoid(by_input[gate] + by_state[gate]) for gate in (0, 1))
                n = jnp.tanh(by_input[2] + r * (by_state[2] + shift))
                h = z * h + (1 - z) * n
                return h, h

            _, x = jax.lax.scan(step, jnp.zeros_like(driven[0, :, :width]), driven)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_outputs, kernel_init=resolve(self.initialiser), name="output")(x[-1])


def _check(who: str, model: Any) -> None:
    check_integer(who, "num_outputs", model.num_outputs, 1)
    check_widths(who, "widths", model.widths)
    resolve(model.recurrent_initialiser)
    check_fraction(who, "dropout", model.dropout)
    resolve(model.initialiser)


def _time_first(who: str, x: Any) -> Float[Array, "steps examples features"]:
    x = jnp.asarray(x)
    if x.ndim != 3 or not (x.shape[1] and x.shape[2]):
        raise ValueError(
            f"{who} needs inputs of shape (examples, steps, features), with at least one step and one feature; "
            f"received {x.shape}."
        )
    return x.swapaxes(0, 1)  # scan needs time as the first axis


def _affine(
    model: Any, layer: int, x: Array, width: int, *, gates: int, biases: Sequence[Real[ArrayLike, ""]] = (0.0,)
) -> tuple[Float[Array, "steps examples gates"], Float[Array, "units gates"]]:
    """Return the part of a layer's affine sums that the inputs give, in one product for all steps, and U."""

    def bias(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key, shape
        return jnp.repeat(jnp.stack([jnp.asarray(value, dtype) for value in biases]), width)

    def square(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        found = resolve(model.recurrent_initialiser)(key, shape, dtype)
        if getattr(found, "shape", None) != shape:
            raise ValueError(
                f"The {type(model).__name__} needs its recurrent_initialiser to return an array of shape {shape}; "
                f"received {describe_argument(found)}."
            )
        return found

    kernel, size = _by_gate(resolve(model.initialiser), gates), gates * width
    driven = nn.Dense(size, kernel_init=kernel, bias_init=bias, name=f"input_{layer}")(x)
    return driven, model.param(f"recurrent_{layer}", _by_gate(square, gates), (width, size), jnp.float32)


def _by_gate(init: Initialiser, gates: int) -> Initialiser:
    """Return an initialiser that draws every gate's columns on their own: scale and orthogonality are a gate's."""
    if gates == 1:
        return init

    def draw(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        part = (*shape[:-1], shape[-1] // gates)
        return jnp.concatenate([init(one, part, dtype) for one in jax.random.split(key, gates)], axis=-1)

    return draw
