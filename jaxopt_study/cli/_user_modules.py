"""Optimizers, losses and parameters imported from a user's module, by `module:name`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optax

from jaxopt_study.cli._errors import UserError


def import_optimizer(path: str) -> optax.GradientTransformation:
    """Build an optimizer with a user's function without arguments.

    Args:
        path: `module:function`; the module may be in the current folder.

    Returns:
        Any Optax transformation.

    Raises:
        UserError: If the module or function is missing or fails, or returns something else.
    """
    return call_maker(path, import_maker(path))


def import_maker(path: str) -> Callable[..., Any]:
    """Return a user's function that builds an optimizer.

    Args:
        path: `module:function`; the module may be in the current folder.

    Raises:
        UserError: If the module or function is missing, or it is not a function.
    """
    maker = import_named(path, what="an optimizer")
    if isinstance(maker, optax.GradientTransformation):
        raise UserError(f"{path!r} is an optimizer, not a function that returns one: write a function.")
    if not callable(maker):
        raise UserError(f"{path!r} is {maker!r}; expected a function that returns an optimizer.")
    return maker


def call_maker(path: str, maker: Callable[..., Any], **hyperparameters: Any) -> optax.GradientTransformation:
    """Build an optimizer with a user's function.

    Args:
        path: `module:function`, for messages.
        maker: The function.
        **hyperparameters: Its arguments.

    Returns:
        Any Optax transformation.

    Raises:
        UserError: If the function fails or returns something else.
    """
    try:
        built = maker(**hyperparameters)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in hyperparameters.items())
        how = f"with {given}" if given else "without arguments"
        raise UserError(f"{path!r}: calling it {how} fails with {type(error).__name__}: {error}") from error
    if not isinstance(built, optax.GradientTransformation):
        raise UserError(
            f"{path!r} returned {built!r} of type {type(built).__name__}; expected an Optax transformation, such as "
            "optimizers.adam(1e-3) or optax.adam(1e-3)."
        )
    return built


def import_named(path: str, *, what: str) -> Any:
    """Return an object of a user's module.

    Args:
        path: `module:name`; the module may be in the current folder.
        what: The expected object, for messages.

    Returns:
        The object.

    Raises:
        UserError: If the module or the name is missing, or importing it fails.
    """
    module_name, separator, name = path.partition(":")
    if not separator or not module_name or not name:
        raise UserError(f"{path!r} does not name {what}: write module:function, such as mine:build for mine.py.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing == module_name.partition(".")[0] or missing == module_name:
            raise UserError(
                f"{path!r}: there is no module {missing!r}. Run the command in the folder of {missing}.py, or "
                "install it."
            ) from None
        raise UserError(f"{path!r}: the module {module_name!r} needs {missing!r}, which is not installed.") from None
    except Exception as error:
        raise UserError(f"{path!r}: importing {module_name!r} fails with {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise UserError(f"{path!r}: {module_name!r} has no {name!r}. Functions there: {_functions(value)}.")
        value = getattr(value, part)
    return value


def _functions(module: Any) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    return ", ".join(names) or "none"
