"""Named optimizers, each a chain of atoms, in the convention of the paper, PyTorch, Optax or Saito (2016).

`optimizers.adam(1e-3).expand()` shows the atoms; `explain_difference` reports where two of them first differ.
"""

from typing import Any

from jaxopt_study.optimizers._adadelta import adadelta
from jaxopt_study.optimizers._adafactor import adafactor
from jaxopt_study.optimizers._adagrad import adagrad
from jaxopt_study.optimizers._adam import adam
from jaxopt_study.optimizers._adamax import adamax
from jaxopt_study.optimizers._adamw import adamw
from jaxopt_study.optimizers._adan import adan
from jaxopt_study.optimizers._amsgrad import amsgrad
from jaxopt_study.optimizers._asgd import asgd
from jaxopt_study.optimizers._convention import Convention
from jaxopt_study.optimizers._definition import search_range as search_range
from jaxopt_study.optimizers._lion import lion
from jaxopt_study.optimizers._momentum import momentum
from jaxopt_study.optimizers._nadam import nadam
from jaxopt_study.optimizers._nesterov import nesterov, nesterov_lookahead
from jaxopt_study.optimizers._newton import newton, saddle_free_newton
from jaxopt_study.optimizers._radam import radam
from jaxopt_study.optimizers._rmsprop import rmsprop
from jaxopt_study.optimizers._rprop import rprop
from jaxopt_study.optimizers._saito2016 import network_optimizers, plane_optimizers
from jaxopt_study.optimizers._sgd import sgd
from jaxopt_study.transforms import Difference, explain_difference

_NAMED = (
    sgd,
    momentum,
    nesterov,
    nesterov_lookahead,
    asgd,
    rprop,
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
    adafactor,
    newton,
    saddle_free_newton,
)


def named() -> dict[str, Any]:
    """Return the constructors of all named optimizers, by name.

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
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "amsgrad",
    "asgd",
    "explain_difference",
    "lion",
    "momentum",
    "nadam",
    "named",
    "nesterov",
    "nesterov_lookahead",
    "network_optimizers",
    "newton",
    "plane_optimizers",
    "radam",
    "rmsprop",
    "rprop",
    "saddle_free_newton",
    "sgd",
]
