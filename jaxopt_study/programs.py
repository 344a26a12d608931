"""Questions to a traced program, and how to compile one."""

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


def contains_convolution(jaxpr: Any) -> bool:
    """Return whether a program, or one inside it, applies XLA's convolution."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(contains_convolution(inner) for inner in inner_programs(equation.params))
        for equation in jaxpr.eqns
    )
