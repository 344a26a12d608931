"""Classes and tokens with heavy-tailed frequencies, on which gradient descent and Adam differ."""

import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import check_integer, check_static_real
from jaxopt_study.problems.datasets._dataset import Dataset, Examples
from jaxopt_study.problems.datasets._synthetic import drawn


def heavy_tailed_classes(
    *,
    num_classes: int = 100,
    num_features: int = 100,
    exponent: float = 1.0,
    separation: float = 1.0,
    num_train: int = 5_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> Dataset:
    """Draw a classification task whose k-th class has a frequency proportional to k^(−a).

    With class y, which has a mean m_y ~ N(0, I), an input is x = separation · m_y + z with z ~ N(0, I). The classes are
    equally hard, but most of them rare: with a = 1 the first of 100 holds 19 % of the examples, the last .2 %.

    Args:
        num_classes: Number of classes.
        num_features: Length of the inputs.
        exponent: a ≥ 0; at 0 all classes are equally frequent, at 1 they follow Zipf's law, as words do.
        separation: Factor of the means, at least 0; at 0 the inputs say nothing about the class.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: inputs of shape (examples, num_features).

    Example:
        >>> counts = np.bincount(heavy_tailed_classes().train["y"], minlength=100)
        >>> print(0.16 < counts[0] / 5000 < 0.22, counts[50:].sum() < counts[0])
        True True

    References:
        Kunstner et al. (2024), Heavy-tailed class imbalance and why Adam outperforms gradient descent on language
        models.
    """
    check_integer("heavy_tailed_classes", "num_classes", num_classes, 1)
    check_integer("heavy_tailed_classes", "num_features", num_features, 1)
    exponent = check_static_real("heavy_tailed_classes", "exponent", exponent, 0)
    separation = check_static_real("heavy_tailed_classes", "separation", separation, 0)
    check_integer("heavy_tailed_classes", "seed", seed, 0, high=None)
    means = np.random.default_rng([seed, num_classes, num_features]).standard_normal((num_classes, num_features))
    frequencies = zipf(num_classes, exponent)

    def draw(rng: np.random.Generator, size: int) -> Examples:
        y = rng.choice(num_classes, size, p=frequencies)
        x = separation * means[y] + rng.standard_normal((size, num_features))
        return {"x": x.astype(np.float32), "y": y.astype(np.int32)}

    return drawn(
        f"heavy_tailed_classes-{num_classes}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: Gaussian classes with heavy-tailed frequencies",
        details={"num_features": num_features, "exponent": exponent, "separation": separation},
        num_classes=num_classes,
    )


def heavy_tailed_tokens(
    *,
    vocabulary_size: int = 200,
    exponent: float = 1.0,
    repetition: float = 0.5,
    length: int = 32,
    num_train: int = 5_000,
    num_validation: int = 500,
    num_test: int = 500,
    seed: int = 0,
) -> Dataset:
    """Draw sequences of tokens whose k-th token has a frequency proportional to k^(−a), with a known best loss.

    With frequencies π, the next token repeats the current one with probability r, and is otherwise drawn from π. Every
    token of a sequence then has the distribution π, and the least possible cross-entropy is the entropy of
    r δ_k + (1 − r) π, averaged over k ~ π: `details["irreducible_cross_entropy"]`, in nats.

    Args:
        vocabulary_size: Number of tokens.
        exponent: a ≥ 0; at 0 all tokens are equally frequent, at 1 they follow Zipf's law, as words do.
        repetition: r in [0, 1]; at 0 the tokens are independent.
        length: Number of positions.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: tokens of shape (examples, length).

    Example:
        >>> dataset = heavy_tailed_tokens(repetition=0.0, exponent=0.0)
        >>> print(np.isclose(dataset.details["irreducible_cross_entropy"], np.log(200)))
        True

    References:
        Kunstner et al. (2024), Heavy-tailed class imbalance and why Adam outperforms gradient descent on language
        models.
    """
    check_integer("heavy_tailed_tokens", "vocabulary_size", vocabulary_size, 1)
    exponent = check_static_real("heavy_tailed_tokens", "exponent", exponent, 0)
    repetition = check_static_real("heavy_tailed_tokens", "repetition", repetition, 0, 1)
    check_integer("heavy_tailed_tokens", "length", length, 1)
    frequencies = zipf(vocabulary_size, exponent)

    def draw(rng: np.random.Generator, size: int) -> Examples:
        tokens = rng.choice(vocabulary_size, (size, length + 1), p=frequencies).astype(np.int32)
        fresh = rng.uniform(size=tokens.shape) >= repetition
        fresh[:, 0] = True
        # A repeated token is the last fresh one before it.
        places = np.maximum.accumulate(np.where(fresh, np.arange(length + 1), 0), axis=1)
        sequence = np.take_along_axis(tokens, places, axis=1)
        return {"x": sequence[:, :-1], "y": sequence[:, 1:]}

    return drawn(
        f"heavy_tailed_tokens-{vocabulary_size}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: tokens with heavy-tailed frequencies, which repeat",
        details={
            "exponent": exponent,
            "repetition": repetition,
            "length": length,
            "irreducible_cross_entropy": _conditional_entropy(frequencies, repetition),
        },
        vocabulary_size=vocabulary_size,
    )


def zipf(size: int, exponent: float) -> Float[np.ndarray, " size"]:
    """Return probabilities proportional to k^(−exponent), k = 1, …, size."""
    weights = np.arange(1.0, size + 1) ** -exponent
    return weights / weights.sum()


# The entropy of r δ_k + (1 − r) π averaged over k ~ π, from the sum over the tokens that are not k.
def _conditional_entropy(frequencies: Float[np.ndarray, " size"], repetition: float) -> float:
    def terms(p: Float[np.ndarray, " size"]) -> Float[np.ndarray, " size"]:
        return -p * np.log(np.where(p > 0, p, 1.0))

    others = terms((1 - repetition) * frequencies)
    return float(frequencies @ (others.sum() - others + terms(repetition + (1 - repetition) * frequencies)))
