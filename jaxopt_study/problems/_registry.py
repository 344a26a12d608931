"""The problems that can be built by name, without arguments."""

import inspect
from collections.abc import Callable
from typing import TypeVar

from jaxopt_study.problems._problem import Problem

Constructor = TypeVar("Constructor", bound=Callable[..., Problem])

_CATALOGUE: dict[str, Callable[..., Problem]] = {}


def listed(constructor: Constructor) -> Constructor:
    """Enter a constructor into the catalogue under its own name.

    A decorator, so that a problem is listed where it is written and nowhere else. It returns the constructor unchanged.

    Args:
        constructor: A function that returns a `Problem` and can be called without arguments. The first line of its
            docstring is what a listing shows.

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
            f"{', '.join(map(repr, required))}; give it a default or list a function that chooses one."
        )
    if not (constructor.__doc__ or "").strip():
        raise ValueError(
            f"The constructor {name!r} cannot be listed without a docstring: its first line is the listing."
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

    Listing builds no problem and loads no data: a constructor does that when it is called.

    Returns:
        Name → constructor; each can be called without arguments and returns a `Problem`. A new dictionary.

    Example:
        >>> from jaxopt_study import problems
        >>> problem = problems.catalogue()["rosenbrock"]()
        >>> print(problem.minima[0].params)
        [1. 1.]
        >>> print(problems.catalogue()["rosenbrock"].__doc__.splitlines()[0])
        Build Rosenbrock's banana valley (1 − x)² + 100(y − x²)².
    """
    return dict(_CATALOGUE)
