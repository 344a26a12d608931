"""Problems that train an MLP, a CNN or a recurrent network on a data set, in one call."""

from typing import Any, Literal

from jax.typing import ArrayLike
from jaxtyping import Real

from jaxopt_study._checks import check_choice, describe_argument
from jaxopt_study.problems._problem import Problem
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.problems.networks._models import CNN, MLP
from jaxopt_study.problems.networks._recurrent import GRU, LSTM, RNN
from jaxopt_study.problems.networks._supervised import classifier, regressor, with_options

Cell = Literal["elman", "lstm", "gru"]
CELLS = {"elman": RNN, "lstm": LSTM, "gru": GRU}


def mlp_classifier(
    dataset: Dataset,
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    **options: Any,
) -> Problem:
    """Make the problem of training a multilayer perceptron as a classifier.

    Args:
        dataset: A data set with classes.
        label_smoothing: As in `classifier`.
        weight_decay: As in `classifier`.
        **options: Attributes of `MLP`: widths, activation, initialiser, normalisation, num_groups, dropout.

    Returns:
        The problem; the default network has six hidden layers of 100 ReLU units and He's initialisation.

    Example:
        >>> import jax
        >>> from jaxopt_study.problems import datasets, networks
        >>> problem = networks.mlp_classifier(datasets.digits(), widths=(50, 50), normalisation="batch")
        >>> params, state = problem.init(jax.random.key(0)), problem.init_state(jax.random.key(0))
        >>> loss, state = problem.step_loss(params, state, problem.data, jax.random.key(1))
        >>> print(sorted(state["batch_stats"]))
        ['norm_0', 'norm_1']
    """
    model = with_options("mlp_classifier", MLP, _num_classes(dataset), options)
    return classifier(model, dataset, label_smoothing=label_smoothing, weight_decay=weight_decay)


def cnn_classifier(
    dataset: Dataset,
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    **options: Any,
) -> Problem:
    """Make the problem of training a convolutional network as a classifier.

    Args:
        dataset: A data set with classes, loaded with `flatten=False`.
        label_smoothing: As in `classifier`.
        weight_decay: As in `classifier`.
        **options: Attributes of `CNN`: channels, widths, kernel_size, pool, activation, initialiser, normalisation,
            num_groups, dropout, method.

    Returns:
        The problem; the default has two 3 × 3 convolutions and two dense layers.
    """
    model = with_options("cnn_classifier", CNN, _num_classes(dataset), options)
    return classifier(model, dataset, label_smoothing=label_smoothing, weight_decay=weight_decay)


def rnn_classifier(
    dataset: Dataset,
    *,
    cell: Cell = "elman",
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    **options: Any,
) -> Problem:
    """Make the problem of training a recurrent network as a classifier.

    Args:
        dataset: Sequences of shape (steps, features) with classes, such as `datasets.temporal_order()`.
        cell: "elman" (`RNN`), "lstm" (`LSTM`) or "gru" (`GRU`).
        label_smoothing: As in `classifier`.
        weight_decay: As in `classifier`.
        **options: Attributes of the network: widths, initialiser, recurrent_initialiser and dropout of all three;
            activation and normalisation of `RNN`, forget_bias of `LSTM`, update_bias of `GRU`.

    Returns:
        The problem.

    Example:
        >>> import jax
        >>> from jaxopt_study.problems import datasets, networks
        >>> problem = networks.rnn_classifier(datasets.temporal_order(num_steps=20), cell="lstm", widths=(8,))
        >>> params = problem.init(jax.random.key(0))
        >>> print(params["input_0"]["bias"])  # of the gates i, f, g, o: the forget gates start open
        [0. 0. 0. 0. 0. 0. 0. 0. 1. 1. 1. 1. 1. 1. 1. 1. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0. 0.]
    """
    name = "rnn_classifier"
    model = with_options(name, _cell(name, cell), _num_classes(dataset), options)
    return classifier(model, dataset, label_smoothing=label_smoothing, weight_decay=weight_decay)


def mlp_regressor(dataset: Dataset, *, weight_decay: Real[ArrayLike, ""] = 0.0, **options: Any) -> Problem:
    """Make the problem of training a multilayer perceptron as a regression.

    Args:
        dataset: A data set with targets of shape (examples, outputs), such as `datasets.damped_cosine()`.
        weight_decay: As in `regressor`.
        **options: Attributes of `MLP`.

    Returns:
        The problem. A small one is `mlp_regressor(damped_cosine(), widths=(64, 64), activation="tanh",
        initialiser="xavier")`.
    """
    model = with_options("mlp_regressor", MLP, _num_outputs(dataset), options)
    return regressor(model, dataset, weight_decay=weight_decay)


def rnn_regressor(
    dataset: Dataset, *, cell: Cell = "elman", weight_decay: Real[ArrayLike, ""] = 0.0, **options: Any
) -> Problem:
    """Make the problem of training a recurrent network as a regression on sequences.

    Args:
        dataset: Sequences with targets of shape (examples, outputs), such as `datasets.adding()`.
        cell: As in `rnn_classifier`.
        weight_decay: As in `regressor`.
        **options: Attributes of the network, as in `rnn_classifier`.

    Returns:
        The problem.
    """
    name = "rnn_regressor"
    model = with_options(name, _cell(name, cell), _num_outputs(dataset), options)
    return regressor(model, dataset, weight_decay=weight_decay)


def _cell(who: str, cell: Cell) -> Any:
    check_choice(who, "cell", cell, tuple(CELLS))
    return CELLS[cell]


def _num_classes(dataset: Dataset) -> int:
    _check_dataset(dataset)
    if dataset.num_classes is None:
        raise ValueError(f"A classifier needs a data set with classes; {dataset.name!r} has none. Use a regressor.")
    return dataset.num_classes


def _check_dataset(dataset: Any) -> None:
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"A network needs a Dataset, for example from datasets.from_arrays; received {describe_argument(dataset)}."
        )


def _num_outputs(dataset: Dataset) -> int:
    _check_dataset(dataset)
    shape = dataset.train["y"].shape
    if len(shape) != 2:
        raise ValueError(
            f"A regressor needs targets of shape (examples, outputs); {dataset.name!r} has {shape}. Reshape them to "
            "(examples, 1) or, if they are labels, use a classifier."
        )
    return shape[1]
