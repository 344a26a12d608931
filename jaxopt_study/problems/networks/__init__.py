"""Neural networks (Flax Linen) as problems: models, initialisers, losses."""

from jaxopt_study.problems.networks import initialisers
from jaxopt_study.problems.networks._language_model import (
    gpt,
    language_model,
    token_accuracy,
    token_cross_entropy,
    vision_transformer,
)
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
from jaxopt_study.problems.networks._transformers import GPT, VisionTransformer

__all__ = [
    "CNN",
    "GPT",
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "Conv",
    "VisionTransformer",
    "accuracy",
    "classifier",
    "cnn_classifier",
    "convolve",
    "cross_entropy",
    "describe",
    "gpt",
    "initialisers",
    "language_model",
    "max_pool",
    "mlp_classifier",
    "mlp_regressor",
    "mse",
    "regressor",
    "rnn_classifier",
    "rnn_regressor",
    "token_accuracy",
    "token_cross_entropy",
    "vision_transformer",
    "weight_penalty",
]
