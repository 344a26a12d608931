"""Training of a module on sequences of tokens, as a `Problem`: loss, metrics, the transformers in one call."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, Real

from jaxopt_study._checks import check_real, describe_argument
from jaxopt_study.problems._metric import better
from jaxopt_study.problems._problem import Problem
from jaxopt_study.problems.datasets import Dataset, text
from jaxopt_study.problems.networks._losses import cross_entropies
from jaxopt_study.problems.networks._supervised import check_model, classifier, supervised, with_options
from jaxopt_study.problems.networks._transformers import GPT, VisionTransformer
from jaxopt_study.types import Scalar


@better("min")
def token_cross_entropy(
    logits: Float[Array, "examples positions tokens"],
    targets: Integer[ArrayLike, "examples positions"],
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
) -> Scalar:
    """Average the cross-entropy of the targets that count, per example and then over the examples.

    With the set Tᵢ of positions of example i whose target is not negative, and `cross_entropy` ℓ of one token:

        L = 1/n Σᵢ 1/|Tᵢ| Σ_{t ∈ Tᵢ} ℓ(logitsᵢₜ, targetsᵢₜ)

    It is a mean over examples, as streaming in batches needs; where all examples count equally many tokens, as in all
    data sets of this package but `induction`, it is also the mean over tokens.

    Args:
        logits: Unnormalised scores of the tokens.
        targets: Tokens; a negative one does not count.
        label_smoothing: As in `cross_entropy`.

    Returns:
        The mean, in nats per token. An example without a target that counts adds 0.

    Raises:
        TypeError: If the targets are not integers.
        ValueError: If shapes do not match, or the smoothing is out of range.

    Example:
        >>> targets = jnp.array([[-1, 2], [0, 1]])
        >>> print(jnp.round(token_cross_entropy(jnp.zeros((2, 2, 3)), targets), 4))  # ln 3, before training
        1.0986
    """
    check_real("token_cross_entropy", "label_smoothing", label_smoothing, 0, 1, closed="[)")
    targets = _checked("token_cross_entropy", logits, targets)
    # A target that does not count is read as token 0, whose loss is finite, and has weight 0.
    return _mean_of_counted(cross_entropies(logits, jnp.maximum(targets, 0), label_smoothing, soft=False), targets)


@better("max")
def token_accuracy(
    logits: Float[Array, "examples positions tokens"], targets: Integer[ArrayLike, "examples positions"]
) -> Scalar:
    """Return the fraction of the targets that count whose logit is the largest, per example and then over the examples.

    Args:
        logits: Scores of the tokens.
        targets: Tokens; a negative one does not count.

    Returns:
        The fraction, in [0, 1]. The tokens of a sequence are not independent, so the noise between examples is not
        binomial.

    Raises:
        TypeError: If the targets are not integers.
        ValueError: If shapes do not match.

    Example:
        >>> print(token_accuracy(jnp.eye(3)[None], jnp.array([[0, 2, -1]])))
        0.5
    """
    targets = _checked("token_accuracy", logits, targets)
    return _mean_of_counted((jnp.argmax(logits, axis=-1) == targets).astype(logits.dtype), targets)


def language_model(
    model: nn.Module,
    dataset: Dataset,
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    name: str | None = None,
) -> Problem:
    """Make the problem of training a Linen module on sequences of tokens, with `token_cross_entropy` as loss.

    A batch is `{"x": tokens, "y": targets}`, both of shape (examples, positions); a target of −1 does not count.
    Everything else is as in `classifier`. It is `gpt` for a module of one's own.

    Args:
        model: A module mapping tokens (examples, positions) to logits (examples, positions, vocabulary).
        dataset: A data set of tokens, such as `datasets.text()`.
        label_smoothing: s in [0, 1); may be traced.
        weight_decay: λ ≥ 0, the factor of the penalty on leaves with two or more axes, embeddings included; may be
            traced.
        name: Name of the problem; default: data set and module.

    Returns:
        The problem. Its metrics are "accuracy" and "cross_entropy" of the tokens, the latter in nats, without smoothing
        and penalty.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the data set has no tokens, the module's output differs in shape, or a number is out of range.
    """
    check_model("language_model", model, dataset)
    vocabulary = _vocabulary_size("language_model", dataset)
    check_real("language_model", "label_smoothing", label_smoothing, 0, 1, closed="[)")
    return supervised(
        "language_model",
        model,
        dataset,
        (*dataset.input_shape, vocabulary),
        lambda logits, targets: token_cross_entropy(logits, targets, label_smoothing=label_smoothing),
        {"accuracy": token_accuracy, "cross_entropy": token_cross_entropy},
        weight_decay=weight_decay,
        name=name,
        settings={"label_smoothing": label_smoothing},
    )


def gpt(
    dataset: Dataset | None = None,
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    **options: Any,
) -> Problem:
    """Make the problem of training a transformer to predict the next token of a sequence.

    Sizes, without the embeddings of vocabulary and positions (a block has 12 · width² + 13 · width parameters):

        depth 2,  width 48:   56 thousand          depth 6,  width 384:  10.6 million
        depth 2,  width 64:   100 thousand         depth 12, width 512:  38 million
        depth 4,  width 128:  793 thousand         depth 12, width 768:  85 million, GPT-2's smallest

    Args:
        dataset: A data set of tokens: `datasets.text()`, the default; `copy`, `induction`, `modular_addition`,
            `heavy_tailed_tokens`, or one's own `Dataset` with a `vocabulary_size`.
        label_smoothing: As in `classifier`.
        weight_decay: As in `language_model`.
        **options: Attributes of `GPT`: context, depth, width, heads, mlp_ratio, tied, positions, normalisation,
            activation, initialiser, dropout, remat, scan. The default context is the length of the data set's
            sequences.

    Returns:
        The problem. Its parameters, losses and derivatives do not depend on `remat` and `scan`, but for rounding.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the data set has no tokens, or an option is out of range.

    Example:
        >>> import jax
        >>> from jaxopt_study.problems import datasets, networks
        >>> problem = networks.gpt(datasets.copy(num_train=8), depth=1, width=16)
        >>> params = problem.init(jax.random.key(0))
        >>> print(params["block_0"]["attention"]["query"]["kernel"].shape)
        (16, 16)

    References:
        Radford et al. (2019), Language models are unsupervised multitask learners, §2.3: pre-norm, initialisation. Su
        et al. (2021): rotary positions. Zhang and Sennrich (2019): RMS norm. Press and Wolf (2017): tied embeddings.
    """
    if dataset is None:
        dataset = text()
    vocabulary = _vocabulary_size("gpt", dataset)
    options.setdefault("context", dataset.input_shape[0])
    model = with_options("gpt", GPT, vocabulary, options)
    return language_model(model, dataset, label_smoothing=label_smoothing, weight_decay=weight_decay)


def vision_transformer(
    dataset: Dataset,
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    **options: Any,
) -> Problem:
    """Make the problem of training a vision transformer as a classifier.

    Args:
        dataset: Images with classes, loaded with `flatten=False`: `datasets.digits`, `datasets.mnist`.
        label_smoothing: As in `classifier`.
        weight_decay: As in `classifier`.
        **options: Attributes of `VisionTransformer`: patch_size, depth, width, heads, mlp_ratio, normalisation,
            activation, initialiser, dropout, remat, scan.

    Returns:
        The problem; the default has 16 patches, two blocks of width 64, and 100 thousand parameters in them.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the data set has no classes or no images, or an option is out of range.

    Example:
        >>> from jaxopt_study.problems import datasets, networks
        >>> problem = networks.vision_transformer(datasets.digits(flatten=False), depth=1, width=16)
        >>> print(problem.metadata["num_params"])
        3850
    """
    check_dataset("vision_transformer", dataset)
    if dataset.num_classes is None:
        raise ValueError(f"vision_transformer needs a data set with classes; {dataset.name!r} has none.")
    model = with_options("vision_transformer", VisionTransformer, dataset.num_classes, options)
    return classifier(model, dataset, label_smoothing=label_smoothing, weight_decay=weight_decay)


def check_dataset(who: str, dataset: Any) -> Dataset:
    """Return a data set; raise TypeError for anything else."""
    if not isinstance(dataset, Dataset):
        raise TypeError(f"{who} needs a Dataset; received {describe_argument(dataset)}.")
    return dataset


def _vocabulary_size(who: str, dataset: Any) -> int:
    size = check_dataset(who, dataset).vocabulary_size
    if size is None:
        raise ValueError(
            f"{who} needs a data set of tokens, such as datasets.text(); {dataset.name!r} has no vocabulary_size."
        )
    return size


def _checked(who: str, logits: Any, targets: Any) -> Integer[Array, "examples positions"]:
    try:
        targets = jnp.asarray(targets)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{who} needs targets to be integers; received {describe_argument(targets)}.") from error
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"{who} needs targets to be integers; received {targets.dtype}.")
    if jnp.ndim(logits) != 3 or targets.shape != jnp.shape(logits)[:2]:
        raise ValueError(
            f"{who} needs logits of shape (examples, positions, tokens) and targets of shape (examples, positions); "
            f"received {jnp.shape(logits)} and {targets.shape}."
        )
    return targets


def _mean_of_counted(
    values: Float[Array, "examples positions"], targets: Integer[Array, "examples positions"]
) -> Scalar:
    counted = targets >= 0
    totals = jnp.sum(jnp.where(counted, values, 0), axis=1)
    return jnp.mean(totals / jnp.maximum(jnp.sum(counted, axis=1), 1).astype(values.dtype))
