"""Interpreter that runs a traced program in double precision, with the same random draws."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxopt_study._programs import called_program, evaluate, jit_for_few_calls

# Primitives that read or make the bits of a number run in their own dtype; their results are widened.
_OF_BITS = {"bitcast_convert_type", "nextafter", "rng_uniform", "random_gamma"}
# Primitives for fixed dtypes, or with programs that the interpreter cannot read.
_FIXED = {"pure_callback", "io_callback", "debug_callback", "pallas_call", "ffi_call", "shard_map"}


def in_double_precision(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function with every floating-point operation of its program in 64 bits.

    A call with wider arguments would not do: `jax.random` draws other numbers in double precision, so a loss with
    dropout under a fixed key would change, and explicit dtypes in the function would remain. Instead, the program that
    JAX traces for the given arguments is run with each operation in double precision. Keys, integers and the draws made
    from them do not change: programs without floating inputs, such as `jax.random.normal` of a key, run unchanged.
    Constants are those of the narrow program.

    Args:
        function: A traceable function.
        arguments: Pytrees of arrays.

    Returns:
        The result, its floating leaves in float64 (complex ones in complex128). Cost: one compilation and one call.

    Raises:
        TypeError: If the program contains a primitive for fixed dtypes: a callback, a kernel, a `shard_map`.

    Example:
        >>> def masked(x):
        ...     return jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, x.shape), x, 0.0)
        >>> x = jnp.linspace(1.0, 2.0, 100)
        >>> wide = np.asarray(in_double_precision(masked, x))
        >>> print(wide.dtype, np.array_equal(wide, masked(x)))
        float64 True
    """
    leaves, structure = jax.tree.flatten(arguments)
    program, shapes = jax.make_jaxpr(lambda leaves: function(*structure.unflatten(leaves)), return_shape=True)(leaves)
    with jax.enable_x64(True):
        run = jit_for_few_calls(lambda consts, leaves: _evaluate(program.jaxpr, consts, leaves))
        results = run(program.consts, leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _evaluate(jaxpr: core.Jaxpr, consts: Any, inputs: Any) -> list[Any]:
    def literal(atom: Any) -> Any:
        return _widen(np.asarray(atom.val, atom.aval.dtype))  # rounded first, as in the narrow program

    return evaluate(jaxpr, list(map(_widen, consts)), list(map(_widen, inputs)), _apply, literal=literal)


def _apply(equation: Any, values: list[Any]) -> list[Any]:
    primitive, name = equation.primitive, equation.primitive.name
    if name in _FIXED:
        raise TypeError(f"its program contains {name}, which supports only the original dtypes")
    if name == "reduce_precision":  # JAX inserts it where it stores residuals of a derivative
        return values
    drawn = name == "jit" and not any(jnp.issubdtype(atom.aval.dtype, jnp.inexact) for atom in equation.invars)
    if drawn or name in _OF_BITS:
        narrow = [_cast(value, atom.aval.dtype) for value, atom in zip(values, equation.invars, strict=True)]
        return [_widen(result) for result in _as_list(primitive, primitive.bind(*narrow, **equation.params))]
    if inner := called_program(equation, with_rules=True):
        return _evaluate(inner.jaxpr, inner.consts, values)
    params = {key: _wide_param(value) for key, value in equation.params.items()}
    return _as_list(primitive, primitive.bind(*values, **params))


def _as_list(primitive: Any, results: Any) -> list[Any]:
    return list(results) if primitive.multiple_results else [results]


def _wide_param(value: Any) -> Any:
    """Return a parameter of an equation with all dtypes widened, also inside its programs."""
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
        closed = isinstance(value, core.ClosedJaxpr)
        program, consts = (value.jaxpr, value.consts) if closed else (value, ())
        narrow: list[Any] = [atom.aval for atom in program.invars]
        shapes = [jax.ShapeDtypeStruct(aval.shape, _wide(aval.dtype)) for aval in narrow]
        wide = jax.make_jaxpr(partial(_positional, program, consts))(*shapes)
        if not closed and wide.consts:
            raise TypeError("its program contains array constants in a place where only scalars can be widened")
        return wide if closed else wide.jaxpr
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return _wide(np.dtype(value))
    if isinstance(value, tuple):
        parts = [_wide_param(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _positional(program: core.Jaxpr, consts: Any, *inputs: Any) -> list[Any]:
    return _evaluate(program, consts, inputs)


def _wide(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float64)
    return np.dtype(np.complex128) if jnp.issubdtype(dtype, jnp.complexfloating) else dtype


def _widen(x: Any) -> Any:
    return _cast(x, _wide(x.dtype)) if hasattr(x, "dtype") else x


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) and x.dtype != dtype else x
