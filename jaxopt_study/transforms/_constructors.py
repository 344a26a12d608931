"""Decorators for constructors of transformations and functions: `atom`, `composite`, `named_function`, `from_optax`."""

import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import check_bool, check_callable, check_real, describe_argument
from jaxopt_study.transforms import _traced as traced
from jaxopt_study.transforms._expression import Transform, construct, with_any_extra
from jaxopt_study.transforms._printing import import_path
from jaxopt_study.transforms._scalars import ScalarLike, ScalarOrSchedule
from jaxopt_study.transforms._spec import Constructor, Spec
from jaxopt_study.transforms._state_checks import (
    MismatchError,
    as_arrays,
    check_params,
    check_shapes,
    check_state,
    explain,
    without_integers,
)

P = ParamSpec("P")
R = TypeVar("R")


def atom(
    *,
    state: type = optax.EmptyState,
    params: bool = False,
    linear: bool = False,
    contains: bool = False,
    neutral: Mapping[str, float] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function the constructor of an elementary transformation.

    Before the atom runs, init and update check for common mistakes: a state of another chain, missing parameters,
    complex numbers. Python numbers, NumPy arrays and integers are converted to JAX arrays
    of real numbers.

    Args:
        state: The class of the atom's state.
        params: Whether the update needs the parameters.
        linear: Whether the output is linear in gradient and parameters, so that complex ones are handled correctly: the
            real and the imaginary part then act as two real parameters would. Otherwise complex ones raise.
        contains: Whether the atom passes the gradient to other transformations, which check it themselves and may
            change its shape on purpose.
        neutral: The values that disable arguments, such as {"weight_decay": 0.0}, which `ablate` tries.

    Returns:
        A decorator for functions that return `Transform(init, update)`.

    Raises:
        TypeError: If an argument is of the wrong kind.
    """
    if not isinstance(state, type):
        raise TypeError(f"atom needs state to be the class of the state; received {describe_argument(state)}.")
    for argument, value in (("params", params), ("linear", linear), ("contains", contains)):
        check_bool("atom", argument, value)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        check_callable("atom", "the decorated object", function, expected="a function that returns a Transform")
        name = function.__name__
        expected, needs_params, is_linear = state, params, linear or contains

        @functools.wraps(function)
        def build(*args: P.args, **kwargs: P.kwargs) -> R:
            built: Any = function(*args, **kwargs)

            def init(params: PyTree) -> Any:
                return built.init(as_arrays(name, "params", params, is_linear=is_linear))

            # Optax itself passes some of these by keyword, so their names are part of the interface.
            def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> Any:
                check_state(name, expected, state)
                updates = as_arrays(name, "the gradient", updates, is_linear=is_linear)
                if needs_params:
                    check_params(name, updates, params)
                    params = as_arrays(name, "params", params, is_linear=is_linear)
                try:
                    new, new_state = built.update(updates, state, params, **extra)
                except MismatchError:  # an inner part has already explained the mistake
                    raise
                except (ValueError, TypeError) as error:
                    explain(name, built, updates, state, error)
                    raise
                check_shapes(name, updates, new, state, new_state, reshapes=contains)
                return new, new_state

            return Transform(init, update)  # pyright: ignore[reportReturnType]

        return _constructor(function, build, "atom", neutral=_neutral("atom", function, neutral))

    return decorate


def composite(
    conventions: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function the constructor of a named chain, which prints by its name and expands into atoms.

    Args:
        conventions: Defaults that depend on the argument `convention`; they replace arguments that are None.

    Returns:
        A decorator for functions that return a `Transform`.

    Raises:
        TypeError: If `conventions` is not a mapping of mappings.
    """
    given = {} if conventions is None else conventions
    if not isinstance(given, Mapping) or not all(isinstance(values, Mapping) for values in given.values()):
        raise TypeError(
            "composite needs conventions to be a mapping from a convention's name to its defaults; received "
            f"{describe_argument(conventions)}. Write @composite() if there are none."
        )
    table = tuple((name, tuple(values.items())) for name, values in given.items())

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        check_callable("composite", "the decorated object", function, expected="a function that returns a Transform")
        return _constructor(function, function, "composite", table)

    return decorate


def named_function(
    function: Callable[P, R] | None = None, *, neutral: Mapping[str, float] | None = None
) -> Callable[..., Any]:
    """Make a constructor whose functions record the call that built them, for `merge` and for schedules.

    Args:
        function: A function that returns a function of arrays.
        neutral: The values that disable arguments, such as {"eps": 0.0}, which `ablate` tries.

    Returns:
        A constructor with the same signature whose result is a `Function`; without `function`, a decorator.

    Raises:
        TypeError: If `function` is not callable.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        check_callable("named_function", "the decorated object", function)
        return _constructor(function, function, "function", neutral=_neutral("named_function", function, neutral))

    return decorate if function is None and neutral is not None else decorate(function)  # pyright: ignore


def from_optax(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a constructor of Optax transformations or schedules so that its results carry their specification.

    `from_optax(f)(…)` computes the same as `f(…)`; it also prints as that call, lists and replaces its hyperparameters,
    can be saved as JSON and compares by value. Updates and state keep their dtypes even where a traced hyperparameter
    would promote them. The inside of an Optax optimizer stays opaque: it expands to itself.

    Args:
        constructor: A function that returns an `optax.GradientTransformation`, or a plain function such as a schedule.

    Returns:
        A function with the same signature that returns a `Transform`, or a `Function`.

    Raises:
        TypeError: If `constructor` is already a transformation, or is not callable.

    Example:
        >>> import optax
        >>> tx = from_optax(optax.adam)(from_optax(optax.cosine_decay_schedule)(0.1, 100), b1=0.8)
        >>> tx
        from_optax(optax.adam)(from_optax(optax.cosine_decay_schedule)(0.1, 100), b1=0.8)
        >>> tx.replace({"b1": 0.9, "decay_steps": 50}).hyperparams["learning_rate.decay_steps"]
        50

    References:
        Optax's `inject_hyperparams` makes hyperparameters part of the state; here they are part of the transformation.
    """
    if isinstance(constructor, optax.GradientTransformation):
        raise TypeError(
            "from_optax needs the function that builds a transformation; received the built transformation. Write "
            "from_optax(optax.adam)(1e-3), not from_optax(optax.adam(1e-3))."
        )
    if not callable(constructor):
        raise TypeError(f"from_optax needs a function that builds a transformation; received {constructor!r}.")

    return _lift(constructor)


@functools.cache  # so that wrapping a function twice gives equal transformations
def _lift(function: Callable[..., Any]) -> Callable[..., Any]:
    name = getattr(function, "__qualname__", repr(function))

    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> Any:
        explain_traced = functools.partial(traced.explained, function, name, args, kwargs)
        with explain_traced():
            built = traced.form_for(function, args, kwargs)(*args, **kwargs)
        return _transform(built, name, explain_traced) if isinstance(built, optax.GradientTransformation) else built

    neutral = {name: 0.0 for name in inspect.signature(function).parameters if name in _OFF_AT_ZERO}
    return _constructor(function, build, "optax", neutral=neutral)


# Optax's constructors declare no values that disable their arguments. These names it uses in one sense each.
_OFF_AT_ZERO = {"eps", "eps_root", "weight_decay", "eta", "momentum_decay"}


def _neutral(who: str, function: Callable[..., Any], values: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return the values that disable arguments of a function, checked."""
    if values is None:
        return {}
    known = inspect.signature(function).parameters
    if not isinstance(values, Mapping) or not values.keys() <= known.keys():
        received = ", ".join(map(repr, values)) if isinstance(values, Mapping) else describe_argument(values)
        raise TypeError(
            f"{who} needs neutral to map arguments of {function.__name__} to numbers; received {received}. Its "
            f"arguments are {', '.join(known) or 'none'}."
        )
    return {name: float(check_real(who, f"neutral[{name!r}]", value)) for name, value in values.items()}


def _constructor(
    function: Any, build: Any, kind: str, conventions: tuple[Any, ...] = (), neutral: Mapping[str, float] | None = None
) -> Any:
    signature = inspect.signature(function)
    if kind == "optax":
        path = import_path(function) or ""
        module, _, short = path.rpartition(":")
        name = f"{module}.{short}" if module else getattr(function, "__qualname__", repr(function))
    else:
        name = function.__name__
        path = f"{function.__module__}:{name}"
    described = Constructor(name, path, build, signature, kind, conventions, neutral or {})

    @functools.wraps(function)
    def constructor(*args: Any, **kwargs: Any) -> Any:
        return construct(Spec(described, _bind(described, args, kwargs)))

    constructor.constructor = described  # pyright: ignore[reportAttributeAccessIssue]
    return constructor


def _bind(constructor: Constructor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    parameters = constructor.signature.parameters
    if "accumulator_dtype" in kwargs and "dtype" in parameters and constructor.kind != "optax":  # Optax's name for it
        if "dtype" in kwargs:
            raise TypeError(
                f"{constructor.name}: accumulator_dtype is another name of dtype; received both. Give dtype only."
            )
        kwargs = {"dtype" if name == "accumulator_dtype" else name: value for name, value in kwargs.items()}
    try:
        bound = constructor.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{constructor.name}: {error}. Its arguments are {', '.join(parameters)}.") from None
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    if constructor.conventions:
        constructor.check_convention(arguments["convention"])
        chosen = dict(dict(constructor.conventions)[arguments["convention"]])
        arguments = {name: chosen.get(name) if value is None else value for name, value in arguments.items()}
    for name, value in arguments.items():
        if isinstance(value, np.generic):  # as from np.linspace: converted to the Python number, which is saved exactly
            value = arguments[name] = value.item()
        # An integer given for a real hyperparameter is converted, so that it does not compile another program.
        number: Any = value if isinstance(value, Real) and not isinstance(value, bool | float) else None
        if number is not None and parameters[name].annotation in _REAL and abs(number) < 1e300:
            arguments[name] = float(number)
    return arguments


_REAL = (ScalarLike, ScalarOrSchedule, ScalarLike | None, ScalarOrSchedule | None)


def _transform(transformation: optax.GradientTransformation, name: str, explain_traced: Callable[[], Any]) -> Transform:
    """Return a transformation that keeps dtypes, does not broadcast, and explains tracing errors of Optax."""
    inner = with_any_extra(transformation)

    def init(params: PyTree) -> Any:
        with explain_traced():
            return inner.init(without_integers(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> Any:
        updates, params = without_integers(updates), without_integers(params)
        with explain_traced():
            new, new_state = inner.update(updates, state, params, **extra)
        check_shapes(f"from_optax({name})", updates, new, state, state, reshapes=True)
        return _as_before(new, updates), _as_before(new_state, state)

    return Transform(init, update)


def _as_before(new: Any, old: Any) -> Any:
    """Return a tree cast to the dtypes of another tree of the same structure."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        return new
    return jax.tree.map(lambda n, o: n if jnp.result_type(n) == jnp.result_type(o) else n.astype(o.dtype), new, old)
