"""Training: `train` runs one optimizer on one problem and returns a `Trajectory`."""

from jaxopt_study._progress_bar import Bar as Bar
from jaxopt_study.training._batch_order import (
    BatchOrder,
    Reshuffle,
    ShuffleOnce,
    WithReplacement,
    batch_indices,
    batch_order,
)
from jaxopt_study.training._batch_order import Order as Order
from jaxopt_study.training._curriculum import Curriculum, LinearPace, linear_curriculum
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._diagnose import Diagnosis, diagnose
from jaxopt_study.training._evaluate import check_problem as check_problem
from jaxopt_study.training._evaluate import evaluate
from jaxopt_study.training._python_loop import interrupts as interrupts
from jaxopt_study.training._shuffle import shuffle
from jaxopt_study.training._train import train
from jaxopt_study.training._trajectory import EarlyStopping, Probe, TrainingInterrupted, Trajectory
from jaxopt_study.training._validate import check_probe as check_probe

__all__ = [
    "BatchOrder",
    "Curriculum",
    "CurvatureProbe",
    "Diagnosis",
    "EarlyStopping",
    "LinearPace",
    "Probe",
    "Reshuffle",
    "ShuffleOnce",
    "TrainingInterrupted",
    "Trajectory",
    "WithReplacement",
    "batch_indices",
    "batch_order",
    "diagnose",
    "evaluate",
    "linear_curriculum",
    "shuffle",
    "train",
]
