"""From results to pictures: pure functions that return a Matplotlib figure and touch no file and no pyplot state."""

from jaxopt_study.figures.ablation import ablation
from jaxopt_study.figures.along import curvature_along_runs
from jaxopt_study.figures.animation import race_animation
from jaxopt_study.figures.budget import budget_curves
from jaxopt_study.figures.comparison import comparison, difference_matrix
from jaxopt_study.figures.curves import learning_curves
from jaxopt_study.figures.hyperparameters import hyperparameter_scatter, parallel_coordinates
from jaxopt_study.figures.pairs import pairs
from jaxopt_study.figures.panels import Panel, panels
from jaxopt_study.figures.planes import trajectories
from jaxopt_study.figures.profiles import performance_profiles
from jaxopt_study.figures.response import response
from jaxopt_study.figures.spectrum import spectrum
from jaxopt_study.figures.style import Appearance, appearances, new_figure, render
from jaxopt_study.figures.top import top_curves

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
    "new_figure",
    "pairs",
    "panels",
    "parallel_coordinates",
    "performance_profiles",
    "race_animation",
    "render",
    "response",
    "spectrum",
    "top_curves",
    "trajectories",
]
