"""Tasks on sequences of tokens: copying, induction, modular addition."""

import numpy as np

from jaxopt_study._checks import check_integer
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError, Examples
from jaxopt_study.problems.datasets._splits import divide
from jaxopt_study.problems.datasets._synthetic import drawn


def copy(
    *,
    num_symbols: int = 16,
    length: int = 16,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> Dataset:
    """Draw the copy task: repeat a random sequence after a delimiter.

    An example is s₁ … s_n | s₁ … s_n with independent, uniformly distributed symbols and the delimiter |, the last
    token. The n targets from the delimiter on count. Chance level is a cross-entropy of ln num_symbols; the least
    possible is 0, by attention to a fixed distance.

    Args:
        num_symbols: Number of symbols; the vocabulary has one more.
        length: n.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: tokens of shape (examples, 2n).

    Example:
        >>> dataset = copy(length=3, num_train=5)
        >>> x, y = dataset.train["x"], dataset.train["y"]
        >>> print((y[:, 3:] == x[:, :3]).all(), (y[:, :3] == -1).all())
        True True

    References:
        Graves, Wayne and Danihelka (2014), Neural Turing machines, §4.1.
    """
    check_integer("copy", "num_symbols", num_symbols, 1)
    check_integer("copy", "length", length, 1)

    def draw(rng: np.random.Generator, size: int) -> Examples:
        symbols = rng.integers(0, num_symbols, (size, length), dtype=np.int32)
        delimiter = np.full((size, 1), num_symbols, np.int32)
        hidden = np.full((size, length), -1, np.int32)
        return {
            "x": np.concatenate([symbols, delimiter, symbols[:, :-1]], axis=1),
            "y": np.concatenate([hidden, symbols], axis=1),
        }

    return drawn(
        f"copy-{length}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: the copy task",
        details={"num_symbols": num_symbols, "length": length},
        vocabulary_size=num_symbols + 1,
    )


def induction(
    *,
    num_symbols: int = 32,
    length: int = 32,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> Dataset:
    """Draw the induction task: continue a random sequence that repeats with an unknown period.

    Each example draws a period p uniformly from {length/4, …, length/2} and p different symbols, and repeats them to
    the end. A target counts where the current symbol has occurred before: what followed it then follows it now. The
    least possible cross-entropy is 0. Because the period varies, attention to a fixed distance does not suffice; an
    induction head does, which takes two blocks.

    Args:
        num_symbols: Size of the vocabulary, at least length/2.
        length: Number of positions, at least 4.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: tokens of shape (examples, length).

    Raises:
        DatasetError: If there are too few symbols.

    Example:
        >>> x = induction(num_symbols=8, length=8, num_train=1).train["x"][0]
        >>> period = int(np.argmax(x[1:] == x[0])) + 1
        >>> print(2 <= period <= 4, (x[period:] == x[:-period]).all())
        True True

    References:
        Olsson et al. (2022), In-context learning and induction heads: repeated random sequences.
    """
    check_integer("induction", "length", length, 4)
    check_integer("induction", "num_symbols", num_symbols, 1)
    if num_symbols < length // 2:
        raise DatasetError(
            f"The induction task needs num_symbols ≥ length/2 = {length // 2}, for a period of different symbols; "
            f"received {num_symbols}."
        )

    def draw(rng: np.random.Generator, size: int) -> Examples:
        periods = rng.integers(length // 4, length // 2, size, endpoint=True)[:, None]
        cycles = rng.permuted(np.tile(np.arange(num_symbols, dtype=np.int32), (size, 1)), axis=1)
        sequence = np.take_along_axis(cycles, np.arange(length + 1) % periods, axis=1)
        predictable = np.arange(length) >= periods
        return {"x": sequence[:, :-1], "y": np.where(predictable, sequence[:, 1:], np.int32(-1))}

    return drawn(
        f"induction-{length}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: the induction task",
        details={"num_symbols": num_symbols, "length": length},
        vocabulary_size=num_symbols,
    )


def modular_addition(
    *,
    modulus: int = 97,
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> Dataset:
    """List the sums of all pairs of residues: a + b mod p, the task on which networks "grok".

    An example is the tokens a, b, =; the target after = is a + b mod p, the only one that counts. The p² pairs are
    divided at random. A network first remembers the training pairs, and generalises to the others only much later, if
    at all: with weight decay and enough training pairs.

    Args:
        modulus: p, at least 2; the vocabulary has one token more, for =.
        num_train: Number of training pairs; None for half of all.
        num_validation: Number of validation pairs; None for a quarter of all, 0 for none.
        num_test: Number of test pairs; None for a quarter of all, 0 for none.
        seed: Seed of the division.

    Returns:
        The data set: tokens of shape (pairs, 3).

    Raises:
        DatasetError: If there are fewer pairs than requested.

    Example:
        >>> dataset = modular_addition(modulus=5)
        >>> x, y = dataset.train["x"], dataset.train["y"]
        >>> print((y[:, 2] == (x[:, 0] + x[:, 1]) % 5).all())
        True

    References:
        Power et al. (2022), Grokking: Generalization beyond overfitting on small algorithmic datasets. Nanda et al.
        (2023), Progress measures for grokking via mechanistic interpretability.
    """
    check_integer("modular_addition", "modulus", modulus, 2, 2**15)
    first, second = (axis.ravel() for axis in np.divmod(np.arange(modulus**2, dtype=np.int32), modulus))
    x = np.stack([first, second, np.full_like(first, modulus)], axis=1)
    y = np.full_like(x, -1)
    y[:, 2] = (first + second) % modulus
    sizes: dict[str, int | None] = {
        "train": len(x) // 2 if num_train is None else num_train,
        "validation": len(x) // 4 if num_validation is None else num_validation,
        "test": len(x) // 4 if num_test is None else num_test,
    }
    rows = divide(np.zeros(len(x), np.int32), sizes, split="stratified", seed=seed, name="modular_addition")
    parts: dict[str, Examples] = {part: {"x": x[which], "y": y[which]} for part, which in rows.items()}
    return Dataset(
        name=f"modular_addition-{modulus}",
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        vocabulary_size=modulus + 1,
        source="all sums of two residues",
        details={"modulus": modulus, "seed": seed},
    )
