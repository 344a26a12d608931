"""Questions to a traced program, and how to compile one."""

from collections.abc import Iterator
from typing import Any

from jax.extend import core

# For programs that mostly draw random numbers: on a CPU they compile ten times faster so, to the same numbers, and run
# as fast. Others gain nothing.
RANDOM_DRAWS: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}


def inner_programs(params: dict[str, Any]) -> list:
    """Return the programs among the parameters of an equation: the body of a loop, the branches of a condition."""
    found = []
    for name in sorted(params):
        values = params[name] if isinstance(params[name], tuple | list) else (params[name],)
        found += [value for value in values if isinstance(value, core.Jaxpr | core.ClosedJaxpr)]
    return found


def contains(jaxpr: Any, name: str) -> bool:
    """Return whether a program, or one inside it, has an equation whose primitive's name contains another."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return any(
        name in equation.primitive.name or any(contains(inner, name) for inner in inner_programs(equation.params))
        for equation in jaxpr.eqns
    )


def contains_convolution(jaxpr: Any) -> bool:
    """Return whether a program, or one inside it, applies XLA's convolution."""
    return contains(jaxpr, "conv_general_dilated")


def constants(jaxpr: Any) -> Iterator[Any]:
    """Yield the constants of a program and of those inside it, numbers and arrays, of which printing it shows few."""
    yield from getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        yield from (value.val for value in equation.invars if isinstance(value, core.Literal))
        for inner in inner_programs(equation.params):
            yield from constants(inner)
    yield from (value.val for value in jaxpr.outvars if isinstance(value, core.Literal))
