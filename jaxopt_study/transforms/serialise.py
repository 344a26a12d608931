"""Expressions as JSON text, and back."""

import inspect
import json
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from jaxopt_study.transforms.constructors import lift
from jaxopt_study.transforms.printing import import_path, render, resolve
from jaxopt_study.transforms.spec import Constructor, Expression, Spec, construct

FORMAT = "jaxopt_study.transform/1"
TRUSTED = ("jaxopt_study", "optax", "jax")


def to_json(expression: Expression, *, indent: int | None = None) -> str:
    """Return an expression as JSON text; see `Transform.to_json`."""
    return json.dumps({"format": FORMAT, "expression": _encode(expression, "transformation")}, indent=indent)


def from_json(text: str, *, trusted: tuple[str, ...] = ()) -> Any:
    """Build the transformation or function that JSON text describes.

    It calls only constructors of this package and lifted functions of Optax, and refers to functions of these and JAX,
    so that a file from elsewhere cannot run other code; name further packages in `trusted` if their functions were
    lifted or used.

    Args:
        text: What `to_json` returned.
        trusted: Names of further packages that may be imported, and whose functions may be called.

    Returns:
        An expression equal to the one that was saved.

    Raises:
        ValueError: If the text is not a saved expression, names something that does not exist, or something outside the
            trusted packages.

    Example:
        >>> tx = ema(0.9)
        >>> from_json(tx.to_json()) == tx
        True
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"Not JSON: {error}. Expected the text that to_json returned.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ValueError(f"Expected a document of format {FORMAT!r}, received {found!r}.")
    built = _decode(document.get("expression"), trusted)
    if not isinstance(built, Expression):
        raise ValueError(f"Not a saved expression: {document.get('expression')!r}.")
    return built


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, Tracer):
        raise ValueError(f"{where} is traced and has no value to save; call to_json outside jit and vmap.")
    if isinstance(value, Expression) and value.spec is not None:
        constructor = value.spec.constructor
        if not constructor.path:
            raise ValueError(
                f"{where}: {constructor.name} cannot be imported by name; define the lifted function at the top level "
                "of a module."
            )
        arguments = {name: _encode(v, f"{constructor.name}: {name}") for name, v in value.spec.arguments.items()}
        return {"lift" if constructor.kind == "lifted" else "call": _public(constructor), "arguments": arguments}
    if isinstance(value, optax.GradientTransformation):
        raise ValueError(f"{where} is a bare Optax transformation; build it with lift, as in lift(optax.adam)(1e-3).")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"key": np.asarray(jax.random.key_data(value)).tolist(), "impl": str(jax.random.key_impl(value))}
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        return {"array": array.tolist(), "dtype": str(array.dtype), "jax": isinstance(value, jax.Array)}
    if isinstance(value, tuple) and type(value) is tuple:
        return {"tuple": [_encode(item, where) for item in value]}
    if isinstance(value, list):
        return [_encode(item, where) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, dict):  # a schedule's boundaries, say: JSON itself has text for keys only
        return {"items": [[_encode(key, where), _encode(item, where)] for key, item in value.items()]}
    path = import_path(value) if callable(value) else None
    if path is None:
        raise ValueError(
            f"{where}: {render(value)} cannot be written as text. Name functions at the top level of a module; build "
            "schedules with lift, as in lift(optax.cosine_decay_schedule)(0.1, 100)."
        )
    return {"function": path}


def _public(constructor: Constructor) -> str:
    """Return the shortest path to a constructor, so that moving it inside a package does not break what was saved."""
    if constructor.kind == "lifted":
        return constructor.path
    module, _, name = constructor.path.partition(":")
    parts = module.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts)))
    paths = (f"{package}:{name}" for package in packages)
    found = (path for path in paths if getattr(resolve(path), "constructor", None) == constructor)
    return next(found, constructor.path)


def _decode(value: Any, trusted: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_decode(item, trusted) for item in value]
    if not isinstance(value, dict):
        return value
    if "call" in value or "lift" in value:
        return _build(value, trusted)
    if "function" in value:
        return _find(value["function"], (*TRUSTED, *trusted))
    if "key" in value:
        return jax.random.wrap_key_data(jnp.asarray(value["key"], dtype=jnp.uint32), impl=value["impl"])
    if "array" in value:
        array = np.array(value["array"], dtype=jnp.dtype(value["dtype"]))
        return jnp.asarray(array) if value["jax"] else array
    if "tuple" in value:
        return tuple(_decode(item, trusted) for item in value["tuple"])
    if "dict" in value:
        return {key: _decode(item, trusted) for key, item in value["dict"].items()}
    if "items" in value:
        return {_decode(key, trusted): _decode(item, trusted) for key, item in value["items"]}
    raise ValueError(f"Not part of a saved expression: {value!r}.")


def _build(value: dict[str, Any], trusted: tuple[str, ...]) -> Any:
    if "call" in value:
        constructor = getattr(_find(value["call"], ("jaxopt_study", *trusted)), "constructor", None)
        if not isinstance(constructor, Constructor):
            raise ValueError(f"{value['call']!r} is not a constructor of transformations.")
    else:
        # What is lifted is called with the file's arguments, and JAX and this package have functions that write files.
        constructor: Any = getattr(lift(_find(value["lift"], ("optax", *trusted))), "constructor", None)
    arguments = {name: _decode(item, trusted) for name, item in value["arguments"].items()}
    parameters = constructor.signature.parameters
    unknown = [name for name in arguments if name not in parameters]
    missing = [name for name, p in parameters.items() if name not in arguments and p.default is inspect.Parameter.empty]
    if unknown or missing:
        raise ValueError(
            f"{constructor.name}: its arguments are {', '.join(parameters)}; the text has {', '.join(arguments)}. It "
            f"was saved by another version: rename {unknown or missing} in it."
        )
    return construct(Spec(constructor, arguments))


def _find(path: str, trusted: tuple[str, ...]) -> Any:
    package = path.partition(":")[0].partition(".")[0]
    found = resolve(path) if package in trusted else None
    if isinstance(found, ModuleType):
        raise ValueError(f"{path!r} is a module, not a function or constructor.")
    # A trusted module may itself have imported anything ("jax:os.system"), so the function's own home counts too.
    home = str(getattr(found, "__module__", package)).partition(".")[0]
    if package not in trusted or home not in trusted:
        raise ValueError(
            f"{path!r} is outside the trusted packages ({', '.join(trusted)}). If you trust it, pass "
            f"from_json(text, trusted=({home if package in trusted else package!r},))."
        )
    if found is None:
        raise ValueError(f"{path!r} does not exist here. It was saved by another version, or its package is missing.")
    return found
