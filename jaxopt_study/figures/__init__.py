"""Figures of results: pure functions that return a Matplotlib figure, without file access or pyplot state.

Matplotlib takes as long to import as JAX: a module of this package is imported when one of its names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxopt_study._display import decimals_apart as decimals_apart
from jaxopt_study._display import digits_apart as digits_apart

if TYPE_CHECKING:
    from jaxopt_study.figures._ablation import ablation
    from jaxopt_study.figures._ablation import linear_within as linear_within
    from jaxopt_study.figures._animation import race_animation
    from jaxopt_study.figures._before_after import pairs
    from jaxopt_study.figures._best_trials import top_curves
    from jaxopt_study.figures._budget import budget_curves
    from jaxopt_study.figures._comparison import comparison, difference_matrix
    from jaxopt_study.figures._contour_trajectories import trajectories
    from jaxopt_study.figures._curvature_curves import curvature_along_runs
    from jaxopt_study.figures._curves import learning_curves
    from jaxopt_study.figures._hyperparameter_scatter import hyperparameter_scatter
    from jaxopt_study.figures._landscape import loss_landscape
    from jaxopt_study.figures._panels import Panel, panels
    from jaxopt_study.figures._parallel_coordinates import parallel_coordinates
    from jaxopt_study.figures._performance_profiles import performance_profiles
    from jaxopt_study.figures._plot import plot
    from jaxopt_study.figures._sensitivity import response
    from jaxopt_study.figures._spectrum import plot_density as plot_density
    from jaxopt_study.figures._spectrum import spectrum
    from jaxopt_study.figures._spectrum_results import count_range as count_range
    from jaxopt_study.figures._spectrum_results import resolved as resolved
    from jaxopt_study.figures._style import COLOURS as COLOURS
    from jaxopt_study.figures._style import SETTINGS as SETTINGS
    from jaxopt_study.figures._style import Appearance, appearances, new_figure, render

_MODULES = {
    "ablation": "_ablation",
    "linear_within": "_ablation",
    "race_animation": "_animation",
    "pairs": "_before_after",
    "top_curves": "_best_trials",
    "budget_curves": "_budget",
    "comparison": "_comparison",
    "difference_matrix": "_comparison",
    "trajectories": "_contour_trajectories",
    "curvature_along_runs": "_curvature_curves",
    "learning_curves": "_curves",
    "hyperparameter_scatter": "_hyperparameter_scatter",
    "loss_landscape": "_landscape",
    "Panel": "_panels",
    "panels": "_panels",
    "parallel_coordinates": "_parallel_coordinates",
    "performance_profiles": "_performance_profiles",
    "plot": "_plot",
    "response": "_sensitivity",
    "count_range": "_spectrum_results",
    "plot_density": "_spectrum",
    "resolved": "_spectrum_results",
    "spectrum": "_spectrum",
    "COLOURS": "_style",
    "SETTINGS": "_style",
    "Appearance": "_style",
    "appearances": "_style",
    "new_figure": "_style",
    "render": "_style",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "Appearance",
    "Panel",
    "ablation",
    "appearances",
    "budget_curves",
    "comparison",
    "curvature_along_runs",
    "difference_matrix",
    "hyperparameter_scatter",
    "learning_curves",
    "loss_landscape",
    "new_figure",
    "pairs",
    "panels",
    "parallel_coordinates",
    "performance_profiles",
    "plot",
    "race_animation",
    "render",
    "response",
    "spectrum",
    "top_curves",
    "trajectories",
]
