"""The options of `jaxopt-study optimizers | problems | explain`."""

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Optimizers:
    """List the named optimizers, their arguments, and the conventions they are known under."""


@dataclass(frozen=True)
class Problems:
    """List the problems that can be built by name: known critical points, curvatures (Hessian eigenvalues), domain."""


@dataclass(frozen=True)
class Explain:
    """Run two optimizers side by side on the same gradients and say where they part.

    Names the first step, the first atom and the reason. Each optimizer is a name, such as adam; a call, such as
    "adam(1e-3, convention='saito2016')" or "optax.adam(1e-3)"; a chain of atoms, such as "chain(ema(0.9), negate())";
    or a function of yours, module:function. A bare name that needs a learning rate gets 0.01.
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST")]
    """The first optimizer."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND")]
    """The second optimizer."""
