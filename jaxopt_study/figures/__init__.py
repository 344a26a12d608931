"""From results to pictures: pure functions that return a Matplotlib figure and touch no file and no pyplot state."""

from jaxopt_study.figures.along import curvature_along_runs
from jaxopt_study.figures.animation import race_animation
from jaxopt_study.figures.curves import learning_curves
from jaxopt_study.figures.pairs import pairs
from jaxopt_study.figures.planes import trajectories
from jaxopt_study.figures.response import response
from jaxopt_study.figures.spectrum import spectrum
from jaxopt_study.figures.style import Appearance, appearances, new_figure, render

__all__ = [
    "Appearance",
    "appearances",
    "curvature_along_runs",
    "learning_curves",
    "new_figure",
    "pairs",
    "race_animation",
    "render",
    "response",
    "spectrum",
    "trajectories",
]
