"""What the landscape looks like at a point: operators, spectra, and the error beside every number."""

from jaxopt_study.curvature.audit import Audit as Audit
from jaxopt_study.curvature.audit import audit as audit
from jaxopt_study.curvature.audit import noise_floor as noise_floor
from jaxopt_study.curvature.chebyshev import CrossCheck as CrossCheck
from jaxopt_study.curvature.chebyshev import cross_check as cross_check
from jaxopt_study.curvature.conditioning import Conditioning as Conditioning
from jaxopt_study.curvature.conditioning import ConditionNumber as ConditionNumber
from jaxopt_study.curvature.conditioning import IllConditioning as IllConditioning
from jaxopt_study.curvature.conditioning import condition_number as condition_number
from jaxopt_study.curvature.conditioning import ill_conditioning as ill_conditioning
from jaxopt_study.curvature.density import SpectralDensity as SpectralDensity
from jaxopt_study.curvature.density import spectral_density as spectral_density
from jaxopt_study.curvature.estimate import Estimate as Estimate
from jaxopt_study.curvature.log_det import LogDet as LogDet
from jaxopt_study.curvature.log_det import log_det as log_det
from jaxopt_study.curvature.loss_operators import empirical_fisher as empirical_fisher
from jaxopt_study.curvature.loss_operators import ggn as ggn
from jaxopt_study.curvature.loss_operators import hessian as hessian
from jaxopt_study.curvature.operator import Operator as Operator
from jaxopt_study.curvature.outliers import Outliers as Outliers
from jaxopt_study.curvature.trace import diagonal as diagonal
from jaxopt_study.curvature.trace import trace as trace
from jaxopt_study.curvature.wrapping import from_matrix as from_matrix
from jaxopt_study.curvature.wrapping import from_matvec as from_matvec
