"""Writing expressions as JSON text."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from jaxopt_study.transforms._printing import import_path, render, resolve

FORMAT = "jaxopt_study.transform/2"


def to_json(expression: Any, *, indent: int | None = None) -> str:
    """Return an expression as JSON text; see `Transform.to_json`."""
    return json.dumps({"format": FORMAT, "expression": _encode(expression, "transformation")}, indent=indent)


def is_saved(dtype: Any) -> bool:
    """Return whether JSON can hold arrays of this dtype, that is, of real numbers or booleans."""
    return not dtype.hasobject and (jnp.issubdtype(dtype, jnp.floating) or dtype.kind in "biu")


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, Tracer):
        raise ValueError(f"{where} is traced and has no concrete value to save; call to_json outside jit and vmap.")
    spec = getattr(value, "spec", None)
    if spec is not None:
        constructor = spec.constructor
        if not constructor.path:
            raise ValueError(
                f"{where}: {constructor.name} cannot be imported by name; define the function at the top level "
                "of a module."
            )
        arguments = {name: _encode(v, f"{constructor.name}: {name}") for name, v in spec.arguments.items()}
        return {"from_optax" if constructor.kind == "optax" else "call": _public(constructor), "arguments": arguments}
    if isinstance(value, optax.GradientTransformation):
        raise ValueError(
            f"{where} is a bare Optax transformation; build it with from_optax, as in from_optax(optax.adam)(1e-3)."
        )
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"key": np.asarray(jax.random.key_data(value)).tolist(), "impl": str(jax.random.key_impl(value))}
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        if not is_saved(array.dtype):
            raise ValueError(f"{where} is an array of {array.dtype}, which JSON cannot hold; use real numbers.")
        return {"array": array.tolist(), "dtype": str(array.dtype), "jax": isinstance(value, jax.Array)}
    if isinstance(value, tuple) and type(value) is tuple:
        return {"tuple": [_encode(item, where) for item in value]}
    if isinstance(value, list):
        return [_encode(item, where) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, dict):  # such as a schedule's boundaries: JSON's own keys are strings only
        return {"items": [[_encode(key, where), _encode(item, where)] for key, item in value.items()]}
    path = import_path(value) if callable(value) else None
    if path is None:
        raise ValueError(
            f"{where}: {render(value)} cannot be written as text. Define functions at the top level of a module; "
            "build schedules with from_optax, as in from_optax(optax.cosine_decay_schedule)(0.1, 100)."
        )
    return {"function": path}


def _public(constructor: Any) -> str:
    """Return the shortest import path to a constructor, so that saved expressions survive moves inside a package."""
    if constructor.kind == "optax":
        return constructor.path
    module, _, name = constructor.path.partition(":")
    parts = module.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts)))
    paths = (f"{package}:{name}" for package in packages)
    matching = (path for path in paths if getattr(resolve(path), "constructor", None) == constructor)
    return next(matching, constructor.path)
