"""One trial: a loop of steps from a problem and an optimizer to a trajectory."""

from jaxopt_study.training.batches import Curriculum, LinearPace, batch_indices, linear_curriculum, shuffle
from jaxopt_study.training.curvature_probe import CurvatureProbe
from jaxopt_study.training.evaluation import evaluate
from jaxopt_study.training.train import train
from jaxopt_study.training.trajectory import EarlyStopping, Probe, TrainingInterrupted, Trajectory

__all__ = [
    "Curriculum",
    "CurvatureProbe",
    "EarlyStopping",
    "LinearPace",
    "Probe",
    "TrainingInterrupted",
    "Trajectory",
    "batch_indices",
    "evaluate",
    "linear_curriculum",
    "shuffle",
    "train",
]
