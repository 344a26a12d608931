"""Optimization problems: a loss with its data and, where known, its minima, saddles and spectrum."""

from jaxopt_study.problems import augmentations, datasets, networks, planar
from jaxopt_study.problems._from_linen import from_linen
from jaxopt_study.problems._from_nnx import from_nnx
from jaxopt_study.problems._from_pytree import from_pytree
from jaxopt_study.problems._least_squares import least_squares, linear_regression
from jaxopt_study.problems._linear_network import deep_linear_network, linear_network
from jaxopt_study.problems._problem import CriticalPoint, Metric, MetricFunction, Problem
from jaxopt_study.problems._quadratic import noisy_quadratic, quadratic, random_rotation
from jaxopt_study.problems._registry import catalogue, listed

__all__ = [
    "CriticalPoint",
    "Metric",
    "MetricFunction",
    "Problem",
    "augmentations",
    "catalogue",
    "datasets",
    "deep_linear_network",
    "from_linen",
    "from_nnx",
    "from_pytree",
    "least_squares",
    "linear_network",
    "linear_regression",
    "listed",
    "networks",
    "noisy_quadratic",
    "planar",
    "quadratic",
    "random_rotation",
]
