"""What the landscape looks like at a point: operators, spectra, and the error beside every number."""

from jaxopt_study.curvature.audit import Audit as Audit
from jaxopt_study.curvature.audit import audit as audit
from jaxopt_study.curvature.audit import noise_floor as noise_floor
from jaxopt_study.curvature.loss_operators import empirical_fisher as empirical_fisher
from jaxopt_study.curvature.loss_operators import ggn as ggn
from jaxopt_study.curvature.loss_operators import hessian as hessian
from jaxopt_study.curvature.operator import Operator as Operator
from jaxopt_study.curvature.wrapping import from_matrix as from_matrix
from jaxopt_study.curvature.wrapping import from_matvec as from_matvec
