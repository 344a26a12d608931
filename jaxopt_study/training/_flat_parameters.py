"""Flat layout: parameters and optimizer state carried through the loop as vectors.

On a CPU, XLA loops over the innermost dimension of an array, and a 3×3 kernel's is 3 long: an elementwise step over
convolutional leaves runs at a third of the memory bandwidth. Carried as vectors, and reshaped where the loss reads them
(which is free), the same step runs at full speed. This is valid only for an optimizer that does not depend on the
shapes of leaves, which `shape_dependence` checks by comparing the optimizer's programs in both layouts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxopt_study._programs import inner_jaxprs
from jaxopt_study.types import Params

_ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e",
    "bessel_i1e", "bitcast_convert_type", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type",
    "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1",
    "floor", "ge", "gt", "igamma", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic",
    "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "optimization_barrier", "or", "population_count",
    "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
})  # fmt: skip
_REDUCTIONS = frozenset(
    {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor"}
)
_RESHAPES = frozenset({"reshape", "squeeze", "expand_dims"})  # keep row-major order for any shapes


def flatten_leaves(params: Params) -> Params:
    """Return every leaf of two or more dimensions as a vector, row by row."""
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, -1) if len(leaf.shape) > 1 else leaf, params)


def restore_leaves(flat: Params, like: Any) -> Params:
    """Return every leaf in the shape of the corresponding leaf of `like`."""
    return jax.tree.map(lambda leaf, target: jnp.reshape(leaf, target.shape), flat, like)


def shape_dependence(in_tree: core.ClosedJaxpr, in_flat: core.ClosedJaxpr) -> str | None:
    """Describe the first operation that depends on the shapes of a function's arguments; None if none does.

    Both programs are the same Python function, traced on leaves of any shape and on the same leaves as vectors. They
    are compared equation by equation, with the invariant that every value of one, read row by row, equals the
    corresponding value of the other. The invariant holds for the arguments; elementwise operations, reductions of a
    whole leaf, reshapes and random bits (whose counter runs row by row) preserve it; any other operation does if its
    arguments have the same shape in both. If it holds at the end, both layouts compute the same numbers up to the order
    of summation.

    Args:
        in_tree: The program on the original leaves.
        in_flat: The program on vectors.

    Returns:
        None if the layouts are interchangeable, otherwise a phrase that names the first operation that depends on the
        shapes. Cost: linear in the number of equations; nothing is run.
    """
    if in_tree.effects or in_flat.effects:
        return "it has side effects"
    constants_differ = len(in_tree.consts) != len(in_flat.consts) or any(
        not _same_value(a, b) for a, b in zip(in_tree.consts, in_flat.consts, strict=True)
    )
    if constants_differ:
        return "its constants depend on the shapes of the parameters"
    return _compare(in_tree.jaxpr, in_flat.jaxpr)


def _compare(a: Any, b: Any) -> str | None:
    partner = {}

    def match(x: Any, y: Any) -> bool:
        if isinstance(x, core.Literal) or isinstance(y, core.Literal):
            return isinstance(x, core.Literal) and isinstance(y, core.Literal) and _same_value(x.val, y.val)
        return x in partner and partner[x] is y

    def pair(xs: Any, ys: Any) -> bool:
        partner.update(zip(xs, ys, strict=False))
        return len(xs) == len(ys) and all(x.aval.size == y.aval.size for x, y in zip(xs, ys, strict=True) if _sized(x))

    if not pair(a.constvars, b.constvars) or not pair(a.invars, b.invars):
        return "its arguments depend on the shapes of the parameters"
    # A reshape is the identity for values read row by row, so it is dropped on either side.
    alias_a, equations_a = _without_reshapes(a)
    alias_b, equations_b = _without_reshapes(b)
    for x, y in zip(equations_a, equations_b, strict=False):
        inputs = [(_root(alias_a, u), _root(alias_b, v)) for u, v in zip(x.invars, y.invars, strict=False)]
        if x.primitive is not y.primitive or len(x.invars) != len(y.invars) or not all(match(*io) for io in inputs):
            return f"it applies {x.primitive} to the leaves as they are and {y.primitive} to vectors"
        if reason := _compare_equation(x, y):
            return reason
        if not pair(x.outvars, y.outvars):
            return f"its {x.primitive} gives results of different sizes"
    if len(equations_a) != len(equations_b):
        return f"it takes {len(equations_a)} operations on the leaves as they are and {len(equations_b)} on vectors"
    same_outputs = len(a.outvars) == len(b.outvars) and all(
        match(_root(alias_a, u), _root(alias_b, v)) for u, v in zip(a.outvars, b.outvars, strict=True)
    )
    return None if same_outputs else "its results depend on the shapes of the parameters"


def _compare_equation(x: Any, y: Any) -> str | None:
    name = x.primitive.name
    inner_x, inner_y = inner_jaxprs(x), inner_jaxprs(y)
    if inner_x:
        if len(inner_x) != len(inner_y):
            return f"its {name} depends on the shapes of the parameters"
        if name == "scan" and not _same_shapes(x, y):
            return "it scans over a leaf"
        for u, v in zip(inner_x, inner_y, strict=True):
            if reason := _compare(u, v):
                return reason
        return None
    if name in _ELEMENTWISE and all(_is_elementwise(e) for e in (x, y)):
        return None if _same_parameters(x.params, y.params, ("sharding",)) else f"its {name} differs"
    if name in _REDUCTIONS and all(_is_full(e) for e in (x, y)):
        return None
    if name == "broadcast_in_dim" and all(e.invars[0].aval.size == 1 for e in (x, y)):
        return None
    if name == "random_bits" and str(x.invars[0].aval.dtype) == "key<fry>":
        return None if x.params["bit_width"] == y.params["bit_width"] else "its random bits differ"
    if _same_shapes(x, y) and _same_parameters(x.params, y.params):
        return None
    return f"it applies {name} to a leaf of shape {next((v.aval.shape for v in x.invars if _sized(v)), ())}"


def _without_reshapes(jaxpr: Any) -> tuple[dict, list]:
    alias, kept = {}, []
    for equation in jaxpr.eqns:
        if equation.primitive.name in _RESHAPES and not isinstance(equation.invars[0], core.Literal):
            source = equation.invars[0]
            alias[equation.outvars[0]] = alias.get(source, source)
        else:
            kept.append(equation)
    return alias, kept


def _root(alias: dict, variable: Any) -> Any:
    return variable if isinstance(variable, core.Literal) else alias.get(variable, variable)


def _is_elementwise(equation: Any) -> bool:
    size = equation.outvars[0].aval.size
    return all(
        operand.aval.size in {1, size} for operand in equation.invars
    )  # no broadcasting along a part of the axes


def _is_full(equation: Any) -> bool:
    return len(equation.params["axes"]) == len(equation.invars[0].aval.shape)


def _same_shapes(x: Any, y: Any) -> bool:
    variables = (*x.invars, *x.outvars), (*y.invars, *y.outvars)
    return all(
        getattr(u.aval, "shape", None) == getattr(v.aval, "shape", None) for u, v in zip(*variables, strict=True)
    )


def _same_parameters(x: dict[str, Any], y: dict[str, Any], ignored: tuple[str, ...] = ()) -> bool:
    return x.keys() == y.keys() and all(str(x[name]) == str(y[name]) for name in x if name not in ignored)


def _same_value(x: Any, y: Any) -> bool:
    if x is y:
        return True
    if isinstance(x, Tracer) or isinstance(y, Tracer):
        return False
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    return np.shape(x) == np.shape(y) and np.array_equal(np.asarray(x), np.asarray(y), equal_nan=False)


def _sized(variable: Any) -> bool:
    return hasattr(variable.aval, "size")
