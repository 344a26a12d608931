"""Stop-gradient at results of a function, also for their uses inside the function.

An adaptive optimizer divides by a statistic that it has just updated. To freeze the statistic, its new value must be a
constant inside the update, too. In the traced program of the update the new value is a variable, which is replaced.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from jaxopt_study._programs import called_program, evaluate

# Primitives that only change the form of a value. The update uses their operand, and the state their result.
_CARRIERS = frozenset({
    "convert_element_type", "copy", "copy_p", "optimization_barrier", "reduce_precision", "reshape", "select_n",
    "sharding_constraint", "squeeze", "transpose",
})  # fmt: skip

Hold = Callable[[Any], Any]


def hold_results(fn: Callable[..., Any], held: Sequence[Hold | None]) -> Callable[..., Any]:
    """Return a function in which some results are replaced where they are computed, before any other use.

    Args:
        fn: A function of pytrees of arrays, with a pytree of arrays as result.
        held: One entry for every leaf of the result, in order: a function of the value, such as `lax.stop_gradient`, or
            None for no replacement.

    Returns:
        A function of the same arguments and results, in which all computations from a held result use the replacement,
        through any nesting of compiled functions and branches; the insides of loops are unchanged.

    Example:
        >>> square_and_more = lambda x: (x**2, x * x**2)
        >>> frozen = hold_results(lambda x: (y := x**2, x * y), [lax.stop_gradient, None])
        >>> print(jax.jacfwd(frozen)(3.0)[1], jax.jacfwd(square_and_more)(3.0)[1])  # x² held at 9, or not
        9.0 27.0
    """

    def evaluated(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        results = _evaluate(program.jaxpr, program.consts, jax.tree.leaves(args), tuple(held))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return evaluated


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], held: Sequence[Hold | None]) -> list[Any]:
    """Return the results of a program with held results replaced where they are computed."""
    holds = _held_variables(jaxpr, held)

    def apply(equation: Any, inputs: list[Any]) -> list[Any]:
        inside = [holds.get(variable) for variable in equation.outvars]
        results = _apply(equation, inputs, inside)
        return [value if hold is None else hold(value) for hold, value in zip(inside, results, strict=True)]

    return evaluate(jaxpr, consts, args, apply)


def _apply(equation: Any, inputs: list[Any], held: Sequence[Hold | None]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if any(held) and (inner := called_program(equation)):
        return _evaluate(inner.jaxpr, inner.consts, inputs, held)
    if any(held) and name == "cond":
        branches = [
            lambda *args, branch=branch: tuple(_evaluate(branch.jaxpr, branch.consts, args, held))
            for branch in params["branches"]
        ]
        return list(lax.switch(inputs[0], branches, *inputs[1:]))
    bound = equation.primitive.get_bind_params(params)
    functions, bound = (
        bound if isinstance(bound, tuple) else ((), bound)
    )  # JAX ≤ 0.9 returns inner functions separately
    results = equation.primitive.bind(*functions, *inputs, **bound)
    return list(results) if equation.primitive.multiple_results else [results]


def _held_variables(jaxpr: Any, held: Sequence[Hold | None]) -> dict[Any, Hold]:
    """Return the replacements of the variables that hold a held result, in any form."""
    makers = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    holders: dict[Any, Hold] = {}

    def mark(variable: Any, hold: Hold) -> None:
        if isinstance(variable, core.Literal) or variable not in makers or variable in holders:
            return  # an argument or a constant
        holders[variable] = hold
        for operand in _carried(makers[variable], variable):
            mark(operand, hold)

    for variable, hold in zip(jaxpr.outvars, held, strict=True):
        if hold is not None:
            mark(variable, hold)
    return holders


def _arguments_behind(jaxpr: Any, result: Any) -> list[int]:
    """Return the indices of the arguments whose value a result of an inner program holds in another form."""
    makers = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    if isinstance(result, core.Literal):
        return []
    if result in jaxpr.invars:
        return [jaxpr.invars.index(result)]
    if result not in makers:
        return []
    return [index for operand in _carried(makers[result], result) for index in _arguments_behind(jaxpr, operand)]


def _carried(equation: Any, result: Any) -> list[Any]:
    """Return the operands whose value a result of an equation holds in another form."""
    name = equation.primitive.name
    if inner := called_program(equation):
        behind = _arguments_behind(inner.jaxpr, inner.jaxpr.outvars[equation.outvars.index(result)])
        return [equation.invars[index] for index in behind]
    if name in _CARRIERS:
        return equation.invars[1:] if name == "select_n" else equation.invars
    return []
