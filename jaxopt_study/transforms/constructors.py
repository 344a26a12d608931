"""Decorators that turn a function into a constructor of expressions."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study.transforms.mismatch import MismatchError, check_params, check_shapes, check_state, explain
from jaxopt_study.transforms.printing import import_path
from jaxopt_study.transforms.scalars import ScalarLike, ScalarOrSchedule
from jaxopt_study.transforms.spec import Constructor, Spec, Transform, construct

P = ParamSpec("P")
R = TypeVar("R")


def atom(*, state: type = optax.EmptyState, params: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a constructor of transformations that are not made of others.

    The update checks what a user may get wrong before the atom runs: a state that belongs to another chain, and missing
    parameters.

    Args:
        state: The class of the atom's state.
        params: Whether the update needs the parameters.

    Returns:
        A decorator for functions that return `Transform(init, update)`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__
        expected, needs_params = state, params

        @functools.wraps(function)
        def build(*args: P.args, **kwargs: P.kwargs) -> R:
            built: Any = function(*args, **kwargs)

            # Optax itself passes some of these by keyword, so their names are part of the interface.
            def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
                check_state(name, expected, state)
                if needs_params:
                    check_params(name, updates, params)
                try:
                    new, new_state = built.update(updates, state, params, **extra)
                except MismatchError:  # a part inside has said what is wrong
                    raise
                except (ValueError, TypeError) as error:
                    explain(name, built, updates, state, error)
                    raise
                check_shapes(name, updates, new, state, new_state)
                return new, new_state

            return Transform(built.init, update)  # pyright: ignore[reportReturnType]

        return _constructor(function, build, "atom")

    return decorate


def composite(
    conventions: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a constructor of a named chain, which prints by its name and expands into atoms.

    Args:
        conventions: Defaults that depend on the argument `convention`: arguments that are None are filled from here.

    Returns:
        A decorator for functions that return a `Transform`.
    """
    table = tuple((name, tuple(values.items())) for name, values in (conventions or {}).items())

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return _constructor(function, function, "composite", table)

    return decorate


def named_function(function: Callable[P, R]) -> Callable[P, R]:
    """Make a constructor of functions that remember the call that built them, for `merge` and for schedules.

    Args:
        function: A function that returns a function of arrays.

    Returns:
        A constructor with the same signature whose result is a `Function`.
    """
    return _constructor(function, function, "function")


def lift(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """Give a constructor of Optax transformations or schedules everything a `Transform` has.

    The result of `lift(f)(…)` does what `f(…)` does, and it prints, lists and replaces its hyperparameters, is saved as
    JSON and compares equal. Updates and state keep their dtypes even where a traced hyperparameter would promote them.
    It does not look inside: a lifted optimizer expands to itself.

    Args:
        constructor: A function that returns an `optax.GradientTransformation`, or a plain function such as a schedule.

    Returns:
        A function with the same signature that returns a `Transform`, or a `Function`.

    Raises:
        TypeError: If `constructor` is a transformation already, or not callable.

    Example:
        >>> import optax
        >>> tx = lift(optax.adam)(lift(optax.cosine_decay_schedule)(0.1, 100), b1=0.8)
        >>> tx
        lift(optax.adam)(lift(optax.cosine_decay_schedule)(0.1, 100), b1=0.8)
        >>> tx.replace({"b1": 0.9, "decay_steps": 50}).hyperparams["learning_rate.decay_steps"]
        50

    References:
        Optax's `inject_hyperparams` makes hyperparameters part of the state; here they are part of the transformation.
    """
    if isinstance(constructor, optax.GradientTransformation):
        raise TypeError(
            "lift takes the function that builds a transformation, received the built transformation: write "
            "lift(optax.adam)(1e-3), not lift(optax.adam(1e-3))."
        )
    if not callable(constructor):
        raise TypeError(f"lift takes a function that builds a transformation, received {constructor!r}.")

    return _lift(constructor)


@functools.cache  # so that lifting a function twice gives equal transformations
def _lift(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> Any:
        built = function(*args, **kwargs)
        return _keep_dtypes(built) if isinstance(built, optax.GradientTransformation) else built

    return _constructor(function, build, "lifted")


def _constructor(function: Any, build: Any, kind: str, conventions: tuple[Any, ...] = ()) -> Any:
    signature = inspect.signature(function)
    if kind == "lifted":
        path = import_path(function) or ""
        module, _, short = path.rpartition(":")
        name = f"{module}.{short}" if module else getattr(function, "__qualname__", repr(function))
    else:
        name = function.__name__
        path = f"{function.__module__}:{name}"
    described = Constructor(name, path, build, signature, kind, conventions)

    @functools.wraps(function)
    def constructor(*args: Any, **kwargs: Any) -> Any:
        return construct(Spec(described, _bind(described, args, kwargs)))

    constructor.constructor = described  # pyright: ignore[reportAttributeAccessIssue]
    return constructor


def _bind(constructor: Constructor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = constructor.signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    if constructor.conventions:
        known = [name for name, _ in constructor.conventions]
        if arguments["convention"] not in known:
            raise ValueError(
                f"{constructor.name}: convention must be one of {', '.join(map(repr, known))}, received "
                f"{arguments['convention']!r}."
            )
        chosen = constructor.defaults(arguments["convention"])
        arguments = {name: chosen.get(name) if value is None else value for name, value in arguments.items()}
    for name, value in arguments.items():
        if isinstance(value, np.generic):  # as from np.linspace: the same number, in a form that is saved exactly
            value = arguments[name] = value.item()
        # A whole number given for a real hyperparameter is the same hyperparameter, not another program.
        if type(value) is int and constructor.signature.parameters[name].annotation in _REAL:
            arguments[name] = float(value)
    return arguments


_REAL = (ScalarLike, ScalarOrSchedule, ScalarLike | None, ScalarOrSchedule | None)


def _keep_dtypes(transformation: optax.GradientTransformation) -> Transform:
    inner = optax.with_extra_args_support(transformation)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        new, new_state = inner.update(updates, state, params, **extra)
        return _as_before(new, updates), _as_before(new_state, state)

    return Transform(inner.init, update)


def _as_before(new: Any, old: Any) -> Any:
    """Return a tree with the dtypes of another one of the same structure."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        return new
    return jax.tree.map(lambda n, o: n if jnp.result_type(n) == jnp.result_type(o) else n.astype(o.dtype), new, old)
