"""Options of the commands, read without importing JAX, so that help is printed at once."""

from jaxopt_study.cli._options._ablate import Ablate
from jaxopt_study.cli._options._compare import Compare
from jaxopt_study.cli._options._curvature import Curvature
from jaxopt_study.cli._options._listings import Explain, Optimizers, Problems
from jaxopt_study.cli._options._network import DEFAULTS, NetworkOptions
from jaxopt_study.cli._options._search import Search

__all__ = [
    "DEFAULTS",
    "Ablate",
    "Compare",
    "Curvature",
    "Explain",
    "NetworkOptions",
    "Optimizers",
    "Problems",
    "Search",
]
