"""Where landscape meets optimizer: is this step stable here, and did it do what the quadratic model said."""

from jaxopt_study.dynamics.accounting import Accounting, account_step
from jaxopt_study.dynamics.limit import stability_limit
from jaxopt_study.dynamics.preconditioning import (
    PreconditionedSharpness,
    Preconditioner,
    preconditioned_sharpness,
    preconditioner,
)
from jaxopt_study.dynamics.roles import state_roles
from jaxopt_study.dynamics.stability import Stability, stability
from jaxopt_study.dynamics.threshold import stability_threshold

__all__ = [
    "Accounting",
    "PreconditionedSharpness",
    "Preconditioner",
    "Stability",
    "account_step",
    "preconditioned_sharpness",
    "preconditioner",
    "stability",
    "stability_limit",
    "stability_threshold",
    "state_roles",
]
