"""Curvature of a loss at a point: operators, spectra and critical points, with an error for every number."""

from jaxopt_study.curvature._audit import Audit, audit
from jaxopt_study.curvature._noise_floor import GROWTH as GROWTH
from jaxopt_study.curvature._noise_floor import noise_floor
from jaxopt_study.curvature.operators._batches import batch_mean as batch_mean
from jaxopt_study.curvature.operators._block_diagonal import By as By
from jaxopt_study.curvature.operators._block_diagonal import group_leaves as group_leaves
from jaxopt_study.curvature.operators._block_diagonal import only as only
from jaxopt_study.curvature.operators._derivative_modes import Hessian as Hessian
from jaxopt_study.curvature.operators._empirical_fisher import empirical_fisher
from jaxopt_study.curvature.operators._empirical_risk import called_from_python as called_from_python
from jaxopt_study.curvature.operators._from_matvec import from_matrix, from_matvec
from jaxopt_study.curvature.operators._gauss_newton import ggn
from jaxopt_study.curvature.operators._hessian import hessian
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.operators._operator_of_data import operator_of_data as operator_of_data
from jaxopt_study.curvature.operators._softmax import SoftmaxCrossEntropy
from jaxopt_study.curvature.operators._streams import Stream as Stream
from jaxopt_study.curvature.operators._streams import check_examples as check_examples
from jaxopt_study.curvature.operators._streams import in_memory as in_memory
from jaxopt_study.curvature.operators._streams import is_stream as is_stream
from jaxopt_study.curvature.points._classify_point import Classification, classify_point
from jaxopt_study.curvature.points._descent_direction import Escape
from jaxopt_study.curvature.points._directions import PrincipalAxes, principal_axes, random_direction
from jaxopt_study.curvature.points._find_critical_point import CriticalPointSearch, SearchStatus, find_critical_point
from jaxopt_study.curvature.points._index_counts import MorseIndex, Resolution
from jaxopt_study.curvature.points._loss_and_gradient import slope as slope
from jaxopt_study.curvature.points._loss_and_gradient import value_and_gradient as value_and_gradient
from jaxopt_study.curvature.points._morse_index import morse_index
from jaxopt_study.curvature.points._path import Path, Plane, path, plane
from jaxopt_study.curvature.points._point_kind import PointKind
from jaxopt_study.curvature.spectrum._blocks import Blocks, blocks
from jaxopt_study.curvature.spectrum._condition_number import (
    Conditioning,
    ConditionNumber,
    IllConditioning,
    condition_number,
    ill_conditioning,
)
from jaxopt_study.curvature.spectrum._cross_check import CrossCheck, cross_check
from jaxopt_study.curvature.spectrum._eigenpairs import Eigenpairs, eigenpairs
from jaxopt_study.curvature.spectrum._estimate import Estimate
from jaxopt_study.curvature.spectrum._estimate import mean_and_error as mean_and_error
from jaxopt_study.curvature.spectrum._estimate import ratio_and_error as ratio_and_error
from jaxopt_study.curvature.spectrum._log_det import LogDet, log_det
from jaxopt_study.curvature.spectrum._outliers import Outliers
from jaxopt_study.curvature.spectrum._sharpness import Bracket, sharpness
from jaxopt_study.curvature.spectrum._spectral_density import SpectralDensity, spectral_density
from jaxopt_study.curvature.spectrum._split import Part, Split, split
from jaxopt_study.curvature.spectrum._trace import diagonal, trace

__all__ = [
    "Audit",
    "Blocks",
    "Bracket",
    "Classification",
    "ConditionNumber",
    "Conditioning",
    "CriticalPointSearch",
    "CrossCheck",
    "Eigenpairs",
    "Escape",
    "Estimate",
    "IllConditioning",
    "LogDet",
    "MorseIndex",
    "Operator",
    "Outliers",
    "Part",
    "Path",
    "Plane",
    "PointKind",
    "PrincipalAxes",
    "Resolution",
    "SearchStatus",
    "SoftmaxCrossEntropy",
    "SpectralDensity",
    "Split",
    "audit",
    "blocks",
    "classify_point",
    "condition_number",
    "cross_check",
    "diagonal",
    "eigenpairs",
    "empirical_fisher",
    "find_critical_point",
    "from_matrix",
    "from_matvec",
    "ggn",
    "hessian",
    "ill_conditioning",
    "log_det",
    "morse_index",
    "noise_floor",
    "path",
    "plane",
    "principal_axes",
    "random_direction",
    "sharpness",
    "spectral_density",
    "split",
    "trace",
]
