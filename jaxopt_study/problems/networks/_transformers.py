"""Flax Linen modules: a causal transformer on tokens and a vision transformer."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from jaxopt_study._checks import check_bool, check_choice, check_integer, describe_argument
from jaxopt_study.problems.networks._transformer_layers import (
    BlockNormalisation,
    Tokens,
    apply_blocks,
    block_normalisation,
    check_blocks,
    checked_initialiser,
    default_heads,
)
from jaxopt_study.types import Key

Positions = Literal["learned", "rotary"]


class GPT(nn.Module):
    """Causal pre-norm transformer: logits of the next token at every position.

    With token embedding E, learned positions P (unless rotary), and blocks of attention A and MLP M with their norms N:

        h = E[tokens] + P;   for each block: h ← h + A(N(h)), h ← h + M(N(h));   logits = N(h) Eᵀ  (or N(h) W, untied)

    It is GPT-2's network; with `normalisation="rms", positions="rotary", tied=False` it is close to LLaMA's. The layers
    are named `token_embedding`, `position_embedding`, `block_0` with `attention_norm`, `attention` (`query`, `key`,
    `value`, `output`), `mlp_norm`, `mlp_in`, `mlp_out`, then `norm` and, untied, `output`.

    Attributes:
        vocabulary_size: Number of tokens.
        context: Largest number of positions.
        depth: Number of blocks.
        width: Width of the residual stream.
        heads: Attention heads, which divide the width; None for 4, or for 2 or 1 where 4 does not divide it.
        mlp_ratio: Hidden units of each MLP, in widths.
        tied: Whether the output layer is the transposed token embedding.
        positions: "learned" embeddings, or "rotary" (RoFormer's).
        normalisation: "layer" or "rms".
        activation: Activation of the MLPs.
        initialiser: Initialiser of weights and embeddings, as in `MLP`; GPT-2's standard deviation is .02. What a
            residual branch adds is divided by √(2 · depth), as there. Biases start at 0.
        dropout: Fraction of the embeddings and of each branch's output zeroed in training.
        remat: Whether each block's intermediate values are computed again in the backward pass instead of stored.
        scan: Whether the blocks run in one loop, so that the program does not grow with the depth. It stacks the
            parameters in every call, which copies them once.
    """

    vocabulary_size: int
    context: int
    depth: int = 2
    width: int = 64
    heads: int | None = None
    mlp_ratio: int = 4
    tied: bool = True
    positions: Positions = "learned"
    normalisation: BlockNormalisation = "layer"
    activation: str | Callable = "gelu"
    initialiser: Any = 0.02
    dropout: float = 0.0
    remat: bool = False
    scan: bool = False

    def __post_init__(self):
        check_integer("GPT", "vocabulary_size", self.vocabulary_size, 1)
        check_integer("GPT", "context", self.context, 1)
        check_bool("GPT", "tied", self.tied)
        check_choice("GPT", "positions", self.positions, ("learned", "rotary"))
        check_blocks("GPT", self)
        heads = self.heads or default_heads(self.width)
        if self.positions == "rotary" and self.width // heads % 2:
            raise ValueError(
                "Rotary positions rotate pairs of features, so the width of a head must be even; received width "
                f"{self.width} and {heads} heads."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, tokens: Shaped[ArrayLike, "examples positions"], *, train: bool = False
    ) -> Float[Array, "examples positions {self.vocabulary_size}"]:
        """Apply the network.

        Args:
            tokens: Integers in {0, …, vocabulary_size − 1}; any other gives NaN.
            train: Whether to drop activations out.

        Returns:
            Logits of the token after each position, which depend on no later token.

        Raises:
            TypeError: If the tokens are not integers.
            ValueError: If there are more positions than the context has.
        """
        tokens = jnp.asarray(tokens)
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"A GPT needs tokens that are integers; received {describe_argument(tokens)}.")
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.context:
            raise ValueError(
                f"A GPT with context={self.context} needs tokens of shape (examples, positions), with 1 to "
                f"{self.context} positions; received {tokens.shape}."
            )
        init = checked_initialiser(self.initialiser)
        embedding = nn.Embed(self.vocabulary_size, self.width, embedding_init=init, name="token_embedding")
        x = embedding(jnp.where(tokens < 0, self.vocabulary_size, tokens))  # NaN, as beyond the vocabulary
        if self.positions == "learned":
            table = nn.Embed(self.context, self.width, embedding_init=init, name="position_embedding")
            x = x + table(jnp.arange(tokens.shape[1]))[None]
        x, key = _dropped(self, x, train)
        x = apply_blocks(self, x, key, causal=True, rotary=self.positions == "rotary")
        x = block_normalisation(self.normalisation, "norm")(x)
        if self.tied:
            return embedding.attend(x)
        return nn.Dense(self.vocabulary_size, use_bias=False, kernel_init=init, name="output")(x)


class VisionTransformer(nn.Module):
    """Vision transformer: patches of an image as tokens, a class token, blocks as of `GPT` without the causal mask.

    A patch is mapped linearly to the width of the residual stream; a learned class token precedes the patches, learned
    positions are added, and the outputs are an affine function of the normalised class token after the last block.

    Attributes:
        num_outputs: Number of outputs.
        patch_size: Side of the square patches, which divides height and width of the images; None for a quarter of
            the height, 16 patches of a square image.
        depth: As in `GPT`.
        width: As in `GPT`.
        heads: As in `GPT`.
        mlp_ratio: As in `GPT`.
        normalisation: As in `GPT`.
        activation: As in `GPT`.
        initialiser: As in `GPT`.
        dropout: As in `GPT`.
        remat: As in `GPT`.
        scan: As in `GPT`.

    References:
        Dosovitskiy et al. (2021), An image is worth 16 × 16 words, equations 1 to 4.
    """

    num_outputs: int
    patch_size: int | None = None
    depth: int = 2
    width: int = 64
    heads: int | None = None
    mlp_ratio: int = 4
    normalisation: BlockNormalisation = "layer"
    activation: str | Callable = "gelu"
    initialiser: Any = 0.02
    dropout: float = 0.0
    remat: bool = False
    scan: bool = False

    def __post_init__(self):
        check_integer("VisionTransformer", "num_outputs", self.num_outputs, 1)
        if self.patch_size is not None:
            check_integer("VisionTransformer", "patch_size", self.patch_size, 1)
        check_blocks("VisionTransformer", self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[ArrayLike, "examples ..."], *, train: bool = False
    ) -> Float[Array, "examples {self.num_outputs}"]:
        """Apply the network.

        Args:
            x: Images of shape (examples, height, width, channels).
            train: Whether to drop activations out.

        Returns:
            Outputs, shape (examples, num_outputs).

        Raises:
            ValueError: If the inputs are no images that the patches divide.
        """
        init = checked_initialiser(self.initialiser)
        patches = _patches(jnp.asarray(x), self.patch_size)
        tokens = nn.Dense(self.width, kernel_init=init, name="patch_embedding")(patches)
        first = self.param("class_token", init, (1, self.width), jnp.float32).astype(tokens.dtype)
        tokens = jnp.concatenate([jnp.broadcast_to(first, (len(tokens), 1, self.width)), tokens], axis=1)
        table = nn.Embed(tokens.shape[1], self.width, embedding_init=init, name="position_embedding")
        tokens, key = _dropped(self, tokens + table(jnp.arange(tokens.shape[1]))[None], train)
        tokens = apply_blocks(self, tokens, key, causal=False, rotary=False)
        pooled = block_normalisation(self.normalisation, "norm")(tokens[:, 0])
        return nn.Dense(self.num_outputs, kernel_init=init, name="output")(pooled)


# Drop embeddings out in training, and draw the key of the blocks' dropout.
def _dropped(model: Any, x: Tokens, train: bool) -> tuple[Tokens, Key | None]:
    if not (train and model.dropout):
        return x, None
    first, rest = jax.random.split(model.make_rng("dropout"))
    return nn.Dropout(model.dropout, deterministic=False)(x, rng=first), rest


def _patches(
    x: Float[Array, "examples height width channels"], size: int | None
) -> Float[Array, "examples patches pixels"]:
    if x.ndim != 4:
        raise ValueError(
            f"A VisionTransformer needs inputs of shape (examples, height, width, channels); received {x.shape}. "
            "Load the data set with flatten=False."
        )
    examples, height, width, channels = x.shape
    side = max(1, height // 4) if size is None else size
    if height % side or width % side:
        raise ValueError(
            f"A VisionTransformer needs a patch_size that divides the height and the width of the images, {height} and "
            f"{width}; received {side}."
        )
    rows, columns = height // side, width // side
    blocks = x.reshape(examples, rows, side, columns, side, channels).swapaxes(2, 3)
    return blocks.reshape(examples, rows * columns, side * side * channels)
