"""Printing specifications as Python expressions."""

import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

WIDTH = 88
PUBLIC_MODULES = {
    "jnp": "jax.numpy",
    "jax.nn": "jax.nn",
    "optax": "optax",
    "optax.contrib": "optax.contrib",
    "jax.lax": "jax.lax",
}


def render_call(spec: Any) -> str:
    """Return the call that a specification describes, over several lines if it is long."""
    constructor = spec.constructor
    name = (
        f"from_optax({constructor.name})"
        if constructor.kind == "optax"
        else _stage(constructor.path) + constructor.name
    )
    parts: list[str] = []
    keywords = False
    shown = spec.shown()
    for argument, value in spec.arguments.items():
        if argument not in shown and argument != "learning_rate":  # which every reader looks for
            continue
        parameter = constructor.signature.parameters[argument]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            parts += [render(item) for item in value]
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            parts += [f"{key}={render(item)}" for key, item in value.items()]
        elif _leads(parameter) and not keywords:
            parts.append(render(value))
        else:
            keywords = True
            parts.append(f"{argument}={render(value)}")
    line = f"{name}({', '.join(parts)})"
    if len(line) <= WIDTH and "\n" not in line:
        return line
    body = "".join("    " + part.replace("\n", "\n    ") + ",\n" for part in parts)
    return f"{name}(\n{body})"


def _leads(parameter: inspect.Parameter) -> bool:
    """Return whether an argument is printed without its name: one without a default, or the learning rate."""
    required = parameter.default is inspect.Parameter.empty or parameter.name == "learning_rate"
    return required and parameter.kind.value < 2


def _stage(path: str) -> str:
    """Return "optimizers." for a named optimizer, because an atom may have the same name, such as `nesterov`."""
    return "optimizers." if path.startswith("jaxopt_study.optimizers.") else ""


def render(value: Any) -> str:
    """Return a Python expression for an argument value."""
    if isinstance(value, Tracer):
        return f"<traced {value.aval.str_short()}>"
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(value))
        return f"jax.random.wrap_key_data({render(jnp.asarray(data))}, impl={str(jax.random.key_impl(value))!r})"
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        module = "jnp" if isinstance(value, jax.Array) else "np"
        return f"{module}.array({array.tolist()!r}, dtype={str(array.dtype)!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {render(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple) and type(value) is tuple:
        return "(" + ", ".join(map(render, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(render, value)) + "]"
    if callable(value) and getattr(value, "spec", None) is None:
        path = import_path(value)
        if path is None:
            return f"<{getattr(value, '__qualname__', type(value).__name__)}>"
        module, _, name = path.partition(":")
        short = {full: alias for alias, full in PUBLIC_MODULES.items()}.get(module, module)
        return name if module.startswith("jaxopt_study.") else f"{short}.{name}"
    return repr(value)


def import_path(function: Any) -> str | None:
    """Return the path "module:name" that imports exactly this function, or None."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if name is None:
        return None
    for module in PUBLIC_MODULES.values():
        if vars(importlib.import_module(module)).get(name) is function:  # its own names, no __getattr__
            return f"{module}:{name}"
    home = f"{getattr(function, '__module__', None)}:{name}"
    return home if resolve(home) is function else None


def resolve(path: str) -> Any:
    """Return the object at a path "module:name", or None if it does not exist.

    It imports the module and so runs its code: use it only for paths of this program, never for those read from a file.
    """
    module, _, name = path.partition(":")
    try:
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError):  # ValueError: an empty module name, or one with too many dots
        return None
    return target
