"""Type aliases shared by all packages."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from jaxtyping import Array, Float, PyTree

Scalar = Float[Array, ""]
Key = jax.Array  # a PRNG key: `jax.random.key(seed)`, or the older uint32 form
Params = PyTree  # what is trained: any pytree of floating arrays
ModelState = PyTree  # what a model carries but does not train: batch statistics
Batch = PyTree  # arrays whose leading axis counts examples
Vector = PyTree  # a tangent of the parameters: their structure, shapes and dtypes
Matvec = Callable[[Any], Any]  # vector -> vector, linear
LossFn = Callable[..., Any]  # loss(params, batch) -> scalar
Mode = Literal["min", "max"]  # whether smaller or larger values of a metric are better
Schedule = Callable[[Any], Any]  # step count (0 for the first step) -> value
