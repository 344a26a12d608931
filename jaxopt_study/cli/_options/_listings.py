"""Options of `jaxopt-study optimizers`, `problems` and `explain`."""

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Optimizers:
    """List the named optimizers with their arguments and conventions.

    Example: jaxopt-study optimizers
    """


@dataclass(frozen=True)
class Problems:
    """List the named problems with their known critical points, curvatures (Hessian eigenvalues) and domains.

    Example: jaxopt-study problems
    """


@dataclass(frozen=True)
class Explain:
    """Run two optimizers on the same gradients, and report their first difference: the step, the atom and the reason.

    Each optimizer is a name, such as adam; a call, such as "adam(1e-3, convention='saito2016')" or "optax.adam(1e-3)";
    a chain of atoms, such as "chain(ema(0.9), negate())"; or module:function, your own function. A bare name that needs
    a learning rate gets 0.01.

    Example: jaxopt-study explain adam "adam(1e-3, convention='saito2016')"
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST")]
    """The first optimizer."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND")]
    """The second optimizer."""
