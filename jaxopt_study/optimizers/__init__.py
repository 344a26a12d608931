"""Named optimizers: each a chain of atoms, under the convention of the paper, PyTorch, Optax or the notes' book.

`optimizers.adam(1e-3).expand()` shows the atoms; `explain_difference` says where two of them part.
"""

from typing import Any

from jaxopt_study.optimizers.adams import adam, adamax, adamw, adan, amsgrad, nadam, radam
from jaxopt_study.optimizers.convention import Convention
from jaxopt_study.optimizers.descent import momentum, nesterov, nesterov_lookahead, sgd
from jaxopt_study.optimizers.scaled import adadelta, adagrad, lion, rmsprop
from jaxopt_study.transforms.differences import Difference, explain_difference

_NAMED = (
    sgd,
    momentum,
    nesterov,
    nesterov_lookahead,
    adagrad,
    adadelta,
    rmsprop,
    adam,
    amsgrad,
    adamax,
    nadam,
    radam,
    adamw,
    lion,
    adan,
)


def named() -> dict[str, Any]:
    """Return every named optimizer's constructor, by name.

    Returns:
        Constructors, the simplest first.

    Example:
        >>> list(named())[:4]
        ['sgd', 'momentum', 'nesterov', 'nesterov_lookahead']
    """
    return {constructor.__name__: constructor for constructor in _NAMED}


__all__ = [
    "Convention",
    "Difference",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "amsgrad",
    "explain_difference",
    "lion",
    "momentum",
    "nadam",
    "named",
    "nesterov",
    "nesterov_lookahead",
    "radam",
    "rmsprop",
    "sgd",
]
