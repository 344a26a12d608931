"""Synthetic tasks: a damped-cosine regression, a sparse classification, and two tests of long-term memory."""

from collections.abc import Callable

import numpy as np

from jaxopt_study._checks import check_bool, check_integer, check_static_real
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError, Examples


def damped_cosine(
    *,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    noise: float = 0.03,
    seed: int = 0,
) -> Dataset:
    """Draw the damped-cosine regression problem.

        y = exp(−x²) cos(10x) + noise · z,   x ~ U(−3, 3),   z ~ N(0, 1)

    The smallest expected squared error of any function of x is noise², 9e-4 by default.

    Args:
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        noise: Standard deviation of the noise, at least 0.
        seed: Seed of the draws.

    Returns:
        The data set: inputs and targets of shape (examples, 1).

    Raises:
        DatasetError: If the noise is negative.

    Example:
        >>> dataset = damped_cosine()
        >>> x, y = dataset.train["x"], dataset.train["y"]
        >>> print(np.round(np.mean((y - np.exp(-(x**2)) * np.cos(10 * x)) ** 2), 4))
        0.0009
    """
    noise = check_static_real("damped_cosine", "noise", noise)
    if noise < 0:
        raise DatasetError(f"noise is a standard deviation and must be at least 0; received {noise}.")

    def draw(rng: np.random.Generator, size: int) -> Examples:
        x = rng.uniform(-3, 3, (size, 1))
        y = np.exp(-(x**2)) * np.cos(10 * x) + noise * rng.standard_normal((size, 1))
        return {"x": x.astype(np.float32), "y": y.astype(np.float32)}

    return drawn(
        "damped_cosine",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: y = exp(-x^2) cos(10 x) + noise",
        details={"noise": noise, "irreducible_mse": noise**2},
    )


def sparse_features(
    *,
    num_features: int = 200,
    exponent: float = 1.0,
    rotated: bool = False,
    num_train: int = 2_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> Dataset:
    """Draw a classification task whose features are rare, with heavy-tailed frequencies, as words in a text are.

    Feature j = 1, …, d is 1 with probability ½ j^(−a), independently, else 0. A teacher w with wⱼ ~ N(0, 1) labels an
    example 1 with probability sigmoid(2 wᵀx), else 0: rare features say as much as frequent ones where they occur.

    Args:
        num_features: d, at least 1.
        exponent: a ≥ 0; at 0 all features are equally frequent.
        rotated: Whether the inputs are multiplied by a random orthogonal matrix. A linear model then has the same
            losses, curvature and minimum in rotated coordinates, but no feature remains sparse.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: inputs of shape (examples, d), two classes.

    Example:
        >>> x = sparse_features(num_features=50).train["x"]
        >>> print(0.4 < x[:, 0].mean() < 0.6, x[:, -1].mean() < 0.03)
        True True

    References:
        Duchi, Hazan and Singer (2011), Adaptive subgradient methods, §1.3: features of this kind favour AdaGrad.
    """
    check_integer("sparse_features", "num_features", num_features, 1)
    exponent = check_static_real("sparse_features", "exponent", exponent, 0)
    check_bool("sparse_features", "rotated", rotated)
    check_integer("sparse_features", "seed", seed, 0, high=None)
    common = np.random.default_rng([seed, num_features])
    teacher = common.standard_normal(num_features)
    rotation = np.linalg.qr(common.standard_normal((num_features, num_features)))[0] if rotated else None
    frequencies = 0.5 * np.arange(1.0, num_features + 1) ** -exponent

    def draw(rng: np.random.Generator, size: int) -> Examples:
        x = (rng.uniform(size=(size, num_features)) < frequencies).astype(np.float64)
        probability = 0.5 * (1 + np.tanh(x @ teacher))  # the logistic function of 2 x·t, without overflow
        y = rng.uniform(size=size) < probability
        return {"x": (x if rotation is None else x @ rotation).astype(np.float32), "y": y.astype(np.int32)}

    return drawn(
        f"sparse_features-{num_features}{'-rotated' if rotated else ''}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: binary features with heavy-tailed frequencies",
        details={"num_features": num_features, "exponent": exponent, "rotated": rotated},
        num_classes=2,
    )


def adding(
    *,
    num_steps: int = 50,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> Dataset:
    """Draw the adding problem: sum the two marked numbers of a sequence.

    Step t of an input is (uₜ, mₜ) with uₜ ~ U(0, 1), and mₜ = 1 at two steps, one drawn from each half, else 0. The
    target is the sum of the two marked numbers. The best constant prediction is 1, with mean squared error 1/6; the
    best prediction from only one of the numbers has 1/12.

    Args:
        num_steps: Length of the sequences, at least 2.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: inputs of shape (examples, num_steps, 2), targets of shape (examples, 1).

    Raises:
        DatasetError: If the sequences are too short.

    Example:
        >>> y = adding(num_steps=10).train["y"]
        >>> print(np.round(np.mean((y - 1) ** 2), 2))
        0.17

    References:
        Hochreiter and Schmidhuber (1997), Long short-term memory, §5.4; the markers' places as in Arjovsky, Shah and
        Bengio (2016), Unitary evolution recurrent neural networks, §4.2.
    """
    check_integer("adding", "num_steps", num_steps, 0)
    if num_steps < 2:
        raise DatasetError(
            f"The adding problem needs num_steps ≥ 2, to mark one number in each half; received {num_steps}."
        )

    def draw(rng: np.random.Generator, size: int) -> Examples:
        rows, half = np.arange(size), num_steps // 2
        numbers = rng.uniform(size=(size, num_steps))
        first, second = rng.integers(0, half, size), rng.integers(half, num_steps, size)
        marks = np.zeros((size, num_steps))
        marks[rows, first] = marks[rows, second] = 1
        targets = numbers[rows, first] + numbers[rows, second]
        return {
            "x": np.stack([numbers, marks], axis=-1).astype(np.float32),
            "y": targets[:, None].astype(np.float32),
        }

    return drawn(
        f"adding-{num_steps}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: the adding problem",
        details={"num_steps": num_steps},
    )


def temporal_order(
    *,
    num_steps: int = 50,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> Dataset:
    """Draw the temporal-order problem: classify the order of two symbols seen long before the end.

    A sequence of T steps consists of distractors c, d, e, f (uniformly distributed), except for two symbols, each A or
    B: the first at a step in [T/10, 2T/10], the second at one in [4T/10, 5T/10]. The class is the pair: AA 0, AB 1, BA
    2, BB 3. Chance level is an accuracy of 1/4 and a cross-entropy of ln 4. The gradient must propagate through at
    least T/2 steps to reach the symbols, over which it vanishes or explodes; on this task gradient clipping was shown
    to matter.

    Args:
        num_steps: T, at least 10.
        num_train: Number of training examples.
        num_validation: Number of validation examples; 0 omits them.
        num_test: Number of test examples; 0 omits them.
        seed: Seed of the draws.

    Returns:
        The data set: one-hot inputs of shape (examples, num_steps, 6) in the order A, B, c, d, e, f; four classes.

    Raises:
        DatasetError: If the sequences are too short.

    Example:
        >>> x = temporal_order(num_steps=20).train["x"]
        >>> print(np.unique(x[:, :, :2].sum(axis=(1, 2))))  # every sequence has two of the symbols
        [2.]

    References:
        Hochreiter and Schmidhuber (1997), Long short-term memory, §5.6; Pascanu, Mikolov and Bengio (2013), On the
        difficulty of training recurrent neural networks, §4.
    """
    check_integer("temporal_order", "num_steps", num_steps, 0)
    if num_steps < 10:
        raise DatasetError(
            f"The temporal-order problem needs num_steps ≥ 10 to place its symbols; received {num_steps}."
        )

    def draw(rng: np.random.Generator, size: int) -> Examples:
        rows = np.arange(size)
        symbols = rng.integers(2, 6, (size, num_steps))
        pair = rng.integers(0, 2, (size, 2))
        places = (num_steps // 10, 2 * num_steps // 10), (4 * num_steps // 10, 5 * num_steps // 10)
        for symbol, (low, high) in enumerate(places):
            symbols[rows, rng.integers(low, high, size, endpoint=True)] = pair[:, symbol]
        return {"x": np.eye(6, dtype=np.float32)[symbols], "y": (2 * pair[:, 0] + pair[:, 1]).astype(np.int32)}

    return drawn(
        f"temporal_order-{num_steps}",
        draw,
        sizes=(num_train, num_validation, num_test),
        seed=seed,
        source="drawn: the temporal-order problem",
        details={"num_steps": num_steps},
        num_classes=4,
    )


def drawn(
    name: str,
    draw: Callable[[np.random.Generator, int], Examples],
    *,
    sizes: tuple[int, int, int],
    seed: int,
    source: str,
    details: dict,
    num_classes: int | None = None,
    vocabulary_size: int | None = None,
) -> Dataset:
    """Return a data set that is drawn; each part has its own generator, so that its size does not change the others.

    Args:
        name: Name of the data set.
        draw: `draw(generator, size)`, the examples of a part.
        sizes: Numbers of training, validation and test examples.
        seed: Seed of the draws.
        source: Origin of the examples, in words.
        details: Parameters of the draws.
        num_classes: As in `Dataset`.
        vocabulary_size: As in `Dataset`.
    """
    for part, size in zip(("num_train", "num_validation", "num_test"), sizes, strict=True):
        check_integer(name, part, size)
    check_integer(name, "seed", seed, 0, high=None)
    if sizes[0] < 1 or min(sizes) < 0:
        raise DatasetError(f"{name} needs num_train ≥ 1 and num_validation, num_test ≥ 0; received {sizes}.")
    generators = np.random.default_rng(seed).spawn(3)
    parts = [draw(rng, size) for rng, size in zip(generators, sizes, strict=True)]
    return Dataset(
        name=name,
        train=parts[0],
        validation=parts[1] if sizes[1] else None,
        test=parts[2] if sizes[2] else None,
        num_classes=num_classes,
        vocabulary_size=vocabulary_size,
        source=source,
        details={**details, "seed": seed},
    )
