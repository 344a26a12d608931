"""Compose optimizers from textbook atoms, train them in one compiled program, and see why they differ.

Import the subpackages: `from jaxopt_study import optimizers, problems, training, transforms`. `examine` measures
curvature and stability at a point, in one call.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxopt_study.examination import Examination, examine

__all__ = ["Examination", "examine"]


def __getattr__(name: str) -> Any:  # the package imports neither JAX nor Matplotlib before something needs them
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxopt_study import examination

    return getattr(examination, name)
