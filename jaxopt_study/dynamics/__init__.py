"""Dynamics of a training step: stability, thresholds, preconditioned curvature, step accounting, gradient noise."""

from jaxopt_study.dynamics._batch_sharpness import BatchSharpness, batch_sharpness
from jaxopt_study.dynamics._critical_sharpness import CriticalSharpness, critical_sharpness
from jaxopt_study.dynamics._directional_sharpness import DirectionalSharpness, directional_sharpness
from jaxopt_study.dynamics._gradient_noise import GradientNoise, gradient_noise
from jaxopt_study.dynamics._learning_rate_range import LearningRateRange, learning_rate_range
from jaxopt_study.dynamics._linearised_step import LinearStep as LinearStep
from jaxopt_study.dynamics._linearised_step import at_point as at_point
from jaxopt_study.dynamics._next_update import next_update as next_update
from jaxopt_study.dynamics._preconditioned_density import PreconditionedDensity, preconditioned_density
from jaxopt_study.dynamics._preconditioning import (
    PreconditionedSharpness,
    Preconditioner,
    preconditioned_sharpness,
    preconditioner,
)
from jaxopt_study.dynamics._preconditioning import preconditioned_step as preconditioned_step
from jaxopt_study.dynamics._probe_eigenvalues import outermost as outermost
from jaxopt_study.dynamics._stability import Stability, stability
from jaxopt_study.dynamics._stability_limit import stability_limit
from jaxopt_study.dynamics._stability_threshold import stability_threshold
from jaxopt_study.dynamics._state_roles import frozen_leaves as frozen_leaves
from jaxopt_study.dynamics._state_roles import state_roles
from jaxopt_study.dynamics._step_accounting import Accounting, account_step
from jaxopt_study.dynamics._step_derivatives import preconditioner_diagonal as preconditioner_diagonal
from jaxopt_study.dynamics._step_period import period as period
from jaxopt_study.dynamics._step_period import refuse_period as refuse_period
from jaxopt_study.dynamics._stochastic_stability import StochasticStability, stochastic_stability
from jaxopt_study.dynamics._updates import as_transformation as as_transformation
from jaxopt_study.dynamics._updates import call_update as call_update
from jaxopt_study.dynamics._updates import check_optimizer as check_optimizer
from jaxopt_study.dynamics._updates import differentiated as differentiated
from jaxopt_study.dynamics._updates import holds_lookahead as holds_lookahead
from jaxopt_study.dynamics._updates import keep_dtypes as keep_dtypes

__all__ = [
    "Accounting",
    "BatchSharpness",
    "CriticalSharpness",
    "DirectionalSharpness",
    "GradientNoise",
    "LearningRateRange",
    "PreconditionedDensity",
    "PreconditionedSharpness",
    "Preconditioner",
    "Stability",
    "StochasticStability",
    "account_step",
    "batch_sharpness",
    "critical_sharpness",
    "directional_sharpness",
    "gradient_noise",
    "learning_rate_range",
    "preconditioned_density",
    "preconditioned_sharpness",
    "preconditioner",
    "stability",
    "stability_limit",
    "stability_threshold",
    "state_roles",
    "stochastic_stability",
]
