"""What is minimised: problems with their data and, where known, their answers."""

from jaxopt_study.problems import datasets, networks
from jaxopt_study.problems.problem import CriticalPoint, Problem

__all__ = ["CriticalPoint", "Problem", "datasets", "networks"]
