"""Neural networks (Flax Linen) as problems: models, initialisers, losses."""

from jaxopt_study.problems.networks import initialisers
from jaxopt_study.problems.networks._layers import Conv, convolve, max_pool
from jaxopt_study.problems.networks._losses import accuracy, cross_entropy, mse, weight_penalty
from jaxopt_study.problems.networks._models import CNN, MLP
from jaxopt_study.problems.networks._presets import (
    cnn_classifier,
    mlp_classifier,
    mlp_regressor,
    rnn_classifier,
    rnn_regressor,
)
from jaxopt_study.problems.networks._recurrent import GRU, LSTM, RNN
from jaxopt_study.problems.networks._supervised import classifier, describe, regressor

__all__ = [
    "CNN",
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "Conv",
    "accuracy",
    "classifier",
    "cnn_classifier",
    "convolve",
    "cross_entropy",
    "describe",
    "initialisers",
    "max_pool",
    "mlp_classifier",
    "mlp_regressor",
    "mse",
    "regressor",
    "rnn_classifier",
    "rnn_regressor",
    "weight_penalty",
]
