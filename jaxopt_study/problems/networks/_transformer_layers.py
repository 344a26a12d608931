"""Transformer blocks: attention with masks and rotary positions, pre-normalised residual branches, a stack of blocks.

All is made of products, sums and softmax, without a fused kernel, so that derivatives of both modes and every order
exist, on every backend.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._checks import check_bool, check_choice, check_integer, describe_argument
from jaxopt_study._programs import wider
from jaxopt_study.problems.networks._layers import check_fraction, resolve_activation
from jaxopt_study.problems.networks.initialisers import Initialiser, resolve
from jaxopt_study.types import Key

BlockNormalisation = Literal["layer", "rms"]
Tokens = Float[Array, "examples positions width"]
Heads = Float[Array, "examples positions heads size"]


def block_normalisation(kind: str, name: str) -> nn.Module:
    """Make the normalisation of a transformer over the last axis, with a learned scale and ε = 1e-5.

    Args:
        kind: "layer", with an offset (Ba, Kiros and Hinton 2016), or "rms", without one and without subtracting the
            mean (Zhang and Sennrich 2019).
        name: Name of the layer in the parameters.

    Returns:
        The layer.
    """
    if kind == "rms":
        return nn.RMSNorm(epsilon=1e-5, name=name)
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


def rotate(x: Heads, *, base: float = 10_000.0) -> Heads:
    """Rotate pairs of features by angles proportional to their position, as RoFormer does.

    At position m and with size d, for i = 0, …, d/2 − 1 and θᵢ = base^(−2i/d), the pair (x₂ᵢ, x₂ᵢ₊₁) is rotated by the
    angle m θᵢ. The inner product of a query at m and a key at n then depends on m and n only through m − n.

    Args:
        x: Queries or keys; d is even.
        base: The largest wavelength is 2π · base^((d − 2)/d).

    Returns:
        The rotated array, in the dtype of x.

    References:
        Su et al. (2021), RoFormer: Enhanced transformer with rotary position embedding, equations 14 and 15.
    """
    positions, size = x.shape[-3], x.shape[-1]
    dtype = wider(x.dtype, jnp.float32)  # half precision cannot count positions
    frequencies = base ** (-jnp.arange(0, size, 2, dtype=dtype) / size)
    angles = jnp.arange(positions, dtype=dtype)[None, :, None, None] * frequencies[None, None, None, :]
    cosine, sine = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1).reshape(x.shape)


def attend(query: Heads, key: Heads, value: Heads, *, causal: bool) -> Heads:
    """Average values with weights softmax(query · key / √size), over all positions or those not later than the query.

    Args:
        query: One query for each position and head.
        key: Likewise.
        value: Likewise.
        causal: Whether a position sees only itself and earlier ones.

    Returns:
        The averages. Memory: examples × heads × positions² weights.

    References:
        Vaswani et al. (2017), Attention is all you need, equation 1.
    """
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    if causal:
        # A finite lowest score: −∞ would be a NaN for JAX's debugger, and for a row without any score.
        visible = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(visible[None, None], scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), value)


class Attention(nn.Module):
    """Multi-head self-attention, with separate maps for queries, keys and values.

    Attributes:
        heads: Number of heads; it divides the width.
        causal: As in `attend`.
        rotary: Whether queries and keys are rotated by their position.
        initialiser: Initialiser of the maps into the heads.
        output_initialiser: Initialiser of the map out of them.
    """

    heads: int
    causal: bool
    rotary: bool
    initialiser: Initialiser
    output_initialiser: Initialiser

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the output of the attention, without the residual."""
        shape = (*x.shape[:2], self.heads, x.shape[-1] // self.heads)
        query, key, value = (
            nn.Dense(x.shape[-1], kernel_init=self.initialiser, name=name)(x).reshape(shape)
            for name in ("query", "key", "value")
        )
        if self.rotary:
            query, key = rotate(query), rotate(key)
        mixed = attend(query, key, value, causal=self.causal).reshape(x.shape)
        return nn.Dense(x.shape[-1], kernel_init=self.output_initialiser, name="output")(mixed)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    Attributes:
        heads: As in `Attention`.
        causal: As in `Attention`.
        rotary: As in `Attention`.
        hidden: Units of the hidden layer of the MLP.
        activation: Its activation.
        normalisation: "layer" or "rms".
        initialiser: Initialiser of the weights.
        output_initialiser: Initialiser of the weights whose output is added to the residual stream.
        dropout: Fraction of each branch's output zeroed in training.
    """

    heads: int
    causal: bool
    rotary: bool
    hidden: int
    activation: Callable
    normalisation: str
    initialiser: Initialiser
    output_initialiser: Initialiser
    dropout: float

    @nn.compact
    def __call__(self, x: Tokens, key: Key | None = None) -> Tokens:
        """Apply the block.

        Args:
            x: The residual stream.
            key: Key of the dropout; None for none.

        Returns:
            The residual stream after the block.
        """

        def drop(branch: Tokens, index: int) -> Tokens:
            if key is None or not self.dropout:
                return branch
            return nn.Dropout(self.dropout, deterministic=False)(branch, rng=jax.random.fold_in(key, index))

        attention = Attention(
            self.heads, self.causal, self.rotary, self.initialiser, self.output_initialiser, name="attention"
        )
        x = x + drop(attention(block_normalisation(self.normalisation, "attention_norm")(x)), 0)
        hidden = nn.Dense(self.hidden, kernel_init=self.initialiser, name="mlp_in")(
            block_normalisation(self.normalisation, "mlp_norm")(x)
        )
        active = self.activation(hidden)
        if getattr(active, "shape", None) != hidden.shape:
            raise ValueError(
                f"A transformer needs an activation that keeps the shape of its argument, {hidden.shape}; received "
                f"{describe_argument(active)} from it."
            )
        return x + drop(nn.Dense(x.shape[-1], kernel_init=self.output_initialiser, name="mlp_out")(active), 1)


def apply_blocks(model: Any, x: Tokens, key: Key | None, *, causal: bool, rotary: bool) -> Tokens:
    """Apply the blocks of a transformer inside its compact method, as its attributes say.

    The parameters, "block_0", "block_1", …, are the same whether the layers are scanned, recomputed, or neither.

    Args:
        model: The module, with the attributes of `GPT` that blocks share.
        x: The residual stream.
        key: Key of the dropout; None for none.
        causal: As in `attend`.
        rotary: As in `Attention`.

    Returns:
        The residual stream after the last block.
    """
    initialiser, depth = checked_initialiser(model.initialiser), model.depth
    options = {
        "heads": model.heads or default_heads(model.width),
        "causal": causal,
        "rotary": rotary,
        "hidden": model.mlp_ratio * model.width,
        "activation": resolve_activation(model.activation),
        "normalisation": model.normalisation,
        "initialiser": initialiser,
        "output_initialiser": _divided(initialiser, (2 * depth) ** 0.5),
        "dropout": model.dropout,
    }
    keys = None if key is None else jax.random.split(key, depth)
    if model.is_initializing() or not (model.remat or model.scan):
        for i in range(depth):
            x = Block(**options, name=f"block_{i}")(x, None if keys is None else keys[i])
        return x
    block = Block(**options, parent=None)
    layers = [model.variables["params"][f"block_{i}"] for i in range(depth)]

    def one(x: Tokens, layer: tuple[Any, Key | None]) -> Tokens:
        params, key = layer
        return block.apply({"params": params}, x, key)  # pyright: ignore[reportReturnType]

    if model.remat:
        one = jax.checkpoint(one, prevent_cse=not model.scan)
    if not model.scan:
        for i, params in enumerate(layers):
            x = one(x, (params, None if keys is None else keys[i]))
        return x
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return jax.lax.scan(lambda x, layer: (one(x, layer), None), x, (stacked, keys))[0]


def checked_initialiser(initialiser: Any) -> Initialiser:
    """Return the initialiser for a name, a standard deviation or a function, which raises for a wrong shape."""
    make = resolve(initialiser)

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, "..."]:
        weights = make(key, shape, dtype)
        if getattr(weights, "shape", None) != shape:
            raise ValueError(
                f"A transformer needs its initialiser to return an array of shape {shape}; received "
                f"{describe_argument(weights)}."
            )
        return weights

    return init


def default_heads(width: int) -> int:
    """Return 4, or the largest of 2 and 1 that divides the width."""
    return next(heads for heads in (4, 2, 1) if width % heads == 0)


def check_blocks(who: str, model: Any) -> None:
    """Raise TypeError or ValueError unless the attributes that blocks share are in range."""
    for name in ("depth", "width", "mlp_ratio"):
        check_integer(who, name, getattr(model, name), 1)
    if model.heads is not None:
        check_integer(who, "heads", model.heads, 1)
        if model.width % model.heads:
            raise ValueError(
                f"{who} needs a width that is a multiple of its heads; received width {model.width} and {model.heads} "
                "heads."
            )
    check_choice(who, "normalisation", model.normalisation, ("layer", "rms"))
    check_fraction(who, "dropout", model.dropout)
    check_bool(who, "remat", model.remat)
    check_bool(who, "scan", model.scan)
    resolve_activation(model.activation)
    resolve(model.initialiser)


# GPT-2 divides the first weights of each residual branch's output by √(number of branches).
def _divided(initialiser: Initialiser, divisor: float) -> Initialiser:
    return lambda key, shape, dtype=jnp.float32: initialiser(key, shape, dtype) / divisor
