"""A number drawn from random probes, and its error."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array


class Estimate(NamedTuple):
    """An estimate from random probes.

    Attributes:
        value: The estimate, a scalar, or a pytree like the parameters.
        standard_error: Its standard deviation over the choice of probes, estimated from their spread; of the same form.
            What rounding and mini-batches add is not in it.
        num_matvecs: Products that it took.
    """

    value: Any
    standard_error: Any
    num_matvecs: Array


def mean_and_error(samples: Array) -> tuple[Array, Array]:
    """Return the mean over the leading axis and its standard error s/√p, s² with p − 1 in the denominator."""
    p = samples.shape[0]
    return jnp.mean(samples, axis=0), jnp.std(samples, axis=0, ddof=1) / math.sqrt(p)


def check_count(name: str, argument: str, value: Any, least: int) -> None:
    """Check that a static count is an integer of at least a given size."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        why = " Two are the fewest that show an error." if argument == "num_probes" and least == 2 else ""
        raise ValueError(f"{name} needs {argument}, an integer ≥ {least}; received {value!r}.{why}")


def check_fraction(name: str, argument: str, value: Any, *, closed: bool = False) -> None:
    """Check that a static number lies in (0, 1), or in [0, 1]."""
    if not isinstance(value, int | float) or not (0 <= value <= 1 if closed else 0 < value < 1):
        raise ValueError(f"{name} needs {argument} in {'[0, 1]' if closed else '(0, 1)'}; received {value!r}.")
