"""Registry of the problems that can be built by name, without arguments."""

import inspect
from collections.abc import Callable
from typing import TypeVar

from jaxopt_study.problems._problem import Problem

Constructor = TypeVar("Constructor", bound=Callable[..., Problem])

_CATALOGUE: dict[str, Callable[..., Problem]] = {}


def listed(constructor: Constructor) -> Constructor:
    """Register a constructor in the catalogue under its own name.

    As a decorator, it registers a problem at its definition. It returns the constructor unchanged.

    Args:
        constructor: A function that returns a `Problem` and can be called without arguments. Listings show the first
            line of its docstring.

    Returns:
        The same constructor.

    Raises:
        ValueError: If it needs an argument, has no docstring, or shares its name with a problem of another module.

    Example:
        >>> listed(lambda size: size)
        Traceback (most recent call last):
        ...
        ValueError: The constructor '<lambda>' cannot be listed: ... it needs 'size'; give it a default...
    """
    name = constructor.__name__
    required = [
        parameter.name
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.default is parameter.empty and not parameter.kind.name.startswith("VAR_")  # not *args, **kwargs
    ]
    if required:
        raise ValueError(
            f"The constructor {name!r} cannot be listed: the catalogue calls it without arguments, but it needs "
            f"{', '.join(map(repr, required))}; give it a default, or list a function that supplies it."
        )
    if not (constructor.__doc__ or "").strip():
        raise ValueError(
            f"The constructor {name!r} cannot be listed without a docstring; listings show its first line."
        )
    known = _CATALOGUE.get(name)
    if known is not None and known.__module__ != constructor.__module__:  # reloading the same module is not a clash
        raise ValueError(
            f"Two problems are called {name!r}, in {known.__module__} and {constructor.__module__}: rename one."
        )
    _CATALOGUE[name] = constructor
    return constructor


def catalogue() -> dict[str, Callable[..., Problem]]:
    """Return every listed problem by name, in the order of definition.

    No problem is built and no data are loaded until a constructor is called.

    Returns:
        A new dictionary from names to constructors, each of which can be called without arguments and returns a
        `Problem`.

    Example:
        >>> from jaxopt_study import problems
        >>> problem = problems.catalogue()["rosenbrock"]()
        >>> print(problem.minima[0].params)
        [1. 1.]
        >>> print(problems.catalogue()["rosenbrock"].__doc__.splitlines()[0])
        Build Rosenbrock's banana valley (1 − x)² + 100(y − x²)².
    """
    return dict(_CATALOGUE)
