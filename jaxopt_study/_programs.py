"""Tools for traced programs: traversal, interpretation equation by equation, and compilation."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.errors import JaxRuntimeError
from jax.extend import core

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# For programs that mostly draw random numbers: on a CPU they compile ten times faster with it, with the same numbers
# and run time. Other programs gain nothing.
RANDOM_DRAWS: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}

# Primitives that run one inner program once, on their own arguments.
_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"})
# The same, with derivative rules of their own.
_CALLS_WITH_RULES = frozenset({"custom_jvp_call", "custom_vjp_call"})

_SOLVERS: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}
# On some processors XLA leaves loops, reductions and convolutions to a library (YNNPACK) that is slower at them than
# what XLA has otherwise; at matrix products it is as fast.
_CONVOLUTIONS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
_FEW_CALLS: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": "0"}


def jit_solver(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return `jax.jit` of a solver, a function in which all operations but matrix products are small.

    On a CPU an option halves its compile time. Products take as long as without it on some processors, and up to a
    quarter longer on others (`curvature.py hvp` in `benchmarks`). Inside another trace, where JAX allows no options,
    the result is that of `jax.jit`.

    Args:
        function: The function to compile.
        options: Options of `jax.jit`.
    """
    return _jit_on_cpu(function, _SOLVERS, options)


def jit_convolutions(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return `jax.jit` of a function that spends most of its time in convolutions.

    On a CPU an option makes it up to 1.6 times faster (`training.py cnn` in `benchmarks`). Programs of matrix products
    alone get slower by a tenth. Inside another trace, where JAX allows no options, the result is that of `jax.jit`.

    Args:
        function: The function to compile.
        options: Options of `jax.jit`.
    """
    return _jit_on_cpu(function, _CONVOLUTIONS, options)


def jit_for_few_calls(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return `jax.jit` of a function with a large program that runs once or twice, compiled without optimizations.

    On a CPU derivatives of a network compile in a third of the time and run up to twice as long; products of matrices
    take library calls either way. Inside another trace the result is that of `jax.jit`.

    Args:
        function: The function to compile.
        options: Options of `jax.jit`.
    """
    return _jit_on_cpu(function, _FEW_CALLS, options)


def _jit_on_cpu(
    function: Callable[..., Any], settings: dict[str, str | bool], options: dict[str, Any]
) -> Callable[..., Any]:
    plain = jax.jit(function, **options)

    @cache
    def alone() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=dict(_known(tuple(settings.items()))), **options)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return (plain if is_traced(arguments) else alone())(*arguments)

    return call


@cache
def _known(settings: tuple[tuple[str, str | bool], ...]) -> tuple[tuple[str, str | bool], ...]:
    if jax.default_backend() != "cpu":
        return ()
    try:
        jax.jit(lambda: 0, compiler_options=dict(settings)).lower().compile()
    except JaxRuntimeError:  # a version of XLA without the option
        return ()
    return settings


def nan_is_an_answer(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return a function that runs without JAX's checks for NaN and infinity, for results that may contain them.

    `jax_debug_nans` and `jax_debug_infs` raise wherever a compiled program returns such a number, or a constant is one.
    In results they mean "unknown" and "no bound", with a status or a flag that gives the reason.

    Args:
        function: A function that reports products that are not finite.
    """

    @wraps(function)
    def call(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        with jax.debug_nans(False), jax.debug_infs(False):
            return function(*arguments, **keywords)

    return call


def is_traced(arguments: Any) -> bool:
    """Return whether a function is being traced, or any of its arguments is."""
    leaves = jax.tree.leaves(arguments, is_leaf=lambda leaf: isinstance(leaf, Iterator))  # of which JAX warns
    return any(isinstance(leaf, Tracer) for leaf in [*leaves, jnp.zeros(())])


def strongly_typed(tree: Any) -> Any:
    """Return a pytree as arrays without weak types, which would become strong after one step and compile again."""

    def strong(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)


def wider(*dtypes: Any) -> Any:
    """Return the dtype that holds all of these, independent of JAX's setting for implicit promotion."""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def inner_programs(params: dict[str, Any]) -> list:
    """Return the programs among the parameters of an equation: the body of a loop, the branches of a condition."""
    programs = []
    for name in sorted(params):
        values = params[name] if isinstance(params[name], tuple | list) else (params[name],)
        programs += [value for value in values if isinstance(value, core.Jaxpr | core.ClosedJaxpr)]
    return programs


def inner_jaxprs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """Return the programs inside an equation, without their constants."""
    return [getattr(program, "jaxpr", program) for program in inner_programs(equation.params)]


def equations(jaxpr: Any) -> Iterator[core.JaxprEqn]:
    """Yield the equations of a program, each before those of the programs inside it."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for inner in inner_jaxprs(equation):
            yield from equations(inner)


def called_program(equation: core.JaxprEqn, *, with_rules: bool = False) -> core.ClosedJaxpr | None:
    """Return the program that an equation calls, such as the body of a function under `jax.jit`.

    Args:
        equation: An equation of a traced program.
        with_rules: Whether calls of functions with their own derivative rules count; running the program instead of the
            call loses the rules.

    Returns:
        The program with its constants; None if the equation is not a call.
    """
    name = equation.primitive.name
    if name not in _CALLS and not (with_rules and name in _CALLS_WITH_RULES):
        return None
    return equation.params.get("jaxpr", equation.params.get("call_jaxpr"))


def evaluate(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    inputs: Sequence[Any],
    apply: Callable[[core.JaxprEqn, list[Any]], Sequence[Any]],
    *,
    literal: Callable[[core.Literal], Any] = lambda literal: literal.val,
) -> list[Any]:
    """Run a program equation by equation, as an interpreter does.

    Args:
        jaxpr: The program.
        consts: Its constants.
        inputs: Its arguments.
        apply: Returns the results of an equation from the values of its operands.
        literal: Returns the value of a literal in the program.

    Returns:
        The results.
    """
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(atom: Any) -> Any:
        return literal(atom) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def contains(jaxpr: Any, name: str) -> bool:
    """Return whether a program, or one inside it, has a primitive whose name contains the given name."""
    return any(name in equation.primitive.name for equation in equations(jaxpr))


def contains_convolution(jaxpr: Any) -> bool:
    """Return whether a program, or one inside it, applies XLA's convolution."""
    return contains(jaxpr, "conv_general_dilated")


def contains_any_convolution(jaxpr: Any) -> bool:
    """Return whether a program, or one inside it, applies XLA's convolution or `networks.convolve`."""
    return contains_convolution(jaxpr) or contains(jaxpr, "convolution_in_tiles")


def constants(jaxpr: Any) -> Iterator[Any]:
    """Yield all constants of a program and of the programs inside it, numbers and arrays."""
    yield from getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        yield from (value.val for value in equation.invars if isinstance(value, core.Literal))
        for inner in inner_programs(equation.params):
            yield from constants(inner)
    yield from (value.val for value in jaxpr.outvars if isinstance(value, core.Literal))
